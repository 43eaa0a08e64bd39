/** A few short runs with fixed seeds. The long ones are `npm run torture`. */
import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { faultClasses } from "./Faults.ts"
import * as Torture from "./Torture.ts"

const timeout = 240_000

it.live.each([1, 2])(
  "loses nothing, doubles nothing and shows nothing half, whatever befalls it (seed %d)",
  (seed) =>
    Effect.gen(function* () {
      const report = yield* Torture.run({ seed, minutes: 0.15 })
      const { doubled, lost, misbehaviour, torn } = report
      const found = { lost, doubled, torn, misbehaviour }
      assert.deepStrictEqual(found, { lost: 0, doubled: 0, torn: 0, misbehaviour: [] }, report.evidence.join("\n"))
      assert.isAbove(report.rows, 0)
      assert.isAbove(report.reads, 0)
      const injected = faultClasses.reduce((sum, faultClass) => sum + Torture.faultCount(report, faultClass), 0)
      assert.isAbove(injected, 0)
    }).pipe(Effect.provide(NodeServices.layer)),
  timeout
)
