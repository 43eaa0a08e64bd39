import { assert, describe, it } from "vitest"
import * as fc from "fast-check"
import { missedBy, NoStatement, type PlanOptions, type Statement, statementOf } from "../../../src/plan/Statement.ts"
import type { Step } from "../../../src/plan/Fold.ts"
import type { Relation } from "../../../src/stream/Relation.ts"
import { decode } from "../../../src/stream/ReplicationEvent.ts"
import { type Route, route } from "../../../src/target/Route.ts"
import type { TargetColumn, TargetTable } from "../../../src/target/TargetTable.ts"
import type { RowChange } from "../../../src/stream/Change.ts"
import { type Cell, Tuple } from "../../../src/stream/Tuple.ts"
import {
  arbitraryCell,
  type CellFixture,
  int4,
  offset,
  raw,
  record,
  relationOf,
  sqlNull,
  text,
  update as updateEvent
} from "../../events.ts"
import { deleteOf, insertOf, targetColumn, targetTable, truncateOf, updateOf } from "../../tables.ts"

const halt: PlanOptions = { existingRow: "halt", truncateCascade: "as-source", takesCopy: false }
const update: PlanOptions = { ...halt, existingRow: "update" }
const skip: PlanOptions = { ...halt, existingRow: "skip" }
const copy: PlanOptions = { ...halt, takesCopy: true }

const at = { offset: offset(0), mayMiss: false }

interface Made {
  readonly columns: ReadonlyArray<Partial<TargetColumn>>
  readonly key: ReadonlyArray<string>
  readonly table?: Partial<TargetTable>
  readonly identity?: Relation["replicaIdentity"]
}

/** A relation with every column of its table, and its route. */
const make = ({ columns, identity = "Default", key, table }: Made): Route =>
  route(
    relationOf({
      replicaIdentity: identity,
      columns: columns.map(({ name = "" }) => ({ name, isKey: key.includes(name), typeId: 25, typeModifier: -1 }))
    }),
    targetTable({
      columns: columns.map((column) => targetColumn(column)),
      primaryKey: key.length === 0 ? undefined : key,
      ...table
    })
  )

const id = { name: "id", type: "integer" }
const pets = make({ columns: [id, { name: "name" }, { name: "mood", type: "public.mood" }], key: ["id"] })
const image = make({
  columns: [
    id,
    { name: "tag", type: "public.citext", equality: "OPERATOR(public.=)" },
    { name: "data", type: "json", hasEquality: false }
  ],
  key: [],
  identity: "Full"
})

const plan = (step: Step, options = halt): Statement => {
  const statement = statementOf(step, options)
  if (statement === undefined || statement instanceof NoStatement) throw new Error("no statement")
  return statement
}

/** What is done or asked where the change's statement touches nothing. */
const missed = (found: Route, change: RowChange, options = halt) => {
  const texts = Object.entries(missedBy(found, change, options))
  return Object.fromEntries(texts.map(([name, statement]) => [name, statement?.text]))
}

const sqlOf = (step: Step, options = halt) => {
  const { params, text } = plan(step, options)
  return { text, params }
}

const facts = (step: Step) => {
  const { kind, mayMiss, rows } = plan(step)
  return { kind, rows, mayMiss }
}

const row = (found: Route, change: RowChange): Step => ({ type: "row", route: found, change })

const insertSet = (found: Route, ...rows: ReadonlyArray<ReadonlyArray<Cell>>): Step => ({
  type: "insertSet",
  route: found,
  ...at,
  rows: rows.map(Tuple.of)
})

/** A set of new rows where COPY is taken. */
const copied = (found: Route, rows: ReadonlyArray<Tuple>) => {
  const { params, text } = sqlOf({ type: "insertSet", route: found, ...at, rows }, copy)
  const [data] = params
  assert(data instanceof Uint8Array)
  return { text, data: new TextDecoder().decode(data) }
}

