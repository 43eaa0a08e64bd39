/** A connection to one of the demo's databases: statements in, rows as text out. */
import { Effect, Redacted, Schema, type Scope } from "effect"
import type { QueryArrayResult } from "pg"
import { load, type PackageMissing } from "../embedded/OptionalPackage.ts"
import { isRetryable } from "../../src/stream/Outcome.ts"

/** A row as PostgreSQL prints it, so that nothing is lost on the way. */
export type Row = ReadonlyArray<string | null>

/** The server could not be reached, or refused a statement. */
export class DatabaseError extends Schema.TaggedError<DatabaseError>()("DatabaseError", {
  /** PostgreSQL's SQLSTATE, when the server gave one. */
  sqlState: Schema.UndefinedOr(Schema.String),
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "see the reason, which is PostgreSQL's own"
  override get message() {
    return `a statement failed${this.sqlState === undefined ? "" : ` (SQLSTATE ${this.sqlState})`}: ${this.reason}`
  }
}

export interface Database {
  /**
   * Runs one or more statements in one round trip and gives the rows of the last one. Several statements are one
   * transaction unless they say otherwise themselves.
   */
  query(text: string): Effect.Effect<ReadonlyArray<Row>, DatabaseError>
}

/** What values look like as text must not depend on the settings of either server. */
const session = [
  "client_encoding=UTF8",
  "datestyle=ISO",
  "intervalstyle=postgres",
  "extra_float_digits=3",
  "bytea_output=hex",
  "timezone=UTC",
  "lc_monetary=C"
]

const asText = { getTypeParser: () => (value: string) => value }

const attempt = <A>(run: () => Promise<A>) =>
  Effect.tryPromise({
    try: run,
    catch: (cause) => {
      const { code, message, severity } = cause as Partial<Record<"code" | "message" | "severity", string>>
      // Of the errors with a code, only the server's have a severity.
      return new DatabaseError({
        sqlState: severity === undefined ? undefined : code,
        reason: message ?? String(cause)
      })
    }
  })

/** The connection is closed with the scope. */
export const connect = Effect.fnUntraced(function* (
  url: Redacted.Redacted<string>
): Effect.fn.Return<Database, DatabaseError | PackageMissing, Scope.Scope> {
  const pg = yield* load("pg", () => import("pg"))
  const client = yield* Effect.acquireRelease(
    attempt(async () => {
      const client = new pg.Client({
        connectionString: Redacted.value(url),
        application_name: "fluvio-postgres-sink demo",
        options: session.map((setting) => `-c ${setting}`).join(" "),
        types: asText
      })
      // Whoever runs a statement learns of a lost connection from the statement.
      client.on("error", () => {})
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => client.end().catch(() => {}))
  )
  return {
    query: (text) =>
      attempt(async () => {
        // The driver gives an array of results when the text holds several statements, which its types do not say.
        const results: QueryArrayResult | Array<QueryArrayResult> = await client.query({ text, rowMode: "array" })
        return [results].flat().at(-1)?.rows ?? []
      })
  }
})
