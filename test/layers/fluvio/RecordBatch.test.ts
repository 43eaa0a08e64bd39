import { crc32c } from "@node-rs/crc32"
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import lz4 from "lz4-napi"
import { gzipSync, zstdCompressSync } from "node:zlib"
import snappy from "snappy"
import {
  BatchCorrupt,
  type Codec,
  decodeRecords,
  encodeBatch,
  findBatches,
  type NewRecord,
  setBaseOffset
} from "../../../layers/fluvio/RecordBatch.ts"
import { fuzzRuns } from "../../fuzz.ts"

const codecs: ReadonlyArray<Codec> = ["none", "gzip", "snappy", "lz4", "zstd"]

/** A batch of the native client with the records ("k", "v0") and ("", "v1"). */
const captured = Buffer.from(
  "000000000000000100000046ffffffff02f1d3ce5e000000000001000001a2089e0ec6000001a2089e0ec6ffffffffffffffffffffffffffff" +
    "00000002140000000102" +
    "6b0476300012000002010004763100",
  "hex"
)

const decode = (bytes: Buffer, from = 0, limit?: number) =>
  findBatches(bytes, limit).whole.flatMap((batch) =>
    decodeRecords(bytes, batch, from, limit).map(({ key, offset, timestamp, value }) => ({
      offset: offset as number,
      key,
      value,
      timestamp
    }))
  )

/** Makes a changed batch believable again. */
const reseal = (batch: Buffer): Buffer => {
  batch.writeInt32BE(batch.length - 12, 8)
  batch.writeUInt32BE(crc32c(batch.subarray(21)), 17)
  return batch
}

/** A batch whose body is exactly these bytes, as if some producer had compressed it. */
const batchOf = (codec: number, body: Buffer): Buffer => {
  const head = Buffer.from(captured.subarray(0, 57))
  head.writeInt16BE(codec, 21)
  return reseal(Buffer.concat([head, body]))
}

const plainBatch = (...body: ReadonlyArray<string>): Buffer => batchOf(0, Buffer.from(body.join(""), "hex"))

/** Runs the decoder over bytes that may mean nothing: it may refuse them, but in no other way than its own. */
const refusesOrReads = (bytes: Buffer): void => {
  try {
    decode(bytes, 0, 1_000_000)
  } catch (error) {
    assert.instanceOf(error, BatchCorrupt)
  }
}

const corrupt = (pattern: RegExp, bytes: Buffer, limit?: number): void => {
  try {
    decode(bytes, 0, limit)
  } catch (error) {
    assert.instanceOf(error, BatchCorrupt)
    assert.match((error as BatchCorrupt).reason, pattern)
    return
  }
  assert.fail(`nothing was refused; expected ${pattern}`)
}

const newRecord: fc.Arbitrary<NewRecord> = fc.record({
  key: fc.option(fc.uint8Array({ maxLength: 20 }), { nil: undefined }),
  value: fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.nat(70_000).map((size) => new Uint8Array(size).fill(size))
  )
})

describe("golden batch", () => {
  it("is read", () => {
    assert.deepStrictEqual(decode(captured), [
      { offset: 1, key: Buffer.from("k"), value: Buffer.from("v0"), timestamp: 0x1a2089e0ec6 },
      { offset: 2, key: Buffer.alloc(0), value: Buffer.from("v1"), timestamp: 0x1a2089e0ec6 }
    ])
  })

  it("is written", () => {
    const records = [
      { key: Buffer.from("k"), value: Buffer.from("v0") },
      { key: Buffer.alloc(0), value: Buffer.from("v1") }
    ]
    assert.strictEqual(
      encodeBatch(records, { timestamp: 0x1a2089e0ec6, baseOffset: 1 }).toString("hex"),
      captured.toString("hex")
    )
  })
})

describe("round trip", () => {
  for (const codec of codecs) {
    it(`${codec}: batches back to back come back as they were, at their offsets`, () => {
      fc.assert(
        fc.property(
          fc.array(fc.array(newRecord, { minLength: 1, maxLength: 20 }), { maxLength: 3 }),
          fc.nat(2 ** 40),
          fc.nat(60),
          (batches, first, skipped) => {
            let offset = first
            const bytes = Buffer.concat(
              batches.map((records) => {
                const batch = encodeBatch(records, { codec, timestamp: 1_700_000_000_000 })
                setBaseOffset(batch, offset)
                offset += records.length
                return batch
              })
            )
            const expected = batches.flat().map(({ key, value }, index) => ({
              offset: first + index,
              key: key === undefined ? undefined : Buffer.from(key),
              value: Buffer.from(value),
              timestamp: 1_700_000_000_000
            }))
            assert.deepStrictEqual(decode(bytes, first + skipped), expected.slice(skipped))
          }
        ),
        { numRuns: 40 }
      )
    })
  }

  it("values of an uncompressed batch are views, not copies", () => {
    const [record] = decode(captured)
    assert.strictEqual(record?.value.buffer, captured.buffer)
  })
})

