import { assert, describe, it } from "vitest"
import { HeldKeys } from "../../src/HeldKeys.ts"

const key = (table: string, row?: string) => ({ table, row: row === undefined ? undefined : JSON.stringify([row]) })

describe("HeldKeys", () => {
  it("holds rows by their keys, and a table with all its rows", () => {
    const held = new HeldKeys(10)
    assert.isTrue(held.isEmpty)
    held.add(key("public.a", "1"))
    held.add(key("public.b"))
    for (const one of [key("public.a", "1"), key("public.a"), key("public.b"), key("public.b", "7")]) {
      assert.isTrue(held.has(one), JSON.stringify(one))
    }
    for (const one of [key("public.a", "2"), key("public.c"), key("public.c", "1")]) {
      assert.isFalse(held.has(one), JSON.stringify(one))
    }
  })

  it("is written and read again", () => {
    const texts = ['["public.a","1"]', '["public.a","2","x"]', '["public.b"]']
    const held = new HeldKeys(10)
    texts.forEach((text) => held.add(HeldKeys.parse(text)))
    assert.deepStrictEqual(held.texts, texts)
    held.clear()
    assert.isTrue(held.isEmpty)
  })

  it("takes the whole table where it would have to remember too many rows", () => {
    const held = new HeldKeys(2)
    for (const row of ["1", "2", "2"]) held.add(key("public.a", row))
    assert.isFalse(held.has(key("public.a", "3")))
    held.add(key("public.a", "3"))
    held.add(key("public.b", "1"))
    assert.isTrue(held.has(key("public.a", "4")))
    held.add(key("public.a", "5"))
    assert.deepStrictEqual(held.texts, ['["public.a"]', '["public.b","1"]'])
  })

  it("tells whether some row is in another set too, and takes that in", () => {
    const of = (...keys: ReadonlyArray<ReturnType<typeof key>>) => {
      const held = new HeldKeys(10)
      keys.forEach((one) => held.add(one))
      return held
    }
    const held = of(key("public.a", "1"), key("public.b"))
    for (const other of [of(key("public.a", "1")), of(key("public.a")), of(key("public.b", "7"))]) {
      assert.isTrue(held.meets(other))
      assert.isTrue(other.meets(held))
    }
    assert.isFalse(held.meets(of(key("public.a", "2"), key("public.c"))))
    held.addAll(of(key("public.a", "2"), key("public.c")))
    assert.deepStrictEqual(held.counts, [
      { table: "public.a", rows: 2 },
      { table: "public.b", rows: undefined },
      { table: "public.c", rows: undefined }
    ])
  })
})
