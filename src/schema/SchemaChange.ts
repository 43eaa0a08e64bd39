/**
 * What a changed relation asks of the target: the statements that follow the source, or a refusal.
 *
 * Columns are compared by name with the target's catalog, so a repeated or outdated relation asks for nothing, and a
 * column that only the target has is never touched. The relation before tells what the source has renamed or dropped.
 * The stream has no column numbers, but the order stands for them: a rename keeps the place, and a new column comes
 * last. What this leaves open is refused, because a wrong guess would show values under the wrong name in silence.
 */
import { Effect, Result, Schema } from "effect"
import type { SqlClient } from "effect/sql"
import { Offset } from "../stream/FluvioConsumer.ts"
import { qualified, quote } from "../target/Identifier.ts"
import type { Mapping } from "../target/Mapping.ts"
import { Lsn, formatLsn } from "../stream/OffsetStore.ts"
import type { Relation, RelationColumn } from "../stream/Relation.ts"
import { type Route, route } from "../target/Route.ts"
import { type TargetType, type TypeName, isWidening, resolve } from "./SourceType.ts"
import * as SqlFailure from "../target/SqlFailure.ts"
import type { NotATable, TableName, TargetColumn, TargetTable } from "../target/TargetTable.ts"
import type { RelationChange } from "../stream/Change.ts"
import { isRetryable } from "../stream/Outcome.ts"

/**
 * `none` changes nothing, `validate` refuses whatever would have to be changed, `additive` refuses what would lose
 * values of the target, `full` follows the source wherever the stream is clear.
 */
export const schemaPolicies = ["none", "validate", "additive", "full"] as const
export type SchemaPolicy = (typeof schemaPolicies)[number]

export interface SchemaStatement {
  /** Quoted and qualified: it means the same under every `search_path`. */
  readonly text: string
  readonly kind:
    | "createSchema"
    | "createTable"
    | "setSchema"
    | "renameTable"
    | "renameColumn"
    | "dropColumn"
    | "addColumn"
    | "alterType"
  /** The qualified name of the table, as the relation has it. */
  readonly table: string
  /** It loses values of the target: a column goes, or its new type may not hold them all. */
  readonly isDestructive: boolean
}

export interface SchemaDiff {
  /** In the order in which they must run. */
  readonly statements: ReadonlyArray<SchemaStatement>
  /** What remains different all the same, in sentences without values. */
  readonly warnings: ReadonlyArray<string>
}

/** The target's tables do not fit a relation, and are not changed to. */
export class SchemaRefused extends Schema.TaggedError<SchemaRefused>()("SchemaRefused", {
  table: Schema.String,
  offset: Offset,
  commitLsn: Schema.UndefinedOr(Lsn),
  reason: Schema.String,
  /** Ways out, each of them statements to run in the target in this order. */
  alternatives: Schema.Array(Schema.Array(Schema.String)),
  /** What else helps. */
  hint: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    const ways = this.alternatives.map((statements) => statements.map((text) => `${text};`).join(" "))
    return [...(ways.length === 0 ? [] : [`run in the target: ${ways.join(" OR ")}`]), this.hint].join(" — ")
  }
  override get message() {
    const transaction = this.commitLsn === undefined ? "" : `, transaction ${formatLsn(this.commitLsn)}`
    return `${this.table}, offset ${this.offset}${transaction}: ${this.reason}`
  }
}

export interface DiffOptions {
  readonly policy: SchemaPolicy
  /** Where the relation's rows go. */
  readonly table: TableName
  /** Where they went before this change; `undefined` when they went nowhere. */
  readonly previousTable: TableName | undefined
  /** The schema of `table` exists in the target. */
  readonly hasSchema: boolean
  /** The target column of a source column; `undefined` when it is filtered out. */
  readonly columnName: (name: string) => string | undefined
  readonly typeOf: (column: RelationColumn) => TargetType
  readonly commitLsn: Lsn | undefined
}

const nameOf = ({ name, schema }: TableName): string => qualified(schema, name)

const listed = (names: ReadonlyArray<string>): string => names.map(quote).join(", ")

const sameType = (a: RelationColumn, b: RelationColumn): boolean =>
  a.typeId === b.typeId && a.typeModifier === b.typeModifier

const isAlike = (a: RelationColumn, b: RelationColumn): boolean => sameType(a, b) && a.isKey === b.isKey

type Pair = readonly [before: RelationColumn, after: RelationColumn]

