import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Redacted, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import { mkdtemp, rm } from "node:fs/promises"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { addressOf } from "../../../layers/postgres/Target.ts"
import { type Address, TargetSocket } from "../../../layers/postgres/TargetSocket.ts"
import * as SqlFailure from "../../../src/target/SqlFailure.ts"
import { connect as connectTo, type TestDatabase, TestPostgres } from "../../postgres.ts"

/** One session, of which it is told what answers it. */
const client = (database: TestDatabase, options: { readonly address?: Address; readonly prepare?: boolean } = {}) => {
  const { address = addressOf(new URL(Redacted.value(database.url))), prepare = true } = options
  return PgClient.layer({
    url: database.url,
    ssl: false,
    maxConnections: 1,
    prepare,
    stream: () => new TargetSocket(address, undefined)
  })
}

const copy = (data: string) =>
  SqlClient.SqlClient.pipe(
    Effect.flatMap((sql) => sql.unsafe("COPY public.pets (id, name) FROM STDIN", [Buffer.from(data)]).raw),
    SqlFailure.typed,
    Effect.map((result) => (result as { readonly rowCount: number }).rowCount)
  )

const session = SqlClient.SqlClient.pipe(
  Effect.flatMap((sql) => sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`),
  Effect.map(([{ pid }]) => pid)
)

const pets = "CREATE TABLE pets (id integer PRIMARY KEY, name text)"

/** The table, and who keeps everybody else from it. */
const lockedPets = Effect.gen(function* () {
  const database = yield* TestPostgres.database
  yield* database.query(pets)
  const holder = yield* connectTo("holder", database.url)
  yield* holder.query("BEGIN; LOCK TABLE pets")
  return { database, holder }
})

/** Asks something of the session whose COPY waits for the lock, as soon as there is one. */
const ofWaitingCopy = (database: TestDatabase, what: string) =>
  Effect.repeat(
    database.query(`SELECT ${what} FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'COPY%'`),
    { until: (rows) => rows.length > 0 }
  )

/** Passes everything on to the server, `cut` to a few bytes at a time; by way of a Unix socket. */
const proxy = Effect.fnUntraced(function* (database: TestDatabase) {
  const { hostname, port } = new URL(Redacted.value(database.url))
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "fluvio-postgres-sink-"))),
    (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
  )
  const sockets = new Set<Socket>()
  yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((near) => {
        const far = connect(Number(port), hostname)
        for (const [from, to] of [
          [near, far],
          [far, near]
        ]) {
          sockets.add(from)
          from.setNoDelay(true)
          from.on("error", () => to.destroy())
          from.on("close", () => to.destroy())
          from.on("data", (bytes: Buffer) => {
            for (let at = 0; at < bytes.length; at += 3) to.write(bytes.subarray(at, at + 3))
          })
        }
      })
      server.listen(join(folder, ".s.PGSQL.5432"), () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resume(Effect.void))
      })
  )
  return { host: folder, port: 5432 }
})

/** What a session with TLS comes to when its server does this with each connection, and how many are left then. */
const withServer = Effect.fnUntraced(function* (serve: (socket: Socket) => void) {
  const sockets = new Set<Socket>()
  const port = yield* Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
      const server = createServer((socket) => {
        sockets.add(socket)
        socket.on("error", () => {})
        socket.resume()
        socket.on("close", () => sockets.delete(socket))
        serve(socket)
      })
      server.listen(0, "127.0.0.1", () =>
        resume(Effect.succeed({ port: (server.address() as AddressInfo).port, close: () => server.close() }))
      )
    }),
    ({ close }) => Effect.sync(close)
  ).pipe(Effect.map((server) => server.port))
  const tls = PgClient.layer({
    url: Redacted.make(`postgres://nobody@127.0.0.1:${port}/none`),
    ssl: false,
    connectTimeout: "500 millis",
    stream: () => new TargetSocket({ host: "127.0.0.1", port }, { isRequired: true, options: {} })
  })
  const failure = yield* Effect.flip(session.pipe(Effect.provide(tls), SqlFailure.typed))
  yield* Effect.repeat(
    Effect.sync(() => sockets.size),
    { until: (left) => left === 0, schedule: Schedule.spaced("10 millis") }
  )
  return failure
})

