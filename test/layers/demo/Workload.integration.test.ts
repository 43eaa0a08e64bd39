import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import * as Workload from "../../../layers/demo/Workload.ts"
import * as Inbound from "../../../layers/embedded/Inbound.ts"
import { FluvioRecord, Offset } from "../../../src/stream/FluvioConsumer.ts"
import { decode, type ReplicationEvent } from "../../../src/stream/ReplicationEvent.ts"
import { TestPostgres } from "../../postgres.ts"

const rounds = 2

/** Runs the workload and reads it back as the events that a connector would see. */
const replayed = Effect.gen(function* () {
  const database = yield* TestPostgres.database
  for (const statement of [...Workload.types, ...Workload.tables]) yield* database.query(statement)
  const inbound = yield* Inbound.make({ url: database.url, publication: "workload", slot: database.name })
  const transactions = Workload.take(42, rounds * Workload.transactionsPerRound)
  for (const transaction of transactions) yield* database.query(Workload.textOf(transaction))
  yield* database.query("CREATE TABLE done (id int PRIMARY KEY); INSERT INTO done VALUES (1)")

  const events: Array<ReplicationEvent> = []
  const isComplete = yield* Deferred.make<void>()
  const reading = yield* inbound
    .run((values) => {
      for (const value of values) {
        const record = FluvioRecord.of(Offset.make(events.length), value)
        events.push(decode(record, { floatNull: "halt" }))
      }
      const last = events.findLast((event) => event.type === "relation")
      return last?.relation.name === "done" && events.at(-1)?.type === "commit"
        ? Deferred.succeed(isComplete, undefined)
        : Effect.void
    })
    .pipe(Effect.forkChild)
  yield* Effect.raceFirst(Deferred.await(isComplete), Fiber.join(reading))
  yield* Fiber.interrupt(reading)
  const end = events.findLastIndex((event) => event.type === "begin")
  return { transactions, events: events.slice(0, end) }
})

layer(TestPostgres.layer())("Workload", (it) => {
  it.effect("publishes as many changes as it says, transaction by transaction, and all that it promises", () =>
    Effect.gen(function* () {
      const { events, transactions } = yield* replayed

      const changes: Array<number> = []
      for (const { type } of events) {
        if (type === "begin") changes.push(0)
        else if (["insert", "update", "delete", "truncate"].includes(type)) changes[changes.length - 1] += 1
      }
      assert.deepStrictEqual(
        changes.filter((count) => count > 0),
        transactions.map((transaction) => transaction.changes).filter((count) => count > 0)
      )

      const relations = events.flatMap((event) => (event.type === "relation" ? [event.relation] : []))
      const identities = new Map(relations.map(({ name, replicaIdentity }) => [name, replicaIdentity]))
      assert.deepStrictEqual([...identities].sort(), [
        ["Order", "Default"],
        ["customer", "Default"],
        ["document", "Default"],
        ["order_line", "Default"],
        ["specimen", "Default"],
        ["staging", "Default"],
        ["visit", "Full"],
        ["voucher", "Index"]
      ])
      const shapes = new Set(
        relations.filter(({ name }) => name === "customer").map(({ columns }) => columns.map(({ name }) => name).join())
      )
      const common = ["id", "name", "contact", "balance", "is_active", "score", "changed_at"].join()
      const renamed = common.replace("contact", "Reached at")
      assert.deepStrictEqual(
        [...shapes],
        [
          `${common},extra_0`,
          `${common},extra_0,extra_1`,
          `${renamed},extra_0,extra_1`,
          `${renamed},extra_1`,
          `${renamed},extra_1,extra_2`,
          `${common},extra_1,extra_2`,
          `${common},extra_2`
        ]
      )

      const updates = events.filter((event) => event.type === "update")
      assert.isTrue(
        updates.some(({ newTuple }) => newTuple.cells.includes(undefined)),
        "a value that is not sent"
      )
      assert.isTrue(
        updates.some(({ keyTuple, newTuple }) => keyTuple !== null && newTuple.cells.includes(undefined)),
        "a key change with a value that is not sent"
      )
      assert.isTrue(
        updates.some(({ oldTuple }) => oldTuple !== null),
        "an update of a whole row"
      )
      assert.isTrue(
        events.some((event) => event.type === "insert" && event.tuple.cells.includes(null)),
        "a NULL"
      )
      assert.deepStrictEqual(
        [...new Set(events.flatMap((event) => (event.type === "type" ? [event.name] : [])))],
        ["mood"]
      )
    })
  )
})