/** Columns that went and columns that came at the same place. */
interface Gap {
  readonly gone: ReadonlyArray<RelationColumn>
  readonly appeared: ReadonlyArray<RelationColumn>
}

/** What became of the columns of a relation. */
interface Alignment {
  readonly kept: ReadonlyArray<Pair>
  readonly renamed: ReadonlyArray<Pair>
  readonly dropped: ReadonlyArray<RelationColumn>
  /** Where the stream does not tell whether columns were renamed or replaced. */
  readonly unclear: ReadonlyArray<Gap>
  /** The kept columns stand in another order: their names were exchanged. */
  readonly isShuffled: boolean
}

/** The columns before the first kept one, between each two, and after the last. */
const gaps = (columns: ReadonlyArray<RelationColumn>, isKept: (column: RelationColumn) => boolean) => {
  const all: Array<Array<RelationColumn>> = [[]]
  for (const column of columns) {
    if (isKept(column)) all.push([])
    else all[all.length - 1].push(column)
  }
  return all
}

/**
 * Before a kept column nothing can have been added, so what appeared there was renamed. After the last kept one, a
 * column that went and one that came may be a rename or a replacement: only the source's operator knows. What merely
 * appeared is not told: whether it is new shows in the target.
 */
const align = (previous: Relation, next: Relation): Alignment => {
  const before = new Map(previous.columns.map((column) => [column.name, column]))
  const after = new Set(next.columns.map((column) => column.name))
  const isKept = ({ name }: RelationColumn) => before.has(name) && after.has(name)
  const kept = next.columns.flatMap((column): ReadonlyArray<Pair> => {
    const old = before.get(column.name)
    return old === undefined ? [] : [[old, column]]
  })
  const isShuffled = previous.columns.filter(isKept).some((column, place) => column !== kept[place][0])
  const allGone = previous.columns.filter((column) => !isKept(column))
  const renamed: Array<Pair> = []
  const dropped: Array<RelationColumn> = []
  const unclear: Array<Gap> = []
  const appearedAt = gaps(next.columns, isKept)
  gaps(previous.columns, isKept).forEach((gone, place, { length }) => {
    const appeared = appearedAt[place]
    const isLast = place === length - 1
    if (appeared.length === 0) dropped.push(...gone)
    else if (!isLast && gone.length === appeared.length && gone.every((column, n) => isAlike(column, appeared[n]))) {
      gone.forEach((column, n) => renamed.push([column, appeared[n]]))
    } else if (gone.length > 0) unclear.push({ gone, appeared })
    // A chain of renames (a to b, b to c) makes a column go at one place and come at another.
    else if (!isLast && allGone.length > 0) unclear.push({ gone: allGone, appeared })
  })
  return { kept, renamed, dropped, unclear, isShuffled }
}

/** The statements of one relation, as they come together. */
class Draft {
  readonly statements: Array<SchemaStatement> = []
  readonly warnings: Array<string> = []
  readonly change: RelationChange
  readonly options: DiffOptions
  readonly table: string

  constructor(change: RelationChange, options: DiffOptions) {
    this.change = change
    this.options = options
    this.table = nameOf(options.table)
  }

  statement(kind: SchemaStatement["kind"], text: string, isDestructive = false): SchemaStatement {
    return { kind, text, table: this.table, isDestructive }
  }

  add(kind: SchemaStatement["kind"], text: string, isDestructive = false): void {
    this.statements.push(this.statement(kind, text, isDestructive))
  }

  warn(text: string): void {
    this.warnings.push(`${this.table}: ${text}`)
  }

  refuse(
    reason: string,
    alternatives: ReadonlyArray<ReadonlyArray<SchemaStatement>>,
    hint: string
  ): Result.Result<never, SchemaRefused> {
    return Result.fail(
      new SchemaRefused({
        table: this.table,
        offset: this.change.offset,
        commitLsn: this.options.commitLsn,
        reason,
        alternatives: alternatives.map((statements) => statements.map((statement) => statement.text)),
        hint
      })
    )
  }

  typeOf(column: RelationColumn): Result.Result<string, SchemaRefused> {
    const type = this.options.typeOf(column)
    if (typeof type === "string") return Result.succeed(type)
    return this.refuse(`the target cannot have the column ${quote(column.name)}: ${type.reason}`, [], type.remedy)
  }

  rename(from: string, to: string): SchemaStatement {
    return this.statement("renameColumn", `ALTER TABLE ${this.table} RENAME COLUMN ${quote(from)} TO ${quote(to)}`)
  }