layer(TestPostgres.layer(), { excludeTestServices: true })("TargetSocket", (it) => {
  it.effect.each([true, false])(
    "copies, and leaves the session of use whatever comes of it (prepared: %s)",
    (prepare) =>
      Effect.gen(function* () {
        const database = yield* TestPostgres.database
        yield* database.query(pets)
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const pid = yield* session
          assert.strictEqual(yield* copy("1\ta\n2\t\\N\n"), 2)
          assert.strictEqual(yield* copy(""), 0)
          assert.deepInclude(yield* Effect.flip(copy("3\tc\n1\tb\n")), { sqlState: "23505", constraint: "pets_pkey" })
          assert.deepInclude(yield* Effect.flip(copy("3\tc\nx\tb\n")), { sqlState: "22P02", class: "data" })
          assert.deepInclude(yield* Effect.flip(copy("3\n")), { sqlState: "22P04" })
          assert.deepInclude(yield* Effect.flip(copy("3\t\0\n")), { sqlState: "22021" })
          yield* sql`ALTER TABLE public.pets RENAME TO cats`
          assert.deepInclude(yield* Effect.flip(copy("4\td\n")), { sqlState: "42P01" })
          yield* sql`ALTER TABLE public.cats RENAME TO pets`
          const failed = sql.withTransaction(Effect.andThen(copy("5\te\n"), Effect.flip(copy("1\tf\n"))))
          yield* Effect.exit(failed)
          assert.strictEqual(yield* sql.withTransaction(copy("6\tf\n")), 1)
          const many = Array.from({ length: 200_000 }, (_, n) => `${n + 100}\t${"x".repeat(100)}\n`).join("")
          assert.strictEqual(yield* copy(many), 200_000)
          assert.strictEqual(yield* session, pid)
        }).pipe(Effect.provide(client(database, { prepare })))
        assert.deepStrictEqual(yield* database.query("SELECT id, name FROM pets WHERE id < 100 ORDER BY id"), [
          { id: "1", name: "a" },
          { id: "2", name: null },
          { id: "6", name: "f" }
        ])
      })
  )

  it.effect("leaves every other COPY to the driver and the server", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(pets)
      const refusalOf = (text: string, ...params: ReadonlyArray<unknown>) =>
        SqlClient.SqlClient.pipe(
          Effect.flatMap((sql) => sql.unsafe(text, params)),
          SqlFailure.typed,
          Effect.flip,
          Effect.map((failure) => failure.sqlState ?? "the driver's"),
          Effect.provide(client(database))
        )
      assert.strictEqual(yield* refusalOf("COPY public.pets FROM STDIN"), "the driver's")
      assert.strictEqual(yield* refusalOf("copy public.pets from stdin"), "the driver's")
      assert.strictEqual(yield* refusalOf("COPY public.pets TO STDOUT"), "the driver's")
      assert.strictEqual(yield* refusalOf("COPY public.pets FROM '/absent'"), "58P01")
      assert.strictEqual(yield* refusalOf("COPY public.cats FROM STDIN", Buffer.from("1\ta\n")), "42P01")
      const nowhere = client(database, { address: { host: "a\0b", port: 1 } })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(session.pipe(Effect.provide(nowhere)))))
      assert.deepStrictEqual(yield* database.query("SELECT FROM pets"), [])
    })
  )

  it.effect("copies over a Unix socket, and whatever pieces the messages come in", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(pets)
      const address = yield* proxy(database)
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        for (let n = 0; n < 20; n++) {
          assert.strictEqual(yield* copy(`${n}\tname ${n}\n`), 1)
          assert.lengthOf(yield* sql`SELECT * FROM public.pets`, n + 1)
        }
      }).pipe(Effect.provide(client(database, { address })))
    })
  )

  it.effect("cancels a COPY that waits, and goes on", () =>
    Effect.gen(function* () {
      const { database, holder } = yield* lockedPets
      yield* Effect.gen(function* () {
        const waiting = yield* Effect.forkChild(copy("1\ta\n"))
        yield* ofWaitingCopy(database, "pid")
        yield* Fiber.interrupt(waiting)
        yield* holder.query("COMMIT")
        assert.strictEqual(yield* copy("2\tb\n"), 1)
      }).pipe(Effect.provide(client(database)))
      assert.deepStrictEqual(yield* database.query("SELECT id FROM pets"), [{ id: "2" }])
    })
  )

  it.effect("tells of a session that ends in the middle of a COPY, and of a server that is not there", () =>
    Effect.gen(function* () {
      const { database } = yield* lockedPets
      yield* Effect.gen(function* () {
        const waiting = yield* Effect.forkChild(Effect.flip(copy("1\ta\n")))
        yield* ofWaitingCopy(database, "pg_terminate_backend(pid)")
        // The server resets a connection whose data it has not read, so that its last words may not be heard.
        assert.deepInclude(yield* Fiber.join(waiting), { class: "connection", isRetryable: true })
      }).pipe(Effect.provide(client(database)))
      const absent = client(database, { address: { host: "127.0.0.1", port: 1 } })
      const refused = yield* Effect.flip(session.pipe(Effect.provide(absent), SqlFailure.typed))
      assert.deepInclude(refused, { condition: "the target refused the connection", isRetryable: true })
    })
  )

  it.effect("leaves nothing open when TLS comes to nothing", () =>
    Effect.gen(function* () {
      const retryable = { class: "connection" as const, isRetryable: true }
      assert.deepInclude(yield* withServer((socket) => socket.destroy()), retryable)
      assert.deepInclude(yield* withServer((socket) => socket.once("data", () => socket.resetAndDestroy())), retryable)
      assert.deepInclude(yield* withServer((socket) => socket.once("data", () => socket.end("S"))), retryable)
      assert.deepInclude(yield* withServer(() => {}), retryable)
      assert.deepInclude(yield* withServer((socket) => socket.once("data", () => socket.write("S"))), retryable)
      const answered = (answer: string) => withServer((socket) => socket.once("data", () => socket.write(answer)))
      const refused = { condition: "the target does not offer TLS", isRetryable: false }
      assert.deepInclude(yield* answered("N"), refused)
      assert.deepInclude(yield* answered("SN"), retryable)
      assert.deepInclude(yield* answered("Sno TLS"), retryable)
      assert.deepInclude(yield* answered("Ecould not fork new process for connection: out of memory\n\0"), retryable)
    })
  )
})
