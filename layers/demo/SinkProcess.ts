/** The connector as what it is in production: the executable in a process of its own, which can be killed. */
import { Effect, Queue, Redacted, Schema, type Scope } from "effect"
import { spawn } from "node:child_process"
import { extname } from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { isRetryable } from "../../src/stream/Outcome.ts"

/** The process could not be started, or ended without being told to. */
export class SinkEnded extends Schema.TaggedError<SinkEnded>()("SinkEnded", {
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "see the last lines of its log, if it left any"
  override get message() {
    return `the sink has ended by itself: ${this.reason}`
  }
}

export interface SinkOptions {
  /** `host:port` of the Fluvio cluster. */
  readonly endpoint: string
  readonly topic: string
  /** The target database. */
  readonly url: Redacted.Redacted<string>
  readonly driver: "wire" | "client"
}

export interface SinkProcess {
  /** Starts it, or starts it again after `kill`, and gives its process id. */
  readonly start: Effect.Effect<number, SinkEnded>
  /** Ends it with SIGKILL, by its own process id, and waits until it is gone. */
  readonly kill: Effect.Effect<void>
  /** Fails when the process ends and `kill` was not the reason. */
  readonly ended: Effect.Effect<never, SinkEnded>
  /** The last lines it wrote, over all starts. */
  readonly log: Effect.Effect<ReadonlyArray<string>>
}

const keptLines = 30
const gracePeriod = 10_000

/** Waits for the end of its standard input, which comes when this process dies in whatever way, and ends the sink then. */
const guardian = `cat >/dev/null; kill -KILL "$1"`

interface Running {
  readonly pid: number
  readonly gone: Promise<void>
  readonly signal: (name: NodeJS.Signals) => void
}

/** Started by `start`; ended with the scope, in order: with SIGTERM, and with SIGKILL if it does not obey. */
export const make = Effect.fn("SinkProcess.make")(function* ({
  driver,
  endpoint,
  topic,
  url
}: SinkOptions): Effect.fn.Return<SinkProcess, never, Scope.Scope> {
  const entry = fileURLToPath(new URL(`../main${extname(import.meta.url)}`, import.meta.url))
  const args = [entry, "run", "--topic", topic, "--endpoint", endpoint, "--driver", driver, "--schema-changes", "full"]
  const lines: Array<string> = []
  const ends = yield* Queue.unbounded<SinkEnded>()
  let running: Running | undefined

  const start = Effect.callback<number, SinkEnded>((resume) => {
    // Detached: a terminal sends Ctrl-C to its whole foreground group, and the sink ends when the scope says so.
    const child = spawn(process.execPath, args, {
      detached: true,
      // No setting of the caller's environment reaches the sink.
      env: { PATH: process.env["PATH"], HOME: process.env["HOME"], FLUVIO_PG_DATABASE_URL: Redacted.value(url) },
      stdio: ["ignore", "pipe", "pipe"]
    })
    child.once("error", (cause) => resume(Effect.fail(new SinkEnded({ reason: cause.message }))))
    const { pid } = child
    if (pid === undefined) return
    for (const output of [child.stdout, child.stderr]) {
      createInterface({ input: output }).on("line", (line) => {
        lines.push(line)
        if (lines.length > keptLines) lines.shift()
      })
    }
    const guard = spawn("/bin/sh", ["-c", guardian, "guardian", String(pid)], {
      detached: true,
      cwd: "/",
      stdio: ["pipe", "ignore", "ignore"]
    })
    // A guardian that cannot be started leaves nothing unguarded while this process lives.
    guard.once("error", () => {})
    const gone = new Promise<void>((resolve) => {
      // "close" comes after the last line has been read.
      child.once("close", (code, signal) => {
        // The number may soon be another process's.
        guard.kill("SIGKILL")
        if (running?.pid === pid) {
          running = undefined
          const reason = signal === null ? `exit code ${code}` : signal
          Queue.offerUnsafe(ends, new SinkEnded({ reason }))
        }
        resolve()
      })
    })
    running = { pid, gone, signal: (name) => child.kill(name) }
    resume(Effect.succeed(pid))
  })

  const end = (name: NodeJS.Signals) =>
    Effect.promise(async () => {
      const ending = running
      if (ending === undefined) return
      running = undefined
      ending.signal(name)
      const deadline = new AbortController()
      const late = sleep(gracePeriod, undefined, { signal: deadline.signal }).then(
        () => ending.signal("SIGKILL"),
        () => {}
      )
      await ending.gone.finally(() => deadline.abort())
      await late
    })

  yield* Effect.addFinalizer(() => end("SIGTERM"))

  return {
    start,
    kill: end("SIGKILL"),
    ended: Effect.flatMap(Queue.take(ends), Effect.fail),
    log: Effect.sync(() => [...lines])
  }
})
