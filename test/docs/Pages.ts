/** The pages of the documentation. */
import { readdirSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"

export const root = resolve(import.meta.dirname, "../..")

/** From the root of the repository. */
export const paths: ReadonlyArray<string> = [
  "README.md",
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name))
]

export const read = (path: string): string => readFileSync(join(root, path), "utf8")

/** Without what stands in fenced blocks. */
export const prose = (page: string): string => page.replaceAll(/^ *```.*?^ *```$/gms, "")

/** The anchors that a page has, as GitHub makes them of its headings. */
export const anchors = (page: string): ReadonlyArray<string> =>
  [...prose(page).matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-")
  )

export interface Block {
  readonly language: string
  readonly text: string
  /** Why it is not run: what stands before it as `<!-- not run: … -->`. */
  readonly notRun: string | undefined
}

/** The fenced blocks of a page, in their order. */
export const blocks = (page: string): ReadonlyArray<Block> =>
  [...page.matchAll(/(?:^ *<!-- not run: ([^\n]*) -->\n+)?^( *)```(\w*)\n(.*?)^ *```$/gms)].map(
    ([, notRun, indentation, language, text]) => ({
      language,
      text: text.replaceAll(new RegExp(`^${indentation}`, "gm"), ""),
      notRun
    })
  )
