import { assert, describe, it } from "vitest"
import type { Relation } from "../../../src/stream/Relation.ts"
import { type Route, route } from "../../../src/target/Route.ts"
import type { TargetTable } from "../../../src/target/TargetTable.ts"
import { relationOf } from "../../events.ts"
import { targetColumn, targetTable } from "../../tables.ts"

const source = (keys: ReadonlyArray<string>, replicaIdentity: Relation["replicaIdentity"] = "Default"): Relation =>
  relationOf({
    replicaIdentity,
    columns: ["id", "day", "name"].map((name) => ({ name, isKey: keys.includes(name), typeId: 25, typeModifier: -1 }))
  })

const all = ["id", "day", "name"]

const target = (overrides: Partial<TargetTable> = {}): TargetTable =>
  targetTable({ columns: ["name", "id", "day", "extra"].map((name) => targetColumn({ name })), ...overrides })

interface Brief extends Pick<Route, "lookup" | "isKeyUnique" | "isKeyArbiter"> {
  readonly key: ReadonlyArray<string>
}

const brief = ({ columns, isKeyArbiter, isKeyUnique, key, lookup }: Route): Brief => ({
  lookup,
  key: key.map((place) => columns[place].column.name),
  isKeyUnique,
  isKeyArbiter
})

const facts = (overrides: Partial<TargetTable>, keys = ["id", "day"]) => {
  const { isKeyArbiter, isKeyUnique } = route(source(keys), target(overrides))
  return { isKeyUnique, isKeyArbiter }
}

describe("a route", () => {
  it("finds the cells' columns by name, and leaves out what the target does not have or generates", () => {
    const columns = [targetColumn({ name: "name" }), targetColumn({ name: "day", isGenerated: true })]
    const { columns: routed } = route(source([]), target({ columns }))
    assert.deepStrictEqual(routed, [{ index: 2, column: columns[0] }])
  })

  it("maps names, and leaves out filtered columns", () => {
    const { columns } = route(source(["id"]), target(), (name) => (name === "id" ? "extra" : undefined))
    assert.deepStrictEqual(
      columns.map(({ column, index }) => [index, column.name]),
      [[0, "extra"]]
    )
  })

  it("looks rows up by the replica identity, which the target's own key does not change", () => {
    assert.deepStrictEqual(brief(route(source(["id"]), target())), {
      lookup: "key",
      key: ["id"],
      isKeyUnique: true,
      isKeyArbiter: true
    })
    assert.deepStrictEqual(brief(route(source(["name"], "Index"), target({ uniqueKeys: [["name"]] }))), {
      lookup: "key",
      key: ["name"],
      isKeyUnique: true,
      isKeyArbiter: true
    })
  })

  it("knows when a key means one row, and when ON CONFLICT can name it", () => {
    assert.deepStrictEqual(facts({ primaryKey: ["day", "id"] }), { isKeyUnique: true, isKeyArbiter: true })
    assert.deepStrictEqual(facts({ primaryKey: ["id"] }), { isKeyUnique: true, isKeyArbiter: false })
    assert.deepStrictEqual(facts({ primaryKey: ["id", "day"] }, ["id"]), { isKeyUnique: false, isKeyArbiter: false })
    assert.deepStrictEqual(facts({ primaryKey: undefined }), { isKeyUnique: false, isKeyArbiter: false })
    assert.deepStrictEqual(facts({ primaryKey: ["id", "day"], isPrimaryKeyDeferrable: true }), {
      isKeyUnique: false,
      isKeyArbiter: false
    })
    assert.deepStrictEqual(facts({ primaryKey: ["name"], uniqueKeys: [["extra"], ["id", "day"]] }), {
      isKeyUnique: true,
      isKeyArbiter: true
    })
  })

  it("takes the target's primary key under FULL, and the whole image when the relation lacks a column of it", () => {
    assert.deepStrictEqual(brief(route(source(all, "Full"), target({ primaryKey: ["day", "id"] }))), {
      lookup: "key",
      key: ["day", "id"],
      isKeyUnique: true,
      isKeyArbiter: true
    })
    for (const primaryKey of [["id", "extra"], undefined]) {
      assert.deepStrictEqual(brief(route(source(all, "Full"), target({ primaryKey }))), {
        lookup: "image",
        key: [],
        isKeyUnique: false,
        isKeyArbiter: false
      })
    }
  })

  it("cannot look rows up without an identity, or when a part of it has no column in the target", () => {
    const none: Brief = { lookup: "none", key: [], isKeyUnique: false, isKeyArbiter: false }
    assert.deepStrictEqual(brief(route(source([], "Nothing"), target())), none)
    assert.deepStrictEqual(brief(route(source([]), target())), none)
    assert.deepStrictEqual(
      brief(route(source(["id", "day"]), target({ columns: [targetColumn({ name: "id" })] }))),
      none
    )
    assert.deepStrictEqual(
      brief(route(source(["id"]), target({ columns: [targetColumn({ name: "id", isGenerated: true })] }))),
      none
    )
  })
})
