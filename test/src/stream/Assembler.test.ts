import { assert, describe, it } from "@effect/vitest"
import { Array, Option } from "effect"
import * as fc from "fast-check"
import type { FluvioRecord, Offset } from "../../../src/stream/FluvioConsumer.ts"
import type { Described, Position, StoredRelation } from "../../../src/stream/OffsetStore.ts"
import { EventDecodeError, FloatNull } from "../../../src/stream/ReplicationEvent.ts"
import { Assembler, type AssemblerOptions } from "../../../src/stream/Assembler.ts"
import {
  BeginMissing,
  CommitMismatch,
  CommitMissing,
  CommitWithoutBegin,
  OutsideTransaction,
  RecordsRepeated,
  SourceRewound,
  UnknownRelation,
  WrongArity
} from "../../../src/stream/TransactionError.ts"
import { type Change, type Piece } from "../../../src/stream/Change.ts"
import * as Events from "../../events.ts"

const pets = Events.relationOf()
const grown = Events.relationOf({
  columns: [...pets.columns, { name: "born", isKey: false, typeId: 1082, typeModifier: -1 }]
})
const row = (id: number) => [Events.int4(id), Events.text(`pet ${id}`)]
const cells = (id: number) => [`${id}`, `pet ${id}`]
const grownRow = (id: number) => [...row(id), Events.sqlNull]

const nothingDescribed: Described = { relations: [], types: [] }
const knowsPets: Described = { relations: [{ relation: pets, offset: Events.offset(0) }], types: [] }

const defaults: AssemblerOptions = {
  position: Option.none(),
  described: knowsPets,
  appliedThrough: undefined,
  maxBytes: 1_000_000,
  floatNull: "halt",
  onUnreadable: "halt",
  acceptEpoch: undefined,
  skips: [],
  hasTransactions: false
}

const positionAt = (offset: number, lsn: bigint | number, time: bigint | undefined): Option.Option<Position> =>
  Option.some({
    offset: Events.offset(offset),
    checksum: 1,
    epoch: 0,
    commitLsn: Events.lsn(lsn),
    commitTime: time,
    latestTime: time
  })

/** Of a log without Begin and Commit. */
const lone = Option.map(positionAt(9, 1, 1n), (position) => ({
  ...position,
  commitLsn: undefined,
  commitTime: undefined,
  latestTime: undefined
}))

const push = (assembler: Assembler, records: ReadonlyArray<FluvioRecord>): ReadonlyArray<Piece> =>
  Array.isReadonlyArrayNonEmpty(records) ? assembler.push(records) : []

const assemble = (messages: ReadonlyArray<Events.MessageFixture>, options: Partial<AssemblerOptions> = {}, from = 0) =>
  push(new Assembler({ ...defaults, ...options }), Events.records(from, messages))

const thrownBy = (body: () => unknown): unknown => {
  try {
    body()
  } catch (error) {
    return error
  }
  return assert.fail("nothing was thrown")
}

const empty = (lsn: number, timestamp: bigint) => [Events.begin(lsn, { timestamp }), Events.commit(lsn, { timestamp })]
const outline = (pieces: ReadonlyArray<Piece>) =>
  pieces.map(({ end, first, repeated }) => [first, end?.record.offset, repeated?.transactions])

const changesOf = (pieces: ReadonlyArray<Piece>) => pieces.flatMap((piece) => piece.changes)
const typesOf = (pieces: ReadonlyArray<Piece>) => changesOf(pieces).map((change) => change.type)
const insertedIds = (pieces: ReadonlyArray<Piece>) =>
  changesOf(pieces).flatMap((change) => (change.type === "insert" ? [change.tuple.cell(0)] : []))

interface Applied {
  readonly commitLsn: bigint | undefined
  readonly changes: ReadonlyArray<Change>
}

/** What a target holds that applies whole transactions, and goes back to its position when the connector ends. */
class Target {
  readonly applied: Array<Applied> = []
  position: Option.Option<Position> = Option.none()
  error: unknown
  readonly relations = new Map<number, StoredRelation>()
  private open: Array<Change> = []

  apply(piece: Piece): void {
    if (piece.isFirst) this.open = []
    this.open.push(...piece.changes)
    if (piece.end === undefined) return
    const { record, ...last } = piece.end
    if (piece.epoch !== Option.match(this.position, { onNone: () => 0, onSome: ({ epoch }) => epoch })) {
      this.relations.clear()
    }
    this.position = Option.some({ offset: record.offset, checksum: undefined, epoch: piece.epoch, ...last })
    if (piece.repeated !== undefined) return
    this.applied.push({ commitLsn: last.commitLsn, changes: this.open })
    for (const change of this.open) if (change.type === "relation") this.relations.set(change.relation.id, change)
  }

  next(): number {
    this.open = []
    return Option.match(this.position, { onNone: () => 0, onSome: ({ offset }) => offset + 1 })
  }
}

/** Each transaction once, in order, a changed shape before the first row that has it. */
const expected = (history: ReadonlyArray<Events.SourceTransaction>) => {
  const shapes = new Map<number, number>()
  return history.map(({ changes, finalLsn }) => ({
    commitLsn: finalLsn,
    changes: changes.flatMap(({ message, relation }) => {
      const previous = shapes.get(relation.id)
      shapes.set(relation.id, relation.columns.length)
      const { event } = message
      const change =
        event.type === "truncate"
          ? { ...event, offset: undefined, relIds: undefined, relations: [relation] }
          : { ...event, offset: undefined, relId: undefined, relation }
      return previous === relation.columns.length
        ? [change]
        : [{ type: "relation", offset: undefined, relation, previous }, change]
    })
  }))
}
const comparable = (applied: ReadonlyArray<Applied>) =>
  applied.map(({ changes, commitLsn }) => ({
    commitLsn,
    changes: changes.map((change) =>
      change.type === "relation"
        ? { ...change, offset: undefined, previous: change.previous?.columns.length }
        : change.type === "truncate"
          ? { ...change, offset: undefined, relIds: undefined }
          : { ...change, offset: undefined, relId: undefined }
    )
  }))

