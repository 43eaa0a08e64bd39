/**
 * A connector that runs reports: to the log, and to the target, where `status` reads it from anywhere. What fails here is
 * left to the pipeline, which meets it too; nothing waits for a report.
 */
import { Clock, Duration, Effect, Option, Schedule, Stream } from "effect"
import { withFields } from "./LogFields.ts"
import type { Metrics } from "./Metrics.ts"
import { readable } from "./Progress.ts"
import { FluvioConsumer } from "./stream/FluvioConsumer.ts"
import { OffsetStore } from "./stream/OffsetStore.ts"
import { outcomeOf } from "./stream/Outcome.ts"
import type { Telemetry } from "./Telemetry.ts"

/** How often the topic is asked what it holds, and the target told what the connector does; a change of state is told at once. */
const reportEvery = 5
/** How often a line of the log tells how it goes, where anything goes. */
const logEvery = 60
/** How often the age of the topic's first record is looked up, in seconds. */
const lookBackEvery = 60

/** No report waits for longer: the next one comes soon. */
const patience = "3 seconds"
const within = <A, E, R>(report: Effect.Effect<A, E, R>) => Effect.ignore(Effect.timeout(report, patience))

const duration = (seconds: number) => Duration.format(Duration.seconds(Math.round(seconds)))

/** Where the topic begins and ends. */
const askTopic = Effect.fnUntraced(function* (telemetry: Telemetry) {
  const { bounds } = yield* FluvioConsumer
  telemetry.bounds(yield* bounds, yield* Clock.currentTimeMillis)
})

/** When the first record was appended that retention has left. */
const lookBack = Effect.fnUntraced(function* (telemetry: Telemetry) {
  const { bounds, records } = yield* FluvioConsumer
  const { end, start } = yield* bounds
  if (start === 0 || start >= end) return
  const [first] = Option.getOrElse(yield* Stream.runHead(records(start)), () => [])
  telemetry.firstRecord(first?.timestamp)
})

/**
 * Writes what is known now into the target. Not before the connector has found its place: what is asked meanwhile would
 * hide a pooler from it, which gives sessions in turn.
 */
const tellTarget = Effect.fnUntraced(function* (telemetry: Telemetry) {
  if (!telemetry.hasStarted) return
  const { report } = yield* OffsetStore
  const instance = telemetry.snapshot(yield* Clock.currentTimeMillis)
  telemetry.held(yield* report(instance.id, instance.state, instance))
})

/** The last line of the log, and the last word to the target; nobody waits for that for long. */
export const tellEnd = Effect.fnUntraced(function* (
  telemetry: Telemetry,
  error: { readonly _tag: string; readonly message: string; readonly isRetryable: boolean } | undefined,
  /** So many tries end in a stop, where trying again may help at all. */
  tries: number
) {
  const { position, topic } = telemetry.snapshot(yield* Clock.currentTimeMillis)
  const at = position === null ? "before anything was applied" : `at offset ${position.offset}`
  yield* (
    error === undefined
      ? Effect.logInfo(`Stopped ${at} of ${topic}, as it was told to`)
      : Effect.logError(
          `Stopped ${at} of ${topic}${error.isRetryable ? `, after ${tries} tries without progress` : ""}: ${error.message}`
        )
  ).pipe(
    withFields({
      offset: position?.offset,
      lsn: position?.commitLsn ?? undefined,
      ...(error === undefined ? {} : { error: error._tag, class: outcomeOf(error) })
    })
  )
  yield* tellTarget(telemetry).pipe(Effect.interruptible, Effect.timeout(patience), Effect.ignore)
})

/** Never fails and never ends. */
export const run = Effect.fnUntraced(function* (telemetry: Telemetry, metrics: Metrics) {
  const { partition, topic } = yield* FluvioConsumer
  const place = `${topic}-${partition}`
  let seconds = 0
  let told = telemetry.state
  /** What was applied when the last line was written. */
  let before = { records: 0, at: yield* Clock.currentTimeMillis }
  let behind: { readonly at: number; readonly records: number } | undefined

  const logProgress = Effect.fnUntraced(function* (now: number) {
    const { lag, position, totals } = telemetry.snapshot(now)
    const records = totals.records - before.records
    const rate = Math.round((records * 1000) / Math.max(1, now - before.at))
    before = { records: totals.records, at: now }
    if (records === 0 || lag === null || position === null) return
    const late = lag.seconds === null || lag.records === 0 ? "" : ` (${duration(lag.seconds)})`
    yield* Effect.logInfo(
      `${place}: ${readable(rate)} records/s, ${readable(lag.records)} records behind${late}, at offset ${position.offset}`
    ).pipe(
      withFields({
        offset: position.offset,
        lsn: position.commitLsn ?? undefined,
        lagRecords: lag.records,
        lagSeconds: lag.seconds ?? undefined,
        recordsPerSecond: rate
      })
    )
  })

  /** Catching up is worth a line when it began behind. */
  const logState = Effect.fnUntraced(function* (now: number) {
    const { position, state, totals } = telemetry.snapshot(now)
    if (state === "catching up") behind ??= { at: now, records: totals.records }
    if (state !== "following" || behind === undefined) return
    const records = totals.records - behind.records
    const took = (now - behind.at) / 1000
    behind = undefined
    yield* Effect.logInfo(
      `Caught up with ${place} at offset ${position?.offset ?? -1}: ${readable(records)} records in ${duration(took)}`
    ).pipe(withFields({ offset: position?.offset, lsn: position?.commitLsn ?? undefined }))
  })

  const second = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    telemetry.tick(Number(yield* Clock.monotonicTimeNanos) / 1e6)
    metrics.update(telemetry.snapshot(now))
    yield* logState(now)
    if (seconds % logEvery === 0 && seconds > 0) yield* logProgress(now)
    if (seconds % lookBackEvery === 0) yield* within(lookBack(telemetry))
    if (seconds % reportEvery === 0) yield* within(askTopic(telemetry))
    if (seconds % reportEvery === 0 || told !== telemetry.state) {
      told = telemetry.state
      yield* within(tellTarget(telemetry))
    }
    seconds += 1
  })
  yield* Effect.repeat(second, Schedule.spaced("1 second"))
})
