/**
 * The net effect of a run of changes: pure, and the reason why applying is fast.
 *
 * Where a table has a unique key, the changes of one row become one entry; where it has none, their order stays and adjacent
 * inserts are joined. Wherever only the source's order can tell what a change means, it stays in order. Sets say how many
 * rows they must touch, and may be clever because the exact replay, one change at a time, is always at hand.
 */
import type { Offset } from "../stream/FluvioConsumer.ts"
import { qualified } from "../target/Identifier.ts"
import { KeyTable } from "./KeyTable.ts"
import type { Route } from "../target/Route.ts"
import type { DeleteChange, RowChange, TruncateChange, UpdateChange } from "../stream/Change.ts"
import { Tuple } from "../stream/Tuple.ts"

/** What a plan can carry: changes without a schema change in between. */
export type PlannedChange = RowChange | TruncateChange

/** The route of a relation; `undefined` when the table is filtered out. */
export type RouteOf = (relation: RowChange["relation"]) => Route | undefined

/** A set of rows of one table. Their tuples have the order of the route's relation; of a key, only its cells count. */
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
  | (Rows & { readonly type: "insertSet"; readonly rows: ReadonlyArray<Tuple> })
  | (Rows & {
      readonly type: "updateSet"
      readonly keys: ReadonlyArray<Tuple>
      /** The places in `route.columns` that are set; the same for every row. */
      readonly places: ReadonlyArray<number>
      /** The places whose values the target must have already, because no UPDATE can set them: ALWAYS identities. */
      readonly same: ReadonlyArray<number>
      readonly rows: ReadonlyArray<Tuple>
    })
  | (Rows & { readonly type: "deleteSet"; readonly keys: ReadonlyArray<Tuple> })
  /** Keys that rows take in the middle of the run: were one taken before, the replay in order would meet that row. */
  | { readonly type: "absentSet"; readonly route: Route; readonly offset: Offset; readonly keys: ReadonlyArray<Tuple> }
  | { readonly type: "row"; readonly route: Route; readonly change: RowChange }
  | { readonly type: "truncate"; readonly routes: ReadonlyArray<Route>; readonly change: TruncateChange }

/** The tuple that tells which row is meant: the old row, the old key, or the new row when the key did not change. */
export const identityOf = (change: UpdateChange | DeleteChange): Tuple | null =>
  change.oldTuple ?? change.keyTuple ?? (change.type === "update" ? change.newTuple : null)

/** The updated row: what the source left out is taken from the old row, as far as it was sent. */
export const updatedRowOf = (route: Route, { keyTuple, newTuple, oldTuple }: UpdateChange): Tuple => {
  if (newTuple.isComplete) return newTuple
  if (oldTuple !== null) return newTuple.over(oldTuple)
  const key = route.key.map((place) => route.columns[place].index)
  if (keyTuple === null || key.every((index) => newTuple.isKnown(index))) return newTuple
  // Cells of a key tuple that are not of the key are NULL only because they were not sent.
  return Tuple.of(newTuple.cells.map((cell, index) => (key.includes(index) ? (cell ?? keyTuple.cell(index)) : cell)))
}

/** The net change of one row. */
interface Entry {
  readonly offset: Offset
  /** The key under which the target holds the row before the run; `undefined` if the run inserts it. */
  readonly origin: Tuple | undefined
  /** What is known of the row, the rest keeps its value in the target; only the key of one that is deleted. */
  row: Tuple
  /** The row's key after the changes so far; -1 once it is deleted. */
  key: number
  isKeyChanged: boolean
  isUpdated: boolean
}

/**
 * Types whose equal values are equal texts, whatever the settings under which the source printed them. Dates and times
 * are none: `DateStyle` and `TimeZone` may change between two sessions of the source.
 */
const printsAlike = new Set(["smallint", "integer", "bigint", "uuid", "text", "character varying"])

