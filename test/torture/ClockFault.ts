/** The wall clock of the processes under test, which jumps when told to. */
import { Effect, type Scope } from "effect"
import { mkdtemp, open, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

export interface ClockFault {
  /** The environment of a process that has this clock. */
  readonly variables: { readonly [variable: string]: string }
  /** From now on it is so many hours off. */
  jump(hours: number): Effect.Effect<void>
}

export const variable = "FLUVIO_POSTGRES_SINK_TEST_CLOCK"

export const millisPerHour = 3_600_000

/** Every text is as long as the one before, so that none is read in halves. */
const textLength = 20

export const make: Effect.Effect<ClockFault, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(async () => {
    const folder = await mkdtemp(join(tmpdir(), "fluvio-postgres-sink-clock-"))
    return { folder, offset: await open(join(folder, "offset"), "w") }
  }),
  ({ folder, offset }) =>
    Effect.promise(async () => {
      await offset.close()
      await rm(folder, { recursive: true })
    })
).pipe(
  Effect.map(({ folder, offset }) => ({
    variables: {
      [variable]: join(folder, "offset"),
      NODE_OPTIONS: `--import=${new URL("JumpingClock.ts", import.meta.url).href}`
    },
    jump: (hours: number) =>
      Effect.asVoid(Effect.promise(() => offset.write(String(hours * millisPerHour).padEnd(textLength), 0)))
  }))
)
