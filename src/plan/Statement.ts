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
import type { DeleteChange, RowChange, UpdateChange } from "../stream/Change.ts"
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
}

/** Where a statement of one row touched none: what tells why, and what is done instead. */
export interface Missed {
  /** The old row by which the row is looked up, where that is done by all of it. */
  readonly image: Tuple | undefined
  /** Finds the row; of use where a trigger or rule may have suppressed the change. */
  readonly present: Statement | undefined
  /** Finds the row where its ALWAYS identity has another value, which no UPDATE can set. */
  readonly differs: Statement | undefined
  /** Takes that row out and puts it back. */
  readonly replace: Statement | undefined
  /** The same update of the row under its new key, to which the target's own ON UPDATE CASCADE may have brought it. */
  readonly moved: Statement | undefined
  /** Stands in for the update of a row that is missing, if the row is fully known. */
  readonly insert: Statement | undefined
}

/** Why a step has no statement. */
export type NoStatementReason =
  /** The stream does not say which row is meant: the relation has no identity that the target can look up. */
  | "no identity"
  /** By the policy for existing rows they are found by an index on the key, and there is none that can serve. */
  | "no arbiter"
  /** It sets an ALWAYS identity: the row would be put in anew, and triggers or foreign keys would see that. */
  | "fixed identity"

export class NoStatement {
  readonly _tag = "NoStatement"
  readonly reason: NoStatementReason
  readonly route: Route
  readonly offset: Offset
  constructor(reason: NoStatementReason, route: Route, offset: Offset) {
    this.reason = reason
    this.route = route
    this.offset = offset
  }
}

/** What a step becomes. */
export type Planned = Statement | NoStatement

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

/** ALWAYS identities outside the key: whatever sets them must take the row out and put it back. */
const fixedOf = (route: Route): ReadonlyArray<number> =>
  route.columns.flatMap(({ column }, place) =>
    column.identity === "always" && !route.key.includes(place) ? [place] : []
  )

/** An insert cannot tell whether its row is there; where the table has no key at all, no row is the same as another. */
const lacksArbiter = ({ isKeyArbiter, lookup, table }: Route, { existingRow }: PlanOptions): boolean =>
  existingRow !== "halt" &&
  !isKeyArbiter &&
  (lookup === "key" || table.isPrimaryKeyDeferrable || table.isPrimaryKeyTemporal)

const onConflict = (route: Route, { existingRow }: PlanOptions): string => {
  if (existingRow === "halt" || route.lookup !== "key") return ""
  const target = namesOf(keyOf(route))
  // A key that is equal may be another text, which the row then gets as well.
  const names = route.columns
    .filter(({ column }) => column.identity !== "always")
    .map(({ column }) => quote(column.name))
  if (existingRow === "skip" || names.length === 0) return ` ON CONFLICT (${target}) DO NOTHING`
  const same = fixedOf(route).map((place) => quote(route.columns[place].column.name))
  const where = same.length === 0 ? "" : ` WHERE ${same.map((name) => `t.${name} = EXCLUDED.${name}`).join(" AND ")}`
  return ` ON CONFLICT (${target}) DO UPDATE SET ${names.map((name) => `${name} = EXCLUDED.${name}`).join(", ")}${where}`
}

const intoTable = (route: Route, { existingRow }: PlanOptions): string =>
  `INSERT INTO ${tableName(route)}${existingRow === "update" && fixedOf(route).length > 0 ? " AS t" : ""}`

const namesOf = (columns: ReadonlyArray<RoutedColumn>): string =>
  columns.map(({ column }) => quote(column.name)).join(", ")

