import { assert, describe, it } from "vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { table } from "../src/Settings.ts"

const readme = readFileSync(join(import.meta.dirname, "../README.md"), "utf8")

const rows = readme
  .split("\n")
  .map((line) => /^\| `([a-z][a-z.-]*)` +\| (.*?) +\| (.*?) +\|$/.exec(line))
  .filter((match) => match !== null)
  .map(([, key, fallback, description]) => ({ key, fallback, description }))

describe("the README", () => {
  it("lists every setting with its default and description, in the order of their definition", () => {
    const expected = table.map((setting) => ({
      key: setting.key,
      fallback: setting.isRequired ? "required" : setting.default === undefined ? "–" : `\`${setting.default}\``,
      description: setting.description
    }))
    assert.deepStrictEqual(
      rows.filter(({ key }) => table.some((setting) => setting.key === key)),
      expected
    )
  })
})
