import { assert, describe, it } from "@effect/vitest"
import { vi } from "vitest"
import * as fc from "fast-check"
import { FluvioRecord } from "../../../src/stream/FluvioConsumer.ts"
import { decode, EventDecodeError, FloatNull, type FloatNullPolicy } from "../../../src/stream/ReplicationEvent.ts"
import * as Events from "../../events.ts"
import { fuzzRuns } from "../../fuzz.ts"

const decodeJson = (json: string, floatNull: FloatNullPolicy = "halt") =>
  decode(Events.recordOf(17, json), { floatNull })

/** The event with plain cells, to be compared. */
const plainJson = (json: string) => Events.plain(decodeJson(json))

const envelope = (message: string, wal = `"wal_start":1,"wal_end":1,"timestamp":0`) => `{${wal},"message":${message}}`

const insertJson = (cells: string) => envelope(`{"type":"insert","rel_id":7,"tuple":[${cells}]}`)

const relationJson = (columns: string) =>
  `{"type":"relation","rel_id":7,"namespace":"n","name":"t","replica_identity":"Default","columns":[${columns}]}`

const insertedBy = (json: string, floatNull: FloatNullPolicy = "halt") => {
  const event = decodeJson(json, floatNull)
  assert(event.type === "insert")
  return event.tuple
}

const updatedBy = (json: string) => {
  const event = decodeJson(json)
  assert(event.type === "update")
  return event.newTuple
}

const cellOf = (json: string, floatNull: FloatNullPolicy = "halt") => {
  const tuple = insertedBy(insertJson(json), floatNull)
  assert.strictEqual(tuple.length, 1)
  return tuple.cell(0)
}

const refusal = (decoding: () => unknown): EventDecodeError => {
  try {
    decoding()
  } catch (error) {
    assert.instanceOf(error, EventDecodeError)
    return error
  }
  return assert.fail("it was decoded")
}

const assertRefused = (json: string, reason: EventDecodeError["reason"], path?: string) => {
  const error = refusal(() => decodeJson(json))
  assert.strictEqual(error.reason, reason, json)
  assert.strictEqual(error.offset, 17)
  if (path !== undefined) assert.strictEqual(error.path, path, json)
}

const isTyped = (value: Uint8Array) => {
  try {
    const { type } = decode(Events.recordOfBytes(17, value), { floatNull: "halt" })
    // Only JSON is taken for an event.
    JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value))
    return type.length > 0
  } catch (error) {
    return error instanceof EventDecodeError || error instanceof FloatNull
  }
}

/** A JSON value whose numbers and strings are kept as their source text and whose objects keep order and repetition. */
type Json = string | ReadonlyArray<Json> | { readonly members: ReadonlyArray<readonly [string, Json]> }

const toJson = (text: string): Json => {
  const reviver = (_key: string, value: unknown, context: { readonly source?: string }): unknown =>
    context.source !== undefined
      ? context.source
      : Array.isArray(value)
        ? value
        : { members: Object.entries(value as Record<string, Json>) }
  return JSON.parse(text, reviver as (key: string, value: unknown) => unknown)
}

/** Prints a value as somebody else might: other order of fields, white space, escapes in keys, fields of the future. */
const printOtherwise = (value: Json, choose: (n: number) => number): string => {
  const blank = () => ["", "", " ", "\n\t", "\r\n  "][choose(5)]!
  const escaped = (text: string) =>
    `"${[...text].map((c) => (choose(4) === 0 ? `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}` : c)).join("")}"`
  const print = (json: Json): string => {
    if (typeof json === "string") return json
    if (Array.isArray(json)) return `[${blank()}${json.map((item) => print(item) + blank()).join("," + blank())}]`
    const members = (json as { members: ReadonlyArray<readonly [string, Json]> }).members.map(
      ([key, item]) => [key, print(item)] as const
    )
    const isCell = members.length === 1
    if (!isCell && choose(3) === 0) {
      members.push(["from_the_future", `[{"ä":[-1.5e3,"ö\\n😀",null]},true,false,{}]`])
    }
    for (let i = members.length - 1; i > 0; i--) {
      const j = choose(i + 1)
      const other = members[i]!
      members[i] = members[j]!
      members[j] = other
    }
    return `{${blank()}${members
      .map(([key, item]) => `${escaped(key)}${blank()}:${blank()}${item}${blank()}`)
      .join("," + blank())}}`
  }
  return blank() + print(value) + blank()
}

