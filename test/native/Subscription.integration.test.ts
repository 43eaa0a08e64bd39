import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { ApplyFailed } from "../../src/SinkError.ts"
import { connect } from "../postgres.ts"
import { real, Replica } from "./Replica.ts"

layer(Replica.layer, real)("As a subscription", (it) => {
  it.effect("rewrites, materialized views, messages, subtransactions, two phases and origins", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source: `
          CREATE TABLE t (id int PRIMARY KEY, v text, seen date);
          CREATE TABLE large (id int PRIMARY KEY, v text);
          CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
          SELECT pg_replication_origin_create('elsewhere')`,
        settings: { "schema-changes": "full", group: { bytes: "16 KiB" } }
      })
      yield* replica.replicate(
        "INSERT INTO t VALUES (1, 'one'), (2, 'two'); INSERT INTO unlogged VALUES (1)",
        // 009: what a view holds is no row of the stream.
        "CREATE MATERIALIZED VIEW seen AS SELECT id FROM t; REFRESH MATERIALIZED VIEW seen; INSERT INTO t VALUES (3, 'three')",
        // 020
        "SELECT pg_logical_emit_message(true, 'prefix', 'content'); INSERT INTO t VALUES (4, 'four'); SELECT pg_logical_emit_message(false, 'prefix', 'content')",
        // 006: the table is written anew on the source, which is no change of its rows.
        "ALTER TABLE t ALTER v TYPE varchar(20); UPDATE t SET v = v || '!' WHERE id < 3"
      )
      yield* replica.source.query("VACUUM FULL t")
      yield* replica.source.query("CLUSTER t USING t_pkey")
      yield* replica.replicate("INSERT INTO t VALUES (5, 'five')")
      yield* replica.equal

      // 015 to 019: of subtransactions and of changes of shape only what was not rolled back, in large transactions too.
      yield* replica.replicate(
        `BEGIN; INSERT INTO large SELECT n, md5(n::text) FROM generate_series(1, 500) AS n;
         SAVEPOINT a; INSERT INTO large SELECT n, 'gone' FROM generate_series(501, 1000) AS n; ALTER TABLE large ADD gone int; UPDATE large SET gone = 1;
         ROLLBACK TO a; INSERT INTO large SELECT n, md5(n::text) FROM generate_series(501, 600) AS n;
         SAVEPOINT b; ALTER TABLE large ADD c int; INSERT INTO large SELECT n, md5(n::text), n FROM generate_series(601, 900) AS n;
         SAVEPOINT c; DELETE FROM large WHERE id % 3 = 0; RELEASE c; SAVEPOINT d; UPDATE large SET v = 'gone'; ROLLBACK TO d;
         UPDATE large SET c = -id WHERE id % 5 = 0; COMMIT`
      )
      yield* replica.equal
      assert.deepStrictEqual(yield* replica.rows("SELECT count(*) > 500, bool_or(v = 'gone') AS gone FROM large"), [
        ["t", "f"]
      ])

      // 021 to 023: a prepared transaction comes when it is committed, behind those that were committed before.
      yield* replica.replicate(
        "BEGIN; UPDATE t SET v = 'prepared' WHERE id = 1; PREPARE TRANSACTION 'kept'",
        "BEGIN; UPDATE t SET v = 'gone' WHERE id = 2; PREPARE TRANSACTION 'dropped'",
        "INSERT INTO t VALUES (6, 'between')"
      )
      assert.deepStrictEqual(yield* replica.rows("SELECT v FROM t WHERE id IN (1, 2, 6) ORDER BY id"), [
        ["one!"],
        ["two!"],
        ["between"]
      ])
      yield* replica.replicate("COMMIT PREPARED 'kept'", "ROLLBACK PREPARED 'dropped'")
      yield* replica.equal

      // 030: what came to the source from elsewhere is the source's all the same.
      yield* replica.replicate(
        "SELECT pg_replication_origin_session_setup('elsewhere')",
        "BEGIN; SELECT pg_replication_origin_xact_setup('0/ABCDEF', '2024-01-01'); INSERT INTO t VALUES (7, 'from elsewhere'); COMMIT",
        "SELECT pg_replication_origin_session_reset()"
      )
      yield* replica.equal
    })
  )

  it.effect("truncates of several tables, with their cascades and sequences", () =>
    Effect.gen(function* () {
      const tables = `
        CREATE TABLE one (id int PRIMARY KEY); CREATE TABLE two (id serial PRIMARY KEY, v text);
        CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
        CREATE TABLE left_out (id int PRIMARY KEY);`
      const replica = yield* Replica.start({
        source: tables,
        target: `${tables} CREATE TABLE beyond (id int PRIMARY KEY, parent int REFERENCES parent)`,
        settings: { tables: { exclude: ["public.left_out"] } }
      })
      const fill = `
        INSERT INTO one VALUES (1), (2); INSERT INTO two (v) VALUES ('a'), ('b'); INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2);
        INSERT INTO left_out VALUES (1)`
      yield* replica.replicate(fill, "TRUNCATE one, two, left_out; INSERT INTO one VALUES (3)")
      yield* replica.same("SELECT * FROM one")
      yield* replica.same("SELECT * FROM two")
      // In one transaction with rows before and behind it, and folded with others.
      yield* replica.replicate(
        "INSERT INTO one VALUES (4); TRUNCATE one; INSERT INTO one VALUES (4), (5)",
        "DELETE FROM one WHERE id = 4; INSERT INTO one VALUES (6)",
        "TRUNCATE one; INSERT INTO one VALUES (7)"
      )
      yield* replica.same("SELECT * FROM one ORDER BY id")
      yield* replica.target.query("SELECT setval('two_id_seq', 100)")
      yield* replica.replicate("TRUNCATE two RESTART IDENTITY")
      assert.deepStrictEqual(yield* replica.rows("SELECT nextval('two_id_seq')"), [["1"]])
      yield* replica.target.query("INSERT INTO beyond VALUES (1, 1)")
      // A table that the source does not know stands in the way, as it does for a subscription.
      const error = yield* replica.halt("TRUNCATE parent CASCADE; INSERT INTO parent VALUES (9)")
      assert.instanceOf(error, ApplyFailed)
      assert.strictEqual(error.failure.sqlState, "0A000")
      assert.include(error.message, "a table that is not emptied with it refers to it")
      assert.deepStrictEqual(yield* replica.rows("SELECT * FROM beyond"), [["1", "1"]])
      const find = /SELECT .*'::regclass\)/.exec(error.remedy)?.[0]
      assert.include((yield* replica.rows(String(find))).flat(), "beyond")
      yield* replica.restart({ tables: { exclude: ["public.left_out"] }, "truncate-cascade": "as-source" })
      yield* replica.caughtUp
      yield* replica.same("SELECT * FROM parent")
      yield* replica.same("SELECT * FROM child")
      assert.deepStrictEqual(yield* replica.rows("SELECT * FROM beyond"), [])
    })
  )

  it.effect(
    "publications with lists of tables, schemas and columns, with row filters, roots and generated columns",
    () =>
      Effect.gen(function* () {
        const some = yield* Replica.start({
          source: `
          CREATE SCHEMA app; CREATE TABLE a (id int PRIMARY KEY, v text, secret text); CREATE TABLE b (id int PRIMARY KEY, v text);
          CREATE TABLE app.c (id int PRIMARY KEY, v text);
          CREATE PUBLICATION published FOR TABLE a (id, v) WHERE (id > 10)`
        })
        // 028, 031: a row that comes to pass the filter is inserted, one that ceases to is deleted.
        yield* some.replicate(
          "INSERT INTO a SELECT n, 'v', 'secret' FROM generate_series(5, 15) AS n; INSERT INTO b VALUES (1, 'unseen')",
          "UPDATE a SET id = id + 100 WHERE id = 5; UPDATE a SET id = 6 + 0 WHERE id = 6; UPDATE a SET v = 'changed' WHERE id IN (7, 12)",
          "DELETE FROM a WHERE id IN (8, 13); UPDATE a SET id = 1 WHERE id = 14"
        )
        assert.deepStrictEqual(
          yield* some.rows("SELECT * FROM a ORDER BY id"),
          (yield* some.source.query("SELECT id, v FROM a WHERE id > 10 ORDER BY id")).map((row) => Object.values(row))
        )
        // 024, 025: tables come and go; 031: a column comes.
        yield* some.replicate(
          "ALTER PUBLICATION published ADD TABLE b",
          "INSERT INTO b VALUES (2, 'seen')",
          "ALTER PUBLICATION published DROP TABLE a",
          "INSERT INTO a VALUES (50, 'unseen')",
          "ALTER PUBLICATION published ADD TABLES IN SCHEMA app",
          "INSERT INTO app.c VALUES (1, 'seen')",
          "ALTER PUBLICATION published ADD TABLE a",
          "INSERT INTO a VALUES (51, 'v', 'no secret')"
        )
        assert.deepStrictEqual(yield* some.rows("SELECT * FROM b"), [["2", "seen"]])
        yield* some.same("SELECT * FROM app.c")
        assert.deepStrictEqual(yield* some.rows("SELECT * FROM a WHERE id > 20 ORDER BY id"), [
          ["51", "v", "no secret"],
          ["105", "v", null]
        ])

        // 011, 013
        const rooted = yield* Replica.start({
          source: `
          CREATE TABLE parts (id int, v int, twice int GENERATED ALWAYS AS (v * 2) STORED, PRIMARY KEY (id)) PARTITION BY RANGE (id);
          CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10);
          CREATE TABLE parts_high (v int, id int NOT NULL, twice int GENERATED ALWAYS AS (v * 2) STORED);
          ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM (10) TO (20);
          CREATE TABLE made (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED, late int GENERATED ALWAYS AS (v * 3) VIRTUAL);
          CREATE PUBLICATION published FOR ALL TABLES WITH (publish_via_partition_root, publish_generated_columns = stored)`,
          target: "CREATE TABLE made (id int PRIMARY KEY, v int, twice int)"
        })
        yield* rooted.replicate(
          "INSERT INTO parts SELECT n, n FROM generate_series(1, 19) AS n; INSERT INTO made VALUES (1, 1)",
          "UPDATE parts SET id = 0 WHERE id = 19; UPDATE parts SET v = 100 WHERE id < 3; DELETE FROM parts WHERE id = 10; UPDATE made SET v = 2",
          "ALTER TABLE parts DETACH PARTITION parts_high; INSERT INTO parts_high (id, v) VALUES (99, 1)"
        )
        yield* rooted.same("SELECT id, v, twice FROM parts WHERE id < 10 ORDER BY id")
        assert.deepStrictEqual(yield* rooted.rows("SELECT id, v, twice FROM parts_high"), [["99", "1", "2"]])
        assert.deepStrictEqual(yield* rooted.rows("SELECT * FROM made"), [["1", "2", "4"]])
      })
  )

  it.effect("keys of ranges without overlaps, keys with included columns, dropped columns, and other encodings", () =>
    Effect.gen(function* () {
      const tables = `
        CREATE EXTENSION btree_gist;
        CREATE TABLE temporal (id int, valid daterange, v text, PRIMARY KEY (id, valid WITHOUT OVERLAPS));
        CREATE TABLE included (id int, v text, n int, PRIMARY KEY (id) INCLUDE (n));
        CREATE TABLE dropped (a int, id int, b text, c text); ALTER TABLE dropped REPLICA IDENTITY FULL, DROP a, DROP b;`
      const replica = yield* Replica.start({ source: tables, target: tables, settings: { "schema-changes": "full" } })
      yield* replica.replicate(
        `INSERT INTO temporal VALUES (1, '[2024-01-01,2024-02-01)', 'a'), (1, '[2024-02-01,2024-03-01)', 'b'), (2, '[2024-01-01,)', 'c');
         INSERT INTO included SELECT n, 'v', n FROM generate_series(1, 5) AS n;
         INSERT INTO dropped SELECT n, 'c' FROM generate_series(1, 5) AS n`,
        `UPDATE temporal SET v = 'changed' WHERE id = 1; UPDATE temporal SET valid = '[2024-01-01,2024-01-15)' WHERE id = 1 AND valid @> '2024-01-10'::date;
         INSERT INTO temporal VALUES (1, '[2024-01-15,2024-02-01)', 'd'); DELETE FROM temporal WHERE id = 2;
         UPDATE included SET v = 'changed' WHERE id = 1; UPDATE included SET n = 20 WHERE id = 2; UPDATE included SET id = 30 WHERE id = 3; DELETE FROM included WHERE id = 4;
         UPDATE dropped SET c = NULL WHERE id < 3; UPDATE dropped SET id = 9 WHERE c IS NULL; DELETE FROM dropped WHERE id = 4; ALTER TABLE dropped DROP c; INSERT INTO dropped VALUES (10)`
      )
      yield* replica.equal

      // 005: the text is converted to the target's encoding, and what that cannot hold is refused.
      const name = `latin_${replica.target.name}`
      yield* replica.target.query(
        `CREATE DATABASE ${name} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C' LOCALE_PROVIDER libc`
      )
      const url = new URL(Redacted.value(replica.target.url))
      url.pathname = `/${name}`
      const latin = yield* connect(name, Redacted.make(url.href))
      yield* latin.query(tables)
      yield* replica.restart({ url: url.href, "schema-changes": "full" })
      yield* replica.replicate(
        "INSERT INTO included VALUES (40, 'Größe', 1)",
        "UPDATE included SET v = 'été' WHERE id = 40"
      )
      assert.deepStrictEqual(yield* latin.query("SELECT v, octet_length(v) AS bytes FROM included WHERE id = 40"), [
        { v: "été", bytes: "3" }
      ])
      const error = yield* replica.halt("UPDATE included SET v = '😀' WHERE id = 40")
      assert.instanceOf(error, ApplyFailed)
      assert.strictEqual(error.failure.sqlState, "22P05")
    })
  )

  it.effect("keys that the target's collation holds equal although their bytes differ", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source:
          "CREATE TABLE t (k text PRIMARY KEY, v text); CREATE TABLE whole (k text, v text); ALTER TABLE whole REPLICA IDENTITY FULL",
        target: `
          CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
          CREATE TABLE t (k text COLLATE nocase PRIMARY KEY, v text COLLATE nocase);
          CREATE TABLE whole (k text COLLATE nocase, v text)`,
        isJudged: true
      })
      yield* replica.replicate(
        "INSERT INTO t VALUES ('Key', 'v'), ('other', 'v'); INSERT INTO whole VALUES ('Key', 'v'), ('other', 'v')",
        "UPDATE t SET k = 'KEY', v = 'V' WHERE k = 'Key'; UPDATE t SET v = 'x'; UPDATE whole SET k = 'KEY'",
        "UPDATE t SET k = 'kEY' WHERE k = 'KEY'; DELETE FROM t WHERE k = 'other'; INSERT INTO t VALUES ('OTHER', 'again'); DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole)"
      )
      yield* replica.same("SELECT * FROM t ORDER BY v")
      yield* replica.same("SELECT * FROM whole")
      yield* replica.judged
      // The source may have both.
      const error = yield* replica.halt("INSERT INTO t VALUES ('key', 'v')")
      assert.instanceOf(error, ApplyFailed)
      assert.strictEqual(error.failure.sqlState, "23505")
    })
  )
})
