import { assert, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Redacted, type Scope } from "effect"
import { Log } from "../../layers/Mock.ts"
import {
  begin,
  commit,
  eventJson,
  insert,
  int4,
  lsn,
  type MessageFixture,
  offset,
  raw,
  relation,
  relationOf,
  remove,
  sqlNull,
  text,
  truncate,
  unchangedToast,
  update
} from "../events.ts"
import { type Live, log, partition, startLive } from "../pipeline.ts"
import { type TestDatabase, TestPostgres } from "../postgres.ts"

const pet = relationOf()
const added = (id: number, name = `n${id}`) => insert(pet.id, [int4(id), text(name)])

/** The same in two groups: nothing of it is folded away. */
const apart = { group: { transactions: 1 } }

/** A transaction of its own for each list of changes. */
const transactions = (...lists: ReadonlyArray<ReadonlyArray<MessageFixture>>) =>
  log(lists.flatMap((changes, n) => [begin(n + 1), ...changes, commit(n + 1)]))

const start = Effect.fnUntraced(function* (
  database: Pick<TestDatabase, "url">,
  records: ReadonlyArray<string>,
  config?: object
): Effect.fn.Return<Live, never, Scope.Scope> {
  return yield* startLive({
    partition: yield* partition({ log: records }),
    url: database.url,
    ...(config === undefined ? {} : { config })
  })
})

/** The same database for a role that may create its own tables, and nothing else. */
const asOrdinaryRole = Effect.fnUntraced(function* (database: TestDatabase) {
  const role = `ordinary_${database.name}`
  yield* database.query(`
    CREATE ROLE ${role} LOGIN PASSWORD 'secret';
    GRANT CREATE ON DATABASE ${database.name} TO ${role};
    GRANT CREATE ON SCHEMA public TO ${role}`)
  const url = new URL(Redacted.value(database.url))
  url.username = role
  url.password = "secret"
  return { role, url: Redacted.make(url.href) }
})

