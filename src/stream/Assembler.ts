/** From events to whole source transactions. */
import { Option, Schema } from "effect"
import type { Change, End, Piece } from "./Change.ts"
import type { FluvioRecord, Offset, Records } from "./FluvioConsumer.ts"
import {
  type Described,
  formatLsn,
  type Lsn,
  type Position,
  type Skip,
  type StoredRelation,
  type StoredType
} from "./OffsetStore.ts"
import { Relation } from "./Relation.ts"
import {
  type Begin,
  type Commit,
  decode,
  EventDecodeError,
  FloatNull,
  type FloatNullPolicy,
  type ReplicationEvent
} from "./ReplicationEvent.ts"
import {
  BeginMissing,
  CommitMismatch,
  CommitMissing,
  CommitWithoutBegin,
  isUnreadable,
  OutsideTransaction,
  RecordsRepeated,
  SourceRewound,
  UnknownRelation,
  type Unreadable,
  WrongArity
} from "./TransactionError.ts"
import type { Tuple } from "./Tuple.ts"

const startOfEvent = new TextEncoder().encode('{"wal_start":')
const Zero = 0x30

/**
 * A record's place in the source's log, as near as a double comes to it: later ones are never less. It is 0 where the
 * source gives none, as for relations, and where the record does not begin with it.
 */
const walStartOf = ({ bytes, end, start }: FluvioRecord): number => {
  for (let n = 0; n < startOfEvent.length; n++) if (bytes[start + n] !== startOfEvent[n]) return 0
  let lsn = 0
  for (let at = start + startOfEvent.length; at < end; at++) {
    const digit = bytes[at] - Zero
    if (digit < 0 || digit > 9) return lsn
    lsn = lsn * 10 + digit
  }
  return lsn
}

/** A transaction whose Commit has not come yet; a change outside Begin and Commit is one that ends with itself. */
class Open {
  readonly begin: Begin | undefined
  /** Offset of its Begin. */
  readonly began: Offset
  /** The source sends it again, as it seems. */
  readonly isRepeat: boolean
  /** It is to be passed over. */
  readonly skip: Skip | undefined
  /** A record of it could not be read; in a repeat that means nothing but that the record may have been the Commit. */
  hasUnreadable = false
  private changes: Array<Change> = []
  records = 0
  private isFirst = true
  bytes = 0
  first: Offset | undefined
  last: FluvioRecord | undefined
  refusal: Unreadable | undefined
  /** The place in the source's log of the last change. */
  walStart = 0

  constructor(begin: Begin | undefined, began: Offset, isRepeat: boolean, skip?: Skip) {
    this.begin = begin
    this.began = began
    this.isRepeat = isRepeat
    this.skip = skip
  }

  count(record: FluvioRecord): void {
    this.first ??= record.offset
    this.last = record
    this.bytes += record.size
    this.records += 1
  }

  add(change: Change): void {
    this.changes.push(change)
  }

  /** Whether what is held must be given away before `record` is added. */
  isFull(record: FluvioRecord, maxBytes: number): boolean {
    return this.changes.length > 0 && this.bytes + record.size > maxBytes
  }

  /** Gives away what is held; there is at least one record. */
  take(epoch: number, end: End | undefined): Piece {
    const piece: Piece = {
      isFirst: this.isFirst,
      first: this.first!,
      xid: this.begin?.xid,
      epoch,
      changes: this.changes,
      bytes: this.bytes,
      records: this.records,
      end,
      repeated: undefined,
      skip: this.skip,
      refusal: this.refusal
    }
    this.isFirst = false
    this.first = undefined
    this.changes = []
    this.bytes = 0
    this.records = 0
    return piece
  }
}

type TypeName = Pick<StoredType, "namespace" | "name">

/**
 * Transactions in a row that lie at or below the one applied last. They are repeats if that one is among them; until then
 * they are held back, so that the position stays in front of them.
 */
class Repeats {
  /** Offset of the first record. */
  readonly first: Offset
  transactions = 0
  records = 0
  bytes = 0
  lowest: Lsn
  highest: Lsn
  /** The last record of a whole transaction. */
  last: FluvioRecord | undefined
  /** The one applied last has begun. */
  hasLast = false

