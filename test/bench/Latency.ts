/** How long a change takes from its append to the topic until it is visible in the target. */
import { Effect } from "effect"
import { connect } from "../postgres.ts"
import * as Connector from "./Connector.ts"
import { BenchmarkFailed, createDatabase, type Lab, now } from "./Lab.ts"
import * as Topic from "./Topic.ts"

export interface Latency {
  /** Changes a second, each a transaction of its own. */
  readonly rate: number
  readonly seconds: number
  readonly p50Millis: number
  readonly p99Millis: number
  readonly maxMillis: number
}

/** What comes in the first moments meets code that has not run yet, and is left out. */
const warmUpSeconds = 1

/**
 * Appends at a pace; the clock of a change starts *before* the append is asked for and ends when the connector has
 * the answer to its COMMIT, from when on any reader sees the row.
 */
export const measure = Effect.fn("Latency.measure")(function* (lab: Lab, rate: number, seconds: number) {
  const url = yield* createDatabase(lab.target, `latency_${rate}`)
  const target = yield* connect("latency", url)
  yield* target.query(Topic.table)
  yield* target.query("CHECKPOINT")
  const topic = yield* Topic.make(lab.broker, `latency-${rate}`)
  const total = Math.round(rate * (seconds + warmUpSeconds))
  const recordsPerChange = 3
  // Begin, relation, insert and commit: everything but the pace is ready before the first measured change.
  yield* topic.append(1, 1)
  const connector = yield* Connector.start({
    topic: topic.name,
    endpoint: lab.broker.endpoint,
    url,
    until: topic.end + total * recordsPerChange - 1,
    stage: "apply"
  })
  yield* connector.begun
  const appends: Array<{ readonly at: bigint; readonly end: number }> = []
  const started = performance.now()
  let sent = 0
  while (sent < total) {
    const due = Math.min(total, Math.floor(((performance.now() - started) / 1000) * rate))
    if (due > sent) {
      const at = now()
      yield* topic.append(due - sent, 1)
      appends.push({ at, end: topic.end })
      sent = due
    }
    yield* Effect.sleep("1 millis")
  }
  const { commits } = yield* connector.report

  const warm = topic.end - seconds * rate * recordsPerChange
  const millis: Array<number> = []
  let group = 0
  let from = 4
  for (const { at, end } of appends) {
    for (let last = from + recordsPerChange - 1; last < end; last += recordsPerChange) {
      while (commits[group].offset < last) group++
      if (last >= warm) millis.push(Number(commits[group].at - at) / 1e6)
    }
    from = end
  }
  if (millis.length < rate * seconds * 0.9) {
    return yield* new BenchmarkFailed({ what: "latency", reason: `only ${millis.length} changes were measured` })
  }
  millis.sort((a, b) => a - b)
  const quantile = (q: number) => millis[Math.min(millis.length - 1, Math.floor(q * millis.length))]
  return {
    rate,
    seconds,
    p50Millis: quantile(0.5),
    p99Millis: quantile(0.99),
    maxMillis: quantile(1)
  } satisfies Latency
}, Effect.scoped)
