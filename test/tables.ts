/**
 * Tables for tests: shapes of tables as source and target know them, a source that only makes changes a real one could
 * make, and a target in memory that carries out the steps of a plan as PostgreSQL would.
 */
import * as fc from "fast-check"
import { missedBy, NoStatement, type PlanOptions, statementOf } from "../src/plan/Statement.ts"
import { type PlannedChange, type RouteOf, type Step, identityOf, updatedRowOf } from "../src/plan/Fold.ts"
import { qualified, quote } from "../src/target/Identifier.ts"
import type { Relation, ReplicaIdentity } from "../src/stream/Relation.ts"
import { type Route, route } from "../src/target/Route.ts"
import type { TargetColumn, TargetTable } from "../src/target/TargetTable.ts"
import type { RowChange, TruncateChange } from "../src/stream/Change.ts"
import { type Cell, Tuple } from "../src/stream/Tuple.ts"
import { offset } from "./events.ts"

export interface ColumnShape {
  readonly name: string
  /** As SQL, `text` unless told otherwise. */
  readonly type?: string
  /** What its cells may hold, as PostgreSQL prints it. */
  readonly values: ReadonlyArray<string | null>
  /** What a row holds only in the middle of a swap. */
  readonly spare?: string
  /** An update that leaves the value alone does not send it. */
  readonly isToasted?: boolean
  readonly identity?: "always"
  /** How another session of the source prints the values: every other change is printed so. */
  readonly otherwise?: Readonly<Record<string, string>>
}

/** A table of the source and its counterpart in the target. */
export interface Shape {
  readonly name: string
  readonly columns: ReadonlyArray<ColumnShape>
  readonly replicaIdentity: ReplicaIdentity
  /** The columns of the replica identity; under FULL those of the key that is swapped. */
  readonly identity: ReadonlyArray<string>
  /** What the source keeps unique, the identity first. */
  readonly unique: ReadonlyArray<ReadonlyArray<string>>
  readonly primaryKey?: ReadonlyArray<string>
  /** The target's other unique keys. */
  readonly uniqueKeys: ReadonlyArray<ReadonlyArray<string>>
  /** Only the target has it, with the default `unset`. */
  readonly extraColumn?: string
  /** How many relations of the source go to the one table of the target. */
  readonly relations: number
}

export const targetColumn = (overrides: Partial<TargetColumn> = {}): TargetColumn => ({
  name: "id",
  type: "text",
  fullType: overrides.type ?? "text",
  isArray: overrides.type?.endsWith("[]") ?? false,
  hasEquality: true,
  isGenerated: false,
  identity: undefined,
  isNullable: true,
  hasDefault: false,
  ...overrides
})

/** A table of the target, `public.pets (id integer PRIMARY KEY, name text)` unless told otherwise. */
export const targetTable = (overrides: Partial<TargetTable> = {}): TargetTable => ({
  schema: "public",
  name: "pets",
  isPartitioned: false,
  columns: [targetColumn({ name: "id", type: "integer" }), targetColumn({ name: "name" })],
  primaryKey: ["id"],
  isPrimaryKeyDeferrable: false,
  isPrimaryKeyTemporal: false,
  deferrableKeys: [],
  uniqueKeys: [],
  uniqueIndexes: 1,
  firesTriggers: false,
  checksForeignKeys: false,
  references: [],
  hasUncheckedKey: false,
  hasRowSecurity: false,
  ...overrides
})

/** The shape's table in the target. */
export const tableOf = (shape: Shape, schema = "public"): TargetTable =>
  targetTable({
    schema,
    name: shape.name,
    columns: [
      ...shape.columns.map(({ identity, name, type = "text" }) =>
        targetColumn({ name, type, identity, hasEquality: type !== "json" })
      ),
      ...(shape.extraColumn === undefined ? [] : [targetColumn({ name: shape.extraColumn, hasDefault: true })])
    ],
    primaryKey: shape.primaryKey,
    uniqueKeys: shape.uniqueKeys,
    uniqueIndexes: shape.uniqueKeys.length + (shape.primaryKey === undefined ? 0 : 1)
  })

const list = (names: ReadonlyArray<string>) => names.map(quote).join(", ")

/** The shape's table in the target as SQL. */
export const createTable = (shape: Shape, schema: string): string => {
  const parts = [
    ...shape.columns.map(
      ({ identity, name, type = "text" }) =>
        `${quote(name)} ${type}${identity === undefined ? "" : " GENERATED ALWAYS AS IDENTITY"}`
    ),
    ...(shape.extraColumn === undefined ? [] : [`${quote(shape.extraColumn)} text DEFAULT 'unset'`]),
    ...(shape.primaryKey === undefined ? [] : [`PRIMARY KEY (${list(shape.primaryKey)})`]),
    ...shape.uniqueKeys.map((names) => `UNIQUE (${list(names)})`)
  ]
  return `CREATE TABLE ${qualified(schema, shape.name)} (${parts.join(", ")})`
}

