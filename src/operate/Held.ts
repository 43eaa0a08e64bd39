/** What is set aside in the target, as its operator reads it: the transactions, their records, and who follows whom. */
import { DateTime, Effect, Schema, Struct } from "effect"
import { SqlClient } from "effect/sql"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import { HeldKeys } from "../HeldKeys.ts"
import { HeldShapes } from "../HeldShapes.ts"
import { FluvioRecord, Offset } from "../stream/FluvioConsumer.ts"
import { OffsetStore, OffsetStoreError } from "../stream/OffsetStore.ts"
import { isRetryable } from "../stream/Outcome.ts"
import * as Action from "./Action.ts"
import * as SqlFailure from "../target/SqlFailure.ts"

/** The command names a transaction that is not there, or not held any more. */
export class NotHeld extends Schema.TaggedError<NotHeld>()("NotHeld", {
  message: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "`fluvio-postgres-sink quarantine list --all` shows what is in quarantine, and what became of it"
}

const Status = Schema.Literals(["held", "replayed", "discarded"])

const Row = Schema.Struct({
  id: Schema.Natural,
  firstOffset: Offset,
  lastOffset: Offset,
  commitLsn: Schema.NullOr(Schema.String),
  commitTime: Schema.NullOr(Schema.Number),
  xid: Schema.NullOr(Schema.Natural),
  epoch: Schema.Natural,
  class: Schema.String,
  sqlState: Schema.NullOr(Schema.String),
  reason: Schema.String,
  tables: Schema.Array(Schema.String),
  keys: Schema.Array(Schema.String),
  schemaChanges: Schema.Array(Schema.String),
  shapes: Schema.NullOr(HeldShapes),
  records: Schema.Natural,
  heldSince: Schema.String,
  status: Status,
  resolvedAt: Schema.NullOr(Schema.String),
  resolvedBy: Schema.NullOr(Schema.String),
  resolvedReason: Schema.NullOr(Schema.String)
})
const readRows = Schema.decodeUnknownEffect(Schema.Array(Row))

/** A transaction that is or was set aside. */
export type Held = typeof Row.Type

const iso = (millis: number): string => DateTime.formatIso(DateTime.makeUnsafe(millis))
const isoOf = (timestamp: string | null): string | null =>
  timestamp === null ? null : DateTime.formatIso(DateTime.makeUnsafe(timestamp))

/** The source counts from the year 2000, in microseconds. */
const year2000 = 946_684_800_000

/** What a transaction is known by, without a value of any row: its keys are values, too. */
export const factsOf = (held: Held) => {
  const { commitTime, heldSince, resolvedAt, ...facts } = Struct.omit(held, ["keys", "shapes"])
  return {
    ...facts,
    commitTime: commitTime === null ? null : iso(year2000 + Math.floor(commitTime / 1000)),
    heldSince: isoOf(heldSince),
    resolvedAt: isoOf(resolvedAt)
  }
}

/** Where no connector has run, nothing is held. */
const exists = Effect.gen(function* () {
  const { inspect } = yield* OffsetStore
  yield* inspect
  const sql = yield* SqlClient.SqlClient
  const [{ there }] = yield* sql<{ there: boolean }>`SELECT to_regclass('fluvio.quarantine') IS NOT NULL AS there`
  return there
})

const unreadable = () =>
  new OffsetStoreError({
    operation: "reading the quarantine",
    sqlState: undefined,
    class: undefined,
    reason: "fluvio.quarantine does not hold what this version wrote there",
    isRetryable: false,
    remedy: "look at its rows: which columns were changed by hand?"
  })

/**
 * All of the topic, or only what is held, in the order of the source: that of the commits within its history. Where the
 * position was set back, that is not the order in which they were set aside.
 */
export const read = Effect.fnUntraced(function* (which: "all" | "held") {
  if (!(yield* exists)) return []
  const sql = yield* SqlClient.SqlClient
  const { partition, topic } = yield* ConnectorConfig
  const rows = yield* sql
    .unsafe<{ readonly held: unknown }>(
      `SELECT jsonb_build_object('id', id, 'firstOffset', first_offset, 'lastOffset', last_offset, 'commitLsn', commit_lsn,
          'commitTime', commit_time, 'xid', xid, 'epoch', epoch, 'class', class, 'sqlState', sql_state, 'reason', reason,
          'tables', tables, 'keys', keys, 'schemaChanges', schema_changes, 'shapes', shapes, 'heldSince', created_at,
          'status', status, 'resolvedAt', resolved_at, 'resolvedBy', resolved_by, 'resolvedReason', resolved_reason,
          'records', (SELECT count(*) FROM fluvio.quarantine_record WHERE quarantine_id = id)) AS held
      FROM fluvio.quarantine
      WHERE topic = $1 AND partition = $2::int4 AND (status = 'held' OR $3::bool)
      ORDER BY epoch, commit_lsn NULLS FIRST, first_offset, id`,
      [topic, String(partition), which === "all"]
    )
    .pipe(SqlFailure.typed)
  return yield* readRows(rows.map(({ held }) => held)).pipe(Effect.mapError(unreadable))
})

/** Records come from the target in parts of about this size. */
const partBytes = 4 * 1024 * 1024
const partRecords = 1000

/** The records of a transaction from an offset on: some of them, none behind the last. */
export const recordsOf = Effect.fnUntraced(function* (id: number, from: number) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql
    .unsafe<{ readonly place: string; readonly record: Uint8Array }>(
      `SELECT format('%s', record_offset) AS place, record
      FROM (
        SELECT record_offset, record, sum(length(record)) OVER (ORDER BY record_offset) - length(record) AS before
        FROM (
          SELECT record_offset, record FROM fluvio.quarantine_record
          WHERE quarantine_id = $1::int8 AND record_offset >= $2::int8
          ORDER BY record_offset LIMIT ${partRecords}
        ) AS next
      ) AS part
      WHERE before < ${partBytes}
      ORDER BY record_offset`,
      [String(id), String(from)]
    )
    .pipe(SqlFailure.typed)
  return rows.map(({ place, record }) => FluvioRecord.of(Offset.make(Number(place)), record))
})

