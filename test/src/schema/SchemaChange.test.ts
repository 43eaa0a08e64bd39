import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { Offset } from "../../../src/stream/FluvioConsumer.ts"
import { Lsn } from "../../../src/stream/OffsetStore.ts"
import type { Relation, RelationColumn, ReplicaIdentity } from "../../../src/stream/Relation.ts"
import {
  type DiffOptions,
  type SchemaPolicy,
  type SchemaRefused,
  diff,
  fits
} from "../../../src/schema/SchemaChange.ts"
import type { TargetColumn, TargetTable } from "../../../src/target/TargetTable.ts"

const offset = Offset.make(42)
const commitLsn = Lsn.make(0x1_0000_00ffn)

/** Types of the source by the names they have in these tests. */
const types: { readonly [type: string]: readonly [id: number, modifier: number] } = {
  smallint: [21, -1],
  integer: [23, -1],
  bigint: [20, -1],
  real: [700, -1],
  "double precision": [701, -1],
  text: [25, -1],
  "character varying": [1043, -1],
  "character varying(5)": [1043, 9],
  "character varying(9)": [1043, 13],
  "character(3)": [1042, 7],
  "character(5)": [1042, 9],
  "bit(3)": [1560, 3],
  "bit(5)": [1560, 5],
  numeric: [1700, -1],
  "numeric(5,2)": [1700, (5 << 16) + 2 + 4],
  "numeric(6,3)": [1700, (6 << 16) + 3 + 4],
  "numeric(5,3)": [1700, (5 << 16) + 3 + 4],
  "numeric(5,-2)": [1700, (5 << 16) + 0x7fe + 4],
  "numeric(7,0)": [1700, (7 << 16) + 4],
  "numeric(6,0)": [1700, (6 << 16) + 4],
  date: [1082, -1],
  timestamp: [1114, -1],
  "timestamp(0)": [1114, 0],
  "timestamp(3)": [1114, 3],
  "timestamp with time zone": [1184, -1],
  "public.mood": [16500, -1]
}

const textOf = new Map(Object.entries(types).map(([text, [id, modifier]]) => [`${id}/${modifier}`, text]))

/** `"id integer key"`, `"name text"`: a name without blanks, a type, and whether it is part of the identity. */
const columnOf = (definition: string): RelationColumn => {
  const [, name, type, key] = /^(\S+) (.+?)( key)?$/.exec(definition) ?? []
  const [typeId, typeModifier] = types[type] ?? [99_999, -1]
  return { name, typeId, typeModifier, isKey: key !== undefined }
}

const relation = (columns: ReadonlyArray<string>, options: Partial<Relation> = {}): Relation => ({
  id: 7,
  namespace: "public",
  name: "t",
  replicaIdentity: "Default",
  columns: columns.map(columnOf),
  ...options
})

const target = (columns: ReadonlyArray<string>, options: Partial<TargetTable> = {}): TargetTable => ({
  schema: "public",
  name: "t",
  isPartitioned: false,
  columns: columns.map((definition): TargetColumn => {
    const [, name, type] = /^(\S+) (.+?)( key)?$/.exec(definition) ?? []
    return {
      name,
      type,
      fullType: type,
      isArray: false,
      hasEquality: true,
      isGenerated: false,
      identity: undefined,
      isNullable: true,
      hasDefault: false
    }
  }),
  primaryKey: undefined,
  isPrimaryKeyDeferrable: false,
  isPrimaryKeyTemporal: false,
  deferrableKeys: [],
  uniqueKeys: [],
  firesTriggers: false,
  checksForeignKeys: false,
  references: [],
  uniqueIndexes: 1,
  hasUncheckedKey: false,
  hasRowSecurity: false,
  ...options
})

interface Case {
  readonly policy?: SchemaPolicy
  readonly before?: Relation
  readonly after: Relation
  readonly target?: TargetTable
  readonly previousTarget?: TargetTable
  readonly options?: Partial<DiffOptions>
}

const tableOf = ({ name, namespace }: Relation) => ({ schema: namespace, name })

