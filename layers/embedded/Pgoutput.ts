/** The messages of PostgreSQL's logical replication output plug-in `pgoutput`, protocol version 1, as bytes say them. */

/** A column's value in PostgreSQL's text format; `null` is SQL NULL, `undefined` is an unchanged TOASTed value. */
export type Cell = Buffer | null | undefined
export type Tuple = ReadonlyArray<Cell>

export interface Begin {
  readonly type: "begin"
  readonly finalLsn: bigint
  /** Microseconds since 2000-01-01 UTC, as all times here. */
  readonly timestamp: bigint
  readonly xid: number
}

export interface Commit {
  readonly type: "commit"
  readonly flags: number
  readonly commitLsn: bigint
  readonly endLsn: bigint
  readonly timestamp: bigint
}

export interface Origin {
  readonly type: "origin"
  readonly commitLsn: bigint
  readonly name: string
}

export const replicaIdentities = { d: "Default", n: "Nothing", f: "Full", i: "Index" } as const

export interface Column {
  /** 1 when the column is part of the replica identity, else 0. */
  readonly flags: number
  readonly name: string
  readonly typeId: number
  readonly typeModifier: number
}

export interface Relation {
  readonly type: "relation"
  readonly id: number
  /** Empty for `pg_catalog`. */
  readonly namespace: string
  readonly name: string
  readonly replicaIdentity: (typeof replicaIdentities)[keyof typeof replicaIdentities]
  readonly columns: ReadonlyArray<Column>
}

export interface Type {
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
  readonly oldTuple: Tuple | null
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
  /** A bit mask: 1 is CASCADE, 2 is RESTART IDENTITY. */
  readonly options: number
  readonly relIds: ReadonlyArray<number>
}

export type Message = Begin | Commit | Origin | Relation | Type | Insert | Update | Delete | Truncate

/** Thrown when bytes are not a message of this protocol version. It names the place, never the content. */
export class PgoutputRefused extends Error {}

const letter = (text: string) => text.charCodeAt(0)
const BeginTag = letter("B")
const CommitTag = letter("C")
const OriginTag = letter("O")
const RelationTag = letter("R")
const TypeTag = letter("Y")
const InsertTag = letter("I")
const UpdateTag = letter("U")
const DeleteTag = letter("D")
const TruncateTag = letter("T")
const NewTuple = letter("N")
const OldTuple = letter("O")
const KeyTuple = letter("K")
const NullCell = letter("n")
const UnchangedCell = letter("u")
const TextCell = letter("t")

/** Reads a message from its first byte to its last; reading beyond the end throws a `RangeError`. */
class Cursor {
  private readonly bytes: Buffer
  private offset: number

  constructor(bytes: Buffer, offset: number) {
    this.bytes = bytes
    this.offset = offset
  }

  uint8(): number {
    return this.bytes.readUInt8(this.offset++)
  }

  int8(): number {
    return this.bytes.readInt8(this.offset++)
  }

  uint16(): number {
    this.offset += 2
    return this.bytes.readUInt16BE(this.offset - 2)
  }

  int32(): number {
    this.offset += 4
    return this.bytes.readInt32BE(this.offset - 4)
  }

  uint32(): number {
    this.offset += 4
    return this.bytes.readUInt32BE(this.offset - 4)
  }

  int64(): bigint {
    this.offset += 8
    return this.bytes.readBigInt64BE(this.offset - 8)
  }

  uint64(): bigint {
    this.offset += 8
    return this.bytes.readBigUInt64BE(this.offset - 8)
  }

  text(): string {
    const start = this.offset
    const end = this.bytes.indexOf(0, start)
    if (end === -1) throw new PgoutputRefused(`a text at byte ${start} does not end`)
    this.offset = end + 1
    return this.bytes.toString("utf8", start, end)
  }

