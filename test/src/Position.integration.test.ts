/** What a position means, and within which history of the source: set by hand, sent again, rewound. */
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect } from "effect"
import { Log } from "../../layers/Mock.ts"
import type { PlaceInsideTransaction } from "../../src/Connector.ts"
import type * as Failpoint from "../../src/Failpoint.ts"
import { begin, commit, insert, int4, type MessageFixture, relation, relationOf, text } from "../events.ts"
import { log, partition, startLive } from "../pipeline.ts"
import { type TestDatabase, TestPostgres } from "../postgres.ts"

/** Without a key, so that a row that is applied twice is there twice. */
const keyless = {
  replicaIdentity: "Nothing",
  columns: relationOf().columns.map((c) => ({ ...c, isKey: false }))
} as const
const pets = relationOf(keyless)
/** In another history of the source, the OID of `pets` belongs to another table. */
const owners = relationOf({ name: "owners" })
const later = relationOf({ id: 16_390 })
const time = 690_913_417_000_000n
const added = (id: number, relId = pets.id) => insert(relId, [int4(id), text(`n${id}`)])
const transaction = (commitLsn: number, ...ids: ReadonlyArray<number>) => [
  begin(commitLsn),
  ...(commitLsn === 100 ? [relation(pets)] : []),
  ...ids.map((id) => added(id)),
  commit(commitLsn)
]

const withoutKey = "CREATE TABLE pets (id int, name text)"

const idsOf = (database: TestDatabase, table = "pets") =>
  Effect.map(database.query(`SELECT id FROM ${table} ORDER BY id::int`), (rows) => rows.map(({ id }) => Number(id)))

const append = (records: Context.Context<Log>, ...messages: ReadonlyArray<MessageFixture>) =>
  Context.get(records, Log).append(log(messages))

const history = (lsn: number, ...messages: ReadonlyArray<MessageFixture>) => [
  begin(lsn, { timestamp: time + 1n }),
  ...messages,
  commit(lsn, { timestamp: time + 1n })
]

// The clock of the new primary is behind.
const before = (lsn: number, id: number) => [
  begin(lsn, { timestamp: time - 5n }),
  relation(pets),
  added(id),
  commit(lsn, { timestamp: time - 5n })
]

/** Has reading go on at an offset, by the statement that the documentation gives. */
const setByHand = (database: TestDatabase, next: number) =>
  database.query(`
    INSERT INTO fluvio.offset (topic, partition, current_offset) VALUES ('mock', 0, ${next - 1})
    ON CONFLICT (topic, partition) DO UPDATE SET current_offset = EXCLUDED.current_offset`)

const described = (database: TestDatabase) =>
  database.query("SELECT rel_id, epoch, relation->>'name' AS name FROM fluvio.relation ORDER BY rel_id")

const setAside = (database: TestDatabase) =>
  Effect.map(database.query("SELECT first_offset, last_offset FROM fluvio.quarantine ORDER BY first_offset"), (rows) =>
    rows.map(({ first_offset, last_offset }) => [Number(first_offset), Number(last_offset)])
  )

