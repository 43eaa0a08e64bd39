import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { interpret, type Reading } from "../../../src/schema/Reading.ts"
import type { RelationColumn } from "../../../src/stream/Relation.ts"

const types: { readonly [type: string]: number } = { int: 23, text: 25, date: 1082 }

/** `"id int, a text"` as columns. */
const columns = (list: string): ReadonlyArray<RelationColumn> =>
  list === ""
    ? []
    : list.split(", ").map((definition) => {
        const [name, type = "text"] = definition.split(" ")
        return { name, typeId: types[type], typeModifier: -1, isKey: false }
      })

const told = ({ changes }: Reading): string =>
  changes
    .map((change) => {
      switch (change.type) {
        case "added":
          return `+${change.after.name}`
        case "dropped":
          return `-${change.before.name}`
        case "renamed":
          return `${change.before.name}>${change.after.name}`
        case "retyped":
          return `${change.after.name}!`
      }
    })
    .join(" ")

/** As if only the first column were applied. */
const firstOnly = ({ origins }: Reading) => String(origins[0]?.name)

const read = (before: string, after: string) => {
  const { isClear, readings } = interpret(columns(before), columns(after))
  return { isClear, readings: readings.map(told) }
}

describe("a change of columns is clear", () => {
  it.each([
    ["id int, a", "id int, a, b", "+b"],
    ["id int, a, b", "id int, c, b", "a>c"],
    ["id int, a, b int", "id int, b int", "-a"],
    ["id int, a", "id int", "-a"],
    ["id int, a, b date", "id int, a int, b date", "a!"],
    ["id int, a, b", "id int, a, b", ""],
    ["id int, a, b", "id int, a, b, c, d int", "+c +d"],
    ["", "id int", "+id"]
  ])("(%s) to (%s): %s", (before, after, changes) => {
    const { isClear, readings } = read(before, after)
    assert.isTrue(isClear)
    assert.strictEqual(readings[0], changes)
  })
})

describe("a change of columns is not clear", () => {
  it.each([
    ["a rename of the last column, or a replacement", "id int, a", "id int, b", ["a>b", "-a +b", "-id a>id id!"]],
    ["a column in front of a kept one", "id int, a", "id int, b, a", ["a>b +a", "-a +b +a"]],
    ["one of two columns of a type is gone", "id int, a int, b int", "id int, b int", ["-a", "-b a>b", "-id a>id"]],
    ["the last of two columns of a type is gone", "id date, a, b", "id date, a", ["-b", "-a b>a"]],
    [
      "a name moves to the end",
      "id date, email, name",
      "id date, name, email",
      ["-email +email", "email>name name>email"]
    ],
    [
      "a column is replaced while the log shows both",
      "id date, email, name, email_new",
      "id date, name, email",
      ["-email email_new>email", "-email -email_new +email", "-email_new email>name name>email"]
    ],
    [
      "the same with another type",
      "id date, email int, name, email_new",
      "id date, name, email",
      ["-email email_new>email", "-email -email_new +email", "-email email_new>email"]
    ],
    ["names are handed on", "id date, a, b", "id date, c, a", ["a>c b>a", "-b a>c +a"]],
    ["the last column is retyped, or replaced by one of its name", "id int, a", "id int, a int", ["a!", "-a +a"]],
    ["two names are exchanged", "id date, a, b", "id date, b, a", ["-a +a", "a>b b>a"]]
  ])("%s: (%s) to (%s)", (_, before, after, some) => {
    const { isClear, readings } = read(before, after)
    assert.isFalse(isClear)
    for (const reading of some.slice(0, 2)) assert.include(readings, reading)
  })

  it("unless nothing of it is kept here", () => {
    assert.isTrue(interpret(columns("id int, a"), columns("id int, b"), firstOnly).isClear)
  })
})

describe("the readings", () => {
  it("are those of at most two commands more than the shortest, the shortest first", () => {
    const { readings } = interpret(columns("id date, a, b"), columns("id date, b, c"))
    const lengths = readings.map(({ changes }) => changes.length)
    assert.deepStrictEqual(lengths, lengths.toSorted())
    assert.deepStrictEqual(readings.map(told), ["a>b b>c", "-a +c", "-b a>b +c", "-id a>id id! +c", "-a -b +b +c"])
  })

  it("of a table of 1,600 columns are found, and never guessed", () => {
    const wide = Array.from({ length: 1600 }, (_, n) => `c${n}`)
    const without = wide.filter((_, n) => n !== 800).join(", ")
    const dropped = interpret(columns(wide.join(", ")), columns(without))
    assert.isFalse(dropped.isClear)
    assert.strictEqual(told(dropped.readings[0]), "-c800")
    assert.isTrue(interpret(columns(wide.join(", ")), columns([...wide, "more"].join(", "))).isClear)
    const other = wide.map((name) => `x${name}`).join(", ")
    const replaced = interpret(columns(wide.join(", ")), columns(other))
    assert.isFalse(replaced.isClear)
    assert.isTrue(replaced.readings.length > 0)
    const scattered = wide.filter((_, n) => n % 5 !== 0).join(", ")
    const many = interpret(columns(wide.join(", ")), columns(scattered))
    assert.isFalse(many.isClear)
    assert.isTrue(many.isCut)
  })
})

interface Held extends RelationColumn {
  /** Where its values come from: a column of the beginning, or nowhere. */
  readonly origin: string | undefined
}

const command = fc.record({ kind: fc.constantFrom("add", "drop", "rename", "retype"), place: fc.nat(9), to: fc.nat(9) })
const names = ["a", "b", "c", "d", "e"]
const typeIds = Object.values(types)

/** Carries out a command as PostgreSQL would, or refuses it. */
const carryOut = (
  table: ReadonlyArray<Held>,
  { kind, place, to }: typeof command extends fc.Arbitrary<infer C> ? C : never
) => {
  const name = names[to % names.length]
  const typeId = typeIds[to % typeIds.length]
  const isTaken = table.some((column) => column.name === name)
  if (kind === "add") {
    return isTaken
      ? undefined
      : [...table, { name, typeId: typeIds[place % 3], typeModifier: -1, isKey: false, origin: undefined }]
  }
  if (table.length === 0) return undefined
  const at = place % table.length
  if (kind === "drop") return table.toSpliced(at, 1)
  if (kind === "rename") return isTaken ? undefined : table.with(at, { ...table[at], name })
  return table[at].typeId === typeId ? undefined : table.with(at, { ...table[at], typeId })
}

describe("any history of commands", () => {
  it("that is at most one command longer than the shortest reading is what a clear change says", () => {
    let clear = 0
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.record({ name: fc.constantFrom(...names), typeId: fc.constantFrom(...typeIds) }), {
          selector: ({ name }) => name,
          maxLength: 5
        }),
        fc.array(command, { maxLength: 5 }),
        (start, commands) => {
          const before = start.map((column) => ({ ...column, typeModifier: -1, isKey: false }))
          let table: ReadonlyArray<Held> = before.map((column) => ({ ...column, origin: column.name }))
          let length = 0
          for (const one of commands) {
            const next = carryOut(table, one)
            if (next === undefined) continue
            table = next
            length += 1
          }
          const { isClear, readings, shortest } = interpret(before, table)
          assert.isTrue(shortest[0].changes.length <= length)
          if (!isClear || length > shortest[0].changes.length + 1) return
          clear += 1
          assert.deepStrictEqual(
            readings[0].origins.map((origin) => origin?.name),
            table.map(({ origin }) => origin)
          )
        }
      ),
      { numRuns: 3000 }
    )
    assert.isAbove(clear, 300)
  })
})
