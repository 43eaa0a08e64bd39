import { assert, describe, it } from "vitest"
import * as fc from "fast-check"
import { type Cell, Tuple } from "../../../src/stream/Tuple.ts"

const texts = fc.oneof(
  fc.constantFrom("", "NULL", "größer 😀 als", "\ufeffmark", "a\0b", `"\\`),
  fc.string({ unit: "binary" })
)
const cell: fc.Arbitrary<Cell> = fc.oneof(fc.constant(null), fc.constant(undefined), texts)

const width = 4
const image: fc.Arbitrary<ReadonlyArray<Cell>> = fc.array(cell, { minLength: width, maxLength: width })

const over = (newer: ReadonlyArray<Cell>, older: ReadonlyArray<Cell>): ReadonlyArray<Cell> =>
  newer.map((cell, n) => (cell === undefined ? older[n] : cell))

/** Everything that a tuple tells of its cells. */
const assertHolds = (tuple: Tuple, cells: ReadonlyArray<Cell>) => {
  assert.deepStrictEqual(tuple.cells, cells)
  assert.strictEqual(tuple.length, cells.length)
  assert.strictEqual(tuple.isComplete, !cells.includes(undefined))
  cells.forEach((cell, index) => {
    assert.strictEqual(tuple.cell(index), cell)
    assert.strictEqual(tuple.isKnown(index), cell !== undefined)
  })
}

describe("Tuple", () => {
  it("keeps text, NULL and what is unchanged apart", () => {
    for (const cells of [[], [""], [null], [undefined], ["", null, undefined, "NULL", "ä€😀", "\ufeff", "\0"]]) {
      assertHolds(Tuple.of(cells), cells)
    }
  })

  it("gives back any cells", () => {
    fc.assert(fc.property(fc.array(cell), (cells) => assertHolds(Tuple.of(cells), cells)))
  })

  it("takes what it leaves out from older images, in whatever order they are put together", () => {
    fc.assert(
      fc.property(
        fc.array(image, { minLength: 1, maxLength: 6 }),
        fc.array(fc.nat(), { minLength: 5, maxLength: 5 }),
        (images, choices) => {
          // From the newest to the oldest.
          const parts = images.map((cells) => ({ cells, tuple: Tuple.of(cells) }))
          for (const choice of choices.slice(0, images.length - 1)) {
            const at = choice % (parts.length - 1)
            const [newer, older] = parts.slice(at, at + 2)
            const merged = { cells: over(newer.cells, older.cells), tuple: newer.tuple.over(older.tuple) }
            assertHolds(merged.tuple, merged.cells)
            assertHolds(newer.tuple, newer.cells)
            assertHolds(older.tuple, older.cells)
            parts.splice(at, 2, merged)
          }
          assertHolds(parts[0].tuple, images.reduce(over))
        }
      ),
      { numRuns: 2_000 }
    )
  })

  it("keeps no image in memory that gives it nothing", () => {
    const complete = Tuple.of(["1", null])
    assert.strictEqual(complete.over(Tuple.of(["2", "b"])), complete)
    const sent = Tuple.of(["1", undefined])
    assert.strictEqual(sent.over(Tuple.of(["2", undefined])), sent)
    // The image in between gives nothing, but the one under it does.
    const known = Tuple.of([undefined, "long", undefined])
    const between = Tuple.of(["2", undefined, undefined]).over(known)
    const newest = Tuple.of(["1", undefined, undefined]).over(between)
    assert.deepStrictEqual(newest.cells, ["1", "long", undefined])
    assert.strictEqual(newest.holder(1), known)
    assert.isUndefined(newest.holder(2))
  })
})
