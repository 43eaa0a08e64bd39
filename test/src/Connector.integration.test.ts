import { assert, layer } from "@effect/vitest"
import { crc32c } from "@node-rs/crc32"
import { Context, Deferred, Effect, Redacted } from "effect"
import { connect, createServer, type AddressInfo, type Socket } from "node:net"
import { Log } from "../../layers/Mock.ts"
import type * as Failpoint from "../../src/Failpoint.ts"
import {
  begin,
  commit,
  eventJson,
  insert,
  int4,
  offset,
  relation,
  relationOf,
  sqlNull,
  text,
  update
} from "../events.ts"
import { eventually, log, partition, startLive } from "../pipeline.ts"
import { connect as connectTo, type TestDatabase, TestPostgres } from "../postgres.ts"

const pet = relationOf()
const added = (id: number, name = `n${id}`) => insert(pet.id, [int4(id), text(name)])
const transaction = (commitLsn: number, ...ids: ReadonlyArray<number>) => [
  begin(commitLsn),
  ...(commitLsn === 1 ? [relation(pet)] : []),
  ...ids.map((id) => added(id)),
  commit(commitLsn)
]

/** A count that no key protects: a row that is applied twice is there twice. */
const withoutKey = "CREATE TABLE pets (id int, name text)"

const rowsOf = (database: TestDatabase) =>
  Effect.map(database.query("SELECT id FROM pets ORDER BY id::int"), (rows) => rows.map(({ id }) => Number(id)))

const positionOf = (database: TestDatabase) =>
  Effect.map(database.query("SELECT current_offset FROM fluvio.offset"), ([row]) => Number(row?.["current_offset"]))

/** Stops at a place the first time it is passed, until it is let go on. */
const stallAt = (place: Failpoint.Name) => {
  const reached = Deferred.makeUnsafe<void>()
  const goOn = Deferred.makeUnsafe<void>()
  let isFirst = true
  return {
    reached: Deferred.await(reached),
    goOn: Deferred.succeed(goOn, undefined),
    onPass: (name: Failpoint.Name) => {
      if (name !== place || !isFirst) return Effect.void
      isFirst = false
      return Effect.andThen(Deferred.succeed(reached, undefined), Deferred.await(goOn))
    }
  }
}

/** A way to the server that can lose what the server answers, and break. */
const makeProxy = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  const { hostname, port } = new URL(Redacted.value(url))
  const sockets = new Set<Socket>()
  let isDeaf = false
  const server = yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const listening = createServer((client) => {
        const upstream = connect(Number(port), hostname)
        for (const socket of [client, upstream]) {
          sockets.add(socket)
          socket.on("error", () => {})
          socket.on("close", () => {
            sockets.delete(socket)
            client.destroy()
            upstream.destroy()
          })
        }
        client.on("data", (bytes) => upstream.write(bytes))
        upstream.on("data", (bytes) => isDeaf || client.write(bytes))
      }).listen(0, "127.0.0.1", () => resume(Effect.succeed(listening)))
    }),
    (listening) =>
      Effect.callback<void>((resume) => {
        for (const socket of sockets) socket.destroy()
        listening.close(() => resume(Effect.void))
      })
  )
  const target = new URL(Redacted.value(url))
  target.port = String((server.address() as AddressInfo).port)
  return {
    url: Redacted.make(target.href),
    /** From now on nothing that the server answers arrives. */
    loseAnswers: Effect.sync(() => {
      isDeaf = true
    }),
    /** Breaks all connections; new ones work. */
    cut: Effect.sync(() => {
      isDeaf = false
      for (const socket of sockets) socket.destroy()
    })
  }
})

