import { assert, describe, it } from "vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import * as Errors from "../../../src/Errors.ts"
import {
  exitCodeOf,
  exitCodes,
  isRetryable,
  type Outcome,
  outcomeOf,
  type Tag,
  tags
} from "../../../src/stream/Outcome.ts"
import { SqlFailure } from "../../../src/target/SqlFailure.ts"

const root = resolve(import.meta.dirname, "../../..")

/** These run when they are imported. */
const programs = ["layers/main.ts", "layers/embedded/BrokerProcess.ts"]

const modules = ["src", "layers"].flatMap((room) =>
  readdirSync(join(root, room), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(room, name))
    .filter((file) => !programs.includes(file))
)

const isErrorClass = (value: unknown): value is { readonly identifier: string; readonly prototype: Error } =>
  typeof value === "function" &&
  value.prototype instanceof Error &&
  "identifier" in value &&
  typeof value.identifier === "string"

/** The error classes that the modules export, each with its module. */
const exported = async () => {
  const found = new Map<string, string>()
  for (const file of modules) {
    const values = Object.values((await import(join(root, file))) as Record<string, unknown>)
    for (const value of values) if (isErrorClass(value)) found.set(value.identifier, file)
  }
  return found
}

const failure = (facts: Partial<SqlFailure>) =>
  new SqlFailure({
    sqlState: undefined,
    condition: "",
    class: "unknown",
    constraint: undefined,
    schema: undefined,
    table: undefined,
    column: undefined,
    isRetryable: false,
    remedy: "",
    ...facts
  })

const codeOf = (tag: Tag) => exitCodeOf({ _tag: tag })

describe("the table of outcomes", () => {
  it("has an entry for each error class, and none for what is no error class", async () => {
    const classes = await exported()
    for (const [tag, file] of classes) {
      assert.include(
        tags,
        tag,
        `${file} exports the error class ${tag}: add "${tag}" to the table in src/stream/Outcome.ts, give the class ` +
          `\`readonly isRetryable = isRetryable(this)\` and a \`remedy\`, and describe it in docs/errors.md`
      )
    }
    for (const tag of tags)
      assert.isTrue(classes.has(tag), `src/stream/Outcome.ts has an entry ${tag}, which no module exports`)
  })

  it("is of classes that programs find in Errors, but for those of the layers", async () => {
    const own = [...(await exported())].filter(([, file]) => file.startsWith("src/")).map(([tag]) => tag)
    assert.deepStrictEqual(
      own.filter((tag) => !Object.hasOwn(Errors, tag)),
      [],
      "export them from src/Errors.ts"
    )
  })

  it("is the only place that decides what is tried again", () => {
    for (const file of modules) {
      const text = readFileSync(join(root, file), "utf8")
      const classes = text.split(/^(?=export class)/m).filter((part) => /TaggedError/.test(part.split("\n")[0]))
      for (const part of classes) {
        const [head] = part.split("\n")
        const [body] = part.split(/^}$/m)
        assert.notMatch(
          body,
          /isRetryable(:\s*boolean)? = (true|false)/,
          `${file}: ${head} decides by itself: write \`readonly isRetryable = isRetryable(this)\``
        )
        assert.match(body, /\bremedy\b/, `${file}: ${head} has no remedy`)
      }
    }
  })

  it("gives each kind its exit code", () => {
    assert.strictEqual(codeOf("ConnectorConfigError"), exitCodes.usage)
    assert.strictEqual(codeOf("FluvioUnreachable"), exitCodes.gaveUp)
    for (const tag of ["EventDecodeError", "SchemaRefused", "RowConflict", "SourceRewound"] as const) {
      assert.strictEqual(codeOf(tag), exitCodes.stopped)
    }
    for (const unknown of [new TypeError("x"), undefined, null, "text", { _tag: "Unheard" }, { _tag: "toString" }]) {
      assert.strictEqual(exitCodeOf(unknown), exitCodes.failed)
    }
  })

  it("goes by the facts where the class alone does not tell", () => {
    const cases: ReadonlyArray<readonly [Partial<SqlFailure>, Outcome]> = [
      [{ class: "connection", isRetryable: true }, "passing"],
      [{ class: "timeout", isRetryable: true }, "passing"],
      [{ class: "authentication" }, "settings"],
      [{ sqlState: "26000" }, "settings"],
      [{ class: "data" }, "data"],
      [{ class: "constraint" }, "conflict"],
      [{ class: "privilege" }, "schema"],
      [{}, "defect"]
    ]
    for (const [facts, outcome] of cases) {
      const applied = { _tag: "ApplyFailed", failure: failure(facts) } as const
      for (const error of [failure(facts), applied]) {
        assert.strictEqual(outcomeOf(error), outcome)
        assert.strictEqual(isRetryable(error), outcome === "passing")
      }
    }
    const store = { _tag: "OffsetStoreError", class: "authentication", isRetryable: false }
    assert.strictEqual(outcomeOf(store), "settings")
    assert.strictEqual(outcomeOf({ ...store, class: "connection", isRetryable: true }), "passing")
    assert.strictEqual(outcomeOf({ ...store, class: undefined }), "schema")
  })
})