  constructor(first: Offset, lsn: Lsn) {
    this.first = first
    this.lowest = lsn
    this.highest = lsn
  }

  meet(lsn: Lsn, isLast: boolean): void {
    if (lsn < this.lowest) this.lowest = lsn
    if (lsn > this.highest) this.highest = lsn
    this.hasLast ||= isLast
  }

  add({ bytes, last, records }: Open): void {
    this.transactions += 1
    this.records += records
    this.bytes += bytes
    this.last = last
  }
}

/** What a transaction is known by in its source's history. */
type Mark = Pick<Begin, "finalLsn" | "timestamp">

/** The field is one of a row, so that the record describes nothing. */
const isOfRow = (path: string): boolean => /^message\.(tuple|old_tuple|key_tuple|new_tuple)\b/.test(path)

const isSameRelation = Schema.toEquivalence(Relation)

const tableName = (relation: Relation): string => `${relation.namespace}.${relation.name}`

export interface AssemblerOptions {
  readonly position: Option.Option<Position>
  /** The relations and types as of the position. */
  readonly described: Described
  /** By which rows are read although they do not count as applied. */
  readonly shapes?: ReadonlyArray<Relation>
  /**
   * The offset that the original connector applied last, when its position is taken over. It may lie inside a
   * transaction. Records up to it are only read to learn relations, types and the transaction it lies in.
   */
  readonly appliedThrough: Offset | undefined
  /** Most bytes of records held of one transaction; a larger one is given away in pieces. A single record may exceed it. */
  readonly maxBytes: number
  readonly floatNull: FloatNullPolicy
  /** Whether a record that cannot be read ends in a throw, or in a piece with a `refusal`. */
  readonly onUnreadable: "halt" | "quarantine"
  /** The transactions to pass over: what cannot be read of them halts nothing. */
  readonly skips: ReadonlyArray<Skip>
  /** The offset of a Begin with which a new epoch begins: the operator says that the source was rewound before it. */
  readonly acceptEpoch: Offset | undefined
  /** The log is known to hold Begin and Commit; otherwise it shows with the first of them. */
  readonly hasTransactions: boolean
}

const typeOf = (record: FluvioRecord): ReplicationEvent["type"] | undefined => {
  try {
    return decode(record, { floatNull: "null" }).type
  } catch (error) {
    if (error instanceof EventDecodeError) return undefined
    throw error
  }
}

export const isReadable = (record: FluvioRecord): boolean => typeOf(record) !== undefined

/** Whether a record is a Begin or a Commit; `undefined` for all else, and for what cannot be read. */
export const boundaryOf = (record: FluvioRecord): "begin" | "commit" | undefined => {
  const type = typeOf(record)
  return type === "begin" || type === "commit" ? type : undefined
}

/**
 * Puts source transactions together.
 *
 * Every record that is pushed is accounted for by exactly one piece, or belongs to a transaction that the source broke
 * off, or lies before the take-over. Rows are never compared with one another: what is dropped as a repeat are whole
 * transactions, and only where the very one that was applied last, known by its commit LSN and time, is among them.
 * A change of a relation's shape is a {@link RelationChange} before the first row that has it, measured against what was
 * *applied*: shapes that only a broken-off transaction had do not count.
 */
export class Assembler {
  private readonly options: AssemblerOptions
  /** The relations as the stream described them last: what rows are read by. */
  private readonly shapes = new Map<number, Relation>()
  /** The relations and types of completed transactions, and those that the open one adds. */
  private readonly relations = new Map<number, Relation>()
  private readonly types = new Map<number, TypeName>()
  private readonly openRelations = new Map<number, Relation>()
  private readonly openTypes = new Map<number, TypeName>()
  private readonly learnedRelations = new Map<number, StoredRelation>()
  private readonly learnedTypes = new Map<number, StoredType>()
  private epoch: number
  /** Of the transaction completed last. */
  private commitLsn: Lsn | undefined
  private commitTime: bigint | undefined
  /** The latest of all commit times: they may be out of order, by a little or by a clock that was set. */
  private latestTime: bigint | undefined
  /** Earlier versions kept only the latest time. */
  private isTimeExact: boolean
  private open: Open | undefined
  private repeats: Repeats | undefined
  /** Changes stand between Begin and Commit; otherwise each is a transaction of its own. */
  private hasTransactions: boolean
  /** Whether the next record is known to be inside or outside of a transaction. */
  private isOriented: boolean
  /** What the last {@link push} completed; when it threw, what it had completed before. */
  completed: ReadonlyArray<Piece> = []