  drop(name: string): SchemaStatement {
    return this.statement("dropColumn", `ALTER TABLE ${this.table} DROP COLUMN ${quote(name)}`, true)
  }

  addColumn(name: string, type: string): SchemaStatement {
    return this.statement("addColumn", `ALTER TABLE ${this.table} ADD COLUMN ${quote(name)} ${type}`)
  }

  alterType(name: string, type: string, [before, after]: Pair): SchemaStatement {
    const column = quote(name)
    const text = `ALTER TABLE ${this.table} ALTER COLUMN ${column} TYPE ${type} USING ${column}::${type}`
    return this.statement("alterType", text, !isWidening(before, after))
  }
}

/**
 * The identity becomes the key: under DEFAULT it is the source's primary key, under INDEX a unique index over NOT NULL
 * columns. FULL flags every column and says nothing of keys.
 */
const createTable = (draft: Draft): Result.Result<void, SchemaRefused> =>
  Result.gen(function* () {
    const { change, options, table } = draft
    const { columns, replicaIdentity } = change.relation
    const definitions: Array<string> = []
    for (const column of columns) {
      const name = options.columnName(column.name)
      if (name === undefined) continue
      const isRequired = replicaIdentity === "Index" && column.isKey
      definitions.push(`${quote(name)} ${yield* draft.typeOf(column)}${isRequired ? " NOT NULL" : ""}`)
    }
    const flagged = columns.filter((column) => column.isKey).map((column) => options.columnName(column.name))
    const key = flagged.filter((name) => name !== undefined)
    const kind = { Default: "PRIMARY KEY", Index: "UNIQUE", Full: undefined, Nothing: undefined }[replicaIdentity]
    if (kind !== undefined && key.length > 0 && key.length === flagged.length) {
      definitions.push(`${kind} (${listed(key)})`)
    }
    if (!options.hasSchema) draft.add("createSchema", `CREATE SCHEMA ${quote(options.table.schema)}`)
    draft.add("createTable", `CREATE TABLE ${table} (${definitions.join(", ")})`)
  })

/** Between the two statements the table has its old name in its new schema, where that name must be free. */
const moveTable = (draft: Draft, from: TableName): void => {
  const { hasSchema, table } = draft.options
  if (from.schema !== table.schema) {
    if (!hasSchema) draft.add("createSchema", `CREATE SCHEMA ${quote(table.schema)}`)
    draft.add("setSchema", `ALTER TABLE ${nameOf(from)} SET SCHEMA ${quote(table.schema)}`)
  }
  if (from.name !== table.name) {
    const moved = qualified(table.schema, from.name)
    draft.add("renameTable", `ALTER TABLE ${moved} RENAME TO ${quote(table.name)}`)
  }
}

/** Relation columns that are applied, with their names in the target. */
interface Applied {
  readonly column: RelationColumn
  readonly name: string
  /** The target has it. */
  readonly exists: boolean
}

type Apply = (columns: ReadonlyArray<RelationColumn>) => ReadonlyArray<Applied>

const warnLeftAlone = (draft: Draft, name: string): void =>
  draft.warn(`the source no longer has ${quote(name)}; it stays, as what came in its place is there already`)

/** Refuses what may be renames or replacements, unless the target shows that it has been decided. */
const refuseUnclear = (draft: Draft, unclear: ReadonlyArray<Gap>, apply: Apply): Result.Result<void, SchemaRefused> =>
  Result.gen(function* () {
    const renames: Array<SchemaStatement> = []
    const replacements: Array<SchemaStatement> = []
    let canBeRenames = true
    for (const gap of unclear) {
      const gone = apply(gap.gone).filter(({ exists }) => exists)
      const appeared = apply(gap.appeared).filter(({ exists }) => !exists)
      if (gone.length === 0) continue
      if (appeared.length === 0) {
        for (const { name } of gone) warnLeftAlone(draft, name)
        continue
      }
      canBeRenames = canBeRenames && gone.length === appeared.length
      replacements.push(...gone.map(({ name }) => draft.drop(name)))
      for (const [place, { column, name }] of appeared.entries()) {
        const type = yield* draft.typeOf(column)
        replacements.push(draft.addColumn(name, type))
        if (!canBeRenames) continue
        const old = gone[place]
        renames.push(draft.rename(old.name, name))
        if (!sameType(old.column, column)) renames.push(draft.alterType(name, type, [old.column, column]))
      }
    }
    if (replacements.length === 0) return
    return yield* draft.refuse(
      "the stream does not tell whether the source has renamed columns or replaced them",
      canBeRenames ? [renames, replacements] : [replacements],
      "whichever was done in the source; then start again"
    )
  })

