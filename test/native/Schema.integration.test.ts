import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { SchemaRefused } from "../../src/schema/SchemaChange.ts"
import { ApplyFailed } from "../../src/SinkError.ts"
import { real, Replica, type Replication } from "./Replica.ts"

/** Columns and their types, in order. */
const columns = (table: string) => `
  SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
  WHERE attrelid = '${table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`

const kinds = (replica: Replication) => replica.applied.reduce((sum, { schemaChanges }) => sum + schemaChanges, 0)

layer(Replica.layer, real)("Schema changes", (it) => {
  it.effect("full: the target follows, in the middle of transactions and between rows", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source: `
          CREATE TABLE t (id int PRIMARY KEY, a text, b int, c varchar(5));
          CREATE TABLE moved (id int PRIMARY KEY, v text);
          CREATE TABLE rekeyed (id int PRIMARY KEY, code text NOT NULL, v text)`,
        settings: { "schema-changes": "full" }
      })
      const check = Effect.gen(function* () {
        for (const table of ["t", "rekeyed"]) {
          yield* replica.same(columns(table))
          yield* replica.same(`SELECT * FROM ${table} ORDER BY id`)
        }
      })
      yield* replica.replicate(
        "INSERT INTO t VALUES (1, 'a', 1, 'c'), (2, 'a', 2, 'c'); INSERT INTO moved VALUES (1, 'v'); INSERT INTO rekeyed VALUES (1, 'a', 'v'), (2, 'b', 'v')"
      )
      // In one transaction: each row is of the shape that the table had at its time.
      yield* replica.replicate(
        `INSERT INTO t VALUES (3, 'a', 3, 'c'); ALTER TABLE t ADD d timestamptz(2); INSERT INTO t VALUES (4, 'a', 4, 'c', '2024-01-01');
         UPDATE t SET d = '2024-01-02' WHERE id < 3; ALTER TABLE t DROP a; DELETE FROM t WHERE id = 2; UPDATE t SET b = 10 WHERE id = 1;
         ALTER TABLE t ALTER c TYPE varchar(10); INSERT INTO t VALUES (5, 5, '1234567890')`
      )
      yield* check
      yield* replica.replicate(
        "ALTER TABLE t RENAME b TO renamed; UPDATE t SET renamed = 7 WHERE id = 3",
        "ALTER TABLE t ALTER renamed TYPE bigint; UPDATE t SET renamed = 5000000000 WHERE id = 4",
        "ALTER TABLE t ALTER renamed TYPE text; UPDATE t SET renamed = 'text' WHERE id = 5",
        "ALTER TABLE t ADD e int[], ADD f jsonb; UPDATE t SET e = '{1}', f = '{}'",
        "ALTER TABLE rekeyed REPLICA IDENTITY FULL; UPDATE rekeyed SET v = 'full' WHERE id = 1",
        "CREATE UNIQUE INDEX by_code ON rekeyed (code); ALTER TABLE rekeyed REPLICA IDENTITY USING INDEX by_code; UPDATE rekeyed SET v = 'index' WHERE id = 2; DELETE FROM rekeyed WHERE id = 1"
      )
      yield* check
      yield* replica.replicate(
        "ALTER TABLE moved RENAME TO renamed; INSERT INTO renamed VALUES (2, 'v')",
        "CREATE SCHEMA elsewhere; ALTER TABLE renamed SET SCHEMA elsewhere; INSERT INTO elsewhere.renamed VALUES (3, 'v')",
        "CREATE TABLE elsewhere.made (a int, b int, PRIMARY KEY (b, a)); INSERT INTO elsewhere.made VALUES (1, 2)"
      )
      yield* replica.same("SELECT * FROM elsewhere.renamed ORDER BY id")
      yield* replica.same("SELECT * FROM elsewhere.made")
      assert.deepStrictEqual(
        yield* replica.rows("SELECT to_regclass('public.moved'), to_regclass('public.renamed') AS other"),
        [[null, null]]
      )
      const before = kinds(replica)

      // A source that starts again describes its tables again, which asks for nothing.
      yield* replica.source.query(`
        SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${replica.source.name}'`)
      yield* replica.replicate(
        "UPDATE t SET f = '[]'; UPDATE rekeyed SET v = 'again'; INSERT INTO elsewhere.made VALUES (3, 4)"
      )
      yield* check
      yield* replica.restart()
      yield* replica.replicate("UPDATE t SET f = '{}'")
      yield* check
      assert.strictEqual(kinds(replica), before)
    })
  )

  it.effect("full: what the stream does not tell stops with the statements that may be run", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source:
          "CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TABLE u (id int PRIMARY KEY, v text, w text, x date)",
        settings: { "schema-changes": "full" }
      })
      yield* replica.replicate("INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (1, '1', '2')")
      const unclear = yield* replica.halt("ALTER TABLE t DROP a, ADD b text; INSERT INTO t VALUES (2, 'b')")
      assert.instanceOf(unclear, SchemaRefused)
      assert.strictEqual(unclear.alternatives.length, 2)
      assert.include(unclear.alternatives[0]![0], 'RENAME COLUMN "a" TO "b"')
      assert.include(unclear.alternatives[1]![0], 'ADD COLUMN "b" text')
      yield* replica.target.query(unclear.alternatives[1]!.join(";"))
      yield* replica.restart()
      yield* replica.caughtUp
      yield* replica.same("SELECT * FROM t ORDER BY id")
      assert.deepStrictEqual(yield* replica.rows("SELECT count(*) FROM fluvio.decision"), [["0"]])

      // In front of a column of another type nothing but an exchange of names explains this.
      yield* replica.replicate(
        "ALTER TABLE u RENAME v TO y; ALTER TABLE u RENAME w TO v; ALTER TABLE u RENAME y TO w; INSERT INTO u VALUES (2, '1', '2')"
      )
      yield* replica.same("SELECT id, v, w FROM u ORDER BY id")

      // A cast that the target's values do not survive leaves everything as it was: the source's own is not in the stream.
      const cast = yield* replica.halt(
        "UPDATE u SET v = 'long'; ALTER TABLE u ALTER v TYPE int USING length(v); INSERT INTO u VALUES (3, '1', 3)"
      )
      assert.instanceOf(cast, ApplyFailed)
      assert.strictEqual(cast.failure.sqlState, "22P02")
      assert.include(cast.message, 'in: ALTER TABLE "public"."u" ALTER COLUMN "v" TYPE integer')
      // The update before it in the same transaction still needs the old type.
      const [, insert] = /: (INSERT INTO fluvio.decision .*?ARRAY\[)'…'/.exec(cast.remedy) ?? []
      yield* replica.target.query(
        `${insert}'ALTER TABLE u ALTER v TYPE int USING length(v)']::text[]) ON CONFLICT DO NOTHING`.replaceAll(
          "TABLE u",
          "TABLE public.u"
        )
      )
      yield* replica.restart()
      yield* replica.caughtUp
      yield* replica.same("SELECT id, v, w FROM u ORDER BY id")
    })
  )

  it.effect("additive, validate and none", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source: "CREATE TABLE t (id int PRIMARY KEY, a int, b text)",
        settings: { "schema-changes": "additive" }
      })
      yield* replica.replicate(
        "INSERT INTO t VALUES (1, 1, 'b')",
        "ALTER TABLE t ADD c text; INSERT INTO t VALUES (2, 2, 'b', 'c')",
        "ALTER TABLE t ADD g date; ALTER TABLE t DROP g; INSERT INTO t VALUES (3, 3, 'b', 'c')"
      )
      yield* replica.same("SELECT id, a, b, c FROM t ORDER BY id")
      const wider = yield* replica.halt(
        "ALTER TABLE t ALTER a TYPE bigint; INSERT INTO t VALUES (4, 5000000000, 'd', 'c')"
      )
      assert.instanceOf(wider, SchemaRefused)
      assert.include(wider.remedy, 'ALTER COLUMN "a" TYPE bigint')
      yield* replica.target.query(wider.alternatives[0]!.join(";"))
      yield* replica.restart()
      yield* replica.caughtUp
      yield* replica.replicate("ALTER TABLE t ADD n int; INSERT INTO t VALUES (5, 5, 'd', 'c', 5)")
      // What the source no longer shows stays, and is NULL in new rows.
      yield* replica.replicate("ALTER TABLE t DROP n; INSERT INTO t VALUES (6, 6, 'd')")
      assert.deepStrictEqual(yield* replica.rows("SELECT id, n FROM t WHERE id > 4 ORDER BY id"), [
        ["5", "5"],
        ["6", null]
      ])
      assert.include(replica.warnings.join(), 'the source no longer shows "n"; it stays here')
      const dropped = yield* replica.halt("ALTER TABLE t DROP c; INSERT INTO t VALUES (7, 7, 'd')")
      assert.instanceOf(dropped, SchemaRefused)
      assert.include(dropped.remedy, '"c" (text) was dropped')
      yield* replica.target.query(dropped.alternatives[0]!.join(";"))
      yield* replica.restart({ "schema-changes": "validate" })
      yield* replica.caughtUp
      yield* replica.same("SELECT id, a, b FROM t ORDER BY id")

      const added = yield* replica.halt("ALTER TABLE t ADD e int; INSERT INTO t VALUES (8, 8, 'd', 8)")
      assert.instanceOf(added, SchemaRefused)
      assert.include(added.alternatives[0]![0], `ARRAY['ALTER TABLE "public"."t" ADD COLUMN "e" integer']`)
      yield* replica.target.query(added.alternatives[0]!.join(";"))
      yield* replica.restart({ "schema-changes": "validate" })
      yield* replica.caughtUp
      const made = yield* replica.halt("CREATE TABLE made (id int PRIMARY KEY); INSERT INTO made VALUES (1)")
      assert.instanceOf(made, SchemaRefused)

      yield* replica.restart({ "schema-changes": "none" })
      const missing = yield* replica.stopped
      assert.strictEqual(missing._tag, "TableMissing")
      yield* replica.target.query("CREATE TABLE made (id text PRIMARY KEY)")
      yield* replica.restart({ "schema-changes": "none" })
      yield* replica.caughtUp
      // A column that the source has dropped is left as it is.
      yield* replica.replicate("ALTER TABLE t DROP b; INSERT INTO t VALUES (9, 9, 9)")
      assert.deepStrictEqual(yield* replica.rows("SELECT id, a, b, e FROM t WHERE id > 7 ORDER BY id"), [
        ["8", "8", "d", "8"],
        ["9", "9", null, "9"]
      ])
      const lacking = yield* replica.halt("ALTER TABLE t ADD f int; INSERT INTO t VALUES (10, 10, 10, 10)")
      assert.instanceOf(lacking, SchemaRefused)
      assert.include(lacking.reason, 'lacks "f"')
    })
  )

  it.effect("types that the source has defined: by name, by the setting, or with the statement to run", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source:
          "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN code AS varchar(4); CREATE TABLE t (id int PRIMARY KEY, v int)",
        target: "CREATE SCHEMA types; CREATE TYPE types.mood AS ENUM ('sad', 'happy')"
      })
      yield* replica.replicate(
        "CREATE TABLE made (id int PRIMARY KEY, m mood, ms mood[]); INSERT INTO made VALUES (1, 'sad', '{happy,NULL}')"
      )
      yield* replica.same("SELECT * FROM made")
      const unknown = yield* replica.halt(
        "CREATE TYPE shade AS ENUM ('light'); ALTER TABLE t ADD s shade; INSERT INTO t VALUES (1, 1, 'light')"
      )
      assert.instanceOf(unknown, SchemaRefused)
      assert.include(unknown.message, "it has no type with the name public.shade")
      assert.include(unknown.remedy, '`types."public.shade"`')
      yield* replica.restart({ types: { "public.shade": "text" } })
      yield* replica.caughtUp
      assert.deepStrictEqual(yield* replica.rows("SELECT * FROM t"), [["1", "1", "light"]])
      yield* replica.target.query("CREATE TYPE shade AS ENUM ('light')")
      yield* replica.restart()
      yield* replica.replicate(
        "ALTER TABLE t ADD s2 shade; INSERT INTO t VALUES (2, 2, 'light', 'light'); ALTER TABLE made ADD c code; UPDATE made SET c = 'code'"
      )
      yield* replica.same("SELECT * FROM t ORDER BY id")
      // The stream names a domain by the type underneath.
      assert.deepStrictEqual((yield* replica.rows(columns("made"))).at(-1)?.[0], "c")
    })
  )

  it.effect("types of one name in several schemas, also in one table, as arrays and under domains", () =>
    Effect.gen(function* () {
      const types =
        "CREATE SCHEMA b; CREATE TYPE public.st AS (x int, y int); CREATE TYPE b.st AS (y int, x int); CREATE DOMAIN b.wrapped AS b.st"
      const replica = yield* Replica.start({ source: types, target: types })
      yield* replica.replicate(
        `CREATE TABLE t (id int PRIMARY KEY, one public.st, two b.st, ones public.st[], twos b.st[], wrapped b.wrapped);
         INSERT INTO t VALUES (1, '(1,2)', '(1,2)', '{"(1,2)"}', '{"(1,2)"}', '(1,2)')`
      )
      yield* replica.same(
        "SELECT (one).x, (two).x AS x2, (ones[1]).x AS x3, (twos[1]).x AS x4, (wrapped::b.st).x AS x5 FROM t"
      )
    })
  )
})
