import { assert, describe, it } from "vitest"
import * as fc from "fast-check"
import type { Relation } from "../../../src/stream/Relation.ts"
import * as Mapping from "../../../src/target/Mapping.ts"
import { bystanders, moved, Owners, taken } from "../../../src/schema/Owners.ts"
import { relationOf } from "../../events.ts"

const mapping = Mapping.make({
  include: undefined,
  exclude: ["public.out"],
  columns: {},
  map: { "public.low": "public.all", "public.high": "public.all" }
})
const one = (id: number, name: string): Relation => relationOf({ id, name })
const owners = (...relations: ReadonlyArray<Relation>) => Owners.of(mapping, relations)
const table = (name: string) => ({ schema: "public", name })
const idsOf = (all: Owners, name: string) => all.of(table(name)).map(({ id }) => id)

describe("Owners", () => {
  it("knows a table's relations, also several that are mapped to it", () => {
    const all = owners(one(1, "t"), one(2, "low"), one(3, "high"), one(4, "out"))
    assert.deepStrictEqual(idsOf(all, "t"), [1])
    assert.deepStrictEqual(idsOf(all, "all"), [2, 3])
    assert.deepStrictEqual(idsOf(all, "out"), [])
    assert.lengthOf(all.relations, 4)
  })

  it("follows a relation to its new name", () => {
    const all = owners(one(1, "t"), one(1, "t_old"))
    assert.deepStrictEqual([idsOf(all, "t"), idsOf(all, "t_old")], [[], [1]])
    assert.isUndefined(all.rivalOf(one(2, "t")))
  })

  it("gives a name to the relation that was described last under it", () => {
    const before = owners(one(1, "t"))
    assert.deepStrictEqual(before.rivalOf(one(2, "t")), one(1, "t"))
    const after = before.with(one(2, "t"))
    assert.deepStrictEqual(idsOf(after, "t"), [2])
    assert.isFalse(after.hasName(one(1, "t")))
    assert.isTrue(after.hasName(one(2, "t")))
    // The one that lost it takes nothing away when it is described under another name.
    const later = after.with(one(1, "t_old"))
    assert.deepStrictEqual([idsOf(later, "t"), idsOf(later, "t_old")], [[2], [1]])
    // What is rolled back was never there.
    assert.deepStrictEqual(idsOf(before, "t"), [1])
  })

  it("agrees with the list of what was described", () => {
    const name = fc.constantFrom("t", "u", "low", "high", "out")
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(4), name), { maxLength: 30 }), (descriptions) => {
        const all = owners(...descriptions.map(([id, called]) => one(id, called)))
        const last = new Map(descriptions)
        const holders = new Map(descriptions.map(([id, called]) => [called, id]))
        const named = [...last].filter(([id, called]) => holders.get(called) === id)
        for (const target of ["t", "u", "all", "out"]) {
          const expected = named.filter(([, called]) => mapping.table(one(0, called))?.name === target)
          assert.sameMembers(
            idsOf(all, target),
            expected.map(([id]) => id)
          )
        }
        for (const [id, called] of last) assert.strictEqual(all.hasName(one(id, called)), holders.get(called) === id)
      })
    )
  })

  it("finds rows that a truncate would take along", () => {
    const all = owners(one(1, "t"), one(2, "low"), one(3, "high"), one(4, "out"))
    const found = (...relations: ReadonlyArray<Relation>) => bystanders({ relations }, mapping, all).others
    assert.deepStrictEqual(found(one(1, "t"), one(4, "out")), [])
    assert.deepStrictEqual(found(one(1, "t"), one(2, "low")), [one(3, "high")])
    assert.deepStrictEqual(found(one(2, "low"), one(3, "high")), [])
  })

  it("names both readings of a name that another relation has come to have", () => {
    const { reason, ways } = taken(one(2, "t"), one(1, "t"), {
      owners: owners(one(1, "t")),
      table: table("t"),
      needs: ["C"]
    })
    assert.include(reason, "relation 2 of the source is called public.t now")
    assert.deepStrictEqual(
      ways.map(({ statements }) => statements),
      [
        ['DROP TABLE "public"."t"', "C"],
        ['ALTER TABLE "public"."t" RENAME TO "relation_1"', "C"]
      ]
    )
  })

  it("drops nothing that has the rows of others", () => {
    const all = owners(one(1, "low"), one(2, "high"))
    const { hint, ways } = taken(one(3, "low"), one(1, "low"), { owners: all, table: table("all"), needs: ["C"] })
    assert.deepStrictEqual(
      ways.map(({ statements }) => statements),
      [[]]
    )
    assert.include(hint, "the rows of public.high are in it too")
  })

  it("moves a table by way of its old name in its new schema", () => {
    assert.deepStrictEqual(moved({ schema: "a", name: "t" }, { schema: "b", name: "u" }), [
      'CREATE SCHEMA IF NOT EXISTS "b"',
      'ALTER TABLE "a"."t" SET SCHEMA "b"',
      'ALTER TABLE "b"."t" RENAME TO "u"'
    ])
    assert.deepStrictEqual(moved(table("t"), table("t")), [])
  })
})
