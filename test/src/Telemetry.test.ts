import { assert, describe, it } from "vitest"
import type { Applied } from "../../src/Applied.ts"
import type { Offset } from "../../src/stream/FluvioConsumer.ts"
import { Telemetry } from "../../src/Telemetry.ts"
import { lsn, offset } from "../events.ts"

const position = (at: number) => ({
  offset: offset(at),
  checksum: 1,
  epoch: 0,
  commitLsn: lsn(at),
  commitTime: 0n,
  latestTime: 0n
})

const applied = (at: number, records: number, appendedAt: number | undefined): Applied => ({
  position: position(at),
  appendedAt,
  transactions: 1,
  duplicates: 0,
  changes: records,
  tables: new Map([["public.pets", { insert: records, update: 0, delete: 1, truncate: 0 }]]),
  records,
  bytes: records * 10,
  statements: 1,
  schemaChanges: 0,
  missingRows: 0,
  existingRows: 0,
  suppressedRows: 0,
  replays: 0,
  quarantined: 0,
  millis: { plan: 1, execute: 2, commit: 3 }
})

const bounds = (start: number, end: number) => ({
  start: start as Offset,
  end: end as Offset,
  written: end as Offset
})

const error = (message: string) => ({ _tag: "Some", message, remedy: "do", isRetryable: true, value: "s3cret" })

describe("Telemetry", () => {
  it("follows a connector from its start until it has caught up", () => {
    const telemetry = new Telemetry(0)
    assert.strictEqual(telemetry.snapshot(0).state, "starting")
    telemetry.started(position(99), bounds(40, 300), 1000)
    telemetry.tick(1000)
    assert.deepInclude(telemetry.snapshot(1000), { state: "catching up", catchUpSeconds: null })
    telemetry.applied(applied(199, 100, 500), 3000)
    telemetry.tick(3000)
    const half = telemetry.snapshot(3000)
    assert.deepStrictEqual(half.lag, { records: 100, bytes: 1000, seconds: 2.5 })
    assert.deepStrictEqual(half.rate, { records: 50, changes: 50, bytes: 500, groups: 0.5 })
    assert.strictEqual(half.catchUpSeconds, 2)
    telemetry.applied(applied(299, 100, 900), 5000)
    const done = telemetry.snapshot(5000)
    assert.deepInclude(done, { state: "following", catchUpSeconds: 0 })
    assert.deepStrictEqual(done.lag, { records: 0, bytes: 0, seconds: 0 })
    assert.deepStrictEqual(done.tables, [
      { table: "public.pets", insert: 200, update: 0, delete: 2, truncate: 0, lastChange: "1970-01-01T00:00:05.000Z" }
    ])
    assert.deepStrictEqual(done.stages, { decode: 0, plan: 0.002, execute: 0.004, commit: 0.006 })
  })

  it("takes what has come for the end of the log, when the log was asked earlier", () => {
    const telemetry = new Telemetry(0)
    telemetry.started(undefined, bounds(0, 10), 0)
    telemetry.heard(25, 4)
    assert.strictEqual(telemetry.snapshot(0).lag?.records, 25)
    telemetry.bounds(bounds(0, 20), 1)
    assert.strictEqual(telemetry.snapshot(1).log?.end, 25)
  })

  it("knows the time that retention leaves only where it has removed something", () => {
    const telemetry = new Telemetry(0)
    telemetry.started(position(99), bounds(0, 100), 0)
    telemetry.firstRecord(1000)
    telemetry.applied(applied(109, 10, 61_000), 70_000)
    assert.deepInclude(telemetry.snapshot(70_000).log, { headRoomRecords: 110, headRoomSeconds: null })
    telemetry.bounds(bounds(50, 110), 70_000)
    assert.deepInclude(telemetry.snapshot(70_000).log, { headRoomRecords: 60, headRoomSeconds: 60 })
  })

  it("goes by a clock that nobody sets", () => {
    const telemetry = new Telemetry(3_600_000)
    telemetry.started(undefined, bounds(0, 300), 3_600_000)
    telemetry.tick(0)
    // Meanwhile the machine's clock is set back by an hour.
    telemetry.applied(applied(99, 100, undefined), 500)
    telemetry.tick(2000)
    assert.strictEqual(telemetry.snapshot(500).rate.records, 50)
  })

  it("forgets a rate ten seconds after the last group", () => {
    const telemetry = new Telemetry(0)
    telemetry.started(undefined, bounds(0, 100), 0)
    telemetry.tick(0)
    telemetry.applied(applied(99, 100, undefined), 500)
    for (let second = 1; second <= 12; second++) telemetry.tick(second * 1000)
    assert.strictEqual(telemetry.snapshot(12_000).rate.records, 0)
  })

  it("remembers errors, the same one once, and none of their other fields", () => {
    const telemetry = new Telemetry(0)
    telemetry.retrying(error("a"), 1, 1000)
    telemetry.retrying(error("a"), 2, 2000)
    telemetry.retrying(error("b"), 3, 3000)
    const { state, totals, troubles } = telemetry.snapshot(3000)
    assert.deepInclude({ state, retries: totals.retries }, { state: "retrying", retries: 3 })
    assert.deepStrictEqual(
      troubles.map(({ at, attempt, message }) => [message, attempt, at]),
      [
        ["b", 3, "1970-01-01T00:00:03.000Z"],
        ["a", 2, "1970-01-01T00:00:02.000Z"]
      ]
    )
    assert.notInclude(JSON.stringify(troubles), "s3cret")
    telemetry.stopped(undefined, 4000)
    assert.strictEqual(telemetry.snapshot(4000).state, "stopped")
  })
})
