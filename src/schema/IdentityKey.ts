/**
 * The key by which the source identifies rows, in the target: without an index each update and delete would read the
 * whole table, and without uniqueness it could mean several rows.
 */
import { Clock, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { qualified, quote } from "../target/Identifier.ts"
import type { Route } from "../target/Route.ts"
import * as SqlFailure from "../target/SqlFailure.ts"

const tableOf = ({ table }: Route): string => qualified(table.schema, table.name)

const namesOf = ({ columns, key }: Route): ReadonlyArray<string> => key.map((place) => columns[place].column.name)

const listed = (names: ReadonlyArray<string>): string => names.map(quote).join(", ")

/** The statement that makes the key; `undefined` when the table has one, or rows are not found by a key. */
export const statementOf = (route: Route): string | undefined => {
  const { isKeyUnique, lookup, relation, table } = route
  // A key that is checked late has its index already.
  if (lookup !== "key" || isKeyUnique || table.isPrimaryKeyDeferrable || table.hasUncheckedKey) return undefined
  const columns = listed(namesOf(route))
  return relation.replicaIdentity === "Default" && table.primaryKey === undefined
    ? `ALTER TABLE ${tableOf(route)} ADD PRIMARY KEY (${columns})`
    : `CREATE UNIQUE INDEX ON ${tableOf(route)} (${columns})`
}

/** What stands in the way of a key, and what resolves it. */
export interface Obstacle {
  readonly reason: string
  readonly hint: string
}

/** What became of the key: nothing to do, made, not possible here, or rows are in its way. */
export type Outcome =
  | { readonly type: "nothing" }
  | { readonly type: "made"; readonly statement: string; readonly seconds: string }
  | { readonly type: "failed"; readonly failure: SqlFailure.SqlFailure }
  | { readonly type: "obstacle"; readonly obstacle: Obstacle }

const withoutKey = Effect.fnUntraced(function* (route: Route) {
  const sql = yield* SqlClient.SqlClient
  const ofPrimary = new Set(route.table.primaryKey)
  const nullable = route.key
    .map((place) => route.columns[place].column)
    .filter(({ isNullable, name }) => isNullable && !ofPrimary.has(name))
    .map(({ name }) => name)
  if (nullable.length === 0) return []
  const from = `${route.table.isPartitioned ? "" : "ONLY "}${tableOf(route)}`
  const [row] = yield* sql
    .unsafe<{ readonly hasNull: boolean }>(
      `SELECT EXISTS (SELECT FROM ${from} WHERE ${nullable.map((name) => `${quote(name)} IS NULL`).join(" OR ")}) AS "hasNull"`
    )
    .pipe(SqlFailure.typed)
  return row.hasNull ? nullable : []
})

const isOfServer = ({ class: failureClass }: SqlFailure.SqlFailure): boolean =>
  failureClass === "connection" || failureClass === "serialization"

/** Makes the key of a route, under a savepoint; everything but the loss of the connection is an outcome. */
export const make = Effect.fn("IdentityKey.make")(function* (
  route: Route
): Effect.fn.Return<Outcome, SqlFailure.SqlFailure, SqlClient.SqlClient> {
  if (route.lookup !== "key") return { type: "nothing" }
  const sql = yield* SqlClient.SqlClient
  const names = namesOf(route)
  const empty = yield* withoutKey(route)
  if (empty.length > 0) {
    return {
      type: "obstacle",
      obstacle: {
        reason: `rows that are here have NULL in ${listed(empty)}, by which the source finds its rows now`,
        hint: `fill ${listed(empty)} in the target with the source's values for each row; then start again`
      }
    }
  }
  const statement = statementOf(route)
  if (statement === undefined) return { type: "nothing" }
  const started = yield* Clock.monotonicTimeNanos
  return yield* SqlFailure.typed(sql.withTransaction(sql.unsafe(statement))).pipe(
    Effect.andThen(Clock.monotonicTimeNanos),
    Effect.map((ended): Outcome => ({ type: "made", statement, seconds: (Number(ended - started) / 1e9).toFixed(1) })),
    Effect.catch((failure): Effect.Effect<Outcome, SqlFailure.SqlFailure> => {
      if (isOfServer(failure)) return Effect.fail(failure)
      if (failure.sqlState !== "23505") return Effect.succeed({ type: "failed", failure })
      const query = `SELECT ${listed(names)}, count(*) FROM ${tableOf(route)} GROUP BY ${listed(names)} HAVING count(*) > 1`
      const obstacle = {
        reason: `several rows that are here have the same ${listed(names)}, by which the source finds its rows`,
        hint: `delete all but the right one of each in the target (${query} lists them); then start again`
      }
      return Effect.succeed({ type: "obstacle", obstacle })
    })
  )
})
