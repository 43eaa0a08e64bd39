/**
 * Replication messages as the JSON that the original inbound connector writes into the topic.
 *
 * The text is built by hand: 64-bit numbers stay exact, and fields stand in the original's order. Four things differ
 * from the original, each within its shape, because it loses data there:
 *
 * - A boolean arrives as `t` or `f`, which the original cannot parse; it drops the row. Here it is `Bool`.
 * - A `"char"` that is not a number, and any type that is not built in (enum, domain, composite, extension), make the
 *   original drop the row. Here they are `RawText`.
 * - `NaN` and the infinities become `null` there, which its own reader refuses. Here they are `RawText`.
 * - The namespace of a type is filled with its name there. Here it is the namespace.
 */
import { isUtf8 } from "node:buffer"
import type { Cell, Message, Relation, Tuple } from "./Pgoutput.ts"

export interface Event {
  readonly walStart: bigint
  readonly walEnd: bigint
  /** When the source sent it, in microseconds since 2000-01-01 UTC. */
  readonly timestamp: bigint
  readonly message: Message
}

/** The relations of a session by id: rows mean nothing without. */
export type Relations = ReadonlyMap<number, Relation>

/** A row came for a relation that was not described, or with another number of columns. */
export class RowRefused extends Error {}

/** OIDs of PostgreSQL's built-in types that have a cell of their own; they are the same in every installation. */
const typeIds = {
  bool: 16,
  char: 18,
  name: 19,
  int8: 20,
  int2: 21,
  int4: 23,
  text: 25,
  oid: 26,
  float4: 700,
  float8: 701,
  unknown: 705,
  bpchar: 1042,
  varchar: 1043
} as const

/** Each byte as a JSON number; the array of numbers is the hot path of every type without a cell of its own. */
const byteTexts = Array.from({ length: 256 }, (_, byte) => String(byte))

const rawText = (bytes: Buffer): string => {
  let list = ""
  for (let index = 0; index < bytes.length; index++) {
    if (index > 0) list += ","
    list += byteTexts[bytes[index]!]!
  }
  return `{"RawText":[${list}]}`
}

const ascii = (bytes: Buffer): string => bytes.toString("latin1")

/** A string cell; bytes that are not UTF-8 (from a database in SQL_ASCII) are kept as they are. */
const text = (bytes: Buffer): string => {
  const value = bytes.toString("utf8")
  if (value.includes("\uFFFD") && !isUtf8(bytes)) return rawText(bytes)
  return `{"String":${JSON.stringify(value)}}`
}

/** From how many digits before the point, and up to how many zeros behind it, Rust changes to an exponent. */
const layouts = { Float4: { whole: 13, zeros: 5 }, Float8: { whole: 16, zeros: 4 } } as const

/**
 * PostgreSQL's shortest exact digits in the layout of Rust's `serde_json`: `1.0`, `0.00001`, `1e16`, `-0.0`. No digit
 * is computed, so no value changes.
 */
const float = (tag: keyof typeof layouts, bytes: Buffer): string => {
  const parts = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(ascii(bytes))
  if (parts === null) return rawText(bytes)
  const [, sign = "", whole = "", fraction = "", exponent = "0"] = parts
  const all = whole + fraction
  const leading = /^0*/.exec(all)![0].length
  const digits = all.slice(leading).replace(/0+$/, "")
  if (digits === "") return `{"${tag}":${sign}0.0}`
  /** Where the point stands, counted from the first digit. */
  const point = whole.length - leading + Number(exponent)
  const layout = layouts[tag]
  let number: string
  if (point > layout.whole || point <= -layout.zeros - 1) {
    number = `${digits[0]}${digits.length > 1 ? `.${digits.slice(1)}` : ""}e${point - 1}`
  } else if (point <= 0) number = `0.${"0".repeat(-point)}${digits}`
  else if (point >= digits.length) number = `${digits}${"0".repeat(point - digits.length)}.0`
  else number = `${digits.slice(0, point)}.${digits.slice(point)}`
  return `{"${tag}":${sign}${number}}`
}

/** `"char"` has one byte; only a digit parses as the number that the original expects. */
const char = (bytes: Buffer): string => {
  const [byte] = bytes
  return bytes.length === 1 && byte! >= 0x30 && byte! <= 0x39 ? `{"Char":${byte! - 0x30}}` : rawText(bytes)
}

