import { assert, describe, it } from "@effect/vitest"
import { crc32c } from "@node-rs/crc32"
import { Effect, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import { FluvioUnreachable } from "../../src/stream/FluvioConsumer.ts"
import type { Stored } from "../../src/stream/OffsetStore.ts"
import { begin, commit, eventJson, insert, int4, lsn, offset, relation, relationOf, text } from "../events.ts"
import * as Pipeline from "../pipeline.ts"

const pet = relationOf()
const row = (id: number, name: string) => insert(pet.id, [int4(id), text(name)])
const time = 690_913_417_000_000n

/** A source transaction with the rows of these ids, one offset apart from Begin to Commit. */
const transaction = (commitLsn: number, ...ids: ReadonlyArray<number>) => [
  begin(commitLsn),
  ...ids.map((id) => row(id, `n${id}`)),
  commit(commitLsn)
]

const insertOf = (...ids: ReadonlyArray<number>) =>
  `INSERT INTO "public"."pets" ("id", "name") SELECT unnest($1::integer[]), unnest($2::text[]) -- ` +
  `{${ids.map((id) => `"${id}"`).join()}} | {${ids.map((id) => `"n${id}"`).join()}}`

/** A source transaction without changes, as an unpublished table leaves it. */
const empty = (commitLsn: number) => transaction(commitLsn)

const known = Pipeline.knowing(pet)

/** As the original connector leaves its row. */
const left = (at: number): Stored => ({
  position: Option.some({
    offset: offset(at),
    checksum: undefined,
    epoch: 0,
    commitLsn: undefined,
    commitTime: undefined,
    latestTime: undefined
  }),
  described: { relations: [], types: [] },
  savedBy: "original"
})

/** Answers an INSERT with these SQLSTATEs, one after the other; "" is a success. */
const failing = (states: ReadonlyArray<string>, rollback?: string) => {
  let at = 0
  return ({ text }: { readonly text: string }) => {
    const sqlState = text.startsWith("INSERT") ? states[at++] : text === "ROLLBACK" ? rollback : undefined
    return sqlState === undefined || sqlState === "" ? undefined : { sqlState }
  }
}

describe("Connector", () => {
  it.effect("applies what is there as one group, under its own settings, and saves where its last Commit is", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        log: Pipeline.log(begin(100), relation(pet), row(1, "n1"), commit(100), transaction(200, 2, 3))
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.sent(), [
        "session",
        "session",
        "session",
        "lock",
        "BEGIN",
        "may be replica",
        "COMMIT",
        "time-outs",
        "held",
        "BEGIN",
        "settings",
        "catalog",
        "types",
        insertOf(1, 2, 3),
        "COMMIT"
      ])
      const position = {
        offset: offset(7),
        checksum: crc32c(eventJson(commit(200))),
        epoch: 0,
        commitLsn: lsn(200),
        commitTime: time,
        latestTime: time
      }
      assert.deepInclude(pipeline.applied[0], {
        position,
        transactions: 2,
        duplicates: 0,
        changes: 3,
        records: 8,
        statements: 1,
        replays: 0
      })
      assert.deepStrictEqual(yield* pipeline.position, position)
      assert.deepStrictEqual((yield* pipeline.stored).described.relations, [{ relation: pet, offset: offset(1) }])
      assert.deepStrictEqual(pipeline.logged, ["Info: Starting at the beginning of mock-0, which ends at offset 8"])
    })
  )

  it.effect("pins search_path, dates and the replica role for each transaction", () =>
    Effect.gen(function* () {
      const texts: Array<string> = []
      const pipeline = yield* Pipeline.start({
        stored: known,
        config: { target: { "statement-timeout": "1500 millis", "synchronous-commit": "on" } },
        answer: ({ params, text }) => {
          if (text.startsWith("SELECT set_config($1")) texts.push(params.join(" "))
          return undefined
        }
      })
      for (const n of [1, 2]) {
        yield* pipeline.append(transaction(n, n))
        yield* pipeline.until(() => pipeline.applied.length === n)
      }
      const settings =
        "search_path  datestyle ISO, YMD intervalstyle postgres timezone UTC extra_float_digits 3 xmloption content " +
        "lc_monetary C array_nulls on " +
        "row_security off plan_cache_mode force_generic_plan enable_seqscan off jit off work_mem 16MB " +
        "synchronous_commit on lock_timeout 30000 " +
        "statement_timeout 1500 idle_in_transaction_session_timeout 0 session_replication_role replica"
      assert.deepStrictEqual(texts, [settings, settings])
      assert.deepStrictEqual(pipeline.transactions(), [
        ["catalog", insertOf(1), "COMMIT"],
        [insertOf(2), "COMMIT"]
      ])
    })
  )

  it.effect("keeps to group.transactions", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1), transaction(2, 2), transaction(3, 3)),
        config: { group: { transactions: 2 } }
      })
      yield* pipeline.until(() => pipeline.applied.length === 2)
      assert.deepStrictEqual(pipeline.transactions(), [
        ["catalog", insertOf(1, 2), "COMMIT"],
        [insertOf(3), "COMMIT"]
      ])
      assert.deepStrictEqual(
        pipeline.applied.map(({ position, transactions }) => [position.offset, position.commitLsn, transactions]),
        [
          [offset(5), lsn(2), 2],
          [offset(8), lsn(3), 1]
        ]
      )
    })
  )

  it.effect("goes on behind the position, and skips what the source repeats", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: Pipeline.applied(3, commit(1), 1, [pet]),
        log: Pipeline.log(transaction(1, 1), transaction(1, 1), transaction(2, 2))
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(2), "COMMIT"]])
      assert.deepInclude(pipeline.applied[0], { transactions: 1, duplicates: 1, records: 6, changes: 1 })
      assert.deepStrictEqual(pipeline.logged, [
        "Info: Going on at offset 3 of mock-0, which ends at offset 9",
        "Info: Skipped 1 transactions that the source sent again, 0/1 to 0/1, at offsets 3 to 5"
      ])
    })
  )

  it.effect("applies changes outside Begin and Commit where the log has none of these", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: known, log: Pipeline.log(row(1, "n1"), row(2, "n2")) })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(1, 2), "COMMIT"]])
      assert.deepStrictEqual(yield* pipeline.position, {
        offset: offset(1),
        checksum: crc32c(eventJson(row(2, "n2"))),
        epoch: 0,
        commitLsn: undefined,
        commitTime: undefined,
        latestTime: undefined
      })
    })
  )

  it.effect("stops at a change whose Begin is lost, and applies nothing of its transaction", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1), row(2, "n2"), row(3, "n3"), commit(2))
      })
      yield* pipeline.stopped({ _tag: "OutsideTransaction", offset: 3, isRetryable: false })
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(1), "COMMIT"]])

      const again = yield* Pipeline.start({
        stored: yield* pipeline.stored,
        log: Pipeline.log(transaction(1, 1), row(2, "n2"), row(3, "n3"), commit(2))
      })
      yield* again.stopped({ _tag: "OutsideTransaction", offset: 3 })
      assert.deepStrictEqual(again.transactions(), [])
    })
  )
})

