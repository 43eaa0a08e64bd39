import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer } from "effect"
import * as fc from "fast-check"
import { FluvioConsumer } from "../../src/stream/FluvioConsumer.ts"
import { make, render, renderState } from "../../src/Progress.ts"
import type { Instance } from "../../src/operate/Instance.ts"
import { Telemetry } from "../../src/Telemetry.ts"
import type { Applied } from "../../src/Applied.ts"
import { offset } from "../events.ts"

describe("render", () => {
  it("shows records, percent, rate and time left", () => {
    assert.strictEqual(
      render({ done: 500_000, total: 2_000_000, seconds: 5 }, 100),
      "██████░░░░░░░░░░░░░░░░░░ 25 % · 500,000 of 2,000,000 records · 100,000/s · 15 s left"
    )
  })

  it("is complete when nothing lay ahead", () => {
    assert.strictEqual(
      render({ done: 0, total: 0, seconds: 0 }, 100),
      "████████████████████████ 100 % · 0 of 0 records · 0/s"
    )
  })

  it("says minutes and hours where there are some", () => {
    assert.include(render({ done: 1, total: 91, seconds: 1 }, 100), "1 min 30 s left")
    assert.include(render({ done: 1, total: 5401, seconds: 1 }, 100), "1 h 30 min left")
  })
})

describe("the width", () => {
  it("is never more than the terminal has, whatever is to be told", () => {
    fc.assert(
      fc.property(
        fc.nat(),
        fc.nat(),
        fc.nat(1e6),
        fc.integer({ min: 6, max: 200 }),
        (done, total, seconds, columns) => {
          assert.isBelow(render({ done, total, seconds }, columns).length, columns)
        }
      )
    )
  })

  it("costs the bar first, then the rate, then the records", () => {
    const progressed = { done: 840_000, total: 2_000_000, seconds: 5 }
    const shown = (columns: number) => render(progressed, columns)
    assert.strictEqual(shown(80), "████████░░░░░░░░░░░░ 42 % · 840,000 of 2,000,000 records · 168,000/s · 7 s left")
    assert.strictEqual(shown(60), "█████░░░░░░░ 42 % · 840,000 of 2,000,000 records · 7 s left")
    assert.strictEqual(shown(40), "██████████░░░░░░░░░░░░░ 42 % · 7 s left")
    assert.strictEqual(shown(10), "42 %")
  })
})

const table = (name: string, lastChange: string) => ({
  table: name,
  insert: 1,
  update: 0,
  delete: 0,
  truncate: 0,
  lastChange
})
describe("renderState", () => {
  const following: Instance = {
    ...new Telemetry(0).snapshot(0),
    state: "following",
    lag: { records: 12_345, bytes: 1, seconds: 1 },
    rate: { records: 2, changes: 1234.5, bytes: 3, groups: 4 },
    tables: [table("public.pets", "2026-01-01"), table("public.orders", "2026-01-02")]
  }

  it("tells lag, rate and the last table, as far as there is room", () => {
    const whole = "following · 12,345 records behind · 1,235 changes/s · last public.orders"
    assert.strictEqual(renderState(following, 80), whole)
    assert.strictEqual(renderState(following, whole.length), "following · 12,345 records behind · 1,235 changes/s")
    assert.strictEqual(renderState(following, 12), "following")
    assert.strictEqual(renderState(following, 6), "follo")
  })

  it("says why it waits", () => {
    const paused = { ...following, state: "paused" as const, pause: { reason: "index build", by: "me", at: "" } }
    assert.strictEqual(renderState(paused, 80), "paused · index build · 12,345 records behind")
    assert.strictEqual(renderState({ ...following, state: "standing by" }, 80), "standing by")
  })
})

describe("make", () => {
  // The machine's clock, set back by an hour, had it that no time had passed: no rate, and nothing left to wait for.
  it.effect("goes by a clock that nobody sets", () =>
    Effect.gen(function* () {
      let seconds = 0
      let millis = 3_600_000
      const clock: Clock.Clock = Object.assign(Object.create(yield* Clock.Clock), {
        currentTimeMillis: Effect.sync(() => millis),
        monotonicTimeNanos: Effect.sync(() => BigInt(seconds) * 1_000_000_000n)
      })
      const lines: Array<string> = []
      const progress = make({ columns: () => 80, draw: (text) => Effect.sync(() => void lines.push(text)) })
      const consumer = Layer.mock(FluvioConsumer, {
        topic: "pets",
        partition: 0,
        checksum: () => 0,
        bounds: Effect.succeed({ start: offset(0), end: offset(400), written: offset(400) })
      })
      const applied = (at: number) =>
        progress({ position: { offset: offset(at) }, records: 100 } as Applied).pipe(
          Effect.provide(consumer),
          Effect.provideService(Clock.Clock, clock)
        )
      yield* applied(99)
      millis = 0
      seconds = 2
      yield* applied(199)
      assert.include(lines.at(-1), "200 of 400 records · 100/s · 2 s left")
    })
  )
})
