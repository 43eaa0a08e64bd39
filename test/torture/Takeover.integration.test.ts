/** Two instances on one topic and database, as operators have them by accident or for a take-over. */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as Broker from "../../layers/embedded/Broker.ts"
import * as events from "../events.ts"
import { TestPostgres } from "../postgres.ts"
import * as ConnectorProcess from "./ConnectorProcess.ts"
import { until } from "./Harness.ts"

const place = { topic: "pets", partition: 0 }
const relation = events.relationOf()

const transaction = [
  events.begin(1000),
  events.relation(relation),
  events.insert(relation.id, [events.int4(1), events.text("pet 1")]),
  events.commit(1000)
].map((message) => ({ value: Buffer.from(events.eventJson(message)) }))

layer(TestPostgres.layer(), { excludeTestServices: true })("Takeover", (it) => {
  // It meets the rows that the other one has inserted: a unique violation, which would stop it for good.
  it.effect("an instance that was frozen in a transaction while another took over stands by and goes on", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.make()
      const database = yield* TestPostgres.database
      yield* database.query("CREATE TABLE pets (id int4 PRIMARY KEY, name text)")
      yield* broker.createTopic(place.topic)
      yield* broker.append(place, transaction)
      const connector = (name: string) =>
        ConnectorProcess.make({
          name,
          url: database.url,
          settings: Effect.succeed({
            FLUVIO_PG_TOPIC: place.topic,
            FLUVIO_PG_CONSUMER_ENDPOINT: broker.endpoint
          }),
          onLine: () => {}
        })
      const isSo = (query: string) => until(Effect.map(database.query(query), ({ length }) => length > 0))
      const first = yield* connector("first")
      const second = yield* connector("second")

      yield* Effect.forkChild(first.restartWith({ at: "before first statement", passing: 1, stall: 3000 }), {
        startImmediately: true
      })
      yield* first.start
      yield* isSo(
        "SELECT FROM pg_stat_activity WHERE application_name = 'first' AND state = 'idle in transaction' AND query LIKE '%set_config%'"
      )
      yield* first.signal("SIGSTOP")
      yield* second.start
      yield* isSo("SELECT FROM pg_stat_activity WHERE application_name = 'second'")
      yield* database.query(`
        SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND application_name = 'first'
      `)
      yield* isSo("SELECT FROM pets")
      yield* first.signal("SIGCONT")
      yield* until(Effect.map(first.log, (log) => log.some((line) => line.includes("Standing by"))))

      assert.strictEqual((yield* second.stop())?.code, 0)
      yield* until(Effect.map(first.log, (log) => log.some((line) => line.includes("Taking over"))))
      assert.deepStrictEqual(yield* first.ends, [])
      assert.deepStrictEqual(yield* database.query("TABLE pets"), [{ id: "1", name: "pet 1" }])
    })
  )
})
