/** A pooler in transaction mode between the connector and its target. */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { exitCodes } from "../../src/stream/Outcome.ts"
import { connect, TestPostgres } from "../postgres.ts"
import * as Pooler from "./Pooler.ts"
import * as Scene from "./Scene.ts"

const sessions = 3
const documented = { FLUVIO_PG_TARGET_LOCK: "none", FLUVIO_PG_TARGET_PREPARE: "false" }

const scene = Effect.fnUntraced(function* (settings: { readonly [variable: string]: string }) {
  const database = yield* TestPostgres.database
  const pooler = yield* Pooler.make(database.url, sessions)
  return {
    database,
    pooler,
    ...(yield* Scene.make({
      url: pooler.url,
      database,
      settings: { FLUVIO_PG_GROUP_TRANSACTIONS: "1", ...settings }
    }))
  }
})

layer(TestPostgres.layer(), { excludeTestServices: true })("A pooler in transaction mode", (it) => {
  it.effect("applies everything once with the documented settings, also when it is killed in a transaction", () =>
    Effect.gen(function* () {
      const { append, appendEmpty, atEnd, connector, database, pooler, result, soon } = yield* scene(documented)
      yield* append(100)
      yield* connector.start
      yield* atEnd
      assert.isTrue((yield* pooler.transactions).every((count) => count > 0))

      yield* database.query("BEGIN; LOCK TABLE pets IN SHARE MODE")
      yield* append(100)
      const isWaiting = "SELECT FROM pg_stat_activity WHERE application_name = 'pooler' AND wait_event_type = 'Lock'"
      yield* soon(Effect.map(database.query(isWaiting), ({ length }) => length > 0))
      yield* pooler.kill
      yield* database.query("COMMIT")
      yield* atEnd
      yield* appendEmpty
      const { expected, found } = yield* result
      assert.deepStrictEqual(found, expected)
      assert.strictEqual((yield* connector.stop())?.code, 0)
      assert.strictEqual((yield* connector.ends).length, 1)

      // Each of these transactions looks at another session.
      const another = yield* connect("another client", pooler.url)
      const left = yield* Effect.replicateEffect(
        another.query(`
          SELECT pg_backend_pid() AS session,
            (SELECT count(*) FROM pg_prepared_statements) AS statements,
            (SELECT count(*) FROM pg_settings WHERE source = 'session') AS settings,
            (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory') AS locks
        `),
        sessions
      )
      assert.strictEqual(new Set(left.map(([row]) => row?.["session"])).size, sessions)
      for (const [row] of left) assert.deepInclude(row, { statements: "0", settings: "0", locks: "0" })
    })
  )

  it.effect.each([
    [{}, /pooler in transaction mode/, "`target.lock: none`", 3],
    // A later start may find in its sessions what this one has prepared there.
    [
      { FLUVIO_PG_TARGET_LOCK: "none" },
      /unknown prepared statement|transaction had failed before/,
      "`target.prepare: false`",
      1
    ]
  ] as const)("stops with what resolves it without them: %o", ([settings, message, remedy, starts]) =>
    Effect.gen(function* () {
      const { append, connector, database } = yield* scene(settings)
      yield* append(100)
      yield* connector.start
      // Where it finds out depends on what was done before.
      const ends = yield* Effect.replicateEffect(connector.nextEnd, starts)
      yield* connector.stop("SIGKILL")
      assert.deepStrictEqual(
        ends.map(({ code, message: said = "" }) => ({ code, isNamed: message.test(said) })),
        ends.map(() => ({ code: exitCodes.usage, isNamed: true }))
      )
      const log = yield* connector.log
      assert.lengthOf(
        log.filter((line) => line.includes(remedy)),
        starts,
        log.join("\n")
      )
      const locks = database.query("SELECT FROM pg_locks WHERE locktype = 'advisory'")
      assert.deepStrictEqual(yield* locks, [])
    })
  )
})