/** A cell in a line of COPY's text format. */
const field = (cell: Cell) =>
  cell === null || cell === undefined
    ? "\\N"
    : cell.replace(/[\\\t\n\r]/g, (special) => `\\${{ "\t": "t", "\n": "n", "\r": "r" }[special] ?? special}`)

/** A cell as an element of an array. */
const element = (cell: Cell) => (cell === null || cell === undefined ? "NULL" : `"${cell.replace(/["\\]/g, "\\$&")}"`)

const decodedRow = (cells: ReadonlyArray<CellFixture>) => {
  const event = decode(record(0, updateEvent(1, cells)), { floatNull: "halt" })
  assert(event.type === "update")
  return event.newTuple
}
const decoded = (cell: CellFixture) => decodedRow([cell])

describe("a set of rows", () => {
  it("is inserted from one array a column", () => {
    assert.deepStrictEqual(sqlOf(insertSet(pets, ["1", "a", "ok"], ["2", null, null])), {
      text: 'INSERT INTO "public"."pets" ("id", "name", "mood") SELECT unnest($1::integer[]), unnest($2::text[]), unnest($3::public.mood[])',
      params: ['{"1","2"}', '{"a",NULL}', '{"ok",NULL}']
    })
  })

  it("keeps every character of a cell in its place", () => {
    const [, cells] = sqlOf(insertSet(pets, ["1", 'a "b" \\ {c,d}', null], ["2", "NULL", null], ["3", "", null])).params
    assert.strictEqual(cells, String.raw`{"a \"b\" \\ {c,d}","NULL",""}`)
  })

  const long = fc.constantFrom("x", `"`, "\\", "ä", "\n").map((unit) => text(unit.repeat(100_000)))
  const anyCell = fc.oneof({ weight: 30, arbitrary: arbitraryCell }, { weight: 1, arbitrary: long })

  describe("where COPY is taken", () => {
    it("is a line a row", () => {
      assert.deepStrictEqual(
        copied(pets, [Tuple.of(["1", "a", "ok"]), Tuple.of(["2", null, ""]), Tuple.of(["3", "\\N", "\\."])]),
        {
          text: 'COPY "public"."pets" ("id", "name", "mood") FROM STDIN',
          data: "1\ta\tok\n2\t\\N\t\n3\t\\\\N\t\\\\.\n"
        }
      )
    })

    it("keeps whatever records hold, in the order of the target's columns that there are", () => {
      /** Rows without escapes travel as they stand in their buffer; one that has some is looked through, and what follows. */
      const plain = fc.oneof(fc.constantFrom(sqlNull, text(""), text(`"ä"`), raw("x y")), fc.nat().map(int4))
      const cells = fc.oneof({ weight: 200, arbitrary: plain }, { weight: 1, arbitrary: anyCell })
      const rows = fc.array(fc.tuple(cells, cells, cells), { minLength: 1, maxLength: 20 })
      const columns = [{ name: "a" }, { name: "b" }, { name: "c" }]
      const every = make({ columns, key: ["a"] })
      const generated = make({ columns: columns.map((c) => ({ ...c, isGenerated: c.name === "b" })), key: ["a"] })
      const shorter = make({ columns: columns.slice(0, 2), key: ["a"] })
      fc.assert(
        fc.property(rows, fc.array(fc.boolean(), { minLength: 20, maxLength: 20 }), (rows, isTaken) => {
          // Another buffer is begun, of which nothing is known yet.
          decoded(text("x".repeat(300_000)))
          const all = rows.map((cells) => ({ cells, tuple: decodedRow(cells) }))
          const taken = all.filter((_, n) => isTaken[n])
          const lines = (places: ReadonlyArray<number>) =>
            taken.map(({ cells }) => `${places.map((place) => field(cells[place].cell)).join("\t")}\n`).join("")
          const tuples = taken.map(({ tuple }) => tuple)
          assert.strictEqual(copied(every, tuples).data, lines([0, 1, 2]))
          assert.strictEqual(copied(generated, tuples).data, lines([0, 2]))
          assert.strictEqual(copied(shorter, tuples).data, lines([0, 1]))
        }),
        { numRuns: 300 }
      )
    })

    it("keeps rows apart that one table takes from relations of different width", () => {
      const found = make({ columns: [{ name: "a" }, { name: "b" }], key: ["a"] })
      const rows = [
        [text("1"), text("x")],
        [text("2"), text("y"), text("left out")],
        [text("3"), text("z")]
      ]
      assert.strictEqual(copied(found, rows.map(decodedRow)).data, "1\tx\n2\ty\n3\tz\n")
    })

    /** What was read so far tells whether rows may stay as they are: each of these is the first of its buffer. */
    it("escapes what would end a cell, in whatever way the record writes it", () => {
      const found = make({ columns: [id], key: ["id"] })
      for (const [special, name] of [
        ["\\", "\\"],
        ["\t", "t"],
        ["\n", "n"],
        ["\r", "r"]
      ]) {
        const code = special.charCodeAt(0)
        const unicode = `{"String":"\\u00${code.toString(16).padStart(2, "0")}"}`
        const ways = [text(special).json, unicode, `{"RawText":[${code}]}`, `{"RawText":[ ${code} ]}`]
        const data = ways.map((json) => {
          decoded(text("x".repeat(300_000)))
          return copied(found, [decoded({ json, cell: undefined })]).data
        })
        assert.deepStrictEqual(
          data,
          ways.map(() => `\\${name}\n`)
        )
      }
    })

    it("is inserted all the same if a row that is there already is no error, or if there are no columns", () => {
      for (const existingRow of ["skip", "update"] as const) {
        assert.match(sqlOf(insertSet(pets, ["1", "a", "ok"]), { ...copy, existingRow }).text, /^INSERT INTO /)
      }
      assert.match(sqlOf(insertSet(make({ columns: [], key: [] }), [], []), copy).text, /^INSERT INTO /)
    })
  })

  describe("as the text of an array", () => {
    const found = make({ columns: [id], key: ["id"] })
    const arrayOf = (rows: ReadonlyArray<Tuple>) => sqlOf({ type: "insertSet", route: found, ...at, rows }).params[0]

    it("keeps whatever a record holds", () => {
      const cells = fc.array(anyCell, { minLength: 1, maxLength: 30 })
      fc.assert(
        fc.property(cells, (cells) => {
          assert.strictEqual(arrayOf(cells.map(decoded)), `{${cells.map(({ cell }) => element(cell)).join(",")}}`)
        })
      )
    })

    /** What was read so far tells whether cells are looked through for quotes: each of these is the first of its buffer. */
    it("marks quotes and backslashes, in whatever way the record writes them", () => {
      const cells = [
        `{"String":"\\""}`,
        `{"String":"\\u005c"}`,
        `{"RawText":[34]}`,
        `{"RawText":[92]}`,
        `{"RawText":[ 34 ]}`
      ]
      const marked = cells.map((json) => {
        const filling = decoded(text("x".repeat(300_000)))
        const cell = decoded({ json, cell: undefined })
        assert.notStrictEqual(cell.arena, filling.arena)
        return arrayOf([cell])
      })
      const [quote, backslash] = [String.raw`{"\""}`, String.raw`{"\\"}`]
      assert.deepStrictEqual(marked, [quote, backslash, quote, backslash, quote])
    })

    it("may be of any size", () => {
      for (const cell of ["x".repeat(5_000_000), `"`.repeat(3_000_000), "y"]) {
        assert.isTrue(arrayOf([Tuple.of([cell])]) === `{${element(cell)}}`, `${cell.length} characters`)
      }
    })
  })

  it("is skipped, or updates what is there, by policy", () => {
    const text = (found: Route, options: PlanOptions) => sqlOf(insertSet(found, ["1", "a", "ok"]), options).text
    const plain = sqlOf(insertSet(pets, ["1", "a", "ok"])).text
    assert.strictEqual(text(pets, skip), `${plain} ON CONFLICT ("id") DO NOTHING`)
    assert.strictEqual(
      text(pets, update),
      `${plain} ON CONFLICT ("id") DO UPDATE SET "id" = EXCLUDED."id", "name" = EXCLUDED."name", "mood" = EXCLUDED."mood"`
    )
    for (const options of [skip, update]) {
      for (const table of [
        { primaryKey: undefined },
        { isPrimaryKeyDeferrable: true },
        { isPrimaryKeyTemporal: true }
      ]) {
        const found = make({ columns: pets.table.columns, key: ["id"], table })
        const steps = [insertSet(found, ["1", "a", "ok"]), row(found, insertOf(found.relation, ["1", "a", "ok"]))]
        for (const step of steps) assert.deepInclude(statementOf(step, options), { reason: "no arbiter" })
      }
      const keyless = make({ columns: pets.table.columns, key: [], table: { primaryKey: undefined } })
      assert.strictEqual(text(keyless, options), plain)
    }
    const onlyIdentity = make({ columns: [{ ...id, identity: "always" }], key: ["id"] })
    assert.match(text(onlyIdentity, update), / ON CONFLICT \("id"\) DO NOTHING$/)
  })

  it("writes ALWAYS identities when it inserts, and never when it updates what is there", () => {
    const found = make({ columns: [{ name: "id" }, { name: "n", identity: "always" }, { name: "a" }], key: ["id"] })
    assert.strictEqual(
      sqlOf(insertSet(found, ["1", "7", "a"]), update).text,
      'INSERT INTO "public"."pets" AS t ("id", "n", "a") OVERRIDING SYSTEM VALUE ' +
        "SELECT unnest($1::text[]), unnest($2::text[]), unnest($3::text[]) " +
        'ON CONFLICT ("id") DO UPDATE SET "id" = EXCLUDED."id", "a" = EXCLUDED."a" WHERE t."n" = EXCLUDED."n"'
    )
    assert.isFalse(plan({ ...insertSet(found, ["1", "7", "a"]), mayMiss: true } as Step, update).mayMiss)
    const byDefault = make({ columns: [{ name: "id", identity: "default" }], key: ["id"] })
    assert.notInclude(sqlOf(insertSet(byDefault, ["1"])).text, "OVERRIDING")
  })

  it("has no generated columns", () => {
    const found = make({ columns: [id, { name: "size", isGenerated: true }, { name: "a" }], key: ["id"] })
    assert.deepStrictEqual(sqlOf(insertSet(found, ["1", "2", "a"])), {
      text: 'INSERT INTO "public"."pets" ("id", "a") SELECT unnest($1::integer[]), unnest($2::text[])',
      params: ['{"1"}', '{"a"}']
    })
  })

  it("may have no column at all", () => {
    const found = make({ columns: [], key: [] })
    assert.deepStrictEqual(sqlOf(insertSet(found, [], [], [])), {
      text: 'INSERT INTO "public"."pets" SELECT FROM generate_series(1, $1::integer)',
      params: ["3"]
    })
  })

  it("is updated, deleted and looked for by its keys", () => {
    const found = make({
      columns: [id, { name: 'a"b' }, { name: "mail", type: "x.citext", equality: "OPERATOR(x.=)" }],
      key: ["mail", "id"],
      table: { schema: "My.Schema", name: 'Tab "le' }
    })
    const keys = [Tuple.of(["1", "other", "m"]), Tuple.of(["2", null, "n"])]
    const where = 'WHERE t."id" = v.k0 AND t."mail" OPERATOR(x.=) v.k1'
    const values = "unnest($1::integer[]) AS k0, unnest($2::x.citext[]) AS k1"
    const params = ['{"1","2"}', '{"m","n"}']
    assert.deepStrictEqual(sqlOf({ type: "deleteSet", route: found, ...at, keys }), {
      text: `DELETE FROM ONLY "My.Schema"."Tab ""le" AS t USING (SELECT ${values}) AS v ${where}`,
      params
    })
    assert.deepStrictEqual(sqlOf({ type: "absentSet", route: found, offset: at.offset, keys }), {
      text: `SELECT FROM ONLY "My.Schema"."Tab ""le" AS t, (SELECT ${values}) AS v ${where}`,
      params
    })
    const rows = [Tuple.of(["1", "x", "m"]), Tuple.of(["3", null, "n"])]
    assert.deepStrictEqual(sqlOf({ type: "updateSet", route: found, ...at, keys, places: [1, 0], same: [], rows }), {
      text:
        `UPDATE ONLY "My.Schema"."Tab ""le" AS t SET "a""b" = v.c0, "id" = v.c1 ` +
        `FROM (SELECT ${values}, unnest($3::text[]) AS c0, unnest($4::integer[]) AS c1) AS v ${where}`,
      params: [...params, '{"x",NULL}', '{"1","3"}']
    })
  })

  it("is found in the array of its keys, where one column of a plain type is the key", () => {
    const keys = [Tuple.of(["1", null])]
    const texts = (found: Route) => [
      sqlOf({ type: "deleteSet", route: found, ...at, keys }).text,
      sqlOf({ type: "absentSet", route: found, offset: at.offset, keys }).text,
      sqlOf({ type: "updateSet", route: found, ...at, keys, places: [1], same: [], rows: [Tuple.of(["1", "x"])] }).text
    ]
    const name = { name: "name" }
    assert.deepStrictEqual(texts(make({ columns: [id, name], key: ["id"] })), [
      'DELETE FROM ONLY "public"."pets" AS t WHERE t."id" = ANY($1::integer[])',
      'SELECT FROM ONLY "public"."pets" AS t WHERE t."id" = ANY($1::integer[])',
      'UPDATE ONLY "public"."pets" AS t SET "name" = v.c0 ' +
        "FROM (SELECT unnest($1::integer[]) AS k0, unnest($2::text[]) AS c0) AS v " +
        'WHERE t."id" = v.k0 AND t."id" = ANY($1::integer[])'
    ])
    const joined = [
      make({ columns: [id, name], key: ["id"], table: { isPartitioned: true } }),
      make({ columns: [{ name: "id", type: "integer[]" }, name], key: ["id"] }),
      make({ columns: [{ name: "id", type: "xml", hasEquality: false }, name], key: ["id"] })
    ]
    for (const text of joined.flatMap(texts)) {
      assert.match(text, /\(SELECT unnest\(\$1::.*\) AS v WHERE (ROW\()?t\."id"/)
      assert.notInclude(text, "ANY")
    }
  })

  it("is joined when it has more keys than there is room for the places of", () => {
    const found = make({ columns: [id], key: ["id"] })
    const keys = Array.from({ length: 100_001 }, () => Tuple.of(["1"]))
    const text = (count: number) => sqlOf({ type: "deleteSet", route: found, ...at, keys: keys.slice(0, count) }).text
    assert.include(text(100_000), "ANY")
    assert.notInclude(text(100_001), "ANY")
  })

  it("is updated in its own order where a row may take what one before it gives up", () => {
    const keys = [Tuple.of(["1", null, null])]
    const rows = [Tuple.of(["1", "x", "m"])]
    const columns = [id, { name: "name" }, { name: "mail" }]
    const text = (table: Partial<TargetTable>, places: ReadonlyArray<number>) =>
      sqlOf({ type: "updateSet", route: make({ columns, key: ["id"], table }), ...at, keys, places, same: [], rows })
        .text
    assert.include(text({}, [1, 2]), "ANY")
    assert.notInclude(text({}, [0, 1, 2]), "ANY")
    assert.notInclude(text({ uniqueIndexes: 2 }, [1, 2]), "ANY")
  })

  it("has a statement of its own when it has many rows", () => {
    const keys = Array.from({ length: 64 }, (_, n) => Tuple.of([String(n), null, null]))
    const set = (count: number) => sqlOf({ type: "deleteSet", route: pets, ...at, keys: keys.slice(0, count) }).text
    assert.strictEqual(set(64), `${set(63)} /* many rows */`)
    assert.strictEqual(set(1), set(63))
  })

  it("counts what it should touch, and tells what a miss means", () => {
    const keys = [Tuple.of(["1", "a", null]), Tuple.of(["2", null, null])]
    const set = { route: pets, offset: offset(0), keys }
    assert.deepStrictEqual(facts({ type: "deleteSet", ...set, mayMiss: true }), {
      kind: "delete",
      rows: 2,
      mayMiss: true
    })
    assert.deepStrictEqual(facts({ type: "absentSet", ...set }), { kind: "check", rows: 0, mayMiss: false })
    assert.deepStrictEqual(facts(insertSet(pets, ["1", "a", null])), { kind: "insert", rows: 1, mayMiss: false })
    const change = deleteOf(pets.relation, { keyTuple: ["1", null, null] })
    assert.deepStrictEqual(facts(row(pets, change)), { kind: "delete", rows: 1, mayMiss: true })
  })
})

describe("one row", () => {
  it("is inserted with its values", () => {
    const step = row(pets, insertOf(pets.relation, ["1", "a", null]))
    const text = 'INSERT INTO "public"."pets" ("id", "name", "mood") VALUES ($1::integer, $2::text, $3::public.mood)'
    assert.deepStrictEqual(sqlOf(step), { text, params: ["1", "a", null] })
    assert.strictEqual(sqlOf(step, skip).text, `${text} ON CONFLICT ("id") DO NOTHING`)
    const empty = make({ columns: [], key: [] })
    assert.deepStrictEqual(sqlOf(row(empty, insertOf(empty.relation, []))), {
      text: 'INSERT INTO "public"."pets" DEFAULT VALUES',
      params: []
    })
  })

  it("is updated by its key, with every value that is known", () => {
    const text = 'UPDATE ONLY "public"."pets" AS t SET "id" = $1::integer, "name" = $2::text WHERE t."id" = $3::integer'
    assert.deepStrictEqual(sqlOf(row(pets, updateOf(pets.relation, ["1", "a", undefined]))), {
      text,
      params: ["1", "a", "1"]
    })
    assert.deepStrictEqual(
      sqlOf(row(pets, updateOf(pets.relation, ["2", null, undefined], { keyTuple: ["1", null, null] }))),
      { text, params: ["2", null, "1"] }
    )
    assert.deepStrictEqual(sqlOf(row(pets, updateOf(pets.relation, ["1", undefined, undefined]))), {
      text: 'UPDATE ONLY "public"."pets" AS t SET "id" = $1::integer WHERE t."id" = $2::integer',
      params: ["1", "1"]
    })
  })

  it("has an insert that stands in for its update, when all of it is known", () => {
    const insert = (cells: ReadonlyArray<Cell>) => missedBy(pets, updateOf(pets.relation, cells), halt).insert?.params
    assert.deepStrictEqual(insert(["1", "a", null]), ["1", "a", null])
    assert.isUndefined(insert(["1", "a", undefined]))
    const old = ["1", "old", "kept"]
    const full = make({ columns: pets.table.columns, key: ["id"], identity: "Full" })
    const change = updateOf(full.relation, ["1", "a", undefined], { oldTuple: old })
    assert.deepStrictEqual(missedBy(full, change, halt).insert?.params, ["1", "a", "kept"])
  })

  it("is found by its whole image: one row of several, NULL by NULL, and text where there is no equality", () => {
    const oldTuple = ["1", null, '{"a": 1}']
    const meant =
      '(t.tableoid, t.ctid) = (SELECT t.tableoid, t.ctid FROM ONLY "public"."pets" AS t ' +
      'WHERE t."id" = $1::integer AND t."tag" IS NOT DISTINCT FROM NULL AND ROW(t."data")::text = ROW($2::json)::text LIMIT 1)'
    assert.deepStrictEqual(sqlOf(row(image, deleteOf(image.relation, { oldTuple }))), {
      text: `DELETE FROM ONLY "public"."pets" AS t WHERE ${meant}`,
      params: ["1", '{"a": 1}']
    })
    assert.deepStrictEqual(
      sqlOf(row(image, updateOf(image.relation, ["2", "x", undefined], { oldTuple: ["1", "y", null] }))),
      {
        text:
          'UPDATE ONLY "public"."pets" AS t SET "id" = $1::integer, "tag" = $2::public.citext, "data" = $3::json ' +
          'WHERE (t.tableoid, t.ctid) = (SELECT t.tableoid, t.ctid FROM ONLY "public"."pets" AS t WHERE t."id" = $4::integer ' +
          'AND t."tag" OPERATOR(public.=) $5::public.citext AND t."data" IS NOT DISTINCT FROM NULL LIMIT 1)',
        params: ["2", "x", null, "1", "y"]
      }
    )
  })

  describe("with an ALWAYS identity", () => {
    const serial = { name: "id", type: "bigint", identity: "always" } as const
    const keyed = make({ columns: [serial, { name: "a" }], key: ["id"] })
    const number = { name: "n", type: "integer", identity: "always" } as const
    const beside = (table: Partial<TargetTable> = {}) =>
      make({ columns: [id, number, { name: "a" }], key: ["id"], table })

    it("in the key is taken out and put back when that changes", () => {
      const columns = [
        ...keyed.table.columns,
        targetColumn({ name: "extra" }),
        targetColumn({ name: "size", isGenerated: true })
      ]
      const extended = { ...keyed, table: { ...keyed.table, columns } }
      const change = updateOf(keyed.relation, ["2", undefined], { keyTuple: ["1", null] })
      assert.deepStrictEqual(sqlOf(row(extended, change)), {
        text:
          'WITH old AS (DELETE FROM ONLY "public"."pets" AS t WHERE t."id" = $2::bigint RETURNING t.*) ' +
          'INSERT INTO "public"."pets" ("id", "a", "extra") OVERRIDING SYSTEM VALUE ' +
          'SELECT $1::bigint, old."a", old."extra" FROM old',
        params: ["2", "1"]
      })
      for (const seen of [{ firesTriggers: true }, { checksForeignKeys: true }]) {
        const found = { ...extended, table: { ...extended.table, ...seen } }
        assert.deepInclude(statementOf(row(found, change), halt), { reason: "fixed identity" })
      }
      assert.strictEqual(
        sqlOf(row(keyed, updateOf(keyed.relation, ["1", "b"]))).text,
        'UPDATE ONLY "public"."pets" AS t SET "a" = $1::text WHERE t."id" = $2::bigint'
      )
    })

    it("beside the key is updated where that stays, and otherwise asked for first", () => {
      const found = beside()
      const change = updateOf(found.relation, ["1", "7", "b"])
      const where = 't."id" = $1::integer'
      assert.deepStrictEqual(sqlOf(row(found, change)), {
        text:
          'UPDATE ONLY "public"."pets" AS t SET "id" = $1::integer, "a" = $2::text ' +
          'WHERE t."id" = $3::integer AND t."n" = $4::integer',
        params: ["1", "b", "1", "7"]
      })
      assert.deepInclude(missed(found, change), {
        differs: `SELECT FROM ONLY "public"."pets" AS t WHERE ${where} AND (t."n" IS DISTINCT FROM $2::integer)`,
        replace:
          'WITH old AS (DELETE FROM ONLY "public"."pets" AS t WHERE t."id" = $4::integer RETURNING t.*) ' +
          'INSERT INTO "public"."pets" ("id", "n", "a") OVERRIDING SYSTEM VALUE ' +
          "SELECT $1::integer, $2::integer, $3::text FROM old"
      })
      for (const seen of [{ firesTriggers: true }, { checksForeignKeys: true }]) {
        const { differs, replace } = missed(beside(seen), change)
        assert.isDefined(differs)
        assert.isUndefined(replace)
      }
    })

    it("beside the key keeps a set from rows that have another", () => {
      const found = beside()
      const keys = [Tuple.of(["1", null, null])]
      const rows = [Tuple.of(["1", "7", "b"])]
      const set: Step = { type: "updateSet", route: found, ...at, keys, places: [2], same: [1], rows }
      assert.deepStrictEqual(sqlOf(set), {
        text:
          'UPDATE ONLY "public"."pets" AS t SET "a" = v.c0 FROM (SELECT unnest($1::integer[]) AS k0, ' +
          "unnest($2::text[]) AS c0, unnest($3::integer[]) AS s0) AS v " +
          'WHERE t."id" = v.k0 AND t."n" = v.s0 AND t."id" = ANY($1::integer[])',
        params: ['{"1"}', '{"b"}', '{"7"}']
      })
    })
  })

  it("cannot be found without an identity, or by a value that the source left out", () => {
    const none = make({ columns: [id, { name: "a" }], key: [], identity: "Nothing" })
    const steps = [
      row(none, deleteOf(none.relation, { keyTuple: ["1", null] })),
      row(none, updateOf(none.relation, ["1", "a"])),
      row(pets, deleteOf(pets.relation, {})),
      row(pets, updateOf(pets.relation, [undefined, "a", null])),
      row(image, deleteOf(image.relation, { keyTuple: ["1", null, null] })),
      row(image, deleteOf(image.relation, { oldTuple: ["1", undefined, null] }))
    ]
    for (const step of steps)
      assert.deepInclude(statementOf(step, halt), { _tag: "NoStatement", reason: "no identity" })
  })
})

describe("a truncate", () => {
  const toys = make({ columns: [id], key: ["id"], table: { name: "toys", isPartitioned: true } })
  const text = (options: PlanOptions, bits: Parameters<typeof truncateOf>[1]) =>
    sqlOf(
      { type: "truncate", routes: [pets, toys, pets], change: truncateOf([pets.relation, toys.relation], bits) },
      options
    ).text

  it("names each table once, and a partitioned one with its partitions", () => {
    assert.strictEqual(text(halt, {}), 'TRUNCATE ONLY "public"."pets", "public"."toys"')
  })

  it("passes the source's options on, CASCADE by policy", () => {
    const bits = { cascade: true, restartIdentity: true }
    const tables = 'TRUNCATE ONLY "public"."pets", "public"."toys"'
    assert.strictEqual(text(halt, bits), `${tables} RESTART IDENTITY CASCADE`)
    assert.strictEqual(text({ ...halt, truncateCascade: "never" }, bits), `${tables} RESTART IDENTITY`)
    assert.strictEqual(text(halt, { cascade: true }), `${tables} CASCADE`)
  })
})

it("reaches the partitions of a partitioned table", () => {
  const found = make({ columns: [id, { name: "a" }], key: ["id"], table: { isPartitioned: true } })
  const keys = [Tuple.of(["1", null])]
  const steps: ReadonlyArray<Step> = [
    row(found, deleteOf(found.relation, { keyTuple: ["1", null] })),
    row(found, updateOf(found.relation, ["1", "b"])),
    { type: "deleteSet", route: found, ...at, keys },
    { type: "absentSet", route: found, offset: at.offset, keys },
    { type: "updateSet", route: found, ...at, keys, places: [1], same: [], rows: [Tuple.of(["1", "b"])] }
  ]
  for (const step of steps) assert.notInclude(sqlOf(step).text, "ONLY")
})