  constructor(options: AssemblerOptions) {
    this.options = options
    this.isOriented = options.appliedThrough === undefined
    for (const { relation } of options.described.relations) {
      this.shapes.set(relation.id, relation)
      this.relations.set(relation.id, relation)
    }
    for (const relation of options.shapes ?? []) this.shapes.set(relation.id, relation)
    for (const type of options.described.types) this.types.set(type.id, type)
    const position = Option.getOrUndefined(options.position)
    this.epoch = position?.epoch ?? 0
    this.commitLsn = position?.commitLsn
    this.commitTime = position?.commitTime
    this.isTimeExact = position?.latestTime !== undefined
    this.latestTime = position?.latestTime ?? position?.commitTime
    this.hasTransactions = options.hasTransactions || this.commitLsn !== undefined
  }

  /**
   * What the records up to `appliedThrough` taught: relations and types that count as applied, cause no change and are
   * not stored yet. Complete as soon as a record behind it was pushed; empty without a take-over.
   */
  get learned(): Described {
    return { relations: [...this.learnedRelations.values()], types: [...this.learnedTypes.values()] }
  }

  /** The transaction completed last, and the latest time of all up to it. */
  get last(): Pick<Position, "commitLsn" | "commitTime" | "latestTime"> {
    return { commitLsn: this.commitLsn, commitTime: this.commitTime, latestTime: this.latestTime }
  }

  /** Where reading is after a take-over, as far as the records up to it tell. */
  get place(): "inside" | "outside" | "unknown" {
    return this.isOriented ? (this.open === undefined ? "outside" : "inside") : "unknown"
  }

  /** Offset of the Begin of the open transaction. */
  get began(): Offset | undefined {
    return this.open?.began
  }

  /** The log has neither Begin nor Commit around the place of the take-over: it is outside of a transaction. */
  orient(): void {
    this.isOriented = true
  }

  /** The first offset of transactions that seem to be repeats, as long as that is not proved. */
  get unproved(): Offset | undefined {
    return this.repeats?.first
  }

  /**
   * Takes the next records and returns what became complete, or too large to hold, in order. Throws a
   * {@link TransactionError}; the assembler is of no further use then, and a new one starts from the position.
   */
  push(records: Records): ReadonlyArray<Piece> {
    const pieces: Array<Piece> = []
    this.completed = pieces
    for (let n = 0; n < records.length; n++) this.take(records[n], pieces)
    return pieces
  }

  private take(record: FluvioRecord, pieces: Array<Piece>): void {
    const { appliedThrough } = this.options
    const isLearning = appliedThrough !== undefined && record.offset <= appliedThrough
    try {
      if (isLearning) this.learn(this.read(record, "null"), record)
      else this.assemble(record, pieces)
    } catch (error) {
      const isHalting = this.options.onUnreadable === "halt" && this.open?.skip === undefined
      if (isHalting || !isUnreadable(error)) throw error
      if (isLearning) this.forgetUnreadable(error)
      else this.setAside(error, record, pieces)
    }
  }

  /** A record that was applied before the take-over, or passed over. If it described a table, it is not known how. */
  private forgetUnreadable(error: Unreadable): void {
    if (this.open !== undefined) this.open.hasUnreadable = true
    if (error instanceof EventDecodeError && error.relId !== undefined && !isOfRow(error.path)) {
      this.shapes.delete(error.relId)
      this.relations.delete(error.relId)
      this.learnedRelations.delete(error.relId)
    }
  }