describe("Connector's retry", () => {
  it.effect("backs off on the clock, twice as long each time, and begins anew after a committed group", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        config: { group: { transactions: 1 }, retry: { min: "1 second", max: "3 seconds" } },
        log: Pipeline.log(transaction(1, 1), transaction(2, 2)),
        answer: failing(["40001", "40001", "40001", "40001", "", "40001", ""])
      })
      const attemptAfter = Effect.fnUntraced(function* (millis: number) {
        yield* TestClock.adjust(millis - 1)
        yield* pipeline.settle
        assert.deepStrictEqual(pipeline.transactions(), [])
        yield* TestClock.adjust(1)
        yield* pipeline.settle
        return pipeline.transactions()
      })
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(1), "ROLLBACK"]])
      const again = [["catalog", insertOf(1), "ROLLBACK"]]
      assert.deepStrictEqual(yield* attemptAfter(1000), again)
      assert.deepStrictEqual(yield* attemptAfter(2000), again)
      assert.deepStrictEqual(yield* attemptAfter(3000), again)
      assert.deepStrictEqual(pipeline.applied, [])
      // The second transaction fails behind the committed first one.
      assert.deepStrictEqual(yield* attemptAfter(3000), [
        ["catalog", insertOf(1), "COMMIT"],
        [insertOf(2), "ROLLBACK"]
      ])
      assert.deepStrictEqual(yield* attemptAfter(1000), [["catalog", insertOf(2), "COMMIT"]])
      assert.deepStrictEqual(
        pipeline.applied.map(({ position }) => position.offset),
        [offset(2), offset(5)]
      )
      assert.strictEqual(
        pipeline.logged.filter((text) => text.startsWith("Warn"))[0],
        "Warn: public.pets, offset 1, transaction 0/1: serialization failure (SQLSTATE 40001); trying again in 1.0 s"
      )
    })
  )

  it.effect("stops after retry.times attempts without progress", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        config: { retry: { times: 2 } },
        log: Pipeline.log(transaction(1, 1)),
        answer: ({ text }) => (text.startsWith("INSERT") ? { sqlState: "53100" } : undefined)
      })
      yield* pipeline.settle
      yield* TestClock.adjust("1 minute")
      const error = yield* pipeline.stopped({ _tag: "ApplyFailed", isRetryable: true })
      assert.strictEqual(
        error.message,
        "public.pets, offset 1, transaction 0/1: the target's disk is full (SQLSTATE 53100)"
      )
      assert.lengthOf(pipeline.transactions(), 3)
      assert.isUndefined(yield* pipeline.position)
      const failure = "public.pets, offset 1, transaction 0/1: the target's disk is full (SQLSTATE 53100)"
      assert.deepStrictEqual(pipeline.logged.slice(1), [
        `Warn: ${failure}; trying again in 0.3 s`,
        "Info: Starting at the beginning of mock-0, which ends at offset 3",
        `Warn: ${failure}; trying again in 0.5 s`,
        "Info: Starting at the beginning of mock-0, which ends at offset 3",
        `Error: Stopped before anything was applied of mock, after 3 tries without progress: ${failure}`
      ])
    })
  )

  it.effect("tells the same failure less and less often, and then with its remedy", () =>
    Effect.gen(function* () {
      const states: Array<string> = [...Array(9).fill("53100"), "40001"]
      const pipeline = yield* Pipeline.start({
        stored: known,
        config: { retry: { min: "1 second", max: "1 second" } },
        log: Pipeline.log(transaction(1, 1)),
        answer: ({ text }) => (text.startsWith("INSERT") ? { sqlState: states.shift() ?? "40001" } : undefined)
      })
      yield* pipeline.settle
      for (let tries = 1; tries < 11; tries++) {
        yield* TestClock.adjust("1 second")
        yield* pipeline.settle
      }
      const memory =
        "Warn: public.pets, offset 1, transaction 0/1: the target's disk is full (SQLSTATE 53100); trying again in 1.0 s"
      const told = (tries: number) => `${memory}, after ${tries} tries without progress: free disk space on the target`
      assert.deepStrictEqual(
        pipeline.logged.filter((text) => text.startsWith("Warn") && text.includes("53100")),
        [memory, memory, told(4), told(8)]
      )
      assert.lengthOf(
        pipeline.logged.filter((text) => text.includes("40001")),
        1
      )
    })
  )

  it.effect("stops at once at what a retry would not heal, naming place and remedy", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(0x16_0000_0001, 7)),
        answer: failing(["42501"])
      })
      const error = yield* pipeline.stopped({ _tag: "ApplyFailed", isRetryable: false })
      assert.strictEqual(
        error.message,
        "public.pets, offset 1, transaction 16/1: insufficient privilege (SQLSTATE 42501)"
      )
      assert.match(error.remedy, /^grant the connector's role what it lacks: `fluvio-postgres-sink check --grants`/)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(7), "ROLLBACK"]])
      assert.isUndefined(yield* pipeline.position)
    })
  )

  it.effect("survives a backend that dies, although its ROLLBACK fails too and turns the failure into a defect", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1)),
        answer: failing(["57P01"], "08006")
      })
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(1), "ROLLBACK"]])
      yield* TestClock.adjust("300 millis")
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(1), "COMMIT"]])
    })
  )

  it.effect(
    "applies again when it is not known whether COMMIT came through, unless the position says that it did",
    () =>
      Effect.gen(function* () {
        let commits = 0
        const pipeline = yield* Pipeline.start({
          stored: known,
          log: Pipeline.log(transaction(1, 1)),
          // The first COMMIT belongs to the question whether the role may be a replica.
          answer: ({ text }) => (text === "COMMIT" && ++commits === 2 ? { sqlState: "08006" } : undefined)
        })
        yield* pipeline.settle
        assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(1), "COMMIT"]])
        assert.isUndefined(yield* pipeline.position)
        yield* TestClock.adjust("300 millis")
        yield* pipeline.until(() => pipeline.applied.length === 1)
        assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(1), "COMMIT"]])
      })
  )

  it.effect("reads again from the position when the broker is lost, in the middle of a transaction too", () =>
    Effect.gen(function* () {
      const [first, change, last] = transaction(2, 2)
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1), first, change)
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      yield* pipeline.fail(new FluvioUnreachable({ endpoint: "broker:9003", operation: "reading", reason: "reset" }))
      yield* pipeline.settle
      yield* pipeline.append(last)
      yield* TestClock.adjust("300 millis")
      yield* pipeline.until(() => pipeline.applied.length === 2)
      assert.deepStrictEqual(pipeline.transactions(), [
        ["catalog", insertOf(1), "COMMIT"],
        ["catalog", insertOf(2), "COMMIT"]
      ])
      assert.deepStrictEqual(pipeline.logged, [
        "Info: Starting at the beginning of mock-0, which ends at offset 5",
        "Warn: reading at broker:9003 failed: reset; trying again in 0.3 s",
        "Info: Going on at offset 3 of mock-0, which ends at offset 6"
      ])
    })
  )
})

