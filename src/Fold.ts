/**
 * The net effect of a run of changes: pure, and the reason why applying is fast.
 *
 * Where a table has a unique key, the changes of one row become one entry; where it has none, their order stays and adjacent
 * inserts are joined. Wherever only the source's order can tell what a change means, it stays in order. Sets say how many
 * rows they must touch, and may be clever because the exact replay, one change at a time, is always at hand.
 */
import type { Offset } from "./FluvioConsumer.ts"
import { qualified } from "./Identifier.ts"
import type { Cell, Tuple } from "./ReplicationEvent.ts"
import type { Route } from "./Route.ts"
import type { DeleteChange, RowChange, TruncateChange, UpdateChange } from "./Transaction.ts"

/** What a plan can carry: changes without a schema change in between. */
export type PlannedChange = RowChange | TruncateChange

/** The route of a relation; `undefined` when the table is filtered out. */
export type RouteOf = (relation: RowChange["relation"]) => Route | undefined

/** Cells by place in `route.columns`. */
export type Row = ReadonlyArray<Cell>

/** Cells by place in `route.key`. */
export type Key = ReadonlyArray<Cell>

/** A set of rows of one table. */
interface Rows {
  readonly route: Route
  readonly offset: Offset
  /**
   * A row that the set misses (an insert: that it finds there already) is one that the replay in order would miss as
   * well, with the same outcome. Otherwise a miss means that only the replay in order is exact.
   */
  readonly mayMiss: boolean
}

/** One step of a plan: a set of rows of one table, one row, or a truncate. */
export type Step =
  | (Rows & { readonly type: "insertSet"; readonly rows: ReadonlyArray<Row> })
  | (Rows & {
      readonly type: "updateSet"
      readonly keys: ReadonlyArray<Key>
      /** The places that are set; the same for every row. */
      readonly places: ReadonlyArray<number>
      readonly rows: ReadonlyArray<Row>
    })
  | (Rows & { readonly type: "deleteSet"; readonly keys: ReadonlyArray<Key> })
  /** Keys that rows take in the middle of the run: were one taken before, the replay in order would meet that row. */
  | { readonly type: "absentSet"; readonly route: Route; readonly offset: Offset; readonly keys: ReadonlyArray<Key> }
  | { readonly type: "row"; readonly route: Route; readonly change: RowChange }
  | { readonly type: "truncate"; readonly routes: ReadonlyArray<Route>; readonly change: TruncateChange }

/** The tuple that tells which row is meant: the old row, the old key, or the new row when the key did not change. */
export const identityOf = (change: UpdateChange | DeleteChange): Tuple | null =>
  change.oldTuple ?? change.keyTuple ?? (change.type === "update" ? change.newTuple : null)

/** The cells of an inserted row. */
export const rowOf = (route: Route, tuple: Tuple): Row =>
  route.isWhole ? tuple : route.columns.map(({ index }) => tuple[index])

/** The cells of an updated row: what the source left out is taken from the old row, as far as it was sent. */
export const updatedRowOf = (route: Route, { keyTuple, newTuple, oldTuple }: UpdateChange): Row => {
  if (route.isWhole && !newTuple.includes(undefined)) return newTuple
  return route.columns.map(({ index }, place) => {
    const cell = newTuple[index]
    if (cell !== undefined) return cell
    if (oldTuple !== null) return oldTuple[index]
    return keyTuple !== null && route.key.includes(place) ? keyTuple[index] : undefined
  })
}

/** A row with what it leaves out taken from what was known before. */
const completed = (row: Row, known: Row): Row =>
  row.includes(undefined) ? row.map((cell, place) => (cell === undefined ? known[place] : cell)) : row

/** The net change of one row. */
interface Entry {
  readonly offset: Offset
  /** The key under which the target holds the row before the run; `undefined` if the run inserts it. */
  readonly origin: Key | undefined
  /** What is known of the row; `undefined` cells keep their value in the target. */
  row: Row
  /** The row's key after the changes so far; `undefined` once it is deleted. */
  key: string | undefined
  isKeyChanged: boolean
  isUpdated: boolean
}

/** A key as one string; `undefined` if a part is NULL or unknown. PostgreSQL's text cannot contain NUL. */
const keyText = (route: Route, cellOf: (place: number) => Cell): string | undefined => {
  let text = ""
  for (let part = 0; part < route.key.length; part++) {
    const cell = cellOf(route.key[part])
    if (cell === null || cell === undefined) return undefined
    text = part === 0 ? cell : `${text}\u0000${cell}`
  }
  return text
}

/** Types whose equal values are equal texts, whatever the settings under which the source printed them. */
const printsAlike = new Set([
  "smallint",
  "integer",
  "bigint",
  "uuid",
  "text",
  "character varying",
  "date",
  "timestamp without time zone"
])

