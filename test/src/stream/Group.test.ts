import { assert, describe, it } from "vitest"
import { FluvioRecord, Offset } from "../../../src/stream/FluvioConsumer.ts"
import * as Group from "../../../src/stream/Group.ts"
import type { Change, End, Piece } from "../../../src/stream/Change.ts"

const change = { type: "type", offset: Offset.make(0), id: 1, namespace: "", name: "t" } satisfies Change
const end: End = {
  record: FluvioRecord.of(Offset.make(0), new Uint8Array()),
  commitLsn: undefined,
  commitTime: undefined,
  latestTime: undefined
}

const piece = (changes: number, bytes: number, part: Partial<Piece> = {}): Piece => ({
  isFirst: true,
  first: Offset.make(0),
  xid: 1,
  changes: Array.from({ length: changes }, () => change),
  bytes,
  records: changes + 2,
  end,
  epoch: 0,
  repeated: undefined,
  skip: undefined,
  refusal: undefined,
  ...part
})

const limits: Group.GroupLimits = { rows: 10, bytes: 1000, transactions: undefined }

describe("sizeOf", () => {
  it("takes transactions as long as they stay within the rows", () => {
    assert.strictEqual(Group.sizeOf([piece(4, 1), piece(4, 1), piece(4, 1)], limits), 2)
  })

  it("takes transactions as long as they stay within the bytes", () => {
    assert.strictEqual(Group.sizeOf([piece(1, 600), piece(1, 400), piece(1, 1)], limits), 2)
  })

  it("takes a transaction that alone is over the limits", () => {
    assert.strictEqual(Group.sizeOf([piece(50, 5000), piece(1, 1)], limits), 1)
  })

  it("counts transactions when asked to", () => {
    const waiting = [piece(1, 1), piece(1, 1), piece(1, 1)] as const
    assert.strictEqual(Group.sizeOf(waiting, { ...limits, transactions: 1 }), 1)
    assert.strictEqual(Group.sizeOf(waiting, { ...limits, transactions: 2 }), 2)
  })

  it("leaves a transaction that is streamed to a group of its own", () => {
    const open = piece(5, 900, { end: undefined })
    const rest = piece(2, 300, { isFirst: false })
    assert.strictEqual(Group.sizeOf([piece(1, 1), open, rest], limits), 1)
    assert.strictEqual(Group.sizeOf([open, rest], limits), 1)
    assert.strictEqual(Group.sizeOf([rest, piece(1, 1)], limits), 1)
  })
})

describe("isFull", () => {
  it("is full by rows, by bytes, by count, and by a transaction that is still open", () => {
    assert.isFalse(Group.isFull([piece(9, 1)], limits))
    assert.isTrue(Group.isFull([piece(9, 1), piece(1, 1)], limits))
    assert.isTrue(Group.isFull([piece(1, 1000)], limits))
    assert.isTrue(Group.isFull([piece(1, 1)], { ...limits, transactions: 1 }))
    assert.isTrue(Group.isFull([piece(1, 1, { end: undefined })], limits))
  })
})