/** Refuses an INSERT of this many rows or more. */
const refusing =
  (rows: number, sqlState: string) =>
  ({ params, text }: { readonly text: string; readonly params: ReadonlyArray<unknown> }) =>
    text.startsWith("INSERT") && String(params[0]).split(",").length >= rows ? { sqlState } : undefined

describe("Connector's pace", () => {
  it.effect("halves what takes longer than the statement time-out, and what comes next is smaller too", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1), transaction(2, 2), transaction(3, 3), transaction(4, 4)),
        answer: refusing(3, "57014")
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [
        ["catalog", insertOf(1, 2, 3, 4), "ROLLBACK"],
        ["catalog", insertOf(1, 2), "COMMIT"],
        [insertOf(3, 4), "COMMIT"]
      ])
      yield* pipeline.append(transaction(5, 5), transaction(6, 6), transaction(7, 7), transaction(8, 8))
      yield* pipeline.until(() => pipeline.applied.length === 3)
      assert.deepStrictEqual(pipeline.transactions(), [
        [insertOf(5, 6), "COMMIT"],
        [insertOf(7, 8), "COMMIT"]
      ])
    })
  )

  it.effect("replays one transaction row by row when even that takes too long", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1, 2)),
        answer: refusing(2, "57014")
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepInclude(pipeline.applied[0], { transactions: 1, changes: 2, replays: 1 })
    })
  )

  it.effect("tries smaller groups when one does not come through, and grows again with what does", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        config: { retry: { min: "1 second", max: "1 second" } },
        log: Pipeline.log(transaction(1, 1), transaction(2, 2), transaction(3, 3), transaction(4, 4)),
        answer: refusing(2, "40P01")
      })
      for (let second = 0; second < 10; second++) {
        yield* pipeline.settle
        yield* TestClock.adjust("1 second")
      }
      yield* pipeline.until(() => pipeline.applied.length === 4)
      const inserts = pipeline.transactions().map((statements) => statements.find((text) => text.startsWith("INSERT")))
      assert.deepStrictEqual(inserts, [
        ...Array(3).fill(insertOf(1, 2, 3, 4)),
        insertOf(1, 2),
        insertOf(1),
        insertOf(2),
        insertOf(3),
        insertOf(4)
      ])
      yield* pipeline.append(transaction(5, 5), transaction(6, 6))
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.transactions(), [[insertOf(5, 6), "ROLLBACK"]])
      yield* TestClock.adjust("1 second")
      yield* pipeline.until(() => pipeline.applied.length === 6)
    })
  )
})

