/** One transaction that no memory should hold, and a connector that is killed in the middle of it. */
import { Deferred, Effect, Fiber } from "effect"
import { assertContent, BenchmarkFailed, contentOf, type Lab, now, secondsBetween } from "../bench/Lab.ts"
import { connect, type TestDatabase } from "../postgres.ts"
import { mebibytes, type Outcome, rounded, whole } from "./Outcome.ts"
import * as Source from "./Source.ts"
import * as Subject from "./Subject.ts"

export interface TransactionSize {
  readonly rows: number
}

/** Half of the rows go to each. Without a key, nothing but the connector keeps a row from being there twice. */
const tables = ["load_keyed", "load_keyless"]
const setUp = [
  "CREATE TABLE load_keyed (id int PRIMARY KEY, owner int, note text, changed_at timestamptz, amount numeric(12,2))",
  "CREATE TABLE load_keyless (id int, owner int, note text, changed_at timestamptz, amount numeric(12,2))"
]

const insert = (table: string, from: number, to: number) => `
  INSERT INTO ${table}
  SELECT id, id % 9973, 'a somewhat longer note, number ' || id,
    timestamptz '2026-01-01' + id * interval '1 second', id % 99991 * 0.01
  FROM generate_series(${from}, ${to}) AS id`

/** Bytes of the tables, of rows that nobody sees yet too. */
const size = (database: TestDatabase) =>
  Effect.map(
    database.query(`SELECT ${tables.map((table) => `pg_relation_size('${table}')`).join(" + ")} AS bytes`),
    ([row]) => Number(row?.["bytes"])
  )

/** Looks again and again what a reader sees, until it sees all of it: until then it must be nothing. */
const watch = Effect.fnUntraced(function* (database: TestDatabase, rows: number) {
  const counts = tables.map((table) => `(SELECT count(*) FROM ${table})`).join(" + ")
  for (let reads = 1; ; reads++) {
    const [row] = yield* database.query(`SELECT ${counts} AS visible`)
    const visible = Number(row?.["visible"])
    if (visible === rows) return reads
    if (visible > 0) {
      return yield* new BenchmarkFailed({ what: "transaction", reason: `${visible} of its ${rows} rows were visible` })
    }
    yield* Effect.sleep("100 millis")
  }
})

export const run = Effect.fn("Transaction.run")(function* (lab: Lab, { rows }: TransactionSize) {
  const half = Math.floor(rows / 2)
  const source = yield* Source.make(lab, "load_transaction", setUp)
  yield* source.database.query(
    `BEGIN; ${insert("load_keyed", 1, half)}; ${insert("load_keyless", half + 1, rows)}; COMMIT`
  )
  const target = yield* connect("target", yield* lab.target.createDatabase("load_transaction"))
  for (const statement of setUp) yield* target.query(statement)
  const reader = yield* connect("reader", target.url)

  // The rest of the transaction comes into the topic only once the connector has died in its middle.
  const killed = yield* Deferred.make<void>()
  let sent = 0
  const sending = yield* Effect.forkScoped(
    source.send((values) =>
      Effect.gen(function* () {
        if (sent > half) yield* Deferred.await(killed)
        sent += values.length
        yield* source.append(values)
      })
    )
  )
  const connector = yield* Subject.start(source.topic, { endpoint: lab.broker.endpoint, target })
  const watching = yield* Effect.forkScoped(watch(reader, rows))

  const enough = (yield* size(source.database)) / 4
  yield* size(target).pipe(
    Effect.delay("20 millis"),
    Effect.repeat({ until: (bytes) => bytes > enough }),
    Effect.timeoutOrElse({
      duration: "3 minutes",
      orElse: () =>
        Effect.fail(
          new BenchmarkFailed({ what: "transaction", reason: "the half that is in the topic is not written" })
        )
    }),
    connector.during
  )
  const written = yield* size(target)
  const before = yield* connector.memory
  yield* connector.kill
  const begun = now()
  yield* Effect.logInfo(`killed with ${mebibytes(written)} MiB in the target's tables`)
  yield* Deferred.succeed(killed, undefined)
  const last = yield* Fiber.join(sending)
  const seconds = secondsBetween(begun, yield* connector.applied(last))
  const reads = yield* Fiber.join(watching)
  const peak = Math.max(before.peak, (yield* connector.memory).peak)
  yield* connector.end

  for (const table of tables) {
    yield* assertContent("transaction", target, [table], yield* contentOf(source.database, [table]))
  }
  yield* lab.broker.deleteTopic(source.topic)
  return {
    load: `One transaction of ${whole(rows)} rows; the connector killed with SIGKILL in its middle, ${mebibytes(written)} MiB into the target's tables`,
    seen: `nothing visible in ${whole(reads - 1)} reads, then all rows, each once, ${seconds.toFixed(1)} s after the kill; the source sent the second half in that time`,
    peak,
    figures: {
      rows,
      reads,
      seconds_after_kill: rounded(seconds),
      peak_rss_mb: mebibytes(peak)
    }
  } satisfies Outcome
}, Effect.scoped)
