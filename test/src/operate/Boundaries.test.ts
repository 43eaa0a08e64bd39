import { assert, describe, it } from "vitest"
import { type Found, type Place, Survey, type Wanted } from "../../../src/operate/Boundaries.ts"
import type { Position } from "../../../src/stream/OffsetStore.ts"
import * as events from "../../events.ts"

const pets = events.relationOf()
const second = 1_000_000n
/** Commits as many seconds later as its LSN says. */
const transaction = (lsn: number, time = BigInt(lsn) * second) => [
  events.begin(lsn, { timestamp: time }),
  events.insert(pets.id, [events.int4(lsn), events.text("n")]),
  events.commit(lsn, { timestamp: time })
]
const change = (id: number) => events.insert(pets.id, [events.int4(id), events.text("n")])

interface Given {
  readonly start?: number
  readonly current?: number
  readonly position?: Position
}

const positionAt = (offset: number, lsn: number): Position => ({
  offset: events.offset(offset),
  checksum: 1,
  epoch: 0,
  commitLsn: events.lsn(lsn),
  commitTime: BigInt(lsn) * second,
  latestTime: BigInt(lsn) * second
})

const survey = (
  target: Wanted,
  messages: ReadonlyArray<events.MessageFixture>,
  { current = 0, position, start = 0 }: Given = {}
): Found => {
  const survey = new Survey(target, events.offset(start), events.offset(current), position)
  for (const record of events.records(start, messages)) if (!survey.isDone) survey.push([record])
  return survey.found
}
const counted = (place: Place | undefined) =>
  place && { next: Number(place.next), transactions: place.transactions, rewinds: place.rewinds }
const at = (offset: number): Wanted => ({ type: "offset", offset: events.offset(offset) })
const behind = (lsn: number): Wanted => ({ type: "lsn", lsn: events.lsn(lsn) })
const since = (seconds: number): Wanted => ({ type: "time", time: BigInt(seconds) * second })
const first: Wanted = { type: "first" }

describe("places between two transactions", () => {
  const three = [transaction(10), transaction(20), transaction(30)].flat()

  it("are known by their offset, or the nearest two are named", () => {
    for (const offset of [0, 3, 6, 9]) {
      const { wanted } = survey(at(offset), three)
      assert.deepInclude(counted(wanted), { next: offset, transactions: offset / 3 })
    }
    const cases: ReadonlyArray<readonly [number, number | undefined, number | undefined]> = [
      [1, 0, 3],
      [5, 3, 6],
      [8, 6, 9],
      [50, 9, undefined]
    ]
    for (const [offset, before, after] of cases) {
      const { nearest, wanted } = survey(at(offset), three)
      assert.isUndefined(wanted)
      assert.deepEqual(nearest, { before, after })
    }
  })

  it("are those in front of a Begin, whatever is open there", () => {
    const brokenOff = [...transaction(10), ...transaction(20).slice(0, 2), ...transaction(20)]
    assert.strictEqual(survey(at(5), brokenOff).wanted?.transactions, 1)
    assert.strictEqual(survey(at(8), brokenOff).wanted?.transactions, 2)
    // The Commit of 20 is lost.
    const torn = [...transaction(10), ...transaction(20).slice(0, 2), ...transaction(30)]
    assert.strictEqual(survey(at(5), torn).wanted?.transactions, 2)
  })

  it("begin with the first Begin, or at the start of a log that has none", () => {
    const rest = [...transaction(10).slice(1), ...transaction(20)]
    assert.strictEqual(survey(first, rest, { start: 7 }).wanted?.next, 9)
    assert.strictEqual(survey(first, three, { start: 7 }).wanted?.next, 7)
    assert.strictEqual(survey(first, [change(1), change(2)], { start: 7 }).wanted?.next, 7)
    assert.isUndefined(survey(at(8), rest, { start: 7 }).wanted)
    assert.deepEqual(survey(at(8), rest, { start: 7 }).nearest, { before: undefined, after: events.offset(9) })
    assert.isUndefined(survey(first, transaction(10).slice(1), { start: 7 }).wanted)
  })

  it("are all of a log without Begin and Commit, where each change is a transaction", () => {
    const bare = [events.relation(pets), change(1), change(2), change(3)]
    for (const [offset, transactions] of [
      [0, 0],
      [1, 0],
      [2, 1],
      [4, 3]
    ]) {
      const { wanted } = survey(at(offset), bare)
      assert.deepInclude(counted(wanted), { next: offset, transactions })
    }
    assert.isUndefined(survey(at(5), bare).wanted)
    assert.strictEqual(survey(at(7), [], { start: 7 }).wanted?.next, 7)
  })

  it("are behind a commit LSN, or behind the last one below it", () => {
    for (const [lsn, next] of [
      [10, 3],
      [29, 6],
      [30, 9],
      [99, 9]
    ]) {
      assert.strictEqual(survey(behind(lsn), three).wanted?.next, next)
    }
    assert.isUndefined(survey(behind(9), three).wanted)
    assert.strictEqual(survey(behind(99), three).last?.commitLsn, 30n)
  })

  it("are before the first transaction that committed at a time or later", () => {
    for (const [seconds, next] of [
      [0, 0],
      [10, 0],
      [11, 3],
      [30, 6],
      [31, 9]
    ]) {
      assert.strictEqual(survey(since(seconds), three).wanted?.next, next)
    }
    const unfinished = [...three, ...transaction(40).slice(0, 2)]
    assert.strictEqual(survey(since(40), unfinished).wanted?.next, 9)
    assert.isUndefined(survey(since(41), unfinished).wanted)
  })
})

