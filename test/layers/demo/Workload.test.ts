import { assert, describe, it } from "vitest"
import { take, textOf, transactionsPerRound } from "../../../layers/demo/Workload.ts"

describe("Workload", () => {
  it("is decided by its seed alone", () => {
    const count = 2 * transactionsPerRound
    assert.deepStrictEqual(take(7, count), take(7, count))
    assert.notDeepEqual(take(7, count), take(8, count))
  })

  it("shows in every round each scene once, whatever the seed is", () => {
    for (const seed of [1, 2, 3]) {
      const rounds = take(seed, 3 * transactionsPerRound)
      for (let round = 1; round <= 3; round++) {
        const text = rounds
          .slice((round - 1) * transactionsPerRound, round * transactionsPerRound)
          .map(textOf)
          .join("\n")
        const count = (pattern: RegExp) => text.match(pattern)?.length ?? 0
        assert.strictEqual(count(/ADD COLUMN/g), 1)
        assert.strictEqual(count(/RENAME COLUMN/g), 1)
        assert.strictEqual(count(/DROP COLUMN/g), 1)
        assert.strictEqual(count(/ROLLBACK TO/g), 1)
        assert.strictEqual(count(/TRUNCATE/g), round % 2 === 0 ? 1 : 2)
        assert.match(text, new RegExp(`ADD COLUMN extra_${round} `))
        assert.match(text, new RegExp(`DROP COLUMN extra_${round - 1}\\b`))
      }
    }
  })

  it("has transactions of one change and of a thousand", () => {
    const sizes = new Set(take(1, transactionsPerRound).map(({ changes }) => changes))
    assert.isTrue(sizes.has(1))
    assert.isTrue(sizes.has(1000))
  })
})
