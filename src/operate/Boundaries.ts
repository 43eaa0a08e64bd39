/**
 * Where a topic may be entered: between which of its records no transaction is open, how many transactions lie before
 * each such place, and which of them the source has sent again.
 */
import type { FluvioRecord, Offset } from "../stream/FluvioConsumer.ts"
import type { Lsn, Position } from "../stream/OffsetStore.ts"
import { decode, EventDecodeError, type ReplicationEvent } from "../stream/ReplicationEvent.ts"

/** Which place is looked for. */
export type Wanted =
  | { readonly type: "offset"; readonly offset: Offset }
  /** Behind the last transaction whose commit LSN is at most this. */
  | { readonly type: "lsn"; readonly lsn: Lsn }
  /** Before the first transaction that committed at this time or later. */
  | { readonly type: "time"; readonly time: bigint }
  /** Before the first Begin; before the first record where there are none. */
  | { readonly type: "first" }

/** A transaction by what its Begin says of it. */
export interface Mark {
  readonly commitLsn: Lsn
  readonly commitTime: bigint
}

/** A place between two records. */
export interface Place {
  /** Reading goes on at this offset. */
  readonly next: Offset
  /** The last transaction that ends before it, and the first that ends behind it. */
  readonly before: Mark | undefined
  readonly after: Mark | undefined
  /** How many transactions end before it, as far back as the log goes; those that were sent again count once. */
  readonly transactions: number
  /** How many times the source's history has gone back before it. */
  readonly rewinds: number
}

export interface Found {
  /** `undefined` where the log has no such place. */
  readonly wanted: Place | undefined
  /** The place of the stored position, wherever it lies. */
  readonly current: Place
  /** The nearest places between two transactions before and behind a wanted offset. */
  readonly nearest: { readonly before: Offset | undefined; readonly after: Offset | undefined }
  /** The last transaction that the log holds. */
  readonly last: Mark | undefined
}

/** Transactions in a row that lie at or below the last one: they were sent again if that one is among them. */
interface Run {
  transactions: number
  isProved: boolean
  /** The wanted place, if these are no repeats. */
  wanted: Snapshot | undefined
}

/** What is known of the log up to some record. */
interface Counts {
  /** There are Begin and Commit; otherwise each change is a transaction of its own. */
  readonly hasTransactions: boolean
  readonly last: Mark | undefined
  readonly run: Run | undefined
  readonly rewinds: number
  readonly whole: number
  readonly changes: number
}

/** What lay before a place when reading came to it; whether it was sent again may show further on. */
class Snapshot implements Place {
  readonly next: Offset
  readonly before: Mark | undefined
  after: Mark | undefined
  readonly rewinds: number
  private readonly whole: number
  private readonly changes: number
  private readonly run: Run | undefined
  private readonly suspected: number
  private readonly log: Counts

  constructor(next: Offset, log: Counts) {
    this.next = next
    this.before = log.last
    this.rewinds = log.rewinds
    this.whole = log.whole
    this.changes = log.changes
    this.run = log.run
    this.suspected = log.run?.transactions ?? 0
    this.log = log
  }

  get transactions(): number {
    if (!this.log.hasTransactions) return this.changes
    return this.whole + (this.run?.isProved === false ? this.suspected : 0)
  }
}

/** `undefined` for a record that cannot be read. */
export const eventOf = (record: FluvioRecord): ReplicationEvent | undefined => {
  try {
    return decode(record, { floatNull: "null" })
  } catch (error) {
    if (error instanceof EventDecodeError) return undefined
    throw error
  }
}

/** Reads the log from its start on, until it {@link Survey.isDone} or the log ends. */
export class Survey implements Counts {
  private readonly target: Wanted
  /** Where the log starts. */
  private readonly first: Snapshot
  private readonly current: Offset
  private readonly position: Position | undefined
  hasTransactions = false
  last: Mark | undefined
  run: Run | undefined
  rewinds = 0
  whole = 0
  changes = 0
  private open: Mark | undefined
  private latestTime: bigint | undefined
  private wanted: Snapshot | undefined
  /** The wanted offset, for a log without Begin and Commit. */
  private bare: Snapshot | undefined
  private here: Snapshot | undefined
  private beforeWanted: Offset | undefined
  private afterWanted: Offset | undefined
  private next: Offset

  /**
   * `current` is the place of the stored position. `position` is that position where the connector saved it for this
   * log: from there on it is known which transaction was applied last.
   */
  constructor(target: Wanted, start: Offset, current: Offset, position: Position | undefined) {
    this.target = target
    this.current = current
    this.position = position
    this.next = start
    this.first = this.snapshot(start)
    this.arriveAt(start)
    if (start === 0) this.pass(start)
  }