interface Source {
  readonly source: string
}
const keepSource = (_key: string, value: unknown, context: Source): unknown =>
  typeof value === "number" ? { source: context.source } : value

const number = (value: Source) => Number(value.source)

const cell = (value: string | Record<string, unknown>) => {
  if (typeof value === "string") return value === "Null" ? null : undefined
  const [tag, content] = Object.entries(value)[0]!
  if (tag === "String") return content
  if (tag === "Bool") return String(content)
  if (tag === "RawText") return new TextDecoder().decode(new Uint8Array((content as Array<Source>).map(number)))
  return (content as Source).source
}
const tuple = (cells: Array<string | Record<string, unknown>> | null) => cells && cells.map(cell)

/** The same decoding, written over JSON.parse with the source text of numbers. */
const reference = (text: string): unknown => {
  const { message } = JSON.parse(text, keepSource as (key: string, value: unknown) => unknown)
  switch (message.type) {
    case "begin":
      return {
        type: "begin",
        finalLsn: BigInt(message.final_lsn.source),
        timestamp: BigInt(message.timestamp.source),
        xid: number(message.xid)
      }
    case "insert":
      return { type: "insert", relId: number(message.rel_id), tuple: tuple(message.tuple) }
    case "update":
      return {
        type: "update",
        relId: number(message.rel_id),
        oldTuple: tuple(message.old_tuple),
        keyTuple: tuple(message.key_tuple),
        newTuple: tuple(message.new_tuple)
      }
    case "delete":
      return {
        type: "delete",
        relId: number(message.rel_id),
        oldTuple: tuple(message.old_tuple),
        keyTuple: tuple(message.key_tuple)
      }
    default:
      return undefined
  }
}

const rowOf = (n: number) => [Events.int4(n), Events.sqlNull, Events.text(`größe "${n}"`), Events.unchangedToast]
const cellsOfRow = (n: number) => [`${n}`, null, `größe "${n}"`, undefined]
const decodedRow = (n: number) => updatedBy(Events.eventJson(Events.update(7, rowOf(n))))

/** Every code unit as an escape. */
const escaped = (text: string) =>
  text
    .split("")
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
    .join("")

