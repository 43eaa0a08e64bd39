import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as events from "../../events.ts"
import * as Operator from "../../operator.ts"
import { eventually } from "../../pipeline.ts"
import { type TestDatabase, TestPostgres } from "../../postgres.ts"

const pets = events.relationOf()

interface Step {
  readonly kind: "schema" | "folded" | "in order" | "unknown"
  readonly sql: string | null
  readonly rows: number | null
  readonly parameters: ReadonlyArray<string>
  readonly values?: ReadonlyArray<string | null>
  readonly reason: string
}

interface Planned {
  readonly firstOffset: number
  readonly lastOffset: number | null
  readonly commitLsn: string | null
  readonly xid: number | null
  readonly isStreamed: boolean
  readonly changes: { readonly [table: string]: { readonly [kind: string]: number } }
  readonly steps: ReadonlyArray<Step>
  readonly tried: string | null
  readonly failure: { readonly message: string; readonly remedy: string } | null
}

/** Every relation of the database, where it is stored, what it holds, and where its sequences stand. */
const everything = Effect.fnUntraced(function* (database: TestDatabase) {
  const relations = yield* database.query(`
    SELECT class.oid, class.oid::regclass::text AS name, relkind AS kind, relfilenode, reltuples, relacl, relowner
    FROM pg_class AS class WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
      AND relnamespace::regnamespace::text NOT LIKE 'pg_toast%' ORDER BY oid`)
  const schemas = yield* database.query(
    "SELECT oid, nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg_%' ORDER BY oid"
  )
  const columns = yield* database.query(
    "SELECT attrelid, attname, atttypid FROM pg_attribute WHERE attrelid >= 16384 ORDER BY 1, 2"
  )
  const contents = yield* Effect.forEach(
    relations.filter(({ kind }) => kind === "r" || kind === "S"),
    ({ kind, name }) =>
      database.query(
        kind === "S"
          ? `SELECT last_value, is_called FROM ${name}`
          : `SELECT t::text, xmin FROM ${name} AS t ORDER BY t::text`
      )
  )
  return { relations, schemas, columns, contents }
})

const plan = (command: Operator.Operator["command"], ...words: ReadonlyArray<string>) =>
  Effect.map(command("plan", "--json", ...words), ({ code, err, out }) => {
    assert.include([0, 3], code, err)
    const { isCut, transactions } = JSON.parse(out) as {
      readonly isCut: boolean
      readonly transactions: ReadonlyArray<Planned>
    }
    return { code, err, isCut, transactions }
  })

const [id, name] = pets.columns

