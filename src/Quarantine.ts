/**
 * Transactions that are set aside whole, in the target, in the same transaction as the position that moves past them.
 *
 * The order of each key is kept: a later transaction that touches a key of one that is held follows it there. What an
 * operator has replayed or discarded (`fluvio.quarantine.status`) holds nothing back any more from then on.
 *
 * Why that is safe while an operator resolves what is held ({@link resolving}): whatever is resolved shows only once that
 * is committed, so a transaction is either held behind what is still held, or applied behind what was replayed. In between,
 * it could still be held behind what is resolved at that moment, where nobody would look for it. So each holding of a
 * follower takes the lock of the quarantine, then looks again, and keeps the lock up to its COMMIT; and whoever resolves
 * takes it alone, up to its COMMIT. What is held after that is all that waits.
 */
import { Effect, Schema, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { ConnectorConfig } from "./ConnectorConfig.ts"
import { HeldKeys, keysOf, nameOf, relationsOf } from "./HeldKeys.ts"
import { namedIn, shapesOf } from "./HeldShapes.ts"
import type { Change, End } from "./stream/Change.ts"
import { FluvioConsumer, type FluvioError, type FluvioRecord, Offset } from "./stream/FluvioConsumer.ts"
import { type Described, formatLsn, type Skip } from "./stream/OffsetStore.ts"
import { isRetryable } from "./stream/Outcome.ts"
import * as Mapping from "./target/Mapping.ts"
import * as SqlFailure from "./target/SqlFailure.ts"

/**
 * Why a transaction is set aside: the class that `on-error.*` names, that it follows one with the same key, or that an
 * operator has asked to pass over it.
 */
export type Reason = "data" | "constraint" | "schema" | "decode" | "follows" | "skipped"

/** A transaction to set aside. */
export interface Held {
  readonly first: Offset
  readonly end: End
  /** The history of the source that it belongs to. */
  readonly epoch: number
  readonly xid: number | undefined
  /** What could be read of it. */
  readonly changes: ReadonlyArray<Change>
  readonly reason: Reason
  readonly sqlState: string | undefined
  /** The message of the error: names and offsets, never a value. */
  readonly message: string
  /** What it would have changed of the target's schema: statements, or what else brings the target there. */
  readonly schemaChanges: ReadonlyArray<string>
}

/** So many transactions in a row were set aside that the fault is hardly theirs. */
export class QuarantineLimit extends Schema.TaggedError<QuarantineLimit>()("QuarantineLimit", {
  offset: Offset,
  limit: Schema.Natural,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy =
    "`fluvio-postgres-sink quarantine list` shows what is held: resolve it with `quarantine replay` or `quarantine discard`, or raise `quarantine-limit`; then start again"
  override get message() {
    return `${this.limit} transactions in a row were set aside and are held, and the one that ends at offset ${this.offset} would be set aside too: ${this.reason}`
  }
}

/** A transaction was about to be passed over, and the operator has taken that back. */
export class SkipCancelled extends Schema.TaggedError<SkipCancelled>()("SkipCancelled", {
  offset: Offset,
  commitLsn: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "nothing is to be done: it is read again, and applied"
  override get message() {
    return `transaction ${this.commitLsn}, which ends at offset ${this.offset}, is not to be passed over any more`
  }
}

/** What a transaction follows was resolved while it was about to be set aside too: now it can be applied. */
export class QuarantineResolved extends Schema.TaggedError<QuarantineResolved>()("QuarantineResolved", {
  offset: Offset
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "nothing is to be done: it is read again, and applied"
  override get message() {
    return `what the transaction that ends at offset ${this.offset} was about to follow was resolved at this moment`
  }
}

const lockOf = ({ partition, topic }: { readonly topic: string; readonly partition: number }): string =>
  `fluvio-postgres-sink/${topic}/${partition}/quarantine`

/** Taken by whoever resolves what is held, last before COMMIT, because the connector cannot set anything aside meanwhile. */
export const resolving = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const lock = lockOf(yield* ConnectorConfig)
  yield* SqlFailure.typed(sql`SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(${lock}, 0))`)
})

/** Of a transaction that touches more rows of a table, the whole table is held. */
const mostKeysOfOne = 1000
/** And of all that are held together. */
const mostKeys = 100_000

/** Records travel to the target in parts of about this size. */
const partBytes = 1024 * 1024
const partRecords = 10_000

const arrayText = (values: Iterable<string>): string =>
  `{${Array.from(values, (value) => `"${value.replace(/["\\]/g, "\\$&")}"`).join(",")}}`

