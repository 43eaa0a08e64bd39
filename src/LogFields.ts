/** Facts of a log line as fields: for machines that collect logs. On a terminal the sentence alone is enough. */
import { Context, Effect } from "effect"

/** Whether lines have fields; the command line says no where a person reads them. */
export const HasFields = Context.Reference<boolean>("fluvio-postgres-sink/LogFields", { defaultValue: () => true })

export type Fields = { readonly [name: string]: string | number | undefined }

/** Gives the lines that `effect` logs these fields; those without a value are left out. */
export const withFields =
  (fields: Fields) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(HasFields, (hasFields) =>
      hasFields
        ? Effect.annotateLogs(
            effect,
            Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
          )
        : effect
    )