layer(TestPostgres.layer(), { excludeTestServices: true })("plan", (it) => {
  it.effect("shows what would be run and why, and leaves nothing behind, before a first start and after it", () =>
    Effect.gen(function* () {
      const { append, command, database, run } = yield* Operator.make()
      yield* database.query("CREATE TABLE pets (id serial PRIMARY KEY, name text)")
      yield* append([
        events.begin(1000),
        events.relation(pets),
        events.relation({ ...pets, id: 16_400, name: "fresh" }),
        events.insert(pets.id, [events.int4(1), events.text("s3cr3t")]),
        events.insert(16_400, [events.int4(1), events.text("s3cr3t")]),
        events.commit(1000)
      ])
      const untouched = yield* everything(database)
      const first = yield* plan(command)
      assert.strictEqual(first.code, 0)
      const [{ steps, ...facts }] = first.transactions
      assert.deepInclude(facts, {
        firstOffset: 0,
        lastOffset: 5,
        commitLsn: "0/3E8",
        xid: 742,
        tried: null,
        failure: null
      })
      assert.deepStrictEqual(facts.changes["public.pets"], { insert: 1, update: 0, delete: 0, truncate: 0 })
      assert.deepStrictEqual(
        steps.map(({ kind, parameters, rows, sql }) => [kind, sql, rows, parameters]),
        [
          ["schema", 'CREATE TABLE "public"."fresh" ("id" integer, "name" text, PRIMARY KEY ("id"))', null, []],
          ["folded", 'COPY "public"."pets" ("id", "name") FROM STDIN', 1, ["9 bytes of COPY"]],
          ["folded", 'COPY "public"."fresh" ("id", "name") FROM STDIN', 1, ["9 bytes of COPY"]]
        ]
      )
      const tried = yield* plan(command, "--try")
      assert.strictEqual(tried.transactions[0].tried, "PostgreSQL took it: 2 statements, 1 schema change")
      assert.deepStrictEqual(yield* everything(database), untouched)

      const running = yield* run()
      yield* eventually(Effect.map(database.query("SELECT FROM pets"), (rows) => rows.length === 1))
      yield* running.signal("SIGTERM")
      yield* running.ended
      assert.match((yield* command("plan")).out, /^nothing to apply: pets-0 ends at offset 6$/m)

      const wide = { ...pets, columns: [id, name, { name: "age", isKey: false, typeId: 23, typeModifier: -1 }] }
      yield* append([
        events.begin(2000),
        events.insert(pets.id, [events.int4(2), events.text("s3cr3t")]),
        events.update(pets.id, [events.int4(1), events.text("s3cr3t")]),
        events.commit(2000),
        events.begin(3000),
        events.relation(wide),
        events.insert(pets.id, [events.int4(3), events.text("s3cr3t"), events.int4(9)]),
        events.commit(3000),
        events.begin(4000),
        events.remove(pets.id, { key: [events.int4(77), events.sqlNull, events.sqlNull] }),
        events.commit(4000)
      ])
      const applied = yield* everything(database)
      assert.lengthOf((yield* plan(command)).transactions, 1)
      const next = yield* plan(command, "--transactions", "9")
      assert.deepStrictEqual(
        next.transactions.map(({ steps }) => steps.map(({ kind }) => kind)),
        [["folded", "folded"], ["schema", "unknown"], ["unknown"]]
      )
      assert.deepStrictEqual(next.transactions[0].steps[0].parameters, ["integer[]", "text[]"])
      const all = yield* plan(command, "--transactions", "9", "--try")
      assert.deepStrictEqual(
        all.transactions.map(({ steps, tried }) => [steps.map(({ kind }) => kind), tried]),
        [
          [["folded", "folded"], "PostgreSQL took it: 2 statements, 0 schema changes"],
          [["schema", "folded"], "PostgreSQL took it: 1 statement, 1 schema change"],
          [["folded"], "PostgreSQL took it: 1 statement, 0 schema changes; 1 missing row passed over"]
        ]
      )
      const text = (yield* command("plan", "--transactions", "9", "--try")).out
      assert.match(text, /^transaction 742 at offsets 6 to 9, 0\/7D0, committed 2021-/)
      for (const one of [first, tried, next, all, text]) assert.notInclude(JSON.stringify(one), "s3cr3t")
      const shown = yield* plan(command, "--values")
      assert.deepStrictEqual(shown.transactions[0].steps[0].values, ['{"1"}', '{"s3cr3t"}'])
      assert.deepStrictEqual(yield* everything(database), applied)
    })
  )

  it.effect("says why changes are not folded, and that a large transaction is streamed", () =>
    Effect.gen(function* () {
      const { append, command, database } = yield* Operator.make()
      yield* database.query(`
        CREATE TABLE pets (id int PRIMARY KEY, name text);
        CREATE TABLE loose (id int, name text);
        CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER noted AFTER INSERT ON pets FOR EACH ROW EXECUTE FUNCTION noted();
        ALTER TABLE pets ENABLE ALWAYS TRIGGER noted;
      `)
      const loose = events.relationOf({ id: 16_400, name: "loose", replicaIdentity: "Full" })
      const row = [events.int4(1), events.text("one")]
      yield* append([
        events.begin(1000),
        events.relation(loose),
        events.insert(loose.id, row),
        events.remove(loose.id, { old: row }),
        events.commit(1000),
        events.begin(2000),
        events.relation(pets),
        events.insert(pets.id, row),
        events.commit(2000),
        events.begin(3000),
        ...Array.from({ length: 40 }, (_, n) => events.insert(loose.id, [events.int4(n), events.text("x".repeat(40))])),
        events.commit(3000)
      ])
      const { transactions } = yield* plan(command, "--transactions", "3", "--group-bytes", "2 KiB", "--try")
      const [first, second, third] = transactions
      assert.deepStrictEqual(
        [...first.steps, ...second.steps].map(({ kind, parameters, reason }) => [kind, parameters, reason]),
        [
          ["folded", ["6 bytes of COPY"], "rows that follow each other"],
          ["in order", ["integer", "text"], "the row is found by all of its values"],
          ["in order", ["integer", "text"], "a trigger or rule of the table fires, and sees the order"]
        ]
      )
      assert.deepInclude(third, { isStreamed: true, lastOffset: 50, failure: null })
      assert.isAbove(third.steps.length, 1)
      assert.match(third.tried ?? "", /^PostgreSQL took it/)

      const cut = yield* plan(
        command,
        "--transactions",
        "3",
        "--group-bytes",
        "2 KiB",
        "--limit-bytes",
        "3000",
        "--try"
      )
      assert.isTrue(cut.isCut)
      assert.deepInclude(cut.transactions.at(-1), { isStreamed: true, lastOffset: null, tried: null })
    })
  )

  it.effect("tells where the connector would stop, and exits with 3", () =>
    Effect.gen(function* () {
      const { append, command, database } = yield* Operator.make()
      yield* database.query(`
        CREATE TABLE pets (id int PRIMARY KEY, name text UNIQUE);
        INSERT INTO pets VALUES (9, 's3cr3t');
      `)
      yield* append([
        events.begin(1000),
        events.relation(pets),
        events.insert(pets.id, [events.int4(1), events.text("s3cr3t")]),
        events.commit(1000),
        events.begin(2000),
        events.insert(pets.id, [events.int4(2), events.text("two")]),
        events.commit(2000)
      ])
      const before = yield* everything(database)
      const planned = yield* plan(command, "--transactions", "2")
      assert.deepStrictEqual([planned.code, planned.transactions.length], [0, 2])
      const { code, err, transactions } = yield* plan(command, "--transactions", "2", "--try")
      assert.deepStrictEqual([code, transactions.length], [3, 1])
      assert.match(
        transactions[0].failure?.message ?? "",
        /^public\.pets, offset 2, .* \(SQLSTATE 23505, .*pets_name_key\)$/
      )
      assert.include(err, transactions[0].failure?.message ?? "no message")
      assert.notInclude(JSON.stringify(transactions) + err, "s3cr3t")
      assert.deepStrictEqual(yield* everything(database), before)

      yield* database.query("DROP TABLE pets")
      const strict = yield* plan(command, "--schema-changes", "validate")
      assert.strictEqual(strict.code, 3)
      assert.match(strict.transactions[0].failure?.message ?? "", /^"public"\."pets", offset 1/)
      for (const words of [
        ["--transactions", "0"],
        ["--limit-bytes", "none"]
      ]) {
        assert.strictEqual((yield* command("plan", ...words)).code, 2)
      }
    })
  )
})