/** The shape's relations in the source. */
export const relationsOf = (shape: Shape): ReadonlyArray<Relation> =>
  Array.from({ length: shape.relations }, (_, part) => ({
    id: 16_400 + part,
    namespace: "public",
    name: part === 0 ? shape.name : `${shape.name}_${part}`,
    replicaIdentity: shape.replicaIdentity,
    columns: shape.columns.map(({ name }) => ({
      name,
      isKey: shape.replicaIdentity === "Full" || shape.identity.includes(name),
      typeId: 25,
      typeModifier: -1
    }))
  }))

const nasty = [`O'Reilly said "\\n {1,2}"`, "", "NULL", "😀\tü\n", null]

type Cells = ReadonlyArray<Cell>

interface Before {
  readonly oldTuple?: Cells | null
  readonly keyTuple?: Cells | null
}

const beforeOf = ({ keyTuple = null, oldTuple = null }: Before) => ({
  oldTuple: oldTuple && Tuple.of(oldTuple),
  keyTuple: keyTuple && Tuple.of(keyTuple)
})

export const insertOf = (relation: Relation, cells: Cells, at = 0): RowChange => ({
  type: "insert",
  offset: offset(at),
  relation,
  tuple: Tuple.of(cells)
})

export const updateOf = (relation: Relation, cells: Cells, before: Before = {}, at = 0): RowChange => ({
  type: "update",
  offset: offset(at),
  relation,
  ...beforeOf(before),
  newTuple: Tuple.of(cells)
})

export const deleteOf = (relation: Relation, before: Before, at = 0): RowChange => ({
  type: "delete",
  offset: offset(at),
  relation,
  ...beforeOf(before)
})

export const truncateOf = (
  relations: ReadonlyArray<Relation>,
  { cascade = false, restartIdentity = false }: { readonly cascade?: boolean; readonly restartIdentity?: boolean } = {},
  at = 0
): TruncateChange => ({ type: "truncate", offset: offset(at), relations, cascade, restartIdentity })

const defaults = { replicaIdentity: "Default", uniqueKeys: [], relations: 1 } as const

/** The same times as sessions in two time zones print them. */
const otherTimes: Readonly<Record<string, string>> = {
  "1999-01-01 00:00:00+00": "1999-01-01 02:00:00+02",
  "2024-01-02 00:00:00+00": "2024-01-02 02:00:00+02",
  "2024-01-03 00:00:00+00": "2024-01-03 02:00:00+02"
}

/** What a target prints, whose session has its own settings. */
const stored = (type: string, cell: string): string =>
  type === "timestamp with time zone"
    ? (Object.entries(otherTimes).find(([, other]) => other === cell)?.[0] ?? cell)
    : cell

