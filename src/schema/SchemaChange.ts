/**
 * What is run in the target for what became of a table in the source: the statements, or a refusal.
 *
 * {@link interpret} says how two descriptions of a table can be read. Columns are compared by name with the target's
 * catalog, so a repeated or outdated relation asks for nothing, and a column that only the target has is never touched.
 * What is not clear, or not allowed by `schema-changes`, is refused with every reading and its statements, because a
 * wrong guess would show values under the wrong name in silence.
 */
import { Effect, Result, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { Offset } from "../stream/FluvioConsumer.ts"
import { qualified, quote } from "../target/Identifier.ts"
import type { Mapping } from "../target/Mapping.ts"
import { Lsn, formatLsn } from "../stream/OffsetStore.ts"
import type { Relation, RelationColumn } from "../stream/Relation.ts"
import { type Route, route } from "../target/Route.ts"
import * as Decision from "./Decision.ts"
import * as Filters from "./Filters.ts"
import { moved, type Owners, parked, type Refusal, shared, taken } from "./Owners.ts"
import { interpret, isSameType, mostListed, type Reading } from "./Reading.ts"
import { type TargetType, type TypeName, isWidening, resolve } from "./SourceType.ts"
import * as SqlFailure from "../target/SqlFailure.ts"
import type { NotATable, TableName, TargetColumn, TargetTable } from "../target/TargetTable.ts"
import type { RelationChange } from "../stream/Change.ts"
import { isRetryable } from "../stream/Outcome.ts"

/**
 * `none` changes nothing, `validate` refuses whatever would have to be changed, `additive` creates and alters nothing
 * that exists, `full` also renames, drops and retypes columns where the stream is clear. `full` assumes that the source's
 * publications have no column lists: a column that is not published any more looks like one that was dropped.
 */
export const schemaPolicies = ["none", "validate", "additive", "full"] as const
export type SchemaPolicy = (typeof schemaPolicies)[number]

/**
 * A change that can be read in several ways: `stop`, or `keep` the target's columns as they are, as a native subscriber
 * does, as long as rows fit.
 */
export const unclearPolicies = ["stop", "keep"] as const
export type UnclearPolicy = (typeof unclearPolicies)[number]

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
    /** The target has the new name already: the values move there. */
    | "copyColumn"
    | "decided"
  /** The qualified name of the table, as the relation has it. */
  readonly table: string
  /** Its column, by the name that it has before. */
  readonly column?: string
}

export interface SchemaDiff {
  /** In the order in which they must run. */
  readonly statements: ReadonlyArray<SchemaStatement>
  /** What remains different all the same, in sentences without values. */
  readonly warnings: ReadonlyArray<string>
  /** Columns that are added to a table with rows: these have NULL there, whatever the source's have. */
  readonly unfilled: ReadonlyArray<string>
}

/** The target's tables do not fit a relation, and are not changed to. */
export class SchemaRefused extends Schema.TaggedError<SchemaRefused>()("SchemaRefused", {
  table: Schema.String,
  offset: Offset,
  commitLsn: Schema.UndefinedOr(Lsn),
  reason: Schema.String,
  /** Ways out, each of them statements to run in the target in this order. */
  alternatives: Schema.Array(Schema.Array(Schema.String)),
  /** What each of them takes for granted; empty where there is nothing to choose. */
  readings: Schema.Array(Schema.String),
  /** What else helps. */
  hint: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    const ways = this.alternatives.map((statements, n) => {
      const text = statements.map((statement) => `${statement};`).join(" ")
      return this.readings.length === 0 ? text : `(${n + 1}) if ${this.readings[n]}: ${text}`
    })
    return [...(ways.length === 0 ? [] : [`run in the target: ${ways.join(" OR ")}`]), this.hint].join(" — ")
  }
  override get message() {
    const transaction = this.commitLsn === undefined ? "" : `, transaction ${formatLsn(this.commitLsn)}`
    return `${this.table}, offset ${this.offset}${transaction}: ${this.reason}`
  }
}