/** The changes of one table of which a key means one row at most. */
class KeyedLane {
  readonly route: Route
  private readonly keys: KeyTable
  private readonly entries: Array<Entry> = []
  /** By key: the row that has it now. */
  private readonly current: Array<Entry | undefined> = []
  /** By key: whether it is known if the target held it before the run. */
  private readonly met: Array<boolean | undefined> = []
  /** Rows that an update moves, by the key they had before the run. */
  private readonly moved = new Map<number, Entry>()
  /** Keys that no row may have had before the run, and of which no insert tells. */
  private readonly passed: Array<{ readonly offset: Offset; readonly row: Tuple }> = []
  private readonly hasIdentityKey: boolean
  /** Equal keys are equal texts. Otherwise two entries may be the same row, which only their statements can tell. */
  private readonly isKeyExact: boolean
  /** That of the updates so far, where keys are not exact: which of two shapes is the later one would be lost. */
  private shape: string | undefined
  private hasInserted = false

  constructor(route: Route) {
    this.route = route
    this.keys = new KeyTable(route.key.map((place) => route.columns[place].index))
    this.isKeyExact = route.key.every((place) => printsAlike.has(route.columns[place].column.type))
    this.hasIdentityKey = route.key.some((place) => route.columns[place].column.identity === "always")
  }

  /** Returns false, and takes nothing of the change, when only the source's order can tell what it means. */
  add(change: RowChange, route: Route): boolean {
    const { offset } = change
    if (change.type === "insert") {
      const row = change.tuple
      const key = this.keys.numberOf(row)
      if (key < 0 || this.current[key] !== undefined) return false
      this.hasInserted = true
      this.enter({ offset, origin: undefined, row, key, isKeyChanged: false, isUpdated: false })
      return true
    }
    const identity = identityOf(change)
    if (identity === null) return false
    const old = this.keys.numberOf(identity)
    if (old < 0) return false
    const known = this.current[old]
    // The run has moved or deleted this row already: in order, the change would miss its row.
    if (known === undefined && this.met[old] === true) return false
    if (!this.mayOvertake(known)) return false
    if (change.type === "delete") {
      const entry = known ?? this.meet(old, identity, offset)
      this.leave(entry)
      entry.key = -1
      return true
    }
    const sent = updatedRowOf(route, change)
    const row = known === undefined ? sent : sent.over(known.row)
    const key = this.keys.numberOf(row)
    if (key < 0 || (key !== old && !this.mayMove(key, known))) return false
    if (!this.isKeyExact && (known === undefined || known.origin !== undefined)) {
      const shape = shapeOf({ isKeyChanged: false, row })
      if (this.shape !== undefined && this.shape !== shape) return false
      this.shape = shape
    }
    const entry = known ?? this.meet(old, identity, offset)
    if (key !== old) {
      if (entry.origin === undefined) {
        // In order, not the insert would meet a row that is there already, but this update.
        if (this.met[key] !== true) this.pass(key, row, offset)
      } else if (!entry.isKeyChanged) this.moved.set(old, entry)
      this.leave(entry)
      this.current[key] = entry
      entry.key = key
      entry.isKeyChanged = true
    }
    entry.row = row
    entry.isUpdated = true
    return true
  }

  /** The entry of a row that the target holds. */
  private meet(key: number, row: Tuple, offset: Offset): Entry {
    this.met[key] = true
    return this.enter({ offset, origin: row, row, key, isKeyChanged: false, isUpdated: false })
  }

  private enter(entry: Entry): Entry {
    this.current[entry.key] = entry
    this.entries.push(entry)
    return entry
  }

  /**
   * A taken key may be a deferred constraint at work, and where equal keys may differ as texts, none is known to be free;
   * an UPDATE cannot set an ALWAYS identity column; and of two updates in a chain, one could meet the row that the other
   * has moved, when its own is missing.
   */
  private mayMove(key: number, known: Entry | undefined): boolean {
    if (this.current[key] !== undefined || this.hasIdentityKey || !this.isKeyExact) return false
    const mover = this.moved.get(key)
    return mover === undefined || mover === known || (known !== undefined && known.origin === undefined)
  }

  /**
   * Deletes and updates of rows that the target holds come before the run's inserts. Where equal keys may differ as texts,
   * an insert that came before them could have met that very row, which is then another one.
   */
  private mayOvertake(known: Entry | undefined): boolean {
    return this.isKeyExact || !this.hasInserted || (known !== undefined && known.origin === undefined)
  }

  /** A row leaves its key. A key that was never met has been entered by this run. */
  private leave({ key, offset, row }: Entry): void {
    this.current[key] = undefined
    if (this.met[key] !== true) this.pass(key, row, offset)
  }