const run = ({ after, before, options, policy = "full", previousTarget, target }: Case) =>
  diff({ type: "relation", offset, relation: after, previous: before }, target, previousTarget, {
    policy,
    unclear: "stop",
    table: tableOf(after),
    previousTable: before && tableOf(before),
    hasSchema: true,
    hasRows: true,
    decide: (statements) => statements.join("; "),
    columnName: (name) => name,
    typeOf: ({ typeId, typeModifier }) =>
      textOf.get(`${typeId}/${typeModifier}`) ?? { reason: "it has no type with the name x", remedy: "create x" },
    commitLsn,
    ...options
  })

const nothing = { statements: [], warnings: [], unfilled: [] }
/** Options that filter these columns out. */
const leftOut = (...names: ReadonlyArray<string>) => ({
  columnName: (name: string) => (names.includes(name) ? undefined : name)
})

const done = (given: Case) => Result.getOrThrow(run(given))
const statements = (given: Case) => done(given).statements.map((statement) => statement.text)
const refused = (given: Case) => {
  const result = run(given)
  assert(Result.isFailure(result))
  return result.failure
}

/** A relation and a target that were equal, and what the relation becomes. */
const changed = (before: ReadonlyArray<string>, after: ReadonlyArray<string>, rest: Partial<Case> = {}): Case => ({
  before: relation(before),
  after: relation(after),
  target: target(before),
  ...rest
})

const create = (replicaIdentity: ReplicaIdentity, columns: ReadonlyArray<string>) =>
  statements({ after: relation(columns, { replicaIdentity }) })

describe("diff creates", () => {
  it("a table whose key is the identity, as far as the identity is one", () => {
    const columns = ["a integer key", "b text", "c numeric(5,2) key"]
    assert.deepStrictEqual(create("Default", columns), [
      `CREATE TABLE "public"."t" ("a" integer, "b" text, "c" numeric(5,2), PRIMARY KEY ("a", "c"))`
    ])
    assert.deepStrictEqual(create("Index", columns), [
      `CREATE TABLE "public"."t" ("a" integer NOT NULL, "b" text, "c" numeric(5,2) NOT NULL, UNIQUE ("a", "c"))`
    ])
    const bare = [`CREATE TABLE "public"."t" ("a" integer, "b" text, "c" numeric(5,2))`]
    assert.deepStrictEqual(create("Full", columns), bare)
    assert.deepStrictEqual(create("Nothing", columns), bare)
    assert.deepStrictEqual(create("Default", ["a integer"]), [`CREATE TABLE "public"."t" ("a" integer)`])
    assert.deepStrictEqual(create("Default", []), [`CREATE TABLE "public"."t" ()`])
  })

  it("the schema, when there is none", () => {
    const { statements } = done({ after: relation(["a integer"]), options: { hasSchema: false } })
    assert.deepStrictEqual(
      statements.map(({ kind, table, text }) => [kind, text, table]),
      [
        ["createSchema", `CREATE SCHEMA "public"`, `"public"."t"`],
        ["createTable", `CREATE TABLE "public"."t" ("a" integer)`, `"public"."t"`]
      ]
    )
  })

  it("no key of which a column is filtered out, and under mapped names", () => {
    const options: Case["options"] = {
      table: { schema: "copy", name: "u" },
      columnName: (name) => (name === "b" ? undefined : `x_${name}`)
    }
    assert.deepStrictEqual(statements({ after: relation(["a integer key", "b integer key", "c text"]), options }), [
      `CREATE TABLE "copy"."u" ("x_a" integer, "x_c" text)`
    ])
  })

  it("under every name that PostgreSQL allows", () => {
    const names = [`select`, `a.b`, `a"b"`, `Ünï`, `x'y\\`, "ü".repeat(31) + "x", `$1`, `--`, `";DROP`]
    const [text] = statements({
      after: relation(
        names.map((name) => `${name} integer key`),
        { namespace: `s."x`, name: `T."user` }
      )
    })
    const quoted = names.map((name) => `"${name.replaceAll('"', '""')}"`)
    assert.strictEqual(
      text,
      `CREATE TABLE "s.""x"."T.""user" (${quoted.map((name) => `${name} integer`).join(", ")}, PRIMARY KEY (${quoted.join(", ")}))`
    )
  })

  it("nothing for a type that the target does not know", () => {
    const error = refused({ after: relation(["a integer key", "b elsewhere"]) })
    assert.strictEqual(
      error.message,
      `"public"."t", offset 42, transaction 1/FF: the target cannot have the column "b": it has no type with the name x`
    )
    assert.strictEqual(error.remedy, "create x")
    assert.isFalse(error.isRetryable)
  })

  it("nothing in the place of a table that has gone with its rows", () => {
    const error = refused({ before: relation(["a integer"]), after: relation(["a integer", "b text"]) })
    assert.deepStrictEqual(error.alternatives, [[`CREATE TABLE "public"."t" ("a" integer, "b" text)`]])
    assert.include(error.message, "rows were applied to it before")
  })
})

