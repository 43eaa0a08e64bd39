/** The settings every applying transaction runs under: its own, whatever the role, database or pooler bring along. */
import { Duration, Effect } from "effect"
import { SqlClient } from "effect/sql"
import * as SqlFailure from "./SqlFailure.ts"

/** The settings `target.*` that a transaction runs under. */
export interface SessionOptions {
  readonly synchronousCommit: string
  readonly lockTimeout: Duration.Duration
  readonly statementTimeout: Duration.Duration | undefined
}

export interface Session {
  /** Triggers, rules and foreign keys are off (`session_replication_role = replica`). */
  readonly isReplica: boolean
  /** Pins the settings for the transaction that it runs in. */
  readonly begin: Effect.Effect<void, SqlFailure.SqlFailure, SqlClient.SqlClient>
}

/** What the applying role may set is found out once: not every provider lets it be a replica. */
const mayBeReplica = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  return yield* sql`SELECT set_config('session_replication_role', 'replica', true)`.pipe(
    sql.withTransaction,
    SqlFailure.typed,
    Effect.as(true),
    Effect.catchIf(
      (failure) => failure.class === "privilege",
      () => Effect.succeed(false)
    )
  )
})

/** Of release 17 on: a role or a database may bring it along. */
const hasTransactionTimeout = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql`SELECT FROM pg_settings WHERE name = 'transaction_timeout'`
  return rows.length > 0
}).pipe(SqlFailure.typed)

/** As PostgreSQL's time-outs are written; 0 is none. */
const millis = (duration: Duration.Duration | undefined): string =>
  String(duration === undefined ? 0 : Math.ceil(Duration.toMillis(duration)))

/**
 * The source's text must be read as the source meant it: ISO dates only (a date in another order is refused under YMD,
 * never misread), UTC, no `search_path`. A generic plan keeps a set of keys on the index, however large the set;
 * without `enable_seqscan` also where the table was small when the statement was planned; and `work_mem` has room for the
 * places of all its rows: were they noted by the page only, each row of it would be compared with each key. A scan that
 * cannot be avoided counts as dear then, which is no reason to compile it (`jit`).
 */
const settingsOf = (
  target: SessionOptions,
  isReplica: boolean,
  knowsTransactionTimeout: boolean
): ReadonlyArray<[string, string]> => {
  return [
    ["search_path", ""],
    ["datestyle", "ISO, YMD"],
    ["intervalstyle", "postgres"],
    ["timezone", "UTC"],
    ["extra_float_digits", "3"],
    ["xmloption", "content"],
    ["lc_monetary", "C"],
    ["array_nulls", "on"],
    ["row_security", "off"],
    ["plan_cache_mode", "force_generic_plan"],
    ["enable_seqscan", "off"],
    ["jit", "off"],
    ["work_mem", "16MB"],
    ["synchronous_commit", target.synchronousCommit],
    ["lock_timeout", millis(target.lockTimeout)],
    ["statement_timeout", millis(target.statementTimeout)],
    ["idle_in_transaction_session_timeout", "0"],
    ...(knowsTransactionTimeout ? [["transaction_timeout", "0"] satisfies [string, string]] : []),
    ...(isReplica ? [["session_replication_role", "replica"] satisfies [string, string]] : [])
  ]
}

export const make = Effect.fn("Session.make")(function* (target: SessionOptions) {
  const isReplica = yield* mayBeReplica
  const settings = settingsOf(target, isReplica, yield* hasTransactionTimeout)
  const text = `SELECT ${settings.map((_, n) => `set_config($${2 * n + 1}, $${2 * n + 2}, true)`).join(", ")}`
  const params = settings.flat()
  // Where foreign keys are at work, a statement of the source that changed several rows is checked row by row here.
  const late = isReplica ? [] : ["SET CONSTRAINTS ALL DEFERRED"]
  const begin = SqlClient.SqlClient.pipe(
    Effect.tap((sql) => sql.unsafe(text, params)),
    Effect.flatMap((sql) => Effect.forEach(late, (statement) => sql.unsafe(statement), { discard: true })),
    SqlFailure.typed
  )
  return { isReplica, begin } satisfies Session
})
