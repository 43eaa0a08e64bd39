/**
 * The steps of a plan as SQL: pure, and the only place where statements on the user's tables are written.
 *
 * Values are always bound or copied, as text, so that each column's own input function reads them; names are always
 * quoted and qualified. A set of rows travels as one array a column, and new ones in the format of COPY where they can.
 */
import { Context } from "effect"
import type { Offset } from "../stream/FluvioConsumer.ts"
import { type Step, identityOf, updatedRowOf } from "./Fold.ts"
import { qualified, quote } from "../target/Identifier.ts"
import type { Route, RoutedColumn } from "../target/Route.ts"
import { arrayOf, linesOf } from "./RowText.ts"
import type { TargetColumn } from "../target/TargetTable.ts"
import type { RowChange } from "../stream/Change.ts"
import type { Tuple } from "../stream/Tuple.ts"

export interface PlanOptions {
  /** What an insert does that finds its row already there. */
  readonly existingRow: "halt" | "update" | "skip"
  /** Whether a truncate's CASCADE is passed on; PostgreSQL's own subscriptions never do. */
  readonly truncateCascade: "as-source" | "never"
  /** Sets of new rows may travel by COPY, see {@link TakesCopy}. */
  readonly takesCopy: boolean
}

/**
 * Whether the `SqlClient` carries out `COPY … FROM STDIN` with the data as the one parameter of the statement, as the one
 * of `layers/postgres/Target.ts` does. The driver alone has no COPY.
 */
export const TakesCopy = Context.Reference<boolean>("fluvio-postgres-sink/TakesCopy", { defaultValue: () => false })

export interface Statement {
  /** A `check` touches nothing: the rows it finds should not be there. */
  readonly kind: "insert" | "update" | "delete" | "truncate" | "check"
  readonly text: string
  /** Bound as text; bytes are the data of a COPY. */
  readonly params: ReadonlyArray<string | null | Uint8Array>
  /** How many rows it touches when source and target agree; `undefined` for a truncate. */
  readonly rows: number | undefined
  /** In a folded plan: touching fewer rows means the same as in order; otherwise the plan must be given up. */
  readonly mayMiss: boolean
  readonly route: Route
  /** The tables that a truncate empties, in the order of their routes. */
  readonly emptied?: ReadonlyArray<string>
  /** The first change it carries out. */
  readonly offset: Offset
  /** The old row by which the row is looked up, where that is done by all of it. */
  readonly image?: Tuple
  /** For the update of one row: the insert that stands in when the row is missing, if the row is fully known. */
  readonly insert: Statement | undefined
}

/** The stream does not say which row is meant: the relation has no identity that the target can look up. */
export class NoIdentity {
  readonly _tag = "NoIdentity"
  readonly route: Route
  readonly offset: Offset
  constructor(route: Route, offset: Offset) {
    this.route = route
    this.offset = offset
  }
}

const tableName = (route: Route): string => qualified(route.table.schema, route.table.name)

/** Rows of tables that inherit from the table are changes of those tables; of a partitioned one they are its own. */
const ownRows = (route: Route): string => (route.table.isPartitioned ? tableName(route) : `ONLY ${tableName(route)}`)

/** Columns of a set of rows, one array each. */
const arraysOf = (columns: ReadonlyArray<RoutedColumn>, rows: ReadonlyArray<Tuple>): Array<string> =>
  columns.map(({ column, index }) => arrayOf(rows, index, column.isArray ? undefined : column.delimiter))

/** A column of a set: what the set's select list says, and what its value is where the set is `v`. */
interface SetColumn {
  readonly listed: string
  readonly value: string
}

/**
 * A parameter as a column of rows: `unnest` in a select list runs all arrays in lockstep, without a tuple store.
 *
 * The input of an array calls its elements' input function, whereas a cast from text is whatever somebody has created.
 * Only an array of arrays would be flattened: those come as text, and where there is such a cast they take the way of
 * JSON, which knows input functions alone but needs half as long again.
 */
const setColumn = ({ hasTextCast, isArray, type }: TargetColumn, parameter: number, name: string): SetColumn => {
  const value = `v.${name}`
  if (!isArray) return { listed: `unnest($${parameter}::${type}[])`, value }
  const texts = `unnest($${parameter}::text[])`
  if (hasTextCast !== true) return { listed: `${texts}::${type}`, value }
  return {
    listed: `jsonb_build_object('cell', ${texts})`,
    value: `(SELECT cell FROM jsonb_to_record(${value}) AS row(cell ${type}))`
  }
}

const listOf = (columns: ReadonlyArray<SetColumn>, prefix: string): string =>
  columns.map(({ listed }, n) => `${listed} AS ${prefix}${n}`).join(", ")

