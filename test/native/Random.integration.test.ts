/**
 * Random workloads, whose judge is the native subscription. `FUZZ=40` tries so many times as many of them, and shrinks
 * what fails; `FUZZ_SEED` begins at another seed.
 */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { fuzzRuns } from "../fuzz.ts"
import { workload, tables } from "./RandomSql.ts"
import { equalToNative } from "./Equality.ts"
import { nativeOf, Replica, real, type RunOptions } from "./Replica.ts"
import { oneByOne, streamed, together } from "./Scenario.ts"

const { numRuns } = fuzzRuns(3)
const isFuzzing = process.env["FUZZ"] !== undefined
const seed = Number(process.env["FUZZ_SEED"] ?? 1)

/** What a statement may fail on: data, constraints, a row that a prepared transaction holds, and what follows from it. */
const expected = /^(?:2[1235]|55P03|42704)/

const ways: ReadonlyArray<RunOptions> = [
  { settings: together },
  { settings: oneByOne },
  { settings: { group: { bytes: "8 KiB", transactions: 3 } } },
  { settings: streamed }
]

/** Fails when a way ends in another content than native replication. */
const check = (queries: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const feed = yield* Replica.feed({ source: tables, native: tables, isHeld: true })
    yield* feed.source.query("SET lock_timeout = '20ms'")
    for (const query of queries) {
      yield* feed.source.query(query).pipe(
        Effect.catch((error) => {
          assert.match(error.sqlState ?? "", expected, `${error.message} in ${query}`)
          return feed.source.query("ROLLBACK")
        })
      )
    }
    yield* feed.captured
    yield* feed.release
    for (const { settings } of ways) {
      const run = yield* feed.run({ target: tables, settings })
      yield* nativeOf(feed).caughtUp
      yield* run.caughtUp
      yield* equalToNative(nativeOf(feed).database, run.target)
      yield* run.stop
    }
  }).pipe(Effect.scoped)

layer(Replica.layer, real)("Random workloads", (it) => {
  it.effect(
    "end as native replication does",
    () =>
      Effect.gen(function* () {
        const context = yield* Effect.context<Replica>()
        const run = Effect.runPromiseWith(context)
        yield* Effect.promise(() =>
          fc.assert(
            fc.asyncProperty(workload, (queries) => run(check(queries))),
            { numRuns, seed, endOnFailure: !isFuzzing, verbose: 0 }
          )
        )
      }),
    Math.max(120_000, numRuns * 60_000)
  )
})
