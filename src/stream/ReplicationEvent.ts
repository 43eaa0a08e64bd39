/** What a record means: the JSON of the inbound connector as a typed event. */
import { Schema } from "effect"
import type { FluvioRecord } from "./FluvioConsumer.ts"
import {
  CloseBrace,
  CloseBracket,
  JsonReader,
  JsonRefused,
  type Expected,
  key,
  OpenBrace,
  OpenBracket,
  Quote,
  refusals,
  string
} from "./JsonReader.ts"
import type { Lsn } from "./OffsetStore.ts"
import type { Relation, RelationColumn, ReplicaIdentity } from "./Relation.ts"
import { Arena, Tuple } from "./Tuple.ts"
import { isRetryable } from "./Outcome.ts"

export interface Begin {
  readonly type: "begin"
  /** LSN of the commit record: the identity of the transaction on its timeline. */
  readonly finalLsn: Lsn
  /** Commit time in microseconds since 2000-01-01 UTC. */
  readonly timestamp: bigint
  readonly xid: number
}

export interface Commit {
  readonly type: "commit"
  /** Equals the Begin's `finalLsn`. */
  readonly commitLsn: Lsn
  readonly endLsn: Lsn
  readonly timestamp: bigint
}

export interface Origin {
  readonly type: "origin"
  readonly commitLsn: Lsn
  readonly name: string
}

export interface RelationEvent {
  readonly type: "relation"
  readonly relation: Relation
}

/**
 * A type of the source that is not built in; for a domain, the names are those of the type underneath. PostgreSQL leaves
 * the namespace empty for `pg_catalog`, and the original inbound connector writes the type's name there.
 */
export interface TypeEvent {
  readonly type: "type"
  readonly id: number
  readonly namespace: string
  readonly name: string
}

export interface Insert {
  readonly type: "insert"
  readonly relId: number
  readonly tuple: Tuple
}

export interface Update {
  readonly type: "update"
  readonly relId: number
  /** The whole old row; only under REPLICA IDENTITY FULL. */
  readonly oldTuple: Tuple | null
  /** The old key, other cells `null`; only when the key changed (or was itself TOASTed). */
  readonly keyTuple: Tuple | null
  readonly newTuple: Tuple
}

export interface Delete {
  readonly type: "delete"
  readonly relId: number
  readonly oldTuple: Tuple | null
  readonly keyTuple: Tuple | null
}

export interface Truncate {
  readonly type: "truncate"
  readonly relIds: ReadonlyArray<number>
  readonly cascade: boolean
  readonly restartIdentity: boolean
}

export type ReplicationEvent = Begin | Commit | Origin | RelationEvent | TypeEvent | Insert | Update | Delete | Truncate

/**
 * What a JSON `null` in a float column becomes. The source writes it for NaN and both infinities, which cannot be
 * told apart: `halt` fails with {@link FloatNull}, `nan` applies NaN, `null` applies NULL.
 */
export type FloatNullPolicy = "halt" | "nan" | "null"

/** What is known of the place where decoding stopped. */
const facts = {
  offset: Schema.Natural,
  /** The field, as in `message.tuple[3]`. */
  path: Schema.String,
  /** The relation the event is about, as far as it had been read. */
  relId: Schema.UndefinedOr(Schema.Natural),
  /** The commit LSN of the transaction, in PostgreSQL's notation, and the table: both where the reader knows them. */
  commitLsn: Schema.UndefinedOr(Schema.String),
  table: Schema.UndefinedOr(Schema.String)
}

const describePlace = (error: {
  readonly offset: number
  readonly commitLsn: string | undefined
  readonly table: string | undefined
}): string =>
  `offset ${error.offset}` +
  (error.commitLsn === undefined ? "" : ` (transaction ${error.commitLsn})`) +
  (error.table === undefined ? "" : `, table ${error.table}`)