describe("Connector's waiting", () => {
  it.effect(
    "rolls a streamed transaction back when its rest does not come, and reads it again when there is more",
    () =>
      Effect.gen(function* () {
        const ids = Array.from({ length: 40 }, (_, n) => n + 1)
        const [first, ...rest] = transaction(1, ...ids)
        const pipeline = yield* Pipeline.start({
          stored: known,
          config: { group: { bytes: "1 KiB", "rest-timeout": "30 s" } },
          log: Pipeline.log(first, rest.slice(0, 20))
        })
        yield* pipeline.settle
        yield* TestClock.adjust("29 seconds")
        yield* pipeline.settle
        assert.notInclude(pipeline.transactions().flat(), "ROLLBACK")
        yield* TestClock.adjust("1 second")
        yield* pipeline.settle
        assert.include(pipeline.sent(), "ROLLBACK")
        assert.include(
          pipeline.logged,
          "Warn: mock-0 ends at offset 21 inside of a transaction, and for 30 s nothing has followed: rolled back until there is more of mock"
        )
        yield* TestClock.adjust("10 minutes")
        yield* pipeline.settle
        assert.notInclude(pipeline.sent(), "BEGIN")

        yield* pipeline.append(rest.slice(20))
        yield* pipeline.settle
        yield* TestClock.adjust("2 seconds")
        yield* pipeline.until(() => pipeline.applied.length === 1)
        assert.deepInclude(pipeline.applied[0], { transactions: 1, changes: 40 })
      })
  )

  it.effect("stands by when the session with the lock is lost, and says so", () =>
    Effect.gen(function* () {
      let isLost = false
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1)),
        answer: ({ text }) => {
          if (text === "SELECT 1") return isLost ? { sqlState: "57P01" } : undefined
          return isLost && text.startsWith("SELECT pg_try_advisory_lock") ? { rows: [{ held: false }] } : undefined
        }
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      isLost = true
      yield* TestClock.adjust("1 second")
      yield* pipeline.settle
      yield* TestClock.adjust("1 second")
      yield* pipeline.append(transaction(2, 2))
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.logged.slice(1), [
        "Info: Caught up with mock-0 at offset 2: 3 records in 1s",
        "Warn: the session that holds the advisory lock of mock-0 was lost: an administrator of the target ended the session (SQLSTATE 57P01); trying again in 0.3 s",
        "Info: Standing by: another instance applies mock-0 to this database"
      ])
      assert.lengthOf(pipeline.applied, 1)
      isLost = false
      yield* TestClock.adjust("1 second")
      yield* pipeline.until(() => pipeline.applied.length === 2)
    })
  )
})

