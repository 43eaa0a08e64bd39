/** The sink's view of the target: which table a relation goes to, read from the catalog once and after each schema change. */
import { Effect, Schema } from "effect"
import type { SqlClient } from "effect/sql"
import { Offset } from "../stream/FluvioConsumer.ts"
import { qualified } from "../target/Identifier.ts"
import type { Mapping } from "../target/Mapping.ts"
import { formatLsn, Lsn } from "../stream/OffsetStore.ts"
import type { Relation } from "../stream/Relation.ts"
import type { Route } from "../target/Route.ts"
import * as IdentityKey from "./IdentityKey.ts"
import { fits, type SchemaRefused } from "./SchemaChange.ts"
import * as SqlFailure from "../target/SqlFailure.ts"
import { load, type NotATable, type TableName, type TargetTable } from "../target/TargetTable.ts"
import { isRetryable } from "../stream/Outcome.ts"

const place = { table: Schema.String, offset: Offset, commitLsn: Schema.UndefinedOr(Lsn) }

/** Where in the stream the connector is. */
export interface Place {
  readonly offset: Offset
  readonly commitLsn: Lsn | undefined
}

/** `public.t, offset 17, transaction 0/16B3748`: how every message names the place of a failure. */
export const describe = ({ commitLsn, offset, table }: Place & { readonly table: string }): string =>
  `${table}, offset ${offset}${commitLsn === undefined ? "" : `, transaction ${formatLsn(commitLsn)}`}`

/** The target has no table for a relation, and none was created. */
export class TableMissing extends Schema.TaggedError<TableMissing>()("TableMissing", place) {
  readonly isRetryable = isRetryable(this)
  readonly remedy =
    "create the table in the target with the rows that it should have by now, or leave it out with `tables.exclude`; `schema-changes: additive` creates tables when the stream describes them for the first time"
  override get message() {
    return `${describe(this)}: the target has no such table`
  }
}

/** Row security would hide rows of the table from the connector. */
export class RowSecurityActive extends Schema.TaggedError<RowSecurityActive>()("RowSecurityActive", place) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "ALTER ROLE … BYPASSRLS for the connector's role, or let it own the table"
  override get message() {
    return `${describe(this)}: row security would hide rows of this table from the connector`
  }
}

export type RouterError = SqlFailure.SqlFailure | NotATable | TableMissing | RowSecurityActive | SchemaRefused

/** Routes of relation objects; a relation that changed is another object. */
export interface Router {
  /** The tables of these names in the target, from the cache or from its catalog; those that do not exist are absent. */
  readonly tables: (
    names: ReadonlyArray<TableName>
  ) => Effect.Effect<ReadonlyMap<string, TargetTable>, SqlFailure.SqlFailure | NotATable, SqlClient.SqlClient>
  /** Makes the routes of these relations known, or says why their rows have nowhere to go. */
  readonly prepare: (
    relations: ReadonlySet<Relation>,
    at: Place
  ) => Effect.Effect<void, RouterError, SqlClient.SqlClient>
  /** Whether the relation is prepared. */
  readonly knows: (relation: Relation) => boolean
  /** The route of a prepared relation; `undefined` when it is filtered out. */
  readonly routeOf: (relation: Relation) => Route | undefined
  /** Rises with everything that is forgotten: routes of another version may be wrong by now. */
  readonly version: () => number
  /** Forgets everything: the target's shape changed, or a change of it was rolled back. */
  readonly forget: () => void
}

export const make = (mapping: Mapping): Router => {
  const known = new Map<string, TargetTable>()
  const routes = new Map<Relation, Route | undefined>()
  let version = 0
  /** Tables of which the operator has been told. */
  const warned = new Set<string>()

  const tables = Effect.fnUntraced(function* (names: ReadonlyArray<TableName>) {
    const missing = names.filter(({ name, schema }) => !known.has(qualified(schema, name)))
    if (missing.length > 0) {
      for (const [key, table] of yield* SqlFailure.typed(load(missing))) known.set(key, table)
    }
    return known
  })

  const prepare = Effect.fnUntraced(function* (relations: ReadonlySet<Relation>, at: Place) {
    const wanted: Array<readonly [Relation, TableName]> = []
    for (const relation of relations) {
      if (routes.has(relation)) continue
      const name = mapping.table(relation)
      if (name === undefined) routes.set(relation, undefined)
      else wanted.push([relation, name])
    }
    if (wanted.length === 0) return
    const found = yield* tables(wanted.map(([, name]) => name))
    for (const [relation, { name, schema }] of wanted) {
      const table = qualified(schema, name)
      const target = found.get(table)
      if (target === undefined) return yield* new TableMissing({ ...at, table })
      if (target.hasRowSecurity) return yield* new RowSecurityActive({ ...at, table })
      if (target.hasUncheckedKey && !warned.has(table)) {
        warned.add(table)
        yield* Effect.logWarning(
          `${table} has a deferrable key: PostgreSQL does not check it under session_replication_role = replica, so that duplicates would pass`
        )
      }
      const route = yield* Effect.fromResult(fits(relation, target, mapping.column(relation), at))
      const makeKey = IdentityKey.statementOf(route)
      if (makeKey !== undefined && !warned.has(table)) {
        warned.add(table)
        yield* Effect.logWarning(
          `${table} has no unique index for the key of the source, so that each update and delete reads the table; run in the target: ${makeKey}`
        )
      }
      routes.set(relation, route)
    }
  })

  return {
    tables,
    prepare,
    knows: (relation) => routes.has(relation),
    routeOf: (relation) => routes.get(relation),
    version: () => version,
    forget: () => {
      version += 1
      known.clear()
      routes.clear()
    }
  }
}