/** The type follows the source where it was the source's before. */
const retype = (draft: Draft, pair: Pair, column: TargetColumn): Result.Result<void, SchemaRefused> =>
  Result.gen(function* () {
    const [before, after] = pair
    if (sameType(before, after) || column.isGenerated) return
    // Asked first: where the target's operator has chosen a type, the source's need not even exist.
    if (draft.options.typeOf(before) !== column.fullType) {
      if (draft.options.typeOf(after) === column.fullType) return
      return draft.warn(`${quote(column.name)} has another type in the source now; here it differed before, and stays`)
    }
    const type = yield* draft.typeOf(after)
    if (type === column.fullType) return
    const statement = draft.alterType(column.name, type, pair)
    draft.statements.push(statement)
    if (statement.isDestructive) {
      draft.warn(
        `the values of ${quote(column.name)} are cast to ${type}; the source may have converted them otherwise`
      )
    }
  })

/** Brings the columns of a table that exists up to the relation. */
const alterColumns = (
  draft: Draft,
  target: TargetTable,
  previous: Relation | undefined
): Result.Result<void, SchemaRefused> =>
  Result.gen(function* () {
    const { relation } = draft.change
    const existing = new Map(target.columns.map((column) => [column.name, column]))
    const apply: Apply = (columns) =>
      columns.flatMap((column) => {
        const name = draft.options.columnName(column.name)
        return name === undefined ? [] : [{ column, name, exists: existing.has(name) }]
      })
    const { dropped, isShuffled, kept, renamed, unclear } = align(previous ?? relation, relation)
    if (isShuffled) {
      return yield* draft.refuse(
        "the source has exchanged the names of columns",
        [],
        "exchange them in the target too, then start once with `schema-changes: none`"
      )
    }
    yield* refuseUnclear(draft, unclear, apply)

    const missing = new Map(apply(relation.columns).flatMap((to) => (to.exists ? [] : [[to.name, to.column] as const])))
    for (const [before, after] of renamed) {
      const [from] = apply([before])
      const [to] = apply([after])
      if (from?.exists !== true || to === undefined) continue
      if (to.exists) warnLeftAlone(draft, from.name)
      else draft.statements.push(draft.rename(from.name, to.name))
      missing.delete(to.name)
    }
    for (const { exists, name } of apply(dropped)) if (exists) draft.statements.push(draft.drop(name))
    for (const [name, column] of missing) {
      draft.statements.push(draft.addColumn(name, yield* draft.typeOf(column)))
      draft.warn(
        `rows that are here have NULL in the new ${quote(name)}: the stream does not tell the source's default`
      )
    }
    for (const pair of kept) {
      const column = existing.get(draft.options.columnName(pair[1].name) ?? "")
      if (column !== undefined) yield* retype(draft, pair, column)
    }
  })

/** `full` is the way to let the connector do it; the statements are the other way. */
const orFull = "or set `schema-changes: full`; then start again"

/**
 * Compares a relation with the target's table of its name, and with the one of the name it had before. Pure; asks for
 * nothing when the target fits.
 */
export const diff = (
  change: RelationChange,
  target: TargetTable | undefined,
  previousTarget: TargetTable | undefined,
  options: DiffOptions
): Result.Result<SchemaDiff, SchemaRefused> =>
  Result.gen(function* () {
    const draft = new Draft(change, options)
    if (options.policy === "none") return { statements: [], warnings: [] }
    const { previousTable, table } = options
    const previous = previousTable === undefined ? undefined : change.previous
    const movedFrom = previousTable !== undefined && nameOf(previousTable) !== draft.table ? previousTable : undefined

    if (target !== undefined) {
      if (movedFrom !== undefined && previousTarget !== undefined) {
        return yield* draft.refuse(
          `the source has renamed ${nameOf(movedFrom)} to this, and the target has both`,
          [],
          `make room for it, and rename ${nameOf(movedFrom)} as in the source; then start again`
        )
      }
      yield* alterColumns(draft, target, previous)
    } else if (movedFrom !== undefined && previousTarget !== undefined) {
      moveTable(draft, movedFrom)
      yield* alterColumns(draft, previousTarget, previous)
    } else {
      yield* createTable(draft)
      if (previous !== undefined) {
        return yield* draft.refuse(
          "rows were applied to it before, and now the target does not have it",
          [draft.statements],
          "or restore it with its rows; then start again"
        )
      }
    }

    const { statements } = draft
    if (options.policy === "validate" && statements.length > 0) {
      return yield* draft.refuse("the target does not fit the source's table", [statements], orFull)
    }
    if (options.policy === "additive" && statements.some((statement) => statement.isDestructive)) {
      return yield* draft.refuse(`the change loses values of ${nameOf(table)} in the target`, [statements], orFull)
    }
    return { statements, warnings: draft.warnings }
  })

