import { assert, describe, it } from "vitest"
import { History } from "../../../src/operate/History.ts"

describe("History", () => {
  it("keeps every second of a minute and every ten of an hour, and no more", () => {
    const history = new History()
    for (let second = 0; second < 2 * 3600; second++) {
      history.add(second * 1000, second === 3605 ? 99 : 1, second * 5)
    }
    const { points } = history
    assert.strictEqual(points.length, 360 - 6 + 60)
    assert.deepStrictEqual(points.at(-1), { at: 7_199_000, lagRecords: 1, recordsPerSecond: 5 })
    assert.deepStrictEqual(points[0], { at: 3_609_000, lagRecords: 99, recordsPerSecond: 5 })
    assert.deepStrictEqual(
      points.map(({ at }) => at),
      points.map(({ at }) => at).toSorted((a, b) => a - b)
    )
  })

  it("knows no lag before it is told one", () => {
    const history = new History()
    for (let second = 0; second < 70; second++) history.add(second * 1000, null, 0)
    assert.deepStrictEqual(history.points[0], { at: 9000, lagRecords: null, recordsPerSecond: 0 })
  })
})