layer(TestPostgres.layer(), { excludeTestServices: true })("Connector on PostgreSQL", (it) => {
  it.effect("goes on where it ended, start after start", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(withoutKey)
      const records = yield* partition({ log: log(transaction(1, 1)) })
      for (const n of [2, 3, 4]) {
        const connector = yield* startLive({ partition: records, url: database.url })
        yield* Context.get(records, Log).append(log(transaction(n, n)))
        yield* connector.caughtUp
        yield* connector.interrupt
      }
      assert.deepStrictEqual(yield* rowsOf(database), [1, 2, 3, 4])
    })
  )

  it.effect("applies exactly once what another instance applies at the same time", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(withoutKey)
      const records = yield* partition({ log: log(transaction(1, 1)) })
      // Under the default the table would get the key, at which the instances would wait for each other.
      const config = { "schema-changes": "validate", target: { lock: "none" } }
      const first = yield* startLive({ partition: records, url: database.url, config })
      yield* first.caughtUp
      yield* first.interrupt

      yield* Context.get(records, Log).append(log(transaction(2, 2)))
      const { goOn, onPass, reached } = stallAt("before position")
      const zombie = yield* startLive({ partition: records, url: database.url, config, onPass })
      yield* reached
      const live = yield* startLive({ partition: records, url: database.url, config })
      yield* live.caughtUp
      yield* goOn
      const conflict =
        "Warn: the position of mock-0 was changed by another instance, or by hand (expected offset 3); trying again in"
      yield* eventually(Effect.sync(() => zombie.logged.some((line) => line.startsWith(conflict))))
      assert.deepStrictEqual(yield* rowsOf(database), [1, 2])

      // Both go on, and one of them applies each transaction.
      yield* Context.get(records, Log).append(log(transaction(3, 3), transaction(4, 4)))
      yield* eventually(Effect.map(positionOf(database), (at) => at === 12))
      assert.deepStrictEqual(yield* rowsOf(database), [1, 2, 3, 4])
      const count = () => [...zombie.applied, ...live.applied].reduce((sum, { transactions }) => sum + transactions, 0)
      yield* eventually(Effect.sync(() => count() === 3))
    })
  )

  it.effect("applies once more, and only once, when its backend is terminated in the middle of a group", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`${withoutKey}; INSERT INTO pets VALUES (0, 'old')`)
      const records = yield* partition({
        log: log(
          begin(1),
          relation({ ...pet, replicaIdentity: "Full", columns: pet.columns.map((c) => ({ ...c, isKey: true })) }),
          added(1),
          update(pet.id, [int4(0), text("new")], { old: [int4(0), text("old")] }),
          added(2),
          commit(1)
        )
      })
      // Holds the row that the group comes to after its first statement.
      yield* database.query("BEGIN; SELECT FROM pets WHERE id = 0 FOR UPDATE")
      const connector = yield* startLive({ partition: records, url: database.url })
      const other = yield* connectTo("other", database.url)
      const waiting = `
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'fluvio-postgres-sink'`
      yield* eventually(Effect.map(other.query(waiting), (rows) => rows.length === 1))
      yield* other.query(`SELECT pg_terminate_backend(pid, 5000) FROM (${waiting}) AS applying`)
      yield* database.query("COMMIT")
      yield* connector.caughtUp
      assert.deepStrictEqual(yield* database.query("SELECT id, name FROM pets ORDER BY id"), [
        { id: "0", name: "new" },
        { id: "1", name: "n1" },
        { id: "2", name: "n2" }
      ])
      assert.isTrue(connector.logged.some((line) => line.startsWith("Warn: ") && line.includes("; trying again")))
      assert.lengthOf(connector.applied, 1)
    })
  )

  it.effect("believes the position when the answer to COMMIT is lost", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(withoutKey)
      const proxy = yield* makeProxy(database.url)
      const records = yield* partition({ log: log(transaction(1, 1), transaction(2, 2)) })
      const { goOn, onPass, reached } = stallAt("before commit")
      const connector = yield* startLive({
        partition: records,
        url: proxy.url,
        config: { target: { lock: "none" }, group: { transactions: 1 } },
        onPass
      })
      yield* reached
      yield* proxy.loseAnswers
      yield* goOn
      yield* eventually(Effect.map(positionOf(database), (at) => at === 3))
      assert.lengthOf(connector.applied, 0)
      yield* proxy.cut
      yield* connector.caughtUp
      assert.deepStrictEqual(yield* rowsOf(database), [1, 2])
      assert.deepStrictEqual(
        connector.applied.map(({ position }) => position.offset),
        [offset(6)]
      )
    })
  )

  it.effect("takes the original connector's place in the middle of a transaction", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const records = log(
        transaction(1, 1),
        begin(2),
        added(2),
        update(pet.id, [int4(1), text("x")], { key: [int4(1), sqlNull] }),
        added(3),
        added(4),
        commit(2),
        transaction(3, 5)
      )
      // The original applies event by event; it ended behind the update, at offset 6.
      yield* database.query(`
        CREATE SCHEMA fluvio;
        CREATE TABLE fluvio.offset (id INT8 PRIMARY KEY, current_offset INT8 NOT NULL);
        INSERT INTO fluvio.offset (id, current_offset) VALUES (1, 6);
        ${withoutKey};
        INSERT INTO pets VALUES (1, 'x'), (2, 'n2')`)
      const connector = yield* startLive({ partition: yield* partition({ log: records }), url: database.url })
      yield* connector.caughtUp
      assert.deepStrictEqual(yield* database.query("SELECT id, name FROM pets ORDER BY id"), [
        { id: "1", name: "x" },
        { id: "2", name: "n2" },
        { id: "3", name: "n3" },
        { id: "4", name: "n4" },
        { id: "5", name: "n5" }
      ])
      const checksum = crc32c(eventJson(commit(3)))
      const position = yield* database.query(
        "SELECT id, current_offset, topic, partition, checksum, commit_lsn FROM fluvio.offset"
      )
      assert.deepStrictEqual(position, [
        { id: "1", current_offset: "12", topic: "mock", partition: "0", checksum: String(checksum), commit_lsn: "0/3" }
      ])
      const known = yield* database.query("SELECT rel_id, record_offset FROM fluvio.relation")
      assert.deepStrictEqual(known, [{ rel_id: String(pet.id), record_offset: "1" }])
    })
  )

  it.effect("is not held to the time-outs of the role, and names the one that ends its session all the same", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`
        CREATE TABLE pets (id int, name text CHECK (pg_sleep(1.5) IS NOT NULL));
        ALTER DATABASE ${database.name} SET transaction_timeout = '2s';
        ALTER DATABASE ${database.name} SET idle_in_transaction_session_timeout = '2s';
        ALTER DATABASE ${database.name} SET statement_timeout = '2s'`)
      const records = yield* partition({ log: log(transaction(1, 1, 2)) })
      const connector = yield* startLive({ partition: records, url: database.url })
      yield* connector.caughtUp
      assert.deepStrictEqual(yield* rowsOf(database), [1, 2])
      assert.deepStrictEqual(
        connector.logged.filter((line) => line.startsWith("Warn")),
        []
      )

      // What a trigger or an administrator sets for the session is not the connector's to overrule.
      yield* database.query(`
        CREATE FUNCTION hurry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF (SELECT count(*) FROM public.hurried) = 0 THEN
            SET LOCAL transaction_timeout = '100ms';
            PERFORM pg_sleep(5);
          END IF;
          RETURN NEW;
        END $$;
        CREATE TABLE hurried (id int);
        CREATE TRIGGER hurry BEFORE INSERT ON pets FOR EACH ROW EXECUTE FUNCTION hurry();
        ALTER TABLE pets ENABLE ALWAYS TRIGGER hurry`)
      yield* Context.get(records, Log).append(log(transaction(2, 3)))
      const timedOut = "transaction time-out (SQLSTATE 25P04); trying again"
      yield* eventually(Effect.sync(() => connector.logged.some((line) => line.includes(timedOut))))
      yield* database.query("INSERT INTO hurried VALUES (1)")
      yield* connector.caughtUp
      assert.deepStrictEqual(yield* rowsOf(database), [1, 2, 3])
    })
  )

  it.effect("gets a group through that takes longer than target.statement-timeout", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query("CREATE TABLE pets (id int, name text CHECK (pg_sleep(0.05) IS NOT NULL))")
      const ids = Array.from({ length: 40 }, (_, n) => n + 1)
      const records = yield* partition({ log: log(...ids.map((id) => transaction(id, id))) })
      const config = { target: { "statement-timeout": "500 millis" } }
      const connector = yield* startLive({ partition: records, url: database.url, config })
      yield* connector.caughtUp
      assert.deepStrictEqual(yield* rowsOf(database), ids)
    })
  )
})
