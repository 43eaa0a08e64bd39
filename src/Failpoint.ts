/** Named places of the pipeline at which a test kills or stalls the connector. In production nothing happens there. */
import { Context, Effect } from "effect"

export const names = [
  "after fetch",
  "after decode",
  "before first statement",
  "after statement",
  "after schema change",
  "after quarantine write",
  "before position",
  "before commit",
  "after commit"
] as const
export type Name = (typeof names)[number]

/** What happens when a place is passed. */
export const Failpoint = Context.Reference<(name: Name) => Effect.Effect<void>>("fluvio-postgres-sink/Failpoint", {
  defaultValue: () => () => Effect.void
})

/** Passes the place. */
export const at = (name: Name): Effect.Effect<void> => Effect.flatMap(Failpoint, (onPass) => onPass(name))