describe("Connector's proof of place", () => {
  const before = Pipeline.applied(3, commit(1), 1, [pet])

  it.effect("stops when the record at the position is another one, and applies nothing", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: before,
        log: Pipeline.log(transaction(9, 9), transaction(10, 10))
      })
      yield* pipeline.stopped({ _tag: "PlaceNotProved", topic: "mock", partition: 0, offset: 2, isRetryable: false })
      assert.deepStrictEqual(pipeline.transactions(), [])
      assert.deepStrictEqual(yield* pipeline.stored, before)
    })
  )

  it.effect("goes on with a warning when retention has removed exactly that record", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: before, firstOffset: 3, log: Pipeline.log(transaction(2, 2)) })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(2), "COMMIT"]])
      assert.include(
        pipeline.logged,
        "Warn: Retention has removed the record at offset 2: going on at 3 without proof of place"
      )
      assert.strictEqual((yield* pipeline.position)?.offset, 5)
    })
  )

  it.effect("names the gap when retention has removed more", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: before, firstOffset: 4, log: Pipeline.log(transaction(2, 2)) })
      yield* pipeline.stopped({ _tag: "RetentionGap", needed: 3, available: 4, isRetryable: false })
      assert.deepStrictEqual(pipeline.transactions(), [])
    })
  )

  it.effect("names the gap when retention is at work during the start", () =>
    Effect.gen(function* () {
      let running: Pipeline.Pipeline | undefined
      const pipeline = yield* Pipeline.start({
        stored: before,
        log: Pipeline.log(transaction(1, 1), transaction(2, 2)),
        answer: ({ text }) => {
          if (running !== undefined && text.startsWith("SELECT set_config(")) Effect.runSync(running.trim(5))
          return undefined
        }
      })
      running = pipeline
      yield* pipeline.stopped({ _tag: "RetentionGap", needed: 3, available: 5 })
      assert.isFalse(pipeline.logged.some((message) => message.startsWith("Warn")))
      assert.deepStrictEqual(pipeline.transactions(), [])
    })
  )

  it.effect("names the gap when retention has begun before the first start", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ firstOffset: 4, log: Pipeline.log(transaction(2, 2)) })
      yield* pipeline.stopped({ _tag: "RetentionGap", needed: 0, available: 4 })
    })
  )

  it.effect("stops when the log ends before the position", () =>
    Effect.gen(function* () {
      for (const length of [0, 1, 2]) {
        const pipeline = yield* Pipeline.start({
          stored: before,
          log: Pipeline.log(transaction(1, 1)).slice(0, length)
        })
        yield* TestClock.adjust("5 seconds")
        yield* pipeline.stopped({ _tag: "OffsetBeyondEnd", requested: 3, end: length, isRetryable: false })
      }
    })
  )

  it.effect("waits for a new leader that knows for a moment of fewer committed records", () =>
    Effect.gen(function* () {
      let running: Pipeline.Pipeline | undefined
      const pipeline = yield* Pipeline.start({
        stored: before,
        log: Pipeline.log(transaction(1, 1), transaction(2, 2)),
        answer: ({ text }) => {
          if (running === undefined || !text.startsWith("SELECT pg_try_advisory_lock")) return undefined
          const { commit } = running
          running = undefined
          Effect.runSync(commit(2))
          return undefined
        }
      })
      running = pipeline
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.transactions(), [])
      yield* TestClock.adjust("1 second")
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.logged, [])
      yield* pipeline.commit(6)
      yield* TestClock.adjust("250 millis")
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(2), "COMMIT"]])
    })
  )

  it.effect("tries again for as long as the record at the position is written but not committed", () =>
    Effect.gen(function* () {
      let running: Pipeline.Pipeline | undefined
      const pipeline = yield* Pipeline.start({
        stored: before,
        log: Pipeline.log(transaction(1, 1), transaction(2, 2)),
        answer: ({ text }) => {
          if (running !== undefined && text.startsWith("SELECT pg_try_advisory_lock")) {
            Effect.runSync(running.commit(2))
            running = undefined
          }
          return undefined
        }
      })
      running = pipeline
      yield* pipeline.settle
      yield* TestClock.adjust("1 minute")
      yield* pipeline.settle
      assert.include(
        pipeline.logged[0],
        "Warn: the leader of mock-0 moved or is away: offset 3 is written, but committed only up to 2; trying again"
      )
      yield* pipeline.commit(6)
      yield* TestClock.adjust("1 minute")
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(2), "COMMIT"]])
    })
  )

  it.effect("waits at the end of the log", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: before, log: Pipeline.log(transaction(1, 1)) })
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.transactions(), [])
      yield* pipeline.append(transaction(2, 2))
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(2), "COMMIT"]])
    })
  )
})