describe("diff asks for nothing", () => {
  const columns = ["id integer key", "a text", "b text"]

  it("when the target has it all, or more", () => {
    assert.deepStrictEqual(done({ after: relation(columns), target: target(columns) }), nothing)
    const more = target(["own text", ...columns.toReversed(), "other integer"])
    assert.deepStrictEqual(done({ after: relation(columns), target: more }), nothing)
    assert.deepStrictEqual(done({ before: relation(columns), after: relation(columns), target: more }).statements, [])
  })

  it("when only the identity has changed", () => {
    const before = relation(columns)
    for (const replicaIdentity of ["Full", "Index", "Nothing"] as const) {
      const after = { ...before, replicaIdentity, columns: before.columns.map((c) => ({ ...c, isKey: true })) }
      assert.deepStrictEqual(done({ before, after, target: target(columns) }).statements, [])
    }
  })

  it("when an outdated relation comes without the one before", () => {
    assert.deepStrictEqual(done({ after: relation(["id bigint key"]), target: target(columns) }), nothing)
  })

  it("when the target was changed by hand, and shows it", () => {
    const ahead = (after: ReadonlyArray<string>) =>
      done({ before: relation(columns), after: relation(after), target: target(after) }).statements
    assert.deepStrictEqual(ahead([...columns, "c integer"]), [])
    assert.deepStrictEqual(ahead(["id integer key", "b text"]), [])
    assert.deepStrictEqual(ahead(["id integer key", "x text", "b text"]), [])
    assert.deepStrictEqual(ahead(["id integer key", "a text", "x text"]), [])
    assert.deepStrictEqual(ahead(["id bigint key", "a text", "b text"]), [])
  })

  it("when the policy is none", () => {
    assert.deepStrictEqual(done({ after: relation(["elsewhere x"]), policy: "none" }), nothing)
  })

  it("for columns that are filtered out", () => {
    const options: Case["options"] = { columnName: (name) => (name === "b" || name === "c" ? undefined : name) }
    const before = ["id integer key", "a text", "b date"]
    assert.deepStrictEqual(done(changed(before, ["id integer key", "a text", "c integer"], { options })).statements, [])
  })
})