/** Where two histories meet, only rows can be compared: what was described in one means nothing in the other. */
const rowsOf = (applied: ReadonlyArray<Applied>) =>
  applied.map(({ changes, commitLsn }) => [
    commitLsn,
    changes.flatMap((change) => (change.type === "insert" ? [change.tuple.cells] : []))
  ])
const rowsIn = (history: ReadonlyArray<Events.SourceTransaction>) =>
  history.map(({ changes, finalLsn }) => [
    finalLsn,
    changes.flatMap(({ message: { event } }) => (event.type === "insert" ? [event.tuple.cells] : []))
  ])

const maxBytes = fc.constantFrom(1, 300, 600, 1_000_000)

/** So many times, now and then. */
const crashing = (choose: (n: number) => number, times: number) => {
  let left = times
  return () => left > 0 && choose(3) === 0 && left-- > 0
}

/**
 * Pushes in chunks of any size; `crash` decides after which the connector starts again from the position. What stops it is
 * the target's `error`.
 */
const run = (
  records: ReadonlyArray<FluvioRecord>,
  limit: number,
  choose: (n: number) => number,
  crash: () => boolean,
  target = new Target(),
  acceptEpoch?: Offset
): Target => {
  target.error = undefined
  const resume = () =>
    new Assembler({
      ...defaults,
      position: target.position,
      described: { relations: [...target.relations.values()], types: [] },
      maxBytes: limit,
      acceptEpoch
    })
  let assembler = resume()
  for (let at = target.next(); at < records.length;) {
    const chunk = records.slice(at, at + 1 + choose(6))
    at += chunk.length
    try {
      push(assembler, chunk)
    } catch (error) {
      target.error = error
    }
    assembler.completed.forEach((piece) => target.apply(piece))
    if (target.error !== undefined) break
    if (crash()) {
      at = target.next()
      assembler = resume()
    }
  }
  return target
}

