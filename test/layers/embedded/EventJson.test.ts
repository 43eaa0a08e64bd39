import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { encode, type Relations, RowRefused } from "../../../layers/embedded/EventJson.ts"
import type { Cell, Message, Relation } from "../../../layers/embedded/Pgoutput.ts"

const relation = (...typeIds: ReadonlyArray<number>): Relation => ({
  type: "relation",
  id: 16_384,
  namespace: "public",
  name: "t",
  replicaIdentity: "Default",
  columns: typeIds.map((typeId, index) => ({ flags: index === 0 ? 1 : 0, name: `c${index}`, typeId, typeModifier: -1 }))
})

const place = { walStart: 24_096_440n, walEnd: 24_096_440n, timestamp: 815_961_600_000_001n }
const none: Relations = new Map()

const encodeMessage = (message: Message, relations = none) => {
  const text = encode({ ...place, message }, relations)
  const head = '{"wal_start":24096440,"wal_end":24096440,"timestamp":815961600000001,"message":'
  assert.isTrue(text.startsWith(head))
  return text.slice(head.length, -1)
}

const encodeCell = (typeId: number, cell: Cell) => {
  const insert = encodeMessage({ type: "insert", relId: 16_384, tuple: [cell] }, new Map([[16_384, relation(typeId)]]))
  return insert.slice('{"type":"insert","rel_id":16384,"tuple":['.length, -2)
}

const cellText = (typeId: number, text: string) => encodeCell(typeId, Buffer.from(text))

