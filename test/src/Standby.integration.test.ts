import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Context, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { Log } from "../../layers/Mock.ts"
import * as Standby from "../../src/Standby.ts"
import { begin, commit, insert, int4, relation, relationOf, text } from "../events.ts"
import { eventually, log, partition, startLive } from "../pipeline.ts"
import { type TestDatabase, TestPostgres } from "../postgres.ts"

const pet = relationOf()
const transaction = (n: number) => log(begin(n), relation(pet), insert(pet.id, [int4(n), text(`n${n}`)]), commit(n))
const standingBy = "Info: Standing by: another instance applies mock-0 to this database"

const holders =
  "SELECT pid FROM pg_locks JOIN pg_database ON oid = database WHERE locktype = 'advisory' AND datname = current_database()"

const hasRows = (database: TestDatabase, count: number) =>
  Effect.map(database.query("SELECT count(*) FROM pets"), ([row]) => row["count"] === String(count))

const isLost = (line: string) => /^Warn: the session that holds .* 57P01[^)]*\); trying again in/.test(line)

layer(TestPostgres.layer(), { excludeTestServices: true })("Standby on PostgreSQL", (it) => {
  const two = Effect.gen(function* () {
    const database = yield* TestPostgres.database
    // No key: a row that is applied twice is there twice.
    yield* database.query("CREATE TABLE pets (id int, name text)")
    const records = yield* partition({ log: transaction(1) })
    const first = yield* startLive({ partition: records, url: database.url })
    yield* first.caughtUp
    const second = yield* startLive({ partition: records, url: database.url })
    yield* eventually(Effect.sync(() => second.logged.includes(standingBy)))
    return { database, first, second, append: (n: number) => Context.get(records, Log).append(transaction(n)) }
  })

  it.effect("waits while another instance applies, and takes over when that ends", () =>
    Effect.gen(function* () {
      const { append, database, first, second } = yield* two
      yield* append(2)
      yield* first.caughtUp
      assert.deepStrictEqual(second.applied, [])
      yield* first.interrupt
      yield* append(3)
      yield* second.caughtUp
      assert.deepStrictEqual(second.logged.slice(0, 2), [standingBy, "Info: Taking over mock-0"])
      assert.isTrue(yield* hasRows(database, 3))
    })
  )

  it.effect("notices that its session with the lock is lost, and both together apply everything once", () =>
    Effect.gen(function* () {
      const { append, database, first } = yield* two
      assert.lengthOf(yield* database.query(holders), 1)
      yield* database.query(`SELECT pg_terminate_backend(pid, 5000) FROM (${holders}) AS holder`)
      // Without anything to apply, and so without a conflict. Whichever asks first has the lock then.
      yield* eventually(Effect.sync(() => first.logged.some(isLost)))
      yield* eventually(Effect.map(database.query(holders), (rows) => rows.length === 1))
      for (const n of [2, 3, 4, 5]) {
        yield* append(n)
        yield* eventually(hasRows(database, n))
      }
      assert.deepStrictEqual(
        yield* database.query("SELECT id FROM pets ORDER BY id"),
        [1, 2, 3, 4, 5].map((id) => ({ id: String(id) }))
      )
      yield* eventually(Effect.map(database.query(holders), (rows) => rows.length === 1))
    })
  )

  it.effect("keeps instances of other partitions and databases apart", () =>
    Effect.gen(function* () {
      const { second } = yield* two
      const elsewhere = yield* TestPostgres.database
      const records = yield* partition({ log: transaction(1) })
      const other = yield* startLive({ partition: records, url: elsewhere.url })
      yield* other.caughtUp
      assert.deepStrictEqual(second.applied, [])
    })
  )

  it.effect.each([false, true])("needs two connections of a program's own client (multiplexed: %s)", (multiplex) =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Standby.acquire("mock", 0, Effect.void)
        assert.lengthOf(yield* sql.withTransaction(sql.unsafe(holders)), 1)
      }).pipe(Effect.scoped, Effect.provide(PgClient.layer({ url: database.url, maxConnections: 2, multiplex })))
      assert.deepStrictEqual(yield* database.query(holders), [])
    })
  )
})
