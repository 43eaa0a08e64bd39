/** Records as the inbound connector writes them, built by hand or at random. */
import * as fc from "fast-check"
import { FluvioRecord, type Offset } from "../src/stream/FluvioConsumer.ts"
import type { Lsn } from "../src/stream/OffsetStore.ts"
import type { Relation } from "../src/stream/Relation.ts"
import type { ReplicationEvent } from "../src/stream/ReplicationEvent.ts"
import { type Cell, Tuple } from "../src/stream/Tuple.ts"

const utf8 = new TextEncoder()

export const offset = (n: number): Offset => n as Offset
export const lsn = (n: bigint | number): Lsn => BigInt(n) as Lsn

/** A cell: its JSON, and what it decodes to. */
export interface CellFixture {
  readonly json: string
  readonly cell: Cell
}

const tagged = (tag: string, json: string, cell: string): CellFixture => ({ json: `{"${tag}":${json}}`, cell })

export const sqlNull: CellFixture = { json: `"Null"`, cell: null }
export const unchangedToast: CellFixture = { json: `"UnchangedToast"`, cell: undefined }
export const bool = (value: boolean) => tagged("Bool", `${value}`, `${value}`)
export const char = (value: number) => tagged("Char", `${value}`, `${value}`)
export const int2 = (value: number) => tagged("Int2", `${value}`, `${value}`)
export const int4 = (value: number) => tagged("Int4", `${value}`, `${value}`)
export const int8 = (value: bigint | number) => tagged("Int8", `${value}`, `${value}`)
export const oid = (value: number) => tagged("Oid", `${value}`, `${value}`)
/** Floats take their text, as the inbound connector's may differ from JavaScript's. */
export const float4 = (text: string) => tagged("Float4", text, text)
export const float8 = (text: string) => tagged("Float8", text, text)
export const text = (value: string) => tagged("String", JSON.stringify(value), value)
/** Any type the inbound connector has no variant for: the UTF-8 bytes of its text. */
export const raw = (value: string) => tagged("RawText", `[${utf8.encode(value).join(",")}]`, value)

export type Row = ReadonlyArray<CellFixture>
const tupleJson = (row: Row | null): string => (row === null ? "null" : `[${row.map((cell) => cell.json).join(",")}]`)
const tupleOf = (row: Row): Tuple => Tuple.of(row.map((cell) => cell.cell))

/** The same with the cells of tuples as plain arrays, however deep: to compare, and to be read where it differs. */
export const plain = (value: unknown): unknown => {
  if (value instanceof Tuple) return value.cells
  if (Array.isArray(value)) return value.map(plain)
  const isRecord = value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype
  return isRecord ? Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, plain(inner)])) : value
}

/** A message: its JSON, and the event it decodes to. */
export interface MessageFixture {
  readonly json: string
  readonly event: ReplicationEvent
}

const microseconds = 690_913_417_000_000n

export const begin = (
  finalLsn: bigint | number,
  { timestamp = microseconds, xid = 742 }: { readonly timestamp?: bigint; readonly xid?: number } = {}
): MessageFixture => ({
  json: `{"type":"begin","final_lsn":${finalLsn},"timestamp":${timestamp},"xid":${xid}}`,
  event: { type: "begin", finalLsn: lsn(finalLsn), timestamp, xid }
})

export const commit = (
  commitLsn: bigint | number,
  {
    timestamp = microseconds,
    endLsn = BigInt(commitLsn) + 104n
  }: { readonly timestamp?: bigint; readonly endLsn?: bigint } = {}
): MessageFixture => ({
  json: `{"type":"commit","flags":0,"commit_lsn":${commitLsn},"end_lsn":${endLsn},"timestamp":${timestamp}}`,
  event: { type: "commit", commitLsn: lsn(commitLsn), endLsn: lsn(endLsn), timestamp }
})

export const origin = (commitLsn: bigint | number, name: string): MessageFixture => ({
  json: `{"type":"origin","commit_lsn":${commitLsn},"name":${JSON.stringify(name)}}`,
  event: { type: "origin", commitLsn: lsn(commitLsn), name }
})

