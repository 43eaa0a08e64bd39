import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { Offset } from "../../../src/stream/FluvioConsumer.ts"
import { qualified, quote } from "../../../src/target/Identifier.ts"
import * as Mapping from "../../../src/target/Mapping.ts"
import type { Relation, RelationColumn } from "../../../src/stream/Relation.ts"
import { Owners } from "../../../src/schema/Owners.ts"
import * as Router from "../../../src/schema/Router.ts"
import { type PlanContext, plan, SchemaRefused } from "../../../src/schema/SchemaChange.ts"
import { resolve, type TypeName } from "../../../src/schema/SourceType.ts"
import { type TestDatabase, TestPostgres } from "../../postgres.ts"

const client = (database: TestDatabase) =>
  PgClient.layer({ url: database.url, maxConnections: 1, startupParameters: { search_path: "" } })

/** A table as the stream would describe it, with what Type events say of its types. */
const describeTable = (database: TestDatabase, name: string) =>
  Effect.map(
    database.query(`
      SELECT attname, atttypid, atttypmod, typname, nullif(typnamespace::regnamespace::text, 'pg_catalog') AS namespace, coalesce(attnum = ANY (conkey), false) AS is_key,
        format_type(atttypid, atttypmod) AS text
      FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
      LEFT JOIN pg_constraint ON conrelid = attrelid AND contype = 'p'
      WHERE attrelid = $$${name}$$::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`),
    (rows) => ({
      columns: rows.map((row): RelationColumn => ({
        name: String(row["attname"]),
        typeId: Number(row["atttypid"]),
        typeModifier: Number(row["atttypmod"]),
        isKey: row["is_key"] === "t"
      })),
      types: new Map(
        rows.map((row) => [
          Number(row["atttypid"]),
          { namespace: String(row["namespace"] ?? ""), name: String(row["typname"]) }
        ])
      ),
      texts: rows.map((row) => row["text"])
    })
  )

const relation = (columns: ReadonlyArray<RelationColumn>, options: Partial<Relation> = {}): Relation => ({
  id: 1,
  namespace: "public",
  name: "copy",
  replicaIdentity: "Default",
  columns,
  ...options
})

const config = { topic: "it's", partition: 0, schemaChanges: "full", unclearChanges: "stop", types: {} } as const

/** Plans a change against the target, runs what is planned, and gives it back. */
const follow = (
  database: TestDatabase,
  before: Relation | undefined,
  after: Relation,
  given: Partial<PlanContext> = {}
) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const mapping = Mapping.make({ include: undefined, exclude: [], columns: {}, map: {} })
    yield* sql.unsafe(`CREATE SCHEMA IF NOT EXISTS fluvio`)
    yield* sql.unsafe(`CREATE TABLE IF NOT EXISTS fluvio.decision (topic text, partition int4, record_offset int8,
      statements text[], PRIMARY KEY (topic, partition, record_offset))`)
    const { statements } = yield* plan(
      { type: "relation", offset: Offset.make(9), relation: after, previous: before },
      {
        config,
        mapping,
        owners: Owners.of(mapping, before === undefined ? [] : [before]),
        tables: Router.make(mapping).tables,
        types: new Map(),
        commitLsn: undefined,
        ...given
      }
    )
    for (const statement of statements) yield* sql.unsafe(statement.text)
    return statements.map((statement) => statement.kind)
  }).pipe(Effect.provide(client(database)))

const resolveIn = (
  database: TestDatabase,
  columns: Parameters<typeof resolve>[0],
  options: Partial<Parameters<typeof resolve>[1]>
) =>
  Effect.map(
    resolve(columns, { types: new Map(), settings: {}, schema: "public", schemaOf: (name) => name, ...options }),
    ({ typeOf }) => columns.map(typeOf)
  ).pipe(Effect.provide(client(database)))

/** Types as the original inbound connector describes them. */
const named = (names: Readonly<Record<number, string>>) =>
  new Map(Object.entries(names).map(([id, name]) => [Number(id), { namespace: name, name }]))

const severalOf = (name: string, key: string, choice: string, who = "target") => ({
  reason: `the ${who} has several types with the name ${name}`,
  remedy: `set \`types.${key}\` to one of ${choice}`
})

const absentType = (name: string) => ({
  reason: `it has no type with the name ${name}`,
  remedy: `create the type as it is in the source (CREATE TYPE, CREATE DOMAIN or CREATE EXTENSION), or set \`types."${name}"\` to a type of the target`
})

const mapped = (name: string) => (name === "a" ? "copy" : name)