/** A table for every way in which rows are found, and for everything that makes folding hard. */
export const shapes: ReadonlyArray<Shape> = [
  {
    ...defaults,
    name: "accounts",
    columns: [
      { name: "id", type: "integer", values: ["1", "2", "3"], spare: "99" },
      { name: "balance", type: "numeric", values: ["0", "1.50", "-3.250", "NaN", null] },
      { name: "notes", values: nasty, isToasted: true },
      { name: "details", type: "jsonb", values: [`{"a": [1, "\\"x\\""]}`, "[]", null], isToasted: true }
    ],
    identity: ["id"],
    unique: [["id"]],
    primaryKey: ["id"]
  },
  {
    ...defaults,
    name: "lines",
    columns: [
      { name: "note", values: nasty },
      { name: "order", type: "bigint", values: ["1", "9007199254740993"], spare: "99" },
      { name: "line", values: ["a", `"b"`], spare: "spare" },
      { name: "at", type: "timestamp with time zone", values: ["2024-02-29 23:59:59.123456+00", "infinity", null] }
    ],
    identity: ["order", "line"],
    unique: [["order", "line"]],
    primaryKey: ["line", "order"]
  },
  {
    ...defaults,
    name: "users",
    columns: [
      { name: "id", type: "integer", values: ["1", "2", "3"], spare: "99" },
      { name: "email", values: ["x", "y", "z", null], spare: "spare" },
      { name: "bio", values: ["a", "b"], isToasted: true }
    ],
    identity: ["id"],
    unique: [["id"], ["email"]],
    primaryKey: ["id"],
    uniqueKeys: [["email"]]
  },
  {
    ...defaults,
    name: "full_keyed",
    replicaIdentity: "Full",
    columns: [
      { name: "id", type: "integer", values: ["1", "2", "3"], spare: "99" },
      { name: "tags", type: "integer[]", values: ["{}", "{1,NULL,3}", null], isToasted: true },
      { name: "title", values: nasty }
    ],
    identity: ["id"],
    unique: [["id"]],
    primaryKey: ["id"]
  },
  {
    ...defaults,
    name: "full_image",
    replicaIdentity: "Full",
    columns: [
      { name: "a", type: "integer", values: ["1", "2", null] },
      { name: "b", values: ["x", "", null] },
      { name: "c", type: "json", values: [`{"k" : 1}`, null], isToasted: true }
    ],
    identity: [],
    unique: []
  },
  {
    ...defaults,
    name: "journal",
    replicaIdentity: "Nothing",
    columns: [
      { name: "entry", values: nasty },
      { name: "at", type: "date", values: ["2024-01-02", "4713-01-01 BC", null] }
    ],
    identity: [],
    unique: []
  },
  {
    ...defaults,
    name: "tags",
    columns: [
      { name: "post", type: "integer", values: ["1", "2"], spare: "99" },
      { name: "tag", values: ["x", "y"], spare: "spare" }
    ],
    identity: ["post", "tag"],
    unique: [["post", "tag"]],
    primaryKey: ["post", "tag"]
  },
  {
    ...defaults,
    name: "extended",
    columns: [
      { name: "id", type: "integer", values: ["1", "2", "3"], spare: "99" },
      { name: "a", values: ["x", "y", null] }
    ],
    identity: ["id"],
    unique: [["id"]],
    primaryKey: ["id"],
    extraColumn: "reviewed"
  },
  {
    ...defaults,
    name: "serials",
    columns: [
      { name: "id", type: "bigint", values: ["1", "2", "3"], spare: "99", identity: "always" },
      { name: "a", values: ["x", "y", null], isToasted: true }
    ],
    identity: ["id"],
    unique: [["id"]],
    primaryKey: ["id"]
  },
  {
    ...defaults,
    name: "tickets",
    columns: [
      { name: "code", values: ["a", "b", "c"], spare: "spare" },
      { name: "number", type: "bigint", values: ["1", "2", "3"], identity: "always" },
      { name: "a", values: ["x", "y", null], isToasted: true }
    ],
    identity: ["code"],
    unique: [["code"]],
    primaryKey: ["code"]
  },
  {
    ...defaults,
    name: "keyless",
    columns: [
      { name: "id", type: "integer", values: ["1", "2", "3"], spare: "99" },
      { name: "a", values: ["x", "y", null] }
    ],
    identity: ["id"],
    unique: [["id"]]
  },
  {
    ...defaults,
    name: "parts",
    columns: [
      { name: "id", type: "integer", values: ["1", "2", "3"], spare: "99" },
      { name: "a", values: ["x", "y", null] }
    ],
    identity: ["id"],
    unique: [["id"]],
    primaryKey: ["id"],
    relations: 2
  },
  {
    ...defaults,
    name: "full_parts",
    replicaIdentity: "Full",
    columns: [{ name: "a", values: ["x", "y", null] }],
    identity: [],
    unique: [],
    relations: 2
  },
  {
    ...defaults,
    name: "prices",
    columns: [
      { name: "amount", type: "numeric", values: ["1", "1.0", "1.00", "2"], spare: "99" },
      { name: "a", values: ["x", "y", null] }
    ],
    identity: ["amount"],
    unique: [["amount"]],
    primaryKey: ["amount"]
  },
  {
    ...defaults,
    name: "readings",
    columns: [
      {
        name: "at",
        type: "timestamp with time zone",
        values: Object.keys(otherTimes).slice(1),
        spare: "1999-01-01 00:00:00+00",
        otherwise: otherTimes
      },
      { name: "a", values: ["x", "y", null], isToasted: true },
      { name: "b", values: ["1", "2", "3"], isToasted: true }
    ],
    identity: ["at"],
    unique: [["at"]],
    primaryKey: ["at"]
  },
  {
    ...defaults,
    name: "indexed",
    replicaIdentity: "Index",
    columns: [
      { name: "id", type: "integer", values: ["1", "2", "3", "4"] },
      { name: "code", values: ["a", "b", "c"], spare: "spare" },
      { name: "a", values: ["x", "y", null], isToasted: true }
    ],
    identity: ["code"],
    unique: [["code"], ["id"]],
    primaryKey: ["id"],
    uniqueKeys: [["code"]]
  },
  {
    ...defaults,
    name: "narrower",
    columns: [
      { name: "id", type: "integer", values: ["1", "2", "3"], spare: "99" },
      { name: "day", type: "date", values: ["2024-01-01", "2024-01-02"], spare: "1999-01-01" },
      { name: "a", values: ["x", "y", null] }
    ],
    identity: ["id", "day"],
    unique: [["id", "day"], ["id"]],
    primaryKey: ["id"]
  }
]

export const shapeOf = (name: string): Shape => {
  const shape = shapes.find((shape) => shape.name === name)
  if (shape === undefined) throw new Error(`no shape ${name}`)
  return shape
}