layer(TestPostgres.layer(), { excludeTestServices: true })("Sink on PostgreSQL", (it) => {
  it.effect("rolls rows, schema change, position and what was described back together", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const price = { name: "price", isKey: false, typeId: 1700, typeModifier: -1 }
      const other = relationOf({ id: 2, name: "prices", columns: [...pet.columns, price] })
      const connector = yield* start(
        database,
        transactions(
          [relation(pet), added(1, "Ada")],
          [
            relation(other),
            insert(2, [int4(1), text("x"), raw("1.50")]),
            insert(2, [int4(2), text("y"), raw("secret")])
          ]
        )
      )
      const error = yield* connector.stopped({ _tag: "ApplyFailed", offset: offset(7), commitLsn: lsn(2) })
      assert.strictEqual(
        error.message,
        "public.prices, offset 7, transaction 0/2: invalid text for the column's type (SQLSTATE 22P02)"
      )
      assert.notInclude([error.stack, ...connector.logged].join(), "secret")
      assert.deepStrictEqual(yield* database.query("SELECT * FROM pets"), [{ id: "1", name: "Ada" }])
      const state = yield* database.query(`
        SELECT to_regclass('prices') AS table, (SELECT current_offset FROM fluvio.offset) AS offset,
          (SELECT string_agg(relation->>'name', ',') FROM fluvio.relation) AS relations`)
      assert.deepStrictEqual(state, [{ table: null, offset: "3", relations: "pets" }])
    })
  )

  it.effect("keeps a value that an update did not send", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const wide = relationOf({
        columns: [...pet.columns, { name: "photo", isKey: false, typeId: 17, typeModifier: -1 }]
      })
      const photo = `\\x${"ab".repeat(4000)}`
      const connector = yield* start(
        database,
        transactions(
          [relation(wide), insert(pet.id, [int4(1), text("Ada"), raw(photo)])],
          [update(pet.id, [int4(1), text("Bo"), unchangedToast])],
          [update(pet.id, [int4(2), text("Cy"), unchangedToast], { key: [int4(1), sqlNull, sqlNull] })],
          [update(pet.id, [int4(2), sqlNull, unchangedToast])]
        ),
        apart
      )
      yield* connector.caughtUp
      const rows = yield* database.query("SELECT id, name, photo FROM pets")
      assert.deepStrictEqual(rows, [{ id: "2", name: null, photo }])
    })
  )

  it.effect("changes exactly one of several rows that are the same", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const full = relationOf({
        replicaIdentity: "Full",
        columns: [
          { name: "note", isKey: true, typeId: 25, typeModifier: -1 },
          { name: "data", isKey: true, typeId: 114, typeModifier: -1 }
        ]
      })
      const note = [text("x"), raw(`{"a":1}`)]
      const empty = [sqlNull, sqlNull]
      const add = (row: typeof note | typeof empty) => insert(pet.id, row)
      const connector = yield* start(
        database,
        transactions(
          [relation(full), add(note), add(note), add(note), add(empty), add(empty)],
          [remove(pet.id, { old: note }), remove(pet.id, { old: empty })],
          [update(pet.id, [text("y"), raw("[]")], { old: note })]
        )
      )
      yield* connector.caughtUp
      assert.deepStrictEqual(yield* database.query("SELECT note, data FROM pets ORDER BY 1"), [
        { note: "x", data: `{"a":1}` },
        { note: "y", data: "[]" },
        { note: null, data: null }
      ])
      assert.deepInclude(connector.applied[0], { missingRows: 0 })
    })
  )

  it.effect("truncates as the source did: with or without what refers to the table, and its sequences", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`
        CREATE TABLE pets (id int PRIMARY KEY, name text, serial int GENERATED ALWAYS AS IDENTITY);
        CREATE TABLE toys (pet int REFERENCES pets);`)
      const toys = relationOf({
        id: 2,
        name: "toys",
        replicaIdentity: "Nothing",
        columns: [{ name: "pet", isKey: false, typeId: 23, typeModifier: -1 }]
      })
      const filled = [added(1), insert(2, [int4(1)])]
      const records = yield* partition({ log: transactions([relation(pet), relation(toys), ...filled]) })
      const { append } = Context.get(records, Log)
      const connector = yield* startLive({
        partition: records,
        url: database.url,
        config: { truncateCascade: "as-source" }
      })
      const content = database.query(`
        SELECT (SELECT json_agg(pets) FROM pets) AS pets, (SELECT count(*) FROM toys) AS toys`)
      yield* connector.caughtUp
      const apply = Effect.fnUntraced(function* (n: number, ...messages: ReadonlyArray<MessageFixture>) {
        yield* append(log(begin(n), messages, commit(n)))
        yield* connector.caughtUp
        return yield* content
      })
      assert.deepStrictEqual(yield* apply(2, truncate([pet.id, 2]), ...filled), [
        { pets: `[{"id":1,"name":"n1","serial":2}]`, toys: "1" }
      ])
      assert.deepStrictEqual(yield* apply(3, truncate([pet.id], { cascade: true }), added(5)), [
        { pets: `[{"id":5,"name":"n5","serial":3}]`, toys: "0" }
      ])
      assert.deepStrictEqual(yield* apply(4, truncate([pet.id, 2], { restartIdentity: true }), ...filled), [
        { pets: `[{"id":1,"name":"n1","serial":1}]`, toys: "1" }
      ])
      // Without CASCADE PostgreSQL refuses what the source, whose tables refer to each other otherwise, could do.
      yield* append(log(begin(5), truncate([pet.id]), commit(5)))
      yield* connector.stopped({ _tag: "ApplyFailed", table: "public.pets", isRetryable: false })
      assert.deepStrictEqual(yield* content, [{ pets: `[{"id":1,"name":"n1","serial":1}]`, toys: "1" }])
    })
  )

  it.effect("follows a type that changes under statements which were prepared before", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      // A trigger of the target's own makes every change a statement of one row.
      yield* database.query(`
        CREATE TABLE pets (id int PRIMARY KEY, name text, born date);
        CREATE FUNCTION same() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER same BEFORE INSERT ON pets FOR EACH ROW EXECUTE FUNCTION same();
        ALTER TABLE pets ENABLE ALWAYS TRIGGER same`)
      const [id, name] = pet.columns
      // Behind them stands a column of another type: the last one might as well have been replaced.
      const born = { ...name, name: "born", typeId: 1082 }
      const ofBoth = relationOf({ columns: [id, name, born] })
      const ofText = relationOf({ columns: [{ ...id, typeId: 25 }, name, born] })
      const ofNumber = relationOf({
        columns: [{ ...id, typeId: 25 }, { ...name, typeId: 1700 }, born]
      })
      const connector = yield* start(
        database,
        transactions(
          [
            relation(ofBoth),
            insert(pet.id, [int4(1), text("1"), sqlNull]),
            update(pet.id, [int4(1), text("10"), sqlNull])
          ],
          [
            relation(ofText),
            insert(pet.id, [text("b"), text("2"), sqlNull]),
            update(pet.id, [text("b"), text("20"), sqlNull])
          ],
          [remove(pet.id, { key: [text("1"), sqlNull, sqlNull] })],
          [
            relation(ofNumber),
            insert(pet.id, [text("c"), raw("3.5"), sqlNull]),
            update(pet.id, [text("b"), raw("4.5"), sqlNull])
          ]
        ),
        { ...apart, "schema-changes": "full" }
      )
      yield* connector.caughtUp
      assert.deepStrictEqual(yield* database.query("SELECT id, name FROM pets ORDER BY 1"), [
        { id: "b", name: "4.5" },
        { id: "c", name: "3.5" }
      ])
    })
  )

  it.effect("finds out that a table was altered in the target between two groups", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const records = yield* partition({ log: transactions([relation(pet), added(1)]) })
      const connector = yield* startLive({ partition: records, url: database.url })
      yield* connector.caughtUp
      yield* database.query(`
        ALTER TABLE pets DROP CONSTRAINT pets_pkey, ALTER COLUMN id TYPE text, ALTER COLUMN name TYPE varchar(3),
          ADD COLUMN extra int DEFAULT 7`)
      yield* Context.get(records, Log).append(log(begin(2), update(pet.id, [int4(1), text("x")]), added(2), commit(2)))
      yield* connector.caughtUp
      assert.deepStrictEqual(yield* database.query("SELECT * FROM pets ORDER BY id"), [
        { id: "1", name: "x", extra: "7" },
        { id: "2", name: "n2", extra: "7" }
      ])
    })
  )

  it.effect("lets the target's own triggers and foreign keys rest", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`
        CREATE TABLE owners (id int PRIMARY KEY);
        CREATE TABLE pets (id int PRIMARY KEY REFERENCES owners, name text);
        CREATE TABLE audit (what text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
          AS $$BEGIN INSERT INTO public.audit VALUES (TG_ARGV[0] || NEW.id); RETURN NEW; END$$;
        CREATE TRIGGER ordinary AFTER INSERT ON pets FOR EACH ROW EXECUTE FUNCTION note('ordinary ')`)
      const records = yield* partition({ log: transactions([relation(pet), added(1)]) })
      const connector = yield* startLive({ partition: records, url: database.url })
      yield* connector.caughtUp
      assert.deepStrictEqual(yield* database.query("SELECT id FROM pets"), [{ id: "1" }])
      assert.deepStrictEqual(yield* database.query("SELECT what FROM audit"), [])
      assert.isFalse(connector.logged.some((message) => message.startsWith("Warn")))
    })
  )

  it.effect("replays in order, and says so, where the role may not switch triggers off", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const { role, url } = yield* asOrdinaryRole(database)
      yield* database.query(`
        CREATE TABLE owners (id int PRIMARY KEY);
        CREATE TABLE pets (id int PRIMARY KEY, name text, owner int REFERENCES owners DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE audit (n serial, what text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
          AS $$BEGIN INSERT INTO public.audit (what) VALUES (TG_OP || coalesce(NEW.id, OLD.id)); RETURN NULL; END$$;
        CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON pets FOR EACH ROW EXECUTE FUNCTION note();
        ALTER TABLE owners OWNER TO ${role}; ALTER TABLE pets OWNER TO ${role}; ALTER TABLE audit OWNER TO ${role}`)
      const owned = relationOf({
        columns: [...pet.columns, { name: "owner", isKey: false, typeId: 23, typeModifier: -1 }]
      })
      const owners = relationOf({ id: 2, name: "owners", columns: [pet.columns[0]] })
      const connector = yield* start(
        { url },
        transactions(
          [
            relation(owned),
            relation(owners),
            // The owner comes after the pet: the foreign key is checked at the end.
            insert(pet.id, [int4(1), text("Ada"), int4(9)]),
            insert(2, [int4(9)]),
            update(pet.id, [int4(1), text("Bo"), int4(9)]),
            remove(pet.id, { key: [int4(1), sqlNull, sqlNull] })
          ],
          [insert(pet.id, [int4(2), text("Cy"), int4(404)])]
        ),
        apart
      )
      const error = yield* connector.stopped({ _tag: "ApplyFailed", commitLsn: lsn(2), isRetryable: false })
      assert.strictEqual(
        error.message,
        "public.pets, offset 10, transaction 0/2: foreign key violation (SQLSTATE 23503, table public.pets, constraint pets_owner_fkey)"
      )
      assert.deepStrictEqual(yield* database.query("SELECT what FROM audit ORDER BY n"), [
        { what: "INSERT1" },
        { what: "UPDATE1" },
        { what: "DELETE1" }
      ])
      assert.lengthOf(
        connector.logged.filter((message) => message.startsWith("Warn: The target's role may not set")),
        1
      )
    })
  )

  it.effect("refuses a table whose row security would hide rows", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const { role, url } = yield* asOrdinaryRole(database)
      yield* database.query(`
        CREATE TABLE pets (id int PRIMARY KEY, name text);
        GRANT ALL ON pets TO ${role};
        ALTER TABLE pets ENABLE ROW LEVEL SECURITY`)
      const connector = yield* start({ url }, transactions([relation(pet), added(1)]))
      yield* connector.stopped({ _tag: "RowSecurityActive", table: `"public"."pets"`, offset: offset(2) })
      assert.deepStrictEqual(yield* database.query("SELECT current_offset FROM fluvio.offset"), [])
    })
  )

  it.effect("refuses a table with a column that nobody fills", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text, born date NOT NULL)")
      const connector = yield* start(database, transactions([relation(pet), added(1)]))
      const error = yield* connector.stopped({ _tag: "SchemaRefused", offset: offset(2) })
      assert.include(error.remedy, `ALTER TABLE "public"."pets" ALTER COLUMN "born" DROP NOT NULL;`)
      yield* database.query(`ALTER TABLE "public"."pets" ALTER COLUMN "born" DROP NOT NULL`)
      const again = yield* start(database, transactions([relation(pet), added(1)]))
      yield* again.caughtUp
      assert.deepStrictEqual(yield* database.query("SELECT id, born FROM pets"), [{ id: "1", born: null }])
    })
  )

  it.effect("streams a transaction of 200 000 rows in bounded memory, and nobody ever sees a part of it", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      const rows = 200_000
      const names = "x".repeat(80)
      const records = yield* partition({
        log: [
          ...log(begin(1), relation(pet)),
          ...Array.from({ length: rows }, (_, id) => eventJson(added(id, names))),
          ...log(commit(1))
        ]
      })
      const seen = new Set<string | null>()
      const watching = yield* database.query("SELECT count(*) FROM pets").pipe(
        Effect.tap(([{ count }]) => Effect.sync(() => seen.add(count ?? null))),
        Effect.forever,
        Effect.forkScoped
      )
      let most = 0
      const connector = yield* startLive({
        partition: records,
        url: database.url,
        config: { group: { bytes: "1 MiB" } },
        onPass: (name) =>
          Effect.sync(() => {
            if (name === "after statement") most = Math.max(most, process.memoryUsage().heapUsed)
          })
      })
      const before = process.memoryUsage().heapUsed
      yield* connector.caughtUp
      yield* Fiber.interrupt(watching)
      assert.deepStrictEqual(
        [...seen].filter((count) => count !== "0" && count !== String(rows)),
        []
      )
      assert.deepStrictEqual(yield* database.query("SELECT count(*), sum(id::int8) FROM pets"), [
        { count: String(rows), sum: String((rows * (rows - 1)) / 2) }
      ])
      assert.deepInclude(connector.applied[0], { transactions: 1, changes: rows, records: rows + 3 })
      assert.isAbove(connector.applied[0].statements, 20)
      // The records themselves, which the partition in memory holds, are 60 MB; what the connector adds is not.
      assert.isBelow(most - before, 150_000_000)
    })
  )
})