const insertSet = (step: Extract<Step, { type: "insertSet" }>, options: PlanOptions): Planned => {
  const { offset, route, rows } = step
  if (lacksArbiter(route, options)) return new NoStatement("no arbiter", route, offset)
  // A row that is there with another identity is not updated.
  const mayMiss = step.mayMiss && (options.existingRow !== "update" || fixedOf(route).length === 0)
  return { kind: "insert", ...newRows(route, rows, options), rows: rows.length, mayMiss, route, offset }
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
    text: `${intoTable(route, options)} (${names})${overriding(columns)} SELECT ${select}${onConflict(route, options)}`,
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
  const fixed = step.same.map((place) => route.columns[place])
  const first = route.key.length + columns.length + 1
  const held = fixed.map(({ column }, n) => setColumn(column, first + n, `s${n}`))
  const same = fixed.map(({ column }, n) => ` AND t.${quote(column.name)} = ${held[n].value}`).join("")
  const lists = [list, listOf(cells, "c"), ...(fixed.length === 0 ? [] : [listOf(held, "s")])].join(", ")
  const found = isOrderFree(route, places) ? inArray(route, keys) : undefined
  const text =
    `UPDATE ${ownRows(route)} AS t SET ${sets} FROM (SELECT ${lists}) AS v WHERE ${where}${same}` +
    (found === undefined ? "" : ` AND ${found}`)
  return {
    kind: "update",
    text: sized(text, rows.length),
    params: [...arraysOf(keyOf(route), keys), ...arraysOf(columns, rows), ...arraysOf(fixed, rows)],
    rows: rows.length,
    mayMiss,
    route,
    offset
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
    offset
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
    offset
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
    offset: change.offset
  }
}

/**
 * Parameters name their types, as in the sets: a prepared statement keeps those of its parameters, so that the same text
 * would still mean the old type of a column that was altered.
 */
