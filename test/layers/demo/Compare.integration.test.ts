import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { setTimeout as sleep } from "node:timers/promises"
import { compare, type Comparison } from "../../../layers/demo/Compare.ts"
import * as Workload from "../../../layers/demo/Workload.ts"
import { type TestDatabase, TestPostgres } from "../../postgres.ts"

const pair = Effect.all([TestPostgres.database, TestPostgres.database])

const between = (source: TestDatabase, target: TestDatabase) => compare(source.url, target.url)

/** What differs, in short. */
const differing = ({ tables }: Comparison) =>
  Object.fromEntries(
    tables
      .filter(
        (table) => table.missingRows + table.extraRows + table.missingColumns.length + table.extraColumns.length > 0
      )
      .map(({ examples, extraColumns, extraRows, missingColumns, missingRows, name }) => [
        name,
        {
          missingRows,
          extraRows,
          missingColumns,
          extraColumns,
          examples: examples.map(({ row, side }) => `${side} ${row}`)
        }
      ])
  )

const nothing = { missingRows: 0, extraRows: 0, missingColumns: [], extraColumns: [], examples: [] }

layer(TestPostgres.layer())("Compare", (it) => {
  it.effect("finds nothing where PostgreSQL's own logical replication has carried the workload", () =>
    Effect.gen(function* () {
      const [source, target] = yield* pair
      for (const statement of [...Workload.types, ...Workload.tables]) {
        yield* source.query(statement)
        yield* target.query(statement)
      }
      const slot = `native_${source.name}`
      yield* source.query(`CREATE PUBLICATION native FOR ALL TABLES`)
      yield* source.query(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`)
      yield* target.query(`
        CREATE SUBSCRIPTION ${slot} CONNECTION '${Redacted.value(source.url)}' PUBLICATION native
        WITH (create_slot = false, slot_name = ${slot}, copy_data = false, synchronous_commit = on)
      `)
      const caughtUp = Effect.gen(function* () {
        const [row] = yield* source.query("SELECT pg_current_wal_flush_lsn() AS lsn")
        yield* source
          .query(
            `SELECT confirmed_flush_lsn >= '${row["lsn"]}' AS is_there FROM pg_replication_slots WHERE slot_name = '${slot}'`
          )
          .pipe(
            Effect.tap(([row]) => (row["is_there"] === "t" ? Effect.void : Effect.promise(() => sleep(10)))),
            Effect.repeat({ while: ([row]) => row["is_there"] !== "t" }),
            Effect.timeout("30 seconds")
          )
      })
      for (const transaction of Workload.take(1, Workload.transactionsPerRound)) {
        // PostgreSQL does not replicate DDL: it has to be repeated by hand while nothing is under way.
        const ddl = transaction.statements.filter((statement) => statement.startsWith("ALTER TABLE"))
        if (ddl.length > 0) yield* caughtUp
        for (const statement of ddl) yield* target.query(statement)
        yield* source.query(Workload.textOf(transaction))
      }
      yield* caughtUp
      const result = yield* between(source, target)
      yield* target.query(`DROP SUBSCRIPTION ${slot}`)

      assert.deepStrictEqual(differing(result), {})
      assert.strictEqual(result.differences, 0)
      assert.deepStrictEqual(
        result.tables.map(({ name, schema }) => `${schema}.${name}`),
        [
          "Sales Desk.Order",
          "public.customer",
          "public.document",
          "public.order_line",
          "public.specimen",
          "public.staging",
          "public.visit",
          "public.voucher"
        ]
      )
      const counts = yield* Effect.forEach(result.tables, ({ name, schema }) =>
        Effect.map(source.query(`SELECT count(*) FROM "${schema}"."${name}"`), ([row]) => Number(row["count"]))
      )
      assert.deepStrictEqual(
        result.tables.map(({ rows }) => rows),
        counts
      )
      assert.strictEqual(
        result.rows,
        counts.reduce((sum, count) => sum + count)
      )
      assert.isTrue(counts.every((count) => count > 0))
    })
  )

  it.effect("tells every kind of difference, and no other", () =>
    Effect.gen(function* () {
      const [source, target] = yield* pair
      yield* source.query(`
        CREATE TABLE alike (id int, b text); INSERT INTO alike VALUES (1, 'x'), (2, NULL);
        CREATE TABLE value (id int, b text); INSERT INTO value VALUES (1, 'x'), (2, 'y');
        CREATE TABLE absent (b text); INSERT INTO absent VALUES (NULL), ('NULL');
        CREATE TABLE empty_text (b text); INSERT INTO empty_text VALUES ('');
        CREATE TABLE twice (b int); INSERT INTO twice VALUES (1), (1), (2);
        CREATE TABLE digits (b numeric); INSERT INTO digits VALUES (1.0);
        CREATE TABLE zero (b float8); INSERT INTO zero VALUES ('-0');
        CREATE TABLE columns (a int, b int, c int GENERATED ALWAYS AS (a + 1) STORED); INSERT INTO columns VALUES (1, 2);
        CREATE TABLE lacking (a int); INSERT INTO lacking VALUES (7);
        CREATE TABLE never (a int);
        CREATE TABLE bare (); INSERT INTO bare DEFAULT VALUES;
        CREATE UNLOGGED TABLE unlogged (a int); INSERT INTO unlogged VALUES (1);
        CREATE TABLE parted (a int) PARTITION BY LIST (a);
        CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1); INSERT INTO parted VALUES (1);
        CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent);
        INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2)
      `)
      yield* target.query(`
        CREATE TABLE alike (b text, id int); INSERT INTO alike VALUES (NULL, 2), ('x', 1);
        CREATE TABLE value (id int, b text); INSERT INTO value VALUES (1, 'x'), (2, 'z');
        CREATE TABLE absent (b text); INSERT INTO absent VALUES ('NULL'), ('NULL');
        CREATE TABLE empty_text (b text); INSERT INTO empty_text VALUES (NULL);
        CREATE TABLE twice (b int); INSERT INTO twice VALUES (1), (2), (2);
        CREATE TABLE digits (b numeric); INSERT INTO digits VALUES (1.00);
        CREATE TABLE zero (b float8); INSERT INTO zero VALUES (0);
        CREATE TABLE columns (a int, extra int); INSERT INTO columns VALUES (1, 2);
        CREATE TABLE bare (); INSERT INTO bare DEFAULT VALUES; INSERT INTO bare DEFAULT VALUES;
        CREATE TABLE parted_1 (a int); INSERT INTO parted_1 VALUES (1);
        CREATE TABLE parent (a int); INSERT INTO parent VALUES (1);
        CREATE TABLE child (a int); INSERT INTO child VALUES (2);
        CREATE TABLE ours (a int); INSERT INTO ours VALUES (1)
      `)
      const result = yield* between(source, target)
      const one = { ...nothing, missingRows: 1, extraRows: 1 }
      assert.deepStrictEqual(differing(result), {
        absent: { ...one, examples: ["source ()", "target (NULL)"] },
        bare: { ...nothing, extraRows: 1, examples: ["target ()"] },
        columns: { ...nothing, missingColumns: ["b"], extraColumns: ["extra"] },
        digits: { ...one, examples: ["source (1.0)", "target (1.00)"] },
        empty_text: { ...one, examples: ['source ("")', "target ()"] },
        lacking: { ...nothing, missingRows: 1, examples: ["source (7)"] },
        twice: { ...one, examples: ["source (1)", "target (2)"] },
        value: { ...one, examples: ["source (y,2)", "target (z,2)"] },
        zero: { ...one, examples: ["source (-0)", "target (0)"] }
      })
      assert.strictEqual(result.differences, 6 * 2 + 1 + 1 + 2)
    })
  )

  it.effect("keeps to the order of bytes over many parts, whatever the collation is", () =>
    Effect.gen(function* () {
      const [source, target] = yield* pair
      const rows = `SELECT n, repeat(chr(n % 200 + 0x10FF00), 3) || chr(CASE n % 3 WHEN 0 THEN 0x1F642 ELSE 0xFF41 END)
        FROM generate_series(1, 5000) AS n`
      yield* source.query(`CREATE TABLE t (id int, b text COLLATE "und-x-icu")`)
      yield* target.query(`CREATE TABLE t (id int, b text COLLATE "C")`)
      for (const database of [source, target]) yield* database.query(`INSERT INTO t ${rows}`)
      assert.strictEqual((yield* between(source, target)).differences, 0)

      yield* target.query(
        "DELETE FROM t WHERE id % 10 = 3; INSERT INTO t SELECT n, 'new' FROM generate_series(1, 1500) AS n"
      )
      const [table] = (yield* between(source, target)).tables
      assert.deepInclude(table, { rows: 5000, missingRows: 500, extraRows: 1500 })
      assert.strictEqual(table.examples.length, 3)
    })
  )
})
