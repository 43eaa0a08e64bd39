import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Ref, Stream } from "effect"
import { SqlClient } from "effect/sql"
import * as Mock from "../../layers/Mock.ts"
import { NoStatement, statementOf } from "../../src/plan/Statement.ts"
import { ConnectorConfig, fromObject } from "../../src/ConnectorConfig.ts"
import * as Connector from "../../src/Connector.ts"
import { FluvioConsumer, FluvioUnreachable, Offset, type Records } from "../../src/stream/FluvioConsumer.ts"
import { type PlannedChange, fold, inOrder } from "../../src/plan/Fold.ts"
import { nothingStored, OffsetStore, type Stored } from "../../src/stream/OffsetStore.ts"
import type { Relation } from "../../src/stream/Relation.ts"
import { route } from "../../src/target/Route.ts"
import * as SourceType from "../../src/schema/SourceType.ts"
import * as SqlFailure from "../../src/target/SqlFailure.ts"
import * as TargetTable from "../../src/target/TargetTable.ts"
import { Tuple } from "../../src/stream/Tuple.ts"
import { begin, commit, insert, int4, relation, relationOf, text } from "../events.ts"
import { offsetStoreChecks, type StoreFixture } from "../offsetStore.ts"
import { log } from "../pipeline.ts"
import { shapes, tableOf, targetColumn, targetTable } from "../tables.ts"

describe("Mock", () => {
  it.effect("runs the whole pipeline", () =>
    Effect.gen(function* () {
      const pet = relationOf()
      const program = Effect.gen(function* () {
        const [applied] = yield* Connector.groups.pipe(Stream.take(1), Stream.runCollect)
        return { applied, sent: yield* Mock.Recording }
      })
      const { applied, sent } = yield* program.pipe(
        Effect.scoped,
        Effect.provide(
          Mock.layer({
            log: log(begin(1), relation(pet), insert(pet.id, [int4(1), text("Ada")]), commit(1)),
            tables: [targetTable()]
          })
        )
      )
      assert.deepInclude(applied, { transactions: 1, changes: 1 })
      assert.deepInclude(sent, {
        text: `INSERT INTO "public"."pets" ("id", "name") SELECT unnest($1::integer[]), unnest($2::text[])`,
        params: ['{"1"}', '{"Ada"}']
      })
    })
  )

  describe("as any OffsetStore", () => {
    for (const [name, run] of offsetStoreChecks) {
      it.effect(name, () =>
        Effect.gen(function* () {
          const context = yield* Layer.build(Mock.layerSqlClient())
          const sql = Context.get(context, SqlClient.SqlClient)
          const stores = new Map<string, Ref.Ref<Stored>>()
          const fixture: StoreFixture = {
            withTransaction: sql.withTransaction,
            instance: Effect.fnUntraced(function* (topic, partition) {
              const key = `${topic}-${partition}`
              const ref = stores.get(key) ?? (yield* Ref.make(nothingStored))
              stores.set(key, ref)
              const store = yield* Layer.build(
                Mock.layerOffsetStore.pipe(
                  Layer.provide(Layer.succeed(SqlClient.SqlClient, sql)),
                  Layer.provide(Layer.succeed(Mock.StoredRef, ref)),
                  Layer.provide(
                    ConnectorConfig.layerFrom([fromObject({ topic, partition, url: "postgres://mock/mock" })])
                  )
                )
              ).pipe(Effect.orDie)
              return Context.get(store, OffsetStore)
            })
          }
          yield* run(fixture)
        })
      )
    }
  })
})

const offsets = (chunks: ReadonlyArray<Records>) => chunks.map((records) => records.map(({ offset }) => offset))

describe("Mock's log", () => {
  it.effect("gives chunks of contiguous offsets, waits at its end, and goes on when it grows", () =>
    Effect.gen(function* () {
      const consumer = yield* FluvioConsumer
      const partition = yield* Mock.Log
      assert.deepStrictEqual(yield* consumer.bounds, {
        start: Offset.make(7),
        end: Offset.make(12),
        written: Offset.make(12)
      })
      const reading = yield* consumer
        .records(Offset.make(8))
        .pipe(Stream.take(4), Stream.runCollect, Effect.forkChild({ startImmediately: true }))
      assert.deepStrictEqual(yield* partition.append(["f"]), {
        start: Offset.make(7),
        end: Offset.make(13),
        written: Offset.make(13)
      })
      yield* Effect.yieldNow
      yield* partition.append(["g", new Uint8Array([1])])
      assert.deepStrictEqual(offsets(yield* Fiber.join(reading)), [[8, 9], [10, 11], [12], [13, 14]] as never)
    }).pipe(Effect.provide(Mock.layer({ firstOffset: 7, chunkSize: 2, log: ["a", "b", "c", "d", "e"] })))
  )

  it.effect("refuses what retention removed and what is not there yet", () =>
    Effect.gen(function* () {
      const consumer = yield* FluvioConsumer
      const partition = yield* Mock.Log
      yield* partition.trim(2)
      const errorFrom = (offset: number) => Effect.flip(Stream.runDrain(consumer.records(Offset.make(offset))))
      assert.deepInclude<object>(yield* errorFrom(1), { _tag: "OffsetEvicted", requested: 1, available: 2 })
      assert.deepInclude<object>(yield* errorFrom(4), { _tag: "OffsetBeyondEnd", requested: 4, end: 3 })
    }).pipe(Effect.provide(Mock.layer({ log: ["a", "b", "c"] })))
  )

  it.effect("breaks the readers that wait, and no later ones", () =>
    Effect.gen(function* () {
      const consumer = yield* FluvioConsumer
      const partition = yield* Mock.Log
      const error = new FluvioUnreachable({ endpoint: "mock", operation: "reading", reason: "reset" })
      const read = consumer.records(Offset.make(0)).pipe(Stream.take(2), Stream.runCollect)
      const reading = yield* Effect.forkChild(Effect.flip(read), { startImmediately: true })
      yield* Effect.yieldNow
      yield* partition.fail(error)
      assert.strictEqual(yield* Fiber.join(reading), error)
      yield* Effect.forkChild(partition.append(["b"]))
      assert.deepStrictEqual(offsets(yield* read), [[0], [1]] as never)
    }).pipe(Effect.provide(Mock.layer({ log: ["a"] })))
  )
})

