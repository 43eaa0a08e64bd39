import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Redacted, Stream, String as Text } from "effect"
import { Log } from "../../layers/Mock.ts"
import * as PgOffsetStore from "../../layers/postgres/PgOffsetStore.ts"
import * as Connector from "../../src/Connector.ts"
import { ConnectorConfig, fromObject } from "../../src/ConnectorConfig.ts"
import { begin, commit, insert, int4, relation, relationOf, text } from "../events.ts"
import { log, partition } from "../pipeline.ts"
import { TestPostgres } from "../postgres.ts"

const pet = relationOf()
const transaction = (n: number) => log(begin(n), relation(pet), insert(pet.id, [int4(n), text(`n${n}`)]), commit(n))

/** Applies one group with a client of these options, and gives what the program itself reads with it. */
const applyOne = (
  url: Redacted.Redacted<string>,
  records: Context.Context<Log>,
  options: Omit<PgClient.PgPoolConfig, "url">,
  settings: object = {}
) =>
  Effect.gen(function* () {
    yield* Connector.groups.pipe(Stream.take(1), Stream.runDrain)
    const sql = yield* PgClient.PgClient
    return yield* sql`SELECT id AS pet_id FROM pets ORDER BY id`
  }).pipe(
    Effect.provide(
      PgOffsetStore.layer.pipe(
        Layer.provideMerge(PgClient.layer({ url, ...options })),
        Layer.provideMerge(
          ConnectorConfig.layerFrom([fromObject({ topic: "mock", url: Redacted.value(url), ...settings })])
        ),
        Layer.provideMerge(Layer.succeedContext(records))
      )
    ),
    Effect.scoped
  ) as Effect.Effect<ReadonlyArray<object>, Connector.ConnectorError>

layer(TestPostgres.layer(), { excludeTestServices: true })("A program with a SqlClient of its own", (it) => {
  it.effect("may let it rename columns and queries, for its own statements only", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      const records = yield* partition({ log: transaction(1) })
      const options = { transformResultNames: Text.snakeToCamel, transformQueryNames: Text.camelToSnake }
      assert.deepStrictEqual(yield* applyOne(database.url, records, options), [{ petId: 1 }])
      yield* Context.get(records, Log).append(transaction(2))
      assert.deepStrictEqual(yield* applyOne(database.url, records, options), [{ petId: 1 }, { petId: 2 }])
      yield* Context.get(records, Log).append(transaction(3))
      const shouting = { transformResultNames: Text.toUpperCase }
      assert.lengthOf(yield* applyOne(database.url, records, shouting), 3)
    })
  )

  it.effect("is told how many connections are needed, and never waits for one that it does not have", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      const records = yield* partition({ log: transaction(1) })
      const error = yield* Effect.flip(applyOne(database.url, records, { maxConnections: 1 }))
      assert.deepInclude({ ...error }, { _tag: "TooFewConnections", needed: 2, given: 1, isRetryable: false })
      assert.match(error.message, /needs 2 connections to the target at a time, and its SqlClient has 1 at most/)
      assert.match(error.remedy, /maxConnections of at least 2/)
      const unlocked = { target: { lock: "none" } }
      assert.lengthOf(yield* applyOne(database.url, records, { maxConnections: 1 }, unlocked), 1)
      yield* Context.get(records, Log).append(transaction(2))
      assert.lengthOf(yield* applyOne(database.url, records, { maxConnections: 2 }), 2)
    })
  )
})