const overriding = (columns: ReadonlyArray<RoutedColumn>): string =>
  columns.some(({ column }) => column.identity === "always") ? " OVERRIDING SYSTEM VALUE" : ""

const onConflict = (route: Route, options: PlanOptions): string => {
  if (options.existingRow === "skip") return " ON CONFLICT DO NOTHING"
  if (options.existingRow === "halt" || route.lookup !== "key" || !route.isKeyArbiter) return ""
  const target = route.key.map((place) => quote(route.columns[place].column.name)).join(", ")
  const sets = route.columns
    .filter(({ column }, place) => !route.key.includes(place) && column.identity !== "always")
    .map(({ column }) => `${quote(column.name)} = EXCLUDED.${quote(column.name)}`)
  return ` ON CONFLICT (${target}) DO ${sets.length === 0 ? "NOTHING" : `UPDATE SET ${sets.join(", ")}`}`
}

const namesOf = (columns: ReadonlyArray<RoutedColumn>): string =>
  columns.map(({ column }) => quote(column.name)).join(", ")

const insertSet = (step: Extract<Step, { type: "insertSet" }>, options: PlanOptions): Statement => {
  const { mayMiss, offset, route, rows } = step
  return {
    kind: "insert",
    ...newRows(route, rows, options),
    rows: rows.length,
    mayMiss,
    route,
    offset,
    insert: undefined
  }
}

/** COPY knows no ON CONFLICT. */
const newRows = (
  route: Route,
  rows: ReadonlyArray<Tuple>,
  options: PlanOptions
): Pick<Statement, "text" | "params"> => {
  const { columns } = route
  const table = tableName(route)
  if (columns.length === 0) {
    return { text: `INSERT INTO ${table} SELECT FROM generate_series(1, $1::integer)`, params: [String(rows.length)] }
  }
  const names = namesOf(columns)
  const indexes = columns.map(({ index }) => index)
  if (options.takesCopy && options.existingRow === "halt") {
    return { text: `COPY ${table} (${names}) FROM STDIN`, params: [linesOf(indexes, rows)] }
  }
  const set = columns.map(({ column }, n) => setColumn(column, n + 1, `c${n}`))
  const values = set.map(({ listed }) => listed).join(", ")
  const isPlain = columns.every(({ column }) => column.hasTextCast !== true)
  const select = isPlain ? values : `${set.map(({ value }) => value).join(", ")} FROM (SELECT ${listOf(set, "c")}) AS v`
  return {
    text: `INSERT INTO ${table} (${names})${overriding(columns)} SELECT ${select}${onConflict(route, options)}`,
    params: arraysOf(columns, rows)
  }
}

const keyOf = (route: Route): ReadonlyArray<RoutedColumn> => route.key.map((place) => route.columns[place])

/** The keys of a set: their columns `k0`, `k1`, … of `v`, and the condition that joins the table `t` to them. */
const keysOf = (route: Route) => {
  const columns = keyOf(route).map(({ column }) => column)
  const set = columns.map((column, part) => setColumn(column, part + 1, `k${part}`))
  return {
    list: listOf(set, "k"),
    where: columns.map((column, part) => equals(column, `t.${quote(column.name)}`, set[part].value)).join(" AND ")
  }
}

/**
 * Types without an operator of equality (json, xml, point, …) are compared as the text they print. A row prints its
 * cells by their output functions, whereas a cast to text is whatever somebody has created.
 */
const equals = (column: TargetColumn, left: string, right: string): string =>
  column.hasEquality ? `${left} ${column.equality ?? "="} ${right}` : `ROW(${left})::text = ROW(${right})::text`

/** Of more rows than this the places might not fit into `work_mem`. */
const mostInArray = 100_000

/**
 * The condition that seeks a key of one column in the array itself: PostgreSQL then goes through the index and the table
 * once, in their order. 10,000 deletes by a random uuid take two thirds of the time of a join that way, and no plan can
 * miss the index. Of a partitioned table it would look for all keys in every partition.
 */
const inArray = (route: Route, keys: ReadonlyArray<Tuple>): string | undefined => {
  const [{ column }, ...more] = keyOf(route)
  const isPlain = !column.isArray && column.hasEquality && column.equality === undefined
  if (more.length > 0 || !isPlain || route.table.isPartitioned || keys.length > mostInArray) return undefined
  return `t.${quote(column.name)} = ANY($1::${column.type}[])`
}

/** How rows are found by a set of keys alone: the condition, and before it what must be joined. */
const soughtBy = (route: Route, keys: ReadonlyArray<Tuple>, join: " USING" | ","): string => {
  const condition = inArray(route, keys)
  if (condition !== undefined) return ` WHERE ${condition}`
  const { list, where } = keysOf(route)
  return `${join} (SELECT ${list}) AS v WHERE ${where}`
}