describe("Assembler", () => {
  it("makes one piece of a transaction", () => {
    const records = Events.records(40, [
      Events.begin(100, { timestamp: 7n, xid: 5 }),
      Events.relation(pets),
      Events.insert(pets.id, row(1)),
      Events.update(pets.id, [Events.int4(1), Events.unchangedToast], { key: [Events.int4(2), Events.sqlNull] }),
      Events.remove(pets.id, { old: row(1) }),
      Events.truncate([pets.id], { cascade: true }),
      Events.commit(100, { timestamp: 7n })
    ])
    const pieces = push(new Assembler({ ...defaults, described: nothingDescribed }), records)
    assert.deepStrictEqual(Events.plain(pieces), [
      {
        isFirst: true,
        first: Events.offset(40),
        xid: 5,
        epoch: 0,
        changes: [
          { type: "relation", offset: Events.offset(41), relation: pets, previous: undefined },
          { type: "insert", offset: Events.offset(42), relation: pets, tuple: cells(1) },
          {
            type: "update",
            offset: Events.offset(43),
            relation: pets,
            oldTuple: null,
            keyTuple: ["2", null],
            newTuple: ["1", undefined]
          },
          { type: "delete", offset: Events.offset(44), relation: pets, oldTuple: cells(1), keyTuple: null },
          { type: "truncate", offset: Events.offset(45), relations: [pets], cascade: true, restartIdentity: false }
        ],
        bytes: records.reduce((sum, record) => sum + record.value.length, 0),
        records: 7,
        end: { record: records[6]!, commitLsn: Events.lsn(100), commitTime: 7n, latestTime: 7n },
        repeated: undefined,
        skip: undefined,
        refusal: undefined
      }
    ])
  })

  it("makes a piece of each transaction, of an empty one too", () => {
    const pieces = assemble([
      Events.begin(100),
      Events.insert(pets.id, row(1)),
      Events.commit(100),
      Events.begin(200),
      Events.commit(200),
      Events.begin(300)
    ])
    assert.deepStrictEqual(
      pieces.map((piece) => [piece.changes.length, piece.records, piece.end?.commitLsn]),
      [
        [1, 3, Events.lsn(100)],
        [0, 2, Events.lsn(200)]
      ]
    )
  })

  it("never takes rows for duplicates because they are equal or share an LSN", () => {
    const pieces = assemble([
      Events.begin(100),
      Events.insert(pets.id, row(1)),
      Events.insert(pets.id, row(1)),
      Events.commit(100)
    ])
    assert.deepStrictEqual(insertedIds(pieces), ["1", "1"])
  })

  it("tolerates an origin, inside a transaction and in a log without any", () => {
    const inside = assemble([Events.begin(100), Events.origin(90, "up"), Events.commit(100)])
    assert.deepStrictEqual(changesOf(inside), [])
    assert.deepStrictEqual(outline(inside), [[0, 2, undefined]])
    assert.deepStrictEqual(outline(assemble([Events.origin(1, "up")])), [[0, 0, undefined]])
  })

  it("makes a transaction without an LSN of each change outside Begin and Commit", () => {
    const pieces = assemble(
      [Events.relation(pets), Events.insert(pets.id, row(1)), Events.insert(pets.id, row(2))],
      { described: nothingDescribed, position: lone },
      10
    )
    assert.deepStrictEqual(typesOf(pieces), ["relation", "insert", "insert"])
    for (const piece of pieces) {
      assert.isTrue(piece.isFirst)
      assert.strictEqual(piece.xid, undefined)
      assert.strictEqual(piece.end?.commitLsn, undefined)
      assert.strictEqual(piece.end?.commitTime, undefined)
    }
  })

  it("counts a shape described outside Begin and Commit from there on", () => {
    const pieces = assemble([Events.relation(grown), Events.relation(grown), Events.insert(pets.id, grownRow(1))])
    assert.deepStrictEqual(typesOf(pieces), ["relation", "insert"])
  })

  describe("when the source broke off", () => {
    it("drops the open transaction and takes the repeat", () => {
      const pieces = assemble([
        Events.begin(100),
        Events.insert(pets.id, row(1)),
        Events.begin(100),
        Events.insert(pets.id, row(1)),
        Events.insert(pets.id, row(2)),
        Events.commit(100)
      ])
      assert.strictEqual(pieces.length, 1)
      assert.deepStrictEqual(insertedIds(pieces), ["1", "2"])
      assert.isTrue(pieces[0]!.isFirst)
      assert.strictEqual(pieces[0]!.records, 4)
    })

    it("starts anew with a first piece when parts were given away already", () => {
      const rows = [1, 2, 3].map((id) => Events.insert(pets.id, row(id)))
      const pieces = assemble([Events.begin(100), ...rows, Events.begin(100), ...rows, Events.commit(100)], {
        maxBytes: 1
      })
      assert.deepStrictEqual(
        pieces.map((piece) => [piece.isFirst, piece.changes.length, piece.end !== undefined]),
        [
          [true, 1, false],
          [false, 1, false],
          [true, 1, false],
          [false, 1, false],
          [false, 1, true]
        ]
      )
    })

    it("forgets the shapes that it only described there", () => {
      const pieces = assemble([
        Events.begin(100),
        Events.relation(grown),
        Events.begin(100),
        Events.relation(grown),
        Events.insert(pets.id, grownRow(1)),
        Events.commit(100)
      ])
      assert.deepStrictEqual(changesOf(pieces).slice(0, 1), [
        { type: "relation", offset: Events.offset(3), relation: grown, previous: pets }
      ])
    })

    it("announces such a shape before the first row that has it", () => {
      const pieces = assemble([
        Events.begin(100),
        Events.relation(grown),
        Events.begin(100),
        Events.insert(pets.id, grownRow(1)),
        Events.commit(100)
      ])
      assert.deepStrictEqual(changesOf(pieces)[0], {
        type: "relation",
        offset: Events.offset(3),
        relation: grown,
        previous: pets
      })
    })
  })

  describe("when a transaction is sent again", () => {
    const again = [
      Events.begin(100, { timestamp: 7n }),
      Events.relation(pets),
      Events.insert(pets.id, row(1)),
      Events.commit(100, { timestamp: 7n })
    ]
    const last = empty(300, 9n)
    const position = positionAt(9, 300, 9n)
    const later = [
      Events.begin(400, { timestamp: 10n }),
      Events.insert(pets.id, row(2)),
      Events.commit(400, { timestamp: 10n })
    ]

    it("gives one piece without changes of all repeats, as soon as the one applied last is among them", () => {
      const assembler = new Assembler({ ...defaults, position })
      assert.deepStrictEqual(push(assembler, Events.records(10, again)), [])
      assert.strictEqual(assembler.unproved, Events.offset(10))
      const pieces = push(assembler, Events.records(14, last))
      assert.deepStrictEqual(Events.plain(pieces), [
        {
          isFirst: true,
          first: Events.offset(10),
          xid: undefined,
          epoch: 0,
          changes: [],
          bytes: Events.records(10, [...again, ...last]).reduce((sum, record) => sum + record.size, 0),
          records: 6,
          end: { record: Events.record(15, last[1]!), commitLsn: Events.lsn(300), commitTime: 9n, latestTime: 9n },
          repeated: { transactions: 2, lowest: Events.lsn(100), highest: Events.lsn(300) },
          skip: undefined,
          refusal: undefined
        }
      ])
      assert.strictEqual(assembler.unproved, undefined)
    })

    it("notices it within one run", () => {
      assert.deepStrictEqual(outline(assemble([...again, ...again])), [
        [0, 3, undefined],
        [4, 7, 1]
      ])
    })

    it("takes repeats of repeats: the source starts again in the middle of them", () => {
      const messages = [...again, last[0]!, ...again, again[0]!, ...again, ...last, ...last, ...later]
      assert.deepStrictEqual(outline(assemble(messages, { position }, 10)), [
        [10, 25, 4],
        [26, 27, 1],
        [28, 30, undefined]
      ])
    })

    it("goes on in the middle of repeats, behind which an earlier version saved its position", () => {
      assert.deepStrictEqual(outline(assemble([...last, ...later], { position }, 10)), [
        [10, 11, 1],
        [12, 14, undefined]
      ])
    })

    it("stops at new history when the one applied last was not among them, and has moved past none of them", () => {
      const assembler = new Assembler({ ...defaults, position })
      const error = thrownBy(() => push(assembler, Events.records(10, [...again, ...empty(200, 8n), ...later])))
      assert.instanceOf(error, SourceRewound)
      assert.deepInclude({ ...error }, { offset: 10, commitLsn: "0/64", applied: "0/12C", next: 16 })
      assert.include(error.remedy, "--offset 10 --new-epoch")
      assert.deepStrictEqual(assembler.completed, [])
    })

    it("stops at the LSN of the one applied last with another commit time", () => {
      const error = thrownBy(() => assemble([...again, ...empty(300, 8n)], { position }, 10))
      assert.instanceOf(error, SourceRewound)
      assert.deepInclude({ ...error }, { offset: 10, next: 14 })
    })

    it("does not take a commit whose clock was ahead for one applied last", () => {
      const ahead = assemble([...empty(100, 1_000n), ...empty(200, 5n)])
      const end = ahead[1]!.end!
      assert.deepStrictEqual([end.commitTime, end.latestTime], [5n, 1_000n])
      const after = Option.map(positionAt(3, 200, end.commitTime), (saved) => ({ ...saved, latestTime: 1_000n }))
      assert.instanceOf(
        thrownBy(() => assemble([...empty(150, 6n), ...empty(250, 7n)], { position: after }, 4)),
        SourceRewound
      )
      assert.deepStrictEqual(
        outline(assemble([...empty(100, 1_000n), ...empty(200, 5n), ...later], { position: after }, 4)),
        [
          [4, 7, 2],
          [8, 10, undefined]
        ]
      )
    })

    it("believes a position of an earlier version, which kept the latest time only", () => {
      const earlier = Option.map(position, (saved) => ({ ...saved, latestTime: undefined }))
      assert.deepStrictEqual(outline(assemble([...again, ...empty(300, 8n)], { position: earlier }, 10)), [[10, 15, 2]])
    })

    it("lets the Commit of a repeat be missing between repeats, but not in front of new history", () => {
      const messages = [...again.slice(0, 3), ...last, ...later]
      assert.deepStrictEqual(outline(assemble(messages, { position }, 10)), [
        [10, 14, 1],
        [15, 17, undefined]
      ])
      const error = thrownBy(() => assemble([...again, last[0]!, ...later], { position }, 10))
      assert.instanceOf(error, CommitMissing)
      assert.deepInclude({ ...error }, { offset: 14, commitLsn: "0/12C", next: 15, nextLsn: "0/190" })
    })

    it("reads later rows by what it described", () => {
      const pieces = assemble([...again, ...last, ...later], { described: nothingDescribed, position }, 10)
      assert.deepStrictEqual(typesOf(pieces), ["relation", "insert"])
      assert.deepStrictEqual(insertedIds(pieces), ["2"])
    })

    it("does not turn back a shape that changed since", () => {
      const pieces = assemble(
        [
          ...again,
          ...last,
          Events.begin(400, { timestamp: 10n }),
          Events.relation(grown),
          Events.insert(pets.id, grownRow(2)),
          Events.commit(400)
        ],
        { described: { relations: [{ relation: grown, offset: Events.offset(8) }], types: [] }, position },
        10
      )
      assert.deepStrictEqual(
        pieces.map((piece) => piece.changes.map((change) => change.type)),
        [[], ["insert"]]
      )
    })

    it("asks nothing of its rows", () => {
      const pieces = assemble(
        [
          Events.begin(300, { timestamp: 9n }),
          Events.insert(99, row(1)),
          Events.insert(pets.id, []),
          Events.insert(pets.id, [Events.float8("null")]),
          Events.commit(300)
        ],
        { position },
        10
      )
      assert.strictEqual(pieces[0]!.repeated?.transactions, 1)
    })

    it("is not misled by commit times that are slightly out of order", () => {
      const messages = [...empty(100, 12n), ...empty(200, 10n)]
      const [, { end }] = assemble(messages) as [Piece, Piece]
      assert.strictEqual(end!.latestTime, 12n)
      const saved = Option.map(positionAt(3, 200, end!.commitTime), (saved) => ({ ...saved, latestTime: 12n }))
      assert.deepStrictEqual(outline(assemble(messages, { position: saved }, 4)), [[4, 7, 2]])
    })

    const read = (records: ReadonlyArray<FluvioRecord>) =>
      push(new Assembler({ ...defaults, position, onUnreadable: "quarantine" }), records)

    describe("and a record of it cannot be read", () => {
      const broken = Events.recordOf(0, "{}")
      /** The message at `at` is garbage. */
      const garbled = (messages: ReadonlyArray<Events.MessageFixture>, ...at: ReadonlyArray<number>) =>
        Events.records(10, messages).map((record, n) =>
          at.includes(n) ? Events.recordOfBytes(record.offset, broken.value) : record
        )

      it("is skipped all the same, whichever record it is", () => {
        const messages = [...again, ...last, ...later]
        for (const at of [0, 1, 2, 3, 4, 5]) {
          const pieces = read(garbled(messages, at))
          assert.deepStrictEqual(insertedIds(pieces), ["2"], `record ${at}`)
          assert.isTrue(
            pieces.every(({ refusal }) => refusal === undefined),
            `record ${at}`
          )
          assert.deepStrictEqual(outline(pieces).at(-1), [16, 18, undefined], `record ${at}`)
        }
      })

      it("does not prove anything without its Begin and its Commit", () => {
        assert.instanceOf(
          thrownBy(() => read(garbled([...again, ...last, ...later], 4, 5))),
          SourceRewound
        )
      })

      it("belongs to new history when its Commit says so", () => {
        const pieces = read(garbled([...last, ...later], 2))
        assert.deepStrictEqual(
          pieces.map(({ end, refusal, repeated }) => [end?.commitLsn, refusal?._tag, repeated?.transactions]),
          [
            [Events.lsn(300), undefined, 1],
            [Events.lsn(400), "EventDecodeError", undefined]
          ]
        )
        assert.instanceOf(
          thrownBy(() => read(garbled([...again, ...later], 4))),
          SourceRewound
        )
      })
    })
  })

  describe("when records are lost", () => {
    const first = [Events.begin(100), Events.insert(pets.id, row(1)), Events.commit(100)]
    const second = [Events.begin(200), Events.insert(pets.id, row(2)), Events.commit(200)]

    it("stops at a Begin with a higher LSN than that of the open transaction", () => {
      const error = thrownBy(() => assemble([...first.slice(0, 2), ...second]))
      assert.instanceOf(error, CommitMissing)
      assert.deepInclude({ ...error }, { offset: 0, commitLsn: "0/64", next: 2, nextLsn: "0/C8" })
      assert.include(error.remedy, "--offset 2 --new-epoch")
    })

    it("stops there in a streamed transaction too, whose parts are then rolled back", () => {
      const assembler = new Assembler({ ...defaults, maxBytes: 1 })
      const rows = [1, 2, 3].map((id) => Events.insert(pets.id, row(id)))
      assert.instanceOf(
        thrownBy(() => push(assembler, Events.records(0, [first[0]!, ...rows, ...second]))),
        CommitMissing
      )
      assert.isTrue(assembler.completed.every(({ end }) => end === undefined))
    })

    it("goes on there when the operator says that a new epoch begins", () => {
      const pieces = assemble([...first.slice(0, 2), Events.begin(200), Events.relation(pets), ...second.slice(1)], {
        acceptEpoch: Events.offset(2)
      })
      assert.deepStrictEqual(insertedIds(pieces), ["2"])
    })

    it("takes the Begin of the same or an earlier transaction for the source's sending again", () => {
      assert.deepStrictEqual(
        insertedIds(assemble([...first, second[0]!, ...first, ...second.slice(0, 2), ...second])),
        ["1", "2"]
      )
    })

    it.each([
      Events.insert(pets.id, row(2)),
      Events.relation(grown),
      Events.type(70_000, "mood"),
      Events.origin(90, "up")
    ])("stops at what stands outside of a transaction: $json", (message) => {
      const assembler = new Assembler(defaults)
      const error = thrownBy(() => push(assembler, Events.records(0, [...first, message, second[2]!])))
      assert.instanceOf(error, OutsideTransaction)
      assert.deepInclude({ ...error }, { offset: 3, type: message.event.type, after: "0/64" })
      assert.deepStrictEqual(insertedIds(assembler.completed), ["1"])
      assert.instanceOf(
        thrownBy(() => assemble([message], { position: positionAt(9, 100, 1n) }, 10)),
        OutsideTransaction
      )
      assert.instanceOf(
        thrownBy(() => assemble([message], { position: lone, hasTransactions: true }, 10)),
        OutsideTransaction
      )
    })
  })

  describe("when a producer appends a batch twice", () => {
    const places = [
      [Events.begin(300), 100],
      [Events.insert(pets.id, row(1)), 100],
      [Events.insert(pets.id, row(2)), 100],
      [Events.relation(pets), 0],
      [Events.insert(pets.id, row(3)), 200],
      [Events.commit(300), 400]
    ] as const
    /** The batch reaches from one record to before another. */
    const repeating = (from: number, to: number) =>
      [...places.slice(0, to), ...places.slice(from, to), ...places.slice(to)].map(([message, walStart], at) =>
        Events.recordOf(at, Events.eventJson(message, walStart))
      )

    it("takes a transaction whose rows share places and skip none", () => {
      assert.deepStrictEqual(insertedIds(push(new Assembler(defaults), repeating(6, 6))), ["1", "2", "3"])
    })

    it("skips a batch of whole transactions, and starts anew at a repeated Begin", () => {
      assert.deepStrictEqual(insertedIds(push(new Assembler(defaults), repeating(0, 6))), ["1", "2", "3"])
      assert.deepStrictEqual(insertedIds(push(new Assembler(defaults), repeating(0, 3))), ["1", "2", "3"])
    })

    it("stops at the first row that goes back within its transaction", () => {
      const error = thrownBy(() => push(new Assembler(defaults), repeating(2, 5)))
      assert.instanceOf(error, RecordsRepeated)
      assert.deepInclude({ ...error }, { offset: 5, commitLsn: "0/12C" })
    })

    it("stops at a row that comes again behind its Commit, where it may also be one without a Begin", () => {
      const error = thrownBy(() => push(new Assembler(defaults), repeating(4, 6)))
      assert.instanceOf(error, OutsideTransaction)
      assert.deepInclude({ ...error }, { offset: 6, after: "0/12C" })
    })
  })

  describe("when the source was rewound", () => {
    const rewound = [
      Events.begin(100, { timestamp: 20n }),
      Events.relation(pets),
      Events.insert(pets.id, row(1)),
      Events.commit(100, { timestamp: 20n })
    ]
    const next = [Events.begin(110, { timestamp: 21n }), Events.commit(110, { timestamp: 21n })]
    const position = positionAt(9, 300, 9n)

    it("stops, and names the setting that goes on", () => {
      const error = thrownBy(() => assemble(rewound, { position }, 10))
      assert.instanceOf(error, SourceRewound)
      assert.strictEqual(error.offset, 10)
      assert.strictEqual(error.commitLsn, "0/64")
      assert.strictEqual(error.applied, "0/12C")
      assert.isFalse(error.isRetryable)
      assert.include(error.remedy, "--offset 10 --new-epoch")
    })

    it("stops when the commit time of the position is unknown", () => {
      assert.instanceOf(
        thrownBy(() => assemble(rewound, { position: positionAt(9, 300, undefined) }, 10)),
        SourceRewound
      )
    })

    it("goes on from the accepted Begin with the lower LSN", () => {
      const pieces = assemble([...rewound, ...next], { position, acceptEpoch: Events.offset(10) }, 10)
      assert.deepStrictEqual(
        pieces.map(({ end, epoch, repeated }) => [epoch, repeated, end?.commitLsn, end?.commitTime, end?.latestTime]),
        [
          [1, undefined, Events.lsn(100), 20n, 20n],
          [1, undefined, Events.lsn(110), 21n, 21n]
        ]
      )
      assert.deepStrictEqual(insertedIds(pieces), ["1"])
    })

    it("forgets relations and types with the epoch: their OIDs mean something else in the next", () => {
      const owners = Events.relationOf({ name: "owners" })
      const types = [{ id: 70_000, namespace: "mood", name: "mood", offset: Events.offset(0) }]
      const options = { position, acceptEpoch: Events.offset(10), described: { ...knowsPets, types } }
      const pieces = assemble(
        [
          Events.begin(100, { timestamp: 20n }),
          Events.type(70_000, "mood"),
          Events.relation(owners),
          Events.insert(owners.id, row(1)),
          Events.commit(100, { timestamp: 20n })
        ],
        options,
        10
      )
      assert.deepStrictEqual(changesOf(pieces).slice(0, 2), [
        { type: "type", offset: Events.offset(11), id: 70_000, namespace: "mood", name: "mood" },
        { type: "relation", offset: Events.offset(12), relation: owners, previous: undefined }
      ])
      assert.instanceOf(
        thrownBy(() => assemble([rewound[0]!, Events.insert(pets.id, row(1))], options, 10)),
        UnknownRelation
      )
    })

    it("passes what seemed to be repeats when the operator has it go on behind them", () => {
      const repeat = [Events.begin(100, { timestamp: 7n }), Events.commit(100, { timestamp: 7n })]
      const pieces = assemble([...repeat, ...repeat, ...rewound], { position, acceptEpoch: Events.offset(14) }, 10)
      assert.deepStrictEqual(
        pieces.map(({ end, epoch, repeated }) => [epoch, repeated?.transactions, end?.commitLsn]),
        [
          [0, 2, Events.lsn(300)],
          [1, undefined, Events.lsn(100)]
        ]
      )
    })

    it("goes on when the accepted transaction was broken off and begins again", () => {
      const messages = [...rewound.slice(0, 3), ...rewound]
      const pieces = assemble(messages, { position, acceptEpoch: Events.offset(10) }, 10)
      assert.deepStrictEqual(insertedIds(pieces), ["1"])
    })

    it("stops at any other Begin, and at a later rewind", () => {
      assert.instanceOf(
        thrownBy(() => assemble(rewound, { position, acceptEpoch: Events.offset(11) }, 10)),
        SourceRewound
      )
      const later = [Events.begin(50, { timestamp: 30n }), Events.commit(50, { timestamp: 30n })]
      const error = thrownBy(() => assemble([...rewound, ...later], { position, acceptEpoch: Events.offset(10) }, 10))
      assert.instanceOf(error, SourceRewound)
      assert.strictEqual(error.offset, 14)
    })
  })

  describe("shapes and types", () => {
    it("gives no change for a repeated description", () => {
      const pieces = assemble([Events.begin(100), Events.relation(pets), Events.commit(100)])
      assert.deepStrictEqual(changesOf(pieces), [])
    })

    it("gives the shape that was applied before as the previous one", () => {
      const pieces = assemble([
        Events.begin(100),
        Events.relation(grown),
        Events.insert(pets.id, grownRow(1)),
        Events.relation(pets),
        Events.insert(pets.id, row(2)),
        Events.commit(100),
        Events.begin(200),
        Events.relation(pets),
        Events.relation(grown),
        Events.commit(200)
      ])
      assert.deepStrictEqual(
        changesOf(pieces).flatMap((change) =>
          change.type === "relation" ? [[change.previous?.columns.length, change.relation.columns.length]] : []
        ),
        [
          [2, 3],
          [3, 2],
          [2, 3]
        ]
      )
    })

    it("gives a type that is new or renamed, once", () => {
      const pieces = assemble(
        [
          Events.begin(100),
          Events.type(70_000, "mood"),
          Events.type(70_001, "size"),
          Events.type(70_001, "size"),
          Events.commit(100),
          Events.begin(200),
          Events.type(70_001, "extent"),
          Events.commit(200),
          Events.begin(300),
          Events.type(70_001, "extent", "b"),
          Events.commit(300)
        ],
        {
          described: {
            relations: [],
            types: [{ id: 70_000, namespace: "mood", name: "mood", offset: Events.offset(0) }]
          }
        }
      )
      assert.deepStrictEqual(changesOf(pieces), [
        { type: "type", offset: Events.offset(2), id: 70_001, namespace: "size", name: "size" },
        { type: "type", offset: Events.offset(6), id: 70_001, namespace: "extent", name: "extent" },
        { type: "type", offset: Events.offset(9), id: 70_001, namespace: "b", name: "extent" }
      ])
    })
  })

  describe("when the original connector is taken over", () => {
    const log = [
      Events.begin(100),
      Events.relation(pets),
      Events.type(70_000, "mood"),
      Events.insert(pets.id, row(1)),
      Events.commit(100),
      Events.begin(200, { xid: 8 }),
      Events.insert(pets.id, row(2)),
      Events.insert(pets.id, row(3)),
      Events.commit(200)
    ]
    const takeOver = (through: number, from = 0) => {
      const assembler = new Assembler({
        ...defaults,
        described: nothingDescribed,
        appliedThrough: Events.offset(through)
      })
      return { pieces: push(assembler, Events.records(from, log)), learned: assembler.learned }
    }

    it("applies the rest of the transaction it stopped in, once", () => {
      const { learned, pieces } = takeOver(6)
      assert.deepStrictEqual(insertedIds(pieces), ["3"])
      assert.deepStrictEqual(typesOf(pieces), ["insert"])
      assert.deepStrictEqual(
        pieces.map((piece) => [piece.isFirst, piece.xid, piece.records, piece.end?.commitLsn]),
        [[true, 8, 2, Events.lsn(200)]]
      )
      assert.deepStrictEqual(learned, {
        relations: [{ relation: pets, offset: Events.offset(1) }],
        types: [{ id: 70_000, namespace: "mood", name: "mood", offset: Events.offset(2) }]
      })
    })

    it("completes nothing that ended before", () => {
      assert.deepStrictEqual(insertedIds(takeOver(4).pieces), ["2", "3"])
      assert.deepStrictEqual(takeOver(8).pieces, [])
    })

    it("only moves on when nothing but the Commit is left", () => {
      assert.deepStrictEqual(
        takeOver(7).pieces.map((piece) => [piece.changes.length, piece.records, piece.end?.record.offset]),
        [[0, 1, Events.offset(8)]]
      )
    })

    it("refuses to apply the rest of a transaction whose Begin is gone", () => {
      const error = thrownBy(() => {
        const assembler = new Assembler({ ...defaults, appliedThrough: Events.offset(46) })
        push(
          assembler,
          Events.records(
            45,
            [4, 5, 6].map((id) => Events.insert(pets.id, row(id)))
          )
        )
      })
      assert.instanceOf(error, BeginMissing)
      assert.strictEqual(error.offset, 47)
    })

    it("tolerates a log whose first transaction is cut off, as long as it ends before", () => {
      const assembler = new Assembler({ ...defaults, appliedThrough: Events.offset(46) })
      const pieces = push(
        assembler,
        Events.records(45, [Events.insert(pets.id, row(1)), Events.commit(90), ...log.slice(5)])
      )
      assert.deepStrictEqual(insertedIds(pieces), ["2", "3"])
    })
  })

  describe("refuses", () => {
    it("rows of a relation that nobody described", () => {
      const error = thrownBy(() => assemble([Events.begin(100), Events.insert(99, row(1))]))
      assert.instanceOf(error, UnknownRelation)
      assert.deepInclude({ ...error }, { relId: 99, offset: 1, commitLsn: "0/64" })
      assert.instanceOf(
        thrownBy(() => assemble([Events.truncate([pets.id, 99])])),
        UnknownRelation
      )
    })

    it.each([
      Events.insert(pets.id, grownRow(1)),
      Events.update(pets.id, [Events.int4(1)]),
      Events.update(pets.id, row(1), { key: [Events.int4(1)] }),
      Events.update(pets.id, row(1), { old: [Events.int4(1)] }),
      Events.remove(pets.id, { key: [] })
    ])("rows with too many or too few cells: $json", (message) => {
      const error = thrownBy(() => assemble([Events.begin(100), message]))
      assert.instanceOf(error, WrongArity)
      assert.deepInclude({ ...error }, { table: "public.pets", columns: 2, offset: 1, commitLsn: "0/64" })
    })

    it("a Commit without a Begin", () => {
      const error = thrownBy(() => assemble([Events.commit(100)]))
      assert.instanceOf(error, CommitWithoutBegin)
      assert.deepInclude({ ...error }, { offset: 0, commitLsn: "0/64" })
    })

    it("a Commit of another transaction", () => {
      const error = thrownBy(() => assemble([Events.begin(100), Events.commit(101)]))
      assert.instanceOf(error, CommitMismatch)
      assert.deepInclude({ ...error }, { offset: 1, commitLsn: "0/64", received: "0/65" })
    })

    it("an update that leaves out its key, unless the old one stands beside it", () => {
      const left = [Events.unchangedToast, Events.text("x")]
      const error = thrownBy(() => assemble([Events.begin(100), Events.update(pets.id, left)]))
      assert.instanceOf(error, EventDecodeError)
      assert.deepInclude(
        { ...error },
        { offset: 1, commitLsn: "0/64", table: "public.pets", path: "message.new_tuple[0]", reason: "value left out" }
      )
      const pieces = assemble([
        Events.begin(100),
        Events.update(pets.id, left, { key: [Events.int4(1), Events.sqlNull] }),
        Events.update(pets.id, left, { old: row(1) }),
        Events.update(pets.id, [Events.int4(1), Events.unchangedToast]),
        Events.commit(100)
      ])
      assert.deepStrictEqual(typesOf(pieces), ["update", "update", "update"])
    })

    it("undecodable records and lost floats, with the transaction and the table", () => {
      const lost = thrownBy(() => assemble([Events.begin(100), Events.insert(pets.id, [Events.float8("null")])]))
      assert.instanceOf(lost, FloatNull)
      assert.deepInclude({ ...lost }, { offset: 1, commitLsn: "0/64", table: "public.pets", path: "message.tuple[0]" })
      const broken = thrownBy(() => assemble([Events.begin(100), Events.insert(pets.id, [Events.int4(0.5)])]))
      assert.instanceOf(broken, EventDecodeError)
      assert.deepInclude({ ...broken }, { offset: 1, commitLsn: "0/64", table: "public.pets" })
      assert.include(broken.message, "public.pets")
    })
  })

  describe("gives the same whatever the source and the topic do", () => {
    it("each transaction of the source, whole, once, in order", () => {
      fc.assert(
        fc.property(
          Events.arbitraryHistory,
          Events.arbitraryEntropy,
          maxBytes,
          fc.nat(4),
          (history, entropy, limit, crashes) => {
            const choose = Events.chooser(entropy)
            const records = Events.records(0, Events.logOf(history, choose))
            const target = run(records, limit, choose, crashing(choose, crashes))
            assert.strictEqual(target.error, undefined)
            assert.deepStrictEqual<unknown>(Events.plain(comparable(target.applied)), Events.plain(expected(history)))
          }
        ),
        { numRuns: 1000 }
      )
    })

    it("or it stops where a Begin or a Commit is lost, with nothing but whole transactions applied", () => {
      let stops = 0
      fc.assert(
        fc.property(
          Events.arbitraryHistory,
          Events.arbitraryEntropy,
          maxBytes,
          fc.nat(),
          (history, entropy, limit, at) => {
            const choose = Events.chooser(entropy)
            const log = Events.logOf(history, choose)
            const type = (n: number) => log[n]?.event.type
            // Behind half a transaction that is sent again, a lost Begin joins both halves: only their places in the log tell.
            const boundaries = log.flatMap((_, n) =>
              type(n) === "commit" || (type(n) === "begin" && type(n - 1) === "commit") ? [n] : []
            )
            fc.pre(boundaries.length > 0)
            const lost = boundaries[at % boundaries.length]
            const records = Events.records(0, log.toSpliced(lost!, 1))
            const target = run(records, limit, choose, crashing(choose, 3))
            const whole = Events.plain(expected(history)) as ReadonlyArray<unknown>
            assert.deepStrictEqual(Events.plain(comparable(target.applied)), whole.slice(0, target.applied.length))
            if (target.error !== undefined) {
              assert.include(
                ["CommitMissing", "CommitWithoutBegin", "OutsideTransaction"],
                (target.error as { readonly _tag: string })._tag
              )
              stops++
            } else if (target.next() === records.length) {
              assert.strictEqual(target.applied.length, history.length)
            }
          }
        ),
        { numRuns: 1000 }
      )
      assert.isAbove(stops, 200)
    })

    it("or it stops where the source was rewound, and goes on from there without a loss when that is accepted", () => {
      let stops = 0
      fc.assert(
        fc.property(
          Events.arbitraryHistory,
          Events.arbitraryHistory,
          Events.arbitraryEntropy,
          maxBytes,
          fc.integer({ min: -80, max: 80 }),
          fc.bigInt({ min: -60n, max: 60n }),
          (history, other, entropy, limit, lsns, clock) => {
            const choose = Events.chooser(entropy)
            const next = other.map((transaction) => ({
              ...transaction,
              finalLsn: transaction.finalLsn + BigInt(lsns),
              timestamp: transaction.timestamp + clock
            }))
            const last = history.at(-1)!
            fc.pre(next.every(({ finalLsn, timestamp }) => finalLsn !== last.finalLsn || timestamp !== last.timestamp))
            const old = Events.logOf(history, choose)
            const records = Events.records(0, [...old, ...Events.logOf(next, choose)])
            const crash = crashing(choose, 3)
            const target = run(records, limit, choose, crash)
            const { error } = target
            if (error === undefined) {
              // It follows on, or all of it may still be proved to be repeats: then the position is in front of it.
              const isOpen = next.every(({ finalLsn }) => finalLsn <= last.finalLsn)
              assert.deepStrictEqual(rowsOf(target.applied), rowsIn(isOpen ? history : [...history, ...next]))
              assert.strictEqual(target.next(), isOpen ? old.length : records.length)
              return
            }
            stops++
            assert.instanceOf(error, SourceRewound)
            assert.strictEqual(error.offset, old.length)
            assert.deepStrictEqual(rowsOf(target.applied), rowsIn(history))
            assert.strictEqual(target.next(), old.length)
            run(records, limit, choose, crash, target, Events.offset(error.offset))
            assert.strictEqual(target.error, undefined)
            assert.deepStrictEqual(rowsOf(target.applied), rowsIn([...history, ...next]))
            assert.strictEqual(target.next(), records.length)
          }
        ),
        { numRuns: 1000 }
      )
      assert.isAbove(stops, 200)
    })

    it("the same pieces however the records are cut into chunks, each record in one of them at most", () => {
      fc.assert(
        fc.property(Events.arbitraryHistory, Events.arbitraryEntropy, maxBytes, (history, entropy, limit) => {
          const choose = Events.chooser(entropy)
          const records = Events.records(0, Events.logOf(history, choose))
          const whole = push(new Assembler({ ...defaults, described: nothingDescribed, maxBytes: limit }), records)
          const assembler = new Assembler({ ...defaults, described: nothingDescribed, maxBytes: limit })
          const pieces: Array<Piece> = []
          for (let at = 0; at < records.length;) {
            const size = 1 + choose(5)
            pieces.push(...push(assembler, records.slice(at, at + size)))
            at += size
          }
          assert.deepStrictEqual(Events.plain(pieces), Events.plain(whole))
          assert.isAtMost(
            pieces.reduce((sum, piece) => sum + piece.records, 0),
            records.length
          )
          const largest = Math.max(...records.map((record) => record.value.length))
          // Beyond the limit comes at most the Commit, or a single row behind records that are no changes.
          for (const piece of pieces.filter((each) => each.repeated === undefined && each.changes.length > 2)) {
            assert.isAtMost(piece.bytes, limit + largest)
          }
          if (limit === 1_000_000) assert.isTrue(pieces.every((piece) => piece.isFirst && piece.end !== undefined))
        }),
        { numRuns: 500 }
      )
    })

    it("the rows behind the take-over, wherever the original connector stopped", () => {
      fc.assert(
        fc.property(Events.arbitraryHistory, Events.arbitraryEntropy, fc.nat(), (history, entropy, stop) => {
          const records = Events.records(0, Events.logOf(history, Events.chooser(entropy)))
          const appliedThrough = Events.offset(stop % records.length)
          const rows = (options: Partial<AssemblerOptions>) =>
            changesOf(push(new Assembler({ ...defaults, described: nothingDescribed, ...options }), records)).filter(
              (change) => change.type !== "relation" && change.offset > appliedThrough
            )
          assert.deepStrictEqual(Events.plain(rows({ appliedThrough })), Events.plain(rows({})))
        }),
        { numRuns: 500 }
      )
    })
  })
})