/** The changes of one table of which a key means one row at most. */
class KeyedLane {
  readonly route: Route
  private readonly entries: Array<Entry> = []
  private readonly current = new Map<string, Entry>()
  /** Keys of which it is known whether the target held them before the run. */
  private readonly met = new Set<string>()
  /** Rows that an update moves, by the key they had before the run. */
  private readonly moved = new Map<string, Entry>()
  /** Keys that no row may have had before the run, and of which no insert tells. */
  private readonly passed: Array<{ readonly offset: Offset; readonly key: Key }> = []
  /** An UPDATE cannot set an ALWAYS identity column; outside the key nothing tells whether its value changed. */
  private readonly isUpdatable: boolean
  private readonly hasIdentityKey: boolean

  constructor(route: Route) {
    this.route = route
    this.hasIdentityKey = route.key.some((place) => route.columns[place].column.identity === "always")
    this.isUpdatable = route.columns.every(
      ({ column }, place) => column.identity !== "always" || route.key.includes(place)
    )
  }

  /** Returns false, and takes nothing of the change, when only the source's order can tell what it means. */
  add(change: RowChange, route: Route): boolean {
    const { offset } = change
    if (change.type === "insert") {
      const row = rowOf(route, change.tuple)
      const key = keyText(route, (place) => row[place])
      if (key === undefined || this.current.has(key)) return false
      this.enter({ offset, origin: undefined, row, key, isKeyChanged: false, isUpdated: false }, key)
      return true
    }
    const identity = identityOf(change)
    if (identity === null) return false
    const old = keyText(route, (place) => identity[route.columns[place].index])
    if (old === undefined) return false
    const known = this.current.get(old)
    // The run has moved or deleted this row already: in order, the change would miss its row.
    if (known === undefined && this.met.has(old)) return false
    const entryOf = (): Entry => {
      if (known !== undefined) return known
      this.met.add(old)
      const origin = route.key.map((place) => identity[route.columns[place].index])
      return this.enter({ offset, origin, row: [], key: old, isKeyChanged: false, isUpdated: false }, old)
    }
    if (change.type === "delete") {
      const entry = entryOf()
      this.leave(old, entry)
      entry.key = undefined
      return true
    }
    if (!this.isUpdatable) return false
    const sent = updatedRowOf(route, change)
    const row = known === undefined ? sent : completed(sent, known.row)
    const key = keyText(route, (place) => row[place])
    if (key === undefined || (key !== old && !this.mayMove(key, known))) return false
    const entry = entryOf()
    if (key !== old) {
      if (entry.origin === undefined) {
        // In order, not the insert would meet a row that is there already, but this update.
        if (!this.met.has(key)) this.pass(key, row, offset)
      } else if (!entry.isKeyChanged) this.moved.set(old, entry)
      this.leave(old, entry)
      this.current.set(key, entry)
      entry.key = key
      entry.isKeyChanged = true
    }
    entry.row = row
    entry.isUpdated = true
    return true
  }

  private enter(entry: Entry, key: string): Entry {
    this.current.set(key, entry)
    this.entries.push(entry)
    return entry
  }

  /**
   * A taken key may be a deferred constraint at work; an UPDATE cannot set an ALWAYS identity column; and of two updates
   * in a chain, one could meet the row that the other has moved, when its own is missing.
   */
  private mayMove(key: string, known: Entry | undefined): boolean {
    if (this.current.has(key) || this.hasIdentityKey) return false
    const mover = this.moved.get(key)
    return mover === undefined || mover === known || (known !== undefined && known.origin === undefined)
  }

  /** A row leaves its key. A key that was never met has been entered by this run. */
  private leave(key: string, { offset, row }: Entry): void {
    this.current.delete(key)
    if (!this.met.has(key)) this.pass(key, row, offset)
  }

  private pass(key: string, row: Row, offset: Offset): void {
    this.met.add(key)
    this.passed.push({ offset, key: this.route.key.map((place) => row[place]) })
  }

  /** Delete, then update, then insert: a key is vacated before it is taken. */
  steps(): Array<Step> {
    const { passed, route } = this
    const deleted: Array<Entry> = []
    const updated = new Map<string, Array<Entry>>()
    const inserted: Array<Entry> = []
    for (const entry of this.entries) {
      if (entry.origin === undefined) {
        if (entry.key !== undefined) inserted.push(entry)
      } else if (entry.key === undefined) deleted.push(entry)
      else {
        const shape = shapeOf(entry)
        const same = updated.get(shape)
        if (same === undefined) updated.set(shape, [entry])
        else same.push(entry)
      }
    }
    const isKeyExact = route.key.every((place) => printsAlike.has(route.columns[place].column.type))
    const steps: Array<Step> = []
    if (deleted.length > 0) {
      const [{ offset }] = deleted
      steps.push({ type: "deleteSet", route, offset, mayMiss: isKeyExact, keys: deleted.map(originOf) })
    }
    if (passed.length > 0) {
      steps.push({ type: "absentSet", route, offset: passed[0].offset, keys: passed.map(({ key }) => key) })
    }
    for (const entries of updated.values()) {
      const [first] = entries
      const places = route.columns.flatMap((_, place) =>
        first.row[place] !== undefined && (first.isKeyChanged || !route.key.includes(place)) ? [place] : []
      )
      if (places.length === 0) continue
      const rows = entries.map((entry) => entry.row)
      const mayMiss = isKeyExact && !first.isKeyChanged
      steps.push({ type: "updateSet", route, offset: first.offset, mayMiss, keys: entries.map(originOf), places, rows })
    }
    if (inserted.length > 0) {
      const mayMiss = inserted.every((entry) => !entry.isUpdated)
      const rows = inserted.map((entry) => entry.row)
      steps.push({ type: "insertSet", route, offset: inserted[0].offset, mayMiss, rows })
    }
    return steps
  }
}

