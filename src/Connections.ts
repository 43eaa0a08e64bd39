/** How many connections to the target the connector needs at a time, which a program's own pool may not give. */
import { Context, Effect, Predicate, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { isRetryable } from "./stream/Outcome.ts"
import * as SqlFailure from "./target/SqlFailure.ts"

/** Breaks every connection to the target at once: whatever is open there is rolled back. Others' clients cannot be told. */
export const Disconnect = Context.Reference<Effect.Effect<void>>("fluvio-postgres-sink/Disconnect", {
  defaultValue: () => Effect.void
})

/** Without this check the connector would wait for a connection that it holds itself. */
export class TooFewConnections extends Schema.TaggedError<TooFewConnections>()("TooFewConnections", {
  needed: Schema.Natural,
  /** `undefined` when the client does not say; then others may have had the connections just now. */
  given: Schema.UndefinedOr(Schema.Natural)
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    return `give the SqlClient a pool with maxConnections of at least ${this.needed}, besides those that the program uses itself`
  }
  override get message() {
    const found = this.given === undefined ? `gave fewer for ${patience}` : `has ${this.given} at most`
    return `the connector needs ${this.needed} connections to the target at a time, and its SqlClient ${found}`
  }
}

const patience = "20 seconds"

const mostOf = (sql: SqlClient.SqlClient): number | undefined =>
  Predicate.hasProperty(sql, "config") &&
  Predicate.hasProperty(sql.config, "maxConnections") &&
  Predicate.isNumber(sql.config.maxConnections)
    ? sql.config.maxConnections
    : undefined

/** Fails unless the client can give as many connections at a time as are needed. */
export const check = Effect.fn("Connections.check")(function* (needed: number) {
  const sql = yield* SqlClient.SqlClient
  const given = mostOf(sql)
  if (given !== undefined && given < needed) return yield* new TooFewConnections({ needed, given })
  yield* sql.reserve.pipe(
    Effect.repeat({ times: needed - 1 }),
    Effect.scoped,
    SqlFailure.typed,
    Effect.timeoutOrElse({
      duration: patience,
      orElse: () => new TooFewConnections({ needed, given: undefined })
    })
  )
})
