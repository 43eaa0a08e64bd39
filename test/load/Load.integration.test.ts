/** The loads in small. In full they are `npm run load`. */
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, References } from "effect"
import * as Bench from "../bench/Lab.ts"
import * as Scenarios from "./Scenarios.ts"

class Lab extends Context.Service<Lab, Bench.Lab>()("test/Lab") {
  static readonly layer = Layer.effect(Lab, Bench.make)
}

layer(Layer.merge(Lab.layer, NodeServices.layer), { excludeTestServices: true })("Load", (it) => {
  for (const name of Scenarios.names) {
    it.effect(`holds under ${name}`, () =>
      Effect.gen(function* () {
        const { peak } = yield* Scenarios.run(name, yield* Lab, Scenarios.quick)
        assert.isAbove(peak, 0)
      }).pipe(Effect.provideService(References.MinimumLogLevel, "Warn"))
    )
  }
})