/** The record is not an event as the inbound connector writes them. It carries the place, never a value. */
export class EventDecodeError extends Schema.TaggedError<EventDecodeError>()("EventDecodeError", {
  ...facts,
  reason: Schema.Literals(refusals),
  /** The byte of the record at which reading stopped. */
  position: Schema.Natural
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy =
    "check that only the PostgreSQL inbound connector writes to this topic, and that no transform changes its records; set what is there already aside with `on-error.decode: quarantine`"
  override get message() {
    return `the event at ${describePlace(this)} cannot be read: ${this.reason} at ${this.path} (byte ${this.position})`
  }
}

/** A float column holds JSON `null`, which stands for NaN, infinity or -infinity: the source lost which. */
export class FloatNull extends Schema.TaggedError<FloatNull>()("FloatNull", facts) {
  readonly isRetryable = isRetryable(this)
  readonly remedy =
    "correct the row in the source and then set `float-null` to `nan` or `null` to say what such values become"
  override get message() {
    return `the event at ${describePlace(this)} lost a float value (NaN or an infinity) at ${this.path}`
  }
}

const keys = (...names: ReadonlyArray<string>): ReadonlyArray<Expected> => names.map(key)

/** The fields of each object in the order in which the inbound connector writes them. */
const eventKeys = keys("wal_start", "wal_end", "timestamp", "message")
const beginKeys = keys("type", "final_lsn", "timestamp", "xid")
const commitKeys = keys("type", "flags", "commit_lsn", "end_lsn", "timestamp")
const originKeys = keys("type", "commit_lsn", "name")
const relationKeys = keys("type", "rel_id", "namespace", "name", "replica_identity", "columns")
const columnKeys = keys("flags", "name", "type_id", "type_modifier")
const typeKeys = keys("type", "id", "namespace", "name")
const insertKeys = keys("type", "rel_id", "tuple")
const updateKeys = keys("type", "rel_id", "old_tuple", "key_tuple", "new_tuple")
const deleteKeys = keys("type", "rel_id", "old_tuple", "key_tuple")
const truncateKeys = keys("type", "options", "rel_ids")

/** The tag that a character of it lets expect: the first one, or for Int2, Int4 and Int8 the last. */
const tagByCharacter: Array<Expected | undefined> = Array.from({ length: 128 })
for (const tag of keys("Bool", "Char", "Float8", "Oid", "RawText", "String")) {
  tagByCharacter[tag.text.charCodeAt(0)] = tag
}
for (const tag of keys("Int2", "Int4", "Int8")) tagByCharacter[tag.text.charCodeAt(3)] = tag
const LetterI = 0x49

const maxUint32 = 2 ** 32 - 1
const minInt32 = -(2 ** 31)
const maxInt32 = 2 ** 31 - 1

/** The type of message that its first letter lets expect. */
const typeByLetter: Array<Expected | undefined> = Array.from({ length: 128 })
for (const type of ["begin", "insert", "update", "delete", "commit"].map(string)) {
  typeByLetter[type.text.charCodeAt(0)] = type
}

const { bytes: nullWord } = string("Null")
const notANumber = new TextEncoder().encode("NaN")

/** Enough for thousands of rows, little enough for the last of them to keep in memory. */
const arenaBytes = 262_144
const arenaCells = 16_384

/** Thrown by the reader where the policy for a float `null` is to halt. */
class FloatLost extends Error {}

/**
 * Reads an event in one pass. The inbound connector's order of fields is tried first, which is a matter of speed
 * only: any order, white space, and escapes in keys are read alike. Fields it does not know are passed over, so that
 * a later inbound connector may add some; messages and cells it does not know are refused, as they would be lost.
 */
class EventReader extends JsonReader {
  floatNull: FloatNullPolicy = "halt"
  /** The relation the current event is about, once that is read. */
  relId: number | undefined
  /** Where the cells go that are read. */
  arena = new Arena(arenaBytes, arenaCells)
  /** Whether the message's `type` has been passed. */
  private isTyped = false

  event(): ReplicationEvent {
    let hasStart = false
    let hasEnd = false
    let hasTimestamp = false
    let message: ReplicationEvent | undefined
    this.open(OpenBrace)
    for (let n = 0; this.another(n, CloseBrace); n++) {
      switch (this.key(eventKeys[n])) {
        case "wal_start":
          this.enter("wal_start", hasStart)
          this.skipUint64()
          hasStart = true
          break
        case "wal_end":
          this.enter("wal_end", hasEnd)
          this.skipUint64()
          hasEnd = true
          break
        case "timestamp":
          this.enter("timestamp", hasTimestamp)
          this.skipInt64()
          hasTimestamp = true
          break
        case "message":
          this.enter("message", message !== undefined)
          message = this.message()
          break
        default:
          this.skip()
      }
    }
    this.finish()
    if (!hasStart) this.missing("wal_start")
    if (!hasEnd) this.missing("wal_end")
    if (!hasTimestamp) this.missing("timestamp")
    return message ?? this.missing("message")
  }

  /** Notes which field is read now, and refuses to read it twice. */
  private enter(path: string, isRepeated: boolean): void {
    this.path = path
    if (isRepeated) this.refuse("duplicate field")
  }

  private missing(path: string): never {
    this.path = path
    return this.refuse("missing field")
  }

  private message(): ReplicationEvent {
    this.open(OpenBrace)
    const start = this.mark()
    this.isTyped = this.another(0, CloseBrace) && this.key(insertKeys[0]) === "type"
    if (!this.isTyped) this.rewind(start)
    const type = this.isTyped ? this.typeName() : this.laterType()
    if (!this.isTyped) this.rewind(start)
    // The first field to read: the one behind the type, or all of them when the type came later.
    const n = this.isTyped ? 1 : 0
    switch (type) {
      case "insert":
        return this.insert(n)
      case "update":
        return this.update(n)
      case "delete":
        return this.delete(n)
      case "begin":
        return this.begin(n)
      case "commit":
        return this.commit(n)
      case "relation":
        return this.relation(n)
      case "type":
        return this.type(n)
      case "origin":
        return this.origin(n)
      case "truncate":
        return this.truncate(n)
      default:
        this.path = "message.type"
        return this.refuse("unknown message type")
    }
  }

  private typeName(): string {
    this.path = "message.type"
    this.peek()
    const expected = typeByLetter[this.ahead(1)]
    return expected !== undefined && this.take(expected.bytes) ? expected.text : this.string()
  }

  /** Looks for the type behind the other fields. */
  private laterType(): string {
    for (let n = 0; this.another(n, CloseBrace); n++) {
      if (this.key(undefined) === "type") return this.typeName()
      this.skip()
    }
    return this.missing("message.type")
  }

  /** A field of a message that is none of its own: its type, or one from the future. */
  private other(name: string): void {
    if (name === "type") {
      this.enter("message.type", this.isTyped)
      this.isTyped = true
    }
    this.skip()
  }

  private begin(first: number): Begin {
    let finalLsn: Lsn | undefined
    let timestamp: bigint | undefined
    let xid: number | undefined
    for (let n = first; this.another(n, CloseBrace); n++) {
      const name = this.key(beginKeys[n])
      switch (name) {
        case "final_lsn":
          this.enter("message.final_lsn", finalLsn !== undefined)
          finalLsn = this.uint64() as Lsn
          break
        case "timestamp":
          this.enter("message.timestamp", timestamp !== undefined)
          timestamp = this.int64()
          break
        case "xid":
          this.enter("message.xid", xid !== undefined)
          xid = this.integer(0, maxUint32)
          break
        default:
          this.other(name)
      }
    }
    return {
      type: "begin",
      finalLsn: finalLsn ?? this.missing("message.final_lsn"),
      timestamp: timestamp ?? this.missing("message.timestamp"),
      xid: xid ?? this.missing("message.xid")
    }
  }

  private commit(first: number): Commit {
    let commitLsn: Lsn | undefined
    let endLsn: Lsn | undefined
    let timestamp: bigint | undefined
    for (let n = first; this.another(n, CloseBrace); n++) {
      const name = this.key(commitKeys[n])
      switch (name) {
        case "commit_lsn":
          this.enter("message.commit_lsn", commitLsn !== undefined)
          commitLsn = this.uint64() as Lsn
          break
        case "end_lsn":
          this.enter("message.end_lsn", endLsn !== undefined)
          endLsn = this.uint64() as Lsn
          break
        case "timestamp":
          this.enter("message.timestamp", timestamp !== undefined)
          timestamp = this.int64()
          break
        default:
          this.other(name)
      }
    }
    return {
      type: "commit",
      commitLsn: commitLsn ?? this.missing("message.commit_lsn"),
      endLsn: endLsn ?? this.missing("message.end_lsn"),
      timestamp: timestamp ?? this.missing("message.timestamp")
    }
  }

  private origin(first: number): Origin {
    let commitLsn: Lsn | undefined
    let originName: string | undefined
    for (let n = first; this.another(n, CloseBrace); n++) {
      const name = this.key(originKeys[n])
      switch (name) {
        case "commit_lsn":
          this.enter("message.commit_lsn", commitLsn !== undefined)
          commitLsn = this.uint64() as Lsn
          break
        case "name":
          this.enter("message.name", originName !== undefined)
          originName = this.string()
          break
        default:
          this.other(name)
      }
    }
    return {
      type: "origin",
      commitLsn: commitLsn ?? this.missing("message.commit_lsn"),
      name: originName ?? this.missing("message.name")
    }
  }

  private relation(first: number): RelationEvent {
    let id: number | undefined
    let namespace: string | undefined
    let relationName: string | undefined
    let replicaIdentity: ReplicaIdentity | undefined
    let columns: ReadonlyArray<RelationColumn> | undefined
    for (let n = first; this.another(n, CloseBrace); n++) {
      const name = this.key(relationKeys[n])
      switch (name) {
        case "rel_id":
          id = this.ownRelId(id)
          break
        case "namespace":
          this.enter("message.namespace", namespace !== undefined)
          namespace = this.string()
          break
        case "name":
          this.enter("message.name", relationName !== undefined)
          relationName = this.string()
          break
        case "replica_identity":
          this.enter("message.replica_identity", replicaIdentity !== undefined)
          replicaIdentity = this.replicaIdentity()
          break
        case "columns":
          this.enter("message.columns", columns !== undefined)
          columns = this.columns()
          break
        default:
          this.other(name)
      }
    }
    return {
      type: "relation",
      relation: {
        id: id ?? this.missing("message.rel_id"),
        namespace: namespace ?? this.missing("message.namespace"),
        name: relationName ?? this.missing("message.name"),
        replicaIdentity: replicaIdentity ?? this.missing("message.replica_identity"),
        columns: columns ?? this.missing("message.columns")
      }
    }
  }

  private replicaIdentity(): ReplicaIdentity {
    const name = this.string()
    switch (name) {
      case "Default":
      case "Nothing":
      case "Full":
      case "Index":
        return name
      default:
        return this.refuse("unexpected value")
    }
  }

  private columns(): ReadonlyArray<RelationColumn> {
    const columns: Array<RelationColumn> = []
    this.open(OpenBracket)
    for (let n = 0; this.another(n, CloseBracket); n++) columns.push(this.column(`message.columns[${n}]`))
    return columns
  }

  private column(path: string): RelationColumn {
    let flags: number | undefined
    let columnName: string | undefined
    let typeId: number | undefined
    let typeModifier: number | undefined
    this.path = path
    this.open(OpenBrace)
    for (let n = 0; this.another(n, CloseBrace); n++) {
      switch (this.key(columnKeys[n])) {
        case "flags":
          this.enter(`${path}.flags`, flags !== undefined)
          flags = this.integer(-128, 127)
          break
        case "name":
          this.enter(`${path}.name`, columnName !== undefined)
          columnName = this.string()
          break
        case "type_id":
          this.enter(`${path}.type_id`, typeId !== undefined)
          // The inbound connector keeps this OID, an unsigned number, in a signed one.
          typeId = this.integer(minInt32, maxUint32) >>> 0
          break
        case "type_modifier":
          this.enter(`${path}.type_modifier`, typeModifier !== undefined)
          typeModifier = this.integer(minInt32, maxInt32)
          break
        default:
          this.skip()
      }
    }
    return {
      name: columnName ?? this.missing(`${path}.name`),
      isKey: ((flags ?? this.missing(`${path}.flags`)) & 1) === 1,
      typeId: typeId ?? this.missing(`${path}.type_id`),
      typeModifier: typeModifier ?? this.missing(`${path}.type_modifier`)
    }
  }

  private type(first: number): TypeEvent {
    let id: number | undefined
    let namespace: string | undefined
    let typeName: string | undefined
    for (let n = first; this.another(n, CloseBrace); n++) {
      const name = this.key(typeKeys[n])
      switch (name) {
        case "id":
          this.enter("message.id", id !== undefined)
          id = this.integer(0, maxUint32)
          break
        case "namespace":
          this.enter("message.namespace", namespace !== undefined)
          namespace = this.string()
          break
        case "name":
          this.enter("message.name", typeName !== undefined)
          typeName = this.string()
          break
        default:
          this.other(name)
      }
    }
    return {
      type: "type",
      id: id ?? this.missing("message.id"),
      namespace: namespace ?? this.missing("message.namespace"),
      name: typeName ?? this.missing("message.name")
    }
  }

  private insert(first: number): Insert {
    let relId: number | undefined
    let tuple: Tuple | undefined
    for (let n = first; this.another(n, CloseBrace); n++) {
      const name = this.key(insertKeys[n])
      switch (name) {
        case "rel_id":
          relId = this.ownRelId(relId)
          break
        case "tuple":
          this.enter("message.tuple", tuple !== undefined)
          tuple = this.tuple(false)
          break
        default:
          this.other(name)
      }
    }
    return {
      type: "insert",
      relId: relId ?? this.missing("message.rel_id"),
      tuple: tuple ?? this.missing("message.tuple")
    }
  }

  private update(first: number): Update {
    let relId: number | undefined
    let oldTuple: Tuple | null | undefined
    let keyTuple: Tuple | null | undefined
    let newTuple: Tuple | undefined
    for (let n = first; this.another(n, CloseBrace); n++) {
      const name = this.key(updateKeys[n])
      switch (name) {
        case "rel_id":
          relId = this.ownRelId(relId)
          break
        case "old_tuple":
          this.enter("message.old_tuple", oldTuple !== undefined)
          oldTuple = this.null() ? null : this.tuple(false)
          break
        case "key_tuple":
          this.enter("message.key_tuple", keyTuple !== undefined)
          keyTuple = this.null() ? null : this.tuple(false)
          break
        case "new_tuple":
          this.enter("message.new_tuple", newTuple !== undefined)
          newTuple = this.tuple(true)
          break
        default:
          this.other(name)
      }
    }
    return {
      type: "update",
      relId: relId ?? this.missing("message.rel_id"),
      oldTuple: oldTuple ?? null,
      keyTuple: keyTuple ?? null,
      newTuple: newTuple ?? this.missing("message.new_tuple")
    }
  }

  private delete(first: number): Delete {
    let relId: number | undefined
    let oldTuple: Tuple | null | undefined
    let keyTuple: Tuple | null | undefined
    for (let n = first; this.another(n, CloseBrace); n++) {
      const name = this.key(deleteKeys[n])
      switch (name) {
        case "rel_id":
          relId = this.ownRelId(relId)
          break
        case "old_tuple":
          this.enter("message.old_tuple", oldTuple !== undefined)
          oldTuple = this.null() ? null : this.tuple(false)
          break
        case "key_tuple":
          this.enter("message.key_tuple", keyTuple !== undefined)
          keyTuple = this.null() ? null : this.tuple(false)
          break
        default:
          this.other(name)
      }
    }
    return {
      type: "delete",
      relId: relId ?? this.missing("message.rel_id"),
      oldTuple: oldTuple ?? null,
      keyTuple: keyTuple ?? null
    }
  }

  private truncate(first: number): Truncate {
    let options: number | undefined
    let relIds: Array<number> | undefined
    for (let n = first; this.another(n, CloseBrace); n++) {
      const name = this.key(truncateKeys[n])
      switch (name) {
        case "options":
          this.enter("message.options", options !== undefined)
          options = this.integer(-128, 127)
          break
        case "rel_ids":
          this.enter("message.rel_ids", relIds !== undefined)
          relIds = []
          this.open(OpenBracket)
          for (let i = 0; this.another(i, CloseBracket); i++) relIds.push(this.integer(0, maxUint32))
          break
        default:
          this.other(name)
      }
    }
    const bits = options ?? this.missing("message.options")
    return {
      type: "truncate",
      relIds: relIds ?? this.missing("message.rel_ids"),
      cascade: (bits & 1) !== 0,
      restartIdentity: (bits & 2) !== 0
    }
  }

  private ownRelId(known: number | undefined): number {
    this.enter("message.rel_id", known !== undefined)
    return (this.relId = this.integer(0, maxUint32))
  }

  /** Only a new row may leave out values: PostgreSQL sends what is unchanged and stored apart (TOASTed) just once. */
  private tuple(mayLeaveOut: boolean): Tuple {
    const { arena } = this
    const first = arena.count
    let isComplete = true
    this.open(OpenBracket)
    for (let n = 0; this.another(n, CloseBracket); n++) {
      this.index = n
      if (this.peek() === Quote) {
        const isNull = this.takeNull()
        if (!isNull && !mayLeaveOut) this.refuse("value left out")
        isComplete &&= isNull
        if (isNull) arena.addNull()
        else arena.addUnchanged()
      } else this.cell(arena)
    }
    this.index = -1
    arena.endRow()
    return new Tuple(arena, first, arena.count - first, isComplete)
  }

  /** A cell without text: whether it is NULL, and otherwise unchanged. */
  private takeNull(): boolean {
    if (this.take(nullWord)) return true
    const name = this.string()
    return name === "Null" || (name !== "UnchangedToast" && this.refuse("unknown cell tag"))
  }

  private cell(arena: Arena): void {
    const start = arena.length
    this.open(OpenBrace)
    const first = this.ahead(1)
    const isNull = this.taggedCell(this.key(tagByCharacter[first === LetterI ? this.ahead(4) : first]), arena)
    if (this.another(1, CloseBrace)) this.refuse("unexpected value")
    if (isNull) arena.addNull()
    else arena.addText(start)
  }

  /** Copies a cell's text to the arena; returns whether it is NULL instead. */
  private taggedCell(tag: string, arena: Arena): boolean {
    switch (tag) {
      case "String":
        this.appendString(arena)
        return false
      case "RawText":
        this.appendByteText(arena)
        return false
      case "Int4":
        this.appendInteger(minInt32, maxInt32, arena)
        return false
      case "Int8":
        this.appendInt64(arena)
        return false
      case "Int2":
        this.appendInteger(-32768, 32767, arena)
        return false
      case "Bool":
        this.appendBoolean(arena)
        return false
      case "Float8":
      case "Float4":
        return this.float(arena)
      case "Oid":
        this.appendInteger(0, maxUint32, arena)
        return false
      case "Char":
        // The inbound connector parses the column's text as a number: the number is the text.
        this.appendInteger(-128, 127, arena)
        return false
      default:
        return this.refuse("unknown cell tag")
    }
  }

  private float(arena: Arena): boolean {
    if (!this.null()) {
      this.appendNumber(arena)
      return false
    }
    if (this.floatNull === "halt") throw new FloatLost()
    if (this.floatNull === "null") return true
    arena.bytes.set(notANumber, arena.length)
    arena.length += notANumber.length
    return false
  }
}

const reader = new EventReader()

/**
 * The event of a record. Nothing of it is rounded or repaired: numbers keep their source text (within the range of
 * their type), text its every character, also U+0000, which PostgreSQL then refuses (SQLSTATE 22021) like any value
 * it cannot hold. How many cells a tuple must have is not known here.
 *
 * Synchronous, in linear time and bounded depth. Throws {@link EventDecodeError} or {@link FloatNull}, nothing else.
 */
export const decode = (record: FluvioRecord, options: { readonly floatNull: FloatNullPolicy }): ReplicationEvent => {
  reader.floatNull = options.floatNull
  reader.relId = undefined
  try {
    const { bytes, end, size, start } = record
    const { arena } = reader
    // The text of cells never takes more bytes than the record they are read from.
    if (arena.length + size > arena.bytes.length || arena.count >= arenaCells) {
      reader.arena = new Arena(Math.max(arenaBytes, size), arenaCells)
    }
    reader.load(bytes, start, end)
    return reader.event()
  } catch (error) {
    const place = { offset: record.offset, relId: reader.relId, commitLsn: undefined, table: undefined }
    if (error instanceof JsonRefused) {
      throw new EventDecodeError({ ...place, path: error.path, reason: error.reason, position: error.position })
    }
    if (error instanceof FloatLost) throw new FloatNull({ ...place, path: reader.where() })
    throw error
  } finally {
    reader.release()
  }
}
