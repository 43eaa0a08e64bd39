/** What keeps records from becoming whole source transactions. */
import { Schema } from "effect"
import { EventDecodeError, FloatNull } from "./ReplicationEvent.ts"
import { isRetryable, positionSet, untilCaughtUp } from "./Outcome.ts"

/** Where only a copy of the tables tells what the target should hold. */
const copyAgain = `copy the tables from the source again, then run ${positionSet("--at-lsn X/Y --allow-loss")}, with the same settings and the LSN at which the source was when the copy began; ${untilCaughtUp}`

/** What is known of the place where a transaction could not be put together. */
const facts = {
  offset: Schema.Natural,
  /** In PostgreSQL's notation; `undefined` outside Begin and Commit. */
  commitLsn: Schema.UndefinedOr(Schema.String)
}

const describe = (at: { readonly offset: number; readonly commitLsn: string | undefined }): string =>
  `offset ${at.offset}${at.commitLsn === undefined ? "" : ` (transaction ${at.commitLsn})`}`

/** A change of a relation that neither the stream nor what is stored has described. */
export class UnknownRelation extends Schema.TaggedError<UnknownRelation>()("UnknownRelation", {
  ...facts,
  relId: Schema.Natural
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy =
    "the record that describes the relation lies before the first one read: start from an earlier offset, or restart the inbound connector, which then describes its tables again, and start behind that; or set the transaction aside with `on-error.decode: quarantine`"
  override get message() {
    return `the change at ${describe(this)} is of relation ${this.relId}, which has not been described`
  }
}

/** A row has more or fewer cells than its relation has columns. */
export class WrongArity extends Schema.TaggedError<WrongArity>()("WrongArity", {
  ...facts,
  table: Schema.String,
  columns: Schema.Natural,
  cells: Schema.Natural
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy =
    "the topic lacks the record that describes the table's new shape: check that nothing filters it and that one inbound connector alone writes to it, and set the transaction aside with `on-error.decode: quarantine`"
  override get message() {
    return `the change at ${describe(this)} has ${this.cells} cells for the ${this.columns} columns of ${this.table}`
  }
}

/** A Commit while no transaction is open. */
export class CommitWithoutBegin extends Schema.TaggedError<CommitWithoutBegin>()("CommitWithoutBegin", {
  offset: Schema.Natural,
  commitLsn: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = `the beginning of this transaction is missing from the topic: check that nothing filters it, and that reading starts between two transactions; then ${copyAgain}`
  override get message() {
    return `the Commit at ${describe(this)} has no Begin`
  }
}

/** A transaction begins behind one whose Commit did not come. */
export class CommitMissing extends Schema.TaggedError<CommitMissing>()("CommitMissing", {
  /** Of the Begin of the transaction that is incomplete. */
  offset: Schema.Natural,
  commitLsn: Schema.String,
  /** Of the Begin that came instead of its Commit. */
  next: Schema.Natural,
  nextLsn: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    return `if the source failed over before it had sent all of it, make sure that the target matches the source's new history, then run ${positionSet(`--offset ${this.next} --new-epoch --allow-loss`)}, with the same settings; otherwise the topic has lost records: ${copyAgain}`
  }
  override get message() {
    return `the transaction at ${describe(this)} has no Commit: transaction ${this.nextLsn} begins at offset ${this.next}`
  }
}

/** A change outside Begin and Commit, in a log that has them. */
export class OutsideTransaction extends Schema.TaggedError<OutsideTransaction>()("OutsideTransaction", {
  offset: Schema.Natural,
  type: Schema.String,
  /** Of the transaction before it. */
  after: Schema.UndefinedOr(Schema.String)
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = `the beginning of its transaction is missing from the topic, or a producer has appended a part of one twice: check that nothing filters the topic and that one inbound connector alone writes to it; then ${copyAgain}`
  override get message() {
    const after = this.after === undefined ? "" : `, behind transaction ${this.after}`
    return `the ${this.type} at offset ${this.offset} stands outside of a transaction${after}`
  }
}

/** A Commit that belongs to another transaction than the open one. */
export class CommitMismatch extends Schema.TaggedError<CommitMismatch>()("CommitMismatch", {
  offset: Schema.Natural,
  /** Of the open transaction, as its Begin announced it. */
  commitLsn: Schema.String,
  received: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = `records of two sources, or of two connectors, are mixed in this topic: let one inbound connector alone write to it; then ${copyAgain}`
  override get message() {
    return `the Commit at ${describe(this)} is of transaction ${this.received}`
  }
}

/** A producer appended a batch twice: changes of one transaction go back in the source's log, or come behind its Commit. */
export class RecordsRepeated extends Schema.TaggedError<RecordsRepeated>()("RecordsRepeated", facts) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = `the topic holds records twice, and rows that are alike cannot be told from them: ${copyAgain}`
  override get message() {
    return `the change at ${describe(this)} lies before one that was read already: a producer has appended it twice`
  }
}

/**
 * The source's history starts again at or below what was applied: it was restored, failed over, or its slot was re-created.
 * Transactions that are sent again look alike, but then the one applied last is among them.
 */
export class SourceRewound extends Schema.TaggedError<SourceRewound>()("SourceRewound", {
  /** Of the first Begin that is not proved to be a repeat. */
  offset: Schema.Natural,
  /** The lowest from there on. */
  commitLsn: Schema.String,
  applied: Schema.String,
  /** Of the Begin by which it showed. */
  next: Schema.Natural
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    const later =
      this.next === this.offset
        ? ""
        : ` (or that of a later Begin, at most ${this.next}, if the target holds the transactions up to there: with \`--allow-loss\`)`
    return `make sure that the target matches the source's new history up to the transaction that begins at offset ${this.offset}; then run ${positionSet(`--offset ${this.offset} --new-epoch`)}${later}, with the same settings, or set \`accept-epoch\` to that offset`
  }
  override get message() {
    return `the transactions from ${describe(this)} on do not lie behind the one applied last, ${this.applied}, and it is not among them: the source was rewound`
  }
}

/** Reading starts inside a transaction whose Begin is not among the records read. */
export class BeginMissing extends Schema.TaggedError<BeginMissing>()("BeginMissing", {
  offset: Schema.Natural
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = `its rest cannot be applied as one: run ${positionSet("--first-whole-transaction --allow-loss")}, with the same settings, and only then copy the tables from the source again; ${untilCaughtUp}`
  override get message() {
    return `reading starts at offset ${this.offset}, inside a transaction whose beginning is no longer in the topic`
  }
}

export type TransactionError =
  | EventDecodeError
  | FloatNull
  | UnknownRelation
  | WrongArity
  | CommitWithoutBegin
  | CommitMissing
  | CommitMismatch
  | OutsideTransaction
  | RecordsRepeated
  | SourceRewound
  | BeginMissing

/** What keeps a record from being read, wherever it stands; the rest are findings about the stream as a whole. */
export type Unreadable = EventDecodeError | FloatNull | UnknownRelation | WrongArity

export const isUnreadable = (error: unknown): error is Unreadable =>
  error instanceof EventDecodeError ||
  error instanceof FloatNull ||
  error instanceof UnknownRelation ||
  error instanceof WrongArity
