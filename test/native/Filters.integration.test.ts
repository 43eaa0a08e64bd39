import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { IdentityMissing } from "../../src/SinkError.ts"
import { real, Replica } from "./Replica.ts"

const names = (schema: string) => `
  SELECT table_schema || '.' || table_name AS name FROM information_schema.tables
  WHERE table_schema NOT IN ('pg_catalog', 'information_schema', 'fluvio') AND table_schema LIKE '${schema}' ORDER BY 1`

/** What a connector does to its position in every transaction. */
const moving = (offset: number) => `UPDATE fluvio.offset SET current_offset = ${offset} WHERE id = 1`

layer(Replica.layer, real)("Filters", (it) => {
  it.effect("tables that are included and not excluded, and nothing else", () =>
    Effect.gen(function* () {
      const create = [
        "public.orders",
        "public.orders_old",
        "public.log",
        "app.users",
        "app.user_secrets",
        "other.users"
      ]
      const replica = yield* Replica.start({
        source: `CREATE SCHEMA app; CREATE SCHEMA other; ${create.map((name) => `CREATE TABLE ${name} (id int PRIMARY KEY, v text);`).join("")}`,
        settings: {
          tables: { include: ["public.*", "app.user*"], exclude: ["*.*_old", "app.user_s?crets", "app.user_secrets"] }
        }
      })
      yield* replica.replicate(
        create.map((name) => `INSERT INTO ${name} VALUES (1, 'v'), (2, 'v')`).join(";"),
        "UPDATE app.user_secrets SET v = 'x'; UPDATE app.users SET v = 'x'; TRUNCATE public.orders_old, public.log"
      )
      assert.deepStrictEqual((yield* replica.rows(names("%"))).flat(), ["app.users", "public.log", "public.orders"])
      yield* replica.same("SELECT * FROM app.users ORDER BY id")
      yield* replica.same("SELECT count(*) FROM public.log")
      // The setting decides from the next start on; what was left out before is not there.
      yield* replica.restart({ tables: { include: ["other.*"] } })
      const missing = yield* replica.halt(
        "INSERT INTO other.users VALUES (3, 'v'); INSERT INTO app.users VALUES (3, 'v')"
      )
      assert.strictEqual(missing._tag, "TableMissing")
      // It has had rows that were not applied: only the operator can copy them.
      yield* replica.target.query("CREATE SCHEMA other; CREATE TABLE other.users (id int PRIMARY KEY, v text)")
      yield* replica.restart({ tables: { include: ["other.*"] } })
      yield* replica.caughtUp
      assert.deepStrictEqual(yield* replica.rows("SELECT id FROM other.users"), [["3"]])
      assert.deepStrictEqual(yield* replica.rows("SELECT id FROM app.users ORDER BY id"), [["1"], ["2"]])
    })
  )

  it.effect("never what another connector keeps in the source: rows, truncates, schema changes and held keys", () =>
    Effect.gen(function* () {
      const own = "CREATE SCHEMA IF NOT EXISTS fluvio; CREATE TABLE IF NOT EXISTS fluvio.offset"
      const replica = yield* Replica.start({
        source: `${own} (id int8 PRIMARY KEY, current_offset int8 NOT NULL); CREATE TABLE t (id int PRIMARY KEY, v text);
          CREATE TABLE fluvio.migration (migration_id int PRIMARY KEY)`,
        target: "CREATE TABLE t (id int PRIMARY KEY, v text CHECK (v <> 'bad'))",
        settings: { tables: { include: ["*.*"] }, "on-error": "quarantine" }
      })
      yield* replica.replicate("INSERT INTO fluvio.offset VALUES (1, 1); INSERT INTO t VALUES (1, 'v')")
      yield* replica.replicate(`INSERT INTO t VALUES (2, 'v'); ${moving(1_000_000)}`)
      yield* replica.replicate(
        "ALTER TABLE fluvio.offset ADD epoch int, DROP current_offset; INSERT INTO fluvio.offset VALUES (2, 5); TRUNCATE fluvio.migration, fluvio.offset"
      )
      yield* replica.same("SELECT * FROM t ORDER BY id")
      // Every transaction of a chained source changes the same position: that holds none of them back.
      yield* replica.replicate(
        "ALTER TABLE fluvio.offset ADD current_offset int8; INSERT INTO fluvio.offset VALUES (1, 5); INSERT INTO t VALUES (3, 'bad')"
      )
      yield* replica.replicate(`INSERT INTO t VALUES (4, 'v'); ${moving(2)}`)
      assert.deepStrictEqual(yield* replica.rows("SELECT id FROM t ORDER BY id"), [["1"], ["2"], ["4"]])
      assert.deepStrictEqual(yield* replica.rows("SELECT count(*) FROM fluvio.quarantine"), [["1"]])
      assert.deepStrictEqual(yield* replica.rows("SELECT count(*) FROM fluvio.offset"), [["1"]])
    })
  )

  it.effect("columns that are included or excluded, in every kind of change", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source: `
          CREATE TABLE kept (id int PRIMARY KEY, a varchar(9), secret text, "Secret two" text);
          CREATE TABLE picked (id int PRIMARY KEY, a text, b text, c text);
          CREATE TABLE whole (a int, secret text); ALTER TABLE whole REPLICA IDENTITY FULL;
          CREATE TABLE keyless (id int PRIMARY KEY, a text)`,
        target: "CREATE TABLE picked (c text, id int PRIMARY KEY, b text DEFAULT 'mine')",
        settings: {
          tables: {
            columns: {
              "public.kept": { exclude: ["secret", "Secret two"] },
              "public.picked": { include: ["id", "c"] },
              "public.whole": { exclude: ["secret"] },
              "public.keyless": { exclude: ["id"] }
            }
          }
        }
      })
      yield* replica.replicate(
        `INSERT INTO kept SELECT n, 'a', 's', 't' FROM generate_series(1, 3) AS n; INSERT INTO picked SELECT n, 'a', 'b', 'c' FROM generate_series(1, 3) AS n;
         INSERT INTO whole VALUES (1, 's'), (1, 't'), (2, 's'); INSERT INTO keyless VALUES (1, 'a')`,
        `UPDATE kept SET secret = 'new'; UPDATE kept SET a = 'new', secret = 'x' WHERE id = 1; UPDATE kept SET id = 10 WHERE id = 2; DELETE FROM kept WHERE id = 3;
         UPDATE picked SET a = 'x', b = 'x'; UPDATE picked SET c = 'new' WHERE id = 1; DELETE FROM picked WHERE id = 2;
         UPDATE whole SET secret = 'x' WHERE a = 2; DELETE FROM whole WHERE secret = 't'`,
        "ALTER TABLE kept DROP secret, ADD more int; INSERT INTO kept VALUES (4, 'a', 't', 5)"
      )
      yield* replica.same("SELECT id, a, more FROM kept ORDER BY id")
      assert.deepStrictEqual(
        (yield* replica.rows(
          "SELECT attname FROM pg_attribute WHERE attrelid = 'kept'::regclass AND attnum > 0 ORDER BY attnum"
        )).flat(),
        ["id", "a", "more"]
      )
      assert.deepStrictEqual(yield* replica.rows("SELECT id, b, c FROM picked ORDER BY id"), [
        ["1", "mine", "new"],
        ["3", "mine", "c"]
      ])
      yield* replica.same("SELECT a FROM whole ORDER BY a")
      // Without its key, a row is not found again.
      const error = yield* replica.halt("UPDATE keyless SET a = 'b'")
      assert.instanceOf(error, IdentityMissing)
    })
  )

  it.effect("schemas and tables under other names, also when the source renames them", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source: `
          CREATE SCHEMA app; CREATE SCHEMA "dot.ted";
          CREATE TABLE app.users (id int PRIMARY KEY, v text); CREATE TABLE app.items (id int PRIMARY KEY, v text);
          CREATE TABLE "dot.ted".t (id int PRIMARY KEY); CREATE TABLE shard_1 (id int PRIMARY KEY, v text); CREATE TABLE shard_2 (id int PRIMARY KEY, v text)`,
        settings: {
          "schema-changes": "full",
          tables: {
            map: {
              app: "Copy of app",
              "app.items": 'public.the "items".v2',
              "public.shard_1": "public.shards",
              "public.shard_2": "public.shards"
            }
          }
        }
      })
      yield* replica.replicate(
        `INSERT INTO app.users VALUES (1, 'v'), (2, 'v'); INSERT INTO app.items VALUES (1, 'v'), (2, 'v'); INSERT INTO "dot.ted".t VALUES (1);
         INSERT INTO shard_1 VALUES (1, 'one'), (3, 'one'); INSERT INTO shard_2 VALUES (2, 'two'), (4, 'two')`,
        `UPDATE app.users SET v = 'x' WHERE id = 1; DELETE FROM app.items WHERE id = 1; UPDATE shard_1 SET v = 'x'; DELETE FROM shard_2 WHERE id = 2`,
        "ALTER TABLE app.users RENAME TO people; INSERT INTO app.people VALUES (3, 'v')"
      )
      assert.deepStrictEqual(
        (yield* replica.rows(names("%"))).flat(),
        ["Copy of app.people", "dot.ted.t", 'public.the "items".v2', "public.shards"].sort()
      )
      assert.deepStrictEqual(yield* replica.rows('SELECT * FROM "Copy of app".people ORDER BY id'), [
        ["1", "x"],
        ["2", "v"],
        ["3", "v"]
      ])
      assert.deepStrictEqual(yield* replica.rows('SELECT * FROM public."the ""items"".v2"'), [["2", "v"]])
      assert.deepStrictEqual(yield* replica.rows("SELECT * FROM shards ORDER BY id"), [
        ["1", "x"],
        ["3", "x"],
        ["4", "two"]
      ])
    })
  )
})
