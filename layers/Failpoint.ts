/** Arms one failpoint by an environment variable, so that the executable itself can be killed at a chosen place. */
import { Effect, Layer, Option, Schema } from "effect"
import * as Failpoint from "../src/Failpoint.ts"

export const variable = "FLUVIO_POSTGRES_SINK_FAILPOINT"

/** What the variable holds, as JSON. */
const Armed = Schema.fromJsonString(
  Schema.Struct({
    at: Schema.Literals(Failpoint.names),
    /** The how-manieth passing it is, from 1 on. */
    passing: Schema.Natural,
    /** For so many milliseconds the pipeline stands still; without it the process is killed. */
    stall: Schema.optionalKey(Schema.Natural)
  })
)
export type Armed = typeof Armed.Type

export const encode = Schema.encodeSync(Armed)

/** Without the variable there is no failpoint; with anything else in it than what {@link encode} writes, no start. */
export const layer = (variables: { readonly [name: string]: string | undefined }): Layer.Layer<never> =>
  Option.match(Option.fromNullishOr(variables[variable]), {
    onNone: () => Layer.empty,
    onSome: (text) => {
      const { at, passing, stall } = Schema.decodeSync(Armed)(text)
      let left = passing
      return Layer.succeed(Failpoint.Failpoint, (name) =>
        name !== at || --left !== 0
          ? Effect.void
          : stall === undefined
            ? Effect.sync(() => process.kill(process.pid, "SIGKILL"))
            : Effect.sleep(stall)
      )
    }
  })