  /** What comes further on would change nothing. */
  get isDone(): boolean {
    if (this.here === undefined || this.run !== undefined) return false
    if (this.target.type === "lsn") return false
    return (this.target.type === "offset" ? this.afterWanted : this.wanted) !== undefined
  }

  push(records: ReadonlyArray<FluvioRecord>): void {
    for (const record of records) this.take(record)
  }

  /** What was found, once there are no more records or it {@link Survey.isDone}. */
  get found(): Found {
    this.arriveAt(this.next)
    return {
      wanted: this.wanted ?? this.wantedAtEnd,
      current: this.here ?? this.snapshot(this.current),
      nearest: { before: this.beforeWanted, after: this.afterWanted },
      last: this.last
    }
  }

  private get wantedAtEnd(): Snapshot | undefined {
    const { next, target } = this
    if (target.type === "time") return this.open === undefined ? this.snapshot(next) : undefined
    if (this.hasTransactions) return undefined
    // Every place is between two transactions.
    if (target.type === "first") return this.first
    return target.type === "offset" && target.offset === next ? this.snapshot(next) : this.bare
  }

  private take(record: FluvioRecord): void {
    const { offset } = record
    this.arriveAt(offset)
    if (this.target.type === "offset" && this.target.offset === offset) this.bare = this.snapshot(offset)
    const event = eventOf(record)
    if (event?.type === "begin") this.begin(offset, { commitLsn: event.finalLsn, commitTime: event.timestamp })
    else if (event?.type === "commit") this.commit(offset)
    else if (event !== undefined && event.type !== "relation" && event.type !== "type") this.changes += 1
    this.next = (offset + 1) as Offset
  }

  private snapshot(next: Offset): Snapshot {
    return new Snapshot(next, this)
  }

  /** At the stored position it is known what was applied last. */
  private arriveAt(offset: Offset): void {
    if (this.here !== undefined || offset < this.current) return
    if (this.position !== undefined) {
      const { commitLsn, commitTime, latestTime } = this.position
      this.last = commitLsn === undefined || commitTime === undefined ? undefined : { commitLsn, commitTime }
      this.latestTime = latestTime ?? commitTime
      this.run = undefined
    }
    this.here = this.snapshot(this.current)
  }

  /** No transaction is open before this offset. */
  private pass(next: Offset): void {
    if (this.target.type !== "offset") return
    const { offset } = this.target
    if (next === offset) this.wanted = this.snapshot(next)
    if (next <= offset) this.beforeWanted = next
    if (next >= offset) this.afterWanted ??= next
  }

  private begin(offset: Offset, mark: Mark): void {
    this.hasTransactions = true
    // Its Commit is lost: a source that starts again sends the open one again before any later one.
    if (this.open !== undefined && mark.commitLsn > this.open.commitLsn) this.whole += 1
    this.open = mark
    this.pass(offset)
    const { target } = this
    if (target.type === "first") this.wanted ??= this.snapshot(offset)
    if (target.type === "time" && mark.commitTime >= target.time && !this.isRepeat(mark)) {
      this.wanted ??= this.snapshot(offset)
    }
  }

  private commit(offset: Offset): void {
    this.hasTransactions = true
    const next = (offset + 1) as Offset
    // The rest of a transaction, of which it is not known whether it was sent again.
    if (this.open === undefined) this.whole += 1
    else this.count(this.open, next)
    this.open = undefined
    this.pass(next)
  }

  private isBehind({ commitLsn }: Mark): boolean {
    return this.last !== undefined && commitLsn <= this.last.commitLsn
  }

  private isLater({ commitTime }: Mark): boolean {
    return this.latestTime === undefined || commitTime > this.latestTime
  }

  /** What goes back in the source's log but not in time may be sent again. */
  private isRepeat(mark: Mark): boolean {
    return this.isBehind(mark) && !this.isLater(mark)
  }

  /** A transaction ends before `next`. */
  private count(mark: Mark, next: Offset): void {
    const isWanted = this.target.type === "lsn" && mark.commitLsn <= this.target.lsn
    if (this.isRepeat(mark)) {
      const run = (this.run ??= { transactions: 0, isProved: false, wanted: undefined })
      run.transactions += 1
      if (isWanted) run.wanted = this.snapshot(next)
      if (mark.commitLsn !== this.last?.commitLsn || mark.commitTime !== this.last.commitTime) return
      run.isProved = true
      this.run = undefined
      return
    }
    const { run } = this
    if (run !== undefined || this.isBehind(mark)) this.rewinds += 1
    if (run !== undefined) {
      this.whole += run.transactions
      this.wanted = run.wanted ?? this.wanted
      this.run = undefined
    }
    this.whole += 1
    if (this.isLater(mark)) this.latestTime = mark.commitTime
    this.last = mark
    if (this.here !== undefined) this.here.after ??= mark
    if (this.wanted !== undefined) this.wanted.after ??= mark
    if (isWanted) this.wanted = this.snapshot(next)
  }
}