type StoredRow = ReadonlyArray<string | null>

/** Types whose values may be equal and print differently. */
const canonical = (type: string, cell: string): string =>
  type === "numeric" ? String(Number(cell)) : stored(type, cell)

const isEqual = (type: string, left: Cell, right: Cell): boolean =>
  left === null || left === undefined || right === null || right === undefined
    ? (left ?? null) === (right ?? null)
    : canonical(type, left) === canonical(type, right)

/** Whether both rows hold the same, non-NULL values in these places. */
const isSameKey = (types: ReadonlyArray<string>, places: ReadonlyArray<number>, left: StoredRow, right: StoredRow) =>
  places.every((place) => left[place] !== null && isEqual(types[place], left[place], right[place]))

/** One thing that happens in the source; the numbers choose rows and values, whatever there is to choose from. */
export interface Operation {
  readonly kind: "insert" | "update" | "delete" | "replace" | "rekey" | "swap" | "swapOther" | "move" | "truncate"
  readonly table: number
  readonly row: number
  readonly other: number
  readonly cells: ReadonlyArray<number>
}

interface SourceRow {
  /** Which of the table's relations holds it. */
  readonly part: number
  readonly cells: StoredRow
  /** What the target's extra column holds, if the target has one. */
  readonly extra: "unset" | "reviewed"
}

/** The source: it makes only changes that its own constraints allow, and describes them as its stream does. */
export class Source {
  readonly changes: Array<PlannedChange> = []
  /**
   * Keys moved, or values of another unique key changed hands, so that an immediate check may meet both at once; or a key
   * was printed otherwise, so that it seems to be another row's.
   */
  hasHardChanges = false
  private readonly tables: ReadonlyArray<{
    readonly shape: Shape
    readonly relations: ReadonlyArray<Relation>
    rows: Array<SourceRow>
  }>

  constructor(shapes: ReadonlyArray<Shape>) {
    this.tables = shapes.map((shape) => ({ shape, relations: relationsOf(shape), rows: [] }))
  }

  relations(): ReadonlyArray<readonly [Shape, Relation]> {
    return this.tables.flatMap(({ relations, shape }) => relations.map((relation) => [shape, relation] as const))
  }

  /** From here on changes count; the target is a copy of what there is now, and somebody has reviewed its rows. */
  begin(): void {
    this.changes.length = 0
    for (const table of this.tables) table.rows = table.rows.map((row) => ({ ...row, extra: "reviewed" }))
  }

  /** What a target holds that is equal to the source. */
  target(): Target {
    const target = new Target()
    for (const { rows, shape } of this.tables) {
      const held = rows.map(({ cells, extra }) => (shape.extraColumn === undefined ? cells : [...cells, extra]))
      target.add(tableOf(shape), held)
    }
    return target
  }

  perform({ cells, kind, other, row: choice, table: n }: Operation): void {
    const table = this.tables[n % this.tables.length]
    const { relations, rows, shape } = table
    const { columns } = shape
    const at = rows.length === 0 ? -1 : choice % rows.length
    const identity = shape.identity.map((name) => columns.findIndex((column) => column.name === name))
    const chosen = columns.map(({ values }, place) => values[cells[place % cells.length] % values.length])
    if (kind === "insert") {
      const part = other % shape.relations
      if (this.isFree(shape, rows, chosen)) this.insert(table, { part, cells: chosen, extra: "unset" })
      return
    }
    if (kind === "truncate") {
      table.rows = []
      this.changes.push(truncateOf(relations, {}, this.changes.length))
      return
    }
    if (at === -1 || shape.replicaIdentity === "Nothing") return
    const row = rows[at]
    const without = rows.filter((_, place) => place !== at)
    switch (kind) {
      case "delete":
        return this.delete(table, at)
      case "replace": {
        const replacement = chosen.map((cell, place) => (identity.includes(place) ? row.cells[place] : cell))
        if (!this.isFree(shape, without, replacement)) return
        this.delete(table, at)
        return this.insert(table, { part: other % shape.relations, cells: replacement, extra: "unset" })
      }
      case "move":
        if (shape.relations === 1) return
        this.delete(table, at)
        return this.insert(table, { part: (row.part + 1) % shape.relations, cells: row.cells, extra: "unset" })
      case "update": {
        const updated = row.cells.map((cell, place) =>
          identity.includes(place) || ((other >> place) & 1) === 0 ? cell : chosen[place]
        )
        if (this.isFree(shape, without, updated)) this.update(table, at, updated)
        return
      }
      case "rekey": {
        const updated = row.cells.map((cell, place) => (identity.includes(place) ? chosen[place] : cell))
        if (this.isFree(shape, without, updated)) this.update(table, at, updated)
        return
      }
      case "swap":
      case "swapOther": {
        const names = kind === "swap" ? shape.unique[0] : shape.unique[1]
        const partner = other % rows.length
        if (names === undefined || partner === at || names.some((name) => !this.hasSpare(shape, name))) return
        const [first, second] = [rows[at].cells, rows[partner].cells]
        const take = (own: StoredRow, cellOf: (place: number) => string | null) =>
          own.map((cell, place) => (names.includes(columns[place].name) ? cellOf(place) : cell))
        this.update(
          table,
          at,
          take(first, (place) => columns[place].spare ?? null)
        )
        this.update(
          table,
          partner,
          take(second, (place) => first[place])
        )
        return this.update(
          table,
          at,
          take(first, (place) => second[place])
        )
      }
    }
  }