  private pass(key: number, row: Tuple, offset: Offset): void {
    this.met[key] = true
    this.passed.push({ offset, row })
  }

  /** Delete, then update, then insert: a key is vacated before it is taken. */
  steps(): Array<Step> {
    const { passed, route } = this
    const deleted: Array<Entry> = []
    const updated = new Map<string, Array<Entry>>()
    const inserted: Array<Tuple> = []
    let firstInserted: Offset | undefined
    let mayInsertMiss = true
    for (let n = 0; n < this.entries.length; n++) {
      const entry = this.entries[n]
      if (entry.origin === undefined) {
        if (entry.key < 0) continue
        firstInserted ??= entry.offset
        mayInsertMiss &&= !entry.isUpdated
        inserted.push(entry.row)
      } else if (entry.key < 0) deleted.push(entry)
      else {
        const shape = shapeOf(entry)
        const same = updated.get(shape)
        if (same === undefined) updated.set(shape, [entry])
        else same.push(entry)
      }
    }
    const steps: Array<Step> = []
    if (deleted.length > 0) {
      const [{ offset }] = deleted
      steps.push({ type: "deleteSet", route, offset, mayMiss: this.isKeyExact, keys: deleted.map(originOf) })
    }
    if (passed.length > 0) {
      steps.push({ type: "absentSet", route, offset: passed[0].offset, keys: passed.map(({ row }) => row) })
    }
    for (const entries of updated.values()) {
      const [first] = entries
      const known = route.columns.flatMap(({ index }, place) => (first.row.isKnown(index) ? [place] : []))
      const isAlways = (place: number) => route.columns[place].column.identity === "always"
      const isKey = (place: number) => route.key.includes(place)
      const settable = known.filter((place) => !isAlways(place))
      const same = known.filter((place) => isAlways(place) && !isKey(place))
      // A key that is equal may be another text, which the row then gets as well.
      const others = settable.filter((place) => first.isKeyChanged || !this.isKeyExact || !isKey(place))
      // An update that says nothing is one all the same: its row may be missing.
      const places = others.length > 0 ? others : settable
      if (places.length === 0) continue
      const rows = entries.map((entry) => entry.row)
      const mayMiss = this.isKeyExact && !first.isKeyChanged && same.length === 0
      const keys = entries.map(originOf)
      steps.push({ type: "updateSet", route, offset: first.offset, mayMiss, keys, places, same, rows })
    }
    if (firstInserted !== undefined) {
      steps.push({ type: "insertSet", route, offset: firstInserted, mayMiss: mayInsertMiss, rows: inserted })
    }
    return steps
  }
}

const originOf = (entry: Entry): Tuple => entry.origin ?? entry.row

/** Which columns an update sets: entries of one shape share a statement. */
const shapeOf = ({ isKeyChanged, row }: Pick<Entry, "isKeyChanged" | "row">): string => {
  let shape = isKeyChanged ? "k" : ""
  if (row.isComplete) return shape
  for (let index = 0; index < row.length; index++) if (!row.isKnown(index)) shape += `,${index}`
  return shape
}

/** The changes of one table without a key that means one row at most: their order stays, adjacent inserts share a step. */
class OrderedLane {
  readonly route: Route
  private readonly done: Array<Step> = []
  private rows: Array<Tuple> = []
  private first: Offset | undefined

  constructor(route: Route) {
    this.route = route
  }

