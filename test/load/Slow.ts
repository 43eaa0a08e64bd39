/** An hour's worth of records before a target that takes them slowly: what cannot be applied must not be read either. */
import { Effect, FileSystem } from "effect"
import * as Broker from "../../layers/embedded/Broker.ts"
import { BenchmarkFailed, type Lab } from "../bench/Lab.ts"
import * as Topic from "../bench/Topic.ts"
import { connect } from "../postgres.ts"
import * as Events from "./Events.ts"
import * as Meter from "./Meter.ts"
import { mebibytes, type Outcome, rounded, whole } from "./Outcome.ts"
import * as Subject from "./Subject.ts"

export interface SlowSize {
  readonly records: number
  /** How long the connector is watched. */
  readonly seconds: number
  /** By how much its memory in the last quarter of the time may exceed that in the first, as a ratio. */
  readonly mostGrowth: number
}

const rowsPerTransaction = 10
const recordsPerTransaction = rowsPerTransaction + 2
const transactionsPerAppend = 5_000

/**
 * What may be read and not be applied: a group that is being applied, one that is gathered, chunks that are decoded
 * ahead, responses on their way. It is far less than the topic holds.
 */
const mostAhead = 48 * 2 ** 20

/** Every twentieth row takes a millisecond, whatever statement it comes with: a tenth of what the connector can do. */
const slowness = `
  CREATE FUNCTION load_delay(id int) RETURNS boolean LANGUAGE plpgsql AS $$
  BEGIN
    IF id % 20 = 0 THEN PERFORM pg_sleep(0.001); END IF;
    RETURN true;
  END $$;
  ALTER TABLE bench_events ADD CHECK (load_delay(id))`

/** How many bytes of the log lie before an offset, of which the marks know some. */
const bytesBefore = (
  marks: ReadonlyArray<{ readonly end: number; readonly bytes: number }>,
  offset: number
): number => {
  const after = Math.max(
    1,
    marks.findIndex(({ end }) => end >= offset)
  )
  const [low, high] = [marks[after - 1], marks[after]]
  return low.bytes + ((high.bytes - low.bytes) * (offset - low.end)) / (high.end - low.end)
}

export const run = Effect.fn("Slow.run")(function* (lab: Lab, { mostGrowth, records, seconds }: SlowSize) {
  const files = yield* FileSystem.FileSystem
  // On disk: a log of this length is no memory of ours.
  const folder = yield* files.makeTempDirectoryScoped({ prefix: "fluvio-postgres-sink-load-" })
  const meter = yield* Meter.make
  const broker = yield* Broker.spawn({ folder, publicPorts: [meter.port] })
  meter.forwardTo(broker.ports[1])
  const topic = yield* Topic.make(broker, "load-slow")
  const marks = [{ end: 0, bytes: 0 }]
  while (topic.end < records) {
    yield* topic.append(transactionsPerAppend, rowsPerTransaction)
    const { size } = yield* files.stat(`${folder}/${topic.name}/0.log`)
    marks.push({ end: topic.end, bytes: Number(size) })
  }
  const total = marks[marks.length - 1].bytes
  yield* Effect.logInfo(`${whole(topic.end)} records, ${mebibytes(total)} MiB, are in the topic`)

  const target = yield* connect("target", yield* lab.target.createDatabase("load_slow"))
  yield* target.query(Topic.table)
  yield* target.query(slowness)
  const connector = yield* Subject.start(topic.name, { endpoint: broker.endpoint, target })

  const samples: Array<number> = []
  let ahead = 0
  yield* connector.during(
    Effect.gen(function* () {
      const started = performance.now()
      for (let told = started; performance.now() - started < seconds * 1000;) {
        const position = yield* connector.position
        const { rss } = yield* connector.memory
        ahead = Math.max(ahead, (yield* meter.sent) - bytesBefore(marks, position + 1))
        samples.push(rss)
        if (performance.now() - told > 15_000) {
          told = performance.now()
          yield* Effect.logInfo(`at record ${whole(position)}, with ${mebibytes(rss)} MiB`)
        }
        yield* Effect.sleep("100 millis")
      }
    })
  )
  const { peak } = yield* connector.memory
  yield* connector.end
  const sent = yield* meter.sent
  // The position is that of a commit, and the first transaction describes the table too.
  const rows = ((yield* connector.position) / recordsPerTransaction) * rowsPerTransaction
  if (rows <= 0) return yield* new BenchmarkFailed({ what: "slow", reason: "nothing was applied" })
  yield* Events.assertRows("slow", target, rows)

  const quarter = Math.floor(samples.length / 4)
  const first = Math.max(...samples.slice(0, quarter))
  const last = Math.max(...samples.slice(-quarter))
  if (ahead > mostAhead) {
    return yield* new BenchmarkFailed({
      what: "slow",
      reason: `of a log of ${mebibytes(total)} MiB, ${mebibytes(sent)} were sent and up to ${mebibytes(ahead)} of them ahead of the position; the most is ${mebibytes(mostAhead)}`
    })
  }
  if (last > first * mostGrowth) {
    return yield* new BenchmarkFailed({
      what: "slow",
      reason: `memory is not flat: ${mebibytes(first)} MiB at most in the first quarter of the time, ${mebibytes(last)} MiB in the last`
    })
  }
  return {
    load: `${whole(topic.end)} records in the topic (${mebibytes(total)} MiB; what 1,000 a second are in ${Math.round(topic.end / 60_000)} minutes), a target that takes ${whole(rows / seconds)} rows/s, watched for ${seconds} s`,
    seen: `${whole(rows)} rows, exactly those before the position; never more than ${mebibytes(ahead)} MiB read ahead of it; most memory in the first quarter of the time ${mebibytes(first)} MiB, in the last ${mebibytes(last)} MiB`,
    peak,
    figures: {
      records: topic.end,
      log_mb: mebibytes(total),
      seconds,
      rows,
      rows_per_second: Math.round(rows / seconds),
      sent_mb: mebibytes(sent),
      max_ahead_mb: rounded(ahead / 2 ** 20, 1),
      first_quarter_rss_mb: mebibytes(first),
      last_quarter_rss_mb: mebibytes(last),
      peak_rss_mb: mebibytes(peak)
    }
  } satisfies Outcome
}, Effect.scoped)
