import { assert, describe, it } from "@effect/vitest"
import { decode, type Message, PgoutputRefused } from "../../../layers/embedded/Pgoutput.ts"

type Part = string | { readonly [kind in "i8" | "i16" | "i32"]?: number } | { readonly i64: bigint } | Part[]

/** Bytes as the protocol's documentation writes them: a text stands for its bytes, a list for a text with its end. */
const bytes = (...parts: ReadonlyArray<Part>): Buffer =>
  Buffer.concat(
    parts.map((part) => {
      if (typeof part === "string") return Buffer.from(part)
      if (Array.isArray(part)) return Buffer.concat([bytes(...part), Buffer.of(0)])
      const buffer = Buffer.alloc(8)
      if ("i64" in part) return buffer.fill(0).subarray(0, buffer.writeBigInt64BE(part.i64))
      if (part.i8 !== undefined) return buffer.subarray(0, buffer.writeInt8(part.i8))
      if (part.i16 !== undefined) return buffer.subarray(0, buffer.writeInt16BE(part.i16))
      return buffer.subarray(0, buffer.writeInt32BE(part.i32!))
    })
  )

const cell = (text: string): Part[] => ["t", { i32: Buffer.byteLength(text) }, text]
const tuple = (...cells: ReadonlyArray<ReadonlyArray<Part>>): Part[] => [{ i16: cells.length }, ...cells.flat()]

const samples: ReadonlyArray<{ readonly name: string; readonly bytes: Buffer; readonly message: Message }> = [
  {
    name: "begin",
    bytes: bytes("B", { i64: -1n }, { i64: 815_961_600_000_001n }, { i32: -2 }),
    message: { type: "begin", finalLsn: 2n ** 64n - 1n, timestamp: 815_961_600_000_001n, xid: 4_294_967_294 }
  },
  {
    name: "commit",
    bytes: bytes("C", { i8: 0 }, { i64: 24_096_336n }, { i64: 24_096_440n }, { i64: -1n }),
    message: { type: "commit", flags: 0, commitLsn: 24_096_336n, endLsn: 24_096_440n, timestamp: -1n }
  },
  {
    name: "origin",
    bytes: bytes("O", { i64: 7n }, ["upstream"]),
    message: { type: "origin", commitLsn: 7n, name: "upstream" }
  },
  {
    name: "relation",
    bytes: bytes(
      "R",
      { i32: 16_384 },
      ["public"],
      ["Grüße"],
      "i",
      { i16: 2 },
      { i8: 1 },
      ["id"],
      { i32: 20 },
      { i32: -1 },
      { i8: 0 },
      ["name"],
      { i32: 1043 },
      { i32: 7 }
    ),
    message: {
      type: "relation",
      id: 16_384,
      namespace: "public",
      name: "Grüße",
      replicaIdentity: "Index",
      columns: [
        { flags: 1, name: "id", typeId: 20, typeModifier: -1 },
        { flags: 0, name: "name", typeId: 1043, typeModifier: 7 }
      ]
    }
  },
  {
    name: "type",
    bytes: bytes("Y", { i32: 16_400 }, ["shop"], ["mood"]),
    message: { type: "type", id: 16_400, namespace: "shop", name: "mood" }
  },
  {
    name: "insert with every kind of cell",
    bytes: bytes("I", { i32: 9 }, "N", ...tuple(cell("é"), ["n"], ["u"], cell(""))),
    message: { type: "insert", relId: 9, tuple: [Buffer.from("é"), null, undefined, Buffer.alloc(0)] }
  },
  {
    name: "update without an old image",
    bytes: bytes("U", { i32: 9 }, "N", ...tuple(cell("1"))),
    message: { type: "update", relId: 9, oldTuple: null, keyTuple: null, newTuple: [Buffer.from("1")] }
  },
  {
    name: "update with the old key",
    bytes: bytes("U", { i32: 9 }, "K", ...tuple(cell("1"), ["n"]), "N", ...tuple(cell("2"), cell("b"))),
    message: {
      type: "update",
      relId: 9,
      oldTuple: null,
      keyTuple: [Buffer.from("1"), null],
      newTuple: [Buffer.from("2"), Buffer.from("b")]
    }
  },
  {
    name: "update with the old row",
    bytes: bytes("U", { i32: 9 }, "O", ...tuple(cell("1")), "N", ...tuple(cell("2"))),
    message: { type: "update", relId: 9, oldTuple: [Buffer.from("1")], keyTuple: null, newTuple: [Buffer.from("2")] }
  },
  {
    name: "delete by key",
    bytes: bytes("D", { i32: 9 }, "K", ...tuple(cell("1"))),
    message: { type: "delete", relId: 9, oldTuple: null, keyTuple: [Buffer.from("1")] }
  },
  {
    name: "delete by row",
    bytes: bytes("D", { i32: 9 }, "O", ...tuple(cell("1"))),
    message: { type: "delete", relId: 9, oldTuple: [Buffer.from("1")], keyTuple: null }
  },
  {
    name: "truncate",
    bytes: bytes("T", { i32: 2 }, { i8: 3 }, { i32: 9 }, { i32: -1 }),
    message: { type: "truncate", options: 3, relIds: [9, 4_294_967_295] }
  }
]

describe("Pgoutput", () => {
  for (const sample of samples) {
    it(`reads ${sample.name}`, () => {
      assert.deepStrictEqual(decode(sample.bytes), sample.message)
    })

    it(`reads ${sample.name} behind a header`, () => {
      assert.deepStrictEqual(decode(Buffer.concat([Buffer.from("header"), sample.bytes]), 6), sample.message)
    })

    it(`refuses ${sample.name} when it ends too early, wherever that is`, () => {
      for (let length = 0; length < sample.bytes.length; length++) {
        assert.throws(() => decode(sample.bytes.subarray(0, length)))
      }
    })
  }

  it("refuses what it does not know, and never quotes content", () => {
    assert.throws(() => decode(Buffer.from("Zsecret")), PgoutputRefused, /^unknown message 90$/)
    const binary = bytes("I", { i32: 9 }, "N", { i16: 1 }, "b", { i32: 6 }, "secret")
    assert.throws(() => decode(binary), PgoutputRefused, /^unknown kind of cell 98 at byte 8$/)
    const identity = bytes("R", { i32: 9 }, ["public"], ["t"], "x", { i16: 0 })
    assert.throws(() => decode(identity), PgoutputRefused, /^unknown replica identity/)
  })
})