  private setAside(error: Unreadable, record: FluvioRecord, pieces: Array<Piece>): void {
    const isAlone = this.open === undefined && !this.hasTransactions
    // Where there are transactions, the record may have been the Begin of one: what follows belongs to it.
    const open = (this.open ??= new Open(undefined, record.offset, false))
    open.hasUnreadable = true
    if (!open.isRepeat) this.refuse(error, record, open)
    open.count(record)
    if (isAlone) this.abandon(open, undefined, pieces)
  }

  private assemble(record: FluvioRecord, pieces: Array<Piece>): void {
    // The rows of a repeat are not applied, so that no policy is asked about them.
    const event = this.read(record, this.open?.isRepeat === true ? "null" : this.options.floatNull)
    if (event.type === "begin") {
      this.isOriented = true
      this.hasTransactions = true
      this.begin(event, record, pieces)
      return
    }
    if (!this.isOriented) {
      if (record.offset > 0) throw new BeginMissing({ offset: record.offset })
      this.isOriented = true
    }
    if (event.type === "commit") {
      this.hasTransactions = true
      this.commit(event, record, pieces)
      return
    }
    if (this.open === undefined) {
      pieces.push(this.alone(event, record))
      return
    }
    this.checkOrder(record, this.open)
    if (this.open.isFull(record, this.options.maxBytes)) pieces.push(this.open.take(this.epoch, undefined))
    this.add(event, record, this.open)
    this.open.count(record)
  }

  /** A record outside Begin and Commit is a transaction of its own where there are none of the source. */
  private alone(event: Exclude<ReplicationEvent, Begin | Commit>, record: FluvioRecord): Piece {
    const alone = new Open(undefined, record.offset, false)
    // What cannot be read is that first of all: it may be set aside with what follows.
    this.add(event, record, alone)
    if (this.hasTransactions) {
      throw new OutsideTransaction({
        offset: record.offset,
        type: event.type,
        after: this.commitLsn && formatLsn(this.commitLsn)
      })
    }
    alone.count(record)
    this.settle()
    return alone.take(this.epoch, this.endAt(record))
  }

  /** Of a change that cannot be read it may be known which table it is of: then nothing else may be assumed of its rows. */
  private refuse(error: Unreadable, { offset }: FluvioRecord, open: Open): void {
    open.refusal ??= error
    const isOf = (relation: Relation): boolean =>
      error instanceof WrongArity ? tableName(relation) === error.table : relation.id === error.relId
    const relation = [...this.shapes.values()].find(isOf)
    if (relation !== undefined) open.add({ type: "relation", offset, relation, previous: this.settled(relation.id) })
  }

  /** Ends a transaction that cannot be read. What it said of shapes does not count. */
  private abandon(open: Open, commit: Commit | undefined, pieces: Array<Piece>): void {
    const mark = open.begin ?? (commit && { finalLsn: commit.commitLsn, timestamp: commit.timestamp })
    this.forgetOpen()
    this.open = undefined
    // Without its Begin, it shows only now that it is a repeat; without its Commit as well, only what is around it tells.
    if (mark !== undefined && this.isBehind(mark)) {
      this.suspect(mark, open.began)
      this.endRepeat(mark, open, pieces)
      return
    }
    if (mark === undefined && this.repeats !== undefined) {
      this.repeats.add(open)
      return
    }
    if (mark !== undefined) {
      this.checkProved(open.began)
      this.advance(mark)
    }
    pieces.push(open.take(this.epoch, this.endAt(open.last!)))
  }

  private read(record: FluvioRecord, floatNull: FloatNullPolicy): ReplicationEvent {
    try {
      return decode(record, { floatNull })
    } catch (error) {
      if (!(error instanceof EventDecodeError || error instanceof FloatNull)) throw error
      const relation = error.relId === undefined ? undefined : this.shapes.get(error.relId)
      const known = { commitLsn: this.openLsn(), table: relation && tableName(relation) }
      throw error instanceof FloatNull
        ? new FloatNull({ ...error, ...known })
        : new EventDecodeError({ ...error, ...known })
    }
  }

  private openLsn(): string | undefined {
    return this.open?.begin && formatLsn(this.open.begin.finalLsn)
  }