describe("decode", () => {
  it("reads the sample of the inbound connector's documentation", () => {
    assert.deepStrictEqual(
      plainJson(
        insertJson(
          `{"Int4":1},{"String":"Polly"},{"String":"Parrot"},{"RawText":[50,48,50,48,45,48,49,45,48,49]},"Null"`
        )
      ),
      { type: "insert", relId: 7, tuple: ["1", "Polly", "Parrot", "2020-01-01", null] }
    )
  })

  it.each([
    ["tuple", insertJson(`{"Int4":1},"UnchangedToast"`)],
    ["old_tuple", Events.eventJson(Events.remove(7, { old: [Events.int4(1), Events.unchangedToast] }))],
    ["key_tuple", Events.eventJson(Events.remove(7, { key: [Events.int4(1), Events.unchangedToast] }))],
    [
      "old_tuple",
      Events.eventJson(Events.update(7, [Events.int4(1)], { old: [Events.int4(1), Events.unchangedToast] }))
    ],
    [
      "key_tuple",
      Events.eventJson(Events.update(7, [Events.int4(1)], { key: [Events.int4(1), Events.unchangedToast] }))
    ]
  ])("refuses a value left out where there is no other image of the row: %s of %s", (name, json) => {
    assertRefused(json, "value left out", `message.${name}[1]`)
  })

  it("reads whatever the inbound connector writes", () => {
    fc.assert(
      fc.property(Events.arbitraryMessage, (message) => {
        assert.deepStrictEqual(plainJson(Events.eventJson(message)), Events.plain(message.event))
      }),
      { numRuns: 1000 }
    )
  })

  it("reads the same from any order of fields, white space, escapes in keys, and with unknown fields", () => {
    fc.assert(
      fc.property(Events.arbitraryMessage, fc.array(fc.nat(), { minLength: 20, maxLength: 60 }), (message, entropy) => {
        let at = 0
        const choose = (n: number) => entropy[at++ % entropy.length]! % n
        const json = printOtherwise(toJson(Events.eventJson(message)), choose)
        assert.deepStrictEqual(plainJson(json), Events.plain(message.event), json)
      }),
      { numRuns: 1000 }
    )
  })

  it("agrees with JSON.parse", () => {
    fc.assert(
      fc.property(Events.arbitraryMessage, (message) => {
        const json = Events.eventJson(message)
        const expected = reference(json)
        if (expected !== undefined) assert.deepStrictEqual(plainJson(json), expected)
      }),
      { numRuns: 500 }
    )
  })

  describe("loses nothing", () => {
    it.each([
      [`{"Int8":9007199254740993}`, "9007199254740993"],
      [`{"Int8":-9223372036854775808}`, "-9223372036854775808"],
      [`{"Int8":9223372036854775807}`, "9223372036854775807"],
      [`{"Int2":-32768}`, "-32768"],
      [`{"Int4":2147483647}`, "2147483647"],
      [`{"Oid":4294967295}`, "4294967295"],
      [`{"Char":-128}`, "-128"],
      [`{"Float8":-0.0}`, "-0.0"],
      [`{"Float8":1e308}`, "1e308"],
      [`{"Float8":0}`, "0"],
      [`{"Float4":3.4028235e38}`, "3.4028235e38"],
      [`{"Bool":true}`, "true"],
      [`{"Bool":false}`, "false"],
      [`{"String":""}`, ""],
      [`{"String":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\uD83D\\uDE00"}`, `"\\/\b\f\n\r\tä😀`],
      [`{"String":"größer 😀 als"}`, "größer 😀 als"],
      [`{"String":"\\u0000"}`, "\0"],
      [`{"String":"'; DROP TABLE pets; --"}`, "'; DROP TABLE pets; --"],
      [`{"RawText":[]}`, ""],
      [`{"RawText":[195,164,0,34,92]}`, 'ä\0"\\'],
      [`{ "RawText" : [ 195 , 164 ] }`, "ä"]
    ])("%s", (json, cell) => {
      assert.strictEqual(cellOf(json), cell)
    })

    it("64-bit LSNs and times", () => {
      const event = decodeJson(
        Events.eventJson(Events.begin(2n ** 64n - 1n, { timestamp: -(2n ** 63n), xid: 2 ** 32 - 1 }))
      )
      assert.deepStrictEqual(event, {
        type: "begin",
        finalLsn: Events.lsn(2n ** 64n - 1n),
        timestamp: -(2n ** 63n),
        xid: 2 ** 32 - 1
      })
    })

    it("text behind characters that take more bytes than code units", () => {
      const event = decodeJson(insertJson(`{"String":"ä€😀"},{"Int4":12345},{"String":"é\\né"},{"Float8":1.50}`))
      assert(event.type === "insert")
      assert.deepStrictEqual(event.tuple.cells, ["ä€😀", "12345", "é\né", "1.50"])
    })

    it("a byte array that is larger than the usual", () => {
      const value = "0123456789ä".repeat(5_000)
      const fixture = Events.raw(value)
      assert.strictEqual(cellOf(fixture.json), value)
    })
  })

  it("reads escapes as JSON.parse does, in cells and names, and refuses only what UTF-8 cannot carry", () => {
    const parts = fc.oneof(
      fc.string({ unit: "binary" }).map((text) => JSON.stringify(text).slice(1, -1)),
      fc.string({ unit: "binary", maxLength: 2 }).map(escaped),
      fc.nat(0xffff).map((unit) => `\\u${unit.toString(16).toUpperCase().padStart(4, "0")}`),
      fc.constantFrom(...`"\\/bfnrt`).map((letter) => `\\${letter}`),
      fc.integer({ min: 0xd800, max: 0xdfff }).map((unit) => escaped(String.fromCharCode(unit)))
    )
    let readable = 0
    const { numRuns } = fuzzRuns(2000)
    fc.assert(
      fc.property(fc.array(parts, { maxLength: 8 }), (chosen) => {
        const literal = `"${chosen.join("")}"`
        const expected: string = JSON.parse(literal)
        const cell = insertJson(`{"String":${literal}}`)
        const name = envelope(`{"type":"origin","commit_lsn":1,"name":${literal}}`)
        if (expected.isWellFormed()) {
          readable += 1
          assert.deepStrictEqual(insertedBy(cell).cells, [expected])
          assert.deepInclude(decodeJson(name), { name: expected })
        } else {
          assertRefused(cell, "lone surrogate", "message.tuple[0]")
          assertRefused(name, "lone surrogate", "message.name")
        }
      }),
      { numRuns }
    )
    assert.isAbove(readable, numRuns * 0.2)
    assert.isBelow(readable, numRuns * 0.9)
  })

  /** The text of cells is kept in buffers that many records share. */
  describe("keeps the cells of a record", () => {
    it("while the buffers fill up with those of others", () => {
      const tuples = Array.from({ length: 30_000 }, (_, n) => decodedRow(n))
      const arenas = new Set(tuples.map(({ arena }) => arena))
      assert.isAbove(arenas.size, 1)
      assert.isBelow(arenas.size, 100)
      for (const [n, tuple] of tuples.entries()) assert.deepStrictEqual(tuple.cells, cellsOfRow(n))
    })

    it("that is larger than a buffer, and those of its neighbours", () => {
      for (const size of [300_000, 1_000_000]) {
        const long = `ä"${"😀".repeat(size / 8)}\n${"x".repeat(size / 2)}`
        const tuples = [
          decodedRow(1),
          insertedBy(Events.eventJson(Events.insert(7, [Events.text(long), Events.int4(2), Events.raw(long)]))),
          decodedRow(3)
        ]
        assert.deepStrictEqual(
          tuples.map((tuple) => tuple.cells),
          [cellsOfRow(1), [long, "2", long], cellsOfRow(3)]
        )
      }
    })

    it("when another one is refused halfway", () => {
      const before = decodedRow(1)
      assertRefused(insertJson(`{"String":"other"},{"RawText":[120,34,300]}`), "number out of range")
      const after = decodedRow(2)
      assertRefused(insertJson(`{"Int4":99},{"String":"cut`), "invalid JSON")
      assert.deepStrictEqual([before.cells, after.cells], [cellsOfRow(1), cellsOfRow(2)])
    })

    it("with all its images", () => {
      fc.assert(
        fc.property(fc.array(Events.arbitraryMessage, { maxLength: 20 }), (messages) => {
          const events = messages.map((message) => decodeJson(Events.eventJson(message)))
          assert.deepStrictEqual(
            events.map(Events.plain),
            messages.map(({ event }) => Events.plain(event))
          )
        })
      )
    })

    /** Cells without text leave no trace in the bytes: their places alone would fill the memory. */
    it("in a buffer that is full one day, also if none of them has a text", () => {
      const json = insertJson(Array.from({ length: 100 }, () => `"Null"`).join())
      const arenas = new Set(Array.from({ length: 10_000 }, () => insertedBy(json).arena))
      assert.isAbove(arenas.size, 10)
    })
  })

  it("takes an identity column from the flags, and an OID beyond 2^31 from its signed form", () => {
    const shape = Events.relationOf({
      columns: [{ name: "id", isKey: true, typeId: 3_000_000_000, typeModifier: -1 }]
    })
    const json = Events.eventJson(Events.relation(shape))
    assert.include(json, `"type_id":-1294967296`)
    assert.deepStrictEqual(decodeJson(json), { type: "relation", relation: shape })
  })

  it.each([
    [0, false, false],
    [1, true, false],
    [2, false, true],
    [3, true, true]
  ])("takes the options of a truncate as bits: %i", (options, cascade, restartIdentity) => {
    const json = envelope(`{"type":"truncate","options":${options},"rel_ids":[1,2]}`)
    assert.deepStrictEqual(decodeJson(json), { type: "truncate", relIds: [1, 2], cascade, restartIdentity })
  })

  it("takes a tuple that is not there for one that is null", () => {
    const json = envelope(`{"type":"update","rel_id":1,"new_tuple":[]}`)
    assert.deepStrictEqual(plainJson(json), {
      type: "update",
      relId: 1,
      oldTuple: null,
      keyTuple: null,
      newTuple: []
    })
  })

  describe("reads large records in linear time:", () => {
    const cells = 20_000
    const list = (cell: string) => Array.from({ length: cells }, () => cell).join(",")

    it.each([
      ["the type comes last", envelope(`{"rel_id":7,"tuple":[${list(`{"Int4":1}`)}],"type":"insert"}`)],
      ["cells are words", envelope(`{"type":"update","rel_id":7,"new_tuple":[${list(`"UnchangedToast"`)}]}`)],
      ["white space is where none is expected", insertJson(list(`{ "String" : "a" }`))],
      ["fields are not known", envelope(`{"type":"insert","a":[${list(`"b"`)}],"rel_id":7,"tuple":["Null"]}`)],
      ["columns have names", envelope(relationJson(list(`{"flags":0,"name":"c","type_id":1,"type_modifier":0}`)))]
    ])("what it allocates does not grow with the square of them where %s", (_, json) => {
      const record = Events.recordOf(17, json)
      let allocated = 0
      const counted = new Proxy(Uint8Array, {
        construct: (target, args: [number], subject) => {
          // A view of what is there already takes none.
          if (typeof args[0] === "number") allocated += args[0]
          return Reflect.construct(target, args, subject)
        }
      })
      vi.stubGlobal("Uint8Array", counted)
      try {
        decode(record, { floatNull: "halt" })
      } finally {
        vi.unstubAllGlobals()
      }
      assert.isBelow(allocated, 10 * record.size)
    })
  })

  describe("a null in a float column", () => {
    it("halts", () => {
      try {
        decodeJson(insertJson(`{"Int4":1},{"Float8":null}`))
        assert.fail("it was decoded")
      } catch (error) {
        assert.instanceOf(error, FloatNull)
        assert.strictEqual(error.path, "message.tuple[1]")
        assert.strictEqual(error.offset, 17)
        assert.strictEqual(error.relId, 7)
        assert.include(error.remedy, "float-null")
        assert.isFalse(error.isRetryable)
      }
    })

    it("becomes NaN or NULL, as chosen", () => {
      assert.strictEqual(cellOf(`{"Float4":null}`, "nan"), "NaN")
      assert.strictEqual(cellOf(`{"Float8":null}`, "null"), null)
    })

    it("is refused in any other column", () => {
      assertRefused(insertJson(`{"Int4":null}`), "unexpected value", "message.tuple[0]")
    })
  })

  describe("refuses", () => {
    it.each([
      [`{"Int2":32768}`, "number out of range"],
      [`{"Int4":-2147483649}`, "number out of range"],
      [`{"Int8":9223372036854775808}`, "number out of range"],
      [`{"Int8":-9223372036854775809}`, "number out of range"],
      [`{"Int8":123456789012345678901234567890}`, "number out of range"],
      [`{"Oid":-1}`, "number out of range"],
      [`{"Char":128}`, "number out of range"],
      [`{"RawText":[256]}`, "number out of range"],
      [`{"RawText":[-1]}`, "number out of range"],
      [`{"Int2":}`, "unexpected value"],
      [`{"Int4":-}`, "unexpected value"],
      [`{"Oid":,}`, "unexpected value"],
      [`{"Int8":}`, "unexpected value"],
      [`{"Float8":-}`, "unexpected value"],
      [`{"RawText":[,]}`, "unexpected value"],
      [`{"Int4":1.0}`, "unexpected value"],
      [`{"Int4":1e3}`, "unexpected value"],
      [`{"Int4":-0}`, "unexpected value"],
      [`{"Int4":01}`, "unexpected value"],
      [`{"Int4":"1"}`, "unexpected value"],
      [`{"Float8":01.5}`, "invalid JSON"],
      [`{"Float8":1.}`, "unexpected value"],
      [`{"Float8":"NaN"}`, "unexpected value"],
      [`{"Bool":"t"}`, "unexpected value"],
      [`{"RawText":"x"}`, "unexpected value"],
      [`{"RawText":[1.5]}`, "unexpected value"],
      [`{"RawText":[01]}`, "unexpected value"],
      [`{"RawText":[195]}`, "invalid UTF-8"],
      [`{"RawText":[237,160,128]}`, "invalid UTF-8"],
      [`{"RawText":[1,]}`, "unexpected value"],
      [`{"String":"\\ud83d"}`, "lone surrogate"],
      [`{"String":"\\ud83dx"}`, "lone surrogate"],
      [`{"String":"\\ude00"}`, "lone surrogate"],
      [`{"String":"\\ud83d\\ud83d"}`, "lone surrogate"],
      [`{"String":"\\x"}`, "invalid JSON"],
      [`{"String":"\\u12g4"}`, "invalid JSON"],
      [`{"String":"a\nb"}`, "invalid JSON"],
      [`{"String":null}`, "unexpected value"],
      [`{"Int4":1,"Int8":1}`, "unexpected value"],
      [`{"Numeric":"1"}`, "unknown cell tag"],
      [`{"__proto__":1}`, "unknown cell tag"],
      [`"Nil"`, "unknown cell tag"],
      [`{}`, "unexpected value"],
      [`null`, "unexpected value"],
      [`1`, "unexpected value"]
    ] as const)("the cell %s", (json, reason) => {
      assertRefused(insertJson(`{"Int4":1},${json},"Null"`), reason, "message.tuple[1]")
    })

    const begin = `{"type":"begin","final_lsn":1,"timestamp":2,"xid":3}`
    it.each([
      [``, "invalid JSON", undefined],
      [`nonsense`, "unexpected value", undefined],
      [`[]`, "unexpected value", undefined],
      [`null`, "unexpected value", undefined],
      [envelope(begin) + "x", "invalid JSON", "$"],
      [envelope(begin) + envelope(begin), "invalid JSON", "$"],
      [envelope(begin).slice(0, -1), "invalid JSON", undefined],
      ["\ufeff" + envelope(begin), "unexpected value", undefined],
      [envelope(begin, `"wal_start":1,"wal_end":1`), "missing field", "timestamp"],
      [envelope(begin, `"wal_end":1,"timestamp":1`), "missing field", "wal_start"],
      [`{"wal_start":1,"wal_end":1,"timestamp":0}`, "missing field", "message"],
      [`{"wal_start":1,"wal_end":1,"timestamp":0,}`, "unexpected value", undefined],
      [envelope(begin, `"wal_start":-1,"wal_end":1,"timestamp":0`), "number out of range", "wal_start"],
      [envelope(begin, `"wal_start":1.5,"wal_end":1,"timestamp":0`), "unexpected value", "wal_start"],
      [
        envelope(begin, `"wal_start":18446744073709551616,"wal_end":1,"timestamp":0`),
        "number out of range",
        "wal_start"
      ],
      [envelope(begin, `"wal_start":1,"wal_end":"1","timestamp":0`), "unexpected value", "wal_end"],
      [envelope(begin, `"wal_start":1,"wal_end":1,"timestamp":0,"wal_end":1`), "duplicate field", "wal_end"],
      [
        envelope(`{"type":"begin","final_lsn":1,"final_lsn":1,"timestamp":2,"xid":3}`),
        "duplicate field",
        "message.final_lsn"
      ],
      [
        envelope(`{"type":"begin","final_lsn":1,"timestamp":2,"type":"begin","xid":3}`),
        "duplicate field",
        "message.type"
      ],
      [
        envelope(`{"final_lsn":1,"timestamp":2,"type":"begin","xid":3,"type":"begin"}`),
        "duplicate field",
        "message.type"
      ],
      [envelope(`{"type":"begin","final_lsn":1,"timestamp":2}`), "missing field", "message.xid"],
      [envelope(`{"type":"begin","final_lsn":1,"timestamp":2,"xid":4294967296}`), "number out of range", "message.xid"],
      [envelope(`{"type":"begin","final_lsn":-1,"timestamp":2,"xid":1}`), "number out of range", "message.final_lsn"],
      [envelope(`{"final_lsn":1}`), "missing field", "message.type"],
      [envelope(`{}`), "missing field", "message.type"],
      [envelope(`{"type":"stream_start"}`), "unknown message type", "message.type"],
      [envelope(`{"type":"__proto__"}`), "unknown message type", "message.type"],
      [envelope(`{"type":1}`), "unexpected value", "message.type"],
      [envelope(`[]`), "unexpected value", "message"],
      [envelope(`{"type":"insert","rel_id":1}`), "missing field", "message.tuple"],
      [envelope(`{"type":"insert","tuple":[]}`), "missing field", "message.rel_id"],
      [envelope(`{"type":"insert","rel_id":1,"tuple":null}`), "unexpected value", "message.tuple"],
      [envelope(`{"type":"insert","rel_id":1,"tuple":{}}`), "unexpected value", "message.tuple"],
      [envelope(`{"type":"insert","rel_id":1.5,"tuple":[]}`), "unexpected value", "message.rel_id"],
      [envelope(`{"type":"truncate","options":1,"rel_ids":[-1]}`), "number out of range", "message.rel_ids"],
      [
        envelope(`{"type":"relation","rel_id":1,"namespace":"a","name":"b","replica_identity":"Some","columns":[]}`),
        "unexpected value",
        "message.replica_identity"
      ],
      [
        envelope(
          `{"type":"relation","rel_id":1,"namespace":"a","name":"b","replica_identity":"Full","columns":[{"flags":1,"name":"c","type_id":1}]}`
        ),
        "missing field",
        "message.columns[0].type_modifier"
      ],
      [envelope(`{"type":"begin","extra":${"[".repeat(65)}${"]".repeat(65)}}`), "nested too deep", undefined],
      [envelope(`{"type":"begin","extra":${"[".repeat(1_000_000)}`), "nested too deep", undefined],
      [envelope(`{"type":"begin","extra":{"a":1]}`), "invalid JSON", undefined],
      [envelope(`{"type":"begin","extra":nul}`), "invalid JSON", undefined]
    ] as const)("%s", (json, reason, path) => {
      assertRefused(json, reason, path)
    })

    it("numbers of any length", () => {
      const digits = "9".repeat(30)
      assertRefused(envelope(`{"type":"begin","final_lsn":${digits},"timestamp":2,"xid":1}`), "number out of range")
      assertRefused(envelope(`{"type":"begin","final_lsn":1,"timestamp":${digits},"xid":1}`), "number out of range")
      assertRefused(envelope(`{"type":"begin","final_lsn":1,"timestamp":2,"xid":${digits}}`), "number out of range")
    })

    it("a record without naming the relation of the one before", () => {
      decodeJson(insertJson(`{"Int4":1}`))
      assert.strictEqual(refusal(() => decodeJson(`{`)).relId, undefined)
    })

    it("bytes that are not UTF-8", () => {
      const value = new TextEncoder().encode(insertJson(`{"String":"x"}`))
      value[value.indexOf("x".charCodeAt(0))] = 0xff
      const error = refusal(() => decode(Events.recordOfBytes(17, value), { floatNull: "halt" }))
      assert.strictEqual(error.reason, "invalid UTF-8")
    })

    it("with facts and without values", () => {
      const error = refusal(() => decodeJson(insertJson(`{"String":"secret"},{"Int4":"secret"}`)))
      assert.strictEqual(error.relId, 7)
      assert.isFalse(error.isRetryable)
      assert.notInclude(JSON.stringify(error) + error.message + error.remedy + error.stack, "secret")
      assert.include(error.message, "offset 17")
    })
  })

  describe("given anything at all, answers with an event or a typed error", () => {
    const original = Events.arbitraryMessage.map((message) => new TextEncoder().encode(Events.eventJson(message)))
    const fragment = fc.constantFrom(
      `"`,
      `\\`,
      `{`,
      `}`,
      `[`,
      `]`,
      `,`,
      `:`,
      `-`,
      `.`,
      `e9`,
      `0`,
      `null`,
      `\\ud800`,
      `ä`
    )

    it("with bytes replaced", () => {
      fc.assert(
        fc.property(original, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), (bytes, changes) => {
          for (const [at, byte] of changes) bytes[at % bytes.length] = byte
          assert.isTrue(isTyped(bytes))
        }),
        fuzzRuns(3000)
      )
    })

    it("with fragments put in and ranges taken out", () => {
      fc.assert(
        fc.property(original, fc.nat(), fc.nat(20), fragment, (bytes, at, length, inserted) => {
          const from = at % bytes.length
          const cut = [
            ...bytes.subarray(0, from),
            ...new TextEncoder().encode(inserted),
            ...bytes.subarray(from + length)
          ]
          assert.isTrue(isTyped(new Uint8Array(cut)))
        }),
        fuzzRuns(3000)
      )
    })

    it("cut off anywhere", () => {
      fc.assert(
        fc.property(original, fc.nat(), (bytes, at) => {
          const error = refusal(() =>
            decode(new FluvioRecord(Events.offset(17), undefined, bytes, 0, at % bytes.length, undefined), {
              floatNull: "halt"
            })
          )
          assert.isAtMost(error.position, bytes.length)
        }),
        fuzzRuns(1000)
      )
    })
  })
})
