import { assert, layer } from "@effect/vitest"
import { PgClient } from "@effect/sql-pg"
import { Effect, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import * as fc from "fast-check"
import { addressOf } from "../../../layers/postgres/Target.ts"
import { TargetSocket } from "../../../layers/postgres/TargetSocket.ts"
import { missedBy, NoStatement, type PlanOptions, type Statement, statementOf } from "../../../src/plan/Statement.ts"
import { fromObject, parse } from "../../../src/ConnectorConfig.ts"
import { Offset } from "../../../src/stream/FluvioConsumer.ts"
import { fold, inOrder, type PlannedChange, type RouteOf, type Step } from "../../../src/plan/Fold.ts"
import { qualified, quote } from "../../../src/target/Identifier.ts"
import type { Relation } from "../../../src/stream/Relation.ts"
import { type Route, route } from "../../../src/target/Route.ts"
import * as Session from "../../../src/target/Session.ts"
import * as SqlFailure from "../../../src/target/SqlFailure.ts"
import { load, type TargetTable } from "../../../src/target/TargetTable.ts"
import { Tuple } from "../../../src/stream/Tuple.ts"
import { relationOf } from "../../events.ts"
import { type TestDatabase, TestPostgres } from "../../postgres.ts"
import {
  arbitraryScenario,
  createTable,
  deleteOf,
  halting,
  insertOf,
  play,
  type Policies,
  Refused,
  runInOrder,
  type Scenario,
  type Shape,
  shapes,
  storyOf,
  tableOf,
  truncateOf,
  updateOf
} from "../../tables.ts"

/** A client that takes COPY, under the settings that decide how text is read, as the sink's session has them. */
const client = (database: TestDatabase) =>
  PgClient.layer({
    url: database.url,
    ssl: false,
    stream: () => new TargetSocket(addressOf(new URL(Redacted.value(database.url))), undefined),
    maxConnections: 1,
    startupParameters: {
      search_path: "",
      datestyle: "ISO, YMD",
      timezone: "UTC",
      plan_cache_mode: "force_generic_plan"
    }
  })

/** Values by type, as PostgreSQL prints them. */
const samples: Readonly<Record<string, ReadonlyArray<string | null>>> = {
  text: [`O'Reilly "said" \\n {1,2}`, "", "NULL", "null", "😀\t\n\r ü", " ,", null],
  "varchar(40)": ["x", null, "\\"],
  "char(3)": ["a  ", null],
  '"char"': ["x", null],
  name: ["n", null],
  boolean: ["t", "f", null],
  smallint: ["-32768", null],
  numeric: ["1.50", "NaN", "-Infinity", "12345678901234567890.000000000001", null],
  "numeric(6,2)": ["-1.50", null],
  "double precision": ["0.1", "-0", "NaN", "Infinity", "1e-300", null],
  uuid: ["00112233-4455-6677-8899-aabbccddeeff", null],
  bytea: ["\\x00ff5c22", "\\x", null],
  date: ["infinity", "4713-01-01 BC", null],
  "time with time zone": ["23:59:59.123456+02", null],
  timestamp: ["2024-02-29 23:59:59.999999", null],
  timestamptz: ["2024-02-29 23:59:59.999999+00", "-infinity", null],
  interval: ["-1 years -2 mons +3 days -04:05:06.789", null],
  json: [`{"a" : [1,  "\\"x\\""]}`, "null", null],
  jsonb: [`{"a": [1, "\\"x\\""]}`, "null", null],
  xml: ["<a b='c'>&amp;</a>", null],
  point: ["(1.5,-2)", null],
  box: ["(3,4),(1,-2.5)", null],
  "box[]": ["{(3,4),(1,1);(1,1),(0,0)}", null],
  int2vector: ["1 2", null],
  inet: ["10.0.0.1/8", null],
  "bit(4)": ["1010", null],
  "bit varying": ["101", "", null],
  int4range: ["[1,5)", "empty", null],
  tsvector: ["'a':1 'b c':2", null],
  "integer[]": ["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={5,6}", null],
  "text[]": [`{"a,b","\\"","\\\\",NULL,"NULL",""}`, null],
  "json[]": [`{"{\\"a\\": 1}"}`, null],
  regclass: ["pg_class", null],
  money: ["$1.50", null],
  "public.mood": ["sad", "so 'so", null],
  "public.mood[]": [`{sad,"so 'so"}`, null],
  "public.short": ["short", null],
  "public.pair": [`(1,"a ""b"" \\\\ ,")`, "(,)", null],
  "public.pair[]": [`{"(1,\\"a,b\\")",NULL}`, null]
}

/** How many rows a statement touched. */
const execute = Effect.fnUntraced(function* ({ params, text }: Statement) {
  const sql = yield* SqlClient.SqlClient
  const result = yield* sql.unsafe(text, params).raw.pipe(SqlFailure.typed)
  return (result as { readonly rowCount: number }).rowCount
})

const refused = (failure: SqlFailure.SqlFailure) =>
  failure.class === "constraint" ? Effect.fail(new Refused(failure.condition)) : Effect.die(failure)

/** In a transaction of its own, which a refusal rolls back; false when it was refused. */
const transaction = <E, R>(body: Effect.Effect<void, E | SqlFailure.SqlFailure, R>) =>
  SqlClient.SqlClient.pipe(
    Effect.flatMap((sql) => sql.withTransaction(body)),
    SqlFailure.typed,
    Effect.catchIf((error) => error instanceof SqlFailure.SqlFailure, refused),
    Effect.as(true),
    Effect.catchIf(
      (error) => error instanceof Refused,
      () => Effect.succeed(false)
    )
  )

const plannedOf = (steps: ReadonlyArray<Step>, options: PlanOptions) =>
  steps.flatMap((step) => {
    const statement = statementOf(step, options)
    if (statement instanceof NoStatement) throw new Refused(statement.reason)
    return statement === undefined ? [] : [{ statement, step }]
  })

const statementsOf = (steps: ReadonlyArray<Step>, options: PlanOptions) =>
  plannedOf(steps, options).map(({ statement }) => statement)

const applyFolded = (steps: ReadonlyArray<Step>, policies: Policies) =>
  transaction(
    Effect.gen(function* () {
      for (const statement of statementsOf(steps, policies)) {
        const lacking = (statement.rows ?? 0) - (yield* execute(statement))
        if (statement.rows === undefined || lacking === 0) continue
        const isTolerated = statement.kind === "insert" || policies.missingRow === "skip"
        if (lacking < 0 || !statement.mayMiss || !isTolerated) return yield* Effect.fail(new Refused("miscounted"))
      }
    })
  )

const applyInOrder = (steps: ReadonlyArray<Step>, policies: Policies) =>
  transaction(
    Effect.gen(function* () {
      for (const { statement, step } of plannedOf(steps, policies)) {
        const touched = yield* execute(statement)
        if (statement.rows === undefined || touched === statement.rows) continue
        if (touched > 1) return yield* Effect.fail(new Refused("several rows"))
        assert(step.type === "row")
        const { differs, insert, replace } = missedBy(step.route, step.change, policies)
        if (differs !== undefined && replace !== undefined && (yield* execute(differs)) > 0) yield* execute(replace)
        else if (statement.kind === "insert") continue
        else if (policies.missingRow === "insert" && insert !== undefined) yield* execute(insert)
        else if (policies.missingRow !== "skip" && (policies.missingRow === "halt" || statement.kind === "update")) {
          return yield* Effect.fail(new Refused("missing row"))
        }
      }
    })
  )

const literal = (cell: string | null) => (cell === null ? "NULL" : `'${cell.replaceAll("'", "''")}'`)

/** Rows as PostgreSQL prints them, sorted. */
const contents = (database: TestDatabase, schema: string, tables: ReadonlyArray<TargetTable>) =>
  Effect.map(
    Effect.forEach(tables, ({ columns, name }) =>
      Effect.map(
        database.query(`SELECT ${columns.map((c) => quote(c.name)).join(", ")} FROM ${qualified(schema, name)}`),
        (rows) => rows.map((row) => `${name} ${JSON.stringify(columns.map((column) => row[column.name]))}`)
      )
    ),
    (rows) => rows.flat().sort()
  )

const routesIn = Effect.fnUntraced(function* (schema: string, played: ReadonlyArray<readonly [Shape, Relation]>) {
  const tables = yield* load(played.map(([{ name }]) => ({ schema, name })))
  const routes = new Map<Relation, Route>()
  for (const [{ name }, relation] of played) {
    const table = tables.get(qualified(schema, name))
    assert.isDefined(table)
    routes.set(relation, route(relation, table))
  }
  const routeOf: RouteOf = (relation) => routes.get(relation)
  return routeOf
})

/** Makes the tables hold what the model's target holds. */
const fill = (
  database: TestDatabase,
  schema: string,
  scenario: Scenario,
  rowsOf: (table: TargetTable) => ReadonlyArray<ReadonlyArray<string | null>>
) =>
  Effect.forEach(
    scenario.shapes,
    (shape) => {
      const table = tableOf(shape)
      const name = qualified(schema, table.name)
      const rows = rowsOf(table).map((row) => `(${row.map(literal).join(", ")})`)
      const insert = rows.length === 0 ? "" : `INSERT INTO ${name} OVERRIDING SYSTEM VALUE VALUES ${rows.join(", ")}`
      return database.query(`TRUNCATE ${name}; ${insert}`)
    },
    { discard: true }
  )

const column = (name: string, isKey = false) => ({ name, isKey, typeId: 25, typeModifier: -1 })

/** A key that a double would round. */
const id = (n: number) => String(9_007_199_254_740_993n + BigInt(n))

/** The route of a relation to an existing table. */
const routed = Effect.fnUntraced(function* (relation: Relation, schema = "public") {
  const tables = yield* load([{ schema, name: relation.name }])
  const table = tables.get(qualified(schema, relation.name))
  assert.isDefined(table)
  return route(relation, table)
})

const full = (name: string, columns: ReadonlyArray<string>): Relation =>
  relationOf({ name, replicaIdentity: "Full", columns: columns.map((c) => column(c, true)) })

const only =
  (found: Route): RouteOf =>
  () =>
    found

layer(TestPostgres.layer(), { excludeTestServices: true })("ApplyPlan", (it) => {
  it.effect("makes PostgreSQL hold what the model of tables holds, folded and in order", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      for (const schema of ["folded", "ordered"]) {
        const tables = shapes.map((shape) => createTable(shape, schema))
        yield* database.query([`CREATE SCHEMA ${schema}`, ...tables].join("; "))
      }
      const scenarios = fc.sample(arbitraryScenario, 300)
      let clean = 0
      yield* Effect.gen(function* () {
        for (const scenario of scenarios) {
          const { changes, source, target } = play(scenario)
          const { policies } = scenario
          const tables = scenario.shapes.map((shape) => tableOf(shape))
          yield* fill(database, "folded", scenario, (table) => target.rows(table))
          yield* fill(database, "ordered", scenario, (table) => target.rows(table))
          const story = storyOf(scenario)

          const exact = inOrder(changes, yield* routesIn("ordered", source.relations()))
          const goesThrough = yield* applyInOrder(exact, policies)
          const ordered = yield* contents(database, "ordered", tables)
          const model = target.copy()
          const memory = play(scenario)
          let goesThroughInMemory = true
          try {
            runInOrder(model, inOrder(memory.changes, memory.routeOf), policies)
          } catch (error) {
            if (!(error instanceof Refused)) throw error
            goesThroughInMemory = false
          }
          assert.strictEqual(goesThrough, goesThroughInMemory, story)
          const expected = (goesThrough ? model : target).text()
          assert.deepStrictEqual(
            ordered.map((line) => `"public".${quote(line.split(" ", 1)[0])}${line.slice(line.indexOf(" "))}`).sort(),
            expected,
            story
          )

          const steps = fold(changes, yield* routesIn("folded", source.relations()))
          if (!(yield* applyFolded(steps, policies))) continue
          clean += 1
          assert.deepStrictEqual(yield* contents(database, "folded", tables), ordered, story)
        }
      }).pipe(Effect.provide(client(database)))
      assert.isAbove(clean, scenarios.length * 0.6)
    })
  )

  it.effect.each([false, true])(
    "carries sets of 5 000 rows of every kind of type, as single rows do (COPY: %s)",
    (takesCopy) =>
      Effect.gen(function* () {
        const database = yield* TestPostgres.database
        yield* database.query("CREATE TYPE mood AS ENUM ('sad', 'so ''so'); CREATE TYPE pair AS (a integer, b text)")
        yield* database.query("CREATE DOMAIN short AS varchar(9)")
        const types = Object.keys(samples)
        const names = types.map((_, n) => `c${n}`)
        for (const schema of ["folded", "ordered"]) {
          const columns = types.map((type, n) => `c${n} ${type}`).join(", ")
          yield* database.query(
            `CREATE SCHEMA ${schema}; CREATE TABLE ${schema}.pets (id bigint, ${columns}, PRIMARY KEY (id))`
          )
        }
        const pets = relationOf({ columns: [column("id", true), ...names.map((name) => column(name))] })
        const cells = (n: number) => Object.values(samples).map((values) => values[n % values.length])
        const ids = Array.from({ length: 5_000 }, (_, n) => n)
        const groups = [
          ids.map((n) => insertOf(pets, [id(n), ...cells(n)])),
          ids.map((n) => updateOf(pets, [id(n), ...cells(n + 1)])),
          ids.filter((n) => n % 2 === 0).map((n) => deleteOf(pets, { keyTuple: [id(n), ...cells(n).map(() => null)] }))
        ]
        yield* Effect.gen(function* () {
          const folded = yield* routed(pets, "folded")
          const ordered = yield* routed(pets, "ordered")
          for (const changes of groups) {
            const steps = fold(changes, only(folded))
            assert.strictEqual(steps?.length, 1)
            assert.isTrue(yield* applyFolded(steps, { ...halting, takesCopy }))
            assert.isTrue(yield* applyInOrder(inOrder(changes, only(ordered)), halting))
            const rows = yield* contents(database, "folded", [folded.table])
            assert.deepStrictEqual(rows, yield* contents(database, "ordered", [ordered.table]))
          }
        }).pipe(Effect.provide(client(database)))
        const left = yield* database.query(`SELECT ${names.join(", ")} FROM folded.pets ORDER BY id LIMIT 1`)
        assert.deepStrictEqual(Object.values(left[0]), cells(2))
      })
  )

  it.effect("keeps sets on the index, whatever the table held when they were planned", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const { target } = yield* parse([fromObject({ topic: "t", url: Redacted.value(database.url) })])
      const pets = relationOf({ columns: [column("id", true), column("name")] })
      const visits = relationOf({ name: "visits", columns: [column("pet", true), column("day", true), column("name")] })
      /** The plans of sets of so many rows, made while the tables hold `held`. */
      const plans = Effect.fnUntraced(function* (held: number, rows: number) {
        const sql = yield* SqlClient.SqlClient
        const session = yield* Session.make(target)
        const steps: Array<Step> = []
        for (const relation of [pets, visits]) {
          const found = yield* routed(relation)
          const tuples = Array.from({ length: rows }, (_, n) => Tuple.of(relation.columns.map(() => String(n))))
          const set = { route: found, offset: Offset.make(0), mayMiss: true, keys: tuples }
          const places = [found.columns.length - 1]
          steps.push({ type: "deleteSet", ...set }, { type: "absentSet", ...set })
          steps.push({ type: "updateSet", ...set, places, same: [], rows: tuples })
        }
        const explained = Effect.forEach(statementsOf(steps, halting), ({ params, text }, n) =>
          Effect.andThen(
            sql.unsafe(`PREPARE set_${n} AS ${text}`),
            sql.unsafe<Record<string, string>>(
              `EXPLAIN EXECUTE set_${n} (${params.map((param) => literal(String(param))).join(", ")})`
            )
          )
        )
        return (yield* sql.withTransaction(Effect.andThen(session.begin, explained))).map((lines) => ({
          what: `${held} rows held, ${rows} in the set`,
          plan: lines.flatMap((line) => Object.values(line)).join("\n")
        }))
      })
      for (const [held, rows] of [
        [0, 2],
        [1, 2],
        [20, 2],
        [20, 64],
        [100, 64],
        [5_000, 64]
      ]) {
        yield* database.query(
          "DROP TABLE IF EXISTS pets, visits; CREATE TABLE pets (id integer PRIMARY KEY, name text)"
        )
        yield* database.query("CREATE TABLE visits (pet integer, day integer, name text, PRIMARY KEY (pet, day))")
        yield* database.query(`INSERT INTO pets SELECT n, 'a' FROM generate_series(1, ${held}) AS n`)
        yield* database.query(`INSERT INTO visits SELECT n % 9, n, 'a' FROM generate_series(1, ${held}) AS n`)
        for (const table of ["pets", "visits"]) yield* database.query(`VACUUM ANALYZE ${table}`)
        const found = yield* plans(held, rows).pipe(Effect.provide(client(database)))
        for (const { plan, what } of found) {
          assert.notInclude(plan, "Seq Scan", what)
          // Of a key of two columns only the table's size can say how it is sought.
          if (plan.includes(" on pets t")) assert.match(plan, /Index Cond: \(id = ANY/, what)
          if (rows >= 64) assert.notInclude(plan, "Join Filter", what)
        }
      }
    })
  )

  it.effect("lets a row of a set take what another gave up under an index that is no key", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`
        CREATE TABLE pets (id integer PRIMARY KEY, owner text, active boolean);
        CREATE UNIQUE INDEX ON pets (owner) WHERE active;
        INSERT INTO pets SELECT n, n::text, true FROM generate_series(3, 5000) AS n;
        INSERT INTO pets VALUES (1, 'Ada', false), (2, 'Ada', true)`)
      yield* database.query("VACUUM ANALYZE pets")
      const pets = relationOf({ columns: [column("id", true), column("owner"), column("active")] })
      const changes = [updateOf(pets, ["2", "Ada", "f"]), updateOf(pets, ["1", "Ada", "t"])]
      yield* Effect.gen(function* () {
        const found = yield* routed(pets)
        assert.isTrue(yield* applyFolded(fold(changes, only(found)), halting))
      }).pipe(Effect.provide(client(database)))
      const rows = yield* database.query("SELECT id, active FROM pets WHERE id < 3 ORDER BY id")
      assert.deepStrictEqual(
        rows.map(({ active }) => active),
        ["t", "f"]
      )
    })
  )

  it.effect("finds one of several identical rows by its image, whatever the types", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query("CREATE TYPE mood AS ENUM ('sad', 'so ''so'); CREATE TYPE pair AS (a integer, b text)")
      yield* database.query("CREATE DOMAIN short AS varchar(9); CREATE EXTENSION citext; CREATE EXTENSION hstore")
      const images = {
        ...samples,
        "public.citext": ["Aa", null],
        "public.hstore": ['"k"=>"v"', null],
        xid: ["7", null]
      }
      const types = Object.keys(images)
      const names = types.map((_, n) => `c${n}`)
      yield* database.query(`CREATE TABLE pets (${types.map((type, n) => `c${n} ${type}`).join(", ")})`)
      const pets = full("pets", names)
      const row = (n: number) => Object.values(images).map((values) => values[n % values.length])
      yield* Effect.gen(function* () {
        const found = only(yield* routed(pets))
        const apply = (change: PlannedChange) => applyInOrder(inOrder([change], found), halting)
        const count = Effect.map(database.query("SELECT count(*) FROM pets"), ([{ count }]) => count)
        for (let n = 0; n < 4; n++) {
          yield* database.query("TRUNCATE pets")
          for (const tuple of [row(n), row(n), row(n)]) assert.isTrue(yield* apply(insertOf(pets, tuple)))
          assert.isTrue(yield* apply(deleteOf(pets, { oldTuple: row(n) })), `row ${n}`)
          assert.strictEqual(yield* count, "2")
          assert.isTrue(yield* apply(updateOf(pets, row(n + 1), { oldTuple: row(n) })))
          const rows = yield* database.query("SELECT * FROM pets")
          assert.sameDeepMembers(
            rows.map((found) => Object.values(found)),
            [row(n), row(n + 1)]
          )
        }
      }).pipe(Effect.provide(client(database)))
    })
  )

  it.effect("refuses what does not fit a column, instead of cutting it off", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query("CREATE DOMAIN short AS varchar(3)")
      const tooLong = [
        ["varchar(3)", "long", "22001"],
        ["char(3)", "long", "22001"],
        ["bit(4)", "10101", "22026"],
        ["short", "long", "22001"],
        ["varchar(3)[]", "{long}", "22001"],
        ["numeric(3,1)", "1234", "22003"]
      ]
      yield* Effect.gen(function* () {
        for (const [n, [type, value, sqlState]] of tooLong.entries()) {
          yield* database.query(`CREATE TABLE pets_${n} (id integer PRIMARY KEY, name ${type})`)
          const pets = relationOf({ name: `pets_${n}` })
          const found = only(yield* routed(pets))
          for (const change of [insertOf(pets, ["1", value]), updateOf(pets, ["1", value])]) {
            yield* database.query(`TRUNCATE pets_${n}; INSERT INTO pets_${n} VALUES (1, NULL)`)
            if (change.type === "insert") yield* database.query(`TRUNCATE pets_${n}`)
            for (const steps of [fold([change], found), inOrder([change], found)]) {
              for (const statement of statementsOf(steps, halting)) {
                assert.strictEqual((yield* Effect.flip(execute(statement))).sqlState, sqlState, type)
              }
            }
          }
        }
      }).pipe(Effect.provide(client(database)))
    })
  )

  it.effect("writes ALWAYS identities, and leaves generated columns and those only the target has alone", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`CREATE TABLE pets (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, size integer GENERATED ALWAYS AS (length(name)) STORED,
        seen text DEFAULT 'never')`)
      const pets = relationOf({ columns: [column("id", true), column("size"), column("name")] })
      yield* Effect.gen(function* () {
        const found = only(yield* routed(pets))
        const groups: ReadonlyArray<ReadonlyArray<PlannedChange>> = [
          [insertOf(pets, ["7", "1", "a"]), insertOf(pets, ["8", "1", "b"])],
          [updateOf(pets, ["7", "2", "aa"]), deleteOf(pets, { keyTuple: ["8", null, null] })]
        ]
        for (const changes of groups) assert.isTrue(yield* applyFolded(fold(changes, found), halting))
        yield* database.query("UPDATE pets SET seen = 'today'")
        const move = [updateOf(pets, ["9", "3", "aaa"], { keyTuple: ["7", null, null] })]
        assert.deepStrictEqual(
          fold(move, found).map((step) => step.type),
          ["row"]
        )
        assert.isTrue(yield* applyInOrder(inOrder(move, found), halting))
      }).pipe(Effect.provide(client(database)))
      assert.deepStrictEqual(yield* database.query("SELECT * FROM pets"), [
        { id: "9", name: "aaa", size: "3", seen: "today" }
      ])
    })
  )

  /** An UPDATE, DELETE or TRUNCATE of a parent reaches its children, whose rows come as changes of their own. */
  it.effect("leaves the rows of inheriting tables alone", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(
        `CREATE TABLE pets (id integer PRIMARY KEY, name text); CREATE TABLE dogs () INHERITS (pets)`
      )
      const fillBoth = database.query(
        "TRUNCATE pets; INSERT INTO pets VALUES (1, 'a'), (2, 'b'); INSERT INTO dogs VALUES (1, 'dog'), (2, 'dog')"
      )
      const pets = relationOf()
      const image = full("pets", ["id", "name"])
      yield* Effect.gen(function* () {
        const found = only(yield* routed(pets))
        const route = yield* routed(image)
        const byImage: RouteOf = () => ({ ...route, lookup: "image", key: [], isKeyUnique: false })
        const dogs = "SELECT id, name FROM dogs"
        const before = [
          { id: "1", name: "dog" },
          { id: "2", name: "dog" }
        ]
        const runs: ReadonlyArray<readonly [ReadonlyArray<PlannedChange>, RouteOf]> = [
          [[updateOf(pets, ["1", "x"]), deleteOf(pets, { keyTuple: ["2", null] })], found],
          [[insertOf(pets, ["3", "c"]), deleteOf(pets, { keyTuple: ["3", null] })], found],
          [[deleteOf(image, { oldTuple: ["1", "a"] }), updateOf(image, ["2", "x"], { oldTuple: ["2", "b"] })], byImage],
          [[truncateOf([pets])], found]
        ]
        for (const [changes, routeOf] of runs) {
          yield* fillBoth
          assert.isTrue(yield* applyFolded(fold(changes, routeOf), halting))
          assert.deepStrictEqual(yield* database.query(dogs), before)
          yield* fillBoth
          assert.isTrue(yield* applyInOrder(inOrder(changes, routeOf), halting))
          assert.deepStrictEqual(yield* database.query(dogs), before)
        }
      }).pipe(Effect.provide(client(database)))
    })
  )

  it.effect("moves rows between the partitions of a target, by key and by image", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      for (const [name, key] of [
        ["pets", ", PRIMARY KEY (id, name)"],
        ["toys", ""]
      ]) {
        yield* database.query(`CREATE TABLE ${name} (id integer, name text${key}) PARTITION BY LIST (name);
          CREATE TABLE ${name}_a PARTITION OF ${name} FOR VALUES IN ('a');
          CREATE TABLE ${name}_b PARTITION OF ${name} DEFAULT;
          INSERT INTO ${name} VALUES (1, 'a'), (2, 'a'), (3, 'b')`)
      }
      const pets = relationOf({ columns: [column("id", true), column("name", true)] })
      const toys = full("toys", ["id", "name"])
      yield* Effect.gen(function* () {
        const routes = new Map([
          [pets, yield* routed(pets)],
          [toys, yield* routed(toys)]
        ])
        const changes = [
          updateOf(pets, ["1", "b"], { keyTuple: ["1", "a"] }),
          deleteOf(pets, { keyTuple: ["3", "b"] }),
          updateOf(toys, ["1", "b"], { oldTuple: ["1", "a"] }),
          deleteOf(toys, { oldTuple: ["3", "b"] })
        ]
        assert.isTrue(
          yield* applyFolded(
            fold(changes, (relation) => routes.get(relation)),
            halting
          )
        )
      }).pipe(Effect.provide(client(database)))
      const left = yield* database.query(
        "SELECT tableoid::regclass, * FROM pets UNION ALL SELECT tableoid::regclass, * FROM toys"
      )
      assert.sameDeepMembers(
        [...left],
        [
          { tableoid: "pets_a", id: "2", name: "a" },
          { tableoid: "pets_b", id: "1", name: "b" },
          { tableoid: "toys_a", id: "2", name: "a" },
          { tableoid: "toys_b", id: "1", name: "b" }
        ]
      )
    })
  )

  it.effect("applies to tables of only a key, of no column at all, and of nasty names", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`CREATE TABLE pairs (a text, b text, PRIMARY KEY (a, b)); CREATE TABLE empty ();
        CREATE TABLE "Tab ""le.x" ("select" text PRIMARY KEY, "$1 ""c""" text)`)
      const pairs = relationOf({ name: "pairs", columns: [column("a", true), column("b", true)] })
      const empty = relationOf({ name: "empty", columns: [] })
      const nasty = relationOf({ name: 'Tab "le.x', columns: [column("select", true), column('$1 "c"')] })
      yield* Effect.gen(function* () {
        const routes = new Map<Relation, Route>()
        for (const relation of [pairs, empty, nasty]) routes.set(relation, yield* routed(relation))
        const changes = [
          insertOf(pairs, ["x", '"{']),
          insertOf(pairs, ["y", "z"]),
          insertOf(empty, []),
          insertOf(empty, []),
          insertOf(nasty, ["1", "a"]),
          insertOf(nasty, ["2", "a"])
        ]
        const later = [
          updateOf(pairs, ["x", '"{']),
          updateOf(pairs, ["y", "w"], { keyTuple: ["y", "z"] }),
          insertOf(empty, []),
          updateOf(nasty, ["1", "b"]),
          deleteOf(nasty, { keyTuple: ["2", null] })
        ]
        const policies: ReadonlyArray<Policies> = [halting, { ...halting, existingRow: "update" }]
        for (const policy of policies) {
          yield* database.query('TRUNCATE pairs, empty, "Tab ""le.x"')
          for (const run of [changes, later]) {
            const steps = fold(run, (relation) => routes.get(relation))
            assert.isTrue(yield* applyFolded(steps, policy))
          }
          assert.sameDeepMembers(
            [...(yield* database.query("SELECT * FROM pairs"))],
            [
              { a: "x", b: '"{' },
              { a: "y", b: "w" }
            ]
          )
          assert.deepStrictEqual(yield* database.query("SELECT count(*) FROM empty"), [{ count: "3" }])
          assert.deepStrictEqual(yield* database.query('SELECT * FROM "Tab ""le.x"'), [{ select: "1", '$1 "c"': "b" }])
        }
      }).pipe(Effect.provide(client(database)))
    })
  )
})
