import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Option, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import * as SqlFailure from "../../../src/target/SqlFailure.ts"
import { TestPostgres } from "../../postgres.ts"

const clientOf = (url: Redacted.Redacted<string>) =>
  Effect.map(Layer.build(PgClient.layer({ url, maxConnections: 2 })), (context) =>
    Context.get(context, SqlClient.SqlClient)
  )

layer(TestPostgres.layer())("SqlFailure", (it) => {
  it.effect("sees a backend that is terminated in mid-transaction as a lost connection, and the client recovers", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const sql = yield* clientOf(database.url)
      yield* database.query("CREATE TABLE t (id int)")
      const failure = yield* Effect.gen(function* () {
        yield* sql`INSERT INTO t VALUES (1)`
        const [backend] = yield* sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`
        yield* database.query(`SELECT pg_terminate_backend(${backend.pid}, 30000)`)
        yield* sql`INSERT INTO t VALUES (2)`
      }).pipe(sql.withTransaction, SqlFailure.typed, Effect.flip)
      assert.instanceOf(failure, SqlFailure.SqlFailure)
      assert.deepInclude(failure, { class: "connection", isRetryable: true })
      yield* sql.withTransaction(sql`INSERT INTO t VALUES (3)`)
      assert.deepStrictEqual(yield* database.query("SELECT id FROM t"), [{ id: "3" }])
    })
  )

  it.effect("sees a backend that is terminated in mid-statement as a lost connection", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const sql = yield* clientOf(database.url)
      const statement = sql`SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(30)`
      for (const effect of [statement, sql.withTransaction(statement)]) {
        const failure = yield* Effect.flip(SqlFailure.typed(effect))
        assert.deepInclude(failure, { class: "connection", isRetryable: true })
      }
    })
  )

  it.effect("sees the lost connection when the body failed by itself before", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const sql = yield* clientOf(database.url)
      const failure = yield* Effect.gen(function* () {
        const [backend] = yield* sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`
        yield* database.query(`SELECT pg_terminate_backend(${backend.pid}, 30000)`)
        return yield* Effect.fail("the body's own" as const)
      }).pipe(sql.withTransaction, SqlFailure.typed, Effect.flip)
      assert.instanceOf(failure, SqlFailure.SqlFailure)
      assert.strictEqual(failure.message, "an administrator of the target ended the session (SQLSTATE 57P01)")
    })
  )

  it.effect("names what PostgreSQL refuses, without the values that it quotes", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const sql = yield* clientOf(database.url)
      yield* database.query(`
        CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE people (
          email text UNIQUE, name varchar(3) NOT NULL, born date, age int CHECK (age > 0), p int REFERENCES parent
        );
        INSERT INTO people (email, name) VALUES ('s3cr3t', 'x');
      `)
      const messageOf = (text: string) =>
        sql.unsafe(text).pipe(
          SqlFailure.typed,
          Effect.flip,
          Effect.tap((failure) =>
            Effect.sync(() =>
              assert.notInclude(JSON.stringify(failure) + (failure.stack ?? "") + failure.message, "s3cr3t")
            )
          ),
          Effect.map((failure) => `${failure.class}: ${failure.message}`)
        )
      const messages = yield* Effect.all({
        unique: messageOf("INSERT INTO people (email, name) VALUES ('s3cr3t', 'x')"),
        null: messageOf("INSERT INTO people (email) VALUES ('s3cr3t!')"),
        length: messageOf("INSERT INTO people (name) VALUES ('s3cr3t')"),
        check: messageOf("INSERT INTO people (name, age) VALUES ('x', -1)"),
        parent: messageOf("INSERT INTO people (name, p) VALUES ('x', 9)"),
        text: messageOf("INSERT INTO people (name, born) VALUES ('x', 's3cr3t')"),
        table: messageOf("INSERT INTO s3cr3t_table VALUES (1)"),
        column: messageOf("INSERT INTO people (s3cr3t_column) VALUES (1)")
      })
      assert.deepStrictEqual(messages, {
        unique: "constraint: unique violation (SQLSTATE 23505, table public.people, constraint people_email_key)",
        null: "constraint: not-null violation (SQLSTATE 23502, table public.people, column name)",
        length: "data: value too long for its column (SQLSTATE 22001)",
        check: "constraint: check violation (SQLSTATE 23514, table public.people, constraint people_age_check)",
        parent: "constraint: foreign key violation (SQLSTATE 23503, table public.people, constraint people_p_fkey)",
        text: "data: invalid date or time format (SQLSTATE 22007)",
        table: "schema: table does not exist (SQLSTATE 42P01)",
        column: "schema: column does not exist (SQLSTATE 42703)"
      })
    })
  )

  it.effect("knows time-outs, locks, roles and databases", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const sql = yield* clientOf(database.url)
      yield* database.query("CREATE TABLE t (id int); CREATE ROLE reader")
      const kindOf = (...statements: ReadonlyArray<string>) =>
        Effect.forEach(statements, (text) => sql.unsafe(text)).pipe(
          sql.withTransaction,
          SqlFailure.typed,
          Effect.flip,
          Effect.map((failure) => [failure.class, failure.sqlState, failure.isRetryable])
        )
      assert.deepStrictEqual(yield* kindOf("SET LOCAL statement_timeout = 10", "SELECT pg_sleep(30)"), [
        "timeout",
        "57014",
        true
      ])
      yield* database.query("BEGIN; LOCK TABLE t")
      assert.deepStrictEqual(yield* kindOf("SET LOCAL lock_timeout = 10", "SELECT FROM t"), ["lock", "55P03", true])
      yield* database.query("ROLLBACK")
      assert.deepStrictEqual(yield* kindOf("SET LOCAL ROLE reader", "SELECT FROM t"), ["privilege", "42501", false])
      assert.deepStrictEqual(yield* kindOf("SET TRANSACTION READ ONLY", "DELETE FROM t"), ["resource", "25006", true])

      const { server } = yield* TestPostgres
      const connecting = (change: (url: URL) => void) => {
        const url = new URL(Redacted.value(database.url))
        change(url)
        return clientOf(Redacted.make(url.href)).pipe(
          Effect.flatMap((client) => client`SELECT 1`),
          SqlFailure.typed,
          Effect.flip,
          Effect.map((failure) => [failure.class, failure.condition, failure.isRetryable])
        )
      }
      assert.deepStrictEqual(yield* connecting((url) => (url.password = "wrong")), [
        "authentication",
        "the target refused user or password",
        false
      ])
      assert.deepStrictEqual(yield* connecting((url) => (url.pathname = "/absent")), [
        "authentication",
        "the target's database does not exist",
        false
      ])
      assert.deepStrictEqual(yield* connecting((url) => url.searchParams.set("sslmode", "require")), [
        "tls",
        "the target does not offer TLS",
        false
      ])
      yield* server.stop("fast")
      assert.deepStrictEqual(yield* connecting(() => {}), ["connection", "the target refused the connection", true])
      yield* server.start
      assert.isTrue(Option.isSome(yield* Effect.option(database.query("SELECT 1"))))
    })
  )
})