/**
 * A set of many rows has a statement, and with it a plan, of its own. Plans live as long as the session, and one that was
 * made while the table held a row or two goes through the whole set for each row it finds.
 */
const sized = (text: string, rows: number): string => (rows < 64 ? text : `${text} /* many rows */`)

/** In the order of the table no row may need a key, or another unique value, that one behind it gives up. */
const isOrderFree = ({ key, table }: Route, places: ReadonlyArray<number>): boolean =>
  table.uniqueIndexes === 1 && !places.some((place) => key.includes(place))

const updateSet = (step: Extract<Step, { type: "updateSet" }>): Statement => {
  const { keys, mayMiss, offset, places, route, rows } = step
  const columns = places.map((place) => route.columns[place])
  const { list, where } = keysOf(route)
  const cells = columns.map(({ column }, n) => setColumn(column, route.key.length + n + 1, `c${n}`))
  const sets = columns.map(({ column }, n) => `${quote(column.name)} = ${cells[n].value}`).join(", ")
  const found = isOrderFree(route, places) ? inArray(route, keys) : undefined
  const text =
    `UPDATE ${ownRows(route)} AS t SET ${sets} FROM (SELECT ${list}, ${listOf(cells, "c")}) AS v WHERE ${where}` +
    (found === undefined ? "" : ` AND ${found}`)
  return {
    kind: "update",
    text: sized(text, rows.length),
    params: [...arraysOf(keyOf(route), keys), ...arraysOf(columns, rows)],
    rows: rows.length,
    mayMiss,
    route,
    offset,
    insert: undefined
  }
}

const deleteSet = (step: Extract<Step, { type: "deleteSet" }>): Statement => {
  const { keys, mayMiss, offset, route } = step
  return {
    kind: "delete",
    text: sized(`DELETE FROM ${ownRows(route)} AS t${soughtBy(route, keys, " USING")}`, keys.length),
    params: arraysOf(keyOf(route), keys),
    rows: keys.length,
    mayMiss,
    route,
    offset,
    insert: undefined
  }
}

const absentSet = (step: Extract<Step, { type: "absentSet" }>): Statement => {
  const { keys, offset, route } = step
  return {
    kind: "check",
    text: sized(`SELECT FROM ${ownRows(route)} AS t${soughtBy(route, keys, ",")}`, keys.length),
    params: arraysOf(keyOf(route), keys),
    rows: 0,
    mayMiss: false,
    route,
    offset,
    insert: undefined
  }
}

const truncate = (step: Extract<Step, { type: "truncate" }>, options: PlanOptions): Statement => {
  const { change, routes } = step
  const restart = change.restartIdentity ? " RESTART IDENTITY" : ""
  // The source names every table that its CASCADE has reached; what only the target has is none of them.
  const cascade = change.cascade && options.truncateCascade === "as-source" ? " CASCADE" : ""
  return {
    kind: "truncate",
    text: `TRUNCATE ${[...new Set(routes.map(ownRows))].join(", ")}${restart}${cascade}`,
    emptied: [...new Set(routes.map(tableName))],
    params: [],
    rows: undefined,
    mayMiss: true,
    route: routes[0],
    offset: change.offset,
    insert: undefined
  }
}

/**
 * Parameters name their types, as in the sets: a prepared statement keeps those of its parameters, so that the same text
 * would still mean the old type of a column that was altered.
 */
const insertRow = (route: Route, row: Tuple, offset: Offset, options: PlanOptions): Statement => {
  const { columns } = route
  const into = `INSERT INTO ${tableName(route)}`
  const values = columns.map(({ column }, place) => `$${place + 1}::${column.type}`).join(", ")
  return {
    kind: "insert",
    text:
      columns.length === 0
        ? `${into} DEFAULT VALUES`
        : `${into} (${namesOf(columns)})${overriding(columns)} VALUES (${values})${onConflict(route, options)}`,
    params: columns.map(({ index }) => row.cell(index) ?? null),
    rows: 1,
    mayMiss: true,
    route,
    offset,
    insert: undefined
  }
}

