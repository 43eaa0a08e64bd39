/** What is done by hand: in a transaction of its own, and written down in `fluvio.action` with who, when and why. */
import { Effect } from "effect"
import { Flag } from "effect/cli"
import { SqlClient } from "effect/sql"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import { OffsetStore } from "../stream/OffsetStore.ts"
import * as SqlFailure from "../target/SqlFailure.ts"

/** Kept with the action, for whoever asks later. */
export const reason = Flag.String("reason").pipe(
  Flag.withDescription("Why, for whoever asks later; kept in fluvio.action"),
  Flag.withMetavar("text")
)

/** The names of PostgreSQL's own objects mean what they say, whatever search_path the role has. */
const pinned = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT pg_catalog.set_config('search_path', '', true)`)

/** In one target transaction: for looking. */
export const looking = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    return yield* Effect.andThen(pinned, body).pipe(sql.withTransaction)
  }).pipe(SqlFailure.typed)

/** In one target transaction, behind the connector's own tables, which are created where they are missing. */
export const doing = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const store = yield* OffsetStore
    yield* store.load
    return yield* looking(body)
  })

export interface Done {
  /** The command, as it is written: `position set`. */
  readonly action: string
  /** The facts that tell what was done: offsets, ids, LSNs; never a row's value. */
  readonly detail: { readonly [key: string]: unknown }
  readonly reason: string | undefined
  /** Who, where it is not whoever the session is of. */
  readonly by?: string | undefined
}

/** Who asks: the role, and where its session comes from. */
export const asker =
  "pg_catalog.format('%s@%s', session_user, coalesce(pg_catalog.host(pg_catalog.inet_client_addr()), 'local'))"

/** Writes it down, in the transaction that does it. */
export const record = Effect.fnUntraced(function* ({ action, by, detail, reason }: Done) {
  const sql = yield* SqlClient.SqlClient
  const { partition, topic } = yield* ConnectorConfig
  yield* sql`
    INSERT INTO fluvio.action (topic, partition, action, detail, reason, done_by)
    VALUES (${topic}, ${partition}::int4, ${action}, ${JSON.stringify(detail)}::jsonb, ${reason ?? null}, ${by ?? sql.literal(asker)})
  `
})