  private hasSpare(shape: Shape, name: string): boolean {
    return shape.columns.find((column) => column.name === name)?.spare !== undefined
  }

  private isFree({ columns, unique }: Shape, rows: ReadonlyArray<SourceRow>, cells: StoredRow): boolean {
    const types = columns.map(({ type = "text" }) => type)
    return unique.every((names) => {
      const places = names.map((name) => columns.findIndex((column) => column.name === name))
      return rows.every((row) => !isSameKey(types, places, cells, row.cells))
    })
  }

  private insert({ relations, rows, shape }: Source["tables"][number], row: SourceRow): void {
    rows.push(row)
    this.changes.push(insertOf(relations[row.part], this.printed(shape, row.cells), this.changes.length))
  }

  /** The cells as the session prints them that sends the next change. */
  private printed(shape: Shape, cells: Cells): Cells {
    if (this.changes.length % 2 === 0) return cells
    const printed = cells.map((cell, place) => shape.columns[place].otherwise?.[cell ?? ""] ?? cell)
    this.hasHardChanges ||= printed.some((cell, place) => cell !== cells[place])
    return printed
  }

  private delete({ relations, rows, shape }: Source["tables"][number], at: number): void {
    const [{ cells, part }] = rows.splice(at, 1)
    const isFull = shape.replicaIdentity === "Full"
    const sent = this.printed(shape, cells)
    const before = { oldTuple: isFull ? sent : null, keyTuple: isFull ? null : this.keyOf(shape, sent) }
    this.changes.push(deleteOf(relations[part], before, this.changes.length))
  }

  private update({ relations, rows, shape }: Source["tables"][number], at: number, cells: StoredRow): void {
    const { cells: old, part } = rows[at]
    rows[at] = { ...rows[at], cells }
    const isFull = shape.replicaIdentity === "Full"
    const isChanged = (place: number) => old[place] !== cells[place]
    const isKeyChanged = shape.columns.some(({ name }, place) => shape.identity.includes(name) && isChanged(place))
    this.hasHardChanges ||= shape.columns.some(
      ({ name }, place) => shape.unique.some((names) => names.includes(name)) && isChanged(place)
    )
    const sent = cells.map((cell, place) =>
      shape.columns[place].isToasted === true && cell !== null && !isChanged(place) ? undefined : cell
    )
    const oldSent = this.printed(shape, old)
    const before = {
      oldTuple: isFull ? oldSent : null,
      keyTuple: !isFull && isKeyChanged ? this.keyOf(shape, oldSent) : null
    }
    this.changes.push(updateOf(relations[part], this.printed(shape, sent), before, this.changes.length))
  }

  private keyOf(shape: Shape, cells: Cells): Cells {
    return cells.map((cell, place) => (shape.identity.includes(shape.columns[place].name) ? cell : null))
  }
}

/** A tuple's cells by their place in the route. */
export const routed = ({ columns }: Route, tuple: Tuple): Cells => columns.map(({ index }) => tuple.cell(index))

/** A unique key was violated, or a policy stops at a conflict. */
export class Refused extends Error {}

interface StoredTable {
  readonly table: TargetTable
  rows: Array<StoredRow>
}

/** What the plan does about conflicts. */
export interface Policies extends PlanOptions {
  readonly missingRow: "skip" | "insert" | "halt"
}

/**
 * The target: sets of rows, with unique keys that are checked row by row, as PostgreSQL checks those that are not
 * deferrable. Whatever it refuses leaves it half done: the caller works on a copy, as in a transaction.
 */
export class Target {
  private readonly tables = new Map<string, StoredTable>()

  add(table: TargetTable, rows: ReadonlyArray<StoredRow>): void {
    this.tables.set(qualified(table.schema, table.name), { table, rows: [...rows] })
  }

  copy(): Target {
    const copy = new Target()
    for (const { rows, table } of this.tables.values()) copy.add(table, rows)
    return copy
  }

  rows(table: TargetTable): Array<StoredRow> {
    return this.at(table).rows
  }

  /** The content, whatever the order of rows: equal targets have equal texts. */
  text(): ReadonlyArray<string> {
    return [...this.tables].flatMap(([name, { rows }]) => rows.map((row) => `${name} ${JSON.stringify(row)}`)).sort()
  }