  /** Notes what a record teaches that was applied before the take-over. */
  private learn(event: ReplicationEvent, record: FluvioRecord): void {
    const { offset } = record
    this.isOriented ||= offset === 0 || event.type === "begin" || event.type === "commit"
    switch (event.type) {
      case "begin": {
        this.hasTransactions = true
        if (offset === this.options.acceptEpoch) this.enterEpoch()
        // What is later was applied by whoever was here before, from wherever the source went on.
        const isRepeat = this.isBehind(event) && this.latestTime !== undefined && event.timestamp <= this.latestTime
        this.open = new Open(event, offset, isRepeat)
        break
      }
      case "commit":
        this.hasTransactions = true
        if (this.open?.begin !== undefined && !this.open.isRepeat) this.advance(this.open.begin)
        this.open = undefined
        break
      case "relation":
        this.shapes.set(event.relation.id, event.relation)
        this.relations.set(event.relation.id, event.relation)
        this.learnedRelations.set(event.relation.id, { relation: event.relation, offset })
        break
      case "type":
        this.types.set(event.id, event)
        this.learnedTypes.set(event.id, { id: event.id, namespace: event.namespace, name: event.name, offset })
        break
    }
  }

  /** In the source's log the transaction does not lie behind the one that was completed last. */
  private isBehind(mark: Mark): boolean {
    return this.commitLsn !== undefined && mark.finalLsn <= this.commitLsn
  }

  /** It is the one that was completed last. */
  private isLast(mark: Mark): boolean {
    if (mark.finalLsn !== this.commitLsn || this.commitTime === undefined) return false
    return this.isTimeExact ? mark.timestamp === this.commitTime : mark.timestamp <= this.commitTime
  }

  /** Takes a transaction for a repeat, unless it cannot be one. */
  private suspect(mark: Mark, offset: Offset): void {
    const isLater = this.latestTime === undefined || mark.timestamp > this.latestTime
    const isOther = mark.finalLsn === this.commitLsn && !this.isLast(mark)
    if (isLater || isOther) throw this.rewound(this.repeats ?? new Repeats(offset, mark.finalLsn), offset)
    this.repeats ??= new Repeats(offset, mark.finalLsn)
    this.repeats.meet(mark.finalLsn, this.isLast(mark))
  }

  private rewound({ first, lowest }: Repeats, next: Offset): SourceRewound {
    return new SourceRewound({
      offset: first,
      commitLsn: formatLsn(lowest),
      applied: formatLsn(this.commitLsn!),
      next
    })
  }

  /** Nothing new is taken behind transactions that seemed to be repeats and are not proved to be. */
  private checkProved(next: Offset): void {
    if (this.repeats !== undefined) throw this.rewound(this.repeats, next)
  }

  /** A repeat is whole. With the one applied last they all are proved, and moved past. */
  private endRepeat(mark: Mark, open: Open, pieces: Array<Piece>): void {
    const repeats = (this.repeats ??= new Repeats(open.first!, mark.finalLsn))
    repeats.meet(mark.finalLsn, this.isLast(mark))
    repeats.add(open)
    if (this.isLast(mark)) this.passRepeats(pieces)
  }

  private passRepeats(pieces: Array<Piece>): void {
    const { repeats } = this
    this.repeats = undefined
    if (repeats?.last === undefined) return
    const { bytes, first, highest, last, lowest, records, transactions } = repeats
    pieces.push({
      isFirst: true,
      first,
      xid: undefined,
      epoch: this.epoch,
      changes: [],
      bytes,
      records,
      end: this.endAt(last),
      repeated: { transactions, lowest, highest },
      skip: undefined,
      refusal: undefined
    })
  }

  /** OIDs, LSNs and repeats mean nothing across epochs: all that is known of the source is forgotten. */
  private enterEpoch(): void {
    this.epoch += 1
    this.commitLsn = undefined
    this.commitTime = undefined
    this.latestTime = undefined
    this.shapes.clear()
    this.relations.clear()
    this.types.clear()
    this.learnedRelations.clear()
    this.learnedTypes.clear()
    this.forgetOpen()
    this.open = undefined
  }

