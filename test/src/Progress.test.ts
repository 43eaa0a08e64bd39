import { assert, describe, it } from "vitest"
import { render } from "../../src/Progress.ts"

describe("render", () => {
  it("shows records, percent, rate and time left", () => {
    assert.strictEqual(
      render({ done: 500_000, total: 2_000_000, seconds: 5 }),
      "██████░░░░░░░░░░░░░░░░░░ 25 % · 500,000 of 2,000,000 records · 100,000/s · 15 s left"
    )
  })

  it("is complete when nothing lay ahead", () => {
    assert.strictEqual(
      render({ done: 0, total: 0, seconds: 0 }),
      "████████████████████████ 100 % · 0 of 0 records · 0/s"
    )
  })

  it("says minutes and hours where there are some", () => {
    assert.include(render({ done: 1, total: 91, seconds: 1 }), "1 min 30 s left")
    assert.include(render({ done: 1, total: 5401, seconds: 1 }), "1 h 30 min left")
  })
})
