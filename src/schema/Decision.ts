/**
 * What the source's operator has decided where the stream leaves it open: the statements to run in place of the
 * connector's own, at the place in the stream where the change stands.
 *
 * They are run there, and not by hand before the connector goes on, because rows of the shape before may still have to be
 * applied, in the same source transaction too.
 */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import type { Offset } from "../stream/FluvioConsumer.ts"
import * as SqlFailure from "../target/SqlFailure.ts"

/** The record that described the change. */
export interface DecisionPlace {
  readonly topic: string
  readonly partition: number
  readonly offset: Offset
}

const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`

/** The statement that records a decision. */
export const statementOf = ({ offset, partition, topic }: DecisionPlace, statements: ReadonlyArray<string>): string =>
  "INSERT INTO fluvio.decision (topic, partition, record_offset, statements) " +
  `VALUES (${literal(topic)}, ${partition}, ${offset}, ARRAY[${statements.map(literal).join(", ")}]::text[]) ` +
  "ON CONFLICT (topic, partition, record_offset) DO UPDATE SET statements = EXCLUDED.statements"

/** Takes the decision out: it is carried out in the ambient transaction, or comes back with it. */
export const take = Effect.fn("Decision.take")(function* ({ offset, partition, topic }: DecisionPlace) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql
    .unsafe<{ readonly statements: ReadonlyArray<string> }>(
      "DELETE FROM fluvio.decision WHERE topic = $1 AND partition = $2::int4 AND record_offset = $3::int8 " +
        "RETURNING to_json(statements) AS statements",
      [topic, String(partition), String(offset)]
    )
    .pipe(SqlFailure.typed)
  return rows.length === 0 ? undefined : rows[0].statements
})
