import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as events from "../../events.ts"
import * as Operator from "../../operator.ts"
import { eventually } from "../../pipeline.ts"
import { TestPostgres } from "../../postgres.ts"

const pet = (id: number) => [
  events.begin(1000 + id),
  events.relation(events.relationOf()),
  events.insert(16_385, [events.int4(id), events.text(`pet ${id}`)]),
  events.commit(1000 + id)
]

layer(TestPostgres.layer(), { excludeTestServices: true })("pause and resume", (it) => {
  it.effect("has a connector that runs wait, over a restart too, until it is told to go on", () =>
    Effect.gen(function* () {
      const { append, command, database, json, run } = yield* Operator.make()
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      const count = Effect.map(database.query("SELECT FROM pets"), (rows) => rows.length)
      yield* append(pet(1))
      const first = yield* run()
      yield* eventually(Effect.map(count, (n) => n === 1))

      const paused = yield* command("pause", "--reason", "index build")
      assert.deepStrictEqual({ code: paused.code, err: paused.err }, { code: 0, err: "" })
      assert.match(paused.out, /^pets-0 is paused: /)
      assert.match((yield* command("pause", "--reason", "other")).out, /^pets-0 was paused already, .*: index build/)
      // What comes within the interval at which it asks may still be applied.
      yield* append(pet(2))
      yield* eventually(Effect.sync(() => /Paused by .*: index build/.test(first.err())))
      const applied = yield* count
      yield* append(pet(3))
      yield* first.signal("SIGTERM")
      assert.strictEqual((yield* first.ended).code, 0)
      const second = yield* run()
      yield* eventually(Effect.sync(() => second.err().includes("Paused by")))
      assert.strictEqual(yield* count, applied)

      assert.deepInclude(yield* json("resume"), { paused: false })
      yield* eventually(Effect.map(count, (n) => n === 3))
      assert.include(second.err(), "Resumed")
      assert.match((yield* command("resume")).out, /was not paused/)
      assert.deepStrictEqual(
        yield* database.query("SELECT action, reason, done_by <> '' AS is_signed FROM fluvio.action ORDER BY id"),
        [
          { action: "pause", reason: "index build", is_signed: "t" },
          { action: "resume", reason: null, is_signed: "t" }
        ]
      )
    })
  )

  it.effect("refuses a pause without a reason", () =>
    Effect.gen(function* () {
      const { command } = yield* Operator.make()
      const { code, err } = yield* command("pause")
      assert.strictEqual(code, 2)
      assert.match(err, /--reason/)
    })
  )
})