/** The condition that finds exactly the row that is meant; its parameters are appended to `params`. */
const whereRow = (
  route: Route,
  identity: Tuple,
  params: Array<string | null>,
  unfilled: ReadonlySet<string> = new Set()
): string => {
  const condition = (routed: RoutedColumn): string => {
    const name = `t.${quote(routed.column.name)}`
    return unfilled.has(routed.column.name) ? `(${holds(routed)} OR ${name} IS NOT DISTINCT FROM NULL)` : holds(routed)
  }
  const holds = ({ column, index }: RoutedColumn): string => {
    const cell = identity.cell(index)
    // Of a composite, IS NULL would also be true where all fields are.
    if (cell === null || cell === undefined) return `t.${quote(column.name)} IS NOT DISTINCT FROM NULL`
    // Untyped, a parameter that is compared with a composite would be one of the pseudo-type record, which has no input.
    return equals(column, `t.${quote(column.name)}`, `$${params.push(cell)}::${column.type}`)
  }
  if (route.lookup === "key") return route.key.map((place) => condition(route.columns[place])).join(" AND ")
  const image = route.columns.map(condition).join(" AND ")
  // Of several identical rows exactly one is meant, and it does not matter which.
  const one = `SELECT t.tableoid, t.ctid FROM ${ownRows(route)} AS t${image === "" ? "" : ` WHERE ${image}`} LIMIT 1`
  return `(t.tableoid, t.ctid) = (${one})`
}

/** Finds a row that is like the image, but may have NULL in these columns. */
export const likeImage = (
  route: Route,
  image: Tuple,
  unfilled: ReadonlySet<string>
): Pick<Statement, "text" | "params"> => {
  const params: Array<string | null> = []
  const where = whereRow(route, image, params, unfilled)
  return { text: `SELECT FROM ${ownRows(route)} AS t WHERE ${where}`, params }
}

/** An UPDATE cannot set an ALWAYS identity column: the row is taken out, and put back with what only the target knows. */
const replaceRow = (route: Route, parameters: ReadonlyMap<string, string>, where: string): string => {
  const columns = route.table.columns.filter((column) => !column.isGenerated)
  const values = columns.map((column) => parameters.get(column.name) ?? `old.${quote(column.name)}`)
  return (
    `WITH old AS (DELETE FROM ${ownRows(route)} AS t WHERE ${where} RETURNING t.*) ` +
    `INSERT INTO ${tableName(route)} (${columns.map((column) => quote(column.name)).join(", ")}) ` +
    `OVERRIDING SYSTEM VALUE SELECT ${values.join(", ")} FROM old`
  )
}

const oneRow = (route: Route, change: RowChange, options: PlanOptions): Statement | NoIdentity | undefined => {
  const { offset } = change
  if (change.type === "insert") return insertRow(route, change.tuple, offset, options)
  const identity = identityOf(change)
  if (identity === null || route.lookup === "none" || (route.lookup === "image" && change.oldTuple === null)) {
    return new NoIdentity(route, offset)
  }
  const sought = route.lookup === "key" ? keyOf(route) : route.columns
  // A value that the source left out is not NULL: it is not known.
  if (sought.some(({ index }) => !identity.isKnown(index))) return new NoIdentity(route, offset)
  const params: Array<string | null> = []
  const image = route.lookup === "image" ? { image: identity } : undefined
  if (change.type === "delete") {
    const text = `DELETE FROM ${ownRows(route)} AS t WHERE ${whereRow(route, identity, params)}`
    return { kind: "delete", text, params, rows: 1, mayMiss: true, route, offset, ...image, insert: undefined }
  }
  const row = updatedRowOf(route, change)
  const isKeySame = route.key.every((place) => {
    const { index } = route.columns[place]
    return row.cell(index) === identity.cell(index)
  })
  const parameters = new Map<string, string>()
  let setsIdentity = false
  route.columns.forEach(({ column, index }, place) => {
    const cell = row.cell(index)
    if (cell === undefined || (isKeySame && route.key.includes(place))) return
    parameters.set(column.name, `$${params.push(cell)}::${column.type}`)
    setsIdentity = setsIdentity || column.identity === "always"
  })
  if (parameters.size === 0) return undefined
  const where = whereRow(route, identity, params)
  const sets = [...parameters].map(([column, parameter]) => `${quote(column)} = ${parameter}`).join(", ")
  return {
    kind: "update",
    text: setsIdentity
      ? replaceRow(route, parameters, where)
      : `UPDATE ${ownRows(route)} AS t SET ${sets} WHERE ${where}`,
    params,
    rows: 1,
    mayMiss: true,
    route,
    offset,
    ...image,
    insert: !route.columns.every(({ index }) => row.isKnown(index)) ? undefined : insertRow(route, row, offset, options)
  }
}

/** The statement of a step; `undefined` when it has nothing to do (an update that carries no value). */
export const statementOf = (step: Step, options: PlanOptions): Statement | NoIdentity | undefined => {
  switch (step.type) {
    case "insertSet":
      return insertSet(step, options)
    case "updateSet":
      return updateSet(step)
    case "deleteSet":
      return deleteSet(step)
    case "absentSet":
      return absentSet(step)
    case "truncate":
      return truncate(step, options)
    case "row":
      return oneRow(step.route, step.change, options)
  }
}