layer(TestPostgres.layer(), { excludeTestServices: true })("A position", (it) => {
  describe("in a new history of the source", () => {
    /** A target that holds rows of the old one, and a topic that goes on with the new one at offset 4. */
    const rewound = Effect.fnUntraced(function* (...messages: ReadonlyArray<MessageFixture>) {
      const database = yield* TestPostgres.database
      const records = yield* partition({ log: log(transaction(100, 1)) })
      const first = yield* startLive({ partition: records, url: database.url })
      yield* first.caughtUp
      yield* append(records, ...messages)
      const error = yield* first.stopped({ _tag: "SourceRewound", offset: 4, isRetryable: false })
      assert.include(error.remedy, "--offset 4 --new-epoch")
      return { database, records }
    })
    it.effect("belongs to a new epoch, where an OID may be that of another table", () =>
      Effect.gen(function* () {
        const { database, records } = yield* rewound(
          ...history(50, relation(owners), added(7)),
          ...history(60, relation(later), added(8, later.id))
        )
        // Once more from the position in front of it, as after a kill.
        let passed = 0
        const kill = (place: Failpoint.Name) =>
          place === "before commit" && ++passed === 1 ? Effect.die(new Error("killed")) : Effect.void
        const killed = yield* startLive({
          partition: records,
          url: database.url,
          config: { "accept-epoch": 4 },
          onPass: kill
        })
        yield* Effect.exit(killed.caughtUp)
        assert.deepStrictEqual(yield* described(database), [{ rel_id: String(pets.id), epoch: "0", name: "pets" }])

        const next = yield* startLive({ partition: records, url: database.url, config: { "accept-epoch": 4 } })
        yield* next.caughtUp
        assert.deepStrictEqual(yield* idsOf(database, "owners"), [7])
        assert.deepStrictEqual(yield* idsOf(database), [1, 8])
        assert.deepStrictEqual(yield* described(database), [
          { rel_id: String(owners.id), epoch: "1", name: "owners" },
          { rel_id: String(later.id), epoch: "1", name: "pets" }
        ])
        assert.include(
          next.logged,
          "Info: Epoch 1 of the source has begun at offset 4: what was described before is forgotten"
        )

        // The setting may stay, and what is sent again in the new epoch is a repeat there.
        yield* next.interrupt
        yield* append(records, ...history(60, relation(later), added(8, later.id)), ...history(70, added(9, later.id)))
        const last = yield* startLive({ partition: records, url: database.url, config: { "accept-epoch": 4 } })
        yield* last.caughtUp
        assert.deepStrictEqual(yield* idsOf(database), [1, 8, 9])
        assert.deepStrictEqual(yield* database.query("SELECT epoch, commit_lsn FROM fluvio.offset"), [
          { epoch: "1", commit_lsn: "0/46" }
        ])
      })
    )

    it.effect("belongs to it also when its first transaction was broken off, in parts", () =>
      Effect.gen(function* () {
        const many = [7, 8, 9, 10].map((id) => insert(owners.id, [int4(id), text("long".repeat(100))]))
        const { database, records } = yield* rewound(
          ...history(50, relation(owners), ...many).slice(0, 5),
          ...history(50, relation(owners), ...many)
        )
        const next = yield* startLive({
          partition: records,
          url: database.url,
          config: { "accept-epoch": 4, group: { bytes: "1 KiB" } }
        })
        yield* next.caughtUp
        assert.deepStrictEqual(yield* idsOf(database, "owners"), [7, 8, 9, 10])
        assert.deepStrictEqual(yield* described(database), [{ rel_id: String(owners.id), epoch: "1", name: "owners" }])
      })
    )

    it.effect("stays where it is before a run that is no repeat, whatever the new clock says", () =>
      Effect.gen(function* () {
        const database = yield* TestPostgres.database
        const records = yield* partition({ log: log(transaction(100, 1), transaction(300, 3)) })
        const first = yield* startLive({ partition: records, url: database.url })
        yield* first.caughtUp
        yield* append(records, ...before(200, 20), ...before(250, 25))
        yield* append(records, ...before(310, 31))
        yield* first.stopped({ _tag: "SourceRewound", offset: 7, commitLsn: "0/C8", applied: "0/12C", next: 15 })
        assert.deepStrictEqual(yield* database.query("SELECT current_offset FROM fluvio.offset"), [
          { current_offset: "6" }
        ])
        const next = yield* startLive({ partition: records, url: database.url, config: { "accept-epoch": 7 } })
        yield* next.caughtUp
        assert.deepStrictEqual(yield* idsOf(database), [1, 3, 20, 25, 31])
      })
    )
  })

  describe("set by hand", () => {
    it.effect("goes on behind a gap, and nowhere inside a transaction", () =>
      Effect.gen(function* () {
        const database = yield* TestPostgres.database
        yield* database.query(withoutKey)
        const records = yield* partition({ log: log(transaction(100, 1)) })
        const first = yield* startLive({ partition: records, url: database.url })
        yield* first.caughtUp
        yield* first.interrupt
        yield* append(records, ...transaction(200, 2), ...transaction(300, 3), ...transaction(400, 4))
        // What is left begins inside the transaction with LSN 300.
        yield* Context.get(records, Log).trim(8)
        const gap = yield* (yield* startLive({ partition: records, url: database.url })).stopped({
          _tag: "RetentionGap",
          needed: 4,
          available: 8,
          isRetryable: false
        })
        assert.include(gap.remedy, "position set --first-whole-transaction --allow-loss --reason … --yes")
        yield* setByHand(database, 8)
        const inside = yield* (yield* startLive({ partition: records, url: database.url })).stopped({
          _tag: "PlaceInsideTransaction",
          offset: 7,
          isRetryable: false
        })
        yield* setByHand(database, (inside as PlaceInsideTransaction).next)
        const next = yield* startLive({ partition: records, url: database.url })
        yield* next.caughtUp
        assert.deepStrictEqual(yield* idsOf(database), [1, 4])
        assert.isTrue(next.logged.some((line) => line.startsWith("Warn: The position was set by hand")))
        assert.isFalse(next.logged.some((line) => line.includes("original connector")))
      })
    )

    it.effect("back or forth applies what lies behind it, and takes none of it for a repeat", () =>
      Effect.gen(function* () {
        const database = yield* TestPostgres.database
        yield* database.query(withoutKey)
        const records = yield* partition({ log: log(transaction(100, 1), transaction(200, 2), transaction(300, 3)) })
        const first = yield* startLive({ partition: records, url: database.url })
        yield* first.caughtUp
        yield* first.interrupt
        const cases: ReadonlyArray<readonly [offset: number, ids: Array<number>]> = [
          [3, [1, 2, 2, 3, 3]],
          [6, [1, 2, 2, 3, 3, 3]]
        ]
        for (const [offset, ids] of cases) {
          yield* database.query(`UPDATE fluvio.offset SET current_offset = ${offset}`)
          const next = yield* startLive({ partition: records, url: database.url })
          yield* next.caughtUp
          yield* next.interrupt
          assert.deepStrictEqual(yield* idsOf(database), ids)
        }
        // What the source sends again of what lies before is a repeat all the same.
        yield* database.query(`UPDATE fluvio.offset SET current_offset = 6`)
        yield* append(records, ...transaction(300, 3), ...transaction(400, 4))
        const last = yield* startLive({ partition: records, url: database.url })
        yield* last.caughtUp
        assert.deepStrictEqual(yield* idsOf(database), [1, 2, 2, 3, 3, 3, 3, 4])

        yield* last.interrupt
        yield* database.query(`UPDATE fluvio.offset SET current_offset = 5`)
        const inside = yield* (yield* startLive({ partition: records, url: database.url })).stopped({
          _tag: "PlaceInsideTransaction",
          offset: 5
        })
        yield* setByHand(database, (inside as PlaceInsideTransaction).next)
        assert.deepStrictEqual(yield* database.query("SELECT current_offset FROM fluvio.offset"), [
          { current_offset: "3" }
        ])
      })
    )

    it.effect("works in a topic without Begin and Commit too", () =>
      Effect.gen(function* () {
        const database = yield* TestPostgres.database
        yield* database.query(withoutKey)
        const records = yield* partition({ log: log(relation(pets), added(1), added(2), added(3)) })
        const first = yield* startLive({ partition: records, url: database.url })
        yield* first.caughtUp
        yield* first.interrupt
        yield* Context.get(records, Log).trim(2)
        yield* database.query(`UPDATE fluvio.offset SET current_offset = 1`)
        const next = yield* startLive({ partition: records, url: database.url })
        yield* next.caughtUp
        assert.deepStrictEqual(yield* idsOf(database), [1, 2, 2, 3, 3])
      })
    )
  })

  describe("with records that cannot be read", () => {
    const garbage = '{"wal_start":1,"wal_end":'
    const quarantine = { "on-error": { decode: "quarantine" } }
    it.effect("passes each of them alone in a topic without Begin and Commit, the first one too", () =>
      Effect.gen(function* () {
        const database = yield* TestPostgres.database
        yield* database.query(withoutKey)
        const records = yield* partition({
          log: [
            garbage,
            ...log(relation(pets), added(1)),
            garbage,
            ...log(added(2), added(3)),
            garbage,
            ...log(added(4))
          ]
        })
        const connector = yield* startLive({ partition: records, url: database.url, config: quarantine })
        yield* connector.caughtUp
        assert.deepStrictEqual(yield* idsOf(database), [1, 2, 3, 4])
        assert.deepStrictEqual(yield* setAside(database), [
          [0, 0],
          [3, 3],
          [6, 6]
        ])
      })
    )

    it.effect("passes one that is the first Begin of a topic with the transaction that it began", () =>
      Effect.gen(function* () {
        const database = yield* TestPostgres.database
        yield* database.query(withoutKey)
        const [, ...headless] = transaction(100, 1)
        // A table that is held at first contact is held whole.
        const other = relationOf({ id: 16_391, name: "owners" })
        const records = yield* partition({
          log: [garbage, ...log(headless, begin(200), relation(other), added(2, other.id), commit(200))]
        })
        const connector = yield* startLive({ partition: records, url: database.url, config: quarantine })
        yield* connector.caughtUp
        assert.deepStrictEqual(yield* idsOf(database), [])
        assert.deepStrictEqual(yield* idsOf(database, "owners"), [2])
        assert.deepStrictEqual(yield* setAside(database), [[0, 3]])
      })
    )

    it.effect("is taken over from the original connector, which has passed over them", () =>
      Effect.gen(function* () {
        const database = yield* TestPostgres.database
        yield* database.query(`
          CREATE SCHEMA fluvio;
          CREATE TABLE fluvio.offset (id INT8 PRIMARY KEY, current_offset INT8 NOT NULL);
          INSERT INTO fluvio.offset (id, current_offset) VALUES (1, 6);
          ${withoutKey}; INSERT INTO pets VALUES (1, 'n1')`)
        // Record 3 could not be read, and record 6 was a Commit.
        const records = yield* partition({
          log: [
            ...log(begin(100), relation(pets), added(1)),
            garbage,
            ...log(commit(100), begin(200)),
            garbage,
            ...log(transaction(300, 3))
          ]
        })
        const stopping = yield* startLive({ partition: records, url: database.url })
        yield* stopping.stopped({ _tag: "EventDecodeError", offset: 3 })
        const connector = yield* startLive({ partition: records, url: database.url, config: quarantine })
        yield* connector.caughtUp
        assert.deepStrictEqual(yield* idsOf(database), [1, 3])
        assert.deepStrictEqual(yield* setAside(database), [])
      })
    )
  })
})
