/** Killed at each of the named places, one after the other, the connector ends up as if nothing had been. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Broker from "../../layers/embedded/Broker.ts"
import * as Failpoint from "../../src/Failpoint.ts"
import * as events from "../events.ts"
import { TestPostgres } from "../postgres.ts"
import * as ConnectorProcess from "./ConnectorProcess.ts"
import { until } from "./Harness.ts"

const place = { topic: "pets", partition: 0 }

const row = (key: number, text = `pet ${key}`) => [events.int4(key), events.text(text)]

/** A table that is created and grows, a row of it that is updated, and in the end one that no target takes. */
const historyOf = (name: string, id: number) => {
  const born = { name: "born", isKey: false, typeId: 1082, typeModifier: -1 }
  const first = events.relationOf({ id, name })
  const grown = { ...first, columns: [...first.columns, born] }
  return [
    [events.relation(first), events.insert(id, row(1)), events.insert(id, row(2))],
    [events.update(id, row(1, "old pet"))],
    [events.relation(grown), events.insert(id, [...row(3), events.raw("2026-02-28")])],
    [events.insert(id, [...row(4, "\0"), events.sqlNull])]
  ]
}
const tables = ["cat", "dog", "eel"]

const afterwards = [
  { id: "1", name: "old pet", born: null },
  { id: "2", name: "pet 2", born: null },
  { id: "3", name: "pet 3", born: "2026-02-28" }
]

const records = tables
  .flatMap((name, index) => historyOf(name, 16_385 + index))
  .flatMap((changes, index) => [events.begin(1000 + index), ...changes, events.commit(1000 + index)])
  .map((message) => ({ value: Buffer.from(events.eventJson(message)) }))

layer(TestPostgres.layer(), { excludeTestServices: true })("Failpoints", (it) => {
  it.effect("do not show in the target", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.make()
      const database = yield* TestPostgres.database
      yield* broker.createTopic(place.topic)
      yield* broker.append(place, records)
      const connector = yield* ConnectorProcess.make({
        name: "sink",
        url: database.url,
        settings: Effect.succeed({
          FLUVIO_PG_TOPIC: place.topic,
          FLUVIO_PG_CONSUMER_ENDPOINT: broker.endpoint,
          FLUVIO_PG_GROUP_TRANSACTIONS: "1",
          FLUVIO_PG_ON_ERROR_DATA: "quarantine"
        }),
        onLine: () => {}
      })
      const kills = yield* Effect.forkChild(
        Effect.forEach(Failpoint.names, (at) => connector.restartWith({ at, passing: 1 })),
        { startImmediately: true }
      )
      yield* connector.start
      assert.deepStrictEqual(
        (yield* Fiber.join(kills)).map(({ signal }) => signal),
        Failpoint.names.map((): NodeJS.Signals => "SIGKILL")
      )
      const isAtEnd = `SELECT FROM fluvio.offset WHERE current_offset = ${records.length - 1}`
      yield* until(Effect.map(database.query(isAtEnd), ({ length }) => length === 1))
      assert.strictEqual((yield* connector.stop())?.code, 0)
      for (const table of tables) {
        assert.deepStrictEqual(yield* database.query(`SELECT * FROM ${table} ORDER BY id`), afterwards)
      }
      assert.deepStrictEqual(
        yield* database.query(`
          SELECT class, count(record) AS records FROM fluvio.quarantine JOIN fluvio.quarantine_record ON quarantine_id = id
          GROUP BY id`),
        tables.map(() => ({ class: "data", records: "3" }))
      )
    })
  )
})
