import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import type { Status } from "../../../src/operate/Status.ts"
import * as events from "../../events.ts"
import * as Operator from "../../operator.ts"
import { eventually } from "../../pipeline.ts"
import { TestPostgres } from "../../postgres.ts"

const pet = (id: number, name = `pet ${id}`) => [
  events.begin(1000 + id),
  events.relation(events.relationOf()),
  events.insert(16_385, [events.int4(id), events.text(name)]),
  events.commit(1000 + id)
]

layer(TestPostgres.layer(), { excludeTestServices: true })("status", (it) => {
  it.effect("shows a topic from before its first start to the error that stopped it", () =>
    Effect.gen(function* () {
      const { append, command, database, json, run } = yield* Operator.make()
      const status = Effect.map(json("status"), (answer) => answer as Status)
      const untouched = yield* status
      assert.deepInclude(untouched, { topic: "pets", position: null, lagRecords: 0, lock: null, instances: [] })
      assert.deepStrictEqual(yield* database.query("SELECT FROM pg_namespace WHERE nspname = 'fluvio'"), [])

      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name varchar(10))")
      yield* append([...pet(1), ...pet(2)])
      const first = yield* run("--name", "one")
      const isFollowing = (expected: string) =>
        Effect.map(status, ({ instances }) => instances[0]?.name === expected && instances[0].state === "following")
      yield* eventually(isFollowing("one"))
      const second = yield* run("--name", "two")
      yield* eventually(Effect.map(status, ({ instances }) => instances[1]?.state === "standing by"))

      const both = yield* status
      assert.deepInclude(both, { lagRecords: 0, log: { start: 0, end: 8 }, pause: null })
      assert.deepStrictEqual(both.position, { offset: 7, commitLsn: "0/3EA", epoch: 0, savedBy: "connector" })
      assert.strictEqual(both.lock?.applicationName, "one")
      const [applying] = both.instances
      assert.deepInclude(applying.totals, { records: 8, changes: 2, transactions: 2, retries: 0 })
      const [table] = applying.tables
      assert.deepInclude(table, { table: "public.pets", insert: 2, update: 0, delete: 0, truncate: 0 })
      const { out } = yield* command("status")
      assert.match(out, /^state +following, since /m)
      assert.match(out, /^lag +0 records$/m)
      assert.match(out, /^instance +two .*: standing by$/m)
      assert.match(out, /^public\.pets +2 +0 +0 +0 {2}/m)
      assert.strictEqual((yield* command("status", "--max-lag", "0")).code, 0)

      yield* first.signal("SIGTERM")
      assert.strictEqual((yield* first.ended).code, 0)
      yield* eventually(isFollowing("two"))
      yield* append(pet(3, "s3cret-and-too-long"))
      assert.strictEqual((yield* second.ended).code, 4)
      const after = yield* status
      assert.deepInclude(after, { lagRecords: 4, lock: null })
      assert.deepInclude(after.instances[0], { name: "two", state: "stopped", isAlive: false })
      assert.deepInclude(after.instances[0].troubles[0], { error: "ApplyFailed", isRetryable: false })
      const text = yield* command("status", "--max-lag", "0")
      assert.strictEqual(text.code, 3)
      assert.match(text.out, /^state +not running; last seen .* ago, stopped$/m)
      assert.match(text.out, /^last error +.*: ApplyFailed: public\.pets, offset 10/m)
      assert.match(text.err, /no connector applies this topic/)
      assert.notInclude(JSON.stringify(after) + text.out, "s3cret")
    })
  )

  it.effect("answers without the topic's cluster, and ends with 3 behind a lag that is too long", () =>
    Effect.gen(function* () {
      const { append, command, database, json, run } = yield* Operator.make()
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      yield* append(pet(1))
      const connector = yield* run()
      yield* eventually(Effect.map(database.query("SELECT FROM pets"), (rows) => rows.length === 1))
      assert.strictEqual((yield* command("pause", "--reason", "a look")).code, 0)
      yield* eventually(Effect.sync(() => connector.err().includes("Paused by")))
      yield* append(pet(2))
      assert.match((yield* command("status")).out, /^state +paused by .*: a look$/m)
      yield* connector.signal("SIGKILL")
      yield* connector.ended
      assert.strictEqual((yield* command("status", "--max-lag", "3")).code, 3)
      const away = (yield* json("status", "--endpoint", "127.0.0.1:1")) as Status
      assert.deepInclude(away, { log: null, lagRecords: null })
      assert.strictEqual(away.position?.offset, 3)
    })
  )
})
