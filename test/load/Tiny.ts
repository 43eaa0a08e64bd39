/** Transactions of one row each, at a pace that is kept in real time. */
import { Effect } from "effect"
import { BenchmarkFailed, type Lab, now, secondsBetween } from "../bench/Lab.ts"
import * as Topic from "../bench/Topic.ts"
import { connect } from "../postgres.ts"
import * as Events from "./Events.ts"
import { mebibytes, type Outcome, rounded, whole } from "./Outcome.ts"
import * as Subject from "./Subject.ts"

export interface TinySize {
  /** Transactions a second. */
  readonly rate: number
  readonly seconds: number
  /** So many seconds behind the last append everything must be visible, and the pace must have been kept. */
  readonly mostBehind: number
}

const recordsPerTransaction = 3

/** A moment and how far something was then. */
interface Mark {
  readonly at: bigint
  readonly end: number
}

/**
 * How long each transaction took from just before its append until a reader saw it, in milliseconds, sorted; and the
 * most records that had been appended and were not visible.
 */
const compareMarks = (first: number, appends: ReadonlyArray<Mark>, sights: ReadonlyArray<Mark>) => {
  const millis: Array<number> = []
  let sight = 0
  let from = first
  for (const { at, end } of appends) {
    for (let next = from + recordsPerTransaction; next <= end; next += recordsPerTransaction) {
      while (sights[sight].end < next) sight++
      millis.push(Number(sights[sight].at - at) / 1e6)
    }
    from = end
  }
  let behind = 0
  let appended = 0
  for (const { at, end } of sights) {
    while (appended < appends.length && appends[appended].at <= at) appended++
    behind = Math.max(behind, (appends[appended - 1]?.end ?? first) - end)
  }
  return { millis: millis.sort((a, b) => a - b), behind }
}

export const run = Effect.fn("Tiny.run")(function* (lab: Lab, { mostBehind, rate, seconds }: TinySize) {
  const url = yield* lab.target.createDatabase("load_tiny")
  const target = yield* connect("target", url)
  yield* target.query(Topic.table)
  const topic = yield* Topic.make(lab.broker, "load-tiny")
  yield* topic.append(1, 1)
  const first = topic.end
  const total = rate * seconds
  const connector = yield* Subject.start(topic.name, { endpoint: lab.broker.endpoint, target })
  yield* connector.applied(first - 1)

  const appends: Array<Mark> = []
  const sights: Array<Mark> = []
  const append = Effect.gen(function* () {
    const started = now()
    let told = started
    let sent = 0
    while (sent < total) {
      const due = Math.min(total, Math.floor(secondsBetween(started, now()) * rate))
      if (due > sent) {
        const at = now()
        yield* topic.append(due - sent, 1)
        appends.push({ at, end: topic.end })
        sent = due
      }
      if (secondsBetween(told, now()) > 15) {
        told = now()
        const late = topic.end - (sights.at(-1)?.end ?? first)
        yield* Effect.logInfo(`${whole(topic.end)} records are appended, ${whole(late)} of them not visible yet`)
      }
      yield* Effect.sleep("1 millis")
    }
    return { started, ended: now() }
  })

  const end = first + total * recordsPerTransaction
  const observe = Effect.gen(function* () {
    for (;;) {
      const position = yield* connector.position
      const at = now()
      if (position + 1 !== sights.at(-1)?.end) sights.push({ at, end: position + 1 })
      if (position + 1 >= end) return at
      yield* Effect.sleep("2 millis")
    }
  })

  const [{ ended, started }, allSeen] = yield* Effect.all([append, observe], { concurrency: 2 }).pipe(
    Effect.timeoutOrElse({
      duration: `${seconds * 2 + 60} seconds`,
      orElse: () =>
        Effect.fail(new BenchmarkFailed({ what: "tiny", reason: `it is at ${sights.at(-1)?.end} of ${end}` }))
    }),
    connector.during
  )
  const { peak } = yield* connector.memory
  yield* connector.end
  yield* Events.assertRows("tiny", target, total + 1)
  yield* lab.broker.deleteTopic(topic.name)

  const { behind, millis } = compareMarks(first, appends, sights)
  const quantile = (q: number) => millis[Math.min(millis.length - 1, Math.floor(q * millis.length))]
  const took = secondsBetween(started, ended)
  const behindAtEnd = secondsBetween(ended, allSeen)
  if (took > seconds + mostBehind) {
    return yield* new BenchmarkFailed({
      what: "tiny",
      reason: `appending took ${took.toFixed(1)} s instead of ${seconds} s: the machine did not keep the pace`
    })
  }
  if (behindAtEnd > mostBehind) {
    return yield* new BenchmarkFailed({
      what: "tiny",
      reason: `the connector did not keep up: it was ${behindAtEnd.toFixed(1)} s behind at the end, and ${whole(behind)} records at most`
    })
  }
  const figures = {
    transactions: total,
    seconds: rounded(took),
    transactions_per_second: Math.round(total / took),
    p50_ms: rounded(quantile(0.5), 1),
    p95_ms: rounded(quantile(0.95), 1),
    p99_ms: rounded(quantile(0.99), 1),
    max_behind_seconds: rounded(quantile(1) / 1000),
    max_behind_records: behind,
    behind_at_end_seconds: rounded(Math.max(0, behindAtEnd)),
    peak_rss_mb: mebibytes(peak)
  }
  return {
    load: `${whole(rate)} transactions of one row a second, for ${seconds} s`,
    seen: `visible after ${figures.p50_ms} ms (p50), ${figures.p95_ms} ms (p95), ${figures.p99_ms} ms (p99); at most ${whole(behind)} records and ${figures.max_behind_seconds} s behind, ${figures.behind_at_end_seconds} s at the end`,
    peak,
    figures
  } satisfies Outcome
}, Effect.scoped)
