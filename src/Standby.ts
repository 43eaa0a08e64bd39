/** One instance applies, every other one stands by: an advisory lock in the target decides which. */
import { Effect, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import * as SqlFailure from "./SqlFailure.ts"

/** How often an instance that stands by asks for the lock. */
const interval = "1 second"

/**
 * Holds the session-level advisory lock of this topic and partition until the scope closes, and waits for it as long as
 * another instance holds it. PostgreSQL releases it when the session ends, however it ends.
 *
 * The lock spares two instances the work of failing on each other; what keeps a transaction from being applied twice is
 * the conditional save of the position, which also stops an instance that lost the lock without noticing.
 */
export const acquire = Effect.fn("Standby.acquire")(function* (topic: string, partition: number) {
  const sql = yield* SqlClient.SqlClient
  const session = yield* SqlFailure.typed(sql.reserve)
  const lock = `fluvio-postgres-sink/${topic}/${partition}`
  const ask = SqlFailure.typed(
    session.executeValues("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", [lock])
  ).pipe(Effect.map(([[isHeld]]) => isHeld === true))

  yield* Effect.addFinalizer(() =>
    session.executeValues("SELECT pg_advisory_unlock_all()", []).pipe(Effect.ignoreCause)
  )
  if (yield* ask) return
  yield* Effect.logInfo(`Standing by: another instance applies ${topic}-${partition} to this database`)
  yield* ask.pipe(Effect.repeat({ schedule: Schedule.spaced(interval), until: (isHeld) => isHeld }))
  yield* Effect.logInfo(`Taking over ${topic}-${partition}`)
})
