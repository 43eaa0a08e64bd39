import { assert, describe, it } from "vitest"
import * as Mapping from "../../../src/target/Mapping.ts"

const none: Mapping.MappingOptions = { include: undefined, exclude: undefined, columns: {}, map: {} }
const table = (namespace: string, name: string) => ({ namespace, name })

describe("Mapping", () => {
  it("leaves every name as it is without settings", () => {
    const mapping = Mapping.make(none)
    assert.deepStrictEqual(mapping.table(table("public", "Order.Items")), { schema: "public", name: "Order.Items" })
    assert.strictEqual(mapping.column(table("public", "t"))("a"), "a")
  })

  it("includes and excludes by whole names, with * for any characters", () => {
    const mapping = Mapping.make({ ...none, include: ["shop.*", "public.t"], exclude: ["shop.tmp_*"] })
    assert.isDefined(mapping.table(table("shop", "orders")))
    assert.isDefined(mapping.table(table("public", "t")))
    assert.isUndefined(mapping.table(table("shop", "tmp_1")))
    assert.isUndefined(mapping.table(table("public", "tt")))
    assert.isUndefined(mapping.table(table("xshop", "orders")))
  })

  it("takes the characters of regular expressions literally", () => {
    const mapping = Mapping.make({ ...none, include: ["public.a+b(c)"] })
    assert.isDefined(mapping.table(table("public", "a+b(c)")))
    assert.isUndefined(mapping.table(table("public", "aab(c)")))
  })

  it("maps a table before its schema", () => {
    const mapping = Mapping.make({ ...none, map: { public: "copy", "public.t": "other.t.2" } })
    assert.deepStrictEqual(mapping.table(table("public", "t")), { schema: "other", name: "t.2" })
    assert.deepStrictEqual(mapping.table(table("public", "u")), { schema: "copy", name: "u" })
  })

  it("never applies the schema of a connector, whatever the settings say", () => {
    const position = table("fluvio", "offset")
    const mapping = Mapping.make({ ...none, include: ["*.*"], map: { fluvio: "copy", "fluvio.offset": "copy.offset" } })
    assert.isUndefined(mapping.table(position))
    assert.strictEqual(mapping.leftOutBy(position), "its schema")
    assert.isDefined(mapping.table(table("fluvio_too", "offset")))
  })

  it("tells which setting leaves a table out, and which entry names it", () => {
    const mapping = Mapping.make({
      ...none,
      include: ["public.*"],
      exclude: ["*.*_old"],
      map: { public: "copy", "public.t": "other.t" }
    })
    assert.strictEqual(mapping.leftOutBy(table("app", "t_old")), "tables.include")
    assert.strictEqual(mapping.leftOutBy(table("public", "t_old")), "tables.exclude")
    assert.isUndefined(mapping.leftOutBy(table("public", "t")))
    assert.deepStrictEqual([table("public", "t"), table("public", "u"), table("app", "t")].map(mapping.mappedBy), [
      "public.t",
      "public",
      undefined
    ])
  })

  it("filters columns of one table only", () => {
    const mapping = Mapping.make({
      ...none,
      columns: { "public.t": { exclude: ["secret"] }, "public.u": { include: ["id"] } }
    })
    assert.isUndefined(mapping.column(table("public", "t"))("secret"))
    assert.strictEqual(mapping.column(table("public", "t"))("a"), "a")
    assert.strictEqual(mapping.column(table("public", "u"))("id"), "id")
    assert.isUndefined(mapping.column(table("public", "u"))("a"))
    assert.strictEqual(mapping.column(table("public", "v"))("secret"), "secret")
  })
})
