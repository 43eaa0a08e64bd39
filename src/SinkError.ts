/** What keeps a group from being applied. */
import { Schema } from "effect"
import type { Statement } from "./plan/Statement.ts"
import * as Router from "./schema/Router.ts"
import type { RowsUnfilled } from "./schema/Unfilled.ts"
import type { End } from "./stream/Change.ts"
import { Offset } from "./stream/FluvioConsumer.ts"
import { formatLsn, Lsn, type OffsetStoreError, type PositionConflict } from "./stream/OffsetStore.ts"
import type { Relation } from "./stream/Relation.ts"
import type { Unreadable } from "./stream/TransactionError.ts"
import { qualified, quote } from "./target/Identifier.ts"
import type { Route } from "./target/Route.ts"
import * as SqlFailure from "./target/SqlFailure.ts"
import { isRetryable } from "./stream/Outcome.ts"

const place = { table: Schema.String, offset: Offset, commitLsn: Schema.UndefinedOr(Lsn) }

/** The target refused a statement. Nothing of the group was applied. */
export class ApplyFailed extends Schema.TaggedError<ApplyFailed>()("ApplyFailed", {
  ...place,
  failure: SqlFailure.SqlFailure,
  /** Of a schema change: the statement, what depends on its column, and how to have others run in its place. */
  schemaChange: Schema.optional(
    Schema.Struct({ statement: Schema.String, dependants: Schema.Array(Schema.String), instead: Schema.String })
  )
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    const { failure, schemaChange } = this
    if (schemaChange === undefined || failure.isRetryable) return failure.remedy
    const first =
      schemaChange.dependants.length > 0
        ? `change or drop ${schemaChange.dependants.join(", ")} in the target, then start again`
        : failure.remedy
    return `${first}; or have other statements run in place of those of this change: ${schemaChange.instead}; with each statement as one text, or none if the target fits as it is`
  }
  override get message() {
    const failed = `${Router.describe(this)}: ${this.failure.message}`
    if (this.schemaChange === undefined) return failed
    const { dependants, statement } = this.schemaChange
    return `${failed}, in: ${statement}${dependants.length === 0 ? "" : `; on its column depend ${dependants.join(", ")}`}`
  }
}

/**
 * What the program does in the transaction of a group was refused. Nothing of the group was applied, and none of its
 * transactions is at fault.
 */
export class InTransactionFailed extends Schema.TaggedError<InTransactionFailed>()("InTransactionFailed", {
  offset: Offset,
  failure: SqlFailure.SqlFailure
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "correct what the program that embeds the connector does in InTransaction"
  override get message() {
    return `offset ${this.offset}: a statement of InTransaction failed: ${this.failure.message}`
  }
}

/** What the target says of a table that others refer to is the same as of any feature it does not have. */
export const refusedTruncate = ({ emptied = [] }: Statement, failure: SqlFailure.SqlFailure): SqlFailure.SqlFailure => {
  if (failure.sqlState !== "0A000") return failure
  const tables = emptied.map((table) => `'${table.replaceAll("'", "''")}'::regclass`).join(", ")
  return new SqlFailure.SqlFailure({
    ...failure,
    condition: "a table that is not emptied with it refers to it by a foreign key",
    remedy: `drop that foreign key in the target, which SELECT conrelid::regclass, conname FROM pg_constraint WHERE contype = 'f' AND confrelid IN (${tables}) finds; or, where the source's TRUNCATE has CASCADE, set \`truncate-cascade: as-source\` to empty that table too`
  })
}

/** Source and target disagree about a row. Nothing of the group was applied. */
export class RowConflict extends Schema.TaggedError<RowConflict>()("RowConflict", {
  ...place,
  kind: Schema.Literals(["update_missing", "delete_missing", "several_rows"]),
  rows: Schema.Natural
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    return this.kind === "several_rows"
      ? "the key is not unique in the target: add the unique index that the source has"
      : "repair the row in the target, or set `missing-row: skip`"
  }
  override get message() {
    return `${Router.describe(this)}: conflict ${this.kind}, ${this.rows} rows touched instead of 1`
  }
}

/** The stream does not say which row an update or delete means. */
export class IdentityMissing extends Schema.TaggedError<IdentityMissing>()("IdentityMissing", place) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    const skipped =
      this.commitLsn === undefined
        ? ""
        : `; pass over what was written before that with \`fluvio-postgres-sink skip --lsn ${formatLsn(this.commitLsn)} --reason …\`, with the same settings, and make its changes in the target by hand`
    return `give the source table a primary key or REPLICA IDENTITY FULL, and the target the columns of its key${skipped}`
  }
  override get message() {
    return `${Router.describe(this)}: the change carries no identity that the target can look up`
  }
}

