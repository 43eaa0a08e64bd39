import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import { appendFileSync, mkdtempSync, rmSync, statSync, truncateSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { PartitionLog } from "../../../layers/embedded/PartitionLog.ts"
import { decodeRecords, encodeBatch, findBatches } from "../../../layers/fluvio/RecordBatch.ts"

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "partition-log-"))
})
afterEach(() => rmSync(folder, { recursive: true }))

const batchOf = (count: number): Buffer =>
  encodeBatch(
    Array.from({ length: count }, () => ({ value: Buffer.alloc(20, 0x61) })),
    { timestamp: 1 }
  )

const everything = Number.MAX_SAFE_INTEGER

const read = (log: PartitionLog, from: number, until = log.end, maxBytes = everything, cut = false): Buffer =>
  Buffer.concat(log.read(from, until, maxBytes, cut))

const offsets = (bytes: Buffer): ReadonlyArray<number> =>
  findBatches(bytes).whole.flatMap((batch) => decodeRecords(bytes, batch).map(({ offset }) => offset as number))

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index)

const inMemory = (firstOffset?: number) => new PartitionLog(undefined, firstOffset)
const inFile = (firstOffset?: number) => new PartitionLog(join(folder, "0.log"), firstOffset)

for (const [where, make] of [
  ["memory", inMemory],
  ["a file", inFile]
] as const) {
  describe(`a log in ${where}`, () => {
    it("gives batches their place and returns them from the one that holds an offset", () => {
      const log = make(5_000_000_000)
      assert.deepStrictEqual(
        [3, 5, 2].map((count) => log.append(batchOf(count))),
        [5_000_000_000, 5_000_000_003, 5_000_000_008]
      )
      assert.strictEqual(log.end, 5_000_000_010)
      assert.deepStrictEqual(offsets(read(log, 5_000_000_000)), range(5_000_000_000, 5_000_000_010))
      assert.deepStrictEqual(offsets(read(log, 5_000_000_005)), range(5_000_000_003, 5_000_000_010))
      assert.deepStrictEqual(offsets(read(log, 5_000_000_005, 5_000_000_008)), range(5_000_000_003, 5_000_000_008))
      assert.deepStrictEqual(log.read(log.end, log.end, everything, false), [])
      log.close()
    })

    it("returns what fits, but at least one batch; or exactly so many bytes", () => {
      const log = make()
      const size = batchOf(2).length
      for (let index = 0; index < 4; index++) {
        log.append(batchOf(2))
      }
      assert.strictEqual(read(log, 0, 8, size * 2 + 1).length, size * 2)
      assert.strictEqual(read(log, 0, 8, 1).length, size)
      for (const bytes of [1, size - 1, size, size + 1, size * 4]) {
        const cut = read(log, 0, 8, bytes, true)
        assert.isTrue(cut.equals(read(log, 0).subarray(0, bytes)), `${bytes} bytes`)
      }
      assert.strictEqual(read(log, 0, 8, everything, true).length, size * 4)
      log.close()
    })

    it("forgets what lies before its start, also in the middle of a batch", () => {
      const log = make()
      for (let index = 0; index < 4; index++) {
        log.append(batchOf(5))
      }
      log.trim(7)
      assert.strictEqual(log.start, 7)
      assert.deepStrictEqual(offsets(read(log, 7)), range(5, 20))
      log.trim(20)
      assert.strictEqual(log.size, 0)
      assert.strictEqual(log.append(batchOf(1)), 20)
      log.close()
    })
  })
}

describe("a log that is opened again", () => {
  it("is as it was", () => {
    const path = join(folder, "0.log")
    const first = new PartitionLog(path, 100)
    first.append(batchOf(5))
    first.append(batchOf(5))
    first.trim(106)
    first.close()
    const second = new PartitionLog(path)
    assert.deepStrictEqual([second.start, second.end], [106, 110])
    assert.deepStrictEqual(offsets(read(second, 106)), range(105, 110))
    second.trim(110)
    second.close()
    const third = new PartitionLog(path)
    assert.deepStrictEqual([third.start, third.end, third.append(batchOf(1))], [110, 110, 110])
    third.close()
  })

  it("loses an incomplete batch at its end, wherever it was cut, and goes on before it", () => {
    const path = join(folder, "0.log")
    const first = new PartitionLog(path)
    first.append(batchOf(5))
    const kept = statSync(path).size
    first.append(batchOf(3))
    first.close()
    const full = statSync(path).size
    const second = batchOf(3)
    for (let size = full - 1; size > kept; size -= 7) {
      truncateSync(path, size)
      const log = new PartitionLog(path)
      assert.strictEqual(log.end, 5, `cut at ${size}`)
      assert.strictEqual(log.append(second), 5)
      assert.deepStrictEqual(offsets(read(log, 0)), range(0, 8))
      log.close()
    }
  })

  it("refuses a file that is no log", () => {
    const path = join(folder, "0.log")
    appendFileSync(path, Buffer.alloc(100, 0x20))
    assert.throws(() => new PartitionLog(path), /corrupt/)
  })
})