export interface DiffOptions {
  readonly policy: SchemaPolicy
  readonly unclear: UnclearPolicy
  /** Where the relation's rows go. */
  readonly table: TableName
  /** Where they went before this change; `undefined` when they went nowhere. */
  readonly previousTable: TableName | undefined
  /** The schema of `table` exists in the target. */
  readonly hasSchema: boolean
  /** The target's table has rows; without any, no content is at stake. */
  readonly hasRows: boolean
  /** The target column of a source column; `undefined` when it is filtered out. */
  readonly columnName: (name: string) => string | undefined
  readonly typeOf: (column: RelationColumn) => TargetType
  readonly commitLsn: Lsn | undefined
  /** The statement by which the operator has these statements run in place of the connector's. */
  readonly decide: (statements: ReadonlyArray<string>) => string
}

const nameOf = ({ name, schema }: TableName): string => qualified(schema, name)

const listed = (names: ReadonlyArray<string>): string => names.map(quote).join(", ")

/** A way to bring the target to what a reading says. */
interface Way {
  readonly statements: ReadonlyArray<SchemaStatement>
  readonly warnings: ReadonlyArray<string>
  readonly unfilled: ReadonlyArray<string>
  /** Key columns that rows need values for which only the source has. */
  readonly unknownKey: ReadonlyArray<string>
}

const restart = "then start again; the connector runs the statements where the change stands in the stream"

/** The statements of one relation, as they come together. */
class Draft {
  readonly statements: Array<SchemaStatement> = []
  readonly warnings: Array<string> = []
  readonly unfilled: Array<string> = []
  readonly change: RelationChange
  readonly options: DiffOptions
  readonly table: string

  constructor(change: RelationChange, options: DiffOptions) {
    this.change = change
    this.options = options
    this.table = nameOf(options.table)
  }

  statement(kind: SchemaStatement["kind"], text: string, column?: string): SchemaStatement {
    return { kind, text, table: this.table, ...(column === undefined ? {} : { column }) }
  }

  add(kind: SchemaStatement["kind"], text: string): void {
    this.statements.push(this.statement(kind, text))
  }

