import { assert, describe, it } from "vitest"
import type { Relation } from "../../../src/stream/Relation.ts"
import * as Mapping from "../../../src/target/Mapping.ts"
import { changed, unmatched } from "../../../src/schema/Filters.ts"
import { relationOf } from "../../events.ts"

const none: Mapping.MappingOptions = { include: undefined, exclude: undefined, columns: {}, map: {} }
const column = (name: string) => ({ name, isKey: false, typeId: 25, typeModifier: -1 })
const named = (name: string, columns: ReadonlyArray<string> = ["id"]): Relation => {
  const [namespace, table] = name.split(".")
  return relationOf({ namespace, name: table, columns: columns.map(column) })
}

const refused = (settings: Partial<Mapping.MappingOptions>, before: Relation, after: Relation) =>
  changed(before, after, Mapping.make({ ...none, ...settings }), () => ["MOVE"])

describe("a renamed table", () => {
  it.each<[string, Partial<Mapping.MappingOptions>, before: string, after: string, reason: RegExp, hint: RegExp]>([
    [
      "by tables.include",
      { include: ["public.t"] },
      "public.t",
      "public.u",
      /public\.t, which is applied, to public\.u, which `tables\.include` leaves out/,
      /add public\.u to `tables\.include`, and keep public\.t/
    ],
    ["by a pattern", { include: ["public.*"] }, "public.t", "app.t", /`tables\.include` leaves out/, /add app\.t/],
    [
      "by tables.exclude",
      { exclude: ["*.*_old"] },
      "public.t",
      "public.t_old",
      /`tables\.exclude` leaves out/,
      /let `tables\.exclude` not name/
    ],
    [
      "into what is applied",
      { exclude: ["public.t"] },
      "public.t",
      "public.u",
      /public\.t, which `tables\.exclude` leaves out, to public\.u, which is applied/,
      /add public\.u to `tables\.exclude`/
    ],
    ["into a connector's schema", {}, "public.t", "fluvio.t", /in the schema of a connector/, /never applied/],
    [
      "by a mapped table",
      { map: { "public.t": "copy.t" } },
      "public.t",
      "public.u",
      /`tables\.map` names public\.t: the rows would go from copy\.t to public\.u/,
      /set public\.u to copy\.t/
    ],
    [
      "by a mapped schema",
      { map: { app: "copy" } },
      "app.t",
      "public.t",
      /`tables\.map` names app/,
      /set public\.t to copy\.t/
    ],
    [
      "into a mapped schema",
      { map: { app: "copy" } },
      "public.t",
      "app.t",
      /`tables\.map` names app/,
      /set app\.t to public\.t/
    ]
  ])("is refused where it is filtered or mapped %s", (_, settings, before, after, reason, hint) => {
    const refusal = refused(settings, named(before), named(after))
    assert.match(refusal?.reason ?? "", reason)
    assert.match(refusal?.hint ?? "", hint)
  })

  it.each<[string, Partial<Mapping.MappingOptions>, before: string, after: string]>([
    ["has no setting of its own", {}, "public.t", "app.u"],
    ["has both names in the settings", { include: ["public.t", "public.u"] }, "public.t", "public.u"],
    ["stays left out", { exclude: ["public.t*"] }, "public.t", "public.t_old"],
    ["stays in a mapped schema", { map: { app: "copy" } }, "app.t", "app.u"],
    ["stays where it is mapped to", { map: { "public.t": "copy.t", "public.u": "copy.t" } }, "public.t", "public.u"]
  ])("is followed if it %s", (_, settings, before, after) => {
    assert.isUndefined(refused(settings, named(before), named(after)))
  })

  it("is refused where columns are left out under one of its names", () => {
    const columns = ["id", "ssn"]
    const filter = { exclude: ["ssn"] }
    const [users, accounts] = [named("public.users", columns), named("public.accounts", columns)]
    for (const settings of [
      { "public.users": filter },
      { "public.accounts": filter },
      { "public.users": { include: ["id"] } }
    ]) {
      assert.match(refused({ columns: settings }, users, accounts)?.reason ?? "", /something else of "ssn"/)
    }
    assert.isUndefined(refused({ columns: { "public.users": filter, "public.accounts": filter } }, users, accounts))
    assert.isUndefined(refused({ columns: { "public.users": { exclude: ["gone"] } } }, users, accounts))
  })
})

describe("settings that name nothing", () => {
  const relations = [named("public.t", ["id", "a"]), named("app.u"), named("fluvio.offset")]
  const types = new Map([[20_001, { namespace: "app", name: "mood" }]])
  const told = (tables: Partial<Mapping.MappingOptions>, settings: { readonly [type: string]: string } = {}) =>
    unmatched({ tables: { ...none, ...tables }, types: settings }, relations, types)

  it("are told, each by its key", () => {
    assert.deepStrictEqual(
      told(
        {
          include: ["public.tt", "public.*", "fluvio.*"],
          exclude: ["app.x*", "app.u"],
          columns: { "public.tt": { include: ["id"] }, "public.t": { include: ["id"], exclude: ["ssn"] } },
          map: { app: "copy", ap: "copy", "app.u": "a.b", "app.v": "a.b" }
        },
        { mood: "text", "app.mood": "text", "20001": "text", "25": "text", modo: "text", "99": "text" }
      ).map((sentence) => sentence.replace("but the source has shown no such ", "").replace(" so far", "")),
      [
        "`tables.include` names public.tt, table",
        "`tables.include` names fluvio.*, table",
        "`tables.exclude` names app.x*, table",
        "`tables.columns` names public.tt, table",
        "`tables.columns.public.t` names ssn, column",
        "`tables.map` names ap, schema",
        "`tables.map` names app.v, table",
        "`types` names 99, type",
        "`types` names modo, type"
      ]
    )
  })

  it("are none where everything is there", () => {
    assert.deepStrictEqual(told({}), [])
    assert.deepStrictEqual(told({ include: ["*.*"], columns: { "public.t": { exclude: ["a"] } } }), [])
  })
})
