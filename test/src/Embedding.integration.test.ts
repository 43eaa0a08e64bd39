import { assert, layer } from "@effect/vitest"
import { Context, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { Log } from "../../layers/Mock.ts"
import { Connector } from "../../src/index.ts"
import { begin, commit, insert, int4, relation, relationOf, text } from "../events.ts"
import { log, partition, startLive } from "../pipeline.ts"
import { TestPostgres } from "../postgres.ts"

const pet = relationOf()
const transaction = (commitLsn: number) => [
  begin(commitLsn),
  insert(pet.id, [int4(commitLsn), text("n")]),
  commit(commitLsn)
]

layer(TestPostgres.layer(), { excludeTestServices: true })("InTransaction", (it) => {
  it.effect("is committed with the rows and the position, once, however often the group is tried", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      yield* database.query("CREATE SCHEMA app CREATE TABLE mark (at int8)")
      const records = yield* partition()
      let tries = 0
      const mark = Effect.provideService(
        Connector.InTransaction,
        Effect.fnUntraced(function* ({ position }) {
          const sql = yield* SqlClient.SqlClient
          yield* sql`INSERT INTO app.mark VALUES (${position.offset})`
          tries += 1
          // Its session ends behind what it has written, twice.
          if (tries <= 2) yield* sql`SELECT pg_terminate_backend(pg_backend_pid())`
        })
      )
      const connector = yield* startLive({ url: database.url, partition: records }).pipe(mark)
      yield* Context.get(records, Log).append(
        log(begin(1), relation(pet), insert(pet.id, [int4(1), text("n")]), commit(1))
      )
      yield* connector.caughtUp
      yield* Context.get(records, Log).append(log(transaction(2)))
      yield* connector.caughtUp
      assert.strictEqual(tries, 4)
      assert.deepStrictEqual(
        yield* database.query("SELECT at::text FROM app.mark ORDER BY at"),
        connector.applied.map(({ position }) => ({ at: String(position.offset) }))
      )
      assert.deepStrictEqual(yield* database.query("SELECT count(*)::text FROM pets"), [{ count: "2" }])
    })
  )
})
