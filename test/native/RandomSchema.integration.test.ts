/**
 * Random changes of schemas and rows: the connector stops, or its target ends with the source's rows. `FUZZ=40` tries so
 * many times as many, and shrinks what fails; `FUZZ_SEED` begins at another seed.
 */
import { assert, layer } from "@effect/vitest"
import { Cause, Effect, Exit } from "effect"
import * as fc from "fast-check"
import { fuzzRuns } from "../fuzz.ts"
import { equalToSource } from "./Equality.ts"
import { beginning, Descriptions, history, unseen } from "./RandomSql.ts"
import { real, Replica, type Settings } from "./Replica.ts"

const { numRuns } = fuzzRuns(10)
const isFuzzing = process.env["FUZZ"] !== undefined
/** Of which the last seconds are for telling how far it has shrunk. */
const limit = Math.max(120_000, numRuns * 30_000)
const seed = Number(process.env["FUZZ_SEED"] ?? 1)

/** A definition does not fit the table as it is, or the table is not there. */
const expected = /SQLSTATE (?:2[123]|42|2BP01|55000|55006|0A000)/

const ways: ReadonlyArray<Settings> = [
  { "schema-changes": "full" },
  { "schema-changes": "additive" },
  { "schema-changes": "full", group: { transactions: 1 } },
  { "schema-changes": "full", group: { bytes: "1 KiB" } }
]

layer(Replica.layer, real)("Random schema changes", (it) => {
  it.effect(
    "are followed, or stop the connector",
    () =>
      Effect.gen(function* () {
        const context = yield* Effect.context<Replica>()
        const feed = yield* Replica.feed({ isHeld: true })
        const stages = yield* Effect.forEach(ways, (settings) =>
          Effect.map(feed.run({ settings }), (run) => ({ run, settings, passedOver: [] as Array<string> }))
        )
        let histories = 0
        let followed = 0
        const once = Effect.fnUntraced(function* (transactions: ReadonlyArray<string>, isThere: boolean) {
          // Each has a schema of its own, so that one that has stopped can be passed over.
          const schema = `s${++histories}`
          const own = `CREATE SCHEMA ${schema}; SET search_path = ${schema}`
          yield* feed.source.query(`${own}; ${isThere ? unseen : beginning}`)
          if (isThere) for (const { run } of stages) yield* run.target.query(`${own}; ${beginning}; RESET search_path`)
          let known = new Descriptions()
          for (const transaction of transactions) {
            const after = known.after(transaction)
            if (after === undefined) continue
            const exit = yield* Effect.exit(feed.source.query(transaction))
            if (Exit.isSuccess(exit)) known = after
            else assert.match(Cause.pretty(exit.cause), expected)
          }
          yield* feed.captured
          yield* feed.release
          const verdicts: Array<Exit.Exit<void, unknown>> = []
          for (const { passedOver, run, settings } of stages) {
            if (Exit.isSuccess(yield* Effect.exit(run.caughtUp))) {
              followed += 1
              verdicts.push(yield* Effect.exit(equalToSource(feed.source, run.target, schema)))
            } else {
              yield* run.stopped
              passedOver.push(`${schema}.*`)
              yield* run.restart({ ...settings, tables: { exclude: passedOver } })
              yield* run.caughtUp
            }
            yield* run.target.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)
          }
          yield* feed.source.query(`DROP SCHEMA ${schema} CASCADE`)
          // All are ready for the next history before one of them is found guilty.
          for (const verdict of verdicts) yield* verdict
        })
        yield* Effect.promise(() =>
          fc.assert(
            fc.asyncProperty(history, fc.boolean(), (transactions, isThere) =>
              Effect.runPromiseWith(context)(Effect.scoped(once(transactions, isThere)))
            ),
            { numRuns, seed, endOnFailure: !isFuzzing, interruptAfterTimeLimit: limit - 20_000 }
          )
        )
        // What stops always would never be wrong.
        assert.isAbove(followed, histories)
      }),
    limit
  )
})
