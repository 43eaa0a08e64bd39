import { PgClient } from "@effect/sql-pg"
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer, Option, Redacted, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as PgOffsetStore from "../../../layers/postgres/PgOffsetStore.ts"
import { ConnectorConfig, fromObject } from "../../../src/ConnectorConfig.ts"
import { Offset } from "../../../src/stream/FluvioConsumer.ts"
import { OffsetStore, PositionConflict } from "../../../src/stream/OffsetStore.ts"
import { offsetStoreChecks, position, relation, type StoreFixture } from "../../offsetStore.ts"
import { type TestDatabase, TestPostgres } from "../../postgres.ts"

const nothing = { relations: [], types: [] }

const instanceOn = (
  client: Layer.Layer<SqlClient.SqlClient, unknown>,
  url: Redacted.Redacted<string>,
  topic: string,
  partition: number
): Effect.Effect<OffsetStore["Service"], never, Scope.Scope> =>
  Layer.build(
    PgOffsetStore.layer.pipe(
      Layer.provide(client),
      Layer.provide(ConnectorConfig.layerFrom([fromObject({ topic, partition, url: Redacted.value(url) })]))
    )
  ).pipe(
    Effect.map((context) => Context.get(context, OffsetStore)),
    Effect.orDie
  )

/** As the superuser, or as a role whose password is `x`. */
const fixtureOn = Effect.fnUntraced(function* (database: TestDatabase, role?: string) {
  const login = new URL(Redacted.value(database.url))
  if (role !== undefined) {
    login.username = role
    login.password = "x"
  }
  const url = Redacted.make(login.href)
  const context = yield* Layer.build(PgClient.layer({ url, maxConnections: 3 }))
  const sql = Context.get(context, SqlClient.SqlClient)
  const fixture: StoreFixture = {
    instance: (topic, partition) => instanceOn(Layer.succeed(SqlClient.SqlClient, sql), url, topic, partition),
    withTransaction: sql.withTransaction
  }
  return fixture
})

/** As the original connector left it. */
const original = (offset: number) => `
  CREATE SCHEMA fluvio;
  CREATE TABLE fluvio.offset (id INT8 PRIMARY KEY, current_offset INT8 NOT NULL);
  INSERT INTO fluvio.offset (id, current_offset) VALUES (1, ${offset});
`

/** Only the offset of it counts. */
const setByHand = (offset: number) =>
  Option.some({
    offset: Offset.make(offset),
    checksum: undefined,
    epoch: 0,
    commitLsn: undefined,
    commitTime: undefined,
    latestTime: undefined
  })

const described = (...at: ReadonlyArray<number>) => ({
  relations: at.map((n) => ({ relation: relation(16_000 + n, "id"), offset: Offset.make(n) })),
  types: []
})

/** As an earlier version left it. */
const withoutQuarantineRecord = `
  DROP TABLE fluvio.instance, fluvio.pause, fluvio.skip, fluvio.action;
  DROP TABLE fluvio.quarantine_record;
  ALTER TABLE fluvio.quarantine DROP COLUMN schema_changes, DROP COLUMN in_a_row,
    DROP COLUMN epoch, DROP COLUMN shapes, DROP COLUMN resolved_reason,
    ADD COLUMN records bytea[] NOT NULL, ADD UNIQUE (topic, partition, first_offset)`

/** As the documentation gives it. */
const setStatement = (offset: number) => `
  INSERT INTO fluvio.offset (topic, partition, current_offset) VALUES ('orders', 1, ${offset})
  ON CONFLICT (topic, partition) DO UPDATE SET current_offset = EXCLUDED.current_offset`

