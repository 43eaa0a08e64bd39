/**
 * Every error that the connector and its commands end with, each as docs/errors.md describes it: the facts to act on, an
 * `isRetryable`, and a `remedy` in words. None holds values of rows or secrets.
 */
export type { ConnectorError } from "./Connector.ts"
export { exitCodeOf, isRetryable, type Outcome, outcomeOf } from "./stream/Outcome.ts"

// Settings
export { ConnectorConfigError } from "./ConfigSource.ts"

// Reading the topic
export {
  BatchTooLarge,
  CodecMissing,
  CorruptBatch,
  DriverLimit,
  type FluvioError,
  FluvioProfileError,
  FluvioProtocolError,
  FluvioSilent,
  FluvioTlsError,
  FluvioUnreachable,
  LeaderMoved,
  OffsetBeyondEnd,
  OffsetEvicted,
  OffsetGap,
  TopicNotFound
} from "./stream/FluvioConsumer.ts"

// Records to transactions
export { EventDecodeError, FloatNull } from "./stream/ReplicationEvent.ts"
export {
  BeginMissing,
  CommitMismatch,
  CommitMissing,
  CommitWithoutBegin,
  OutsideTransaction,
  RecordsRepeated,
  SourceRewound,
  type TransactionError,
  UnknownRelation,
  WrongArity
} from "./stream/TransactionError.ts"

// The place in the topic
export { PlaceInsideTransaction, PlaceNotProved, RestMissing, RetentionGap } from "./Connector.ts"
export { OffsetStoreError, PositionConflict } from "./stream/OffsetStore.ts"
export { LockLost, SessionsPooled } from "./Standby.ts"

// The target
export { SqlFailure } from "./target/SqlFailure.ts"
export {
  ApplyFailed,
  ArbiterMissing,
  IdentityFixed,
  IdentityMissing,
  InTransactionFailed,
  RowConflict
} from "./SinkError.ts"
export { SchemaRefused } from "./schema/SchemaChange.ts"
export { RowSecurityActive, TableMissing } from "./schema/Router.ts"
export { RowsUnfilled } from "./schema/Unfilled.ts"
export { NotATable } from "./target/TargetTable.ts"
export { TooFewConnections } from "./Connections.ts"

// Setting aside
export { QuarantineLimit, QuarantineResolved, SkipCancelled } from "./Quarantine.ts"

// The operator's commands
export { NotHeld } from "./operate/Held.ts"
export { NotReady } from "./operate/Operation.ts"
export { PositionRefused } from "./operate/Position.ts"
export { ReplayRefused } from "./operate/Replay.ts"
export { SkipRefused } from "./operate/Skip.ts"