/** A relation of the source, `public.pets (id int4, name text)` unless told otherwise. */
export const relationOf = (overrides: Partial<Relation> = {}): Relation => ({
  id: 16_385,
  namespace: "public",
  name: "pets",
  replicaIdentity: "Default",
  columns: [
    { name: "id", isKey: true, typeId: 23, typeModifier: -1 },
    { name: "name", isKey: false, typeId: 25, typeModifier: -1 }
  ],
  ...overrides
})

export const relation = (shape: Relation): MessageFixture => {
  const columns = shape.columns.map(
    (column) =>
      `{"flags":${column.isKey ? 1 : 0},"name":${JSON.stringify(column.name)},"type_id":${column.typeId | 0},"type_modifier":${column.typeModifier}}`
  )
  return {
    json: `{"type":"relation","rel_id":${shape.id},"namespace":${JSON.stringify(shape.namespace)},"name":${JSON.stringify(shape.name)},"replica_identity":"${shape.replicaIdentity}","columns":[${columns.join(",")}]}`,
    event: { type: "relation", relation: shape }
  }
}

/** The namespace is the name, as the original inbound connector has it. */
/** The original inbound connector gives the name as the namespace too. */
export const type = (id: number, name: string, namespace: string = name): MessageFixture => ({
  json: `{"type":"type","id":${id},"namespace":${JSON.stringify(namespace)},"name":${JSON.stringify(name)}}`,
  event: { type: "type", id, namespace, name }
})

export const insert = (relId: number, row: Row): MessageFixture => ({
  json: `{"type":"insert","rel_id":${relId},"tuple":${tupleJson(row)}}`,
  event: { type: "insert", relId, tuple: tupleOf(row) }
})

interface Before {
  readonly old?: Row | null
  readonly key?: Row | null
}

export const update = (relId: number, row: Row, { old = null, key = null }: Before = {}): MessageFixture => ({
  json: `{"type":"update","rel_id":${relId},"old_tuple":${tupleJson(old)},"key_tuple":${tupleJson(key)},"new_tuple":${tupleJson(row)}}`,
  event: {
    type: "update",
    relId,
    oldTuple: old === null ? null : tupleOf(old),
    keyTuple: key === null ? null : tupleOf(key),
    newTuple: tupleOf(row)
  }
})

export const remove = (relId: number, { old = null, key = null }: Before): MessageFixture => ({
  json: `{"type":"delete","rel_id":${relId},"old_tuple":${tupleJson(old)},"key_tuple":${tupleJson(key)}}`,
  event: {
    type: "delete",
    relId,
    oldTuple: old === null ? null : tupleOf(old),
    keyTuple: key === null ? null : tupleOf(key)
  }
})

export const truncate = (
  relIds: ReadonlyArray<number>,
  { cascade = false, restartIdentity = false }: { readonly cascade?: boolean; readonly restartIdentity?: boolean } = {}
): MessageFixture => ({
  json: `{"type":"truncate","options":${(cascade ? 1 : 0) + (restartIdentity ? 2 : 0)},"rel_ids":[${relIds.join(",")}]}`,
  event: { type: "truncate", relIds, cascade, restartIdentity }
})

/** The whole event around a message. Relations and types have the LSN 0, as PostgreSQL sends them. */
export const eventJson = (message: MessageFixture, walEnd: bigint | number = 24_096_440): string => {
  const wal = message.event.type === "relation" || message.event.type === "type" ? 0 : walEnd
  return `{"wal_start":${wal},"wal_end":${wal},"timestamp":${microseconds},"message":${message.json}}`
}

/** Between other bytes that would mislead who reads beyond the ends: a number would go on, and an object be closed. */
export const recordOfBytes = (at: number, value: Uint8Array): FluvioRecord => {
  const before = utf8.encode('{"')
  const bytes = Buffer.concat([before, value, utf8.encode('7.0,"x":1}]}}')])
  return new FluvioRecord(offset(at), undefined, bytes, before.length, before.length + value.length, undefined)
}

