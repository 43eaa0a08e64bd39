/**
 * The connector as a process of its own, with its real parts and its defaults. Unlike the executable it ends when it
 * has applied the record it was told, and then reports what it did when.
 */
import { Deferred, Effect, Redacted, type Scope } from "effect"
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { nodeOptions } from "../executable.ts"
import { BenchmarkFailed, now } from "./Lab.ts"

export interface ConnectorTask {
  readonly topic: string
  readonly endpoint: string
  readonly url: Redacted.Redacted<string>
  /** The record behind which the process ends. */
  readonly until: number
  /** Where it stops short: having fetched, having decoded and put transactions together, or not at all. */
  readonly stage: "fetch" | "decode" | "apply"
}

/** One committed group; times are nanoseconds of the machine's clock and milliseconds. */
export interface CommitNote {
  readonly at: bigint
  readonly offset: number
  readonly changes: number
  readonly statements: number
  readonly plan: number
  readonly execute: number
  readonly commit: number
}

export interface ConnectorReport {
  /** When everything was loaded and the work began. */
  readonly begun: bigint
  readonly ended: bigint
  readonly commits: ReadonlyArray<CommitNote>
  /** The most memory the process ever held, in bytes. */
  readonly maxRss: number
  /** Processor time from `begun` to `ended`, all threads. */
  readonly cpuSeconds: number
  /** Processor time of the sessions in the target, from their start on. */
  readonly targetSeconds: number
}

export type ProcessMessage = { readonly begun: bigint } | { readonly report: ConnectorReport }

export interface ConnectorProcess {
  /** When the process was asked for. */
  readonly spawned: bigint
  readonly begun: Effect.Effect<bigint, BenchmarkFailed>
  readonly report: Effect.Effect<ConnectorReport, BenchmarkFailed>
}

const entry = fileURLToPath(new URL("ConnectorProcess.ts", import.meta.url))

/** The scope ends with the process, which is killed unless it has reported and ends by itself. */
export const start = (task: ConnectorTask): Effect.Effect<ConnectorProcess, never, Scope.Scope> =>
  Effect.gen(function* () {
    const begun = yield* Deferred.make<bigint, BenchmarkFailed>()
    const report = yield* Deferred.make<ConnectorReport, BenchmarkFailed>()
    const spawned = now()
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const child = fork(entry, [], {
          execArgv: [...nodeOptions],
          serialization: "advanced",
          stdio: ["ignore", "ignore", "inherit", "ipc"]
        })
        const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()))
        child.on("message", (message: ProcessMessage) => {
          if ("begun" in message) Deferred.doneUnsafe(begun, Effect.succeed(message.begun))
          else Deferred.doneUnsafe(report, Effect.succeed(message.report))
        })
        void gone.then(() => {
          const ended = Effect.fail(new BenchmarkFailed({ what: "the connector", reason: "its process has ended" }))
          Deferred.doneUnsafe(begun, ended)
          Deferred.doneUnsafe(report, ended)
        })
        child.send({ ...task, url: Redacted.value(task.url) })
        return { child, gone }
      }),
      ({ child, gone }) =>
        Effect.promise(() => {
          if (!Deferred.isDoneUnsafe(report)) child.kill("SIGKILL")
          return gone
        })
    )
    return { spawned, begun: Deferred.await(begun), report: Deferred.await(report) }
  })
