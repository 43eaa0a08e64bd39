/** A source table's shape as the stream describes it. */
import { Schema } from "effect"

/** How the source identifies the rows of a relation (PostgreSQL's REPLICA IDENTITY). */
export const ReplicaIdentity = Schema.Literals(["Default", "Nothing", "Full", "Index"])
export type ReplicaIdentity = typeof ReplicaIdentity.Type

export const RelationColumn = Schema.Struct({
  name: Schema.String,
  /** Part of the replica identity. Under FULL every column is; it is never a statement about a primary key. */
  isKey: Schema.Boolean,
  /** The type's OID *in the source*: from 16384 on it means nothing in the target. */
  typeId: Schema.Number,
  /** PostgreSQL's `atttypmod`; -1 is none. */
  typeModifier: Schema.Number
})
export type RelationColumn = typeof RelationColumn.Type

/**
 * A relation as the stream last described it. Compared by content, never by identity of the object: a source
 * repeats relations after each restart.
 */
export const Relation = Schema.Struct({
  id: Schema.Number,
  namespace: Schema.String,
  name: Schema.String,
  replicaIdentity: ReplicaIdentity,
  columns: Schema.Array(RelationColumn)
})
export type Relation = typeof Relation.Type