export const recordOf = (at: number, json: string): FluvioRecord => recordOfBytes(at, utf8.encode(json))

export const record = (at: number, message: MessageFixture): FluvioRecord => recordOf(at, eventJson(message))

/** Records with contiguous offsets from `from` on. */
export const records = (from: number, messages: ReadonlyArray<MessageFixture>): Array<FluvioRecord> =>
  messages.map((message, i) => record(from + i, message))

const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
const uint64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
/** Any text that UTF-8 can carry: every code point but lone surrogates. */
const anyText = fc.string({ unit: "binary" })
const name = fc.oneof(fc.constantFrom("id", "name", `say "hi"`, "größe", "__proto__", "type"), anyText)
/** JSON's numbers as texts, among them those a double would round or print otherwise. */
const numberText = fc.oneof(
  fc.constantFrom("-0.0", "0.0", "1e308", "-1E+5", "9007199254740993", "1e-400", "0.1"),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => JSON.stringify(value)),
  fc.tuple(int64, fc.nat()).map(([whole, part]) => `${whole}.${part}`)
)

const arbitraryValue: fc.Arbitrary<CellFixture> = fc.oneof(
  fc.constant(sqlNull),
  fc.boolean().map(bool),
  fc.integer({ min: -128, max: 127 }).map(char),
  fc.integer({ min: -32_768, max: 32_767 }).map(int2),
  int32.map(int4),
  int64.map(int8),
  uint32.map(oid),
  numberText.map(float4),
  numberText.map(float8),
  anyText.map(text),
  anyText.map(raw)
)
/** As in the new row of an update. */
export const arbitraryCell = fc.oneof(
  { weight: 11, arbitrary: arbitraryValue },
  { weight: 1, arbitrary: fc.constant(unchangedToast) }
)
const arbitraryRow = fc.array(arbitraryValue, { maxLength: 8 })
const arbitraryUpdate = fc.array(arbitraryCell, { maxLength: 8 })
const arbitraryBefore = fc.record({ old: fc.option(arbitraryRow), key: fc.option(arbitraryRow) })

export const arbitraryRelation: fc.Arbitrary<Relation> = fc.record({
  id: uint32,
  namespace: name,
  name,
  replicaIdentity: fc.constantFrom("Default", "Nothing", "Full", "Index"),
  columns: fc.array(fc.record({ name, isKey: fc.boolean(), typeId: uint32, typeModifier: int32 }), { maxLength: 5 })
})

/** Messages of every kind, with values from the whole of their types; they need not make sense together. */
export const arbitraryMessage: fc.Arbitrary<MessageFixture> = fc.oneof(
  fc.tuple(uint64, int64, uint32).map(([finalLsn, timestamp, xid]) => begin(finalLsn, { timestamp, xid })),
  fc.tuple(uint64, uint64, int64).map(([commitLsn, endLsn, timestamp]) => commit(commitLsn, { endLsn, timestamp })),
  fc.tuple(uint64, anyText).map(([commitLsn, from]) => origin(commitLsn, from)),
  arbitraryRelation.map(relation),
  fc.tuple(uint32, name).map(([id, called]) => type(id, called)),
  fc.tuple(uint32, arbitraryRow).map(([relId, row]) => insert(relId, row)),
  fc.tuple(uint32, arbitraryUpdate, arbitraryBefore).map(([relId, row, before]) => update(relId, row, before)),
  fc.tuple(uint32, arbitraryBefore).map(([relId, before]) => remove(relId, before)),
  fc
    .tuple(fc.array(uint32), fc.boolean(), fc.boolean())
    .map(([relIds, cascade, restartIdentity]) => truncate(relIds, { cascade, restartIdentity }))
)

