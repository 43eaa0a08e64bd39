/** What a program that embeds the connector does in the target transaction of each group. */
import { Context, Effect } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import type { ChangesByTable } from "./Applied.ts"
import type { Position } from "./stream/OffsetStore.ts"

/** A group whose rows are written and whose transaction is about to be committed. */
export interface Applying {
  /** Where in the source's history the target stands, once this is committed. */
  readonly position: Position
  /** The source's changes that were run, by table (`public.orders`) and kind; empty where transactions were set aside. */
  readonly tables: ChangesByTable
}

/**
 * Runs in the same target transaction, behind the group's rows and before the position is saved: what it writes through
 * the ambient `SqlClient` is committed with them or not at all, exactly once. It runs each time that the position is
 * saved, also behind transactions that changed nothing or were set aside.
 *
 * The transaction's settings are the connector's: names must be qualified (`search_path` is empty), and triggers do not
 * fire where the role may be a replica. What fails in here fails as a statement of the group does: it is rolled back,
 * tried again, or ends the connector. A group may be tried several times, so effects outside of the transaction may
 * repeat. It holds up the group; rows and their locks wait for it.
 *
 * A group that a `quarantine replay` applies saves no position, and is not told here.
 */
export const InTransaction = Context.Reference<
  (applying: Applying) => Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient>
>("fluvio-postgres-sink/InTransaction", { defaultValue: () => () => Effect.void })