describe("cut batches", () => {
  const bytes = Buffer.concat([
    encodeBatch([{ value: Buffer.from("a") }], { timestamp: 1, baseOffset: 7 }),
    encodeBatch([{ value: Buffer.from("b") }, { value: Buffer.from("c") }], { timestamp: 1, baseOffset: 8 })
  ])
  const first = findBatches(bytes).whole[0]?.end as number

  it("wherever the end cuts, whole batches are found and the cut one is described", () => {
    for (let end = 0; end < bytes.length; end++) {
      const { cut, whole } = findBatches(bytes.subarray(0, end))
      assert.strictEqual(whole.length, end < first ? 0 : 1, `cut at ${end}`)
      const start = end < first ? 0 : first
      const left = end - start
      const length = end < first ? first : bytes.length - first
      const offset = end < first ? 7 : 8
      assert.deepStrictEqual(
        cut,
        left === 0 ? undefined : { baseOffset: left < 8 ? undefined : offset, bytes: left < 12 ? 57 : length },
        `cut at ${end}`
      )
    }
  })

  it("no cut, no report", () => {
    const { cut, whole } = findBatches(bytes)
    assert.isUndefined(cut)
    assert.deepStrictEqual(
      whole.map(({ baseOffset, lastOffset }) => [baseOffset, lastOffset]),
      [
        [7, 7],
        [8, 9]
      ]
    )
  })
})

describe("corrupt batches", () => {
  it("one changed bit anywhere after the checksum is noticed", () => {
    for (let at = 21; at < captured.length; at++) {
      const batch = Buffer.from(captured)
      batch[at] = (batch[at] as number) ^ 0x10
      // The last offset delta is also read before the checksum, to know where the batch ends in the log.
      corrupt(/CRC-32C is|a last offset of/, batch)
    }
  })

  it("names the checksums and the offset", () => {
    const batch = Buffer.from(captured)
    batch.writeUInt32BE(0, 17)
    corrupt(/CRC-32C is f1d3ce5e instead of 00000000/, batch)
  })

  it("lengths, formats, offsets and codecs that cannot be", () => {
    const changed = (change: (batch: Buffer) => void): Buffer => {
      const batch = Buffer.from(captured)
      change(batch)
      return batch
    }
    corrupt(
      /a length of 56 bytes/,
      changed((batch) => batch.writeInt32BE(44, 8))
    )
    corrupt(
      /a length of -/,
      changed((batch) => batch.writeInt32BE(-100, 8))
    )
    corrupt(
      /a length of 2147483659 bytes/,
      changed((batch) => batch.writeInt32BE(0x7fff_ffff, 8))
    )
    corrupt(
      /format 1; expected 2/,
      changed((batch) => batch.writeInt8(1, 16))
    )
    corrupt(
      /a base offset/,
      changed((batch) => batch.writeBigInt64BE(2n ** 53n, 0))
    )
    corrupt(
      /a base offset/,
      changed((batch) => batch.writeInt32BE(-1, 0))
    )
    corrupt(
      /a last offset of/,
      changed((batch) => batch.writeInt32BE(-2, 23))
    )
    corrupt(/unknown codec 5/, batchOf(5, captured.subarray(57)))
  })

  it("counts and records that do not fit the batch", () => {
    corrupt(/ends before its record count/, plainBatch("000000"))
    corrupt(/2147483647 records cannot stand/, plainBatch("7fffffff", "14000000010000"))
    corrupt(/-1 records cannot stand/, plainBatch("ffffffff"))
    corrupt(/bytes follow/, plainBatch("00000001", "0c000000000000", "00"))
    corrupt(/record 0 has a length of/, plainBatch("00000001", "ff000000000000"))
    corrupt(/record 0 has a length of/, plainBatch("00000001", "0d000000000000"))
    corrupt(/key flag 2/, plainBatch("00000001", "0c000000020000"))
    corrupt(/a run of 5 bytes/, plainBatch("00000001", "0c000000000a00"))
    corrupt(/a run of -1 bytes/, plainBatch("00000001", "0c000000000100"))
    corrupt(/record 0 ends at byte/, plainBatch("00000001", "0e00000000000000"))
    corrupt(/has no end/, plainBatch("00000001", "ffffffffffffffffffffffffff"))
    corrupt(/record 0 has the offset 0/, plainBatch("00000001", "0c000001000000"))
  })

  it("a nonsensical time is no time, and no error", () => {
    const batch = Buffer.from(captured)
    batch.writeBigInt64BE(2n ** 62n, 27)
    assert.deepStrictEqual(
      decode(reseal(batch)).map(({ timestamp }) => timestamp),
      [undefined, undefined]
    )
  })

  it("a schema id is skipped", () => {
    const head = Buffer.from(captured.subarray(0, 57))
    head.writeInt16BE(0x10, 21)
    const batch = reseal(Buffer.concat([head, Buffer.from("0000002a", "hex"), captured.subarray(57)]))
    assert.deepStrictEqual(
      decode(batch).map(({ value }) => Buffer.from(value).toString()),
      ["v0", "v1"]
    )
  })
})

