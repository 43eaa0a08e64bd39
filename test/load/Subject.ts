/**
 * The connector under load: the executable in a process of its own, with its defaults, and what is seen of it from
 * outside: its position in the target, and its memory.
 */
import { Effect, Schedule } from "effect"
import { readFile } from "node:fs/promises"
import { BenchmarkFailed, now } from "../bench/Lab.ts"
import type { TestDatabase } from "../postgres.ts"
import * as ConnectorProcess from "../torture/ConnectorProcess.ts"

export interface Memory {
  /** Resident now, in bytes. */
  readonly rss: number
  /** The most that the process ever held. */
  readonly peak: number
}

/** A position that stands still for so many milliseconds is not waited for any longer. */
const patience = 180_000

const undefinedTable = "42P01"

const kibibytes = (status: string, field: string): number =>
  Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? Number.NaN)

const failed = (reason: string) => new BenchmarkFailed({ what: "the connector", reason })

/** Starts it on a topic and a database. It ends with the scope. */
export const start = Effect.fn("Subject.start")(function* (
  topic: string,
  { endpoint, target }: { readonly endpoint: string; readonly target: TestDatabase }
) {
  const connector = yield* ConnectorProcess.make({
    name: "fluvio-postgres-sink load",
    url: target.url,
    settings: Effect.succeed({ FLUVIO_PG_TOPIC: topic, FLUVIO_PG_CONSUMER_ENDPOINT: endpoint }),
    onLine: () => {}
  })
  yield* connector.start

  /** Offset of the last applied record; -1 before the first. */
  const position = target.query(`SELECT current_offset FROM fluvio.offset WHERE topic = '${topic}'`).pipe(
    Effect.catchIf(
      ({ sqlState }) => sqlState === undefinedTable,
      () => Effect.succeed([])
    ),
    Effect.map(([row]) => Number(row?.["current_offset"] ?? -1))
  )

  const memory = Effect.gen(function* () {
    const pid = yield* connector.pid
    const status = yield* Effect.promise(() => readFile(`/proc/${pid}/status`, "utf8").catch(() => ""))
    return { rss: kibibytes(status, "VmRSS") * 1024, peak: kibibytes(status, "VmHWM") * 1024 } satisfies Memory
  }).pipe(
    // Before its first words it has no memory worth speaking of.
    Effect.repeat({ until: ({ peak }) => !Number.isNaN(peak), schedule: Schedule.spaced("20 millis") }),
    Effect.timeoutOrElse({
      duration: "30 seconds",
      orElse: () => Effect.fail(failed("its memory cannot be read: this needs Linux"))
    })
  )

  /** Does something for as long as the connector runs: one that ends by itself fails it. */
  const during = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.raceFirst(
      effect,
      Effect.flatMap(connector.nextEnd, ({ code, message, signal }) =>
        Effect.fail(failed(`it ended with ${signal ?? `code ${code}`}: ${message ?? "without a word"}`))
      )
    )

  return {
    position,
    memory,
    during,
    /** Waits until the record at the offset is applied, and tells when that was seen. */
    applied: (offset: number) =>
      Effect.gen(function* () {
        let last = yield* position
        let since = performance.now()
        while (last < offset) {
          if (performance.now() - since > patience) {
            return yield* failed(`its position stands still at ${last}, before ${offset}`)
          }
          yield* Effect.sleep("20 millis")
          const next = yield* position
          if (next !== last) since = performance.now()
          last = next
        }
        return now()
      }).pipe(during),
    /** Kills it with SIGKILL; it is started again. */
    kill: connector.endWith("SIGKILL"),
    /** Ends it in order. */
    end: Effect.flatMap(connector.stop(), (end) =>
      end?.code === 0 ? Effect.void : Effect.fail(failed(`told to end, it ended with ${end?.signal ?? end?.message}`))
    )
  }
})

export type Subject = Effect.Success<ReturnType<typeof start>>
