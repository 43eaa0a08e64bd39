/**
 * Random workloads, whose judge is the native subscription. `FUZZ=40` tries so many times as many of them, and shrinks
 * what fails; `FUZZ_SEED` begins at another seed.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import * as fc from "fast-check"
import { fuzzRuns } from "../fuzz.ts"
import { equalToNative } from "./Equality.ts"
import { tables, workload } from "./RandomSql.ts"
import { type Feed, nativeOf, real, Replica, type Run, type RunOptions, type Settings } from "./Replica.ts"
import { oneByOne, owner, streamed, together } from "./Scenario.ts"

const { numRuns } = fuzzRuns(5)
const isFuzzing = process.env["FUZZ"] !== undefined
/** Of which the last seconds are for telling how far it has shrunk. */
const limit = Math.max(120_000, numRuns * 60_000)
const seed = Number(process.env["FUZZ_SEED"] ?? 1)

/** What a statement may fail on: data, constraints, a row that a prepared transaction holds, and what follows from it. */
const expected = /^(?:2[1235]|55P03|55006|42704)/

/** Both sides are equal at first, so no row is ever missing, whatever the target's own foreign keys do. */
const halting: Settings = { "missing-row": "halt" }

const ways: ReadonlyArray<RunOptions> = [
  { settings: together },
  { settings: { ...oneByOne, ...halting } },
  { settings: { group: { bytes: "8 KiB", transactions: 3 } } },
  { settings: streamed },
  { settings: { ...together, ...halting }, role: owner },
  { settings: { ...oneByOne, ...halting }, role: owner }
]

interface Stage {
  readonly feed: Feed
  readonly runs: ReadonlyArray<Run>
  readonly empty: string
  readonly scope: Scope.Closeable
}

const makeStage = Effect.gen(function* () {
  const scope = yield* Scope.make()
  return yield* Effect.gen(function* () {
    const feed = yield* Replica.feed({ source: tables, native: tables, isHeld: true })
    const runs = yield* Effect.forEach(ways, (way) => feed.run({ ...way, target: tables }))
    const names = yield* feed.source.query(
      "SELECT string_agg(oid::regclass::text, ', ') AS all FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    yield* feed.source.query("SET lock_timeout = '20ms'")
    return { feed, runs, scope, empty: `TRUNCATE ${names[0]!["all"]} RESTART IDENTITY` } satisfies Stage
  }).pipe(Scope.provide(scope))
})

/** Fails when a way ends in another content than native replication. What went before is emptied away. */
const check = Effect.fnUntraced(function* ({ empty, feed, runs }: Stage, queries: ReadonlyArray<string>) {
  yield* feed.source.query(empty)
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
  yield* nativeOf(feed).caughtUp
  for (const run of runs) {
    yield* run.caughtUp
    yield* equalToNative(nativeOf(feed).database, run.target)
  }
})

layer(Replica.layer, real)("Random workloads", (it) => {
  it.effect(
    "end as native replication does",
    () =>
      Effect.gen(function* () {
        const context = yield* Effect.context<Replica>()
        let stage: Stage | undefined
        const once = (queries: ReadonlyArray<string>) =>
          Effect.gen(function* () {
            stage ??= yield* makeStage
            const { scope } = stage
            yield* check(stage, queries).pipe(
              // The next workload needs connectors that run.
              Effect.onExit((exit) => {
                if (Exit.isSuccess(exit)) return Effect.void
                stage = undefined
                return Scope.close(scope, exit)
              })
            )
          })
        yield* Effect.promise(() =>
          fc.assert(
            fc.asyncProperty(workload, (queries) => Effect.runPromiseWith(context)(once(queries))),
            { numRuns, seed, endOnFailure: !isFuzzing, interruptAfterTimeLimit: limit - 20_000 }
          )
        )
        if (stage !== undefined) yield* Scope.close(stage.scope, Exit.void)
      }),
    limit
  )
})
