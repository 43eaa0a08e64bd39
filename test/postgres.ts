/**
 * A real PostgreSQL for integration tests: one server per test file, a fresh database per test.
 *
 * ```ts
 * layer(TestPostgres.layer())("Sink", (it) => {
 *   it.effect("applies a row", () =>
 *     Effect.gen(function* () {
 *       const target = yield* TestPostgres.database
 *       yield* target.query("CREATE TABLE t (id int)")
 *     })
 *   )
 * })
 * ```
 */
import { Context, Effect, Layer, Redacted, Schema, type Scope } from "effect"
import { Client, type QueryResult } from "pg"
import {
  make,
  type PostgresOptions,
  type PostgresServer,
  type PostgresServerError
} from "../layers/embedded/Postgres.ts"
import type { PackageMissing } from "../layers/embedded/OptionalPackage.ts"

/** A row as PostgreSQL prints it, so that comparisons lose nothing. */
export type Row = Readonly<Record<string, string | null>>

export class QueryError extends Schema.TaggedError<QueryError>()("QueryError", {
  sqlState: Schema.UndefinedOr(Schema.String),
  reason: Schema.String
}) {
  override get message() {
    return `${this.reason} (SQLSTATE ${this.sqlState})`
  }
}

export interface TestDatabase {
  readonly name: string
  readonly url: Redacted.Redacted<string>
  /**
   * Runs one or more statements by the simple protocol, on one connection for all calls (opened again when it was
   * lost), and gives the rows of the last statement.
   */
  query(text: string): Effect.Effect<ReadonlyArray<Row>, QueryError>
}

const asText = { getTypeParser: () => (value: string) => value }

/** A client that is opened when first needed, and again when it was lost. */
class Reconnecting {
  readonly url: Redacted.Redacted<string>
  private client: Promise<Client> | undefined

  constructor(url: Redacted.Redacted<string>) {
    this.url = url
  }

  async query(text: string): Promise<ReadonlyArray<Row>> {
    this.client ??= this.open()
    const client = await this.client.catch((cause: unknown) => {
      this.client = undefined
      throw cause
    })
    // The driver gives an array of results when the text holds several statements, which its types do not say.
    const results: QueryResult<Row> | Array<QueryResult<Row>> = await client.query<Row>(text)
    return [results].flat().at(-1)?.rows ?? []
  }

  async close() {
    await this.client?.then((client) => client.end()).catch(() => {})
  }

  private async open() {
    const client = new Client({ connectionString: Redacted.value(this.url), types: asText })
    client.on("error", () => (this.client = undefined))
    client.on("end", () => (this.client = undefined))
    await client.connect()
    return client
  }
}

/** A connection to any database by its URL; it is closed with the scope. */
export const connect = (
  name: string,
  url: Redacted.Redacted<string>
): Effect.Effect<TestDatabase, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new Reconnecting(url)),
    (client) => Effect.promise(() => client.close())
  ).pipe(
    Effect.map((client) => ({
      name,
      url,
      query: (text) =>
        Effect.tryPromise({
          try: () => client.query(text),
          catch: (cause) => {
            const { code, message } = cause as { readonly code?: string; readonly message: string }
            return new QueryError({ sqlState: code, reason: message })
          }
        })
    }))
  )

export class TestPostgres extends Context.Service<
  TestPostgres,
  {
    readonly server: PostgresServer
    /** A new, empty database with a name of its own. It goes with the server. */
    readonly database: Effect.Effect<TestDatabase, PostgresServerError | PackageMissing, Scope.Scope>
  }
>()("test/TestPostgres") {
  /** One server for all tests of a block; start-up takes about a second. */
  static readonly layer = (options?: PostgresOptions) =>
    Layer.effect(
      TestPostgres,
      Effect.gen(function* () {
        const server = yield* make(options)
        let count = 0
        const database = Effect.suspend(() => {
          const name = `test_${++count}`
          return Effect.flatMap(server.createDatabase(name), (url) => connect(name, url))
        })
        return TestPostgres.of({ server, database })
      })
    )

  static readonly database = Effect.flatMap(TestPostgres, ({ database }) => database)
}