  refuse(
    reason: string,
    alternatives: ReadonlyArray<ReadonlyArray<SchemaStatement>>,
    hint: string,
    readings: ReadonlyArray<string> = []
  ): Result.Result<never, SchemaRefused> {
    return Result.fail(
      new SchemaRefused({
        table: this.table,
        offset: this.change.offset,
        commitLsn: this.options.commitLsn,
        reason,
        alternatives: alternatives.map((statements) => [this.options.decide(statements.map(({ text }) => text))]),
        readings,
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
    return this.statement(
      "renameColumn",
      `ALTER TABLE ${this.table} RENAME COLUMN ${quote(from)} TO ${quote(to)}`,
      from
    )
  }

  drop(name: string): SchemaStatement {
    return this.statement("dropColumn", `ALTER TABLE ${this.table} DROP COLUMN ${quote(name)}`, name)
  }

  addColumn(name: string, type: string): SchemaStatement {
    return this.statement("addColumn", `ALTER TABLE ${this.table} ADD COLUMN ${quote(name)} ${type}`, name)
  }

  alterType(name: string, type: string): SchemaStatement {
    const column = quote(name)
    const text = `ALTER TABLE ${this.table} ALTER COLUMN ${column} TYPE ${type} USING ${column}::${type}`
    return this.statement("alterType", text, name)
  }

  take({ statements, unfilled, warnings }: Way): void {
    this.statements.push(...statements)
    this.warnings.push(...warnings)
    this.unfilled.push(...unfilled)
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

/** A relation's column that is applied, and the target column that it goes to. */
interface Applied {
  readonly column: RelationColumn
  readonly name: string
}

const appliedOf = (relation: Relation, { columnName }: DiffOptions): ReadonlyArray<Applied> =>
  relation.columns.flatMap((column) => {
    const name = columnName(column.name)
    return name === undefined ? [] : [{ column, name }]
  })

/** A key that says which row is meant; FULL flags every column and is none. */
const isIdentity = ({ replicaIdentity }: Relation, { isKey }: RelationColumn): boolean =>
  isKey && (replicaIdentity === "Default" || replicaIdentity === "Index")

/** A name that neither side has: for columns that exchange their names. */
const spareName = (taken: (name: string) => boolean): string => {
  for (let n = 1; ; n++) if (!taken(`moving_${n}`)) return `moving_${n}`
}

/** The type follows the source where it was the source's before. */
const retype = (
  draft: Draft,
  before: RelationColumn,
  after: RelationColumn,
  column: TargetColumn,
  name: string
): Result.Result<{ readonly statement?: SchemaStatement; readonly warning?: string }, SchemaRefused> =>
  Result.gen(function* () {
    if (isSameType(before, after) || column.isGenerated) return {}
    // Asked first: where the target's operator has chosen a type, the source's need not even exist.
    if (draft.options.typeOf(before) !== column.fullType) {
      if (draft.options.typeOf(after) === column.fullType) return {}
      return { warning: `${quote(name)} has another type in the source now; here it differed before, and stays` }
    }
    const type = yield* draft.typeOf(after)
    if (type === column.fullType) return {}
    return {
      statement: draft.alterType(name, type),
      ...(isWidening(before, after)
        ? {}
        : { warning: `the values of ${quote(name)} are cast to ${type}; the source may have converted them otherwise` })
    }
  })

/**
 * The statements that bring the target to what a reading says: what must go, then renames, each once its new name is
 * free, then what is new, then types. Without `dropsAll`, columns stay whose name nobody needs.
 */
const wayOf = (
  draft: Draft,
  reading: Reading,
  target: TargetTable,
  dropsAll: boolean
): Result.Result<Way, SchemaRefused> =>
  Result.gen(function* () {
    const { change, options } = draft
    const existing = new Map(target.columns.map((column) => [column.name, column]))
    const present = new Set(existing.keys())
    const statements: Array<SchemaStatement> = []
    const warnings: Array<string> = []
    const unfilled: Array<string> = []
    const unknownKey: Array<string> = []
    const wanted = change.relation.columns.flatMap((column, n) => {
      const name = options.columnName(column.name)
      if (name === undefined) return []
      const origin = reading.origins[n]
      const from = origin === undefined ? undefined : options.columnName(origin.name)
      return [{ column, name, origin, from: from !== undefined && existing.has(from) ? from : undefined }]
    })
    const kept = new Set(wanted.flatMap(({ from, name }) => (from === name ? [name] : [])))
    const needed = new Set(wanted.flatMap(({ name }) => (kept.has(name) ? [] : [name])))
    for (const one of reading.changes) {
      const name = one.type === "dropped" ? options.columnName(one.before.name) : undefined
      if (name === undefined || !present.has(name)) continue
      if (dropsAll || needed.has(name)) {
        statements.push(draft.drop(name))
        present.delete(name)
      } else warnings.push(`the source no longer shows ${quote(name)}; it stays here, and new rows have NULL there`)
    }
    const moves = new Map(
      wanted.flatMap(({ from, name }) => (from === undefined || from === name ? [] : [[from, name] as const]))
    )
    while (moves.size > 0) {
      const move = (from: string, to: string) => {
        statements.push(draft.rename(from, to))
        present.delete(from)
        present.add(to)
      }
      const free = [...moves].find(([, to]) => !present.has(to))
      const own = [...moves].find(([, to]) => !moves.has(to))
      if (free !== undefined) {
        move(...free)
        moves.delete(free[0])
      } else if (own !== undefined) {
        const [from, to] = own
        const text = `UPDATE ${draft.table} SET ${quote(to)} = ${quote(from)}`
        statements.push(draft.statement("copyColumn", text, to), draft.drop(from))
        present.delete(from)
        moves.delete(from)
      } else {
        const [[from, to]] = moves
        const spare = spareName((name) => present.has(name) || needed.has(name))
        move(from, spare)
        moves.delete(from)
        moves.set(spare, to)
      }
    }
    for (const { column, name, origin } of wanted) {
      if (present.has(name)) {
        if (origin === undefined && options.hasRows) {
          warnings.push(`${quote(name)} is new in the source; it is here already, and its values stay as they are`)
        }
        continue
      }
      statements.push(draft.addColumn(name, yield* draft.typeOf(column)))
      present.add(name)
      if (!options.hasRows) continue
      unfilled.push(name)
      warnings.push(
        `rows that are here have NULL in the new ${quote(name)}: the stream does not tell the source's default`
      )
      if (isIdentity(change.relation, column)) unknownKey.push(name)
    }
    for (const { column, from, name, origin } of wanted) {
      if (origin === undefined || from === undefined) continue
      const { statement, warning } = yield* retype(draft, origin, column, existing.get(from)!, name)
      if (statement !== undefined) statements.push(statement)
      if (warning !== undefined) warnings.push(warning)
    }
    return { statements, warnings, unfilled, unknownKey }
  })

const typeText = ({ options }: Draft, column: RelationColumn): string => {
  const type = options.typeOf(column)
  return typeof type === "string" ? type : `type ${column.typeId}`
}

/** A reading in words. */
const describe = (draft: Draft, { changes }: Reading): string => {
  const named = (column: RelationColumn) => `${quote(column.name)} (${typeText(draft, column)})`
  const words = changes.map((one) => {
    switch (one.type) {
      case "added":
        return `${named(one.after)} was added`
      case "dropped":
        return `${named(one.before)} was dropped`
      case "renamed":
        return `${named(one.before)} was renamed to ${quote(one.after.name)}`
      case "retyped":
        return `the type of ${quote(one.after.name)} was changed from ${typeText(draft, one.before)} to ${typeText(draft, one.after)}`
    }
  })
  return words.length === 0 ? "nothing was changed" : words.join(", ")
}

const isSame = (a: RelationColumn | undefined, b: RelationColumn | undefined): boolean =>
  a !== undefined && b !== undefined && a.name === b.name && isSameType(a, b)

/** What the stream shows: the columns before and after, without those at either end that are the same. */
const shown = (draft: Draft, before: Relation, after: Relation): string => {
  const shortest = Math.min(before.columns.length, after.columns.length)
  let start = 0
  while (start < shortest && isSame(before.columns[start], after.columns[start])) start += 1
  let end = 0
  while (end < shortest - start && isSame(before.columns.at(-1 - end), after.columns.at(-1 - end))) end += 1
  const list = ({ columns }: Relation) => {
    const part = columns.slice(start, columns.length - end)
    const text = part.slice(0, 20).map((column) => `${quote(column.name)} ${typeText(draft, column)}`)
    return `(${[start > 0 ? ["…"] : [], text, end > 0 || part.length > 20 ? ["…"] : []].flat().join(", ")})`
  }
  const moved = after.columns.flatMap((column) => {
    const old = before.columns.find(({ name }) => name === column.name)
    return old === undefined || isSameType(old, column)
      ? []
      : [`; ${quote(column.name)} was ${typeText(draft, old)} and is ${typeText(draft, column)}`]
  })
  return `its columns were ${list(before)} and are ${list(after)}${moved.join("")}`
}

const refuseUnknownKey = (draft: Draft, names: ReadonlyArray<string>): Result.Result<never, SchemaRefused> =>
  draft.refuse(
    `rows that are here need values in ${listed(names)}, which the source's rows are found by now and the stream does not tell`,
    [],
    `add ${listed(names)} to the target's table and fill it with the source's values for each row; then start again`
  )

/** Refuses what can be read in several ways, with each of them. */
const refuseUnclear = (
  draft: Draft,
  readings: ReadonlyArray<Reading>,
  isCut: boolean,
  target: TargetTable,
  what: string
): Result.Result<never, SchemaRefused> =>
  Result.gen(function* () {
    const reason = `the stream does not tell what was done to its columns: ${what}`
    if (isCut) {
      return yield* draft.refuse(
        `${reason}; there are more readings than can be listed`,
        [],
        `run in the target: ${draft.options.decide(["…"])}; with the statements that bring the table to the source's columns, each as one text — ${restart}`
      )
    }
    const told: Array<string> = []
    const offered: Array<ReadonlyArray<SchemaStatement>> = []
    const more: Array<string> = []
    for (const reading of readings) {
      const { statements, unknownKey } = yield* wayOf(draft, reading, target, draft.options.policy !== "additive")
      const words = describe(draft, reading)
      if (unknownKey.length > 0) {
        more.push(
          `if ${words}: add ${listed(unknownKey)} to the target's table, fill it with the source's values, and run ${draft.options.decide([])};`
        )
      } else {
        told.push(words)
        offered.push([...draft.statements, ...statements])
      }
    }
    return yield* draft.refuse(reason, offered, [...more, restart].join(" "), told)
  })

/**
 * Ways in which a table that is described for the first time can have become what it is, the first of them by name. A
 * column that the target lacks may have another name here; and as a new column comes last, it may be an earlier form of
 * one that stands behind it: `(id, a)` becomes `(id, b, a)` when `a` is renamed to `b`, and another `a` is added.
 */
const meetings = (draft: Draft, target: TargetTable): ReadonlyArray<Reading> => {
  const { change, options } = draft
  const applied = appliedOf(change.relation, options).map(({ name }) => name)
  const places = new Map(target.columns.map(({ name }, place) => [name, place]))
  const plain = target.columns.filter(({ isGenerated, name }) => !isGenerated && options.columnName(name) === name)
  let readings: ReadonlyArray<Reading> = [{ changes: [], origins: [] }]
  for (const column of change.relation.columns) {
    const name = options.columnName(column.name)
    const type = options.typeOf(column)
    const before = name === undefined ? [] : applied.slice(0, applied.indexOf(name))
    readings = readings.flatMap(({ changes, origins }): ReadonlyArray<Reading> => {
      const taken = origins.flatMap((origin) => origin?.name ?? [])
      if (name === undefined || (places.has(name) && !taken.includes(name))) {
        return [{ changes, origins: [...origins, column] }]
      }
      const added = { type: "added", after: column, proof: "descriptions" } as const
      const renamed = plain
        .filter((mine) => mine.fullType === type && !taken.includes(mine.name) && !before.includes(mine.name))
        .map((mine) => {
          const origin = { ...column, name: mine.name }
          return {
            changes: [...changes, { type: "renamed", before: origin, after: column, proof: "descriptions" } as const],
            origins: [...origins, origin]
          }
        })
      return [{ changes: [...changes, added], origins: [...origins, undefined] }, ...renamed]
    })
    // One more than is listed, so that it shows.
    readings = readings.slice(0, mostListed + 1)
  }
  // A rename keeps the place, and a target that somebody has ordered otherwise is no former shape of the source's table.
  const isPossible = ({ changes, origins }: Reading) => {
    if (!changes.some((one) => one.type === "renamed" && applied.includes(one.before.name))) return true
    const kept = origins.flatMap((origin) => (origin === undefined ? [] : (places.get(origin.name) ?? [])))
    return kept.every((place, n) => n === 0 || kept[n - 1] < place)
  }
  const shortest = readings[0].changes.length
  return readings.filter((reading) => isPossible(reading) && reading.changes.length <= shortest + 2)
}

/** The first description of a table that the target has: what it lacks may have another name here. */
const meet = (draft: Draft, target: TargetTable): Result.Result<void, SchemaRefused> =>
  Result.gen(function* () {
    const readings = meetings(draft, target)
    const [byName, ...others] = readings
    if (draft.options.hasRows && others.some(({ changes }) => changes.length <= byName.changes.length + 1)) {
      const own = target.columns.map(({ fullType, name }) => `${quote(name)} ${fullType}`).join(", ")
      const what = `this is its first description, and the target has rows under other names: (${own})`
      return yield* refuseUnclear(draft, readings, readings.length > mostListed, target, what)
    }
    const way = yield* wayOf(draft, byName, target, false)
    if (way.unknownKey.length > 0) return yield* refuseUnknownKey(draft, way.unknownKey)
    draft.take(way)
  })

/** Brings the columns of a table that exists up to the relation. */
const alterColumns = (
  draft: Draft,
  target: TargetTable,
  previous: Relation | undefined
): Result.Result<void, SchemaRefused> =>
  Result.gen(function* () {
    if (previous === undefined) return yield* meet(draft, target)
    const { change, options } = draft
    const { relation } = change
    const existing = new Set(target.columns.map(({ name }) => name))
    const contentOf = ({ origins }: Reading) =>
      JSON.stringify(
        relation.columns.map((column, n) => {
          const origin = origins[n]
          const from = origin === undefined ? undefined : options.columnName(origin.name)
          if (options.columnName(column.name) === undefined) return null
          return from !== undefined && existing.has(from) ? from : ""
        })
      )
    const areKeyed = [previous, relation].every(({ replicaIdentity }) => ["Default", "Index"].includes(replicaIdentity))
    const columnsOf = ({ columns }: Relation) =>
      areKeyed ? columns : columns.map((column) => ({ ...column, isKey: false }))
    const { isClear, isCut, readings, shortest } = interpret(columnsOf(previous), columnsOf(relation), contentOf)
    const crossing = shortest
      .flatMap(({ changes }) => changes)
      .find(
        (one) =>
          one.type === "renamed" &&
          (options.columnName(one.before.name) === undefined) !== (options.columnName(one.after.name) === undefined)
      )
    if (crossing?.type === "renamed") {
      const [from, to] = [crossing.before.name, crossing.after.name]
      const isLeft = options.columnName(to) === undefined
      return yield* draft.refuse(
        `${quote(from)} may have been renamed to ${quote(to)}, and \`tables.columns\` ${isLeft ? "applies only the former" : "leaves only the former out"}: ${shown(draft, previous, relation)}`,
        [],
        `name ${quote(to)} in \`tables.columns\` as ${quote(from)} is, if it is the same column; if it is not, run in the target: ${options.decide(isLeft ? [] : [draft.addColumn(to, typeText(draft, crossing.after)).text])}; — ${restart}`
      )
    }
    const applied = appliedOf(relation, options)
    const hasAll = applied.every(({ name }) => existing.has(name))
    if (!isClear && options.hasRows) {
      const left = appliedOf(previous, options).filter(({ name }) => !applied.some((one) => one.name === name))
      // Rows of the shape before could not be written any more: somebody has decided, and altered the table.
      if (hasAll && left.length > 0 && left.every(({ name }) => !existing.has(name))) return
      const what = shown(draft, previous, relation)
      if (options.unclear === "stop" || !hasAll) return yield* refuseUnclear(draft, readings, isCut, target, what)
      const told = isCut ? "more than can be listed" : readings.map((one) => describe(draft, one)).join(" OR ")
      draft.warnings.push(`the columns stay as they are, although ${what}. The readings: ${told}`)
      return
    }
    const way = yield* wayOf(draft, readings[0], target, options.policy !== "additive")
    if (way.unknownKey.length > 0) return yield* refuseUnknownKey(draft, way.unknownKey)
    draft.take(way)
  })

/** What a policy does by itself. */
const allowed: { readonly [Policy in "additive" | "full"]: ReadonlySet<SchemaStatement["kind"]> } = {
  additive: new Set(["createSchema", "createTable", "addColumn"] as const),
  full: new Set([
    "createSchema",
    "createTable",
    "addColumn",
    "setSchema",
    "renameTable",
    "renameColumn",
    "dropColumn",
    "alterType"
  ] as const)
}

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
    const { policy } = options
    if (policy === "none") return { statements: [], warnings: [], unfilled: [] }
    const { previousTable } = options
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
          `or restore it with its rows; ${restart}`
        )
      }
    }

    const { statements, unfilled } = draft
    if (policy === "validate" && statements.length > 0) {
      return yield* draft.refuse(
        "the target does not fit the source's table",
        [statements],
        `or set \`schema-changes: additive\` or \`schema-changes: full\`; ${restart}`
      )
    }
    if (policy !== "validate" && statements.some(({ kind }) => !allowed[policy].has(kind))) {
      const [reason, more] =
        policy === "additive"
          ? [
              "the change alters what the target has, which `schema-changes: additive` does not",
              "or set `schema-changes: full`; "
            ]
          : ["a column has a new name in the source, which the target has already", ""]
      return yield* draft.refuse(reason, [statements], `${more}${restart}`)
    }
    return { statements, unfilled, warnings: draft.warnings.map((text) => `${draft.table}: ${text}`) }
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
        readings: [],
        hint: "add what is missing to the target, leave it out with `tables.columns`, or set `schema-changes: additive`"
      })
    )
  }
  const generated = target.columns.filter(({ isGenerated, name }) => isGenerated && applied.has(name))
  if (generated.length > 0) {
    const names = generated.map(({ name }) => name)
    return Result.fail(
      new SchemaRefused({
        ...at,
        table,
        reason: `the source has values for ${listed(names)}, which the target generates`,
        alternatives: [],
        readings: [],
        hint: `make ${names.length === 1 ? "it a plain column" : "them plain columns"} in the target, or leave out ${names.map((name) => `\`${name}\``).join(", ")} with \`tables.columns\`; then start again`
      })
    )
  }
  const unfilled = target.columns
    .filter((c) => !c.isNullable && !c.hasDefault && !c.isGenerated && c.identity === undefined && !applied.has(c.name))
    .map((column) => column.name)
  if (unfilled.length > 0) {
    const isOfKey = unfilled.some((name) => target.primaryKey?.includes(name) ?? false)
    const alter = unfilled.map((name) => `ALTER TABLE ${table} ALTER COLUMN ${quote(name)} DROP NOT NULL`)
    const drop = unfilled.map((name) => `ALTER TABLE ${table} DROP COLUMN ${quote(name)}`)
    return Result.fail(
      new SchemaRefused({
        ...at,
        table,
        reason: `a row must have a value in ${listed(unfilled)}, and the source has no such column`,
        // A column of the primary key cannot be NULL.
        alternatives: isOfKey ? [drop] : [alter, drop],
        readings: isOfKey ? [] : ["its values are still of use here", "they are not"],
        hint: "or give it a default; then start again"
      })
    )
  }
  return Result.succeed(route(relation, target, columnName))
}