const encodeCell = (typeId: number, cell: Cell): string => {
  if (cell === null) return '"Null"'
  if (cell === undefined) return '"UnchangedToast"'
  switch (typeId) {
    case typeIds.int4:
      return `{"Int4":${ascii(cell)}}`
    case typeIds.int8:
      return `{"Int8":${ascii(cell)}}`
    case typeIds.text:
    case typeIds.varchar:
    case typeIds.bpchar:
    case typeIds.name:
    case typeIds.unknown:
      return text(cell)
    case typeIds.bool:
      return cell[0] === 0x74 ? '{"Bool":true}' : '{"Bool":false}'
    case typeIds.int2:
      return `{"Int2":${ascii(cell)}}`
    case typeIds.float8:
      return float("Float8", cell)
    case typeIds.float4:
      return float("Float4", cell)
    case typeIds.oid:
      return `{"Oid":${ascii(cell)}}`
    case typeIds.char:
      return char(cell)
    default:
      return rawText(cell)
  }
}

const encodeTuple = ({ id, columns }: Relation, tuple: Tuple): string => {
  if (tuple.length !== columns.length) {
    throw new RowRefused(`relation ${id} has ${columns.length} columns, a row of it has ${tuple.length}`)
  }
  let list = ""
  for (let index = 0; index < tuple.length; index++) {
    if (index > 0) list += ","
    list += encodeCell(columns[index]!.typeId, tuple[index])
  }
  return `[${list}]`
}

const encodeOptional = (relation: Relation, tuple: Tuple | null): string =>
  tuple === null ? "null" : encodeTuple(relation, tuple)

const relationOf = (relations: Relations, id: number): Relation => {
  const relation = relations.get(id)
  if (relation === undefined) throw new RowRefused(`a row came for the unknown relation ${id}`)
  return relation
}

/** The original's field is a signed 32-bit number, although OIDs are not signed. */
const signed = (oid: number): number => oid | 0

const encodeRelation = ({ id, namespace, name, replicaIdentity, columns }: Relation): string => {
  const list = columns.map(
    (column) =>
      `{"flags":${column.flags},"name":${JSON.stringify(column.name)},"type_id":${signed(column.typeId)},"type_modifier":${column.typeModifier}}`
  )
  return `{"type":"relation","rel_id":${id},"namespace":${JSON.stringify(namespace)},"name":${JSON.stringify(name)},"replica_identity":"${replicaIdentity}","columns":[${list.join(",")}]}`
}

const encodeMessage = (message: Message, relations: Relations): string => {
  switch (message.type) {
    case "insert": {
      const { relId, tuple } = message
      return `{"type":"insert","rel_id":${relId},"tuple":${encodeTuple(relationOf(relations, relId), tuple)}}`
    }
    case "update": {
      const relation = relationOf(relations, message.relId)
      const oldTuple = encodeOptional(relation, message.oldTuple)
      const keyTuple = encodeOptional(relation, message.keyTuple)
      const newTuple = encodeTuple(relation, message.newTuple)
      return `{"type":"update","rel_id":${message.relId},"old_tuple":${oldTuple},"key_tuple":${keyTuple},"new_tuple":${newTuple}}`
    }
    case "delete": {
      const relation = relationOf(relations, message.relId)
      const oldTuple = encodeOptional(relation, message.oldTuple)
      const keyTuple = encodeOptional(relation, message.keyTuple)
      return `{"type":"delete","rel_id":${message.relId},"old_tuple":${oldTuple},"key_tuple":${keyTuple}}`
    }
    case "begin":
      return `{"type":"begin","final_lsn":${message.finalLsn},"timestamp":${message.timestamp},"xid":${message.xid}}`
    case "commit":
      return `{"type":"commit","flags":${message.flags},"commit_lsn":${message.commitLsn},"end_lsn":${message.endLsn},"timestamp":${message.timestamp}}`
    case "origin":
      return `{"type":"origin","commit_lsn":${message.commitLsn},"name":${JSON.stringify(message.name)}}`
    case "relation":
      return encodeRelation(message)
    case "type": {
      const { id, namespace, name } = message
      return `{"type":"type","id":${id},"namespace":${JSON.stringify(namespace)},"name":${JSON.stringify(name)}}`
    }
    case "truncate":
      return `{"type":"truncate","options":${message.options},"rel_ids":[${message.relIds.join(",")}]}`
  }
}

/**
 * One record's value. A row is read by the relation of its id in `relations`, into which the caller puts each Relation
 * message that passes; without it, {@link RowRefused} is thrown.
 */
export const encode = ({ walStart, walEnd, timestamp, message }: Event, relations: Relations): string =>
  `{"wal_start":${walStart},"wal_end":${walEnd},"timestamp":${timestamp},"message":${encodeMessage(message, relations)}}`
