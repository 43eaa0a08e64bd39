/**
 * The executable in a process of its own, started again whenever it ends, as an operator's supervisor would.
 *
 * What it was told and how it ended is kept, because the log of the one that died is what explains a failure.
 */
import { Deferred, Effect, Fiber, Redacted, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import * as Failpoint from "../../layers/Failpoint.ts"
import { executable, nodeOptions } from "../executable.ts"

export interface ConnectorOptions {
  /** What its connections are called in `pg_stat_activity`. */
  readonly name: string
  readonly url: Redacted.Redacted<string>
  /** Settings as environment variables; asked anew for each start. */
  readonly settings: Effect.Effect<{ readonly [variable: string]: string }>
  /** A configuration file, for what only a file can say. */
  readonly config?: string
  /** Told of each line of the log. */
  readonly onLine: (line: string) => void
}

/** How a process ended. */
export interface End {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** The message it left, when it ended with a failure. */
  readonly message: string | undefined
}

export interface ConnectorProcess {
  readonly name: string
  /** Starts it, and again after each end, until `stop`. */
  readonly start: Effect.Effect<void>
  /** Ends it with a signal, SIGTERM by default, and does not start it again. How it ended; `undefined` if it did not run. */
  stop(signal?: NodeJS.Signals): Effect.Effect<End | undefined>
  /** Of the process that runs now, once it has begun to work, which its first words tell. */
  readonly pid: Effect.Effect<number | undefined>
  /** To the process that runs now, if any. */
  signal(name: NodeJS.Signals): Effect.Effect<void>
  /** Kills the process that runs now and starts the next one with a failpoint. Succeeds when the next one ends. */
  restartWith(failpoint: Failpoint.Armed): Effect.Effect<End>
  /** To the process that runs now, which ends by it. */
  endWith(signal: NodeJS.Signals): Effect.Effect<End>
  /** The end of the process that runs now, or of the next one. */
  readonly nextEnd: Effect.Effect<End>
  /** Of all processes so far. */
  readonly ends: Effect.Effect<ReadonlyArray<End>>
  /** The last lines of all of them. */
  readonly log: Effect.Effect<ReadonlyArray<string>>
}

const keptLines = 400
const pause = "100 millis"

/** Waits for the end of its standard input, which comes when this process dies in whatever way, and ends the connector. */
const guardian = `cat >/dev/null; kill -KILL "$1"`

const isFailure = (line: string): boolean => line.startsWith("fluvio-postgres-sink: ")

/** The processes end with the scope. */
export const make = Effect.fn("ConnectorProcess.make")(function* ({
  config,
  name,
  onLine,
  settings,
  url
}: ConnectorOptions): Effect.fn.Return<ConnectorProcess, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const ends: Array<End> = []
  const lines: Array<string> = []
  let next = Deferred.makeUnsafe<End>()
  let running: ChildProcess | undefined
  let workingPid: number | undefined
  let failpoint: Failpoint.Armed | undefined
  let supervisor: Fiber.Fiber<void> | undefined

  const target = new URL(Redacted.value(url))
  target.searchParams.set("application_name", name)

  const note = (line: string) => {
    const noted = `${new Date().toISOString()} ${name} ${line}`
    onLine(noted)
    lines.push(noted)
    if (lines.length > keptLines) lines.shift()
  }

  const launch = Effect.gen(function* () {
    const armed = failpoint
    failpoint = undefined
    const env = {
      PATH: process.env["PATH"],
      HOME: process.env["HOME"],
      FLUVIO_PG_DATABASE_URL: target.href,
      ...(armed === undefined ? {} : { [Failpoint.variable]: Failpoint.encode(armed) }),
      ...(yield* settings)
    }
    // Detached: a terminal sends Ctrl-C to its whole foreground group, and the connector ends when the scope says so.
    const file = config === undefined ? [] : ["--config", config]
    const child = spawn(process.execPath, [...nodeOptions, executable, "run", "--log-format", "logfmt", ...file], {
      detached: true,
      env,
      stdio: ["ignore", "ignore", "pipe"]
    })
    const guard = spawn("/bin/sh", ["-c", guardian, "guardian", String(child.pid)], {
      detached: true,
      cwd: "/",
      stdio: ["pipe", "ignore", "ignore"]
    })
    guard.once("error", () => {})
    note(`started${armed === undefined ? "" : ` with ${Failpoint.encode(armed)}`}`)
    let message: string | undefined
    createInterface({ input: child.stderr }).on("line", (line) => {
      note(line)
      workingPid = child.pid
      if (isFailure(line)) message = line
    })
    child.once("close", (code, signal) => {
      // The number may soon be another process's.
      guard.kill("SIGKILL")
      note(`ended with ${signal ?? code}`)
      const ended = { code, signal, message }
      ends.push(ended)
      running = undefined
      workingPid = undefined
      const end = next
      next = Deferred.makeUnsafe<End>()
      Deferred.doneUnsafe(end, Effect.succeed(ended))
    })
    running = child
  })

  const nextEnd = Effect.suspend(() => Deferred.await(next))

  const supervise = launch.pipe(
    Effect.andThen(nextEnd),
    Effect.andThen(Effect.sleep(pause)),
    Effect.forever({ disableYield: true })
  )

  const start = Effect.suspend(() =>
    supervisor === undefined
      ? Effect.map(Effect.forkIn(supervise, scope), (fiber) => void (supervisor = fiber))
      : Effect.void
  )

  const stop = Effect.fnUntraced(function* (signal: NodeJS.Signals = "SIGTERM") {
    const fiber = supervisor
    supervisor = undefined
    if (fiber !== undefined) yield* Fiber.interrupt(fiber)
    if (running === undefined) return undefined
    const end = next
    // A process that stands still hears nothing else.
    running.kill("SIGCONT")
    running.kill(signal)
    return yield* Deferred.await(end)
  })

  yield* Effect.addFinalizer(() => stop("SIGKILL"))

  return {
    name,
    start,
    stop,
    pid: Effect.sync(() => workingPid),
    signal: (signal) => Effect.sync(() => void running?.kill(signal)),
    restartWith: (armed) =>
      Effect.gen(function* () {
        const end = next
        failpoint = armed
        if (running?.kill("SIGKILL") === true) yield* Deferred.await(end)
        return yield* nextEnd
      }),
    endWith: (signal) =>
      Effect.suspend(() => {
        const end = next
        running?.kill(signal)
        return Deferred.await(end)
      }),
    nextEnd,
    ends: Effect.sync(() => [...ends]),
    log: Effect.sync(() => [...lines])
  }
})