describe("Connector's groups", () => {
  it.effect("moves the position past empty transactions at most once a second", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ log: Pipeline.log(empty(1), empty(2)) })
      yield* TestClock.adjust(999)
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.transactions(), [])
      yield* TestClock.adjust(1)
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.transactions(), [["COMMIT"]])
      assert.deepInclude(pipeline.applied[0], { transactions: 2, changes: 0, statements: 0 })
      assert.deepInclude(yield* pipeline.position, { offset: offset(3), commitLsn: lsn(2) })

      yield* pipeline.append(empty(3))
      yield* TestClock.adjust(600)
      yield* pipeline.append(empty(4))
      yield* TestClock.adjust(399)
      yield* pipeline.settle
      assert.lengthOf(pipeline.applied, 1)
      yield* TestClock.adjust(1)
      yield* pipeline.until(() => pipeline.applied.length === 2)
      assert.deepInclude(yield* pipeline.position, { offset: offset(7), commitLsn: lsn(4) })

      // After a longer rest there is nothing to wait for.
      yield* TestClock.adjust("1 minute")
      yield* pipeline.append(empty(5))
      yield* pipeline.until(() => pipeline.applied.length === 3)
    })
  )

  it.effect("takes empty transactions along with the next change", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: known, log: Pipeline.log(empty(1)) })
      yield* pipeline.settle
      yield* pipeline.append(empty(2), transaction(3, 3))
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(3), "COMMIT"]])
      assert.deepInclude(pipeline.applied[0], { transactions: 3, changes: 1 })
    })
  )

  it.effect("gathers for group.window, counted from the first change", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: known, config: { group: { window: "200 millis", rows: 3 } } })
      yield* TestClock.adjust("10 seconds")
      yield* pipeline.append(transaction(1, 1))
      yield* TestClock.adjust(150)
      yield* pipeline.append(transaction(2, 2))
      yield* TestClock.adjust(49)
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.transactions(), [])
      yield* TestClock.adjust(1)
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(1, 2), "COMMIT"]])

      // A full group waits for nothing.
      yield* pipeline.append(transaction(3, 3, 4, 5))
      yield* pipeline.until(() => pipeline.applied.length === 2)
      assert.deepStrictEqual(pipeline.transactions(), [[insertOf(3, 4, 5), "COMMIT"]])
    })
  )

  it.effect("puts together, while a group is applied, what comes meanwhile", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1)),
        answer: ({ text }) => (text.startsWith("INSERT") ? { delay: "1 second" } : undefined)
      })
      yield* pipeline.settle
      yield* pipeline.append(transaction(2, 2))
      yield* pipeline.append(transaction(3, 3))
      yield* pipeline.settle
      yield* TestClock.adjust("2 seconds")
      yield* pipeline.until(() => pipeline.applied.length === 2)
      assert.deepStrictEqual(pipeline.transactions(), [
        ["catalog", insertOf(1), "COMMIT"],
        [insertOf(2, 3), "COMMIT"]
      ])
      assert.deepStrictEqual(
        pipeline.applied.map(({ millis }) => millis.execute),
        [1000, 1000]
      )
    })
  )

  it.effect("adds what has come meanwhile to what a full group left over", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1), transaction(2, 2), transaction(3, 3)),
        config: { group: { transactions: 2 } },
        answer: ({ text }) => (text.startsWith("INSERT") ? { delay: "1 second" } : undefined)
      })
      yield* pipeline.settle
      yield* pipeline.append(transaction(4, 4))
      yield* pipeline.settle
      yield* TestClock.adjust("2 seconds")
      yield* pipeline.until(() => pipeline.applied.length === 2)
      assert.deepStrictEqual(pipeline.transactions(), [
        ["catalog", insertOf(1, 2), "COMMIT"],
        [insertOf(3, 4), "COMMIT"]
      ])
    })
  )

  it.effect("finishes the group in hand before it ends, and gives the lock back", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1)),
        answer: ({ text }) => (text.startsWith("INSERT") ? { delay: "5 seconds" } : undefined)
      })
      yield* pipeline.settle
      yield* pipeline.append(transaction(2, 2))
      const ending = yield* Effect.forkChild(pipeline.interrupt)
      yield* pipeline.settle
      assert.strictEqual(pipeline.sent().at(-1), insertOf(1))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(ending)
      assert.deepStrictEqual(pipeline.sent(), ["COMMIT", "unlock"])
      assert.strictEqual((yield* pipeline.position)?.offset, 2)
    })
  )
})

