/** What a source transaction is made of: changes, and the pieces in which they are handed on. */
import type { FluvioRecord, Offset } from "./FluvioConsumer.ts"
import type { Lsn, Skip } from "./OffsetStore.ts"
import type { Relation } from "./Relation.ts"
import type { Unreadable } from "./TransactionError.ts"
import type { Tuple } from "./Tuple.ts"

export interface InsertChange {
  readonly type: "insert"
  readonly offset: Offset
  readonly relation: Relation
  readonly tuple: Tuple
}

export interface UpdateChange {
  readonly type: "update"
  readonly offset: Offset
  readonly relation: Relation
  readonly oldTuple: Tuple | null
  readonly keyTuple: Tuple | null
  readonly newTuple: Tuple
}

export interface DeleteChange {
  readonly type: "delete"
  readonly offset: Offset
  readonly relation: Relation
  readonly oldTuple: Tuple | null
  readonly keyTuple: Tuple | null
}

export interface TruncateChange {
  readonly type: "truncate"
  readonly offset: Offset
  readonly relations: ReadonlyArray<Relation>
  readonly cascade: boolean
  readonly restartIdentity: boolean
}

/** A relation that is new, or differs from the one that was last applied. */
export interface RelationChange {
  readonly type: "relation"
  readonly offset: Offset
  readonly relation: Relation
  /** The relation of the same id that was applied before. */
  readonly previous: Relation | undefined
}

/** A user-defined type became known, or changed its name or schema. */
export interface TypeChange {
  readonly type: "type"
  readonly offset: Offset
  readonly id: number
  /** As the event has it: PostgreSQL writes nothing for `pg_catalog`, the original inbound connector the type's name. */
  readonly namespace: string
  readonly name: string
}

export type RowChange = InsertChange | UpdateChange | DeleteChange
export type Change = RowChange | TruncateChange | RelationChange | TypeChange

/** Where a transaction ends. */
export interface End {
  /** The Commit record (or the lone change, outside Begin and Commit). */
  readonly record: FluvioRecord
  /** Of the last transaction up to here; `undefined` where the log has no Begin and Commit. */
  readonly commitLsn: Lsn | undefined
  /** Its commit time, in microseconds since 2000-01-01 UTC. */
  readonly commitTime: bigint | undefined
  /** The latest commit time up to here: those of neighbours may be out of order. */
  readonly latestTime: bigint | undefined
}

/** Transactions that the source sent again, in a row. */
export interface Repeated {
  readonly transactions: number
  readonly lowest: Lsn
  readonly highest: Lsn
}

/**
 * A source transaction, or a part of one that is too large to hold.
 *
 * A transaction of at most the byte limit is one piece that `isFirst` and has an `end`. A larger one is several: the
 * first `isFirst`, only the last has an `end`. A piece that `isFirst` while the one before it had no `end` means that
 * the source broke off and started again: what was applied of the open transaction must be rolled back.
 */
export interface Piece {
  readonly isFirst: boolean
  /** Offset of the first record it was made of. */
  readonly first: Offset
  readonly xid: number | undefined
  /** Which history of the source it belongs to. */
  readonly epoch: number
  readonly changes: ReadonlyArray<Change>
  /** Bytes of the records it was made of: the measure of groups. */
  readonly bytes: number
  /** How many records it was made of. */
  readonly records: number
  readonly end: End | undefined
  /** Whole transactions that were applied before; the piece has no changes and only moves the position on. */
  readonly repeated: Repeated | undefined
  /** An operator has asked to pass over the transaction. */
  readonly skip: Skip | undefined
  /** A record of it cannot be read: it must not be applied. What could be read of it is in `changes`. */
  readonly refusal: Unreadable | undefined
}
