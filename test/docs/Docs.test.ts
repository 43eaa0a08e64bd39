import { assert, describe, it } from "vitest"
import { existsSync } from "node:fs"
import { dirname, join } from "node:path"
import { exitCodeOf, exitCodes, tags } from "../../src/stream/Outcome.ts"
import { render } from "./Generated.ts"
import * as Pages from "./Pages.ts"

describe("the pages", () => {
  it.each(Pages.paths)("%s has its generated parts from the code as it is", async (path) => {
    const page = Pages.read(path)
    assert.strictEqual(page, await render(page, join(Pages.root, path)), `${path} is stale: run \`npm run docs\``)
  })

  it.each(Pages.paths)("%s links to what exists", (path) => {
    for (const [, link] of Pages.prose(Pages.read(path)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(link)) continue
      const [file, anchor] = link.split("#", 2)
      const target = file === "" ? path : join(dirname(path), file)
      assert.isTrue(existsSync(join(Pages.root, target)), `${path} links to ${link}: there is no ${target}`)
      if (anchor === undefined) continue
      assert.include(Pages.anchors(Pages.read(target)), anchor, `${path} links to ${link}, which is no heading of it`)
    }
  })
})

describe("README.md", () => {
  it("is short, and links to every page", () => {
    const page = Pages.read("README.md")
    assert.isAtMost(page.split("\n").length, 200)
    for (const path of Pages.paths.slice(1)) assert.include(page, `](${path})`)
  })
})

describe("docs/errors.md", () => {
  const page = Pages.read("docs/errors.md")

  it("describes every error, with its exit code and what resolves it", () => {
    const described = new Map(
      [...page.matchAll(/^### (\w+)\n\nExit (?:`(\d)`|(by class))\. .*?\*\*What resolves it:\*\* /gms)].map(
        ([, tag, code, byClass]) => [tag, byClass ?? code]
      )
    )
    for (const tag of tags) {
      const code = described.get(tag)
      assert.isDefined(code, `docs/errors.md does not say of ${tag} what it means and what resolves it`)
      if (code !== "by class") assert.strictEqual(code, String(exitCodeOf({ _tag: tag })), tag)
    }
    assert.sameMembers([...described.keys()], [...tags])
  })

  it("lists the exit codes", () => {
    const codes = [...page.matchAll(/^\| `(\d)` +\|/gm)].map(([, code]) => code)
    assert.deepStrictEqual(codes, Object.values(exitCodes).map(String))
  })
})