describe("diff follows", () => {
  const columns = ["id integer key", "a text", "b date", "c text"]

  it("new columns, which are NULL in the rows that are here", () => {
    const { statements, unfilled, warnings } = done(changed(columns, [...columns, "d numeric(5,2)", "e text"]))
    assert.deepStrictEqual(
      statements.map((statement) => statement.text),
      [`ALTER TABLE "public"."t" ADD COLUMN "d" numeric(5,2)`, `ALTER TABLE "public"."t" ADD COLUMN "e" text`]
    )
    assert.strictEqual(warnings.length, 2)
    assert.include(warnings[0], `"public"."t": rows that are here have NULL in the new "d"`)
    assert.deepStrictEqual(unfilled, ["d", "e"])
    const empty = done(changed(columns, [...columns, "d date"], { options: { hasRows: false } }))
    assert.deepStrictEqual([empty.unfilled, empty.warnings], [[], []])
  })

  it("a new column that the target has already, and says that its values stay", () => {
    const given = changed(columns, [...columns, "d date"], { target: target([...columns, "d date"]) })
    assert.deepStrictEqual(done(given).statements, [])
    assert.include(done(given).warnings.join(), `"d" is new in the source; it is here already`)
  })

  it("columns that only the target lacks, at the first description", () => {
    assert.deepStrictEqual(statements({ after: relation(columns), target: target(["c text", "id integer"]) }), [
      `ALTER TABLE "public"."t" ADD COLUMN "a" text`,
      `ALTER TABLE "public"."t" ADD COLUMN "b" date`
    ])
  })

  it("dropped columns, and leaves those that only the target has", () => {
    const [statement, ...rest] = done({
      before: relation(columns),
      after: relation(["id integer key", "a text", "c text"]),
      target: target([...columns, "own text"])
    }).statements
    assert.deepStrictEqual(statement, {
      kind: "dropColumn",
      text: `ALTER TABLE "public"."t" DROP COLUMN "b"`,
      table: `"public"."t"`,
      column: "b"
    })
    assert.deepStrictEqual(rest, [])
  })

  it("renamed columns, in front of columns that stayed", () => {
    assert.deepStrictEqual(statements(changed(columns, ["id integer key", "x text", "b date", "c text"])), [
      `ALTER TABLE "public"."t" RENAME COLUMN "a" TO "x"`
    ])
    assert.deepStrictEqual(statements(changed(columns, ["key integer key", "x text", "b date", "c text", "d date"])), [
      `ALTER TABLE "public"."t" RENAME COLUMN "id" TO "key"`,
      `ALTER TABLE "public"."t" RENAME COLUMN "a" TO "x"`,
      `ALTER TABLE "public"."t" ADD COLUMN "d" date`
    ])
  })

  it("a rename by an addition, where the target had never had the column", () => {
    assert.deepStrictEqual(
      statements({
        before: relation(columns),
        after: relation(["id integer key", "x text", "b date", "c text"]),
        target: target(["id integer", "b date", "c text"])
      }),
      [`ALTER TABLE "public"."t" ADD COLUMN "x" text`]
    )
  })

  it("types, where the target's was the source's", () => {
    const widened = done(changed(["id integer key", "a text"], ["id bigint key", "a text"]))
    assert.deepStrictEqual(widened, {
      statements: [
        {
          kind: "alterType",
          text: `ALTER TABLE "public"."t" ALTER COLUMN "id" TYPE bigint USING "id"::bigint`,
          table: `"public"."t"`,
          column: "id"
        }
      ],
      warnings: [],
      unfilled: []
    })
    const narrowed = done(changed(["a text", "z date"], ["a character varying(5)", "z date"]))
    assert.deepStrictEqual(
      narrowed.statements.map(({ text }) => text),
      [`ALTER TABLE "public"."t" ALTER COLUMN "a" TYPE character varying(5) USING "a"::character varying(5)`]
    )
    assert.include(narrowed.warnings.join(), "the source may have converted them otherwise")
  })

  it("no type where the target's was another one, known or not", () => {
    for (const [before, after] of [
      ["a integer", "a bigint"],
      ["a integer", "a elsewhere"],
      ["a elsewhere", "a integer"]
    ]) {
      const { statements, warnings } = done({
        before: relation([before, "z date"]),
        after: relation([after, "z date"]),
        target: target(["a text", "z date"])
      })
      assert.deepStrictEqual(statements, [])
      assert.include(warnings.join(), `"a" has another type in the source now`)
    }
    const mapped = changed(["a text", "z text"], ["a integer", "z text"], { options: { typeOf: () => "text" } })
    assert.deepStrictEqual(done(mapped), nothing)
    const generated = target(["a integer", "z date"])
    const { statements } = done({
      before: relation(["a integer", "z date"]),
      after: relation(["a bigint", "z date"]),
      target: { ...generated, columns: generated.columns.map((column) => ({ ...column, isGenerated: true })) }
    })
    assert.deepStrictEqual(statements, [])
  })

  it("any change of an empty table, which loses nothing", () => {
    const options = { hasRows: false }
    assert.deepStrictEqual(
      statements(changed(["id integer key", "a text"], ["id integer key", "b text"], { options })),
      [`ALTER TABLE "public"."t" RENAME COLUMN "a" TO "b"`]
    )
  })

  const wider: ReadonlyArray<readonly [string, string]> = [
    ["smallint", "integer"],
    ["smallint", "bigint"],
    ["integer", "numeric"],
    ["integer", "double precision"],
    ["bigint", "numeric"],
    ["real", "double precision"],
    ["character varying(5)", "character varying(9)"],
    ["character varying(9)", "character varying"],
    ["character varying(9)", "text"],
    ["text", "character varying"],
    ["character(3)", "character(5)"],
    ["character(3)", "text"],
    ["numeric(5,2)", "numeric"],
    ["numeric(5,2)", "numeric(6,3)"],
    ["numeric(5,-2)", "numeric(7,0)"],
    ["date", "timestamp"],
    ["timestamp(0)", "timestamp(3)"],
    ["timestamp(3)", "timestamp"]
  ]
  const narrower: ReadonlyArray<readonly [string, string]> = [
    ["integer", "smallint"],
    ["integer", "real"],
    ["bigint", "double precision"],
    ["integer", "numeric(5,2)"],
    ["character varying(9)", "character varying(5)"],
    ["character varying", "character varying(9)"],
    ["text", "integer"],
    ["integer", "text"],
    ["numeric(5,2)", "numeric(5,3)"],
    ["numeric(6,3)", "numeric(5,2)"],
    ["numeric(5,-2)", "numeric(6,0)"],
    ["bit(3)", "bit(5)"],
    ["timestamp", "date"],
    ["timestamp", "timestamp(3)"],
    ["date", "timestamp with time zone"],
    ["public.mood", "text"]
  ]
  for (const [cases, isCast] of [
    [wider, false],
    [narrower, true]
  ] as const) {
    it.each(cases)(`a type from %s to %s, ${isCast ? "with a warning" : "which keeps values"}`, (from, to) => {
      const given = changed([`a ${from}`, "z public.mood"], [`a ${to}`, "z public.mood"])
      assert.strictEqual(done(given).statements.length, 1)
      assert.strictEqual(done(given).warnings.length, isCast ? 1 : 0)
      assert.isTrue(Result.isFailure(run({ ...given, policy: "additive" })))
    })
  }

  it("a table to its new name, its new schema, and its new columns at once", () => {
    const before = relation(columns)
    const was = target(columns)
    const follow = (options: Partial<Relation>, after = columns, hasSchema = true) =>
      statements({
        before,
        after: relation(after, options),
        previousTarget: was,
        options: { hasSchema }
      })
    assert.deepStrictEqual(follow({ name: "u" }), [`ALTER TABLE "public"."t" RENAME TO "u"`])
    assert.deepStrictEqual(follow({ namespace: "s" }), [`ALTER TABLE "public"."t" SET SCHEMA "s"`])
    assert.deepStrictEqual(
      follow({ namespace: "s", name: "u" }, ["id integer key", "x text", "b date", "c text"], false),
      [
        `CREATE SCHEMA "s"`,
        `ALTER TABLE "public"."t" SET SCHEMA "s"`,
        `ALTER TABLE "s"."t" RENAME TO "u"`,
        `ALTER TABLE "s"."u" RENAME COLUMN "a" TO "x"`
      ]
    )
  })

  it("a rename that has been made already", () => {
    const given = { before: relation(columns), target: target(columns, { name: "u" }) }
    assert.deepStrictEqual(statements({ ...given, after: relation(columns, { name: "u" }) }), [])
    assert.deepStrictEqual(statements({ ...given, after: relation([...columns, "d text"], { name: "u" }) }), [
      `ALTER TABLE "public"."u" ADD COLUMN "d" text`
    ])
  })

  it("no rename of a table that stays where the mapping puts it", () => {
    const table = { schema: "copy", name: "c" }
    const found = target(columns, table)
    const given = { before: relation(columns), after: relation(columns, { name: "u" }), target: found }
    const options = { table, previousTable: table }
    assert.deepStrictEqual(statements({ ...given, previousTarget: found, options }), [])
  })
})

