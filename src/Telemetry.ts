/**
 * What a connector that runs tells of itself. It listens: nothing of the pipeline depends on it. Facts are kept in plain
 * fields that are written per group; whoever wants to know takes a {@link Telemetry.snapshot}.
 */
import { Clock, Context, Effect } from "effect"
import { addChanges, type Applied, noChanges, type TableChanges } from "./Applied.ts"
import type { Instance, State, Trouble } from "./operate/Instance.ts"
import type { Bounds } from "./stream/FluvioConsumer.ts"
import { formatLsn, type Pause, type Position } from "./stream/OffsetStore.ts"

/** Who runs: known to whoever starts the process. */
export interface Process {
  readonly version: string
  readonly host: string
  readonly pid: number
  /** Resident memory, in bytes. */
  readonly memory: () => number | undefined
}

const nobody: Process = { version: "", host: "", pid: 0, memory: () => undefined }

/** Rates are over so many ticks. */
const rateTicks = 10
/** So many errors are remembered. */
const mostTroubles = 20

/** Microseconds since 2000 in milliseconds since 1970. */
const millisOf = (micros: bigint): number => Number(micros / 1000n) + Date.UTC(2000, 0, 1)
const iso = (millis: number): string => new Date(millis).toISOString()

type Rate = Instance["rate"]

interface Totals {
  records: number
  bytes: number
  changes: number
  transactions: number
  groups: number
  statements: number
  schemaChanges: number
  duplicates: number
  replays: number
  quarantined: number
  missingRows: number
  existingRows: number
  suppressedRows: number
  retries: number
}

/** What an error class tells of itself. */
interface Told {
  readonly _tag: string
  readonly message: string
  readonly remedy?: unknown
  readonly isRetryable?: unknown
}