describe("Mock's SqlClient", () => {
  it.effect("has the tables that it is given, in every respect", () =>
    Effect.gen(function* () {
      const tables = [
        ...shapes.map((shape) => tableOf(shape)),
        targetTable({
          schema: `a "b"`,
          name: "odd",
          primaryKey: undefined,
          uniqueKeys: [["x", "y"], ["z"]],
          isPartitioned: true,
          firesTriggers: true,
          hasRowSecurity: true,
          columns: [targetColumn({ name: "x", identity: "always", equality: "OPERATOR(public.=)", isNullable: false })]
        }),
        targetTable({
          name: "late",
          isPrimaryKeyDeferrable: true,
          deferrableKeys: [{ constraint: "late_pkey", isPrimary: true, columns: ["id"] }]
        })
      ]
      const found = yield* TargetTable.load([...tables, { schema: "public", name: "none" }]).pipe(
        Effect.provide(Mock.layerSqlClient({ tables }))
      )
      assert.deepStrictEqual([...found.values()], tables)
    })
  )

  it.effect("knows built-in types by their OIDs, and user-defined ones by their names", () =>
    Effect.gen(function* () {
      const columns = [1700, 20_001, 20_002].map((typeId) => ({ typeId, typeModifier: -1 }))
      const { hasSchema, typeOf } = yield* SourceType.resolve(columns, {
        types: new Map([[20_001, { namespace: "public", name: "mood" }]]),
        settings: { 20_002: "x.y" },
        schema: "public",
        schemaOf: (namespace) => namespace
      })
      assert.isTrue(hasSchema)
      assert.deepStrictEqual(columns.map(typeOf), ["numeric", "public.mood", "x.y"])
    }).pipe(Effect.provide(Mock.layerSqlClient()))
  )

  it.effect("touches as many rows as a statement should, whatever the cells hold", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const pets = route(relationOf(), targetTable())
      const none = route(
        relationOf({ id: 2, columns: [] }),
        targetTable({ name: "none", columns: [], primaryKey: undefined })
      )
      const nasty = [`a","b`, `{c,d}`, `\\"`, "", "NULL", "\n"]
      const { relation: shape } = pets
      const changes = nasty.flatMap((name, n): ReadonlyArray<PlannedChange> => {
        const [added, updated, removed] = [`${n}`, `${n + 100}`, `${n + 200}`]
        const offset = Offset.make(n)
        return [
          { type: "insert", offset, relation: shape, tuple: Tuple.of([added, name]) },
          {
            type: "update",
            offset,
            relation: shape,
            oldTuple: null,
            keyTuple: null,
            newTuple: Tuple.of([updated, name])
          },
          { type: "delete", offset, relation: shape, oldTuple: null, keyTuple: Tuple.of([removed, null]) },
          { type: "insert", offset, relation: none.relation, tuple: Tuple.of([]) }
        ]
      })
      const routeOf = (one: Relation) => (one === none.relation ? none : pets)
      const steps = [...fold(changes, routeOf), ...inOrder(changes, routeOf)]
      assert.lengthOf(steps, 4 + changes.length)
      for (const step of steps) {
        const statement = statementOf(step, { existingRow: "halt", truncateCascade: "as-source", takesCopy: false })
        if (statement === undefined || statement instanceof NoStatement) return assert.fail("there is a statement")
        const result = yield* sql.unsafe(statement.text, statement.params).raw
        assert.deepInclude<object>(result as object, { rowCount: statement.rows }, statement.text)
      }
      assert.deepInclude<object>((yield* sql`TRUNCATE x`.raw) as object, { rowCount: 0 })
    }).pipe(Effect.provide(Mock.layerSqlClient()))
  )

  it.effect("answers and fails as it is told, and records everything", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const answered = yield* sql.withTransaction(
        Effect.all([sql`SELECT ${1}::int4 AS n`, SqlFailure.typed(sql`INSERT INTO ${sql("t")} VALUES (1)`.raw)])
      )
      assert.deepStrictEqual(answered, [[{ n: 1 }], { rows: [], rowCount: 3 }] as never)
      const failure = yield* Effect.flip(SqlFailure.typed(sql.withTransaction(sql`DELETE FROM t`)))
      assert.deepInclude(failure, { sqlState: "40P01", class: "serialization" })
      assert.deepStrictEqual(
        (yield* Mock.Recording).map(({ text: statement }) => statement),
        ["BEGIN", "SELECT $1::int4 AS n", `INSERT INTO "t" VALUES (1)`, "COMMIT", "BEGIN", "DELETE FROM t", "ROLLBACK"]
      )
    }).pipe(
      Effect.provide(
        Mock.layerSqlClient({
          answer: ({ text: statement }) =>
            statement.startsWith("SELECT")
              ? { rows: [{ n: 1 }] }
              : statement.startsWith("INSERT")
                ? { rowCount: 3 }
                : statement.startsWith("DELETE")
                  ? { sqlState: "40P01" }
                  : undefined
        })
      )
    )
  )
})