describe("Connector's take-over", () => {
  it.effect("applies the rest of the transaction that the original was in, once, and keeps what it learned", () =>
    Effect.gen(function* () {
      const rest = [row(3, "n3"), row(4, "n4"), commit(1)]
      const pipeline = yield* Pipeline.start({
        stored: left(3),
        log: Pipeline.log(begin(1), relation(pet), row(1, "n1"), row(2, "n2"), rest, transaction(2, 5)),
        config: { group: { transactions: 1 } }
      })
      yield* pipeline.until(() => pipeline.applied.length === 2)
      assert.deepStrictEqual(pipeline.transactions(), [
        ["catalog", insertOf(3, 4), "COMMIT"],
        [insertOf(5), "COMMIT"]
      ])
      assert.deepInclude(pipeline.applied[0].position, { offset: offset(6), commitLsn: lsn(1), commitTime: time })
      const { described, savedBy } = yield* pipeline.stored
      assert.deepStrictEqual(described.relations, [{ relation: pet, offset: offset(1) }])
      assert.strictEqual(savedBy, "connector")
      assert.strictEqual(
        pipeline.logged[1],
        "Info: Taking over from the original connector: learning the relations up to offset 3"
      )
    })
  )

  it.effect("does not put back what it learned once the stream has said something else", () =>
    Effect.gen(function* () {
      const full = relationOf({ replicaIdentity: "Full" })
      const pipeline = yield* Pipeline.start({
        stored: left(3),
        log: Pipeline.log(begin(1), relation(pet), row(1, "n1"), commit(1)),
        config: { group: { transactions: 1 } }
      })
      yield* pipeline.append(transaction(2, 2), begin(3), relation(full), commit(3), transaction(4, 4))
      yield* pipeline.until(() => pipeline.applied.length === 3)
      assert.deepStrictEqual((yield* pipeline.stored).described.relations, [{ relation: full, offset: offset(8) }])
    })
  )

  it.effect("goes on with the next transaction when the original had finished one", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: left(3),
        log: Pipeline.log(begin(1), relation(pet), row(1, "n1"), commit(1), transaction(1, 1), transaction(2, 2))
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", insertOf(2), "COMMIT"]])
      assert.deepInclude(pipeline.applied[0], { transactions: 1, duplicates: 1 })
    })
  )

  it.effect("refuses the rest of a transaction whose beginning is gone", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: left(3),
        firstOffset: 4,
        log: Pipeline.log(row(2, "n2"), commit(1), transaction(2, 2))
      })
      yield* pipeline.stopped({ _tag: "BeginMissing", offset: 4 })
      assert.deepStrictEqual(pipeline.transactions(), [])
    })
  )

  it.effect("stops when the log ends before the original's position, rather than to wait for it", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: left(7), log: Pipeline.log(transaction(1, 1)) })
      yield* pipeline.settle
      yield* TestClock.adjust("5 seconds")
      yield* pipeline.stopped({ _tag: "OffsetBeyondEnd", requested: 8, end: 3 })
    })
  )
})

