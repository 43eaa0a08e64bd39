/** The status page: one document that holds its script, its style and the chart library, so that nothing else is loaded. */
import { createHash } from "node:crypto"
import { readFile } from "node:fs/promises"
import { createRequire, findPackageJSON } from "node:module"
import { dirname, join } from "node:path"
import { Effect } from "effect"
import type { Page } from "../src/operate/Endpoints.ts"

/** Of the package, whose sources stand beside what is built of them. */
const folder = join(dirname(findPackageJSON("..", import.meta.url) ?? "package.json"), "layers/page")
const charts = dirname(createRequire(import.meta.url).resolve("uplot"))

const hashOf = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`

const read = (...path: ReadonlyArray<string>) => readFile(join(...path), "utf8")

export const load: Effect.Effect<Page> = Effect.promise(async () => {
  const [document, ...parts] = await Promise.all([
    read(folder, "page.html"),
    read(charts, "uPlot.min.css"),
    read(folder, "page.css"),
    read(charts, "uPlot.iife.min.js"),
    read(folder, "page.js")
  ])
  const [style, script] = [parts.slice(0, 2).join("\n"), parts.slice(2).join("\n")]
  return {
    html: document
      .replace("<style></style>", () => `<style>${style}</style>`)
      .replace("></script>", () => `>${script}</script>`),
    policy: [
      "default-src 'none'",
      `style-src ${hashOf(style)}`,
      `script-src ${hashOf(script)}`,
      "connect-src 'self'",
      "img-src data:",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'"
    ].join("; ")
  }
})