layer(TestPostgres.layer())("SchemaChange", (it) => {
  it.effect("creates every built-in type as the source has it, modifiers included", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const [all] = yield* database.query(`
        SELECT string_agg(format('%I %s', 'column ' || oid, format_type(oid, -1)), ', ') AS columns
        FROM pg_type AS type
        WHERE oid < 10000 AND typtype <> 'p' AND typrelid = 0 AND NOT EXISTS (
          SELECT FROM pg_type AS element WHERE element.oid = type.typelem AND element.typtype IN ('c', 'p'))`)
      yield* database.query(`
        CREATE TABLE source (${all["columns"]},
          vc varchar(1), vcm varchar(10485760), c char(3), c1 char, b bit(3), b1 bit, vb varbit(7), "n" numeric(5),
          n1 numeric(1000,1000), n2 numeric(3,-1000), n3 numeric(5,2), t0 time(0), t6 time(6), tz1 timetz(1),
          ts0 timestamp(0), ts6 timestamp(6), tsz3 timestamptz(3), i0 interval(0), iy interval year,
          im interval year to month, ids interval day to second(2), is3 interval second(3), ih interval hour to minute,
          vca varchar(5)[], na numeric(6,-2)[][], tsa timestamptz(2)[], ia interval minute to second(1)[], ba bit(2)[],
          ca char(2)[], PRIMARY KEY (vc, n3))`)
      const source = yield* describeTable(database, "source")
      assert.isAbove(source.columns.length, 150)
      assert.deepStrictEqual(yield* follow(database, undefined, relation(source.columns)), ["createTable"])
      const copy = yield* describeTable(database, "copy")
      assert.deepStrictEqual(copy.texts, source.texts)
      assert.deepStrictEqual(copy.columns, source.columns)
      assert.deepStrictEqual(yield* follow(database, undefined, relation(source.columns)), [])
    })
  )

  it.effect("finds user-defined types by their names", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`
        CREATE SCHEMA "a.b"; CREATE SCHEMA c; CREATE TYPE "a.b"."My Type" AS (x int);
        CREATE TABLE c.tabular (x int); CREATE TYPE c.only AS ENUM ('a'); CREATE TABLE "a.b"."only" ();
        CREATE EXTENSION citext SCHEMA c`)
      const types = named({
        20_001: "My Type",
        20_002: "only",
        20_003: "_only",
        20_004: "_int4",
        20_005: "citext",
        20_006: "tabular",
        20_007: "_tabular",
        20_008: "absent"
      })
      const columns = [...types.keys(), 20_009].map((typeId) => ({ typeId, typeModifier: -1 }))
      const found = yield* resolveIn(database, columns, { types })
      assert.deepStrictEqual(
        found.map((type) => (typeof type === "string" ? type : type.reason)),
        [
          `"a.b"."My Type"`,
          `c."only"`,
          `c."only"[]`,
          "integer[]",
          "c.citext",
          "it has no type with the name tabular",
          "it has no type with the name _tabular",
          "it has no type with the name absent",
          "the stream does not name the source's type with the OID 20009"
        ]
      )
    })
  )

  it.effect("tells types of one name apart by the schema that the stream gives, and guesses none", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`
        CREATE SCHEMA b; CREATE SCHEMA copy; CREATE TYPE public.st AS (x int, y int); CREATE TYPE b.st AS (y int, x int);
        CREATE TYPE copy.one AS (x int); CREATE TYPE b.one AS (x int); CREATE TYPE public."varchar" AS ENUM ('a');
        CREATE TYPE public.here AS (x int); CREATE TYPE public.shade AS ENUM ('a')`)
      const types = new Map([
        [20_001, { namespace: "b", name: "st" }],
        [20_002, { namespace: "public", name: "_st" }],
        [20_003, { namespace: "st", name: "st" }],
        [20_004, { namespace: "", name: "varchar" }],
        [20_005, { namespace: "varchar", name: "varchar" }],
        [20_006, { namespace: "a", name: "one" }],
        [20_007, { namespace: "elsewhere", name: "st" }],
        // The source has two of them, and the target one.
        [20_008, { namespace: "public", name: "here" }],
        [20_009, { namespace: "b", name: "here" }],
        [20_010, { namespace: "shade", name: "shade" }],
        [20_011, { namespace: "shade", name: "shade" }]
      ])
      const columns = [...types.keys()].map((typeId) => ({ typeId, typeModifier: -1 }))
      assert.deepStrictEqual(yield* resolveIn(database, columns, { types, schemaOf: mapped }), [
        "b.st",
        "public.st[]",
        severalOf("st", "20003", "b.st, public.st", "source"),
        "character varying",
        severalOf("varchar", "20005", 'character varying, public."varchar"', "source"),
        "copy.one",
        absentType("elsewhere.st"),
        "public.here",
        absentType("b.here"),
        severalOf("shade", "20010", "public.shade", "source"),
        severalOf("shade", "20011", "public.shade", "source")
      ])
      // Each is the only one of its name that the stream knows.
      const alone = Effect.fnUntraced(function* (namespace: string, name: string, schema = "public") {
        const [type] = yield* resolveIn(database, [{ typeId: 1_000_000, typeModifier: -1 }], {
          types: new Map([[1_000_000, { namespace, name }]]),
          schema,
          schemaOf: mapped
        })
        return type
      })
      assert.deepStrictEqual(yield* alone("elsewhere", "st", "b"), severalOf("st", '"elsewhere.st"', "b.st, public.st"))
      assert.deepStrictEqual(yield* alone("st", "st", "b"), severalOf("st", "1000000", "b.st, public.st"))
      assert.deepStrictEqual(yield* alone("elsewhere", "here"), "public.here")
      const settings = { "b.st": "public.st", st: "b.st", "20003": "b.st" }
      assert.deepStrictEqual(yield* resolveIn(database, columns.slice(0, 3), { types, settings }), [
        "public.st",
        "public.st[]",
        "b.st"
      ])
    })
  )

  it.effect("prefers what the settings say, by OID or name, and keeps their modifiers", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(
        `CREATE SCHEMA c; CREATE TYPE c.mood AS ENUM ('sad'); CREATE TYPE public.toString AS (x int)`
      )
      const types = named({
        20_001: "mood",
        20_002: "feeling",
        20_003: "wrong",
        20_004: "price",
        20_005: "tostring",
        20_006: "constructor"
      })
      const settings = {
        "20001": "text",
        feeling: "mood",
        wrong: "nowhere.mood",
        price: "numeric(10, 2)",
        "114": "jsonb"
      }
      const columns = [...types.keys(), 114].map((typeId) => ({ typeId, typeModifier: -1 }))
      assert.deepStrictEqual(yield* resolveIn(database, columns, { types, settings }), [
        "text",
        "c.mood",
        {
          reason: "the setting `types.wrong` names nowhere.mood, which the target does not have",
          remedy: "create the type, or correct `types.wrong`; a type outside pg_catalog needs its schema"
        },
        "numeric(10, 2)",
        "public.tostring",
        {
          reason: "it has no type with the name constructor",
          remedy:
            "create the type as it is in the source (CREATE TYPE, CREATE DOMAIN or CREATE EXTENSION), or set `types.constructor` to a type of the target"
        },
        "jsonb"
      ])
      assert.deepStrictEqual(yield* resolveIn(database, [{ typeId: 9_999, typeModifier: -1 }], {}), [
        {
          reason: "its PostgreSQL has no built-in type with the OID 9999",
          remedy: "set `types.9999` to a type of the target"
        }
      ])
    })
  )

  it.effect("follows a table through all its changes, with its rows", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const nasty = `c.d "e" 'f' ${"ü".repeat(20)}`
      yield* database.query(`
        CREATE SCHEMA src; CREATE TYPE public.mood AS ENUM ('sad', 'ok');
        CREATE TABLE src.t (id int PRIMARY KEY, a varchar(3), b numeric(4,1), m mood, e date)`)
      let before: Relation | undefined
      const types = new Map<number, TypeName>()
      const change = Effect.fnUntraced(function* (ddl: string, options: Partial<Relation> = {}) {
        yield* database.query(ddl)
        const { columns, ...described } = yield* describeTable(database, "src.t")
        for (const [id, type] of described.types) types.set(id, type)
        const after = relation(columns, { namespace: "dst", name: "t", ...options })
        const kinds = yield* follow(database, before, after, { types })
        before = after
        assert.deepStrictEqual(yield* follow(database, before, after, { types }), [])
        const copy = yield* describeTable(database, qualified(after.namespace, after.name))
        assert.deepStrictEqual(copy.columns, columns)
        return kinds
      })
      assert.deepStrictEqual(yield* change(""), ["createSchema", "createTable"])
      yield* database.query("INSERT INTO dst.t VALUES (1, 'abc', 12.5, 'ok', '2026-01-01')")
      const quoted = quote(nasty)
      assert.deepStrictEqual(yield* change(`ALTER TABLE src.t RENAME a TO ${quoted}`), ["renameColumn"])
      assert.deepStrictEqual(yield* change("ALTER TABLE src.t ALTER id TYPE bigint"), ["alterType"])
      assert.deepStrictEqual(yield* change("ALTER TABLE src.t ALTER b TYPE numeric(3,0), ALTER m TYPE text"), [
        "alterType",
        "alterType"
      ])
      assert.deepStrictEqual(yield* change("ALTER TABLE src.t DROP b, ADD z timestamptz(3)[], ADD y int"), [
        "dropColumn",
        "addColumn",
        "addColumn"
      ])
      assert.deepStrictEqual(yield* change("", { name: "T.2" }), ["renameTable"])
      assert.deepStrictEqual(yield* change("ALTER TABLE src.t DROP y", { namespace: "public", name: nasty }), [
        "setSchema",
        "renameTable",
        "dropColumn"
      ])
      assert.deepStrictEqual(yield* database.query(`SELECT * FROM ${quoted}`), [
        { id: "1", [nasty]: "abc", m: "ok", e: "2026-01-01", z: null }
      ])
    })
  )

  it.effect("refuses with the statements that then let it go on", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query("CREATE TABLE copy (id int PRIMARY KEY, a text); INSERT INTO copy VALUES (1, 'x')")
      const { columns } = yield* describeTable(database, "copy")
      const renamed = columns.map((column) => (column.name === "a" ? { ...column, name: "b" } : column))
      const refused = yield* follow(database, relation(columns), relation(renamed)).pipe(Effect.flip)
      assert.instanceOf(refused, SchemaRefused)
      for (const text of refused.alternatives[0]) yield* database.query(text)
      assert.deepStrictEqual(yield* follow(database, relation(columns), relation(renamed)), ["decided"])
      assert.deepStrictEqual(yield* follow(database, relation(columns), relation(renamed)), [])
      assert.deepStrictEqual(yield* database.query("SELECT * FROM copy"), [{ id: "1", b: "x" }])
    })
  )

  it.effect("goes on behind every reading that it offers, with what the reading says", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const cases: ReadonlyArray<readonly [before: string, after: string, contents: ReadonlyArray<string>]> = [
        ["id, a", "id, b", ["1,2", "1,"]],
        ["id, a", "id, b, a", ["1,2,", "1,,"]],
        ["id, a, b", "id, b, a", ["1,2,3", "1,3,"]],
        ["id, a, b, c", "id, c, a, b", ["1,2,3,4", "1,4,,"]],
        ["id, a, b, n", "id, b, a", ["1,3,5", "1,2,3", "1,3,"]]
      ]
      for (const schemaChanges of ["full", "additive"] as const) {
        for (const [before, after, contents] of cases) {
          const shape = (list: string) =>
            relation(
              list
                .split(", ")
                .map((name) => ({ name, typeId: name === "id" ? 23 : 25, typeModifier: -1, isKey: false }))
            )
          const attempt = follow(database, shape(before), shape(after), { config: { ...config, schemaChanges } })
          const seen: Array<string> = []
          for (let n = 0, offered = 1; n < offered; n++) {
            const values = before.split(", ").map((name) => String(["id", "a", "b", "c", "n"].indexOf(name) + 1))
            yield* database.query(`
              DROP TABLE IF EXISTS copy;
              CREATE TABLE copy (${before
                .split(", ")
                .map((name) => `${name} ${name === "id" ? "int" : "text"}`)
                .join(", ")});
              INSERT INTO copy VALUES (${values.join(", ")})`)
            const refused = yield* Effect.flip(attempt)
            assert.instanceOf(refused, SchemaRefused)
            offered = refused.alternatives.length
            for (const text of refused.alternatives[n]) yield* database.query(text)
            yield* attempt
            const [row] = yield* database.query(
              `SELECT concat_ws(',', ${after
                .split(", ")
                .map((name) => `coalesce(${name}::text, '')`)
                .join(", ")}) AS row FROM copy`
            )
            seen.push(String(row["row"]))
          }
          assert.strictEqual(new Set(seen).size, seen.length, `${before} to ${after}: each has another content`)
          assert.includeMembers(
            seen,
            contents.filter((content) => !content.startsWith(","))
          )
        }
      }
    })
  )

  it.effect("leaves alone what is filtered out, and everything under the policy none", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const column = { name: "id", typeId: 20_001, typeModifier: -1, isKey: true }
      const mapping = Mapping.make({ include: undefined, exclude: ["public.*"], columns: {}, map: {} })
      assert.deepStrictEqual(yield* follow(database, undefined, relation([column]), { mapping }), [])
      const none = { ...config, schemaChanges: "none" } as const
      assert.deepStrictEqual(yield* follow(database, undefined, relation([column]), { config: none }), [])
    })
  )
})