export interface PlanContext {
  readonly config: {
    readonly topic: string
    readonly partition: number
    readonly schemaChanges: SchemaPolicy
    readonly unclearChanges: UnclearPolicy
    readonly types: { readonly [type: string]: string }
  }
  readonly mapping: Mapping
  /** Before the change. */
  readonly owners: Owners
  /** Reads the target's catalog, afresh: somebody may have prepared it for this very change. */
  readonly tables: (
    names: ReadonlyArray<TableName>
  ) => Effect.Effect<ReadonlyMap<string, TargetTable>, SqlFailure.SqlFailure | NotATable, SqlClient.SqlClient>
  /** The source's user-defined types by their OIDs. */
  readonly types: ReadonlyMap<number, TypeName>
  readonly commitLsn: Lsn | undefined
}

/** Whether anything may have to be done: only then it matters if the target's table has rows. */
const mayDiffer = ({ previous, relation }: RelationChange, target: TargetTable, mapping: Mapping): boolean => {
  const columnName = mapping.column(relation)
  const isKept =
    previous === undefined ||
    (previous.columns.length === relation.columns.length &&
      previous.columns.every((column, n) => isSame(column, relation.columns[n])))
  return (
    !isKept ||
    relation.columns.some(({ name }) => {
      const wanted = columnName(name)
      return wanted !== undefined && !target.columns.some((column) => column.name === wanted)
    })
  )
}

