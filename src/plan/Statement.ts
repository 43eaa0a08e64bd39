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

/**
 * Types whose array input is cheaper than a cast from text, or whose cast from text is another function than their
 * input (`regclass` refuses `-` and numbers there); their elements are separated by a comma.
 */
const hasTypedArray = new Set([
  "smallint",
  "integer",
  "bigint",
  "numeric",
  "real",
  "double precision",
  "boolean",
  "uuid",
  "text",
  "character varying",
  "bpchar",
  "bytea",
  "date",
  "timestamp without time zone",
  "timestamp with time zone",
  "jsonb",
  "name",
  '"char"',
  "regclass",
  "xml"
])

/** The columns of a set, by their places. */
const arraysOf = (route: Route, places: ReadonlyArray<number>, rows: ReadonlyArray<Tuple>): Array<string> =>
  places.map((place) => arrayOf(rows, route.columns[place].index))

/** A parameter as a column of rows: `unnest` in a select list runs all arrays in lockstep, without a tuple store. */
const unnest = (column: TargetColumn, parameter: number): string =>
  hasTypedArray.has(column.type)
    ? `unnest($${parameter}::${column.type}[])`
    : `unnest($${parameter}::text[])::${column.type}`

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
  const values = columns.map(({ column }, place) => unnest(column, place + 1)).join(", ")
  return {
    text: `INSERT INTO ${table} (${names})${overriding(columns)} SELECT ${values}${onConflict(route, options)}`,
    params: indexes.map((index) => arrayOf(rows, index))
  }
}

/** The keys of a set: their columns `k0`, `k1`, … of `v`, and the condition that joins the table `t` to them. */
const keysOf = (route: Route) => {
  const columns = route.key.map((place) => route.columns[place].column)
  return {
    values: columns.map((column, part) => `${unnest(column, part + 1)} AS k${part}`),
    where: columns.map((column, part) => equals(column, `t.${quote(column.name)}`, `v.k${part}`)).join(" AND ")
  }
}

/** Types without an operator of equality (json, xml, point, …) are compared as the text they print. */
const equals = (column: TargetColumn, left: string, right: string): string =>
  column.hasEquality ? `${left} ${column.equality ?? "="} ${right}` : `${left}::text = ${right}::text`

/** Of more rows than this the places might not fit into `work_mem`. */
const mostInArray = 100_000

/**
 * The condition that seeks a key of one column in the array itself: PostgreSQL then goes through the index and the table
 * once, in their order. 10,000 deletes by a random uuid take two thirds of the time of a join that way, and no plan can
 * miss the index. Of a partitioned table it would look for all keys in every partition.
 */
const inArray = (route: Route, keys: ReadonlyArray<Tuple>): string | undefined => {
  const [{ column }, ...more] = route.key.map((place) => route.columns[place])
  const isPlain = hasTypedArray.has(column.type) && column.hasEquality && column.equality === undefined
  if (more.length > 0 || !isPlain || route.table.isPartitioned || keys.length > mostInArray) return undefined
  return `t.${quote(column.name)} = ANY($1::${column.type}[])`
}

/** How rows are found by a set of keys alone: the condition, and before it what must be joined. */
const soughtBy = (route: Route, keys: ReadonlyArray<Tuple>, join: " USING" | ","): string => {
  const condition = inArray(route, keys)
  if (condition !== undefined) return ` WHERE ${condition}`
  const { values, where } = keysOf(route)
  return `${join} (SELECT ${values.join(", ")}) AS v WHERE ${where}`
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
  const columns = places.map((place) => route.columns[place].column)
  const { values, where } = keysOf(route)
  const cells = columns.map((column, part) => `${unnest(column, route.key.length + part + 1)} AS c${part}`)
  const sets = columns.map((column, part) => `${quote(column.name)} = v.c${part}`).join(", ")
  const found = isOrderFree(route, places) ? inArray(route, keys) : undefined
  const text =
    `UPDATE ${ownRows(route)} AS t SET ${sets} FROM (SELECT ${[...values, ...cells].join(", ")}) AS v WHERE ${where}` +
    (found === undefined ? "" : ` AND ${found}`)
  return {
    kind: "update",
    text: sized(text, rows.length),
    params: [...arraysOf(route, route.key, keys), ...arraysOf(route, places, rows)],
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
    params: arraysOf(route, route.key, keys),
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
    params: arraysOf(route, route.key, keys),
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
const whereRow = (route: Route, identity: Tuple, params: Array<string | null>): string => {
  const condition = ({ column, index }: RoutedColumn): string => {
    const cell = identity.cell(index)
    if (cell === null || cell === undefined) return `t.${quote(column.name)} IS NULL`
    // Untyped, a parameter that is compared with a composite would be one of the pseudo-type record, which has no input.
    return equals(column, `t.${quote(column.name)}`, `$${params.push(cell)}::${column.type}`)
  }
  if (route.lookup === "key") return route.key.map((place) => condition(route.columns[place])).join(" AND ")
  const image = route.columns.map(condition).join(" AND ")
  // Of several identical rows exactly one is meant, and it does not matter which.
  const one = `SELECT t.tableoid, t.ctid FROM ${ownRows(route)} AS t${image === "" ? "" : ` WHERE ${image}`} LIMIT 1`
  return `(t.tableoid, t.ctid) = (${one})`
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
  const sought = route.lookup === "key" ? route.key.map((place) => route.columns[place]) : route.columns
  // A value that the source left out is not NULL: it is not known.
  if (sought.some(({ index }) => !identity.isKnown(index))) return new NoIdentity(route, offset)
  const params: Array<string | null> = []
  if (change.type === "delete") {
    const text = `DELETE FROM ${ownRows(route)} AS t WHERE ${whereRow(route, identity, params)}`
    return { kind: "delete", text, params, rows: 1, mayMiss: true, route, offset, insert: undefined }
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
