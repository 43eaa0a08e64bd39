/**
 * Which rows a change touches, and which of them are held: what keeps the order of each key when transactions are set
 * aside.
 */
import { identityOf } from "./plan/Fold.ts"
import type { Change } from "./stream/Change.ts"
import type { Relation } from "./stream/Relation.ts"
import type { Tuple } from "./stream/Tuple.ts"
import type { Mapping } from "./target/Mapping.ts"

/** A row of a table by its key, or the whole table. */
export interface Key {
  readonly table: string
  readonly row: string | undefined
}

export const nameOf = (relation: Relation): string => `${relation.namespace}.${relation.name}`

const wholeTable = (relation: Relation): Key => ({ table: nameOf(relation), row: undefined })

const rowOf = (relation: Relation, tuple: Tuple | null): Key => {
  const isKeyed = relation.replicaIdentity === "Default" || relation.replicaIdentity === "Index"
  const cells = tuple?.cells.filter((_, index) => relation.columns[index].isKey) ?? []
  const isKnown = isKeyed && cells.length > 0 && cells.every((cell) => cell !== null && cell !== undefined)
  return isKnown ? { table: nameOf(relation), row: JSON.stringify(cells) } : wholeTable(relation)
}

export const relationsOf = (change: Change): ReadonlyArray<Relation> =>
  change.type === "type" ? [] : change.type === "truncate" ? change.relations : [change.relation]

/** Of tables that are left out, nothing is held and nothing follows. */
export const keysOf = (change: Change, mapping: Mapping): ReadonlyArray<Key> => {
  const isApplied = (relation: Relation) => mapping.table(relation) !== undefined
  switch (change.type) {
    case "insert":
      return isApplied(change.relation) ? [rowOf(change.relation, change.tuple)] : []
    case "update":
      return isApplied(change.relation)
        ? [rowOf(change.relation, identityOf(change)), rowOf(change.relation, change.newTuple)]
        : []
    case "delete":
      return isApplied(change.relation) ? [rowOf(change.relation, identityOf(change))] : []
    case "truncate":
      return change.relations.filter(isApplied).map(wholeTable)
    case "relation":
      // A table may have been held under the name that it had before.
      return [change.relation, change.previous ?? []].flat().filter(isApplied).map(wholeTable)
    case "type":
      return []
  }
}

/** A set of keys. Of a table with more than `most` of them, all rows count as held. */
export class HeldKeys {
  readonly #most: number
  /** `undefined` for a whole table. */
  readonly #tables = new Map<string, Set<string> | undefined>()

  constructor(most: number) {
    this.#most = most
  }

  /** The keys as they are stored: `["public.pets","1"]`, or `["public.pets"]` for all of the table. */
  static parse(text: string): Key {
    const [table, ...cells] = JSON.parse(text) as [string, ...Array<string>]
    return { table, row: cells.length === 0 ? undefined : JSON.stringify(cells) }
  }

  get texts(): ReadonlyArray<string> {
    return [...this.#tables].flatMap(([table, rows]) =>
      rows === undefined
        ? JSON.stringify([table])
        : Array.from(rows, (row) => JSON.stringify([table, ...(JSON.parse(row) as ReadonlyArray<string>)]))
    )
  }

  /** How many rows of each table; `undefined` for the whole of it. */
  get counts(): ReadonlyArray<{ readonly table: string; readonly rows: number | undefined }> {
    return Array.from(this.#tables, ([table, rows]) => ({ table, rows: rows?.size }))
  }

  get isEmpty(): boolean {
    return this.#tables.size === 0
  }

  add({ row, table }: Key): void {
    if (!this.#tables.has(table)) this.#tables.set(table, new Set())
    const rows = this.#tables.get(table)
    if (rows === undefined) return
    if (row !== undefined) rows.add(row)
    if (row === undefined || rows.size > this.#most) this.#tables.set(table, undefined)
  }

  addAll(other: HeldKeys): void {
    for (const [table, rows] of other.#tables) {
      if (rows === undefined) this.add({ table, row: undefined })
      else for (const row of rows) this.add({ table, row })
    }
  }

  has({ row, table }: Key): boolean {
    if (!this.#tables.has(table)) return false
    const rows = this.#tables.get(table)
    return rows === undefined || row === undefined || rows.has(row)
  }

  /** Some row is in both. */
  meets(other: HeldKeys): boolean {
    for (const [table, rows] of this.#tables) {
      if (!other.#tables.has(table)) continue
      const others = other.#tables.get(table)
      if (rows === undefined || others === undefined) return true
      for (const row of rows) if (others.has(row)) return true
    }
    return false
  }

  clear(): void {
    this.#tables.clear()
  }
}
