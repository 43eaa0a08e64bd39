/** How the connector of this process is, for whoever watches it: what it tells of itself, and what the target tells. */
import { Cause, Effect, Exit, Option, Schedule, Semaphore } from "effect"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import * as Telemetry from "../Telemetry.ts"
import { History, type Point } from "./History.ts"
import type { Instance, State } from "./Instance.ts"
import type { Services } from "./Operation.ts"
import * as Status from "./Status.ts"

/** For so many milliseconds what the target told is taken for what it would tell. */
const fresh = 1000
/** So long the target may take to answer, and so long anybody waits for that, and for those who have asked before. */
const patience = "4 seconds"
const mostPatience = "5 seconds"

const isAtWork = (state: State): boolean => state === "following" || state === "catching up"

/** Whether to send work its way, and why not. */
export interface Readiness {
  readonly isReady: boolean
  readonly state: State
  readonly lagRecords: number | null
  readonly reason: string | null
}

/** It asks nobody: what follows from what the connector tells of itself. */
export const readiness = (
  { lag, pause, state, troubles }: Pick<Instance, "lag" | "pause" | "state" | "troubles">,
  /** So many records of lag are ready; any number where this is left out. */
  readyLag: number | undefined
): Readiness => {
  const lagRecords = lag?.records ?? null
  const trouble = troubles[0] === undefined ? "" : `: ${troubles[0].message}`
  const reasons: { readonly [S in State]: string | null } = {
    starting: `has not begun yet${trouble}`,
    "standing by": null,
    "catching up": null,
    following: null,
    paused: `paused by ${pause?.by ?? "somebody"}: ${pause?.reason ?? ""}`,
    retrying: `trying again${trouble}`,
    stopped: `stopped${trouble}`
  }
  const isLate = readyLag !== undefined && isAtWork(state) && (lagRecords === null || lagRecords > readyLag)
  const reason = isLate ? `a lag of ${lagRecords ?? "unknown"} records, more than ${readyLag}` : reasons[state]
  return { isReady: reason === null, state, lagRecords, reason }
}

/** What the target told, with what this process knows better. */
const merge = (
  { partition, topic }: { readonly topic: string; readonly partition: number },
  told: Status.Status | undefined,
  targetError: string | null,
  own: Instance,
  now: number
): Status.Status => {
  const { id, lag, log, pause, position, state } = own
  const isAhead = position !== null && (told?.position?.offset ?? -1) < position.offset
  const known = isAhead ? { ...position, savedBy: "connector" } : (told?.position ?? null)
  const toldLog = targetError === null ? (told?.log ?? null) : log
  const end = toldLog === null ? 0 : Math.max(toldLog.end, log?.end ?? 0)
  return {
    topic,
    partition,
    targetError,
    position:
      known === null
        ? null
        : { offset: known.offset, commitLsn: known.commitLsn, epoch: known.epoch, savedBy: known.savedBy },
    log: toldLog === null ? null : { start: toldLog.start, end },
    lagRecords: toldLog === null ? (lag?.records ?? null) : Math.max(0, end - (known === null ? 0 : known.offset + 1)),
    pause: pause ?? told?.pause ?? null,
    quarantine: told?.quarantine ?? { held: 0, oldest: null, byClass: [] },
    lock: targetError === null ? (told?.lock ?? null) : null,
    instances: [
      { ...own, seenAt: new Date(now).toISOString(), isAlive: state !== "stopped" },
      ...(told?.instances.filter((other) => other.id !== id) ?? [])
    ].sort((a, b) => Number(b.isAlive && isAtWork(b.state)) - Number(a.isAlive && isAtWork(a.state)))
  }
}

export interface Watch {
  /** What this process tells of itself, now. */
  readonly own: Effect.Effect<Instance>
  /** Asks the target, unless that was done just now; it never takes long, and never fails. */
  readonly refresh: Effect.Effect<void>
  /** The same as `status --json`, as far as it is known now. */
  readonly status: Effect.Effect<Status.Status>
  /** What the target told is not taken for what it would tell now: something was done. */
  readonly forget: Effect.Effect<void>
  /** The last hour, the oldest first. */
  readonly history: () => ReadonlyArray<Point>
}

/** It keeps the history until the scope closes. */
export const make = Effect.fnUntraced(function* (telemetry: Telemetry.Telemetry) {
  const context = yield* Effect.context<Services>()
  const config = yield* ConnectorConfig
  const turn = yield* Semaphore.make(1)
  let told: Status.Status | undefined
  let targetError: string | null = "it was not asked yet"
  let askedAt = -Infinity

  const ask = Effect.gen(function* () {
    if ((yield* Telemetry.now) - askedAt < fresh) return
    const exit = yield* Effect.exit(Effect.timeout(Status.gather(), patience))
    if (Exit.isSuccess(exit)) {
      told = exit.value
      targetError = null
      askedAt = yield* Telemetry.now
      if (told.log !== null) telemetry.bounds(told.log, askedAt)
      return
    }
    const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
    targetError =
      error === undefined
        ? "the connection to it broke"
        : Cause.isTimeoutError(error)
          ? `it did not answer for ${patience}`
          : error.message
  })

  const history = new History()
  yield* Effect.map(Telemetry.now, (now) => {
    const { lag, totals } = telemetry.snapshot(now)
    history.add(now, lag?.records ?? null, totals.records)
  }).pipe(Effect.repeat(Schedule.spaced("1 second")), Effect.forkScoped)

  const own = Effect.map(Telemetry.now, (now) => telemetry.snapshot(now))
  const watch: Watch = {
    own,
    refresh: ask.pipe(
      turn.withPermits(1),
      Effect.timeoutOption(mostPatience),
      Effect.asVoid,
      Effect.provideContext(context)
    ),
    status: Effect.map(Telemetry.now, (now) => merge(config, told, targetError, telemetry.snapshot(now), now)),
    forget: Effect.sync(() => {
      askedAt = -Infinity
    }),
    history: () => history.points
  }
  return watch
})
