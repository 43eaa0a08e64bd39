/** One instance applies, every other one stands by: an advisory lock in the target decides which. */
import { Effect, Fiber, Schedule, Schema } from "effect"
import { SqlClient } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"
import * as SqlFailure from "./target/SqlFailure.ts"
import { isRetryable } from "./stream/Outcome.ts"

/** A pooler hands a session of the target's to each transaction, and with it the locks that another one has left there. */
export class SessionsPooled extends Schema.TaggedError<SessionsPooled>()("SessionsPooled", {}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy =
    "set `target.lock: none` and `target.prepare: false`, and run one instance only; or connect past the pooler"
  override get message() {
    return "the target is behind a pooler in transaction mode, where no advisory lock keeps a second instance away"
  }
}

/** The session that held the advisory lock has ended, and the lock with it. */
export class LockLost extends Schema.TaggedError<LockLost>()("LockLost", {
  topic: Schema.String,
  partition: Schema.Natural,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "find in the target's log who ends the session that holds the connector's advisory lock"
  override get message() {
    return `the session that holds the advisory lock of ${this.topic}-${this.partition} was lost: ${this.reason}`
  }
}

/**
 * Whether the reserved session is ours: another connection has another one meanwhile, and ours is still the same. Not
 * every pooler shows itself by that: one that takes turns with two sessions, or serves others meanwhile, may look the
 * same. It takes no more connections than the lock does with the statements that follow it.
 */
const isOwn = Effect.fnUntraced(function* (session: Connection) {
  const sql = yield* SqlClient.SqlClient
  const ask = "SELECT pg_backend_pid()"
  const [[before]] = yield* session.executeValuesUnprepared(ask, [])
  const [[other]] = yield* sql.unsafe(ask).values
  const [[after]] = yield* session.executeValuesUnprepared(ask, [])
  return after === before && other !== before
}, SqlFailure.typed)

/** Whether the target's sessions are the connector's own, as its advisory lock needs them. It takes two connections. */
export const hasOwnSessions = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  return yield* isOwn(yield* SqlFailure.typed(sql.reserve))
})

/** How often an instance that stands by asks for the lock, and one that holds it whether its session is still there. */
const interval = "1 second"

/** What the advisory lock is the hash of. */
export const lockName = (topic: string, partition: number): string => `fluvio-postgres-sink/${topic}/${partition}`

/**
 * Holds the session-level advisory lock of this topic and partition until the scope closes, and waits for it as long as
 * another instance holds it. PostgreSQL releases it when the session ends, however it ends: what is given fails then,
 * and until then does not end.
 *
 * The lock spares two instances the work of failing on each other; what keeps a transaction from being applied twice is
 * the conditional save of the position, which also stops an instance that lost the lock without noticing.
 */
export const acquire = Effect.fn("Standby.acquire")(function* (
  topic: string,
  partition: number,
  standingBy: Effect.Effect<void>
) {
  const sql = yield* SqlClient.SqlClient
  const session = yield* SqlFailure.typed(sql.reserve)
  if (!(yield* isOwn(session))) return yield* new SessionsPooled()
  const lock = lockName(topic, partition)
  const ask = SqlFailure.typed(
    session.executeValues("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", [lock])
  ).pipe(Effect.map(([[isHeld]]) => isHeld === true))

  yield* Effect.addFinalizer(() =>
    session.executeValues("SELECT pg_advisory_unlock_all()", []).pipe(Effect.ignoreCause)
  )
  if (!(yield* ask)) {
    yield* standingBy
    yield* Effect.logInfo(`Standing by: another instance applies ${topic}-${partition} to this database`)
    yield* ask.pipe(Effect.repeat({ schedule: Schedule.spaced(interval), until: (isHeld) => isHeld }))
    yield* Effect.logInfo(`Taking over ${topic}-${partition}`)
  }
  const watching = yield* SqlFailure.typed(session.executeValues("SELECT 1", [])).pipe(
    Effect.repeat(Schedule.spaced(interval)),
    Effect.mapError(({ message }) => new LockLost({ topic, partition, reason: message })),
    Effect.andThen(Effect.never),
    Effect.forkScoped
  )
  return Fiber.join(watching)
})
