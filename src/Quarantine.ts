/**
 * Transactions that are set aside whole, in the target, in the same transaction as the position that moves past them.
 *
 * The order of each key is kept: a later transaction that touches a key of one that is held follows it there. What an
 * operator has replayed or discarded (`fluvio.quarantine.status`) holds nothing back any more after the next start.
 */
import { Effect, Schema, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { ConnectorConfig } from "./ConnectorConfig.ts"
import { FluvioConsumer, type FluvioError, Offset } from "./stream/FluvioConsumer.ts"
import { identityOf } from "./plan/Fold.ts"
import { formatLsn } from "./stream/OffsetStore.ts"
import type { Relation } from "./stream/Relation.ts"
import * as Mapping from "./target/Mapping.ts"
import * as SqlFailure from "./target/SqlFailure.ts"
import type { Change, End } from "./stream/Change.ts"
import type { Tuple } from "./stream/Tuple.ts"
import { isRetryable } from "./stream/Outcome.ts"

/** Why a transaction is set aside: the class that `on-error.*` names, or that it follows one with the same key. */
export type Reason = "data" | "constraint" | "schema" | "decode" | "follows"

/** A transaction to set aside. */
export interface Held {
  readonly first: Offset
  readonly end: End
  readonly xid: number | undefined
  /** What could be read of it. */
  readonly changes: ReadonlyArray<Change>
  readonly reason: Reason
  readonly sqlState: string | undefined
  /** The message of the error: names and offsets, never a value. */
  readonly message: string
}

/** The largest transaction that is set aside: its records become one row. */
const mostBytes = 256 * 1024 * 1024

/** So many transactions in a row were set aside that the fault is hardly theirs. */
export class QuarantineLimit extends Schema.TaggedError<QuarantineLimit>()("QuarantineLimit", {
  offset: Offset,
  limit: Schema.Natural,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "resolve what is held in fluvio.quarantine, or raise `quarantine-limit`; then start again"
  override get message() {
    return `${this.limit} transactions in a row were set aside, and the one that ends at offset ${this.offset} fails too: ${this.reason}`
  }
}

/** A transaction is too large to be set aside. */
export class QuarantineTooLarge extends Schema.TaggedError<QuarantineTooLarge>()("QuarantineTooLarge", {
  offset: Offset,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "resolve the cause in the target; then start again"
  override get message() {
    return `the transaction that begins at offset ${this.offset} has more than ${mostBytes / 1024 / 1024} MiB and cannot be set aside: ${this.reason}`
  }
}

const nameOf = (relation: Relation): string => `${relation.namespace}.${relation.name}`

/** A whole table, or one row of it by its key: what later changes are compared with. */
const keyText = (relation: Relation, tuple: Tuple | null): string => {
  const isKeyed = relation.replicaIdentity === "Default" || relation.replicaIdentity === "Index"
  const cells = tuple?.cells.filter((_, index) => relation.columns[index].isKey) ?? []
  const isKnown = isKeyed && cells.length > 0 && cells.every((cell) => cell !== null && cell !== undefined)
  return JSON.stringify(isKnown ? [nameOf(relation), ...cells] : [nameOf(relation)])
}

/** Of tables that are left out, nothing is held and nothing follows. */
const keysOf = (change: Change, mapping: Mapping.Mapping): ReadonlyArray<string> => {
  if (change.type === "insert" || change.type === "update" || change.type === "delete") {
    if (mapping.table(change.relation) === undefined) return []
  }
  const isApplied = (relation: Relation) => mapping.table(relation) !== undefined
  switch (change.type) {
    case "insert":
      return [keyText(change.relation, change.tuple)]
    case "update":
      return [keyText(change.relation, identityOf(change)), keyText(change.relation, change.newTuple)]
    case "delete":
      return [keyText(change.relation, identityOf(change))]
    case "truncate":
      return change.relations.filter(isApplied).map((relation) => keyText(relation, null))
    case "relation":
      // A table may have been held under the name that it had before.
      return [change.relation, change.previous ?? []]
        .flat()
        .filter(isApplied)
        .map((relation) => keyText(relation, null))
    case "type":
      return []
  }
}

const relationsOf = (change: Change): ReadonlyArray<Relation> =>
  change.type === "type" ? [] : change.type === "truncate" ? change.relations : [change.relation]

const arrayText = (values: Iterable<string>): string =>
  `{${Array.from(values, (value) => `"${value.replace(/["\\]/g, "\\$&")}"`).join(",")}}`

