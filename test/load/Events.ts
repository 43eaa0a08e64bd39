/** What the target of a topic from `bench/Topic.ts` must hold. */
import { Effect } from "effect"
import { BenchmarkFailed } from "../bench/Lab.ts"
import type { TestDatabase } from "../postgres.ts"

/** Exactly the first rows of the topic, with the values that they have there. */
export const assertRows = Effect.fnUntraced(function* (what: string, database: TestDatabase, rows: number) {
  const [row = {}] = yield* database.query(`
    SELECT count(*) AS rows, count(DISTINCT id) AS ids, coalesce(min(id), 1) AS first, coalesce(max(id), 0) AS last,
      count(*) FILTER (
        WHERE (kind, name, note) IS DISTINCT FROM (id % 9973, 'event ' || id, 'a somewhat longer note, number ' || id)
      ) AS wrong
    FROM bench_events
  `)
  const expected = { rows: String(rows), ids: String(rows), first: "1", last: String(rows), wrong: "0" }
  if (JSON.stringify(row) !== JSON.stringify(expected)) {
    return yield* new BenchmarkFailed({
      what,
      reason: `the target holds ${JSON.stringify(row)} instead of ${JSON.stringify(expected)}`
    })
  }
})
