import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Exit, Redacted, Scope } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { chmod, mkdtemp, readdir, rm } from "node:fs/promises"
import { connect as dial, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { make } from "../../../layers/embedded/Postgres.ts"
import { connect, TestPostgres } from "../../postgres.ts"

const isOpen = (port: number) =>
  Effect.callback<boolean>((resume) => {
    const socket = dial(port, "127.0.0.1")
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.succeed(true))
    })
    socket.once("error", () => resume(Effect.succeed(false)))
  })

layer(TestPostgres.layer({ settings: { work_mem: "5MB" } }))("Postgres", (it) => {
  it.effect("is PostgreSQL 18 with UTF-8, C.UTF-8, logical WAL and the settings asked for", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const [row] = yield* database.query(`
        SELECT current_setting('server_version_num')::int / 10000 AS version, current_setting('wal_level') AS wal,
          current_setting('fsync') AS fsync, current_setting('work_mem') AS work_mem,
          current_setting('server_encoding') AS encoding, upper('straße é') AS upper,
          (SELECT datlocale FROM pg_database WHERE datname = current_database()) AS locale
      `)
      assert.deepStrictEqual(row, {
        version: "18",
        wal: "logical",
        fsync: "off",
        work_mem: "5MB",
        encoding: "UTF8",
        upper: "STRAßE É",
        locale: "C.UTF-8"
      })
    })
  )

  it.effect("wants the password", () =>
    Effect.gen(function* () {
      const { server } = yield* TestPostgres
      const wrong = Redacted.make(Redacted.value(server.url()).replace(/:[^:@]+@/, ":wrong@"))
      const error = yield* (yield* connect("postgres", wrong)).query("SELECT 1").pipe(Effect.flip)
      assert.strictEqual(error.sqlState, "28P01")
    })
  )

  for (const how of ["fast", "immediate", "kill"] as const) {
    it.effect(`keeps committed rows and port when ended (${how}) and started again`, () =>
      Effect.gen(function* () {
        const { server } = yield* TestPostgres
        const database = yield* TestPostgres.database
        yield* database.query("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
        yield* database.query("BEGIN")
        yield* database.query("INSERT INTO t VALUES (2)")
        yield* how === "kill" ? server.kill : server.stop(how)
        assert.isFalse(yield* isOpen(server.port))
        // The pooled connection learns of its end from the socket.
        yield* database.query("SELECT 1").pipe(Effect.ignore)
        yield* server.start
        assert.deepStrictEqual(yield* database.query("SELECT id FROM t"), [{ id: "1" }])
      })
    )
  }

  it.effect("starting a running server and stopping a stopped one change nothing", () =>
    Effect.gen(function* () {
      const { server } = yield* TestPostgres
      yield* server.start
      yield* server.stop("immediate")
      yield* server.stop("immediate")
      yield* server.kill
      yield* server.start
      assert.isTrue(yield* isOpen(server.port))
    })
  )

  it.effect("says that its port was taken while it was stopped, and starts when it is free again", () =>
    Effect.gen(function* () {
      const { server } = yield* TestPostgres
      yield* server.stop("fast")
      const thief = createServer().listen(server.port, "127.0.0.1")
      yield* Effect.promise(() => once(thief, "listening"))
      const error = yield* Effect.flip(server.start)
      assert.include(error.message, "Address already in use")
      yield* Effect.promise(() => once(thief.close(), "close"))
      yield* server.start
      assert.isTrue(yield* isOpen(server.port))
    })
  )

  it.effect("an impossible setting is told by the server's own words", () =>
    Effect.gen(function* () {
      const error = yield* make({ settings: { max_connections: "many" } }).pipe(Effect.flip)
      assert.match(error.message, /could not start.*max_connections/s)
    })
  )
})

/** Waits for a condition that an operating system process brings about, which has no event to wait for. */
const eventually = async (condition: () => Promise<boolean>) => {
  const deadline = AbortSignal.timeout(20_000)
  while (!(await condition())) await sleep(20, undefined, { signal: deadline })
}

const program = (end: string) => `
  import { NodeRuntime } from "@effect/platform-node"
  import { Effect } from "effect"
  import { make } from ${JSON.stringify(new URL("../../../layers/embedded/Postgres.ts", import.meta.url).href)}
  Effect.gen(function* () {
    const server = yield* make()
    process.stdout.write(server.port + "\\n")
    ${end}
  }).pipe(Effect.scoped, NodeRuntime.runMain({ disableErrorReporting: true }))
`

describe("life of the process", () => {
  it.effect("servers side by side are separate, and are gone with their scope", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const servers = yield* Effect.all([make(), make()], { concurrency: 2 }).pipe(Scope.provide(scope))
      const folders = yield* Effect.forEach(servers, (server) =>
        Effect.gen(function* () {
          const database = yield* connect("postgres", server.url())
          return String((yield* database.query("SHOW data_directory"))[0]?.["data_directory"])
        }).pipe(Effect.scoped)
      )
      assert.notStrictEqual(folders[0], folders[1])
      yield* Scope.close(scope, Exit.void)
      for (const server of servers) assert.isFalse(yield* isOpen(server.port))
      for (const folder of folders) assert.isFalse(existsSync(folder))
    })
  )

  const cases = [
    { name: "SIGTERM", end: "yield* Effect.never", signal: "SIGTERM", code: 130 },
    { name: "SIGINT", end: "yield* Effect.never", signal: "SIGINT", code: 130 },
    { name: "SIGKILL", end: "yield* Effect.never", signal: "SIGKILL", code: null },
    { name: "a failure", end: `yield* Effect.fail("no")`, signal: undefined, code: 1 },
    { name: "process.exit(7)", end: "process.exit(7)", signal: undefined, code: 7 },
    { name: "the regular end", end: "", signal: undefined, code: 0 }
  ] as const

  for (const { name, end, signal, code } of cases) {
    it.live(`after ${name} the exit code is ours, and neither a server nor a folder is left`, () =>
      Effect.gen(function* () {
        const folder = yield* Effect.acquireRelease(
          Effect.promise(() => mkdtemp(join(tmpdir(), "life-"))),
          (path) => Effect.promise(() => rm(path, { recursive: true }))
        )
        // The server may run as another user than we do.
        yield* Effect.promise(() => chmod(folder, 0o755))
        const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", program(end)], {
          stdio: ["ignore", "pipe", "inherit"],
          cwd: new URL("../../..", import.meta.url),
          env: { ...process.env, TMPDIR: folder }
        })
        const exit = once(child, "exit")
        const [port] = yield* Effect.promise(() => once(child.stdout, "data"))
        if (signal !== undefined) child.kill(signal)
        const [exitCode] = yield* Effect.promise(() => exit)
        assert.strictEqual(exitCode, code)
        yield* Effect.promise(() => eventually(async () => (await readdir(folder)).length === 0))
        assert.isFalse(yield* isOpen(Number(String(port))))
      })
    )
  }
})