/** What the table says of the transactions that are held. */
interface Summary {
  readonly count: number
  /** Changes with every row that comes or goes. */
  readonly ids: bigint
  /** Set aside since the last transaction that was applied. */
  readonly inARow: number
}

export interface Quarantine {
  /** The transaction touches what one that is held has touched. */
  readonly follows: (changes: ReadonlyArray<Change>) => boolean
  /** Looks whether the operator has resolved any; gives how many are held in a row. */
  readonly refresh: Effect.Effect<number, SqlFailure.SqlFailure, SqlClient.SqlClient>
  /**
   * Stores the transaction with its records, read from the topic again; in the ambient transaction, before the position.
   * `unsaved` was described before it and is not stored yet.
   */
  readonly hold: (
    held: Held,
    unsaved: Described
  ) => Effect.Effect<void, SqlFailure.SqlFailure | FluvioError | QuarantineResolved, SqlClient.SqlClient>
  /** Stores it as {@link Quarantine.hold} does, but discarded: it holds nothing back. In the ambient transaction. */
  readonly discard: (
    held: Held,
    unsaved: Described,
    skip: Skip
  ) => Effect.Effect<
    void,
    SqlFailure.SqlFailure | FluvioError | QuarantineResolved | SkipCancelled,
    SqlClient.SqlClient
  >
  /** Called when the transaction that {@link Quarantine.hold} was part of is committed. */
  readonly held: (held: Held) => void
  /** A transaction was applied: counting in a row begins anew. */
  readonly applied: Effect.Effect<void, SqlFailure.SqlFailure, SqlClient.SqlClient>
}