const on = (...texts: ReadonlyArray<string>) => texts.map((text) => `ALTER TABLE "public"."t" ${text}`).join("; ")
const offered = (error: SchemaRefused) => error.alternatives.map(([text]) => text)
/** What is offered when a table is described for the first time. */
const met = (after: ReadonlyArray<string>, before: ReadonlyArray<string>) =>
  offered(refused({ after: relation(after), target: target(before) }))

describe("diff refuses", () => {
  const columns = ["id integer key", "a text", "b text"]

  it("to guess whether the last column was renamed or replaced", () => {
    const error = refused(changed(columns, ["id integer key", "a text", "x text"]))
    assert.deepStrictEqual(offered(error).slice(0, 2), [
      on(`RENAME COLUMN "b" TO "x"`),
      on(`DROP COLUMN "b"`, `ADD COLUMN "x" text`)
    ])
    assert.strictEqual(
      error.message,
      `"public"."t", offset 42, transaction 1/FF: the stream does not tell what was done to its columns: ` +
        `its columns were (…, "b" text) and are (…, "x" text)`
    )
    assert.include(
      error.remedy,
      `run in the target: (1) if "b" (text) was renamed to "x": ALTER TABLE "public"."t" RENAME COLUMN "b" TO "x"; OR (2) if `
    )
    assert.deepStrictEqual(offered(refused(changed(columns, ["id integer key", "a text", "x integer"]))).slice(0, 2), [
      on(`RENAME COLUMN "b" TO "x"`, `ALTER COLUMN "x" TYPE integer USING "x"::integer`),
      on(`DROP COLUMN "b"`, `ADD COLUMN "x" integer`)
    ])
  })

  it("to take a column in front of a kept one for a new one", () => {
    const error = refused(changed(["id integer key", "a text"], ["id integer key", "b text", "a text"]))
    assert.deepStrictEqual(offered(error), [
      on(`RENAME COLUMN "a" TO "b"`, `ADD COLUMN "a" text`),
      on(`DROP COLUMN "a"`, `ADD COLUMN "b" text`, `ADD COLUMN "a" text`)
    ])
  })

  it("to drop the column that took the place of another", () => {
    const before = ["id integer key", "email text", "name text", "email_new text"]
    const error = refused(changed(before, ["id integer key", "name text", "email text"]))
    assert.deepStrictEqual(offered(error).slice(0, 1), [
      on(`DROP COLUMN "email"`, `RENAME COLUMN "email_new" TO "email"`)
    ])
    assert.include(
      offered(error),
      on(
        `DROP COLUMN "email_new"`,
        `RENAME COLUMN "email" TO "moving_1"`,
        `RENAME COLUMN "name" TO "email"`,
        `RENAME COLUMN "moving_1" TO "name"`
      )
    )
    const typed = refused(
      changed(
        ["id integer key", "email integer", "name text", "email_new text"],
        ["id integer key", "name text", "email text"]
      )
    )
    assert.include(typed.message, `"email" was integer and is text`)
    assert.include(offered(typed), on(`DROP COLUMN "email"`, `RENAME COLUMN "email_new" TO "email"`))
  })

  it("names that are handed on, and offers what can be true", () => {
    const handed = refused(changed(["id date key", "a text", "a_new text"], ["id date key", "a_old text", "a text"]))
    assert.strictEqual(offered(handed)[0], on(`RENAME COLUMN "a" TO "a_old"`, `RENAME COLUMN "a_new" TO "a"`))
    const shifted = refused(changed(["id date key", "a text", "b text"], ["id date key", "c text", "a text"]))
    assert.strictEqual(offered(shifted)[0], on(`RENAME COLUMN "a" TO "c"`, `RENAME COLUMN "b" TO "a"`))
    const exchanged = refused(changed(columns, ["id integer key", "b text", "a text"]))
    assert.include(
      offered(exchanged),
      on(`RENAME COLUMN "a" TO "moving_1"`, `RENAME COLUMN "b" TO "a"`, `RENAME COLUMN "moving_1" TO "b"`)
    )
    assert.include(offered(exchanged), on(`DROP COLUMN "a"`, `ADD COLUMN "a" text`))
  })

  it("nothing of that any more once the target shows the answer", () => {
    const after = ["id integer key", "a text", "x text"]
    const answered = (columns: ReadonlyArray<string>) => {
      const { before, after: next } = changed(["id integer key", "a text", "b text"], after)
      return run({ before: before as Relation, after: next, target: target(columns) })
    }
    assert.deepStrictEqual(Result.getOrThrow(answered(after)), nothing)
    assert.isTrue(Result.isFailure(answered([...after, "b text"])))
  })

  it("what is not clear under every policy, and says so where columns are kept", () => {
    const given = changed(columns, ["id integer key", "a text"])
    for (const policy of ["additive", "validate", "full"] as const) {
      const readings = offered(refused({ ...given, policy }))
      const first = policy === "additive" ? "" : on(`DROP COLUMN "b"`)
      assert.deepStrictEqual(readings.slice(0, 2), [first, on(`DROP COLUMN "a"`, `RENAME COLUMN "b" TO "a"`)])
    }
    const kept = done({ ...given, policy: "additive", options: { unclear: "keep" } })
    assert.deepStrictEqual(kept.statements, [])
    assert.include(
      kept.warnings.join(),
      `the columns stay as they are, although its columns were (…, "b" text) and are (…)`
    )
    refused({ ...changed(columns, ["id integer key", "a text", "x text"]), options: { unclear: "keep" } })
  })

  it("a rename to a name that the target has, with the statements that move its values", () => {
    const error = refused({
      before: relation(columns),
      after: relation(["id integer key", "x text", "b text"]),
      target: target([...columns, "x text"])
    })
    assert.deepStrictEqual(offered(error), [
      `UPDATE "public"."t" SET "x" = "a"; ALTER TABLE "public"."t" DROP COLUMN "a"`
    ])
  })

  it("a new column of the key in a table with rows", () => {
    const given = changed(["a text", "b integer"], ["a text", "b integer", "uid public.mood key"])
    const error = refused(given)
    assert.include(error.message, `rows that are here need values in "uid"`)
    assert.deepStrictEqual(error.alternatives, [])
    assert.strictEqual(statements({ ...given, options: { hasRows: false } }).length, 1)
    refused({ after: relation(["a text", "uid date key"]), target: target(["a text"]) })
  })

  it("names that may have changed before the first description", () => {
    const given = { after: relation(["id integer key", "b text"]), target: target(["id integer", "a text", "n date"]) }
    assert.deepStrictEqual(offered(refused(given)), [on(`ADD COLUMN "b" text`), on(`RENAME COLUMN "a" TO "b"`)])
    assert.strictEqual(statements({ ...given, options: { hasRows: false } }).length, 1)
  })

  it("a name that may have moved to a newer column before the first description", () => {
    const ways = [on(`ADD COLUMN "b" text`), on(`RENAME COLUMN "a" TO "b"`, `ADD COLUMN "a" text`)]
    assert.deepStrictEqual(met(["id integer key", "b text", "a text"], ["id integer", "a text"]), ways)
    assert.deepStrictEqual(
      met(["id integer key", "b text", "n date", "a text"], ["id integer", "a text", "n date"]),
      ways
    )
    const three = ["id integer", "a text", "b text"]
    assert.deepStrictEqual(met(["id integer key", "c text", "a text", "b text"], three), [
      on(`ADD COLUMN "c" text`),
      on(`RENAME COLUMN "a" TO "c"`, `ADD COLUMN "a" text`),
      on(`RENAME COLUMN "a" TO "c"`, `RENAME COLUMN "b" TO "a"`, `ADD COLUMN "b" text`)
    ])
    // Of another type it is another column, and behind all others it is new.
    for (const after of [
      ["id integer key", "b date", "a text"],
      ["id integer key", "a text", "b text"]
    ]) {
      assert.strictEqual(statements({ after: relation(after), target: target(["id integer", "a text"]) }).length, 1)
    }
  })

  it("a rename out of what a filter leaves out, or into it", () => {
    const before = ["id integer key", "ssn text", "b date"]
    const after = ["id integer key", "tax text", "b date"]
    const shape = { target: target(["id integer", "b date"]) }
    const error = refused(changed(before, after, { ...shape, options: leftOut("ssn") }))
    assert.include(error.message, `"ssn" may have been renamed to "tax"`)
    assert.include(error.remedy, "`tables.columns`")
    assert.deepStrictEqual(statements(changed(before, after, { ...shape, options: leftOut("ssn", "tax") })), [])
    refused(changed(after, before, { options: leftOut("ssn") }))
  })

  it("to write to a table of the new name while the renamed one is there", () => {
    const error = refused({
      before: relation(columns),
      after: relation(columns, { name: "u" }),
      target: target(columns, { name: "u" }),
      previousTarget: target(columns)
    })
    assert.include(error.message, `the source has renamed "public"."t" to this, and the target has both`)
  })

  it("any change under validate, and nothing else", () => {
    const error = refused(changed(columns, [...columns, "c text"], { policy: "validate" }))
    assert.deepStrictEqual(error.alternatives, [[`ALTER TABLE "public"."t" ADD COLUMN "c" text`]])
    assert.include(error.remedy, "schema-changes: full")
    assert.deepStrictEqual(refused({ after: relation(["a integer key"]), policy: "validate" }).alternatives, [
      [`CREATE TABLE "public"."t" ("a" integer, PRIMARY KEY ("a"))`]
    ])
    assert.deepStrictEqual(statements({ after: relation(columns), target: target(columns), policy: "validate" }), [])
  })

  it("what alters a table under additive, and only that", () => {
    const additive = { policy: "additive" } as const
    const shape = ["id integer key", "a text", "b date", "c text"]
    const error = refused(changed(shape, ["id integer key", "x text", "b date", "c text"], additive))
    assert.deepStrictEqual(offered(error), [on(`RENAME COLUMN "a" TO "x"`)])
    assert.include(error.remedy, "schema-changes: full")
    refused(changed(["a integer", "z date"], ["a bigint", "z date"], additive))
    refused({
      before: relation(shape),
      after: relation(shape, { name: "u" }),
      previousTarget: target(shape),
      ...additive
    })
    assert.strictEqual(statements(changed(shape, [...shape, "d date"], additive)).length, 1)
    assert.strictEqual(statements({ after: relation(shape), ...additive }).length, 1)
    const left = done(changed(shape, ["id integer key", "a text", "c text", "d date"], additive))
    assert.deepStrictEqual(
      left.statements.map(({ text }) => text),
      [on(`ADD COLUMN "d" date`)]
    )
    assert.include(left.warnings.join(), `the source no longer shows "b"; it stays here`)
  })
})