/** By the policy for existing rows an insert finds its row by a unique index on the key, and there is none that can serve. */
export class ArbiterMissing extends Schema.TaggedError<ArbiterMissing>()("ArbiterMissing", {
  ...place,
  policy: Schema.Literals(["update", "skip"]),
  reason: Schema.String,
  remedy: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  override get message() {
    return `${Router.describe(this)}: \`existing-row: ${this.policy}\` cannot find the row that an insert may meet, because ${this.reason}`
  }
}

export const arbiterMissing = (
  { columns, key, table }: Route,
  policy: "update" | "skip",
  at: { readonly table: string; readonly offset: Offset; readonly commitLsn: Lsn | undefined }
): ArbiterMissing => {
  const names = key.length > 0 ? key.map((place) => columns[place].column.name) : (table.primaryKey ?? [])
  const list = names.map(quote).join(", ")
  const name = qualified(table.schema, table.name)
  const late = table.deferrableKeys.find(
    ({ columns }) => columns.length === names.length && columns.every((column) => names.includes(column))
  )
  const reason =
    late !== undefined
      ? `the constraint ${late.constraint} is DEFERRABLE`
      : table.isPrimaryKeyTemporal
        ? "the primary key is WITHOUT OVERLAPS"
        : `no unique index has exactly the columns ${list}`
  const statement =
    late !== undefined
      ? `ALTER TABLE ${name} DROP CONSTRAINT ${quote(late.constraint)}, ADD ${late.isPrimary ? "PRIMARY KEY" : "UNIQUE"} (${list});`
      : `CREATE UNIQUE INDEX ON ${name} (${list});`
  return new ArbiterMissing({
    ...at,
    policy,
    reason: `${reason} in the target`,
    remedy: `in the target run ${statement} or set \`existing-row: halt\``
  })
}

/**
 * An update sets a column that is GENERATED ALWAYS AS IDENTITY in the target, which PostgreSQL's UPDATE cannot. The row
 * is taken out and put back for it only where no trigger and no foreign key sees that.
 */
export class IdentityFixed extends Schema.TaggedError<IdentityFixed>()("IdentityFixed", {
  ...place,
  remedy: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  override get message() {
    return `${Router.describe(this)}: the update sets a column that is GENERATED ALWAYS AS IDENTITY in the target, and putting the row in anew would fire triggers or foreign keys of the table`
  }
}

export const identityFixed = (
  { table }: Route,
  at: { readonly table: string; readonly offset: Offset; readonly commitLsn: Lsn | undefined }
): IdentityFixed => {
  const alters = table.columns
    .filter(({ identity }) => identity === "always")
    .map(({ name }) => `ALTER COLUMN ${quote(name)} SET GENERATED BY DEFAULT`)
  const statement = `ALTER TABLE ${qualified(table.schema, table.name)} ${alters.join(", ")};`
  return new IdentityFixed({ ...at, remedy: `in the target run ${statement}` })
}

export type SinkError =
  | Unreadable
  | ApplyFailed
  | InTransactionFailed
  | RowConflict
  | RowsUnfilled
  | IdentityMissing
  | ArbiterMissing
  | IdentityFixed
  | Router.RouterError
  | PositionConflict
  | OffsetStoreError

/** A folded run did not do what it should: only the exact plan can tell what is wrong, if anything is. */
export class FoldGivenUp {
  readonly _tag = "FoldGivenUp"
  readonly isRetryable = false
}

/**
 * Whether the exact plan may succeed: a refused value or constraint may be the fold's own doing, and a statement that does
 * not fit its table that of somebody who altered the table since the catalog was read.
 */
export const isFoldsOwn = (error: unknown): boolean =>
  error instanceof FoldGivenUp ||
  (error instanceof ApplyFailed && ["constraint", "data", "schema"].includes(error.failure.class))

/** Less of it may come through: it took longer than `statement_timeout`, or more memory than there is. */
export const isTooMuch = (error: unknown): error is ApplyFailed =>
  error instanceof ApplyFailed && ["57014", "53200"].includes(error.failure.sqlState ?? "")

/** A constraint that is checked late fails in COMMIT, which belongs to no change: the transaction's end names the place. */
export const refusedAt =
  ({ commitLsn, record }: End) =>
  <E>(error: E): E | ApplyFailed => {
    if (!(error instanceof SqlFailure.SqlFailure) || error.class !== "constraint") return error
    const table = error.table === undefined ? "the whole transaction" : `${error.schema}.${error.table}`
    return new ApplyFailed({ table, offset: record.offset, commitLsn, failure: error })
  }

export const tableOf = ({ name, namespace }: Relation): string => `${namespace}.${name}`