  private begin(event: Begin, record: FluvioRecord, pieces: Array<Piece>): void {
    const { open } = this
    if (record.offset === this.options.acceptEpoch) {
      // Whatever seemed to be repeats, the operator has it go on behind them.
      this.passRepeats(pieces)
      this.enterEpoch()
    } else if (open !== undefined && event.finalLsn > (open.begin?.finalLsn ?? -1n)) {
      this.endWithoutCommit(open, event, record, pieces)
    }
    const isRepeat = this.isBehind(event)
    if (isRepeat) this.suspect(event, record.offset)
    else this.checkProved(record.offset)
    // A transaction that is still open was broken off, and with it what it said of shapes.
    this.forgetOpen()
    this.open = new Open(event, record.offset, isRepeat, isRepeat ? undefined : this.skipOf(event))
    this.open.count(record)
  }

  private skipOf({ finalLsn }: Begin): Skip | undefined {
    return this.options.skips.find(({ commitLsn, epoch }) => commitLsn === finalLsn && epoch === this.epoch)
  }

  /**
   * Another transaction begins although the Commit of the open one has not come. A source that starts again sends the open
   * one again before any later one: so the Commit is lost, unless it is the record that could not be read.
   */
  private endWithoutCommit(open: Open, next: Begin, record: FluvioRecord, pieces: Array<Piece>): void {
    if (open.refusal !== undefined) {
      this.abandon(open, undefined, pieces)
    } else if (open.hasUnreadable) {
      if (open.isRepeat) this.endRepeat(open.begin!, open, pieces)
      else if (open.records > 0) throw this.commitMissing(open, next, record)
    } else if (!open.isRepeat || (!this.isBehind(next) && this.repeats?.hasLast !== false)) {
      // Between repeats nothing is lost that was not applied.
      throw this.commitMissing(open, next, record)
    }
  }

  private commitMissing({ began, begin }: Open, next: Begin, { offset }: FluvioRecord): CommitMissing {
    return new CommitMissing({
      offset: began,
      commitLsn: formatLsn(begin!.finalLsn),
      next: offset,
      nextLsn: formatLsn(next.finalLsn)
    })
  }

  private commit(event: Commit, record: FluvioRecord, pieces: Array<Piece>): void {
    const { open } = this
    if (open?.refusal !== undefined) {
      open.count(record)
      this.abandon(open, event, pieces)
      return
    }
    if (open?.begin === undefined) {
      throw new CommitWithoutBegin({ offset: record.offset, commitLsn: formatLsn(event.commitLsn) })
    }
    const { begin } = open
    if (event.commitLsn !== begin.finalLsn) {
      throw new CommitMismatch({
        offset: record.offset,
        commitLsn: formatLsn(begin.finalLsn),
        received: formatLsn(event.commitLsn)
      })
    }
    open.count(record)
    this.open = undefined
    if (open.isRepeat) {
      this.endRepeat(begin, open, pieces)
      return
    }
    this.advance(begin)
    this.settle()
    pieces.push(open.take(this.epoch, this.endAt(record)))
  }

  private endAt(record: FluvioRecord): End {
    return { record, commitLsn: this.commitLsn, commitTime: this.commitTime, latestTime: this.latestTime }
  }

  private advance({ finalLsn, timestamp }: Mark): void {
    this.commitLsn = finalLsn
    this.commitTime = timestamp
    this.isTimeExact = true
    if (this.latestTime === undefined || this.latestTime < timestamp) this.latestTime = timestamp
  }

  /** What the open transaction said of shapes counts from now on. */
  private settle(): void {
    this.openRelations.forEach((relation, id) => this.relations.set(id, relation))
    this.openTypes.forEach((type, id) => this.types.set(id, type))
    this.forgetOpen()
  }

  /** Drops what the open transaction said of shapes: for most nothing, and to clear an empty map allocates. */
  private forgetOpen(): void {
    if (this.openRelations.size > 0) this.openRelations.clear()
    if (this.openTypes.size > 0) this.openTypes.clear()
  }