describe("codecs", () => {
  const body = captured.subarray(57)

  it("snappy frames as other libraries write and read them", async () => {
    const compressor = new snappy.Compressor()
    const records = [{ value: Buffer.alloc(200_000, "abcdefgh") }, { value: Buffer.from("z") }]
    const plain = encodeBatch(records, { timestamp: 1 }).subarray(57)
    const framed = Buffer.concat([compressor.update(plain), await compressor.finish()])
    assert.deepStrictEqual(
      decode(batchOf(2, framed)).map(({ value }) => value.length),
      [200_000, 1]
    )

    const decompressor = new snappy.Decompressor()
    const ours = encodeBatch(records, { timestamp: 1, codec: "snappy" }).subarray(57)
    const read = Buffer.concat([decompressor.update(ours), await decompressor.finish()])
    assert.isTrue(read.equals(plain))
  })

  it("snappy chunks that are cut, unknown or damaged", () => {
    const frames = encodeBatch([{ value: Buffer.alloc(1000, "a") }], { timestamp: 1, codec: "snappy" }).subarray(57)
    const changed = (change: (frames: Buffer) => Buffer | void): Buffer => {
      const copy = Buffer.from(frames)
      return batchOf(2, change(copy) ?? copy)
    }
    corrupt(
      /no stream identifier/,
      changed((copy) => copy.subarray(1))
    )
    corrupt(
      /a chunk is cut/,
      changed((copy) => copy.subarray(0, -1))
    )
    corrupt(
      /a chunk is cut/,
      changed((copy) => copy.subarray(0, 12))
    )
    corrupt(
      /unknown chunk of type 2/,
      changed((copy) => void (copy[10] = 2))
    )
    corrupt(
      /checksum differs/,
      changed((copy) => void (copy[14] = (copy[14] as number) ^ 1))
    )
    corrupt(
      /above 64 KiB/,
      changed((copy) => void copy.fill(0xff, 18, 22))
    )
    const skippable = Buffer.from([0x80, 2, 0, 0, 9, 9])
    assert.strictEqual(decode(changed((copy) => Buffer.concat([copy, skippable]))).length, 1)
  })

  it("data that is not of the codec", () => {
    for (const codec of [1, 2, 3, 4]) {
      corrupt(/ data: /, batchOf(codec, body))
      corrupt(/ data: /, batchOf(codec, Buffer.alloc(0)))
    }
  })

  it("LZ4 frames with and without checksums", () => {
    for (const options of [
      {},
      { contentChecksum: true },
      { blockChecksums: true },
      { contentChecksum: true, blockChecksums: true }
    ]) {
      const batch = batchOf(3, lz4.compressFrameSync(body, options))
      assert.deepStrictEqual(
        decode(batch).map(({ value }) => Buffer.from(value).toString()),
        ["v0", "v1"]
      )
    }
  })

  it("decompression stops at the limit", () => {
    const limit = 1_000_000
    const bomb = Buffer.alloc(50_000_000)
    const snappyBomb = encodeBatch([{ value: bomb }], { timestamp: 1, codec: "snappy" })
    corrupt(/gzip data: /, batchOf(1, gzipSync(bomb)), limit)
    // Snappy gains no more than a factor of about 20, so the batch itself passes the limit on batches only from there on.
    corrupt(/more than 3000000 bytes when decompressed/, snappyBomb, 3_000_000)
    corrupt(/more than 1000000 bytes when decompressed/, batchOf(3, lz4.compressFrameSync(bomb)), limit)
    corrupt(/zstd data: /, batchOf(4, zstdCompressSync(bomb)), limit)
  })
})

describe("bytes that mean nothing", () => {
  it("random ones", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => refusesOrReads(Buffer.from(bytes))),
      fuzzRuns(500)
    )
  })

  it("random bodies in a believable batch of every codec", () => {
    fc.assert(
      fc.property(fc.nat(7), fc.uint8Array({ maxLength: 300 }), (codec, body) =>
        refusesOrReads(batchOf(codec, Buffer.from(body)))
      ),
      fuzzRuns(500)
    )
  })

  it("damaged batches of every codec, believable again", () => {
    const whole = codecs.map((codec) =>
      encodeBatch(
        Array.from({ length: 20 }, (_, index) => ({
          key: Buffer.from(`key ${index}`),
          value: Buffer.alloc(50, index)
        })),
        { codec, timestamp: 1 }
      )
    )
    fc.assert(
      fc.property(
        fc.constantFrom(...whole),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.nat(40),
        (original, changes, shorter) => {
          const batch = Buffer.from(original.subarray(0, original.length - Math.min(shorter, original.length - 60)))
          for (const [place, byte] of changes) {
            batch[21 + (place % (batch.length - 21))] = byte
          }
          refusesOrReads(reseal(batch))
        }
      ),
      fuzzRuns(1500)
    )
  })
})
