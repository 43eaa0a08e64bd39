/** What the target's catalog says of a table: everything that decides how a row can be written there. */

export interface TargetColumn {
  readonly name: string
  /** The type as SQL text, qualified where needed and *without* modifier: a cast to `varchar(3)` would truncate. */
  readonly type: string
  /** The type with its modifier, for comparison and for messages. */
  readonly fullType: string
  /** The type is an array (or a domain over one): `unnest` would flatten it, so its cells travel as text. */
  readonly isArray: boolean
  /** `=` exists for the type; where it does not (json, xml, point, …), values are compared as text. */
  readonly hasEquality: boolean
  /** STORED or VIRTUAL generated: never written. */
  readonly isGenerated: boolean
  readonly identity: "always" | "default" | undefined
  readonly isNullable: boolean
  readonly hasDefault: boolean
}

export interface TargetTable {
  readonly schema: string
  readonly name: string
  readonly isPartitioned: boolean
  readonly columns: ReadonlyArray<TargetColumn>
  /** Column names of the primary key, in its order. */
  readonly primaryKey: ReadonlyArray<string> | undefined
  /** Column names of each other valid unique index without expressions or predicate. */
  readonly uniqueKeys: ReadonlyArray<ReadonlyArray<string>>
  /** A trigger (foreign keys included) fires in the applying session, so the order of statements can be observed. */
  readonly firesTriggers: boolean
  /** Row security would filter the applying role. */
  readonly hasRowSecurity: boolean
}