const originOf = (entry: Entry): Key => entry.origin ?? []

/** Which columns an update sets: entries of one shape share a statement. */
const shapeOf = (entry: Entry): string => {
  let shape = entry.isKeyChanged ? "k" : ""
  for (let place = 0; place < entry.row.length; place++) if (entry.row[place] === undefined) shape += `,${place}`
  return shape
}

/** The changes of one table without a key that means one row at most: their order stays, adjacent inserts share a step. */
class OrderedLane {
  readonly route: Route
  private readonly done: Array<Step> = []
  private rows: Array<Row> = []
  private first: Offset | undefined

  constructor(route: Route) {
    this.route = route
  }

  add(change: RowChange, route: Route): boolean {
    if (change.type === "insert") {
      this.first ??= change.offset
      this.rows.push(rowOf(route, change.tuple))
    } else {
      this.flush()
      this.done.push({ type: "row", route, change })
    }
    return true
  }

  steps(): Array<Step> {
    this.flush()
    return this.done
  }

  private flush(): void {
    if (this.first === undefined) return
    this.done.push({ type: "insertSet", route: this.route, offset: this.first, mayMiss: true, rows: this.rows })
    this.rows = []
    this.first = undefined
  }
}

type Lane = KeyedLane | OrderedLane

/** Cells mean the same by their place: relations that one table holds together, as partitions and shards, share a lane. */
const isSameLayout = (left: Route, right: Route): boolean =>
  left.lookup === right.lookup &&
  left.columns.length === right.columns.length &&
  left.columns.every(({ column }, place) => column.name === right.columns[place].column.name) &&
  left.key.length === right.key.length &&
  left.key.every((place, part) => place === right.key[part])

/**
 * Folds a run of changes. A change of which only the order tells what it means comes after what was folded of its table
 * so far, and alone if it must. A run of which a trigger, a rule or a foreign key sees the order keeps it as a whole,
 * because folding gives up the order of changes of different tables.
 */
export const fold = (changes: ReadonlyArray<PlannedChange>, routeOf: RouteOf): ReadonlyArray<Step> => {
  const steps: Array<Step> = []
  const lanes = new Map<string, Lane>()
  const laneByRoute = new Map<Route, Lane>()
  const flush = () => {
    for (const lane of lanes.values()) steps.push(...lane.steps())
    lanes.clear()
    laneByRoute.clear()
  }
  const laneOf = (route: Route): Lane => {
    const table = qualified(route.table.schema, route.table.name)
    let lane = lanes.get(table)
    if (lane !== undefined && !isSameLayout(lane.route, route)) {
      flush()
      lane = undefined
    }
    lane ??= route.lookup === "key" && route.isKeyUnique ? new KeyedLane(route) : new OrderedLane(route)
    lanes.set(table, lane)
    laneByRoute.set(route, lane)
    return lane
  }
  const flushTable = (route: Route, lane: Lane) => {
    steps.push(...lane.steps())
    lanes.delete(qualified(route.table.schema, route.table.name))
    for (const [other, its] of laneByRoute) if (its === lane) laneByRoute.delete(other)
  }
  for (const change of changes) {
    if (change.type === "truncate") {
      flush()
      const routes = change.relations.map(routeOf).filter((route) => route !== undefined)
      if (routes.length > 0) steps.push({ type: "truncate", routes, change })
      continue
    }
    const route = routeOf(change.relation)
    if (route === undefined) continue
    if (route.table.firesTriggers) return inOrder(changes, routeOf)
    const lane = laneByRoute.get(route) ?? laneOf(route)
    if (lane.add(change, route)) continue
    flushTable(route, lane)
    const fresh = laneOf(route)
    if (fresh.add(change, route)) continue
    flushTable(route, fresh)
    steps.push({ type: "row", route, change })
  }
  flush()
  return steps
}

/** The same run, one change at a time: the exact plan. */
export const inOrder = (changes: ReadonlyArray<PlannedChange>, routeOf: RouteOf): ReadonlyArray<Step> =>
  changes.flatMap((change): ReadonlyArray<Step> => {
    if (change.type === "truncate") {
      const routes = change.relations.map(routeOf).filter((route) => route !== undefined)
      return routes.length > 0 ? [{ type: "truncate", routes, change }] : []
    }
    const route = routeOf(change.relation)
    return route === undefined ? [] : [{ type: "row", route, change }]
  })
