/**
 * The net effect of a run of changes: pure, and the reason why applying is fast.
 *
 * Where a table has a key, the changes of one row become one entry; where it has none, their order stays and adjacent
 * inserts are joined. Folding gives up wherever only the source's order can tell what a change means. Its result may be
 * clever because the exact replay, one change at a time, is always at hand.
 */
import type { Offset } from "./FluvioConsumer.ts"
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

/** One step of a plan: a set of rows of one table, one row, or a truncate. */
export type Step =
  | { readonly type: "insertSet"; readonly route: Route; readonly offset: Offset; readonly rows: ReadonlyArray<Row> }
  | {
      readonly type: "updateSet"
      readonly route: Route
      readonly offset: Offset
      readonly keys: ReadonlyArray<Key>
      /** The places that are set; the same for every row. */
      readonly places: ReadonlyArray<number>
      readonly rows: ReadonlyArray<Row>
    }
  | { readonly type: "deleteSet"; readonly route: Route; readonly offset: Offset; readonly keys: ReadonlyArray<Key> }
  | { readonly type: "row"; readonly route: Route; readonly change: RowChange }
  | { readonly type: "truncate"; readonly routes: ReadonlyArray<Route>; readonly change: TruncateChange }

/** The tuple that tells which row is meant: the old row, the old key, or the new row when the key did not change. */
export const identityOf = (change: UpdateChange | DeleteChange): Tuple | null =>
  change.oldTuple ?? change.keyTuple ?? (change.type === "update" ? change.newTuple : null)

/** The cells of an inserted row. */
export const rowOf = (route: Route, tuple: Tuple): Array<Cell> => route.columns.map(({ index }) => tuple[index])

/** The cells of an updated row: what the source left out is taken from the old row, as far as it was sent. */
export const updatedRowOf = (route: Route, { keyTuple, newTuple, oldTuple }: UpdateChange): Array<Cell> =>
  route.columns.map(({ index }, place) => {
    const cell = newTuple[index]
    if (cell !== undefined) return cell
    if (oldTuple !== null) return oldTuple[index]
    return keyTuple !== null && route.key.includes(place) ? keyTuple[index] : undefined
  })

/** The net change of one row. */
interface Entry {
  readonly offset: Offset
  /** The key under which the target holds the row before the run; `undefined` if the run inserts it. */
  readonly origin: Key | undefined
  /** What is known of the row; `undefined` cells keep their value in the target. */
  row: Array<Cell>
  /** The row's key after the changes so far; `undefined` once it is deleted. */
  key: string | undefined
  isKeyChanged: boolean
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

/** The changes of one table that has a key. */
class KeyedLane {
  readonly route: Route
  private readonly entries: Array<Entry> = []
  private readonly current = new Map<string, Entry>()
  /** Keys that the target held before the run, as far as the run has met them. */
  private readonly met = new Set<string>()

  constructor(route: Route) {
    this.route = route
  }

  /** Returns false when only the source's order can tell what the change means. */
  add(change: RowChange): boolean {
    const { route } = this
    if (change.type === "insert") {
      const row = rowOf(route, change.tuple)
      const key = keyText(route, (place) => row[place])
      if (key === undefined || this.current.has(key)) return false
      const entry: Entry = { offset: change.offset, origin: undefined, row, key, isKeyChanged: false }
      this.current.set(key, entry)
      this.entries.push(entry)
      return true
    }
    const identity = identityOf(change)
    if (identity === null) return false
    const old = keyText(route, (place) => identity[route.columns[place].index])
    if (old === undefined) return false
    let entry = this.current.get(old)
    if (entry === undefined) {
      // The run has moved or deleted this row already: in order, the change would miss its row.
      if (this.met.has(old)) return false
      this.met.add(old)
      const origin = route.key.map((place) => identity[route.columns[place].index])
      entry = { offset: change.offset, origin, row: [], key: old, isKeyChanged: false }
      this.current.set(old, entry)
      this.entries.push(entry)
    }
    if (change.type === "delete") {
      entry.key = undefined
      this.current.delete(old)
      return true
    }
    const row = updatedRowOf(route, change)
    const { row: known } = entry
    for (let place = 0; place < known.length; place++) if (row[place] === undefined) row[place] = known[place]
    entry.row = row
    const key = keyText(route, (place) => row[place])
    if (key === undefined) return false
    if (key !== old) {
      // An UPDATE cannot set an ALWAYS identity column, and a taken key may be a deferred constraint at work.
      if (this.current.has(key) || route.key.some((place) => route.columns[place].column.identity === "always"))
        return false
      this.current.delete(old)
      this.current.set(key, entry)
      entry.key = key
      entry.isKeyChanged = true
    }
    return true
  }

  /** Delete, then update, then insert: a key is vacated before it is taken. */
  steps(): Array<Step> {
    const { route } = this
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
    const steps: Array<Step> = []
    if (deleted.length > 0) {
      steps.push({ type: "deleteSet", route, offset: deleted[0].offset, keys: deleted.map(originOf) })
    }
    for (const entries of updated.values()) {
      const [first] = entries
      const places = route.columns.flatMap((_, place) =>
        first.row[place] !== undefined && (first.isKeyChanged || !route.key.includes(place)) ? [place] : []
      )
      if (places.length === 0) continue
      const rows = entries.map((entry) => entry.row)
      steps.push({ type: "updateSet", route, offset: first.offset, keys: entries.map(originOf), places, rows })
    }
    if (inserted.length > 0) {
      steps.push({ type: "insertSet", route, offset: inserted[0].offset, rows: inserted.map((entry) => entry.row) })
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

/** The changes of one table without a usable key: their order stays, adjacent inserts share a step. */
class OrderedLane {
  readonly route: Route
  private readonly done: Array<Step> = []
  private rows: Array<Row> = []
  private first: Offset | undefined

  constructor(route: Route) {
    this.route = route
  }

  add(change: RowChange): boolean {
    if (change.type === "insert") {
      this.first ??= change.offset
      this.rows.push(rowOf(this.route, change.tuple))
    } else {
      this.flush()
      this.done.push({ type: "row", route: this.route, change })
    }
    return true
  }

  steps(): Array<Step> {
    this.flush()
    return this.done
  }

  private flush(): void {
    if (this.first === undefined) return
    this.done.push({ type: "insertSet", route: this.route, offset: this.first, rows: this.rows })
    this.rows = []
    this.first = undefined
  }
}

/** An UPDATE cannot set an ALWAYS identity column; outside the key nothing tells whether its value changed. */
const setsIdentity = (route: Route): boolean =>
  route.columns.some(({ column }, place) => column.identity === "always" && !route.key.includes(place))

/**
 * Folds a run of changes, or answers `undefined` when it must be replayed in order: a trigger would see another order,
 * a key is met in a way that folding cannot explain, or a row cannot be identified.
 */
export const fold = (changes: ReadonlyArray<PlannedChange>, routeOf: RouteOf): ReadonlyArray<Step> | undefined => {
  const steps: Array<Step> = []
  const lanes = new Map<Route, KeyedLane | OrderedLane>()
  const flush = () => {
    for (const lane of lanes.values()) steps.push(...lane.steps())
    lanes.clear()
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
    let lane = lanes.get(route)
    if (lane === undefined) {
      if (route.table.firesTriggers) return undefined
      lane = route.lookup === "key" ? new KeyedLane(route) : new OrderedLane(route)
      lanes.set(route, lane)
    }
    if (change.type === "update" && setsIdentity(route)) return undefined
    if (!lane.add(change)) return undefined
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