  private at({ name, schema }: TargetTable): StoredTable {
    const stored = this.tables.get(qualified(schema, name))
    if (stored === undefined) throw new Error(`no table ${name}`)
    return stored
  }

  /** How many rows it touched. PostgreSQL takes the rows of a set in any order: `isReversed` is another one. */
  apply(step: Step, options: PlanOptions, isReversed = false): number {
    switch (step.type) {
      case "insertSet":
        return step.rows.reduce(
          (touched, row) => touched + this.insert(step.route, routed(step.route, row), options, false),
          0
        )
      case "updateSet": {
        const found = this.find(step.route, step.keys).filter(([at, n]) => {
          const cells = routed(step.route, step.rows[n])
          const row = this.at(step.route.table).rows[at]
          return step.same.every((place) => row[this.place(step.route, place)] === cells[place])
        })
        if (isReversed) found.reverse()
        for (const [at, n] of found) {
          const cells = routed(step.route, step.rows[n])
          this.update(step.route, at, (place) => (step.places.includes(place) ? cells[place] : undefined))
        }
        return found.length
      }
      case "deleteSet": {
        const found = this.find(step.route, step.keys)
        this.remove(step.route, new Set(found.map(([at]) => at)))
        return found.length
      }
      case "absentSet":
        return this.find(step.route, step.keys).length
      case "truncate":
        for (const { table } of step.routes) this.at(table).rows = []
        return 0
      case "row":
        return this.row(step.route, step.change, options)
    }
  }

  private row(route: Route, change: RowChange, options: PlanOptions): number {
    if (change.type === "insert") return this.insert(route, routed(route, change.tuple), options, true)
    const identity = identityOf(change) ?? Tuple.of(route.relation.columns.map(() => undefined))
    const sought = routed(route, identity)
    const { rows } = this.at(route.table)
    const places = route.lookup === "key" ? route.key : route.columns.map((_, place) => place)
    const found = rows.flatMap((row, at) => {
      const isMeant = places.every((place) => {
        const { column } = route.columns[place]
        return isEqual(column.type, row[this.place(route, place)], sought[place])
      })
      return isMeant ? [at] : []
    })
    const meant = route.lookup === "key" ? found : found.slice(0, 1)
    if (change.type === "delete") this.remove(route, new Set(meant))
    else {
      const cells = routed(route, updatedRowOf(route, change))
      for (const at of meant) this.update(route, at, (place) => cells[place])
    }
    return meant.length
  }

  /** The place in the table of a place in the route. */
  private place({ columns, table }: Route, place: number): number {
    return table.columns.findIndex(({ name }) => name === columns[place].column.name)
  }

  /** The rows with these keys, each with the place of its key. */
  private find(route: Route, keys: ReadonlyArray<Tuple>): Array<[at: number, key: number]> {
    const sought = keys.map((key) => routed(route, key))
    return this.at(route.table).rows.flatMap((row, at) => {
      const n = sought.findIndex((key) =>
        route.key.every((place) => {
          const cell = row[this.place(route, place)]
          return cell !== null && isEqual(route.columns[place].column.type, cell, key[place])
        })
      )
      return n === -1 ? [] : [[at, n] satisfies [number, number]]
    })
  }

  private remove(route: Route, places: ReadonlySet<number>): void {
    const stored = this.at(route.table)
    stored.rows = stored.rows.filter((_, at) => !places.has(at))
  }

  private update(route: Route, at: number, cellOf: (place: number) => Cell): void {
    const { rows, table } = this.at(route.table)
    const row = [...rows[at]]
    route.columns.forEach((_, place) => {
      const cell = cellOf(place)
      if (cell !== undefined) row[this.place(route, place)] = cell && stored(route.columns[place].column.type, cell)
    })
    const others = rows.filter((_, other) => other !== at)
    if (this.conflicts(table, row, others).length > 0) throw new Refused("unique violation")
    rows[at] = row
  }

  /** An ALWAYS identity of a row that is there changes only where rows are replaced, one by one. */
  private insert(route: Route, cells: Cells, options: PlanOptions, replaces: boolean): number {
    const { rows, table } = this.at(route.table)
    const row = table.columns.map((column) => {
      const place = route.columns.findIndex((routed) => routed.column.name === column.name)
      const cell = place === -1 ? "unset" : (cells[place] ?? null)
      return cell && stored(column.type, cell)
    })
    const conflicts = this.conflicts(table, row, rows)
    if (conflicts.length === 0) {
      rows.push(row)
      return 1
    }
    const types = table.columns.map(({ type }) => type)
    const key = route.key.map((place) => this.place(route, place))
    const existing = rows.findIndex((other) => isSameKey(types, key, row, other))
    if (options.existingRow === "halt" || route.lookup !== "key" || existing === -1)
      throw new Refused("unique violation")
    if (options.existingRow === "skip") return 0
    const isFixed = route.columns.some(({ column }, place) => {
      const at = this.place(route, place)
      return column.identity === "always" && rows[existing][at] !== row[at]
    })
    if (isFixed && !replaces) return 0
    this.update(route, existing, (place) => cells[place])
    return 1
  }

