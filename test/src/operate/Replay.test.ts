import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { HeldKeys } from "../../../src/HeldKeys.ts"
import { followersOf, type Held, leadersOf } from "../../../src/operate/Held.ts"
import { chainOf } from "../../../src/operate/Replay.ts"
import { offset } from "../../events.ts"

/** Held in this order, each by the rows it touches. */
const held = (...rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<Held> =>
  rows.map((keys, n) => ({
    id: n + 1,
    firstOffset: offset(10 * n),
    lastOffset: offset(10 * n + 2),
    commitLsn: null,
    commitTime: null,
    xid: null,
    epoch: 0,
    class: "constraint",
    sqlState: null,
    reason: "",
    tables: ["t"],
    keys: keys.map((key) => (key === "*" ? '["t"]' : JSON.stringify(["t", key]))),
    schemaChanges: [],
    shapes: null,
    records: 3,
    heldSince: "",
    status: "held",
    resolvedAt: null,
    resolvedBy: null,
    resolvedReason: null
  }))

const ids = (all: ReadonlyArray<Held>) => all.map(({ id }) => id)

const chain = (all: ReadonlyArray<Held>, ...named: ReadonlyArray<number>) =>
  Effect.map(chainOf(all, new Set(named), new HeldKeys(Infinity)), ({ members, waiting }) => [
    ids(members),
    ids(waiting)
  ])

describe("Replay", () => {
  it.effect("takes what follows along, in order, and what follows that", () =>
    Effect.gen(function* () {
      const all = held(["a"], ["b"], ["a", "c"], ["c"], ["d"])
      assert.deepStrictEqual(yield* chain(all, 1), [[1, 3, 4], []])
      assert.deepStrictEqual(yield* chain(all, 5, 2), [[2, 5], []])
      assert.deepStrictEqual(yield* chain(held(["a"], ["*"], ["b"]), 1), [[1, 2, 3], []])
      assert.deepStrictEqual(ids(followersOf(all[0], all)), [3, 4])
      assert.deepStrictEqual(ids(leadersOf(all[3], all)), [3])
    })
  )

  it.effect("has a follower wait that follows another one, too, and with it what follows it", () =>
    Effect.gen(function* () {
      const all = held(["a"], ["b"], ["a", "b"], ["a"], ["c"])
      assert.deepStrictEqual(yield* chain(all, 1), [[1], [3, 4]])
      assert.deepStrictEqual(yield* chain(all, 1, 2), [[1, 2, 3, 4], []])
    })
  )

  it.effect("refuses a follower without what comes first", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(chain(held(["a"], ["b"], ["a", "b"]), 2, 3))
      assert.strictEqual(error.id, 3)
      assert.match(error.message, /comes first: 1$/)
    })
  )

  it.effect("goes on behind what was replayed before", () =>
    Effect.gen(function* () {
      const touched = new HeldKeys(Infinity)
      touched.add({ table: "t", row: JSON.stringify(["a"]) })
      const { members } = yield* chainOf(held(["b"], ["a"]), new Set(), touched)
      assert.deepStrictEqual(ids(members), [2])
    })
  )
})