describe("Connector's standby", () => {
  it.effect("asks for the lock once a second and reads the position only when it has it", () =>
    Effect.gen(function* () {
      const answers = [false, false, true]
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1)),
        answer: ({ text }) =>
          text.startsWith("SELECT pg_try_advisory_lock") ? { rows: [{ held: answers.shift() }] } : undefined
      })
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.sent(), ["session", "session", "session", "lock", "lock"])
      assert.deepStrictEqual(pipeline.logged, ["Info: Standing by: another instance applies mock-0 to this database"])
      yield* TestClock.adjust(999)
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.sent(), [])
      yield* TestClock.adjust(1)
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.strictEqual(pipeline.sent()[0], "lock")
      assert.strictEqual(pipeline.logged[1], "Info: Taking over mock-0")
    })
  )

  // The first two asked are the same session, or the first one is another when it is asked again.
  it.effect.each([
    [1, 1, 1],
    [1, 2, 3]
  ])("stops where a pooler deals out the sessions, before it leaves a lock in one (%d, %d, %d)", (pids) =>
    Effect.gen(function* () {
      const sessions = [...pids]
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1)),
        answer: ({ text }) =>
          text.startsWith("SELECT pg_backend_pid") ? { rows: [{ pid: sessions.shift() }] } : undefined
      })
      yield* pipeline.stopped({ _tag: "SessionsPooled", isRetryable: false })
      assert.isFalse(pipeline.sent().includes("lock"))
    })
  )

  it.effect("takes no lock where sessions are shared", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(transaction(1, 1)),
        config: { target: { lock: "none" } }
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      yield* pipeline.interrupt
      const sent = pipeline.sent()
      assert.isFalse(sent.includes("lock") || sent.includes("unlock"))
    })
  )
})

const unmatched = (setting: string, name: string) =>
  `Warn: \`${setting}\` names ${name}, but the source has shown no such table so far`

describe("Settings that name what is not there", () => {
  it.effect("are told once what the log held is applied, and tables that are left out are named", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        log: Pipeline.log(begin(100), relation(pet), row(1, "n1"), commit(100)),
        config: { tables: { include: ["public.pest"], exclude: ["public.a*"] } }
      })
      yield* pipeline.until(() => pipeline.logged.some((line) => line.startsWith("Warn")))
      yield* pipeline.append(transaction(200, 2))
      yield* pipeline.until(() => pipeline.applied.length === 2)
      assert.deepStrictEqual(
        pipeline.logged.filter((line) => line.includes("tables.")),
        [
          "Info: public.pets is left out, because of tables.include",
          unmatched("tables.include", "public.pest"),
          unmatched("tables.exclude", "public.a*")
        ]
      )
    })
  )

  it.effect("are told at the start where nothing new has come", () =>
    Effect.gen(function* () {
      const config = { tables: { include: ["public.pest"] } }
      const last = Pipeline.log(transaction(100, 1))
      const pipeline = yield* Pipeline.start({
        log: last,
        stored: Pipeline.applied(3, commit(100), 100, [pet]),
        config
      })
      yield* pipeline.until(() => pipeline.logged.some((line) => line.startsWith("Warn")))
      assert.include(pipeline.logged, "Info: Left out, as the settings are: public.pets")
      assert.include(pipeline.logged, unmatched("tables.include", "public.pest"))
    })
  )

  it.effect("are not told while the stream has shown no table", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        log: Pipeline.log(empty(100)),
        config: { tables: { include: ["public.pest"] } }
      })
      yield* pipeline.settle
      yield* TestClock.adjust("1 second")
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.notInclude(pipeline.logged.join("\n"), "Warn")
    })
  )

  it.effect("are not told again after every failure that passes", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        log: Pipeline.log(begin(100), relation(pet), commit(100)),
        config: { tables: { include: ["public.pest"] } }
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      yield* pipeline.fail(new FluvioUnreachable({ endpoint: "broker:9003", operation: "reading", reason: "reset" }))
      yield* pipeline.until(() => pipeline.logged.some((line) => line.includes("trying again")))
      yield* TestClock.adjust("1 second")
      yield* pipeline.append(transaction(200, 2))
      yield* pipeline.until(() => pipeline.applied.length === 2)
      assert.lengthOf(
        pipeline.logged.filter((line) => line === unmatched("tables.include", "public.pest")),
        1
      )
    })
  )
})
