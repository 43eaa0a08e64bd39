import { assert, describe, it } from "vitest"
import * as fc from "fast-check"
import { KeyTable } from "../../../src/plan/KeyTable.ts"
import { type Cell, Tuple } from "../../../src/stream/Tuple.ts"

/** Short texts of few letters, so that equal keys, and keys of equal texts cut elsewhere, are frequent. */
const cell: fc.Arbitrary<Cell> = fc.oneof(
  { weight: 8, arbitrary: fc.string({ unit: fc.constantFrom("a", "b", "ä"), maxLength: 3 }) },
  { weight: 1, arbitrary: fc.constantFrom(null, undefined) }
)

/** What a table of these parts answers: numbers in the order in which the keys come first. */
const reference = (parts: ReadonlyArray<number>, rows: ReadonlyArray<ReadonlyArray<Cell>>): ReadonlyArray<number> => {
  const numbers = new Map<string, number>()
  return rows.map((row) => {
    const key = parts.map((part) => row[part])
    if (key.includes(null) || key.includes(undefined)) return -1
    const text = JSON.stringify(key)
    const number = numbers.get(text) ?? numbers.size
    numbers.set(text, number)
    return number
  })
}

describe("KeyTable", () => {
  it("gives equal keys the same number and others the next one, but none where a part is NULL or not known", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(2), { minLength: 1, maxLength: 3 }),
        fc.array(fc.tuple(cell, cell, cell), { maxLength: 200 }),
        (parts, rows) => {
          const table = new KeyTable(parts)
          assert.deepStrictEqual(
            rows.map((row) => table.numberOf(Tuple.of(row))),
            reference(parts, rows)
          )
        }
      ),
      { numRuns: 500 }
    )
  })

  it("tells where one part ends and the next begins", () => {
    const table = new KeyTable([0, 1])
    const keys = [
      ["a", "bc"],
      ["ab", "c"],
      ["abc", ""],
      ["", "abc"],
      ["bc", "a"]
    ]
    assert.deepStrictEqual(
      [...keys, ...keys].map((key) => table.numberOf(Tuple.of(key))),
      [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    )
  })

  it("finds a key in whatever image of the row it is", () => {
    const table = new KeyTable([0, 2])
    const layered = Tuple.of(["1", undefined, undefined]).over(Tuple.of(["2", "long", "x"]))
    assert.strictEqual(table.numberOf(layered), 0)
    assert.strictEqual(table.numberOf(Tuple.of(["1", null, "x"])), 0)
    assert.strictEqual(table.numberOf(Tuple.of(["2", "long", "x"])), 1)
    assert.strictEqual(table.numberOf(Tuple.of(["1", "long", undefined]).over(Tuple.of(["1", "long", null]))), -1)
  })

  /** So many that the table grows several times, and that some share a whole hash. */
  it("grows with its keys", () => {
    const table = new KeyTable([0, 1])
    const numbers = Array.from({ length: 100_000 }, (_, n) => n)
    const numberOf = (n: number) => table.numberOf(Tuple.of([`${n % 317}`, `${Math.floor(n / 317)}`]))
    assert.deepStrictEqual(numbers.map(numberOf), numbers)
    assert.deepStrictEqual(numbers.toReversed().map(numberOf), numbers.toReversed())
  })
})
