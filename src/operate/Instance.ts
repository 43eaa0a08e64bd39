/** What a connector says of itself at a moment: a part of what the command, `/status` and the page show. */
import { Schema } from "effect"

/** What a connector is doing. */
export const states = ["starting", "standing by", "catching up", "following", "paused", "retrying", "stopped"] as const
export type State = (typeof states)[number]

const Count = Schema.Natural
/** A moment, as ISO 8601 in UTC. */
const Time = Schema.String

/** An error as the operator reads it: no stack, no cause, no values. */
export const Trouble = Schema.Struct({
  /** The name of its class, as in the table of errors. */
  error: Schema.String,
  message: Schema.String,
  remedy: Schema.NullOr(Schema.String),
  isRetryable: Schema.Boolean,
  /** Tries without progress so far. */
  attempt: Count,
  at: Time
})
export type Trouble = typeof Trouble.Type

/** Of one table, since the start of the process. */
export const TableStatus = Schema.Struct({
  table: Schema.String,
  insert: Count,
  update: Count,
  delete: Count,
  truncate: Count,
  /** When the last change of it was committed in the target. */
  lastChange: Time
})

/** What a connector says of itself. */
export const Instance = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  topic: Schema.String,
  partition: Count,
  version: Schema.String,
  host: Schema.String,
  pid: Count,
  state: Schema.Literals(states),
  /** When it entered that state. */
  since: Time,
  startedAt: Time,
  position: Schema.NullOr(
    Schema.Struct({
      offset: Count,
      commitLsn: Schema.NullOr(Schema.String),
      /** In the source. */
      commitTime: Schema.NullOr(Time),
      epoch: Count,
      /** In the target. */
      committedAt: Schema.NullOr(Time)
    })
  ),
  /** What the topic held when it was last asked. */
  log: Schema.NullOr(
    Schema.Struct({
      start: Count,
      /** One past the last record. */
      end: Count,
      at: Time,
      /** Records between the log's start and the position: what retention may remove before anything is lost. */
      headRoomRecords: Count,
      /**
       * How much older the log's first record is than the position's: so long may the connector be away, where
       * retention goes by age. `null` while nothing was removed yet, or where the driver gives no times.
       */
      headRoomSeconds: Schema.NullOr(Schema.Finite)
    })
  ),
  lag: Schema.NullOr(
    Schema.Struct({
      records: Count,
      /** From the mean size of the records that were applied; `null` before there was any. */
      bytes: Schema.NullOr(Count),
      /** Age of the last applied record while there are others behind it; 0 when there are none. */
      seconds: Schema.NullOr(Schema.Finite)
    })
  ),
  /** Over the last ten seconds. */
  rate: Schema.Struct({ records: Schema.Finite, changes: Schema.Finite, bytes: Schema.Finite, groups: Schema.Finite }),
  /** At that rate; `null` while nothing is applied, 0 when there is nothing to catch up. */
  catchUpSeconds: Schema.NullOr(Schema.Finite),
  /** Since the start of the process. */
  totals: Schema.Struct({
    records: Count,
    bytes: Count,
    changes: Count,
    transactions: Count,
    groups: Count,
    statements: Count,
    schemaChanges: Count,
    duplicates: Count,
    replays: Count,
    quarantined: Count,
    missingRows: Count,
    existingRows: Count,
    suppressedRows: Count,
    retries: Count
  }),
  /** Seconds since the start of the process that were spent in each stage; decoding and planning overlap the others. */
  stages: Schema.Struct({ decode: Schema.Finite, plan: Schema.Finite, execute: Schema.Finite, commit: Schema.Finite }),
  tables: Schema.Array(TableStatus),
  /** Attempts that failed and were followed by another one, by error. */
  retries: Schema.Array(Schema.Struct({ error: Schema.String, count: Count })),
  /** Transactions that are set aside and not resolved, of this topic; `null` before the target was asked. */
  quarantineHeld: Schema.NullOr(Count),
  /** Resident memory of the process. */
  memoryBytes: Schema.NullOr(Count),
  pause: Schema.NullOr(Schema.Struct({ reason: Schema.String, by: Schema.String, at: Time })),
  /** The last error, and those before it, the latest first. */
  troubles: Schema.Array(Trouble)
})
export type Instance = typeof Instance.Type