describe("a transaction that is to be passed over", () => {
  const skips = [{ epoch: 0, commitLsn: Events.lsn(200), reason: "asked" }]
  const wrong = Events.insert(pets.id, [Events.int4(2)])
  const transactionOf = (lsn: number, ...ids: ReadonlyArray<number>) => [
    Events.begin(lsn),
    ...ids.map((id) => Events.insert(pets.id, row(id))),
    Events.commit(lsn)
  ]
  const messages = [...transactionOf(100, 1), Events.begin(200), wrong, Events.commit(200), ...transactionOf(300, 3)]

  it("is told apart by its commit LSN, within its epoch, and halts nothing by what cannot be read of it", () => {
    const pieces = assemble(messages, { skips })
    assert.deepStrictEqual(
      pieces.map(({ first, refusal, skip }) => [Number(first), skip?.reason, refusal !== undefined]),
      [
        [0, undefined, false],
        [3, "asked", true],
        [6, undefined, false]
      ]
    )
    for (const others of [[], [{ ...skips[0]!, epoch: 1 }], [{ ...skips[0]!, commitLsn: Events.lsn(201) }]]) {
      assert.instanceOf(
        thrownBy(() => assemble(messages, { skips: others })),
        WrongArity
      )
    }
  })

  it("is passed over in all of its parts", () => {
    const parts = assemble(transactionOf(200, 1, 2, 3), { skips, maxBytes: 1 })
    assert.isAbove(parts.length, 1)
    assert.deepStrictEqual([...new Set(parts.map(({ skip }) => skip?.reason))], ["asked"])
  })
})