const hex = (bytes: Uint8Array): string =>
  `\\x${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`

export interface Quarantine {
  /** The transaction touches what one that is held has touched. */
  readonly follows: (changes: ReadonlyArray<Change>) => boolean
  /** Stores the transaction with its records, read from the topic again; in the ambient transaction. */
  readonly hold: (
    held: Held
  ) => Effect.Effect<void, SqlFailure.SqlFailure | FluvioError | QuarantineTooLarge, SqlClient.SqlClient>
  /** Called when the transaction that {@link Quarantine.hold} was part of is committed. */
  readonly held: (held: Held) => void
}

/** Learns what is held already. */
export const make = Effect.fn("Quarantine.make")(function* () {
  const consumer = yield* FluvioConsumer
  const { partition, topic } = consumer
  const mapping = Mapping.make((yield* ConnectorConfig).tables)
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ readonly key: string }>`
    SELECT DISTINCT jsonb_array_elements_text(keys) AS key FROM fluvio.quarantine
    WHERE topic = ${topic} AND partition = ${partition} AND status = 'held'
  `.pipe(SqlFailure.typed)

  const keys = new Set<string>()
  /** Tables of which some key is held, so that a whole-table change knows to follow. */
  const tables = new Set<string>()
  const remember = (key: string): void => {
    keys.add(key)
    tables.add(JSON.stringify([JSON.parse(key)[0]]))
  }
  rows.forEach(({ key }) => remember(key))

  const isHeld = (key: string): boolean => {
    if (keys.has(key)) return true
    const table = JSON.stringify([JSON.parse(key)[0]])
    return keys.has(table) || (key === table && tables.has(table))
  }

  const read = Effect.fnUntraced(function* ({ end, first, message }: Held) {
    const values: Array<string> = []
    let bytes = 0
    yield* consumer.records(first).pipe(
      Stream.takeUntil((records) => records[records.length - 1].offset >= end.record.offset),
      Stream.runForEach((records) => {
        for (const { offset, value } of records) {
          if (offset > end.record.offset) break
          bytes += value.length
          values.push(hex(value))
        }
        return bytes > mostBytes ? Effect.fail(new QuarantineTooLarge({ offset: first, reason: message })) : Effect.void
      })
    )
    return values
  })

  const quarantine: Quarantine = {
    follows: (changes) => keys.size > 0 && changes.some((change) => keysOf(change, mapping).some(isHeld)),
    hold: Effect.fnUntraced(function* (held) {
      const records = yield* read(held)
      const { commitLsn, commitTime, record } = held.end
      const values = [
        topic,
        String(partition),
        String(held.first),
        String(record.offset),
        commitLsn === undefined ? null : formatLsn(commitLsn),
        commitTime === undefined ? null : String(commitTime),
        held.xid === undefined ? null : String(held.xid),
        held.reason,
        held.sqlState ?? null,
        held.message,
        arrayText(new Set(held.changes.flatMap(relationsOf).map(nameOf))),
        JSON.stringify([...new Set(held.changes.flatMap((change) => keysOf(change, mapping)))]),
        arrayText(records)
      ]
      yield* sql
        .unsafe(
          `INSERT INTO fluvio.quarantine (topic, partition, first_offset, last_offset, commit_lsn, commit_time, xid,
            class, sql_state, reason, tables, keys, records)
          VALUES (${values.map((_, n) => `$${n + 1}`).join(", ")})`,
          values
        )
        .pipe(SqlFailure.typed)
    }),
    held: ({ changes }) => changes.forEach((change) => keysOf(change, mapping).forEach(remember))
  }
  return quarantine
})
