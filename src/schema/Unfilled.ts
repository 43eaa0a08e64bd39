/**
 * Columns that were added here to tables with rows. The stream does not tell the source's default, so these rows have
 * NULL where the source's have it; and a row that is looked up by its whole old image is then not found, although it is
 * there.
 */
import { Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { Offset } from "../stream/FluvioConsumer.ts"
import { formatLsn, Lsn } from "../stream/OffsetStore.ts"
import { isRetryable } from "../stream/Outcome.ts"
import { qualified, quote } from "../target/Identifier.ts"
import * as SqlFailure from "../target/SqlFailure.ts"
import type { TableName } from "../target/TargetTable.ts"
import * as Decision from "./Decision.ts"

export interface Column {
  readonly name: string
  readonly attnum: number
  /** The change that added it. */
  readonly offset: Offset
  readonly statement: string
}

/** An update or delete means a row that is here with NULL in a column that was added. */
export class RowsUnfilled extends Schema.TaggedError<RowsUnfilled>()("RowsUnfilled", {
  table: Schema.String,
  offset: Offset,
  commitLsn: Schema.UndefinedOr(Lsn),
  columns: Schema.Array(Schema.String),
  remedy: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  override get message() {
    const transaction = this.commitLsn === undefined ? "" : `, transaction ${formatLsn(this.commitLsn)}`
    return `${this.table}, offset ${this.offset}${transaction}: the row that is meant has NULL in ${this.columns.map(quote).join(", ")} here, because the column was added without the source's default`
  }
}

/** Notes columns that were just added, in the ambient transaction. By number, so that a rename does not lose them. */
export const note = Effect.fn("Unfilled.note")(function* (
  table: string,
  added: ReadonlyArray<{ readonly column: string; readonly statement: string }>,
  { offset, partition, topic }: Decision.DecisionPlace
) {
  const sql = yield* SqlClient.SqlClient
  yield* sql
    .unsafe(
      `INSERT INTO fluvio.unfilled (relation, attnum, topic, partition, record_offset, statement)
       SELECT attrelid, attnum, $2, $3::int4, $4::int8, item->>'statement'
       FROM json_array_elements($5::json) AS item
       JOIN pg_attribute ON attrelid = to_regclass($1) AND attname = (item->>'column')::name
       ON CONFLICT (relation, attnum) DO UPDATE SET topic = EXCLUDED.topic, partition = EXCLUDED.partition,
         record_offset = EXCLUDED.record_offset, statement = EXCLUDED.statement`,
      [table, topic, String(partition), String(offset), JSON.stringify(added)]
    )
    .pipe(SqlFailure.typed)
})

/** The noted columns of a table. */
export const columnsOf = Effect.fn("Unfilled.columnsOf")(function* ({ name, schema }: TableName) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql
    .unsafe<Omit<Column, "offset"> & { readonly offset: string }>(
      `SELECT attname AS name, unfilled.attnum, record_offset::text AS offset, statement
       FROM fluvio.unfilled JOIN pg_attribute ON attrelid = relation AND pg_attribute.attnum = unfilled.attnum
       WHERE relation = to_regclass($1) AND NOT attisdropped`,
      [qualified(schema, name)]
    )
    .pipe(SqlFailure.typed)
  return rows.map((row): Column => ({ ...row, offset: Offset.make(Number(row.offset)) }))
})

/** How to give the rows their values: where the column is added in this very transaction, it is not there to be filled. */
export const remedyOf = (
  table: string,
  columns: ReadonlyArray<Column>,
  place: Omit<Decision.DecisionPlace, "offset">,
  isCommitted: (offset: Offset) => boolean
): string => {
  const ways = columns.map(({ attnum, name, offset, statement }) => {
    if (!isCommitted(offset)) {
      return `have the column added with the source's default in place of the …: ${Decision.statementOf({ ...place, offset }, [`${statement} DEFAULT …`])}`
    }
    const column = quote(name)
    return (
      `run in the target, with the source's default in place of the …: UPDATE ${table} SET ${column} = … WHERE ${column} IS NULL; ` +
      `or, if the source has NULL in these rows too: DELETE FROM fluvio.unfilled WHERE relation = '${table.replaceAll("'", "''")}'::regclass AND attnum = ${attnum}`
    )
  })
  return `${ways.join("; and ")}; then start again`
}