const hasRows = Effect.fnUntraced(function* (table: TargetTable) {
  const sql = yield* SqlClient.SqlClient
  const from = `${table.isPartitioned ? "" : "ONLY "}${nameOf(table)}`
  const [row] = yield* sql
    .unsafe<{ readonly hasRows: boolean }>(`SELECT EXISTS (SELECT FROM ${from}) AS "hasRows"`)
    .pipe(SqlFailure.typed)
  return row.hasRows
})

/** The error of a refusal: each of its ways is a decision that the operator can take. */
export const refused = (
  { hint, reason, ways }: Refusal,
  {
    commitLsn,
    table,
    ...place
  }: Decision.DecisionPlace & { readonly table: string; readonly commitLsn: Lsn | undefined }
): SchemaRefused =>
  new SchemaRefused({
    table,
    offset: place.offset,
    commitLsn,
    reason,
    alternatives: ways.map(({ statements }) => [Decision.statementOf(place, statements)]),
    readings: ways.map(({ reading }) => reading),
    hint: `${hint}; ${ways.length === 0 ? "then start again" : restart}`
  })

const nothing: SchemaDiff = { statements: [], warnings: [], unfilled: [] }

const textsOf = ({ statements }: SchemaDiff): ReadonlyArray<string> => statements.map(({ text }) => text)