  private conflicts(table: TargetTable, row: StoredRow, rows: ReadonlyArray<StoredRow>): ReadonlyArray<StoredRow> {
    const types = table.columns.map(({ type }) => type)
    const keys = [...(table.primaryKey === undefined ? [] : [table.primaryKey]), ...table.uniqueKeys].map((names) =>
      names.map((name) => table.columns.findIndex((column) => column.name === name))
    )
    return rows.filter((other) => keys.some((places) => isSameKey(types, places, row, other)))
  }
}

/** Carries out the exact plan as the sink does; throws {@link Refused} where the sink stops. */
export const runInOrder = (target: Target, steps: ReadonlyArray<Step>, policies: Policies): void => {
  for (const step of steps) {
    const statement = statementOf(step, policies)
    if (statement === undefined) continue
    if (statement instanceof NoStatement) throw new Refused(statement.reason)
    const touched = target.apply(step, policies)
    if (statement.rows === undefined || touched === statement.rows || statement.kind === "insert") continue
    if (touched > 1) throw new Refused("several rows")
    const isStandIn = step.type === "row" && missedBy(step.route, step.change, policies).insert !== undefined
    if (policies.missingRow === "insert" && isStandIn) {
      if (step.change.type !== "update") throw new Error("only an update has an insert that stands in")
      const rows = [updatedRowOf(step.route, step.change)]
      target.apply({ type: "insertSet", route: step.route, offset: statement.offset, mayMiss: true, rows }, policies)
    } else if (policies.missingRow === "halt" || (policies.missingRow === "insert" && statement.kind === "update")) {
      throw new Refused("missing row")
    }
  }
}

/** Carries out a folded plan as the sink does; false when it must be given up. */
export const runFolded = (
  target: Target,
  steps: ReadonlyArray<Step>,
  policies: Policies,
  isReversed: boolean
): boolean => {
  for (const step of steps) {
    const statement = statementOf(step, policies)
    if (statement === undefined) continue
    if (statement instanceof NoStatement) return false
    try {
      if (step.type === "row") {
        runInOrder(target, [step], policies)
        continue
      }
      const lacking = (statement.rows ?? 0) - target.apply(step, policies, isReversed)
      if (statement.rows === undefined || lacking === 0) continue
      if (lacking < 0 || !statement.mayMiss) return false
      if (statement.kind !== "insert" && policies.missingRow !== "skip") return false
    } catch (error) {
      if (error instanceof Refused) return false
      throw error
    }
  }
  return true
}

/** What differs between the target and the source before the run. */
export interface Divergence {
  readonly kind: "missing" | "extra" | "other"
  readonly table: number
  readonly row: number
  readonly cells: ReadonlyArray<number>
}

export interface Scenario {
  readonly shapes: ReadonlyArray<Shape>
  readonly start: ReadonlyArray<Operation>
  readonly operations: ReadonlyArray<Operation>
  readonly divergences: ReadonlyArray<Divergence>
  readonly policies: Policies
  readonly isReversed: boolean
}

/** A scenario as it is met by the plan: what the target holds, and the changes that come. */
export interface Play {
  readonly source: Source
  readonly target: Target
  readonly changes: ReadonlyArray<PlannedChange>
  readonly routeOf: RouteOf
  readonly isDivergent: boolean
}

export const play = ({ divergences, operations, shapes, start }: Scenario): Play => {
  const source = new Source(shapes)
  for (const operation of start) source.perform({ ...operation, kind: "insert" })
  source.begin()
  const target = source.target()
  const tables = shapes.map((shape) => ({ shape, table: tableOf(shape) }))
  const before = target.text().join()
  for (const { cells, kind, row, table: n } of divergences) {
    const { shape, table } = tables[n % tables.length]
    const rows = target.rows(table)
    const chosen = shape.columns.map(({ name, values }, place) => {
      // Extra rows never hold a value of another unique key: see the test of what comes and goes under another one.
      const isOther = shape.unique.slice(1).some((names) => names.includes(name))
      return isOther ? `${1000 + rows.length}` : values[cells[place % cells.length] % values.length]
    })
    if (kind === "extra") {
      try {
        target.apply(
          {
            type: "insertSet",
            route: route(relationsOf(shape)[0], table),
            offset: offset(0),
            mayMiss: false,
            rows: [Tuple.of(chosen)]
          },
          halting
        )
      } catch (error) {
        if (!(error instanceof Refused)) throw error
      }
    } else if (rows.length > 0) {
      const at = row % rows.length
      if (kind === "missing") rows.splice(at, 1)
      else {
        const isKept = (name: string) => [...shape.unique, shape.identity].some((names) => names.includes(name))
        rows[at] = rows[at].map((cell, place) =>
          shape.columns[place] === undefined || isKept(shape.columns[place].name) ? cell : chosen[place]
        )
      }
    }
  }
  // Each relation has a route of its own to a table object of its own, as after two look-ups in the catalog.
  const routes = new Map(source.relations().map(([shape, relation]) => [relation, route(relation, tableOf(shape))]))
  for (const operation of operations) source.perform(operation)
  return {
    source,
    target,
    changes: source.changes,
    routeOf: (relation) => routes.get(relation),
    isDivergent: target.text().join() !== before
  }
}