  private add(event: Exclude<ReplicationEvent, Begin | Commit>, record: FluvioRecord, open: Open): void {
    if (event.type === "relation") {
      this.describe(event.relation, record, open)
      return
    }
    if (open.isRepeat) return
    const { offset } = record
    switch (event.type) {
      case "insert": {
        const { tuple } = event
        const relation = this.relationOf(event.relId, offset, open)
        this.checkArity(relation, tuple, offset)
        open.add({ type: "insert", offset, relation, tuple })
        break
      }
      case "update": {
        const { keyTuple, newTuple, oldTuple } = event
        const relation = this.relationOf(event.relId, offset, open)
        this.checkArity(relation, oldTuple, offset)
        this.checkArity(relation, keyTuple, offset)
        this.checkArity(relation, newTuple, offset)
        if (!newTuple.isComplete && oldTuple === null && keyTuple === null) this.checkKey(relation, newTuple, offset)
        open.add({ type: "update", offset, relation, oldTuple, keyTuple, newTuple })
        break
      }
      case "delete": {
        const { keyTuple, oldTuple } = event
        const relation = this.relationOf(event.relId, offset, open)
        this.checkArity(relation, oldTuple, offset)
        this.checkArity(relation, keyTuple, offset)
        open.add({ type: "delete", offset, relation, oldTuple, keyTuple })
        break
      }
      case "truncate": {
        const { cascade, restartIdentity } = event
        const relations = event.relIds.map((relId) => this.relationOf(relId, offset, open))
        open.add({ type: "truncate", offset, relations, cascade, restartIdentity })
        break
      }
      case "type": {
        const { id, name, namespace } = event
        const known = this.openTypes.get(id) ?? this.types.get(id)
        if (known?.name === name && known.namespace === namespace) break
        this.openTypes.set(id, event)
        open.add({ type: "type", offset, id, namespace, name })
        break
      }
      case "origin":
        break
    }
  }

  /** The shape that counts for the open transaction. */
  private settled(relId: number): Relation | undefined {
    return (this.openRelations.size === 0 ? undefined : this.openRelations.get(relId)) ?? this.relations.get(relId)
  }

  private describe(relation: Relation, record: FluvioRecord, open: Open): void {
    const settled = this.settled(relation.id)
    // One object for one shape, so that rows need no comparison by content.
    const isSame = settled !== undefined && isSameRelation(settled, relation)
    this.shapes.set(relation.id, isSame ? settled : relation)
    if (!isSame && !open.isRepeat) this.announce(relation, record.offset, open)
  }

  private announce(relation: Relation, offset: Offset, open: Open): void {
    open.add({ type: "relation", offset, relation, previous: this.settled(relation.id) })
    this.openRelations.set(relation.id, relation)
  }

  /** The relation of a change; one whose shape was only described in a repeat or broken-off transaction is announced. */
  private relationOf(relId: number, offset: Offset, open: Open): Relation {
    const relation = this.shapes.get(relId)
    if (relation === undefined) throw new UnknownRelation({ offset, commitLsn: this.openLsn(), relId })
    if (relation !== this.settled(relId)) this.announce(relation, offset, open)
    return relation
  }

  /** PostgreSQL gives the changes of a transaction in the order of its log; several may share a place. */
  private checkOrder(record: FluvioRecord, open: Open): void {
    const walStart = walStartOf(record)
    if (walStart === 0) return
    if (walStart < open.walStart) {
      throw new RecordsRepeated({ offset: record.offset, commitLsn: this.openLsn() })
    }
    open.walStart = walStart
  }

  private checkArity(relation: Relation, tuple: Tuple | null, offset: Offset): void {
    if (tuple === null || tuple.length === relation.columns.length) return
    throw new WrongArity({
      offset,
      commitLsn: this.openLsn(),
      table: tableName(relation),
      columns: relation.columns.length,
      cells: tuple.length
    })
  }

  /** PostgreSQL sends the old key beside a new row whose own lacks a value, as one that is TOASTed and did not change. */
  private checkKey(relation: Relation, tuple: Tuple, offset: Offset): void {
    const index = relation.columns.findIndex(({ isKey }, n) => isKey && !tuple.isKnown(n))
    if (index === -1) return
    throw new EventDecodeError({
      offset,
      path: `message.new_tuple[${index}]`,
      relId: relation.id,
      commitLsn: this.openLsn(),
      table: tableName(relation),
      reason: "value left out",
      position: 0
    })
  }
}