export class Telemetry {
  readonly id = globalThis.crypto.randomUUID()
  #process: Process = nobody
  #place = { name: "", topic: "", partition: 0 }
  #state: State = "starting"
  #since: number
  readonly #startedAt: number
  #position: Position | undefined
  #committedAt: number | undefined
  #appendedAt: number | undefined
  #bounds: { readonly start: number; readonly end: number; readonly at: number } | undefined
  #hasStarted = false
  /** Where the records end that have come. */
  #heard = 0
  /** When the log's first record was appended. */
  #firstAppendedAt: number | undefined
  /** Where the log ended when reading began: up to there it is catching up. Before, nothing is known of a lag. */
  #target: number | undefined
  #pause: Pause | undefined
  readonly #tables = new Map<string, { counts: TableChanges; at: number }>()
  #troubles: ReadonlyArray<Trouble> = []
  readonly #totals: Totals = {
    records: 0,
    bytes: 0,
    changes: 0,
    transactions: 0,
    groups: 0,
    statements: 0,
    schemaChanges: 0,
    duplicates: 0,
    replays: 0,
    quarantined: 0,
    missingRows: 0,
    existingRows: 0,
    suppressedRows: 0,
    retries: 0
  }
  readonly #retries = new Map<string, number>()
  #held: number | undefined
  readonly #stages = { decode: 0, plan: 0, execute: 0, commit: 0 }
  /** The totals at each of the last seconds. */
  #ticks: ReadonlyArray<{ readonly at: number; readonly totals: Totals }> = []
  #rate: Rate = { records: 0, changes: 0, bytes: 0, groups: 0 }

  constructor(now: number) {
    this.#since = now
    this.#startedAt = now
  }

  get state(): State {
    return this.#state
  }

  is(process: Process, place: { readonly name: string; readonly topic: string; readonly partition: number }): void {
    const { name, partition, topic } = place
    this.#process = process
    this.#place = { name, topic, partition }
  }

  #enter(state: State, now: number): void {
    if (state === this.#state) return
    this.#state = state
    this.#since = now
  }

  /** Whether it has found its place, or whom it waits for: before that the target is not told anything. */
  get hasStarted(): boolean {
    return this.#hasStarted
  }

  standingBy(now: number): void {
    this.#hasStarted = true
    this.#enter("standing by", now)
  }

  /** Reading begins behind the position, in a log that holds `bounds`. */
  started(position: Position | undefined, bounds: Bounds, now: number): void {
    this.#hasStarted = true
    this.#position = position
    this.#target = bounds.end
    this.#heard = 0
    this.bounds(bounds, now)
    this.#follow(now)
  }

  bounds({ end, start }: { readonly start: number; readonly end: number }, now: number): void {
    this.#bounds = { start, end: Math.max(end, this.#heard), at: now }
  }

  /** Records have come, up to before `end`; reading and decoding them took so long. */
  heard(end: number, millis: number): void {
    this.#heard = end
    this.#stages.decode += millis / 1000
    if (this.#bounds !== undefined && this.#bounds.end < end) this.#bounds = { ...this.#bounds, end }
  }

  /** When the first record that the log still holds was appended. */
  firstRecord(appendedAt: number | undefined): void {
    this.#firstAppendedAt = appendedAt
  }

  applied(applied: Applied, now: number): void {
    const { millis, position } = applied
    const totals = this.#totals
    totals.groups += 1
    totals.records += applied.records
    totals.bytes += applied.bytes
    totals.changes += applied.changes
    totals.transactions += applied.transactions
    totals.statements += applied.statements
    totals.schemaChanges += applied.schemaChanges
    totals.duplicates += applied.duplicates
    totals.replays += applied.replays
    totals.quarantined += applied.quarantined
    totals.missingRows += applied.missingRows
    totals.existingRows += applied.existingRows
    totals.suppressedRows += applied.suppressedRows
    this.#stages.plan += millis.plan / 1000
    this.#stages.execute += millis.execute / 1000
    this.#stages.commit += millis.commit / 1000
    for (const [table, counts] of applied.tables) {
      const before = this.#tables.get(table)
      this.#tables.set(table, { counts: addChanges(before?.counts ?? noChanges, counts), at: now })
    }
    this.#position = position
    this.#committedAt = now
    this.#appendedAt = applied.appendedAt
    this.#follow(now)
  }

  paused(pause: Pause, now: number): void {
    this.#pause = pause
    this.#enter("paused", now)
  }

  resumed(now: number): void {
    this.#pause = undefined
    this.#follow(now)
  }

  /** It will be tried again. */
  retrying(error: Told, attempt: number, now: number): void {
    this.#totals.retries += 1
    this.#retries.set(error._tag, (this.#retries.get(error._tag) ?? 0) + 1)
    this.#note(error, attempt, now)
    this.#enter("retrying", now)
  }

  /** It has ended: with an error, or because it was told to. */
  stopped(error: Told | undefined, now: number): void {
    if (error !== undefined) this.#note(error, 0, now)
    this.#enter("stopped", now)
  }

  /** So many transactions are set aside and not resolved. */
  held(count: number): void {
    this.#held = count
  }

  /** Called about once a second, with milliseconds of a clock that nobody sets: what rates are made of. */
  tick(at: number): void {
    this.#ticks = [...this.#ticks.slice(-rateTicks), { at, totals: { ...this.#totals } }]
    const [first] = this.#ticks
    const seconds = (at - first.at) / 1000
    const per = (key: keyof Rate) =>
      seconds <= 0 ? 0 : Math.round(((this.#totals[key] - first.totals[key]) / seconds) * 10) / 10
    this.#rate = { records: per("records"), changes: per("changes"), bytes: per("bytes"), groups: per("groups") }
  }

  #follow(now: number): void {
    const offset = this.#position?.offset ?? -1
    this.#enter(offset >= (this.#target ?? 0) - 1 ? "following" : "catching up", now)
  }

  /** The same error again is the same trouble, which has gone on. */
  #note({ _tag, isRetryable, message, remedy }: Told, attempt: number, now: number): void {
    const trouble: Trouble = {
      error: _tag,
      message,
      remedy: typeof remedy === "string" ? remedy : null,
      isRetryable: isRetryable === true,
      attempt,
      at: iso(now)
    }
    const others = this.#troubles[0]?.message === message ? this.#troubles.slice(1) : this.#troubles
    this.#troubles = [trouble, ...others].slice(0, mostTroubles)
  }

  snapshot(now: number): Instance {
    const position = this.#position
    const bounds = this.#bounds
    const totals = { ...this.#totals }
    const rate = this.#rate
    const next = position === undefined ? 0 : position.offset + 1
    const behind = bounds === undefined || this.#target === undefined ? undefined : Math.max(0, bounds.end - next)
    const age = this.#appendedAt === undefined ? undefined : Math.max(0, (now - this.#appendedAt) / 1000)
    const { host, memory, pid, version } = this.#process
    return {
      id: this.id,
      ...this.#place,
      version,
      host,
      pid,
      state: this.#state,
      since: iso(this.#since),
      startedAt: iso(this.#startedAt),
      position:
        position === undefined
          ? null
          : {
              offset: position.offset,
              commitLsn: position.commitLsn === undefined ? null : formatLsn(position.commitLsn),
              commitTime: position.commitTime === undefined ? null : iso(millisOf(position.commitTime)),
              epoch: position.epoch,
              committedAt: this.#committedAt === undefined ? null : iso(this.#committedAt)
            },
      log:
        bounds === undefined
          ? null
          : {
              start: bounds.start,
              end: bounds.end,
              at: iso(bounds.at),
              headRoomRecords: Math.max(0, next - bounds.start),
              headRoomSeconds:
                bounds.start === 0 || this.#firstAppendedAt === undefined || this.#appendedAt === undefined
                  ? null
                  : Math.max(0, (this.#appendedAt - this.#firstAppendedAt) / 1000)
            },
      lag:
        behind === undefined
          ? null
          : {
              records: behind,
              bytes: totals.records === 0 ? null : Math.round((behind * totals.bytes) / totals.records),
              seconds: behind === 0 ? 0 : (age ?? null)
            },
      rate,
      catchUpSeconds:
        behind === 0 ? 0 : behind === undefined || rate.records <= 0 ? null : Math.round(behind / rate.records),
      totals,
      stages: { ...this.#stages },
      tables: [...this.#tables]
        .map(([table, { at, counts }]) => ({ table, ...counts, lastChange: iso(at) }))
        .sort((a, b) => (a.table < b.table ? -1 : 1)),
      retries: [...this.#retries].map(([error, count]) => ({ error, count })),
      quarantineHeld: this.#held ?? null,
      memoryBytes: memory() ?? null,
      pause: this.#pause === undefined ? null : { reason: this.#pause.reason, by: this.#pause.by, at: this.#pause.at },
      troubles: this.#troubles
    }
  }
}

/** Milliseconds since 1970. */
export const now = Clock.currentTimeMillis

/** Who runs this process; a program that embeds the connector may say it. */
export const ThisProcess = Context.Reference<Process>("fluvio-postgres-sink/Process", {
  defaultValue: () => nobody
})

/** Where a program listens: its own {@link Telemetry}, given to the connector that it runs. */
export const Listening = Context.Reference<Telemetry | undefined>("fluvio-postgres-sink/Telemetry", {
  defaultValue: () => undefined
})

export const make = Effect.map(now, (millis) => new Telemetry(millis))