export const halting: Policies = {
  existingRow: "halt",
  missingRow: "halt",
  truncateCascade: "as-source",
  takesCopy: false
}

const cellsText = (tuple: Tuple | null): string =>
  tuple === null
    ? "-"
    : `(${tuple.cells.map((cell) => (cell === undefined ? "unchanged" : JSON.stringify(cell))).join(", ")})`

/** A change on one line. */
export const changeText = (change: PlannedChange): string => {
  switch (change.type) {
    case "insert":
      return `insert ${change.relation.name} ${cellsText(change.tuple)}`
    case "update":
      return `update ${change.relation.name} ${cellsText(change.oldTuple ?? change.keyTuple)} to ${cellsText(change.newTuple)}`
    case "delete":
      return `delete ${change.relation.name} ${cellsText(change.oldTuple ?? change.keyTuple)}`
    case "truncate":
      return `truncate ${change.relations.map(({ name }) => name).join(", ")}`
  }
}

/** A scenario as fast-check prints a counterexample: the rows of the target, and the changes. */
export const storyOf = (scenario: Scenario): string => {
  const { changes, target } = play(scenario)
  return [
    `policies ${JSON.stringify(scenario.policies)}${scenario.isReversed ? ", sets reversed" : ""}`,
    ...target.text().map((line) => `target ${line}`),
    ...changes.map(changeText)
  ].join("\n")
}

const lacksArbiter = (shape: Shape): boolean => {
  const { isKeyArbiter, lookup } = route(relationsOf(shape)[0], tableOf(shape))
  return lookup === "key" && !isKeyArbiter
}

const numbers = fc.array(fc.nat(11), { minLength: 4, maxLength: 4 })

const operation = (kinds: fc.Arbitrary<Operation["kind"]>): fc.Arbitrary<Operation> =>
  fc.record({ kind: kinds, table: fc.nat(2), row: fc.nat(5), other: fc.nat(15), cells: numbers })

const kinds: fc.Arbitrary<Operation["kind"]> = fc.oneof(
  { weight: 6, arbitrary: fc.constant("insert" as const) },
  { weight: 8, arbitrary: fc.constant("update" as const) },
  { weight: 4, arbitrary: fc.constant("delete" as const) },
  { weight: 2, arbitrary: fc.constantFrom("replace" as const, "move" as const) },
  { weight: 2, arbitrary: fc.constant("rekey" as const) },
  { weight: 1, arbitrary: fc.constantFrom("swap" as const, "swapOther" as const, "truncate" as const) }
)

export const arbitraryScenario: fc.Arbitrary<Scenario> = fc
  .record({
    shapes: fc.uniqueArray(fc.constantFrom(...shapes), { minLength: 1, maxLength: 3 }),
    start: fc.array(operation(fc.constant("insert")), { maxLength: 10 }),
    operations: fc.array(operation(kinds), { minLength: 1, maxLength: 16 }),
    divergences: fc.oneof(
      { weight: 2, arbitrary: fc.constant([]) },
      {
        weight: 1,
        arbitrary: fc.array(
          fc.record({
            kind: fc.constantFrom("missing" as const, "extra" as const, "other" as const),
            table: fc.nat(2),
            row: fc.nat(5),
            cells: numbers
          }),
          { minLength: 1, maxLength: 3 }
        )
      }
    ),
    policies: fc.record({
      existingRow: fc.constantFrom("halt" as const, "update" as const, "skip" as const),
      missingRow: fc.constantFrom("skip" as const, "insert" as const, "halt" as const),
      truncateCascade: fc.constant("as-source" as const),
      takesCopy: fc.boolean()
    }),
    isReversed: fc.boolean()
  })
  .map((scenario) => {
    // Where no index can tell the row that an insert meets, every other policy stops at the first insert.
    const policies = scenario.shapes.some(lacksArbiter)
      ? { ...scenario.policies, existingRow: "halt" as const }
      : scenario.policies
    const played = { ...scenario, policies }
    return { ...played, [fc.toStringMethod]: () => storyOf(played) }
  })