/** A transaction of a source as it happened there, whatever the inbound connector makes of it. */
export interface SourceTransaction {
  readonly finalLsn: bigint
  readonly timestamp: bigint
  readonly xid: number
  /** Rows by the relation as it was at that time; the relation's records are the log's affair. */
  readonly changes: ReadonlyArray<{ readonly relation: Relation; readonly message: MessageFixture }>
}

const shapeOf = (id: number, version: number): Relation =>
  relationOf({
    id,
    name: `table_${id}`,
    columns: Array.from({ length: version + 1 }, (_, i) => ({
      name: `column_${i}`,
      isKey: i === 0,
      typeId: 23,
      typeModifier: -1
    }))
  })

/** A row of `version + 1` cells that no other row equals, so that a repeated or lost one shows. */
const rowOf = (version: number, serial: number): Row =>
  Array.from({ length: version + 1 }, (_, i) => (i === 0 ? int4(serial) : text(`${serial}/${i}`)))

/**
 * A history of a source: transactions in commit order with rising LSNs, commit times that rise but for a jitter, and
 * tables whose shape changes now and then.
 */
export const arbitraryHistory: fc.Arbitrary<ReadonlyArray<SourceTransaction>> = fc
  .array(
    fc.record({
      jitter: fc.integer({ min: -5, max: 5 }),
      changes: fc.array(
        fc.record({
          relId: fc.constantFrom(1, 2, 3),
          kind: fc.constantFrom("insert", "update", "delete", "truncate", "alter")
        }),
        { maxLength: 6 }
      )
    }),
    { minLength: 1, maxLength: 8 }
  )
  .map((transactions) => {
    const versions = new Map([1, 2, 3].map((id) => [id, 1]))
    let serial = 0
    return transactions.map(({ changes, jitter }, i) => ({
      finalLsn: BigInt(1000 + i * 10),
      timestamp: microseconds + BigInt(i * 4 + jitter),
      xid: 700 + i,
      changes: changes.map(({ kind, relId }) => {
        if (kind === "alter") versions.set(relId, versions.get(relId)! + 1)
        const version = versions.get(relId)!
        const row = rowOf(version, ++serial)
        const message =
          kind === "update"
            ? update(relId, row, { key: row })
            : kind === "delete"
              ? remove(relId, { key: row })
              : kind === "truncate"
                ? truncate([relId])
                : insert(relId, row)
        return { relation: shapeOf(relId, version), message }
      })
    }))
  })

/**
 * What an inbound connector makes of a history: it restarts now and then, in the middle of a transaction or between
 * two, goes back some transactions, sends everything from there again, and describes each table anew.
 */
export const logOf = (
  history: ReadonlyArray<SourceTransaction>,
  choose: (n: number) => number
): Array<MessageFixture> => {
  const log: Array<MessageFixture> = []
  let described = new Map<number, Relation>()
  let restarts = 4
  for (let i = 0; i < history.length; i++) {
    const { changes, finalLsn, timestamp, xid } = history[i]!
    const messages = [begin(finalLsn, { timestamp, xid })]
    if (choose(8) === 0) messages.push(origin(finalLsn, "elsewhere"))
    for (const { message, relation: shape } of changes) {
      if (described.get(shape.id)?.columns.length !== shape.columns.length) messages.push(relation(shape))
      described.set(shape.id, shape)
      messages.push(message)
    }
    messages.push(commit(finalLsn, { timestamp }))
    const isBrokenOff = restarts > 0 && choose(3) === 0
    log.push(...messages.slice(0, isBrokenOff ? 1 + choose(messages.length) : messages.length))
    if (isBrokenOff) {
      restarts--
      described = new Map()
      i = Math.max(-1, i - 1 - choose(3))
    }
  }
  return log
}

/** A source of small choices from the numbers that fast-check shrinks. */
export const chooser = (entropy: ReadonlyArray<number>) => {
  let at = 0
  return (n: number) => (entropy[at++ % entropy.length]! + Math.floor(at / entropy.length)) % n
}
export const arbitraryEntropy = fc.array(fc.nat(), { minLength: 10, maxLength: 60 })