layer(TestPostgres.layer())("PgOffsetStore", (it) => {
  describe("as any OffsetStore", () => {
    for (const [name, run] of offsetStoreChecks) {
      it.effect(name, () =>
        Effect.gen(function* () {
          const fixture = yield* fixtureOn(yield* TestPostgres.database)
          // The tables are made by the first load, as they are when the connector starts.
          yield* (yield* fixture.instance("any", 0)).load
          yield* run(fixture)
        })
      )
    }
  })

  it.effect("adopts the row of the original connector, and leaves it where the original finds it", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(original(41))
      const fixture = yield* fixtureOn(database)
      const store = yield* fixture.instance("orders", 0)
      const stored = yield* store.load
      const legacy = {
        offset: Offset.make(41),
        checksum: undefined,
        epoch: 0,
        commitLsn: undefined,
        commitTime: undefined,
        latestTime: undefined
      }
      assert.deepStrictEqual(stored.position, Option.some(legacy))
      assert.strictEqual(stored.savedBy, "original")

      const other = yield* fixture.instance("orders", 1)
      assert.isTrue(Option.isNone((yield* other.load).position), "the original read partition 0 only")

      const rival = yield* fixture.instance("orders", 0)
      yield* store.save(stored.position, position(50, 9n), nothing)
      const conflict = yield* Effect.flip(rival.save(stored.position, position(51, 9n), nothing))
      assert.instanceOf(conflict, PositionConflict)
      yield* other.save(Option.none(), position(1, 1n), nothing)

      assert.strictEqual((yield* store.load).savedBy, "connector")
      assert.deepStrictEqual(
        yield* database.query("SELECT id, current_offset, topic, partition, commit_lsn FROM fluvio.offset ORDER BY id"),
        [
          { id: "1", current_offset: "50", topic: "orders", partition: "0", commit_lsn: "0/9" },
          { id: "2", current_offset: "1", topic: "orders", partition: "1", commit_lsn: "0/1" }
        ]
      )
    })
  )

  it.effect("takes the original's offset 0 for nothing applied", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(original(0))
      const fixture = yield* fixtureOn(database)
      const store = yield* fixture.instance("orders", 0)
      assert.deepStrictEqual(yield* store.load, { position: Option.none(), described: nothing, savedBy: "connector" })
      yield* store.save(Option.none(), position(3, 1n), nothing)
      assert.deepStrictEqual(yield* database.query("SELECT id, current_offset, topic FROM fluvio.offset"), [
        { id: "1", current_offset: "3", topic: "orders" }
      ])
    })
  )

  it.effect("tells a position that was set by hand, in whatever way, and what was described up to there", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const fixture = yield* fixtureOn(database)
      const store = yield* fixture.instance("orders", 1)
      yield* store.load
      // Before anything was applied.
      yield* database.query(setStatement(2))
      assert.deepStrictEqual(yield* store.load, {
        position: setByHand(2),
        described: nothing,
        savedBy: "operator"
      })
      yield* store.save(setByHand(2), position(9, 2n), described(4, 8))
      for (const statement of [
        setStatement(5),
        "UPDATE fluvio.offset SET current_offset = 5",
        "UPDATE fluvio.offset SET current_offset = 5, checksum = NULL"
      ]) {
        yield* database.query(statement)
        const stored = yield* store.load
        assert.deepStrictEqual(stored, { position: setByHand(5), described: described(4), savedBy: "operator" })
        assert.instanceOf(
          yield* Effect.flip(store.save(Option.some(position(9, 2n)), position(10, 3n), nothing)),
          PositionConflict
        )
        yield* store.save(stored.position, position(9, 2n), described(8))
        assert.strictEqual((yield* store.load).savedBy, "connector")
      }
      yield* store.forget(Option.getOrThrow((yield* store.load).position))
      assert.deepStrictEqual(yield* store.load, { position: Option.none(), described: nothing, savedBy: "connector" })
    })
  )

  it.effect("counts what an earlier version saved as saved", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const store = yield* (yield* fixtureOn(database)).instance("orders", 0)
      yield* store.load
      yield* store.save(Option.none(), position(3, 1n), nothing)
      yield* database.query(`
        ALTER TABLE fluvio.offset DROP COLUMN epoch, DROP COLUMN latest_time, DROP COLUMN saved_offset;
        ALTER TABLE fluvio.relation DROP COLUMN epoch;
        ALTER TABLE fluvio.type DROP COLUMN epoch;
        DROP TABLE fluvio.decision, fluvio.unfilled;
        ${withoutQuarantineRecord};
        DELETE FROM fluvio.migration WHERE migration_id >= 5`)
      assert.deepStrictEqual(yield* store.load, {
        position: Option.some({ ...position(3, 1n), latestTime: undefined }),
        described: nothing,
        savedBy: "connector"
      })
    })
  )

  it.effect("takes what an earlier version has set aside along", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const store = yield* (yield* fixtureOn(database)).instance("orders", 0)
      yield* store.load
      yield* database.query(`
        ${withoutQuarantineRecord};
        INSERT INTO fluvio.quarantine (topic, partition, first_offset, last_offset, class, reason, records)
        VALUES ('orders', 0, 7, 9, 'data', 'why', '{one,two,"\\\\x00"}'), ('orders', 0, 20, 20, 'data', 'why', '{four}');
        DELETE FROM fluvio.migration WHERE migration_id >= 7`)
      yield* store.load
      assert.deepStrictEqual(
        yield* database.query("SELECT quarantine_id, record_offset, record FROM fluvio.quarantine_record ORDER BY 2"),
        [
          { quarantine_id: "1", record_offset: "7", record: "\\x6f6e65" },
          { quarantine_id: "1", record_offset: "8", record: "\\x74776f" },
          { quarantine_id: "1", record_offset: "9", record: "\\x00" },
          { quarantine_id: "2", record_offset: "20", record: "\\x666f7572" }
        ]
      )
      assert.deepStrictEqual(yield* database.query("SELECT DISTINCT in_a_row FROM fluvio.quarantine"), [
        { in_a_row: "f" }
      ])
    })
  )

  it.effect("lets instances that start at the same time wait for each other's migration", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(original(7))
      const own = PgClient.layer({ url: database.url, maxConnections: 1 }).pipe(Layer.orDie)
      const loads = yield* Effect.all(
        Array.from({ length: 6 }, () =>
          instanceOn(Layer.fresh(own), database.url, "orders", 0).pipe(Effect.flatMap((store) => store.load))
        ),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual([...new Set(loads.map((stored) => stored.savedBy))], ["original"])
      assert.deepStrictEqual(yield* database.query("SELECT migration_id FROM fluvio.migration ORDER BY 1"), [
        { migration_id: "1" },
        { migration_id: "2" },
        { migration_id: "3" },
        { migration_id: "4" },
        { migration_id: "5" },
        { migration_id: "6" },
        { migration_id: "7" },
        { migration_id: "8" }
      ])
    })
  )

  it.effect("needs no right to create when an administrator has prepared the tables", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const admin = yield* (yield* fixtureOn(database)).instance("orders", 0)
      yield* database.query(
        `CREATE ROLE applier_${database.name} LOGIN PASSWORD 'x'; REVOKE CREATE ON SCHEMA public FROM PUBLIC`
      )
      const fixture = yield* fixtureOn(database, `applier_${database.name}`)
      const store = yield* fixture.instance("orders", 0)
      const refused = yield* Effect.flip(store.load)
      assert.deepInclude(refused, { sqlState: "42501", isRetryable: false })
      assert.strictEqual(refused.message, "loading the position failed (SQLSTATE 42501): insufficient privilege")
      yield* admin.load
      yield* database.query(`
        GRANT USAGE ON SCHEMA fluvio TO applier_${database.name};
        GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA fluvio TO applier_${database.name};
      `)
      yield* store.load
      yield* store.save(Option.none(), position(3, 1n), nothing)
    })
  )

  it.effect("tells why its tables could not be created, and whether trying again may help", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const role = `beginner_${database.name}`
      yield* database.query(`
        CREATE SCHEMA fluvio;
        CREATE ROLE ${role} LOGIN PASSWORD 'x';
        GRANT USAGE ON SCHEMA fluvio TO ${role};
      `)
      const fixture = yield* fixtureOn(database, role)
      const store = yield* fixture.instance("orders", 0)
      const refused = yield* Effect.flip(store.load)
      assert.deepInclude(refused, { sqlState: "42501", isRetryable: false })
      assert.include(refused.remedy, "the role may create")

      yield* database.query(`
        GRANT CREATE ON SCHEMA fluvio TO ${role};
        CREATE FUNCTION cancel() RETURNS event_trigger LANGUAGE plpgsql AS
          $$ BEGIN RAISE EXCEPTION USING ERRCODE = '57014'; END $$;
        CREATE EVENT TRIGGER cancels ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION cancel();
      `)
      assert.deepInclude(yield* Effect.flip(store.load), { sqlState: "57014", isRetryable: true })
      yield* database.query("DROP EVENT TRIGGER cancels")
      assert.isTrue(Option.isNone((yield* store.load).position))
    })
  )

  it.effect("says so when its tables are not its own", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const fixture = yield* fixtureOn(database)
      const store = yield* fixture.instance("orders", 0)
      yield* store.load
      yield* store.save(Option.none(), position(3, 1n), nothing)
      yield* database.query("UPDATE fluvio.offset SET current_offset = -1")
      const error = yield* Effect.flip(store.load)
      assert.isFalse(error.isRetryable)
      yield* database.query("DROP TABLE fluvio.offset")
      assert.strictEqual((yield* Effect.flip(store.load)).sqlState, "42P01")
    })
  )
})