export const keysOf = ({ keys }: Held): HeldKeys => {
  const all = new HeldKeys(Infinity)
  for (const key of keys) all.add(HeldKeys.parse(key))
  return all
}

/** Which of `others`, in their order, touch a row of the first or of one that does: what waits for it. */
export const followersOf = (first: Held, others: ReadonlyArray<Held>): ReadonlyArray<Held> => {
  const touched = keysOf(first)
  const behind = others.slice(others.findIndex(({ id }) => id === first.id) + 1)
  return behind.filter((other) => {
    const keys = keysOf(other)
    if (!keys.meets(touched)) return false
    touched.addAll(keys)
    return true
  })
}

/** Which of those before it, in their order, it waits for itself. */
export const leadersOf = (held: Held, others: ReadonlyArray<Held>): ReadonlyArray<Held> => {
  const keys = keysOf(held)
  const before = others.slice(
    0,
    others.findIndex(({ id }) => id === held.id)
  )
  return before.filter((other) => keysOf(other).meets(keys))
}

/** Those with these ids, or all, of what is held; in order. */
export const choose = Effect.fnUntraced(function* (
  held: ReadonlyArray<Held>,
  { all, ids }: { readonly all: boolean; readonly ids: ReadonlyArray<number> }
) {
  const missing = ids.filter((id) => !held.some((one) => one.id === id))
  if (missing.length > 0) {
    const { partition, topic } = yield* ConnectorConfig
    return yield* new NotHeld({
      message: `not held in the quarantine of ${topic}-${partition}: ${missing.join(", ")}`
    })
  }
  return all ? held : held.filter(({ id }) => ids.includes(id))
})

const resolvedMeanwhile = ({ id }: Held) => new NotHeld({ message: `transaction ${id} was resolved meanwhile` })

/** Fails when it is not held any more. */
export const checkHeld = Effect.fnUntraced(function* (held: Held) {
  const sql = yield* SqlClient.SqlClient
  const still = yield* SqlFailure.typed(
    sql`SELECT FROM fluvio.quarantine WHERE id = ${String(held.id)}::int8 AND status = 'held'`
  )
  if (still.length === 0) return yield* resolvedMeanwhile(held)
})

/** Marks it, and writes down who did so: `by`, or whoever the session is of. It fails when it is not held any more. */
export const resolve = Effect.fnUntraced(function* (
  held: Held,
  status: "replayed" | "discarded",
  reason: string | undefined,
  by?: string
) {
  const sql = yield* SqlClient.SqlClient
  const { class: kind, commitLsn, firstOffset, id, lastOffset } = held
  const marked = yield* sql`
    UPDATE fluvio.quarantine
    SET status = ${status}, resolved_at = clock_timestamp(), resolved_by = ${by ?? sql.literal(Action.asker)},
      resolved_reason = ${reason ?? null}
    WHERE id = ${String(id)}::int8 AND status = 'held'
    RETURNING id
  `
  if (marked.length === 0) return yield* resolvedMeanwhile(held)
  const detail = { id, firstOffset, lastOffset, commitLsn, class: kind }
  yield* Action.record({ action: `quarantine ${status === "replayed" ? "replay" : "discard"}`, detail, reason, by })
}, SqlFailure.typed)
