/** Somebody sets the clock of the connector's machine, or a time server does, while it applies. */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { TestPostgres } from "../postgres.ts"
import * as ClockFault from "./ClockFault.ts"
import * as Scene from "./Scene.ts"

const day = 24

/** How many hours the connector's own time stamps are off from when its lines were read. */
const hoursOff = (line: string) => {
  const [, read = "", told = ""] = /^(\S+) \S+ timestamp=(\S+)/.exec(line) ?? []
  return Math.round((Date.parse(told) - Date.parse(read)) / ClockFault.millisPerHour)
}

layer(TestPostgres.layer(), { excludeTestServices: true })("A clock that jumps", (it) => {
  it.effect("neither stops nor delays what is applied, nor the position of empty transactions", () =>
    Effect.gen(function* () {
      const clock = yield* ClockFault.make
      const database = yield* TestPostgres.database
      const { append, appendEmpty, atEnd, connector, result, soon } = yield* Scene.make({
        url: database.url,
        database,
        settings: { ...clock.variables, FLUVIO_PG_TARGET_LOCK_TIMEOUT: "50 millis" }
      })
      yield* connector.start
      yield* append(100)
      yield* atEnd
      for (const hours of [5, -9, 30 * day, 0, -365 * day]) {
        // It tries again and again, so that pauses and lines of the log fall into the old time and into the new one.
        yield* database.query("BEGIN; LOCK TABLE pets IN SHARE MODE")
        yield* append(100)
        yield* clock.jump(hours)
        yield* soon(Effect.map(connector.log, (log) => log.map(hoursOff).includes(hours)))
        yield* database.query("COMMIT")
        yield* append(100)
        yield* atEnd
        // Between the last commit and an idle position, which waits for a second after it.
        yield* clock.jump(hours - 1)
        yield* appendEmpty
        yield* atEnd
      }
      const { expected, found } = yield* result
      assert.deepStrictEqual(found, expected)
      assert.strictEqual((yield* connector.stop())?.code, 0)
      assert.strictEqual((yield* connector.ends).length, 1)
    })
  )
})
