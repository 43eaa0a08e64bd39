/** The contract of keeping the position in the target. */
import { Context, type Effect, Option, Schema } from "effect"
import { Offset } from "./FluvioConsumer.ts"
import { Relation } from "./Relation.ts"
import { isRetryable } from "./Outcome.ts"

/** A log sequence number of the source: 64 bits, unsigned. */
export const Lsn = Schema.BigInt.pipe(Schema.brand("Lsn"))
export type Lsn = typeof Lsn.Type

/** PostgreSQL's notation of an LSN, `16/B374D848`. */
export const formatLsn = (lsn: bigint): string =>
  `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`

/** The LSN of a text such as `16/B374D848`; `undefined` for any other text. */
export const parseLsn = (text: string): Lsn | undefined => {
  const [, high, low] = /^([0-9a-f]{1,8})\/([0-9a-f]{1,8})$/i.exec(text) ?? []
  return high === undefined ? undefined : Lsn.make((BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`))
}

/** Milliseconds from 1970 to 2000, where PostgreSQL's time begins. */
const postgresEpoch = 946_684_800_000

/** A commit time as ISO 8601, to the microsecond. */
export const formatTime = (commitTime: bigint): string => {
  const micros = ((commitTime % 1000n) + 1000n) % 1000n
  const date = new Date(Number((commitTime - micros) / 1000n) + postgresEpoch)
  return Number.isNaN(date.getTime())
    ? `${commitTime} microseconds since 2000`
    : date.toISOString().replace("Z", `${String(micros).padStart(3, "0")}Z`)
}

/** The commit time of a text such as `2026-11-30T20:15:00Z` or `2026-11-30 21:15:00.123456+01:00`; it names its zone. */
export const parseTime = (text: string): bigint | undefined => {
  const match = /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,6}))?(Z|[+-]\d\d(?::?\d\d)?)$/i.exec(text)
  if (match === null) return undefined
  const [, date, time, fraction = "", zone] = match
  const [, hours, minutes = "00"] = /^([+-]\d\d):?(\d\d)?$/.exec(zone) ?? []
  const millis = Date.parse(`${date}T${time}${hours === undefined ? "Z" : `${hours}:${minutes}`}`)
  return Number.isNaN(millis) ? undefined : BigInt(millis - postgresEpoch) * 1000n + BigInt(fraction.padEnd(6, "0"))
}

/** What has been applied. */
export interface Position {
  /** Offset of the last applied record; reading resumes at the next one. */
  readonly offset: Offset
  /** CRC-32C of that record's value. `undefined` only where this connector did not save the position itself. */
  readonly checksum: number | undefined
  /**
   * Counts the histories of the source, from 0: within one, OIDs and LSNs mean the same. Another one begins where the
   * operator says that the source was restored, failed over or replaced.
   */
  readonly epoch: number
  /** Commit LSN of the last applied transaction; `undefined` before the first one that had an LSN. */
  readonly commitLsn: Lsn | undefined
  /** Its commit time, in microseconds since 2000-01-01 UTC. */
  readonly commitTime: bigint | undefined
  /**
   * The latest commit time of all that was applied: neighbours may be out of order. `undefined` in a row of an earlier
   * version, which kept this in the place of the commit time.
   */
  readonly latestTime: bigint | undefined
}

/** A relation and the offset of the record that described it; a Type event travels with the same duty. */
export interface StoredRelation {
  readonly relation: Relation
  readonly offset: Offset
}

/** A user-defined type of the source, as a Type event describes it. */
export interface StoredType {
  /** Its OID in the source. */
  readonly id: number
  /** As the event has it; `undefined` where an earlier version stored the name alone. */
  readonly namespace: string | undefined
  readonly name: string
  readonly offset: Offset
}

/** What the stream described: what rows need to be understood, as of the position. */
export interface Described {
  readonly relations: ReadonlyArray<StoredRelation>
  readonly types: ReadonlyArray<StoredType>
}

export interface Stored {
  readonly position: Option.Option<Position>
  readonly described: Described
  /**
   * Who saved the position. Of one that this connector did not save itself only the offset counts: the log before it is
   * read first, to learn what is missing. The original connector's may lie inside a transaction.
   */
  readonly savedBy: "connector" | "original" | "operator"
}

/** An operator has asked that nothing be applied until further notice. */
export interface Pause {
  readonly reason: string
  /** The role that asked, and where it was. */
  readonly by: string
  /** As PostgreSQL prints a `timestamptz`. */
  readonly at: string
}

/** An operator has asked that a transaction be passed over whole. */
export interface Skip {
  /** The history of the source that the LSN is of. */
  readonly epoch: number
  readonly commitLsn: Lsn
  readonly reason: string
}

/** What is stored before anything was applied. */
export const nothingStored: Stored = {
  position: Option.none(),
  described: { relations: [], types: [] },
  savedBy: "connector"
}

/** The stored position is not the one this instance saved last: another instance is applying. */
export class PositionConflict extends Schema.TaggedError<PositionConflict>()("PositionConflict", {
  topic: Schema.String,
  partition: Schema.Natural,
  expected: Schema.Option(Offset)
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "if another instance applies this topic to this database, stop one of them"
  override get message() {
    const expected = Option.match(this.expected, { onNone: () => "no position", onSome: (o) => `offset ${o}` })
    return `the position of ${this.topic}-${this.partition} was changed by another instance, or by hand (expected ${expected})`
  }
}

/** The target refused or lost a statement on the position tables. */
export class OffsetStoreError extends Schema.TaggedError<OffsetStoreError>()("OffsetStoreError", {
  operation: Schema.String,
  /** PostgreSQL's SQLSTATE, when the server gave one. */
  sqlState: Schema.UndefinedOr(Schema.String),
  /** That of the failed statement; `undefined` when what the tables hold cannot be read. */
  class: Schema.UndefinedOr(Schema.String),
  reason: Schema.String,
  isRetryable: Schema.Boolean,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.operation} failed${this.sqlState === undefined ? "" : ` (SQLSTATE ${this.sqlState})`}: ${this.reason}`
  }
}

/**
 * Keeps the position and what was described, of one topic and partition.
 *
 * All of them run in the ambient transaction when there is one, so that rows and position commit together. The
 * store must share its `SqlClient` instance with the sink: a second instance silently would not share the transaction.
 */
export class OffsetStore extends Context.Service<
  OffsetStore,
  {
    /** Creates or migrates the tables when needed, then reads what is stored. */
    readonly load: Effect.Effect<Stored, OffsetStoreError>
    /**
     * Reads what is stored, and writes nothing: for commands that only look. Nothing is stored where no connector has
     * run yet; where one of another version has, this fails.
     */
    readonly inspect: Effect.Effect<Stored, OffsetStoreError>
    /**
     * Replaces `previous` by `next` and adds what was described anew; with a new epoch, what was described before is
     * deleted. Fails with {@link PositionConflict}, and
     * thereby rolls the ambient transaction back, when the stored position is not `previous`.
     */
    save(
      previous: Option.Option<Position>,
      next: Position,
      changed: Described
    ): Effect.Effect<void, PositionConflict | OffsetStoreError>
    /**
     * Deletes the position, and what was described with it. Fails with {@link PositionConflict} when the stored position is
     * not `previous`.
     */
    forget(previous: Position): Effect.Effect<void, PositionConflict | OffsetStoreError>
    /** What an operator has asked to pass over, and is not passed yet. */
    readonly skips: Effect.Effect<ReadonlyArray<Skip>, OffsetStoreError>
    /** Whether an operator has asked that nothing be applied for now. */
    readonly pause: Effect.Effect<Pause | undefined, OffsetStoreError>
    /**
     * Keeps what an instance says of itself, one row each; those that have been silent for a day are forgotten. Gives how
     * many transactions are set aside and not resolved.
     */
    report(id: string, state: string, status: object): Effect.Effect<number, OffsetStoreError>
  }
>()("fluvio-postgres-sink/OffsetStore") {}
