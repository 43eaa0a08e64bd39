/** Where a relation's rows go: its target table, which cells are written, and how a row is found there. */
import type { Relation } from "../stream/Relation.ts"
import type { TargetColumn, TargetTable } from "./TargetTable.ts"

/** A cell of the tuple and the target column it is written to. */
export interface RoutedColumn {
  /** The cell's place in the relation's tuple. */
  readonly index: number
  readonly column: TargetColumn
}

/** How a row is found: by key columns, by its whole old image (exactly one of identical rows), or not at all. */
export type Lookup = "key" | "image" | "none"

export interface Route {
  readonly relation: Relation
  readonly table: TargetTable
  /** Every cell that has a target column, generated columns left out. */
  readonly columns: ReadonlyArray<RoutedColumn>
  /** Every cell has a column: a tuple is a row of `columns` as it is. */
  readonly lookup: Lookup
  /** Places in `columns` of the key, when `lookup` is `key`. */
  readonly key: ReadonlyArray<number>
  /** At most one row of the target has a given key: a unique index, checked at once, lies within it. */
  readonly isKeyUnique: boolean
  /** Such an index covers exactly the key, and `ON CONFLICT` can name it: no deferrable one does as well. */
  readonly isKeyArbiter: boolean
}

/**
 * Routes a relation to its target table. `columnName` maps a source column to its target column, or to `undefined`
 * when it is filtered out.
 *
 * The key is the replica identity. Under FULL it is the target's own primary key, if the relation has its columns,
 * because a lookup by the whole row would read the table; but not one that is checked late, because rows that exchange
 * their keys share one for a while. Otherwise FULL means the whole image.
 */
export const route = (
  relation: Relation,
  table: TargetTable,
  columnName: (name: string) => string | undefined = (name) => name
): Route => {
  const byName = new Map(table.columns.map((column) => [column.name, column]))
  const columns: Array<RoutedColumn> = []
  const flagged: Array<number> = []
  let isIdentityRouted = true
  relation.columns.forEach((source, index) => {
    const name = columnName(source.name)
    const column = name === undefined ? undefined : byName.get(name)
    if (column === undefined || column.isGenerated) {
      isIdentityRouted = isIdentityRouted && !source.isKey
      return
    }
    if (source.isKey) flagged.push(columns.length)
    columns.push({ index, column })
  })
  const placesOf = (names: ReadonlyArray<string>) =>
    names.map((name) => columns.findIndex((c) => c.column.name === name))
  const isFull = relation.replicaIdentity === "Full"
  const primary = table.isPrimaryKeyDeferrable ? [] : (table.primaryKey ?? [])
  const own = isFull ? placesOf(primary) : []
  const key = isFull ? (own.includes(-1) ? [] : own) : isIdentityRouted ? flagged : []
  const names = new Set(key.map((place) => columns[place].column.name))
  const isWithin = (unique: ReadonlyArray<string>) => unique.length > 0 && unique.every((name) => names.has(name))
  const isExactly = (unique: ReadonlyArray<string>) => isWithin(unique) && unique.length === names.size
  const arbiters = table.isPrimaryKeyTemporal ? table.uniqueKeys : [primary, ...table.uniqueKeys]
  return {
    relation,
    table,
    columns,
    key,
    isKeyUnique: [primary, ...table.uniqueKeys].some(isWithin),
    isKeyArbiter: arbiters.some(isExactly) && !table.deferrableKeys.some(({ columns }) => isExactly(columns)),
    lookup: key.length > 0 ? "key" : isFull ? "image" : "none"
  }
}