describe("transactions that the source has sent again", () => {
  const three = [transaction(10), transaction(20), transaction(30)].flat()
  const repeated = [...three, ...transaction(20), ...transaction(30), ...transaction(40)]

  it("count once, and a place is behind the first of each", () => {
    assert.strictEqual(survey(behind(20), repeated).wanted?.next, 6)
    assert.strictEqual(survey(at(18), repeated).wanted?.transactions, 4)
    // Between two that are sent again, which shows only behind it.
    assert.strictEqual(survey(at(12), repeated).wanted?.transactions, 3)
    assert.strictEqual(survey(at(12), repeated).wanted?.rewinds, 0)
  })

  it("are known by the stored position where the log does not have the one that was applied last", () => {
    const rest = [...transaction(20), ...transaction(30), ...transaction(40)]
    const known = survey(at(29), rest, { start: 20, current: 20, position: positionAt(19, 30) })
    assert.strictEqual(known.wanted!.transactions - known.current.transactions, 1)
    const unknown = survey(at(29), rest, { start: 20, current: 20 })
    assert.strictEqual(unknown.wanted!.transactions - unknown.current.transactions, 3)
  })

  it("are none where the last one is not among them: the source was rewound", () => {
    // By its clock.
    const later = [...three, ...transaction(15, 31n * second), ...transaction(25, 32n * second)]
    assert.deepInclude(counted(survey(behind(20), later).wanted), { next: 12, rewinds: 1 })
    assert.strictEqual(survey(at(15), later).wanted?.transactions, 5)
    // By what follows: the new clock is behind.
    const behindTime = [...three, ...transaction(15), ...transaction(25), ...transaction(35)]
    assert.deepInclude(counted(survey(behind(20), behindTime).wanted), { next: 12 })
    assert.strictEqual(survey(at(18), behindTime).wanted?.transactions, 6)
    assert.strictEqual(survey(at(18), behindTime).wanted?.rewinds, 1)
  })
})

describe("a stored position", () => {
  it("is where the counting begins or ends, and which transactions lie between is known", () => {
    const log = [transaction(10), transaction(20), transaction(30), transaction(40)].flat()
    const forth = survey(at(9), log, { current: 3, position: positionAt(2, 10) })
    assert.strictEqual(forth.wanted!.transactions - forth.current.transactions, 2)
    assert.deepEqual([forth.current.after?.commitLsn, forth.wanted?.before?.commitLsn], [20n, 30n])
    const back = survey(at(3), log, { current: 9, position: positionAt(8, 30) })
    assert.strictEqual(back.current.transactions - back.wanted!.transactions, 2)
    assert.deepEqual([back.wanted?.after?.commitLsn, back.current.before?.commitLsn], [20n, 30n])
  })
})
