/**
 * The whole of it on one machine, with nothing to set up: two PostgreSQL servers, a Fluvio cluster of one process, an
 * inbound connector on the source, and the sink, which is killed twice while it works. In the end the databases are
 * compared row by row.
 */
import { Cause, Console, Duration, Effect, Fiber, Redacted, Schema, type Scope } from "effect"
import type { DemoOptions } from "../../src/Cli.ts"
import * as Broker from "../embedded/Broker.ts"
import * as Inbound from "../embedded/Inbound.ts"
import type { PackageMissing } from "../embedded/OptionalPackage.ts"
import * as Postgres from "../embedded/Postgres.ts"
import * as Producer from "../fluvio/Producer.ts"
import { compare, type Comparison, type TableComparison } from "./Compare.ts"
import * as Database from "./Database.ts"
import * as SinkProcess from "./SinkProcess.ts"
import * as Workload from "./Workload.ts"
import { isRetryable } from "../../src/stream/Outcome.ts"

/** Another process did not bring about in time what the demo waits for. */
export class WaitedTooLong extends Schema.TaggedError<WaitedTooLong>()("WaitedTooLong", {
  what: Schema.String,
  seconds: Schema.Number
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy =
    "see the last lines of the sink's log, if it left any; a machine under heavy load may just need another try"
  override get message() {
    return `waiting for ${this.what} took more than ${this.seconds} s`
  }
}

/** The target is not what the source is. */
export class DatabasesDiffer extends Schema.TaggedError<DatabasesDiffer>()("DatabasesDiffer", {
  differences: Schema.Natural
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "this is a defect of the connector: please report it with this output"
  override get message() {
    return `the target differs from the source in ${this.differences} rows and columns`
  }
}

export type DemoError =
  | Broker.BrokerError
  | Database.DatabaseError
  | DatabasesDiffer
  | Inbound.InboundError
  | PackageMissing
  | Postgres.PostgresServerError
  | Producer.ProducerError
  | SinkProcess.SinkEnded
  | WaitedTooLong

/** The last line of `--json`. */
export interface DemoResult {
  readonly ok: boolean
  readonly tables: number
  /** In the source, at the end. */
  readonly rows: number
  /** Published inserts, updates, deletes and truncates. */
  readonly changes: number
  readonly transactions: number
  /** What lies in the topic. */
  readonly records: number
  /** How often the sink was ended with SIGKILL while it worked. */
  readonly kills: number
  /** Rows and columns that only one side has. */
  readonly differences: number
  /** From the first transaction until the last one was in the target. */
  readonly seconds: number
  readonly changes_per_second: number
  readonly driver: DemoOptions["driver"]
}

const place = { topic: "demo", partition: 0 }
const seed = 1
/** The workload goes on beyond them for as long as the kills need, which shall meet a sink that has work before it. */
const leastRounds = 8
const kills = 2
/** The sink is at work when it has applied something since it was started and so many records still lie ahead. */
const recordsAheadAtKill = 100
/** It is started again when so many records have piled up. */
const recordsAheadAtStart = 5000
/** Beyond `leastRounds`, the workload waits while so many lie ahead. */
const recordsAheadAtMost = 10_000
const patience = Duration.seconds(60)

const pollInterval = Duration.millis(20)

/** Waits for a condition that another process brings about without telling. */
const until = <A, E>(what: string, look: Effect.Effect<A, E>, isIt: (seen: A) => boolean) =>
  Effect.gen(function* () {
    for (;;) {
      const seen = yield* look
      if (isIt(seen)) return seen
      yield* Effect.sleep(pollInterval)
    }
  }).pipe(
    Effect.timeoutOrElse({
      duration: patience,
      orElse: () => new WaitedTooLong({ what, seconds: Duration.toSeconds(patience) })
    })
  )

const number = new Intl.NumberFormat("en")
/** A terminal of 80 columns shows every line whole. */
const lineWidth = 79

const seconds = (duration: Duration.Duration): string => `${Duration.toSeconds(duration).toFixed(1)} s`

/** What a person follows the demo by; with `--json` it leaves the standard output to the result. */
const screen = ({ json }: DemoOptions) => {
  const say = json ? Console.error : Console.log
  const done = (text: string, took: Duration.Duration) => {
    const time = seconds(took)
    return say(`  ✓ ${text.padEnd(lineWidth - 4 - time.length)}${time}`)
  }
  return {
    say,
    note: (text: string) => say(`  ${text}`),
    /** Says what was done and how long it took, once it is done. */
    step: Effect.fnUntraced(function* <A, E, R>(work: Effect.Effect<A, E, R>, describe: (result: A) => string) {
      const [took, result] = yield* Effect.timed(work)
      yield* done(describe(result), took)
      return result
    })
  }
}

type Screen = ReturnType<typeof screen>

/** Of the records that are committed to the topic. */
interface Progress {
  readonly applied: number
  /** Committed, and not applied yet. */
  readonly ahead: number
}

interface Parts {
  readonly source: Database.Database
  readonly sourceUrl: Redacted.Redacted<string>
  readonly targetUrl: Redacted.Redacted<string>
  readonly sink: SinkProcess.SinkProcess
  readonly progress: Effect.Effect<Progress, Database.DatabaseError>
  /** Fails when the way from the source to the topic fails. */
  readonly sending: Effect.Effect<never, DemoError>
}

const server = Effect.fnUntraced(function* (name: string) {
  const server = yield* Postgres.make()
  const url = yield* server.createDatabase(name)
  return { port: server.port, url, database: yield* Database.connect(url) }
})

const slot = "demo"

/** How many records the target has. */
const appliedIn = (target: Database.Database) =>
  target.query(`SELECT current_offset + 1 FROM fluvio.offset WHERE topic = '${place.topic}'`).pipe(
    Effect.map(([row]) => Number(row?.[0] ?? 0)),
    // The sink creates its tables when it first runs.
    Effect.catchIf(
      ({ sqlState }) => sqlState === "42P01",
      () => Effect.succeed(0)
    )
  )

const start = Effect.fn("Demo.start")(function* (
  { driver }: DemoOptions,
  { step }: Screen
): Effect.fn.Return<Parts, DemoError, Scope.Scope> {
  const [source, target] = yield* step(
    Effect.all([server("source"), server("target")], { concurrency: 2 }),
    ([source, target]) => `two PostgreSQL servers, on 127.0.0.1:${source.port} and :${target.port}`
  )
  const broker = yield* step(
    Effect.tap(Broker.spawn(), (broker) => broker.createTopic(place.topic)),
    ({ endpoint }) => `a Fluvio cluster for development, on ${endpoint}, topic ${place.topic}`
  )

  for (const statement of [...Workload.types, ...Workload.tables]) yield* source.database.query(statement)
  for (const statement of Workload.types) yield* target.database.query(statement)

  const producer = yield* Producer.make({ ...place, endpoint: broker.endpoint })
  let produced = 0
  const inbound = yield* step(Inbound.make({ url: source.url, publication: "demo", slot }), () => {
    return "an inbound connector on the source, with a publication and a slot"
  })
  const sending = yield* inbound
    .run((values) =>
      Effect.tap(producer.send(values.map((value) => ({ value }))), () =>
        Effect.sync(() => void (produced += values.length))
      )
    )
    .pipe(Effect.forkScoped)

  const sink = yield* SinkProcess.make({ endpoint: broker.endpoint, topic: place.topic, url: target.url, driver })
  yield* step(sink.start, (pid) => `the sink, in a process of its own (${pid}), reading by ${driver}`)

  return {
    source: source.database,
    sourceUrl: source.url,
    targetUrl: target.url,
    sink,
    progress: Effect.map(appliedIn(target.database), (applied) => ({ applied, ahead: produced - applied })),
    sending: Fiber.join(sending)
  }
})

/** Kills the sink while it works and starts it again, and tells each time that this is done. */
const killTwice = Effect.fn("Demo.killTwice")(function* (
  { progress, sink }: Parts,
  { note }: Screen,
  onKilled: (count: number) => void
) {
  for (let count = 1; count <= kills; count++) {
    const { applied: before } = yield* progress
    yield* until("the sink at work", progress, ({ ahead, applied }) => applied > before && ahead >= recordsAheadAtKill)
    yield* sink.kill
    const { ahead, applied } = yield* progress
    yield* note(
      `✗ killed the sink with SIGKILL after record ${number.format(applied)}, ${number.format(ahead)} ahead of it`
    )
    const waiting = yield* until("a backlog for the sink", progress, ({ ahead }) => ahead >= recordsAheadAtStart)
    const pid = yield* sink.start
    yield* note(`↻ started it again (${pid}), ${number.format(waiting.ahead)} records ahead of it`)
    onKilled(count)
  }
})

/** Runs whole rounds of the workload: the least of them, and more for as long as `isEnough` says no. */
const work = Effect.fn("Demo.work")(function* ({ progress, source }: Parts, isEnough: () => boolean) {
  let transactions = 0
  let changes = 0
  for (const transaction of Workload.transactions(seed)) {
    yield* source.query(Workload.textOf(transaction))
    transactions += 1
    changes += transaction.changes
    if (transactions < leastRounds * Workload.transactionsPerRound) continue
    if (transactions % Workload.transactionsPerRound > 0) continue
    yield* until("progress of the sink", progress, ({ ahead }) => isEnough() || ahead < recordsAheadAtMost)
    if (isEnough()) break
  }
  return { transactions, changes }
})

/** Everything that is committed in the source is in the topic, and everything that is in the topic is applied. */
const catchUp = Effect.fn("Demo.catchUp")(function* ({ progress, source }: Parts) {
  const [[end]] = yield* source.query("SELECT pg_current_wal_flush_lsn()")
  yield* until(
    "the source's last transaction in the topic",
    source.query(`SELECT confirmed_flush_lsn >= '${end}' FROM pg_replication_slots WHERE slot_name = '${slot}'`),
    ([[isSent]]) => isSent === "t"
  )
  const { applied } = yield* until("the topic's last record in the target", progress, ({ ahead }) => ahead <= 0)
  return applied
})

const plural = (count: number, noun: string) => `${number.format(count)} ${noun}${count === 1 ? "" : "s"}`

const differenceOf = ({ extraColumns, extraRows, missingColumns, missingRows }: TableComparison): string =>
  [
    missingRows > 0 ? [`${plural(missingRows, "row")} missing`] : [],
    extraRows > 0 ? [`${plural(extraRows, "row")} too many`] : [],
    missingColumns.length > 0 ? [`without ${missingColumns.join(", ")}`] : [],
    extraColumns.length > 0 ? [`with ${extraColumns.join(", ")}`] : []
  ]
    .flat()
    .join(", ") || "none"

const tableOf = ({ tables }: Comparison): ReadonlyArray<string> => {
  const rows = [
    ["table", "rows", "differences"],
    ...tables.map((table) => [`${table.schema}.${table.name}`, number.format(table.rows), differenceOf(table)])
  ]
  const width = (column: number) => Math.max(...rows.map((row) => row[column].length))
  return rows.map(([name, count, difference]) =>
    `    ${name.padEnd(width(0))}  ${count.padStart(width(1))}  ${difference}`.trimEnd()
  )
}

/** The rows are the workload's own, which is nobody's data. */
const examplesOf = ({ tables }: Comparison): ReadonlyArray<string> =>
  tables.flatMap(({ examples, name, schema }) =>
    examples.map(({ row, side }) => `    ${schema}.${name}, only in the ${side}: ${row.replaceAll("\n", "\\n")}`)
  )

const show = Effect.fn("Demo.show")(function* (parts: Parts, { driver }: DemoOptions, screen: Screen) {
  const { say, step } = screen
  let killed = 0
  const [took, { done, records }] = yield* Effect.timed(
    Effect.gen(function* () {
      const [done] = yield* Effect.all(
        [
          step(
            work(parts, () => killed === kills),
            (done) =>
              `ran ${plural(done.transactions, "transaction")} of ${plural(done.changes, "change")} on the source`
          ),
          killTwice(parts, screen, (count) => (killed = count))
        ],
        { concurrency: 2 }
      )
      const records = yield* step(
        catchUp(parts),
        (records) => `the target has caught up with the topic's ${plural(records, "record")}`
      )
      return { done, records }
    })
  )
  const comparison = yield* step(
    compare(parts.sourceUrl, parts.targetUrl),
    ({ rows, tables }) => `compared ${plural(rows, "row")} of ${plural(tables.length, "table")}, value by value`
  )
  const result: DemoResult = {
    ok: comparison.differences === 0,
    tables: comparison.tables.length,
    rows: comparison.rows,
    ...done,
    records,
    kills: killed,
    differences: comparison.differences,
    seconds: Number(Duration.toSeconds(took).toFixed(3)),
    changes_per_second: Math.round(done.changes / Duration.toSeconds(took)),
    driver
  }

  yield* say("")
  for (const line of tableOf(comparison)) yield* say(line)
  yield* say("")
  const examples = examplesOf(comparison)
  for (const line of examples) yield* say(line)
  if (examples.length > 0) yield* say("")
  yield* say(
    `  ${plural(result.differences, "difference")} · ${plural(result.tables, "table")} · ${plural(result.rows, "row")} · ` +
      `${plural(result.kills, "kill")}\n` +
      `  ${plural(result.changes, "change")}, ${number.format(result.changes_per_second)} a second`
  )
  return result
})

const invitation = ({ sourceUrl, targetUrl }: Parts): ReadonlyArray<string> => [
  "",
  "  Everything keeps running: type SQL into the source, and see it arrive.",
  "",
  "  source:",
  `  psql '${Redacted.value(sourceUrl)}'`,
  "  target:",
  `  psql '${Redacted.value(targetUrl)}'`,
  "",
  "  In the source:  CREATE TABLE hello (id int PRIMARY KEY, word text);",
  "                  INSERT INTO hello VALUES (1, 'world');",
  "  In the target:  TABLE hello;",
  "",
  "  Ctrl-C ends it and leaves nothing behind."
]

const showLog = Effect.fnUntraced(function* (sink: SinkProcess.SinkProcess) {
  const lines = yield* sink.log
  if (lines.length > 0) yield* Console.error(["", "The last lines of the sink's log:", ...lines, ""].join("\n"))
})

/** Somebody presses Enter, or sends SIGUSR2 where there is no terminal. */
const asked = Effect.callback<void>((resume) => {
  const go = () => resume(Effect.void)
  process.stdin.once("data", go)
  process.once("SIGUSR2", go)
  return Effect.sync(() => {
    process.stdin.off("data", go).pause()
    process.off("SIGUSR2", go)
  })
})

/** From the connector's one message on, which is the last thing that it says. */
const lastWords = (lines: ReadonlyArray<string>) =>
  lines.slice(
    Math.max(
      0,
      lines.findLastIndex((line) => line.startsWith("fluvio-postgres-sink: "))
    )
  )

/** Whoever plays may stop the sink by what they do: then they read why, resolve it, and start it again. */
const serve = Effect.fn("Demo.serve")(function* ({ sink }: Parts, { note, say }: Screen) {
  for (;;) {
    yield* Effect.flip(sink.ended)
    yield* say("")
    yield* note("✗ the sink has stopped; both databases and the topic keep running:")
    for (const line of lastWords(yield* sink.log)) yield* say(`    ${line}`)
    yield* note("Resolve it in the databases, then press Enter to start the sink again")
    yield* note(`(or, without a terminal: kill -USR2 ${process.pid}).`)
    yield* asked
    yield* note(`↻ started it again (${yield* sink.start})`)
  }
})

/** Runs the demo. It ends without a process or a temporary folder left, however it ends. */
export const demo = Effect.fn("Demo.demo")(function* (options: DemoOptions): Effect.fn.Return<void, DemoError> {
  const output = screen(options)
  yield* output.say("\n  PostgreSQL → Fluvio → PostgreSQL\n")
  yield* Effect.gen(function* () {
    const parts = yield* start(options, output)
    const showing = Effect.gen(function* () {
      const result = yield* show(parts, options, output)
      if (options.json) yield* Console.log(JSON.stringify(result))
      if (!result.ok) return yield* new DatabasesDiffer({ differences: result.differences })
      if (!options.serve) return
      for (const line of invitation(parts)) yield* output.say(line)
    })
    const playing = Effect.raceFirst(showing, parts.sink.ended).pipe(
      Effect.andThen(options.serve ? serve(parts, output) : Effect.void)
    )
    yield* Effect.raceFirst(playing, parts.sending).pipe(
      Effect.tapCause((cause) => (Cause.hasInterruptsOnly(cause) ? Effect.void : showLog(parts.sink)))
    )
  }).pipe(Effect.scoped)
})
