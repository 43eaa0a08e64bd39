import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { SqlClient } from "effect/sql"
import { Connector, Errors } from "../../src/index.ts"
import type { Applied } from "../../src/Applied.ts"
import * as Mock from "../../layers/Mock.ts"
import { begin, commit, insert, int4, relation, relationOf, text } from "../events.ts"
import * as Pipeline from "../pipeline.ts"

const pet = relationOf()
const row = (id: number, name: string) => insert(pet.id, [int4(id), text(name)])
const log = Pipeline.log(begin(100), relation(pet), row(1, "n1"), row(2, "n2"), commit(100))

const mark = (applying: Array<Connector.Applying>) =>
  Effect.provideService(
    Connector.InTransaction,
    Effect.fnUntraced(function* (group) {
      const sql = yield* SqlClient.SqlClient
      applying.push(group)
      yield* sql.unsafe("INSERT INTO app.mark SELECT now()")
    })
  )

describe("layer", () => {
  it.effect("applies in the background, and tells what it does", () =>
    Effect.gen(function* () {
      const applied: Array<Applied> = []
      const parts = Mock.layer({ log, tables: [Pipeline.pets] })
      const layer = Connector.layer((one) => Effect.sync(() => applied.push(one)))
      const context = yield* Layer.build(Layer.provide(layer, parts))
      yield* Pipeline.until(() => applied.length === 1)
      const { status } = Context.get(context, Connector.Running)
      const { position, state, tables, totals } = yield* status
      assert.strictEqual(state, "following")
      assert.strictEqual(position?.offset, 4)
      assert.strictEqual(totals.changes, 2)
      assert.deepInclude(tables[0], { table: "public.pets", insert: 2 })
    })
  )

  it.effect("ends with its scope", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      let groups = 0
      const layer = Connector.layer(() => Effect.sync(() => (groups += 1)))
      const parts = Mock.layer({ log, tables: [Pipeline.pets] })
      const context = yield* Layer.buildWithScope(Layer.provide(layer, parts), scope)
      const { status } = Context.get(context, Connector.Running)
      yield* Pipeline.until(() => groups === 1)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* status).state, "stopped")
    })
  )

  it.effect("swallows no failure", () =>
    Effect.gen(function* () {
      const logged: Array<string> = []
      const parts = Mock.layer({ log: [...log, "no event"], tables: [Pipeline.pets] })
      const context = yield* Layer.build(Layer.provide(Connector.layer(), parts)).pipe(
        Effect.provide(Pipeline.logger(logged))
      )
      const { ended, status } = Context.get(context, Connector.Running)
      const failure = yield* Effect.flip(ended)
      assert.instanceOf(failure, Errors.EventDecodeError)
      assert.isFalse(failure.isRetryable)
      assert.strictEqual(Errors.outcomeOf(failure), "data")
      assert.strictEqual((yield* status).state, "stopped")
      assert.match(logged.at(-1) ?? "", /^Error: Stopped at offset 4 /)
    })
  )

  it.effect("runs beside others in one process, each with its own parts", () =>
    Effect.gen(function* () {
      const run = Effect.fnUntraced(function* (topic: string) {
        const applied: Array<Applied> = []
        const fiber = yield* Connector.run((one) => Effect.sync(() => applied.push(one))).pipe(
          Effect.provide(Mock.layer({ log, tables: [Pipeline.pets], config: { topic } })),
          Effect.forkScoped
        )
        return { applied, fiber }
      })
      const both = [yield* run("orders"), yield* run("invoices")]
      yield* Pipeline.until(() => both.every(({ applied }) => applied.length === 1))
      yield* Fiber.interruptAll(both.map(({ fiber }) => fiber))
    })
  )
})

const refusing = (sqlState: string) =>
  Pipeline.start({
    log: [...log, ...Pipeline.log(begin(200), row(3, "n3"), commit(200))],
    config: { "on-error": "quarantine", retry: { times: 1 } },
    answer: ({ text }) => (text.includes("app.mark") ? { sqlState } : undefined)
  }).pipe(mark([]))

describe("InTransaction", () => {
  it.effect("runs behind the rows of a group, in its transaction", () =>
    Effect.gen(function* () {
      const applying: Array<Connector.Applying> = []
      const pipeline = yield* Pipeline.start({ log }).pipe(mark(applying))
      yield* pipeline.until(() => pipeline.applied.length === 1)
      const [statements] = pipeline.transactions()
      assert.deepStrictEqual(statements.slice(-2), ["INSERT INTO app.mark SELECT now()", "COMMIT"])
      assert.match(statements.at(-3) ?? "", /^INSERT INTO "public"."pets"/)
      assert.lengthOf(applying, 1)
      assert.deepStrictEqual(applying[0].position, yield* pipeline.position)
      assert.deepStrictEqual(
        [...applying[0].tables],
        [["public.pets", { insert: 2, update: 0, delete: 0, truncate: 0 }]]
      )
    })
  )

  it.effect("ends the connector when it is refused, and no transaction of the source is held to be at fault", () =>
    Effect.gen(function* () {
      const pipeline = yield* refusing("23505")
      const failure = yield* pipeline.stopped({ _tag: "InTransactionFailed", isRetryable: false })
      assert.match(failure.message, /^offset 7: a statement of InTransaction failed: .*SQLSTATE 23505/)
      assert.isUndefined(yield* pipeline.position)
      assert.lengthOf(pipeline.transactions(), 1)
    })
  )

  it.effect("is tried again with its group where that may help", () =>
    Effect.gen(function* () {
      const pipeline = yield* refusing("40001")
      yield* pipeline.settle
      yield* TestClock.adjust("1 minute")
      yield* pipeline.stopped({ _tag: "InTransactionFailed", isRetryable: true })
      assert.lengthOf(pipeline.transactions(), 2)
    })
  )
})