const same = (name: string) => name
const required = (...names: ReadonlyArray<string>) => {
  const table = target(["id integer", "a text", "b text"], { primaryKey: ["id"] })
  return {
    ...table,
    columns: table.columns.map((column) => ({ ...column, isNullable: !names.includes(column.name) }))
  }
}

describe("fits", () => {
  const at = { offset, commitLsn }
  it("gives the route, when every applied column exists and every required one is filled", () => {
    const found = Result.getOrThrow(fits(relation(["a text", "id integer key"]), required("id", "a"), same, at))
    assert.strictEqual(found.lookup, "key")
    assert.isTrue(found.isKeyUnique)
    const { columns, ...table } = required("id", "a", "b")
    for (const filled of [{ hasDefault: true }, { isGenerated: true }, { identity: "always" as const }]) {
      const given = { ...table, columns: columns.map((c) => (c.name === "b" ? { ...c, ...filled } : c)) }
      assert.isTrue(Result.isSuccess(fits(relation(["id integer key", "a text"]), given, same, at)))
    }
  })

  it("refuses a column that the target lacks, unless it is filtered out", () => {
    const given = relation(["id integer key", "x text", "y text"])
    const result = fits(given, required(), same, at)
    assert(Result.isFailure(result))
    assert.include(result.failure.message, `the target's table lacks "x", "y"`)
    assert.isTrue(Result.isSuccess(fits(given, required(), (name) => (name === "id" ? name : undefined), at)))
  })

  it("refuses a column that needs a value which the source does not have", () => {
    const result = fits(relation(["id integer key"]), required("a", "b"), same, at)
    assert(Result.isFailure(result))
    assert.include(result.failure.message, `a row must have a value in "a", "b"`)
    assert.deepStrictEqual(result.failure.alternatives, [
      [
        `ALTER TABLE "public"."t" ALTER COLUMN "a" DROP NOT NULL`,
        `ALTER TABLE "public"."t" ALTER COLUMN "b" DROP NOT NULL`
      ],
      [`ALTER TABLE "public"."t" DROP COLUMN "a"`, `ALTER TABLE "public"."t" DROP COLUMN "b"`]
    ])
    const key = fits(relation(["a text"]), required("id"), same, at)
    assert(Result.isFailure(key))
    assert.deepStrictEqual(key.failure.alternatives, [[`ALTER TABLE "public"."t" DROP COLUMN "id"`]])
  })

  it("refuses a column that the target generates", () => {
    const { columns, ...table } = required()
    const given = { ...table, columns: columns.map((c) => ({ ...c, isGenerated: c.name === "b" })) }
    const result = fits(relation(["id integer key", "b text"]), given, same, at)
    assert(Result.isFailure(result))
    assert.include(result.failure.message, `the source has values for "b", which the target generates`)
    assert.isTrue(Result.isSuccess(fits(relation(["id integer key", "a text"]), given, same, at)))
  })
})