  add(change: RowChange, route: Route): boolean {
    if (change.type === "insert") {
      this.first ??= change.offset
      this.rows.push(change.tuple)
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
  left.columns.every(
    ({ column, index }, place) =>
      column.name === right.columns[place].column.name && index === right.columns[place].index
  ) &&
  left.key.length === right.key.length &&
  left.key.every((place, part) => place === right.key[part])

/** Tables that others of these refer to come before them. */
const referencedFirst = (lanes: ReadonlyMap<string, Lane>): ReadonlyArray<Lane> => {
  const ordered = new Set<Lane>()
  const visited = new Set<Lane>()
  const visit = (lane: Lane) => {
    if (visited.has(lane)) return
    visited.add(lane)
    for (const { name, schema } of lane.route.table.references) {
      const other = lanes.get(qualified(schema, name))
      if (other !== undefined) visit(other)
    }
    ordered.add(lane)
  }
  lanes.forEach(visit)
  return [...ordered]
}

/**
 * Folds a run of changes. A change of which only the order tells what it means comes after what was folded of its table
 * so far, and alone if it must. A run of which a trigger or rule sees the order keeps it as a whole, because folding
 * gives up the order of changes of different tables.
 *
 * Where foreign keys are checked, only changes of one kind that follow each other are folded, and updates only those of
 * one table: rows are inserted behind those that they refer to, and deleted before them. PostgreSQL checks a set at its
 * end, so that its rows may refer to each other as they did in the source's statement.
 */
export const fold = (changes: ReadonlyArray<PlannedChange>, routeOf: RouteOf): ReadonlyArray<Step> => {
  const steps: Array<Step> = []
  const lanes = new Map<string, Lane>()
  const laneByRoute = new Map<Route, Lane>()
  /** In a run with foreign keys: the kind of the changes that are being folded, and the table of an update. */
  let block: { readonly type: RowChange["type"]; readonly route: Route } | undefined
  const flush = () => {
    if (block !== undefined) {
      const ordered = referencedFirst(lanes)
      for (const lane of block.type === "delete" ? ordered.toReversed() : ordered) steps.push(...lane.steps())
    } else for (const lane of lanes.values()) steps.push(...lane.steps())
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
    if (block !== undefined) return flush()
    steps.push(...lane.steps())
    lanes.delete(qualified(route.table.schema, route.table.name))
    for (const [other, its] of laneByRoute) if (its === lane) laneByRoute.delete(other)
  }
  let relation: RowChange["relation"] | undefined
  let route: Route | undefined
  const hasForeignKeys = checksForeignKeys(changes, routeOf)
  // By index, as everything that is done for each change: until V8 has optimized it, an iterator makes garbage.
  for (let n = 0; n < changes.length; n++) {
    const change = changes[n]
    if (change.type === "truncate") {
      flush()
      const routes = change.relations.map(routeOf).filter((route) => route !== undefined)
      if (routes.length > 0) steps.push({ type: "truncate", routes, change })
      continue
    }
    if (change.relation !== relation) {
      relation = change.relation
      route = routeOf(relation)
    }
    if (route === undefined) continue
    if (route.table.firesTriggers) return inOrder(changes, routeOf)
    if (hasForeignKeys) {
      const { type } = change
      if (block !== undefined && (block.type !== type || (type === "update" && block.route !== route))) flush()
      block = { type, route }
    }
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

/** Whether a foreign key of a table that is changed is checked. */
const checksForeignKeys = (changes: ReadonlyArray<PlannedChange>, routeOf: RouteOf): boolean => {
  let relation: RowChange["relation"] | undefined
  for (let n = 0; n < changes.length; n++) {
    const change = changes[n]
    if (change.type === "truncate" || change.relation === relation) continue
    relation = change.relation
    if (routeOf(relation)?.table.checksForeignKeys === true) return true
  }
  return false
}

/** Rows of the table refer to others of it, so that the source may have inserted them by one statement alone. */
const refersToItself = ({ name, references, schema }: Route["table"]): boolean =>
  references.some((other) => other.name === name && other.schema === schema)

/**
 * The same run, one change at a time: the exact plan. Only rows that may refer to each other are inserted together.
 */
export const inOrder = (changes: ReadonlyArray<PlannedChange>, routeOf: RouteOf): ReadonlyArray<Step> => {
  const steps: Array<Step> = []
  let together: { readonly route: Route; readonly rows: Array<Tuple> } | undefined
  for (const change of changes) {
    if (change.type === "truncate") {
      together = undefined
      const routes = change.relations.map(routeOf).filter((route) => route !== undefined)
      if (routes.length > 0) steps.push({ type: "truncate", routes, change })
      continue
    }
    const route = routeOf(change.relation)
    if (route === undefined) continue
    if (change.type !== "insert" || !refersToItself(route.table)) {
      together = undefined
      steps.push({ type: "row", route, change })
    } else if (together?.route === route) together.rows.push(change.tuple)
    else {
      together = { route, rows: [change.tuple] }
      steps.push({ type: "insertSet", route, offset: change.offset, mayMiss: true, rows: together.rows })
    }
  }
  return steps
}
