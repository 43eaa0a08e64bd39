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

const waiting = (...pieces: ReadonlyArray<Piece>) => {
  const waiting = new Group.Waiting()
  waiting.add(pieces)
  return waiting
}

describe("take", () => {
  it("takes transactions as long as they stay within the rows", () => {
    const pieces = waiting(piece(4, 1), piece(4, 1), piece(4, 1))
    assert.lengthOf(pieces.take(limits), 2)
    assert.strictEqual(pieces.count, 1)
  })

  it("takes transactions as long as they stay within the bytes", () => {
    assert.lengthOf(waiting(piece(1, 600), piece(1, 400), piece(1, 1)).take(limits), 2)
  })

  it("takes a transaction that alone is over the limits", () => {
    assert.lengthOf(waiting(piece(50, 5000), piece(1, 1)).take(limits), 1)
  })

  it("counts transactions when asked to", () => {
    const pieces = [piece(1, 1), piece(1, 1), piece(1, 1)]
    assert.lengthOf(waiting(...pieces).take({ ...limits, transactions: 1 }), 1)
    assert.lengthOf(waiting(...pieces).take({ ...limits, transactions: 2 }), 2)
  })

  it("leaves a transaction that is streamed to a group of its own", () => {
    const open = piece(5, 900, { end: undefined })
    const rest = piece(2, 300, { isFirst: false })
    const pieces = waiting(piece(1, 1), open, rest, piece(1, 1))
    assert.deepStrictEqual(
      [pieces.take(limits), pieces.take(limits), pieces.take(limits), pieces.take(limits)].map((group) => group.length),
      [1, 1, 1, 1]
    )
  })

  it("leaves another epoch to a group of its own", () => {
    assert.lengthOf(waiting(piece(1, 1), piece(1, 1), piece(1, 1, { epoch: 1 })).take(limits), 2)
  })
})

describe("isFull", () => {
  it("is full by rows, by bytes, by count, and by a transaction that is still open", () => {
    assert.isFalse(waiting(piece(9, 1)).isFull(limits))
    assert.isTrue(waiting(piece(9, 1), piece(1, 1)).isFull(limits))
    assert.isTrue(waiting(piece(1, 1000)).isFull(limits))
    assert.isTrue(waiting(piece(1, 1)).isFull({ ...limits, transactions: 1 }))
    assert.isTrue(waiting(piece(1, 1, { end: undefined })).isFull(limits))
    assert.isTrue(waiting(piece(1, 1), piece(1, 1, { epoch: 1 })).isFull(limits))
  })

  it("counts only what still waits", () => {
    const pieces = waiting(piece(9, 1), piece(3, 1))
    pieces.take(limits)
    assert.isFalse(pieces.isFull(limits))
    pieces.add([piece(7, 1)])
    assert.isTrue(pieces.isFull(limits))
  })
})

describe("hasWork", () => {
  it("is a change or a part of a streamed transaction that waits", () => {
    assert.isFalse(waiting(piece(0, 1)).hasWork)
    assert.isTrue(waiting(piece(0, 1), piece(1, 1)).hasWork)
    assert.isTrue(waiting(piece(0, 1, { end: undefined })).hasWork)
    const pieces = waiting(piece(10, 1), piece(0, 1))
    pieces.take({ ...limits, transactions: 1 })
    assert.isFalse(pieces.hasWork)
  })
})
