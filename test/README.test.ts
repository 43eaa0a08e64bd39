import { assert, describe, it } from "vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { table } from "../src/Settings.ts"
import { exitCodeOf, exitCodes, tags } from "../src/stream/Outcome.ts"

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

  it("lists every error that can end the connector, with its exit code", () => {
    const development = [
      "BrokerError",
      "DatabaseError",
      "DatabasesDiffer",
      "InboundError",
      "PostgresServerError",
      "SinkEnded",
      "WaitedTooLong"
    ]
    const listed = new Map(
      readme
        .split("\n")
        .map((line) => /^\| ((?:`[A-Z]\w+`(?:, )?)+) +\|.*\| ([^|]+?) +\|$/.exec(line))
        .filter((match) => match !== null)
        .flatMap(([, names, code]) => [...names.matchAll(/\w+/g)].map(([name]) => [name, code] as const))
    )
    for (const tag of tags.filter((tag) => !development.includes(tag))) {
      const code = listed.get(tag)
      assert.isDefined(code, `README.md does not say of ${tag} what it means and what resolves it`)
      if (code !== "by class") assert.strictEqual(code, String(exitCodeOf({ _tag: tag })), tag)
    }
    assert.deepStrictEqual(
      [...listed.keys()].filter((name) => !tags.some((tag) => tag === name)),
      []
    )
  })

  it("lists the exit codes", () => {
    const codes = readme.split("\n").flatMap((line) => /^\| `(\d)` +\|/.exec(line)?.[1] ?? [])
    assert.deepStrictEqual(codes, Object.values(exitCodes).map(String))
  })
})