describe("EventJson", () => {
  it("writes 64-bit numbers without rounding", () => {
    const largest = 2n ** 64n - 1n
    const message: Message = { type: "begin", finalLsn: largest, timestamp: -(2n ** 63n), xid: 4_294_967_295 }
    assert.strictEqual(
      encode({ walStart: largest, walEnd: largest, timestamp: 2n ** 63n - 1n, message }, none),
      '{"wal_start":18446744073709551615,"wal_end":18446744073709551615,"timestamp":9223372036854775807,' +
        '"message":{"type":"begin","final_lsn":18446744073709551615,"timestamp":-9223372036854775808,"xid":4294967295}}'
    )
    assert.strictEqual(cellText(20, "-9223372036854775808"), '{"Int8":-9223372036854775808}')
  })

  it("writes each message with the original's fields in its order", () => {
    const relations: Relations = new Map([[16_384, relation(23, 25)]])
    const row = [Buffer.from("1"), null]
    const expected: ReadonlyArray<readonly [Message, string]> = [
      [
        { type: "commit", flags: 0, commitLsn: 5n, endLsn: 6n, timestamp: 7n },
        '{"type":"commit","flags":0,"commit_lsn":5,"end_lsn":6,"timestamp":7}'
      ],
      [{ type: "origin", commitLsn: 5n, name: 'a"b' }, '{"type":"origin","commit_lsn":5,"name":"a\\"b"}'],
      [
        { ...relation(23, 4_294_967_295), name: "Ä\\" },
        '{"type":"relation","rel_id":16384,"namespace":"public","name":"Ä\\\\","replica_identity":"Default","columns":[' +
          '{"flags":1,"name":"c0","type_id":23,"type_modifier":-1},{"flags":0,"name":"c1","type_id":-1,"type_modifier":-1}]}'
      ],
      [
        { type: "type", id: 16_400, namespace: "shop", name: "mood" },
        '{"type":"type","id":16400,"namespace":"shop","name":"mood"}'
      ],
      [{ type: "insert", relId: 16_384, tuple: row }, '{"type":"insert","rel_id":16384,"tuple":[{"Int4":1},"Null"]}'],
      [
        { type: "update", relId: 16_384, oldTuple: null, keyTuple: row, newTuple: [Buffer.from("2"), undefined] },
        '{"type":"update","rel_id":16384,"old_tuple":null,"key_tuple":[{"Int4":1},"Null"],"new_tuple":[{"Int4":2},"UnchangedToast"]}'
      ],
      [
        { type: "delete", relId: 16_384, oldTuple: row, keyTuple: null },
        '{"type":"delete","rel_id":16384,"old_tuple":[{"Int4":1},"Null"],"key_tuple":null}'
      ],
      [{ type: "truncate", options: 3, relIds: [1, 2] }, '{"type":"truncate","options":3,"rel_ids":[1,2]}']
    ]
    for (const [message, text] of expected) assert.strictEqual(encodeMessage(message, relations), text)
  })

  it("gives built-in types their cell, and every other the bytes of its text", () => {
    const expected: ReadonlyArray<readonly [number, string, string]> = [
      [16, "t", '{"Bool":true}'],
      [16, "f", '{"Bool":false}'],
      [18, "7", '{"Char":7}'],
      [18, "x", '{"RawText":[120]}'],
      [18, "", '{"RawText":[]}'],
      [19, "pg", '{"String":"pg"}'],
      [21, "-32768", '{"Int2":-32768}'],
      [23, "2147483647", '{"Int4":2147483647}'],
      [25, 'a"b\\c\n\u0001\u007fé🙂\u2028', '{"String":"a\\"b\\\\c\\n\\u0001\u007fé🙂\u2028"}'],
      [25, "\uFFFD", '{"String":"\uFFFD"}'],
      [26, "4294967295", '{"Oid":4294967295}'],
      [705, "?", '{"String":"?"}'],
      [1042, "a  ", '{"String":"a  "}'],
      [1043, "", '{"String":""}'],
      [1082, "2020", '{"RawText":[50,48,50,48]}'],
      [16_400, "é", '{"RawText":[195,169]}']
    ]
    for (const [typeId, text, cell] of expected) assert.strictEqual(cellText(typeId, text), cell)
  })

  it("keeps the bytes of a text that is not UTF-8", () => {
    assert.strictEqual(encodeCell(25, Buffer.of(0x61, 0xff)), '{"RawText":[97,255]}')
  })

  it("lays floating-point numbers out as serde_json does", () => {
    const expected: ReadonlyArray<readonly [number, string, string]> = [
      [701, "0", "0.0"],
      [701, "-0", "-0.0"],
      [701, "1", "1.0"],
      [701, "-1.5", "-1.5"],
      [701, "100000", "100000.0"],
      [701, "1e+15", "1000000000000000.0"],
      [701, "1234567890123456", "1234567890123456.0"],
      [701, "1e+16", "1e16"],
      [701, "1.2345e+16", "1.2345e16"],
      [701, "1.7976931348623157e+308", "1.7976931348623157e308"],
      [701, "5e-324", "5e-324"],
      [701, "0.0001", "0.0001"],
      [701, "1e-05", "0.00001"],
      [701, "1.5e-05", "0.000015"],
      [701, "1e-06", "1e-6"],
      [701, "1.25e-06", "1.25e-6"],
      [700, "3.4028235e+38", "3.4028235e38"],
      [700, "1e+12", "1000000000000.0"],
      [700, "1e+13", "1e13"],
      [700, "1e-06", "0.000001"],
      [700, "1e-07", "1e-7"]
    ]
    for (const [typeId, text, number] of expected) {
      assert.strictEqual(cellText(typeId, text), `{"${typeId === 701 ? "Float8" : "Float4"}":${number}}`)
    }
    for (const text of ["NaN", "Infinity", "-Infinity"]) {
      assert.strictEqual(cellText(701, text), `{"RawText":[${Buffer.from(text).join(",")}]}`)
    }
  })

  it("never changes a floating-point number", () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
        const text = Object.is(value, -0) ? "-0" : String(value)
        assert.isTrue(Object.is(JSON.parse(cellText(701, text)).Float8, value))
      })
    )
  })

  it("writes JSON that gives back any text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (value) => {
        assert.strictEqual(JSON.parse(cellText(25, value)).String, value)
        assert.strictEqual(Buffer.from(JSON.parse(cellText(1700, value)).RawText).toString(), value)
      })
    )
  })

  it("refuses a row that its relation does not describe", () => {
    const row: Message = { type: "insert", relId: 16_384, tuple: [null, null] }
    assert.throws(() => encodeMessage(row), RowRefused, /unknown relation 16384/)
    assert.throws(() => encodeMessage(row, new Map([[16_384, relation(23)]])), RowRefused, /1 columns.*has 2/)
  })
})