/**
 * The route of a relation, when the target's table can take its rows: it has every column that is applied, and no
 * column that needs a value which nobody gives.
 */
export const fits = (
  relation: Relation,
  target: TargetTable,
  columnName: (name: string) => string | undefined,
  at: { readonly offset: Offset; readonly commitLsn: Lsn | undefined }
): Result.Result<Route, SchemaRefused> => {
  const table = nameOf(target)
  const existing = new Set(target.columns.map((column) => column.name))
  const applied = new Set(
    relation.columns.map((column) => columnName(column.name)).filter((name) => name !== undefined)
  )
  const missing = [...applied].filter((name) => !existing.has(name))
  if (missing.length > 0) {
    return Result.fail(
      new SchemaRefused({
        ...at,
        table,
        reason: `the target's table lacks ${listed(missing)}`,
        alternatives: [],
        hint: "add what is missing to the target, leave it out with `tables.columns`, or set `schema-changes: additive`"
      })
    )
  }
  const unfilled = target.columns
    .filter((c) => !c.isNullable && !c.hasDefault && !c.isGenerated && c.identity === undefined && !applied.has(c.name))
    .map((column) => column.name)
  if (unfilled.length > 0) {
    return Result.fail(
      new SchemaRefused({
        ...at,
        table,
        reason: `a row must have a value in ${listed(unfilled)}, and the source has no such column`,
        alternatives: [unfilled.map((name) => `ALTER TABLE ${table} ALTER COLUMN ${quote(name)} DROP NOT NULL`)],
        hint: "or give it a default; then start again"
      })
    )
  }
  return Result.succeed(route(relation, target, columnName))
}

export interface PlanContext {
  readonly config: { readonly schemaChanges: SchemaPolicy; readonly types: { readonly [type: string]: string } }
  readonly mapping: Mapping
  /** Reads the target's catalog, afresh: somebody may have prepared it for this very change. */
  readonly tables: (
    names: ReadonlyArray<TableName>
  ) => Effect.Effect<ReadonlyMap<string, TargetTable>, SqlFailure.SqlFailure | NotATable, SqlClient.SqlClient>
  /** The source's user-defined types by their OIDs. */
  readonly types: ReadonlyMap<number, TypeName>
  readonly commitLsn: Lsn | undefined
}

/** {@link diff} against the target as the ambient transaction sees it; its warnings are logged. Runs no statement. */
export const plan = Effect.fn("SchemaChange.plan")(function* (
  change: RelationChange,
  { commitLsn, config, mapping, tables: load, types }: PlanContext
): Effect.fn.Return<
  ReadonlyArray<SchemaStatement>,
  SchemaRefused | NotATable | SqlFailure.SqlFailure,
  SqlClient.SqlClient
> {
  const { previous, relation } = change
  const table = mapping.table(relation)
  if (config.schemaChanges === "none" || table === undefined) return []
  const previousTable = previous === undefined ? undefined : mapping.table(previous)
  const tables = yield* load(previousTable === undefined ? [table] : [table, previousTable])
  const resolved = yield* resolve([...relation.columns, ...(previous?.columns ?? [])], {
    types,
    settings: config.types,
    schema: table.schema,
    schemaOf: mapping.schema
  }).pipe(SqlFailure.typed)
  const { statements, warnings } = yield* Effect.fromResult(
    diff(change, tables.get(nameOf(table)), previousTable && tables.get(nameOf(previousTable)), {
      policy: config.schemaChanges,
      table,
      previousTable,
      columnName: mapping.column(relation),
      commitLsn,
      ...resolved
    })
  )
  for (const warning of warnings) yield* Effect.logWarning(`${warning} (offset ${change.offset})`)
  return statements
})
