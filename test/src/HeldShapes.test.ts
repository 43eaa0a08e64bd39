import { assert, describe, it } from "vitest"
import { namedIn, shapesOf } from "../../src/HeldShapes.ts"
import type { Change } from "../../src/stream/Change.ts"
import type { Relation } from "../../src/stream/Relation.ts"
import { Tuple } from "../../src/stream/Tuple.ts"
import { offset, relationOf } from "../events.ts"

const at = offset(5)
const pets = relationOf()
const wide = relationOf({
  columns: [...pets.columns, { name: "mood", isKey: false, typeId: 20_001, typeModifier: -1 }]
})
const others = relationOf({ id: 2, name: "others" })
const insert = (relation: Relation): Change => ({ type: "insert", offset: at, relation, tuple: Tuple.of(["1", "x"]) })
const describes = (relation: Relation, previous?: Relation): Change => ({
  type: "relation",
  offset: at,
  relation,
  previous
})
const nothing = { relations: [], types: [] }
const before = { relations: [{ relation: pets, offset: offset(3) }], types: [] }

describe("HeldShapes", () => {
  it("keeps what was described before the first row of each table", () => {
    assert.deepStrictEqual(shapesOf([insert(pets), describes(wide, pets), insert(wide)], before).relations, [
      { applied: pets, offset: offset(3) }
    ])
    assert.deepStrictEqual(shapesOf([insert(others), insert(pets)], nothing).relations, [
      { applied: others },
      { applied: pets }
    ])
  })

  it("keeps by what the first row is read, where that is not what was applied", () => {
    assert.deepStrictEqual(shapesOf([describes(wide, pets), insert(wide)], before).relations, [
      { applied: pets, offset: offset(3), read: wide }
    ])
    assert.deepStrictEqual(shapesOf([describes(pets), insert(pets), describes(wide, pets)], nothing).relations, [
      { read: pets }
    ])
    // A whole table of a transaction that is too large for its keys.
    assert.deepStrictEqual(shapesOf([describes(pets, pets)], nothing).relations, [{ applied: pets }])
  })

  it("names the relations and types of all shapes", () => {
    const truncate: Change = {
      type: "truncate",
      offset: at,
      relations: [others],
      cascade: false,
      restartIdentity: false
    }
    assert.deepStrictEqual(namedIn([describes(wide, pets), truncate, insert(wide)]), {
      relations: [pets.id, others.id],
      types: [23, 25, 20_001]
    })
    const type = { id: 20_001, namespace: undefined, name: "mood", offset: at }
    assert.deepStrictEqual(shapesOf([], { relations: [], types: [type] }).types, [{ ...type, namespace: null }])
  })
})
