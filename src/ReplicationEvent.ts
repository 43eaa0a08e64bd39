/** What a record means: the JSON of the inbound connector as a typed event. */
import type { Lsn } from "./OffsetStore.ts"
import type { Relation } from "./Relation.ts"

/**
 * One column's value in PostgreSQL's text format, exactly as the source printed it: `null` is SQL NULL, `undefined`
 * is an unchanged TOASTed value that the source did not send. Numbers stay text: nothing is rounded.
 */
export type Cell = string | null | undefined

/** A row: one cell per column of the relation, in its order. */
export type Tuple = ReadonlyArray<Cell>

export interface Begin {
  readonly type: "begin"
  /** LSN of the commit record: the identity of the transaction on its timeline. */
  readonly finalLsn: Lsn
  /** Commit time in microseconds since 2000-01-01 UTC. */
  readonly timestamp: bigint
  readonly xid: number
}

export interface Commit {
  readonly type: "commit"
  /** Equals the Begin's `finalLsn`. */
  readonly commitLsn: Lsn
  readonly endLsn: Lsn
  readonly timestamp: bigint
}

export interface Origin {
  readonly type: "origin"
  readonly commitLsn: Lsn
  readonly name: string
}

export interface RelationEvent {
  readonly type: "relation"
  readonly relation: Relation
}

/** A user-defined type. Its namespace is unreliable: the original inbound connector writes the name there. */
export interface TypeEvent {
  readonly type: "type"
  readonly id: number
  readonly namespace: string
  readonly name: string
}

export interface Insert {
  readonly type: "insert"
  readonly relId: number
  readonly tuple: Tuple
}

export interface Update {
  readonly type: "update"
  readonly relId: number
  /** The whole old row; only under REPLICA IDENTITY FULL. */
  readonly oldTuple: Tuple | null
  /** The old key, other cells `null`; only when the key changed (or was itself TOASTed). */
  readonly keyTuple: Tuple | null
  readonly newTuple: Tuple
}

export interface Delete {
  readonly type: "delete"
  readonly relId: number
  readonly oldTuple: Tuple | null
  readonly keyTuple: Tuple | null
}

export interface Truncate {
  readonly type: "truncate"
  readonly relIds: ReadonlyArray<number>
  readonly cascade: boolean
  readonly restartIdentity: boolean
}

export type ReplicationEvent = Begin | Commit | Origin | RelationEvent | TypeEvent | Insert | Update | Delete | Truncate