/**
 * {@link diff} against the target as the ambient transaction sees it, unless the table is not this relation's to alter, or
 * the operator has decided what is run. Runs no statement.
 */
export const plan = Effect.fn("SchemaChange.plan")(function* (
  change: RelationChange,
  { commitLsn, config, mapping, owners, tables: load, types }: PlanContext
): Effect.fn.Return<SchemaDiff, SchemaRefused | NotATable | SqlFailure.SqlFailure, SqlClient.SqlClient> {
  const { offset, previous, relation } = change
  const table = mapping.table(relation)
  const name = table === undefined ? qualified(relation.namespace, relation.name) : nameOf(table)
  const place = { topic: config.topic, partition: config.partition, offset }
  const decided = Effect.fnUntraced(function* (planned: Result.Result<SchemaDiff, SchemaRefused>) {
    if (Result.isSuccess(planned) && planned.success.statements.length === 0) return planned.success
    const statements = yield* Decision.take(place)
    if (statements === undefined) return yield* Effect.fromResult(planned)
    return {
      statements: statements.map((text): SchemaStatement => ({ kind: "decided", text, table: name })),
      warnings:
        statements.length === 0 ? [`${name}: nothing is run for the change, as decided in fluvio.decision`] : [],
      unfilled: []
    }
  })
  const refuse = (refusal: Refusal) => decided(Result.fail(refused(refusal, { ...place, commitLsn, table: name })))

  const former = previous && mapping.table(previous)
  const changed = (following: () => ReadonlyArray<string>) =>
    previous && Filters.changed(previous, relation, mapping, following)
  const rival = owners.rivalOf(relation)
  if (table === undefined || (config.schemaChanges === "none" && rival === undefined)) {
    const refusal = changed(() => (table && former ? moved(former, table) : []))
    return refusal === undefined ? nothing : yield* refuse(refusal)
  }

  // The table that a relation had under a name that is another's now is that one's, or has made room for it.
  const previousTable = former && previous && (owners.hasName(previous) ? former : parked(former, previous))
  const tables = yield* load(previousTable === undefined ? [table] : [table, previousTable])
  const resolved = yield* resolve([...relation.columns, ...(previous?.columns ?? [])], {
    types,
    settings: config.types,
    schema: table.schema,
    schemaOf: mapping.schema
  }).pipe(SqlFailure.typed)
  const target = tables.get(name)
  const previousTarget = previousTable && tables.get(nameOf(previousTable))
  const altered = target ?? previousTarget
  const options: DiffOptions = {
    policy: config.schemaChanges,
    unclear: config.unclearChanges,
    table,
    previousTable,
    hasRows: altered !== undefined && mayDiffer(change, altered, mapping) && (yield* hasRows(altered)),
    columnName: mapping.column(relation),
    commitLsn,
    decide: (statements) => Decision.statementOf(place, statements),
    ...resolved
  }
  /** What the policy `full` would do. */
  const follow = () => diff(change, target, previousTarget, { ...options, policy: "full" })

  const refusal = changed(() => {
    const followed = follow()
    return Result.isSuccess(followed) ? textsOf(followed.success) : former === undefined ? [] : moved(former, table)
  })
  if (refusal !== undefined) return yield* refuse(refusal)

  const warnings: Array<string> = []
  if (rival !== undefined && target !== undefined) {
    const isLost = previousTarget === undefined
    const fresh = diff(isLost ? { ...change, previous: undefined } : change, undefined, previousTarget, {
      ...options,
      policy: "full",
      previousTable: isLost ? undefined : previousTable
    })
    if (Result.isFailure(fresh)) return yield* decided(fresh)
    const taking = taken(relation, rival, { owners, table, needs: textsOf(fresh.success) })
    if (config.schemaChanges !== "none" && config.unclearChanges === "stop") return yield* refuse(taking)
    warnings.push(`${name}: the rows that it has stay there, although ${taking.reason}`)
  }

  const planned = diff(change, target, previousTarget, options)
  const others = owners.of(previousTable ?? table).filter(({ id }) => id !== relation.id && id !== rival?.id)
  if (others.length > 0) {
    const made = Result.isSuccess(planned) ? planned : follow()
    if (Result.isSuccess(made) && made.success.statements.some(({ kind }) => !allowed.additive.has(kind))) {
      return yield* refuse(shared(relation, others, textsOf(made.success)))
    }
  }
  const result = yield* decided(planned)
  return { ...result, warnings: [...warnings, ...result.warnings] }
})

/** What in the target depends on the column of a statement: views, triggers, generated columns and their like. */
export const dependantsOf = Effect.fn("SchemaChange.dependantsOf")(function* (
  { table }: SchemaStatement,
  column: string
) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql
    .unsafe<{ readonly name: string }>(
      `SELECT DISTINCT pg_describe_object(classid, objid, objsubid) AS name
       FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
       WHERE refclassid = 'pg_class'::regclass AND refobjid = to_regclass($1) AND attname = $2::name
         AND (deptype = 'n' OR (classid = 'pg_attrdef'::regclass AND deptype = 'a'))
       ORDER BY name`,
      [table, column]
    )
    .pipe(SqlFailure.typed)
  return rows.map(({ name }) => name)
})