  tuple(): Tuple {
    const count = this.uint16()
    const cells: Array<Cell> = []
    for (let index = 0; index < count; index++) {
      const kind = this.uint8()
      if (kind === TextCell) {
        const start = this.offset + 4
        const end = start + this.uint32()
        if (end > this.bytes.length) throw new PgoutputRefused(`a cell at byte ${start} does not end`)
        this.offset = end
        cells.push(this.bytes.subarray(start, end))
      } else if (kind === NullCell) cells.push(null)
      else if (kind === UnchangedCell) cells.push(undefined)
      else throw new PgoutputRefused(`unknown kind of cell ${kind} at byte ${this.offset - 1}`)
    }
    return cells
  }

  columns(): ReadonlyArray<Column> {
    return Array.from({ length: this.uint16() }, () => ({
      flags: this.int8(),
      name: this.text(),
      typeId: this.uint32(),
      typeModifier: this.int32()
    }))
  }

  replicaIdentity(): Relation["replicaIdentity"] {
    const setting = String.fromCharCode(this.uint8())
    if (setting in replicaIdentities) return replicaIdentities[setting as keyof typeof replicaIdentities]
    throw new PgoutputRefused(`unknown replica identity at byte ${this.offset - 1}`)
  }

  expect(tag: number): this {
    const found = this.uint8()
    if (found !== tag) throw new PgoutputRefused(`byte ${found} instead of ${tag} at byte ${this.offset - 1}`)
    return this
  }

  /** The old image of a row, if one stands here. */
  oldImage(): Pick<Update, "oldTuple" | "keyTuple"> {
    const tag = this.bytes[this.offset]
    if (tag !== OldTuple && tag !== KeyTuple) return { oldTuple: null, keyTuple: null }
    this.offset++
    const tuple = this.tuple()
    return tag === OldTuple ? { oldTuple: tuple, keyTuple: null } : { oldTuple: null, keyTuple: tuple }
  }
}

/**
 * Decodes the message that begins at `offset` and ends with the bytes. Cells are views of `bytes`: whoever keeps them
 * longer than the bytes are left alone must copy them. Throws {@link PgoutputRefused} or a `RangeError`.
 */
export const decode = (bytes: Buffer, offset = 0): Message => {
  const cursor = new Cursor(bytes, offset)
  const tag = cursor.uint8()
  switch (tag) {
    case InsertTag:
      return { type: "insert", relId: cursor.uint32(), tuple: cursor.expect(NewTuple).tuple() }
    case UpdateTag: {
      const relId = cursor.uint32()
      const { oldTuple, keyTuple } = cursor.oldImage()
      return { type: "update", relId, oldTuple, keyTuple, newTuple: cursor.expect(NewTuple).tuple() }
    }
    case DeleteTag: {
      const relId = cursor.uint32()
      const { oldTuple, keyTuple } = cursor.oldImage()
      if (oldTuple === null && keyTuple === null) throw new PgoutputRefused("a delete without the row's old image")
      return { type: "delete", relId, oldTuple, keyTuple }
    }
    case BeginTag:
      return { type: "begin", finalLsn: cursor.uint64(), timestamp: cursor.int64(), xid: cursor.uint32() }
    case CommitTag:
      return {
        type: "commit",
        flags: cursor.int8(),
        commitLsn: cursor.uint64(),
        endLsn: cursor.uint64(),
        timestamp: cursor.int64()
      }
    case OriginTag:
      return { type: "origin", commitLsn: cursor.uint64(), name: cursor.text() }
    case RelationTag:
      return {
        type: "relation",
        id: cursor.uint32(),
        namespace: cursor.text(),
        name: cursor.text(),
        replicaIdentity: cursor.replicaIdentity(),
        columns: cursor.columns()
      }
    case TypeTag:
      return { type: "type", id: cursor.uint32(), namespace: cursor.text(), name: cursor.text() }
    case TruncateTag: {
      const count = cursor.uint32()
      return { type: "truncate", options: cursor.int8(), relIds: Array.from({ length: count }, () => cursor.uint32()) }
    }
    default:
      throw new PgoutputRefused(`unknown message ${tag}`)
  }
}
