import { assert, layer } from "@effect/vitest"
import { Context, Effect, Redacted } from "effect"
import { connect, createServer, type AddressInfo, type Socket } from "node:net"
import { Log } from "../../../layers/Mock.ts"
import { begin, commit, insert, int4, relation, relationOf, text } from "../../events.ts"
import { eventually, log, partition, startLive } from "../../pipeline.ts"
import { type TestDatabase, TestPostgres } from "../../postgres.ts"

const pet = relationOf()
const transaction = (n: number) => log(begin(n), relation(pet), insert(pet.id, [int4(n), text(`n${n}`)]), commit(n))

const mute = ([one, other]: readonly [Socket, Socket]) => {
  for (const socket of [one, other]) {
    socket.unpipe()
    socket.resume()
  }
}

/** A way to the server on which connections can be swallowed: both ends stay open, and nothing passes any more. */
const makeProxy = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  const target = new URL(Redacted.value(url))
  const links = new Set<readonly [Socket, Socket]>()
  let isMute = false
  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname)
    const link = [client, upstream] as const
    links.add(link)
    for (const [from, to] of [link, [upstream, client] as const]) {
      from.on("error", () => {})
      // What is swallowed hears of no end either.
      from.on("close", () => (from.listenerCount("data") === 0 ? undefined : to.destroy()))
      from.pipe(to)
    }
    if (isMute) mute(link)
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
    () =>
      Effect.sync(() => {
        links.forEach((link) => link.forEach((socket) => socket.destroy()))
        server.close()
      })
  )
  const proxied = new URL(target)
  proxied.port = String((server.address() as AddressInfo).port)
  return {
    url: Redacted.make(proxied.href),
    /** Those that are open now. */
    swallow: Effect.sync(() => links.forEach(mute)),
    /** And those to come, until told otherwise. */
    setMute: (value: boolean) => Effect.sync(() => (isMute = value))
  }
})

const backends = (database: TestDatabase) =>
  Effect.map(
    database.query(`
      SELECT pid FROM pg_stat_activity
      WHERE datname = current_database() AND application_name = 'fluvio-postgres-sink'`),
    (rows) => rows.map(({ pid }) => pid)
  )

const rowsOf = (database: TestDatabase) =>
  Effect.map(database.query("SELECT id FROM pets ORDER BY id::int"), (rows) => rows.map(({ id }) => Number(id)))

const givenUp = "Warn: The target has not answered for 1s: giving the connection up"

layer(TestPostgres.layer(), { excludeTestServices: true })("A target that does not answer", (it) => {
  const running = Effect.fnUntraced(function* (config: object = {}) {
    const database = yield* TestPostgres.database
    yield* database.query("CREATE TABLE pets (id int, name text)")
    const proxy = yield* makeProxy(database.url)
    const records = yield* partition({ log: transaction(1) })
    const connector = yield* startLive({
      partition: records,
      url: proxy.url,
      config: { target: { timeout: "1 s" }, ...config }
    })
    yield* connector.caughtUp
    return { append: (n: number) => Context.get(records, Log).append(transaction(n)), connector, database, proxy }
  })

  it.effect("is given up on its connections, whose backends are ended, and is applied to over new ones", () =>
    Effect.gen(function* () {
      const { append, connector, database, proxy } = yield* running()
      const before = yield* backends(database)
      yield* proxy.swallow
      yield* append(2)
      yield* connector.caughtUp
      assert.include(connector.logged, givenUp)
      assert.deepStrictEqual(yield* rowsOf(database), [1, 2])
      // Neither their locks nor the advisory lock outlive them.
      yield* eventually(Effect.map(backends(database), (pids) => pids.every((pid) => !before.includes(pid))))
    })
  )

  it.effect("is waited for with a line of the log, and gone on with once it is there again", () =>
    Effect.gen(function* () {
      const { append, connector, database, proxy } = yield* running()
      yield* proxy.setMute(true)
      yield* proxy.swallow
      yield* append(2)
      yield* eventually(Effect.sync(() => connector.logged.includes(givenUp)))
      yield* eventually(Effect.sync(() => connector.logged.some((line) => line.includes("; trying again in "))))
      yield* proxy.setMute(false)
      yield* connector.caughtUp
      assert.deepStrictEqual(yield* rowsOf(database), [1, 2])
    })
  )

  it.effect("is not given up while it is at work", () =>
    Effect.gen(function* () {
      const { append, connector, database } = yield* running()
      yield* database.query("ALTER TABLE pets ADD CHECK (id <> 2 OR pg_sleep(3.5) IS NOT NULL) NOT VALID")
      yield* append(2)
      yield* connector.caughtUp
      const working = "Info: The target has not answered for 1s, and is at work on what it was asked: waiting on"
      assert.isAtLeast(connector.logged.filter((line) => line === working).length, 2)
      assert.deepStrictEqual(
        connector.logged.filter((line) => line.startsWith("Warn")),
        []
      )
      assert.deepStrictEqual(yield* rowsOf(database), [1, 2])
    })
  )

  it.effect("does not hold a shutdown up for longer than it is given, and nothing is half applied", () =>
    Effect.gen(function* () {
      const { append, connector, database, proxy } = yield* running({
        target: { timeout: "10 min" },
        "shutdown-timeout": "500 millis"
      })
      yield* proxy.setMute(true)
      yield* proxy.swallow
      yield* append(2)
      yield* connector.interrupt.pipe(Effect.timeout("10 seconds"))
      assert.deepStrictEqual(yield* rowsOf(database), [1])
    })
  )

  it.effect("in the middle of a group: a shutdown gives it up and says so", () =>
    Effect.gen(function* () {
      const { append, connector, database } = yield* running({ "shutdown-timeout": "500 millis" })
      yield* database.query("ALTER TABLE pets ADD CHECK (id <> 2 OR pg_sleep(60) IS NOT NULL) NOT VALID")
      yield* append(2)
      yield* eventually(
        Effect.map(
          database.query("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"),
          (rows) => rows.length === 1
        )
      )
      yield* connector.interrupt.pipe(Effect.timeout("20 seconds"))
      const said =
        "Warn: The group in hand was not applied within 500ms: it is rolled back, and read again at the next start"
      assert.include(connector.logged, said)
      assert.deepStrictEqual(yield* rowsOf(database), [1])
    })
  )
})
