import { assert, describe, it } from "vitest"
import { formatLsn, formatTime, parseLsn, parseTime } from "../../../src/stream/OffsetStore.ts"

describe("an LSN", () => {
  it("is read as it is printed", () => {
    for (const text of ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"]) {
      assert.strictEqual(formatLsn(parseLsn(text)!), text)
    }
    assert.strictEqual(parseLsn("0/c8"), 200n)
    for (const text of ["", "200", "0/", "/1", "0/G", "1/2/3", "123456789/0", " 0/1"]) {
      assert.isUndefined(parseLsn(text), text)
    }
  })
})

describe("a commit time", () => {
  it("is read as it is printed, to the microsecond", () => {
    const cases: ReadonlyArray<readonly [bigint, string]> = [
      [0n, "2000-01-01T00:00:00.000000Z"],
      [-1n, "1999-12-31T23:59:59.999999Z"],
      [690_913_417_000_001n, "2021-11-22T16:23:37.000001Z"]
    ]
    for (const [time, text] of cases) {
      assert.strictEqual(formatTime(time), text)
      assert.strictEqual(parseTime(text), time)
    }
    assert.strictEqual(formatTime(2n ** 63n - 1n), "9223372036854775807 microseconds since 2000")
  })

  it("may be in another zone or less exact, and always says in which zone", () => {
    const time = parseTime("2026-11-30T20:15:00Z")
    for (const text of [
      "2026-11-30 20:15Z",
      "2026-11-30T21:15:00+01:00",
      "2026-11-30 22:15:00.000+02",
      "2026-11-30T19:45:00-0030"
    ]) {
      assert.strictEqual(parseTime(text), time, text)
    }
    for (const text of ["", "2026-11-30", "2026-11-30T20:15:00", "2026-13-30T20:15:00Z", "yesterday"]) {
      assert.isUndefined(parseTime(text), text)
    }
  })
})