const insertRow = (route: Route, row: Tuple, offset: Offset, options: PlanOptions): Planned => {
  if (lacksArbiter(route, options)) return new NoStatement("no arbiter", route, offset)
  const { columns } = route
  const into = intoTable(route, options)
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
    offset
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

const one = (route: Route, offset: Offset) => ({ rows: 1, mayMiss: true, route, offset })

/** The tuple that tells the row, if the target can look it up by that. */
const soughtOf = (route: Route, change: UpdateChange | DeleteChange): Tuple | undefined => {
  const identity = identityOf(change)
  if (identity === null || route.lookup === "none" || (route.lookup === "image" && change.oldTuple === null)) return
  const sought = route.lookup === "key" ? keyOf(route) : route.columns
  // A value that the source left out is not NULL: it is not known.
  return sought.every(({ index }) => identity.isKnown(index)) ? identity : undefined
}

const isSame = ({ index }: RoutedColumn, left: Tuple, right: Tuple): boolean => left.cell(index) === right.cell(index)

/**
 * The update of one row, `sought` by its key or image. It sets every value that is known, those of the key included, as
 * PostgreSQL's own apply does: triggers on a column see that. An ALWAYS identity is left out, and must have the value
 * already.
 */
const updateRow = (route: Route, row: Tuple, sought: Tuple, offset: Offset): Statement | undefined => {
  const params: Array<string | null> = []
  const bind = ({ column, index }: RoutedColumn) => `$${params.push(row.cell(index) ?? null)}::${column.type}`
  const known = route.columns.filter(({ index }) => row.isKnown(index))
  const sets = known.filter(({ column }) => column.identity !== "always")
  if (sets.length === 0) return undefined
  const assignments = sets.map((routed) => `${quote(routed.column.name)} = ${bind(routed)}`).join(", ")
  const where = [
    whereRow(route, sought, params),
    ...fixedOf(route)
      .map((place) => route.columns[place])
      .filter(({ index }) => row.isKnown(index))
      .map((routed) => `t.${quote(routed.column.name)} = ${bind(routed)}`)
  ]
  const text = `UPDATE ${ownRows(route)} AS t SET ${assignments} WHERE ${where.join(" AND ")}`
  return { kind: "update", text, params, ...one(route, offset) }
}

/** The key has an ALWAYS identity, and the update changes it. */
const changesIdentity = (route: Route, row: Tuple, sought: Tuple): boolean =>
  keyOf(route).some((routed) => routed.column.identity === "always" && !isSame(routed, row, sought))

/** Takes the row out, and puts it back with what only the target knows: an UPDATE cannot set an ALWAYS identity. */
const replaceRow = (route: Route, row: Tuple, sought: Tuple, offset: Offset): Statement => {
  const params: Array<string | null> = []
  const values = new Map(
    route.columns
      .filter(({ index }) => row.isKnown(index))
      .map(({ column, index }) => [column.name, `$${params.push(row.cell(index) ?? null)}::${column.type}`])
  )
  const columns = route.table.columns.filter((column) => !column.isGenerated)
  const text =
    `WITH old AS (DELETE FROM ${ownRows(route)} AS t WHERE ${whereRow(route, sought, params)} RETURNING t.*) ` +
    `INSERT INTO ${tableName(route)} (${columns.map((column) => quote(column.name)).join(", ")}) ` +
    "OVERRIDING SYSTEM VALUE " +
    `SELECT ${columns.map(({ name }) => values.get(name) ?? `old.${quote(name)}`).join(", ")} FROM old`
  return { kind: "update", text, params, ...one(route, offset) }
}

/** Whether triggers or foreign keys would see that a row is taken out and put back. */
const isReplaceSeen = ({ table }: Route): boolean => table.firesTriggers || table.checksForeignKeys

const oneRow = (route: Route, change: RowChange, options: PlanOptions): Planned | undefined => {
  const { offset } = change
  if (change.type === "insert") return insertRow(route, change.tuple, offset, options)
  const sought = soughtOf(route, change)
  if (sought === undefined) return new NoStatement("no identity", route, offset)
  if (change.type === "delete") {
    const params: Array<string | null> = []
    const text = `DELETE FROM ${ownRows(route)} AS t WHERE ${whereRow(route, sought, params)}`
    return { kind: "delete", text, params, ...one(route, offset) }
  }
  const row = updatedRowOf(route, change)
  if (!changesIdentity(route, row, sought)) return updateRow(route, row, sought, offset)
  return isReplaceSeen(route)
    ? new NoStatement("fixed identity", route, offset)
    : replaceRow(route, row, sought, offset)
}

/** For the statement of one row, which touched none. */
export const missedBy = (route: Route, change: RowChange, options: PlanOptions): Missed => {
  const { offset } = change
  const isInsert = change.type === "insert"
  const row = isInsert ? change.tuple : change.type === "update" ? updatedRowOf(route, change) : undefined
  const sought = isInsert ? (route.lookup === "key" ? change.tuple : undefined) : soughtOf(route, change)
  const find = (more: (params: Array<string | null>) => string): Statement | undefined => {
    if (sought === undefined) return undefined
    const params: Array<string | null> = []
    const text = `SELECT FROM ${ownRows(route)} AS t WHERE ${whereRow(route, sought, params)}${more(params)}`
    return { kind: "check", text, params, ...one(route, offset) }
  }
  const fixed = fixedOf(route).map((place) => route.columns[place])
  const isFixed = row !== undefined && fixed.some(({ index }) => row.isKnown(index))
  const isKeyChanged =
    row !== undefined && sought !== undefined && !keyOf(route).every((key) => isSame(key, row, sought))
  const insert =
    change.type === "update" && row !== undefined && route.columns.every(({ index }) => row.isKnown(index))
      ? insertRow(route, row, offset, options)
      : undefined
  return {
    image: route.lookup === "image" ? sought : undefined,
    present: find(() => ""),
    differs: !isFixed
      ? undefined
      : find((params) => {
          const differs = fixed
            .filter(({ index }) => row.isKnown(index))
            .map(({ column, index }) => {
              const value = `$${params.push(row.cell(index) ?? null)}::${column.type}`
              return `t.${quote(column.name)} IS DISTINCT FROM ${value}`
            })
          return ` AND (${differs.join(" OR ")})`
        }),
    replace:
      !isFixed || sought === undefined || isReplaceSeen(route) ? undefined : replaceRow(route, row, sought, offset),
    moved: isKeyChanged && route.lookup === "key" ? updateRow(route, row, row, offset) : undefined,
    insert: insert instanceof NoStatement ? undefined : insert
  }
}

/** The statement of a step; `undefined` when it has nothing to do (an update that carries no value). */
export const statementOf = (step: Step, options: PlanOptions): Planned | undefined => {
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
