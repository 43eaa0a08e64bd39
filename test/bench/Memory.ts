/** The memory the connector needs at its worst, and how its start depends on what the topic holds. */
import { Effect } from "effect"
import { connect, type TestDatabase } from "../postgres.ts"
import * as Connector from "./Connector.ts"
import { BenchmarkFailed, createDatabase, type Lab, median, secondsBetween } from "./Lab.ts"
import * as Topic from "./Topic.ts"

export interface Memory {
  readonly what: string
  readonly rows: number
  readonly seconds: number
  readonly maxRss: number
}

export interface StartUp {
  readonly records: number
  /** From the start of the process to the first commit, the median. */
  readonly seconds: number
}

const drain = Effect.fn("Memory.drain")(function* (lab: Lab, topic: Topic.Topic, database: TestDatabase) {
  const connector = yield* Connector.start({
    topic: topic.name,
    endpoint: lab.broker.endpoint,
    url: database.url,
    until: topic.end - 1,
    stage: "apply"
  })
  const report = yield* connector.report
  return { spawned: connector.spawned, ...report }
}, Effect.scoped)

const target = Effect.fnUntraced(function* (lab: Lab, name: string) {
  const database = yield* connect(name, yield* createDatabase(lab.target, name))
  yield* database.query(Topic.table)
  yield* database.query("CHECKPOINT")
  return database
})

const assertRows = Effect.fnUntraced(function* (what: string, database: TestDatabase, rows: number) {
  const [{ count }] = yield* database.query("SELECT count(*) AS count FROM bench_events")
  if (count !== String(rows)) return yield* new BenchmarkFailed({ what, reason: `${count} rows instead of ${rows}` })
})

/** One transaction that no memory should hold. */
export const ofOneTransaction = Effect.fn("Memory.ofOneTransaction")(function* (lab: Lab, rows: number) {
  const topic = yield* Topic.make(lab.broker, "memory-transaction")
  yield* topic.append(1, rows)
  const database = yield* target(lab, "memory_transaction")
  const { begun, ended, maxRss } = yield* drain(lab, topic, database)
  yield* assertRows("one large transaction", database, rows)
  yield* lab.broker.deleteTopic(topic.name)
  return { what: "one transaction", rows, seconds: secondsBetween(begun, ended), maxRss } satisfies Memory
}, Effect.scoped)

const rowsPerTransaction = 10
const recordsPerTransaction = rowsPerTransaction + 2

/** Fills a topic with about as many records and drains it. */
const drained = Effect.fnUntraced(function* (lab: Lab, name: string, records: number) {
  const topic = yield* Topic.make(lab.broker, name)
  const transactions = Math.ceil(records / recordsPerTransaction)
  yield* topic.append(transactions, rowsPerTransaction)
  const database = yield* target(lab, name.replaceAll("-", "_"))
  const { begun, ended, maxRss } = yield* drain(lab, topic, database)
  const rows = transactions * rowsPerTransaction
  yield* assertRows(name, database, rows)
  return {
    topic,
    database,
    memory: { what: "a backlog", rows, seconds: secondsBetween(begun, ended), maxRss } satisfies Memory
  }
})

/**
 * Drains a long topic and a short one, which shows the memory of a backlog; then starts again and again at the end of
 * each, in turns, with one new transaction to apply.
 */
export const ofBacklogAndStart = Effect.fn("Memory.ofBacklogAndStart")(function* (
  lab: Lab,
  records: number,
  rounds: number
) {
  const long = yield* drained(lab, "start-long", records)
  const short = yield* drained(lab, "start-short", 1000)
  const starts = new Map([long, short].map((place) => [place, new Array<number>()]))
  for (let round = 0; round < rounds; round++) {
    for (const [{ database, topic }, seconds] of starts) {
      yield* topic.append(1, 1)
      const { commits, spawned } = yield* drain(lab, topic, database)
      seconds.push(secondsBetween(spawned, commits[0].at))
    }
  }
  const startUps = [...starts].map(([{ topic }, seconds]): StartUp => ({
    records: topic.end,
    seconds: median(seconds)
  }))
  return { memory: long.memory, long: startUps[0], short: startUps[1] }
}, Effect.scoped)
