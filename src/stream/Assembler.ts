/** From events to whole source transactions. */
import { Option, Schema } from "effect"
import type { Change, End, Piece } from "./Change.ts"
import type { FluvioRecord, Offset, Records } from "./FluvioConsumer.ts"
import {
  type Described,
  formatLsn,
  type Lsn,
  type Position,
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
  CommitWithoutBegin,
  isUnreadable,
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
  readonly isDuplicate: boolean
  private changes: Array<Change> = []
  private records = 0
  private isFirst = true
  private bytes = 0
  private first: Offset | undefined
  private last: FluvioRecord | undefined
  refusal: Unreadable | undefined
  /** The place in the source's log of the last change. */
  walStart = 0

  constructor(begin: Begin | undefined, isDuplicate: boolean) {
    this.begin = begin
    this.isDuplicate = isDuplicate
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

  /** Gives away what is held of a transaction that cannot be read, up to the last record of it. */
  takeRefused(commitLsn: Lsn | undefined, commitTime: bigint | undefined): Piece {
    return this.take({ record: this.last!, commitLsn, commitTime })
  }

  /** Gives away what is held; there is at least one record. */
  take(end: End | undefined): Piece {
    const piece: Piece = {
      isFirst: this.isFirst,
      first: this.first!,
      xid: this.begin?.xid,
      changes: this.changes,
      bytes: this.bytes,
      records: this.records,
      end,
      isDuplicate: this.isDuplicate,
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

const isSameRelation = Schema.toEquivalence(Relation)

const tableName = (relation: Relation): string => `${relation.namespace}.${relation.name}`

export interface AssemblerOptions {
  readonly position: Option.Option<Position>
  /** The relations and types as of the position. */
  readonly described: Described
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
  /** The offset of a Begin whose lower LSN is accepted: the operator says that the source was rewound before it. */
  readonly acceptEpoch: Offset | undefined
}

/**
 * Puts source transactions together.
 *
 * Every record that is pushed is accounted for by exactly one piece, or belongs to a transaction that the source broke
 * off, or lies before the take-over. Rows are never compared with one another: what is dropped as a duplicate is a
 * whole transaction, known by its commit LSN and time. A change of a relation's shape is a {@link RelationChange}
 * before the first row that has it, measured against what was *applied*: shapes that only a broken-off transaction
 * had do not count.
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
  private commitLsn: Lsn | undefined
  private commitTime: bigint | undefined
  private open: Open | undefined
  /** Whether the next record is known to be inside or outside of a transaction. */
  private isOriented: boolean
  /** Whether the operator's new epoch has begun; until a transaction of it is complete, it may begin again. */
  private isNewEpoch = false
  /** What the last {@link push} completed; when it threw, what it had completed before. */
  completed: ReadonlyArray<Piece> = []

  constructor(options: AssemblerOptions) {
    this.options = options
    this.isOriented = options.appliedThrough === undefined
    for (const { relation } of options.described.relations) {
      this.shapes.set(relation.id, relation)
      this.relations.set(relation.id, relation)
    }
    for (const type of options.described.types) this.types.set(type.id, type)
    const position = Option.getOrUndefined(options.position)
    this.commitLsn = position?.commitLsn
    this.commitTime = position?.commitTime
  }

  /**
   * What the records up to `appliedThrough` taught: relations and types that count as applied, cause no change and are
   * not stored yet. Complete as soon as a record behind it was pushed; empty without a take-over.
   */
  get learned(): Described {
    return { relations: [...this.learnedRelations.values()], types: [...this.learnedTypes.values()] }
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
    if (appliedThrough !== undefined && record.offset <= appliedThrough) {
      this.learn(this.read(record, "null"), record)
      return
    }
    try {
      this.assemble(record, pieces)
    } catch (error) {
      if (this.options.onUnreadable === "halt" || !isUnreadable(error)) throw error
      // Without a transaction around it, the record may have been the Begin of one: what follows belongs to it.
      this.open ??= new Open(undefined, false)
      if (!this.open.isDuplicate) this.refuse(error, record, this.open)
      this.open.count(record)
    }
  }

  private assemble(record: FluvioRecord, pieces: Array<Piece>): void {
    // The rows of a duplicate are not applied, so that no policy is asked about them.
    const event = this.read(record, this.open?.isDuplicate === true ? "null" : this.options.floatNull)
    if (event.type === "begin") {
      this.isOriented = true
      // The unreadable record may have been the Commit: what is held is given away before the next one begins. But a
      // source that goes back has broken it off, and sends it again.
      if (this.open?.refusal !== undefined && !(event.finalLsn <= (this.open.begin?.finalLsn ?? -1n))) {
        pieces.push(this.abandon(this.open, undefined))
      }
      this.begin(event, record)
      return
    }
    if (event.type === "commit" && this.open?.refusal !== undefined) {
      this.open.count(record)
      pieces.push(this.abandon(this.open, event))
      return
    }
    if (!this.isOriented) {
      if (record.offset > 0) throw new BeginMissing({ offset: record.offset })
      this.isOriented = true
    }
    if (event.type === "commit") {
      pieces.push(this.commit(event, record))
      return
    }
    if (this.open === undefined) {
      const alone = new Open(undefined, false)
      if (this.commitLsn !== undefined) alone.walStart = Number(this.commitLsn)
      this.checkOrder(record, alone)
      this.add(event, record, alone)
      alone.count(record)
      this.settle()
      pieces.push(alone.take({ record, commitLsn: undefined, commitTime: undefined }))
      return
    }
    this.checkOrder(record, this.open)
    if (this.open.isFull(record, this.options.maxBytes)) pieces.push(this.open.take(undefined))
    this.add(event, record, this.open)
    this.open.count(record)
  }

  /** Of a change that cannot be read it may be known which table it is of: then nothing else may be assumed of its rows. */
  private refuse(error: Unreadable, { offset }: FluvioRecord, open: Open): void {
    open.refusal ??= error
    const isOf = (relation: Relation): boolean =>
      error instanceof WrongArity ? tableName(relation) === error.table : relation.id === error.relId
    const relation = [...this.shapes.values()].find(isOf)
    if (relation !== undefined) open.add({ type: "relation", offset, relation, previous: undefined })
  }

  /** Ends a transaction that cannot be read. What it said of shapes does not count. */
  private abandon(open: Open, commit: Commit | undefined): Piece {
    const begin = open.begin ?? (commit && { finalLsn: commit.commitLsn, timestamp: commit.timestamp })
    // Without its Begin, it shows only now that it is a repetition.
    if (begin !== undefined && !this.isRepeated(begin)) this.advance(begin)
    this.forgetOpen()
    this.open = undefined
    return open.takeRefused(this.commitLsn, this.commitTime)
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
      case "begin":
        this.open = new Open(event, this.isRepeated(event))
        break
      case "commit":
        if (this.open?.begin !== undefined && !this.open.isDuplicate) this.advance(this.open.begin)
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

  private isRepeated(begin: Pick<Begin, "finalLsn" | "timestamp">): boolean {
    return (
      this.commitLsn !== undefined &&
      this.commitTime !== undefined &&
      begin.finalLsn <= this.commitLsn &&
      begin.timestamp <= this.commitTime
    )
  }

  private begin(event: Begin, record: FluvioRecord): void {
    this.isNewEpoch ||= record.offset === this.options.acceptEpoch
    const isDuplicate = !this.isNewEpoch && this.isRepeated(event)
    const isBefore = this.commitLsn !== undefined && event.finalLsn <= this.commitLsn
    if (isBefore && !isDuplicate && !this.isNewEpoch) {
      throw new SourceRewound({
        offset: record.offset,
        commitLsn: formatLsn(event.finalLsn),
        applied: formatLsn(this.commitLsn!)
      })
    }
    // A transaction that is still open was broken off, and with it what it said of shapes.
    this.forgetOpen()
    this.open = new Open(event, isDuplicate)
    this.open.count(record)
  }

  private commit(event: Commit, record: FluvioRecord): Piece {
    const { open } = this
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
    if (!open.isDuplicate) this.advance(begin)
    this.settle()
    this.open = undefined
    open.count(record)
    return open.take({ record, commitLsn: this.commitLsn, commitTime: this.commitTime })
  }

  private advance(begin: Pick<Begin, "finalLsn" | "timestamp">): void {
    this.isNewEpoch = false
    this.commitLsn = begin.finalLsn
    if (this.commitTime === undefined || this.commitTime < begin.timestamp) this.commitTime = begin.timestamp
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
    if (open.isDuplicate) return
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
    if (!isSame && !open.isDuplicate) this.announce(relation, record.offset, open)
  }

  private announce(relation: Relation, offset: Offset, open: Open): void {
    open.add({ type: "relation", offset, relation, previous: this.settled(relation.id) })
    this.openRelations.set(relation.id, relation)
  }

  /** The relation of a change; one whose shape was only described in a duplicate or broken-off transaction is announced. */
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
}