/** Learns what is held already. */
export const make = Effect.fn("Quarantine.make")(function* () {
  const consumer = yield* FluvioConsumer
  const { partition, topic } = consumer
  const mapping = Mapping.make((yield* ConnectorConfig).tables)
  const keys = new HeldKeys(mostKeys)
  let known: Summary = { count: 0, ids: 0n, inARow: 0 }
  /** What {@link Quarantine.hold} wrote last: a row of its own, or none. */
  let written: bigint | undefined

  /**
   * Without a transaction, under whatever search_path the role has: types and operators are named in full, and `format`
   * prints by the type's output function, whatever casts to text somebody has created.
   */
  const summarize = Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const [row] = yield* sql<{ readonly count: string; readonly ids: string; readonly in_a_row: string }>`
      SELECT pg_catalog.format('%s', count(*)) AS count, pg_catalog.format('%s', coalesce(sum(id), 0)) AS ids,
        pg_catalog.format('%s', count(*) FILTER (WHERE in_a_row)) AS in_a_row
      FROM fluvio.quarantine
      WHERE topic OPERATOR(pg_catalog.=) ${topic} AND partition OPERATOR(pg_catalog.=) ${partition}
        AND status OPERATOR(pg_catalog.=) 'held'
    `.pipe(SqlFailure.typed)
    if (row === undefined) return known
    return { count: Number(row.count), ids: BigInt(row.ids), inARow: Number(row.in_a_row) }
  })

  const refresh = Effect.gen(function* () {
    const summary = yield* summarize
    if (summary.count !== known.count || summary.ids !== known.ids) {
      const sql = yield* SqlClient.SqlClient
      const rows = yield* sql<{ readonly key: string }>`
        SELECT DISTINCT jsonb_array_elements_text(keys) AS key FROM fluvio.quarantine
        WHERE topic OPERATOR(pg_catalog.=) ${topic} AND partition OPERATOR(pg_catalog.=) ${partition}
          AND status OPERATOR(pg_catalog.=) 'held'
      `.pipe(SqlFailure.typed)
      keys.clear()
      rows.forEach(({ key }) => keys.add(HeldKeys.parse(key)))
    }
    known = summary
    return known.inARow
  })
  yield* refresh

  const keysOfAll = ({ changes }: Held): HeldKeys => {
    const all = new HeldKeys(mostKeysOfOne)
    for (const change of changes) for (const key of keysOf(change, mapping)) all.add(key)
    return all
  }

  /** The very transaction may be held already, when the position was set back since. */
  const isHeldAlready = Effect.fnUntraced(function* ({ end, first }: Held) {
    const sql = yield* SqlClient.SqlClient
    const rows = yield* sql
      .unsafe(
        `SELECT FROM fluvio.quarantine AS held
          JOIN fluvio.quarantine_record AS last ON last.quarantine_id = held.id AND last.record_offset = held.last_offset
        WHERE topic = $1 AND partition = $2::int4 AND first_offset = $3::int8 AND last_offset = $4::int8
          AND status = 'held' AND last.record = $5::bytea`,
        [topic, String(partition), String(first), String(end.record.offset), end.record.value]
      )
      .pipe(SqlFailure.typed)
    return rows.length > 0
  })

  /** What is known, before the position is saved, of the relations and types that it refers to. */
  const describedBefore = Effect.fnUntraced(function* ({ changes, epoch }: Held, unsaved: Described) {
    const named = namedIn(changes)
    if (named.relations.length === 0) return { relations: [], types: [] } satisfies Described
    const sql = yield* SqlClient.SqlClient
    const of = [topic, String(partition), String(epoch)]
    const relations = yield* sql
      .unsafe<{ readonly found: Described["relations"][number] }>(
        `SELECT pg_catalog.jsonb_build_object('relation', relation, 'offset', record_offset) AS found FROM fluvio.relation
        WHERE topic = $1 AND partition = $2::int4 AND epoch = $3::int4 AND rel_id = ANY ($4::int8[])`,
        [...of, `{${named.relations.join()}}`]
      )
      .pipe(SqlFailure.typed)
    const types = yield* sql
      .unsafe<{ readonly found: Described["types"][number] }>(
        `SELECT pg_catalog.jsonb_build_object('id', type_id, 'namespace', namespace, 'name', name, 'offset', record_offset) AS found
        FROM fluvio.type
        WHERE topic = $1 AND partition = $2::int4 AND epoch = $3::int4 AND type_id = ANY ($4::int8[])`,
        [...of, `{${named.types.join()}}`]
      )
      .pipe(SqlFailure.typed)
    const isNamed = new Set(named.types)
    return {
      relations: [...relations.map(({ found }) => found), ...unsaved.relations],
      types: [...types.map(({ found }) => found), ...unsaved.types.filter(({ id }) => isNamed.has(id))]
    } satisfies Described
  })

  const insert = Effect.fnUntraced(function* (held: Held, unsaved: Described) {
    const sql = yield* SqlClient.SqlClient
    const { commitLsn, commitTime, record } = held.end
    const values = [
      held.reason,
      held.sqlState ?? null,
      held.message,
      arrayText(new Set(held.changes.flatMap(relationsOf).map(nameOf))),
      JSON.stringify(keysOfAll(held).texts),
      arrayText(held.schemaChanges),
      topic,
      String(partition),
      String(held.first),
      String(record.offset),
      commitLsn === undefined ? null : formatLsn(commitLsn),
      commitTime === undefined ? null : String(commitTime),
      held.xid === undefined ? null : String(held.xid),
      String(held.epoch),
      JSON.stringify(shapesOf(held.changes, yield* describedBefore(held, unsaved)))
    ]
    const [{ id }] = yield* sql
      .unsafe<{ readonly id: string }>(
        `INSERT INTO fluvio.quarantine (class, sql_state, reason, tables, keys, schema_changes,
          topic, partition, first_offset, last_offset, commit_lsn, commit_time, xid, epoch, shapes)
        VALUES (${values.map((_, n) => `$${n + 1}`).join(", ")}) RETURNING id::text AS id`,
        values
      )
      .pipe(SqlFailure.typed)
    return id
  })

  /** The records of a part as one value, cut up by PostgreSQL: a value each would cost a statement or an encoding each. */
  const insertRecords = Effect.fnUntraced(function* (id: string, part: ReadonlyArray<FluvioRecord>) {
    const sql = yield* SqlClient.SqlClient
    const bytes = new Uint8Array(part.reduce((sum, { size }) => sum + size, 0))
    const places: Array<number> = []
    let at = 0
    for (const { size, value } of part) {
      bytes.set(value, at)
      places.push(at + 1)
      at += size
    }
    yield* sql
      .unsafe(
        `INSERT INTO fluvio.quarantine_record (quarantine_id, record_offset, record)
        SELECT $1::int8, record_offset, pg_catalog.substring($2::bytea, place, size)
        FROM unnest($3::int8[], $4::int4[], $5::int4[]) AS part (record_offset, place, size)`,
        [
          id,
          bytes,
          `{${part.map(({ offset }) => offset).join()}}`,
          `{${places.join()}}`,
          `{${part.map(({ size }) => size).join()}}`
        ]
      )
      .pipe(SqlFailure.typed)
  })

  const copyRecords = Effect.fnUntraced(function* (id: string, first: Offset, last: Offset) {
    let part: Array<FluvioRecord> = []
    let bytes = 0
    const flush = Effect.suspend(() => {
      const full = part
      part = []
      bytes = 0
      return full.length === 0 ? Effect.void : insertRecords(id, full)
    })
    yield* consumer.records(first).pipe(
      Stream.takeUntil((records) => records[records.length - 1].offset >= last),
      Stream.runForEach(
        Effect.fnUntraced(function* (records) {
          for (const record of records) {
            if (record.offset > last) break
            if (bytes + record.size > partBytes || part.length === partRecords) yield* flush
            part.push(record)
            bytes += record.size
          }
        })
      )
    )
    yield* flush
  })

  const follows: Quarantine["follows"] = (changes) =>
    !keys.isEmpty && changes.some((change) => keysOf(change, mapping).some((key) => keys.has(key)))

  /** What it follows stays held until it is held itself, or it does not follow any more. */
  const checkFollows = Effect.fnUntraced(function* ({ changes, end }: Held) {
    const sql = yield* SqlClient.SqlClient
    const lock = lockOf(consumer)
    yield* SqlFailure.typed(
      sql`SELECT pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended(${lock}, 0))`
    )
    yield* refresh
    if (!follows(changes)) return yield* new QuarantineResolved({ offset: end.record.offset })
  })

  const hold = Effect.fnUntraced(function* (held: Held, unsaved: Described) {
    written = undefined
    if (held.reason === "follows") yield* checkFollows(held)
    if (yield* isHeldAlready(held)) return
    const id = yield* insert(held, unsaved)
    yield* copyRecords(id, held.first, held.end.record.offset)
    written = BigInt(id)
  })

  const discard = Effect.fnUntraced(function* (held: Held, unsaved: Described, { commitLsn, epoch, reason }: Skip) {
    const sql = yield* SqlClient.SqlClient
    const { offset } = held.end.record
    const lsn = formatLsn(commitLsn)
    const [asked] = yield* sql<{ readonly asked_by: string }>`
      UPDATE fluvio.skip SET skipped_at = clock_timestamp()
      WHERE topic = ${topic} AND partition = ${partition}::int4 AND epoch = ${epoch}::int4
        AND commit_lsn = ${lsn}::pg_lsn AND skipped_at IS NULL
      RETURNING asked_by
    `.pipe(SqlFailure.typed)
    if (asked === undefined) return yield* new SkipCancelled({ offset, commitLsn: lsn })
    yield* hold(held, unsaved)
    yield* sql`
      UPDATE fluvio.quarantine SET status = 'discarded', resolved_at = clock_timestamp(), resolved_by = ${asked.asked_by},
        resolved_reason = ${reason}
      WHERE topic = ${topic} AND partition = ${partition}::int4 AND first_offset = ${String(held.first)}::int8
        AND last_offset = ${String(offset)}::int8 AND status = 'held'
    `.pipe(SqlFailure.typed)
  })

  const applied = Effect.gen(function* () {
    if (known.inARow === 0) return
    const sql = yield* SqlClient.SqlClient
    yield* sql`
      UPDATE fluvio.quarantine SET in_a_row = false
      WHERE topic OPERATOR(pg_catalog.=) ${topic} AND partition OPERATOR(pg_catalog.=) ${partition} AND in_a_row
    `.pipe(SqlFailure.typed)
    known = { ...known, inARow: 0 }
  })

  const quarantine: Quarantine = {
    follows,
    refresh,
    hold,
    discard,
    held: (held) => {
      keysOfAll(held).texts.forEach((text) => keys.add(HeldKeys.parse(text)))
      if (written !== undefined) {
        known = { count: known.count + 1, ids: known.ids + written, inARow: known.inARow + 1 }
      }
    },
    applied
  }
  return quarantine
})
