import { assert, layer } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as events from "../../events.ts"
import * as Operator from "../../operator.ts"
import { eventually } from "../../pipeline.ts"
import { TestPostgres } from "../../postgres.ts"

const pets = events.relationOf()
const pet = (id: number, name: string): events.Row => [events.int4(id), events.text(name)]

/** A source transaction with this LSN. */
const transaction = (lsn: number, ...messages: ReadonlyArray<events.MessageFixture>) => [
  events.begin(lsn, { timestamp: BigInt(lsn) * 1_000_000n, xid: lsn }),
  ...messages,
  events.commit(lsn, { timestamp: BigInt(lsn) * 1_000_000n })
]
const insert = (lsn: number, id: number, name: string) => transaction(lsn, events.insert(pets.id, pet(id, name)))
const rename = (lsn: number, id: number, name: string) => transaction(lsn, events.update(pets.id, pet(id, name)))

/** A configuration file with these settings, for as long as the scope is open. */
const configFile = (settings: object) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(() => mkdtemp(join(tmpdir(), "quarantine-"))),
      (folder) => Effect.promise(() => rm(folder, { recursive: true }))
    ),
    (folder) => join(folder, "connector.yaml")
  ).pipe(Effect.tap((path) => Effect.promise(() => writeFile(path, JSON.stringify({ parameters: settings })))))

/** An operator, and a connector that sets aside what the target refuses: names that begin with `bad`. */
const start = Effect.fnUntraced(function* (settings: object = {}) {
  const operator = yield* Operator.make()
  const { append, database, run } = operator
  yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text CHECK (name NOT LIKE 'bad%'))")
  // One at a time: what is refused of one must not be gone by the end of its group.
  const config = yield* configFile({
    "on-error": "quarantine",
    "quarantine-limit": 50,
    group: { transactions: 1 },
    ...settings
  })
  const running = yield* run("--config", config)
  /** Waits until the connector has applied a row with this name. */
  const applied = (name: string) =>
    Effect.raceFirst(
      eventually(Effect.map(database.query(`SELECT FROM pets WHERE name = '${name}'`), (rows) => rows.length > 0)),
      Effect.flatMap(running.ended, ({ err }) => Effect.die(new Error(`the connector has ended: ${err}`)))
    )
  // From here on its table is known, so that a transaction holds rows and not all of it.
  yield* append(transaction(1, events.relation(pets), events.insert(pets.id, pet(0, "first"))))
  yield* applied("first")
  const rows = Effect.map(database.query("SELECT id, name FROM pets ORDER BY id"), (all) =>
    all.map(({ id, name }) => `${id} ${name}`)
  )
  return { ...operator, config, running, applied, rows }
})

/** One that the target refuses, two that follow it, and one of another row. */
const poison = [
  ...insert(10, 1, "bad secret"),
  ...rename(11, 1, "second"),
  ...transaction(
    12,
    events.remove(pets.id, { key: [events.int4(1), events.sqlNull] }),
    events.insert(pets.id, pet(2, "third"))
  ),
  ...insert(13, 9, "other")
]

interface Listed {
  readonly transactions: ReadonlyArray<{ readonly id: number; readonly [fact: string]: unknown }>
}

layer(TestPostgres.layer(), { excludeTestServices: true })("quarantine", (it) => {
  it.effect("lists what is held, without values, in lines that fit", () =>
    Effect.gen(function* () {
      const { append, applied, command, json } = yield* start()
      assert.match((yield* command("quarantine", "list")).out, /^nothing of pets-0 is held$/m)
      yield* append(poison)
      yield* applied("other")

      const listed = (yield* json("quarantine", "list")) as Listed
      const [first] = listed.transactions
      assert.deepStrictEqual(
        listed.transactions.map(({ id, class: kind, status }) => ({ id, kind, status })),
        [
          { id: 1, kind: "constraint", status: "held" },
          { id: 2, kind: "follows", status: "held" },
          { id: 3, kind: "follows", status: "held" }
        ]
      )
      assert.deepInclude(first, {
        firstOffset: 4,
        lastOffset: 6,
        commitLsn: "0/A",
        commitTime: "2000-01-01T00:00:10.000Z",
        sqlState: "23514",
        tables: ["public.pets"],
        records: 3,
        resolvedAt: null
      })
      const text = (yield* command("quarantine", "list")).out
      assert.match(text, /^ID {2}OFFSETS {2}LSN {2}COMMITTED +CLASS +RECORDS$/m)
      assert.match(text, /^1 {3}4-6 +0\/A {2}2000-01-01T00:00:10Z {2}constraint 23514 +3$/m)
      assert.match(text, /^ {4}held since 20\d\d-.*Z$/m)
      assert.isTrue(text.split("\n").every((line) => line.length <= 100))

      assert.notInclude(text + JSON.stringify(listed), "secret")
    })
  )

  it.effect("shows one that is held, and its values only where they are asked for", () =>
    Effect.gen(function* () {
      const { append, applied, command, database, json } = yield* start()
      yield* append(poison)
      yield* applied("other")
      const shown = (yield* json("quarantine", "show", "1")) as { readonly [fact: string]: unknown }
      assert.deepInclude(shown, {
        holds: [{ table: "public.pets", rows: 1 }],
        follows: [],
        followers: [
          { id: 2, status: "held" },
          { id: 3, status: "held" }
        ],
        events: [
          { offset: 4, kind: "begin", tables: [], note: "0/A" },
          { offset: 5, kind: "insert", tables: ["public.pets"] },
          { offset: 6, kind: "commit", tables: [], note: "0/A" }
        ]
      })
      assert.deepInclude((yield* json("quarantine", "show", "3")) as object, { follows: [1, 2] })
      assert.notInclude(JSON.stringify(shown), "secret")
      assert.notInclude((yield* command("quarantine", "show", "1")).out, "secret")

      const { code, out } = yield* command("quarantine", "show", "1", "--values")
      assert.strictEqual(code, 0)
      assert.include(out, 'new: id = "1", name = "bad secret"')
      assert.include(out, "Followers: 2, 3")
      assert.include((yield* command("quarantine", "show", "3", "--values")).out, 'old: id = "1"')

      yield* database.query("UPDATE fluvio.quarantine SET keys = keys, shapes = NULL WHERE id = 1")
      assert.include((yield* command("quarantine", "show", "1")).out, `insert relation ${pets.id}`)
      const unknown = yield* command("quarantine", "show", "77")
      assert.deepStrictEqual([unknown.code, unknown.out], [2, ""])
      assert.include(unknown.err, "no transaction 77 of pets-0 is in quarantine")
    })
  )

  it.effect("shows that a record cannot be read", () =>
    Effect.gen(function* () {
      const { append, applied, command } = yield* start()
      yield* append([
        ...transaction(20, events.insert(pets.id, pet(5, "fine")), { ...events.commit(1), json: '{"type":"secret"}' }),
        ...insert(21, 6, "other")
      ])
      yield* applied("other")
      const { out } = yield* command("quarantine", "show", "1", "--values")
      assert.match(out, /^6 {2}unreadable the event at offset 6 cannot be read/m)
      assert.notInclude(out, "secret")
      assert.include(out, 'name = "fine"')
    })
  )

  it.effect("says that nothing is held where no connector has run, and makes no tables", () =>
    Effect.gen(function* () {
      const { command, database, json } = yield* Operator.make()
      assert.deepStrictEqual(yield* json("quarantine", "list"), { transactions: [] })
      assert.match((yield* command("quarantine", "list", "--all")).out, /^nothing of pets-0 was ever set aside$/m)
      assert.deepStrictEqual(yield* database.query("SELECT to_regnamespace('fluvio') AS there"), [{ there: null }])
    })
  )

  it.effect("discards, with who and why, and the connector that runs goes on with these rows", () =>
    Effect.gen(function* () {
      const { append, applied, command, database, json, rows } = yield* start()
      yield* append(poison)
      yield* applied("other")
      for (const wrong of [["1"], ["--reason", "x"], ["1", "9", "--reason", "x"]]) {
        assert.strictEqual((yield* command("quarantine", "discard", ...wrong)).code, 2)
      }
      const one = yield* command("quarantine", "discard", "1", "--reason", "test data")
      assert.deepStrictEqual([one.code, one.err], [0, ""])
      assert.match(one.out, /^discarded 1 transaction: 1\nstill held, because they touch the same rows: 2, 3\. /)
      assert.deepStrictEqual(yield* json("quarantine", "discard", "2", "--with-followers", "--reason", "too"), {
        discarded: [2, 3],
        followers: []
      })
      yield* append(insert(30, 1, "fourth"))
      yield* applied("fourth")
      assert.deepStrictEqual(yield* rows, ["0 first", "1 fourth", "9 other"])

      const { transactions } = (yield* json("quarantine", "list", "--all")) as Listed
      assert.deepStrictEqual(
        transactions.map(({ resolvedReason, status }) => [status, resolvedReason]),
        [
          ["discarded", "test data"],
          ["discarded", "too"],
          ["discarded", "too"]
        ]
      )
      assert.match(
        (yield* command("quarantine", "list", "--all")).out,
        /^ {4}held .*, discarded .* by .+@.+: test data$/m
      )
      assert.deepStrictEqual(
        yield* database.query(
          "SELECT action, detail->>'id' AS id, reason, done_by <> '' AS is_signed FROM fluvio.action ORDER BY id"
        ),
        [
          { action: "quarantine discard", id: "1", reason: "test data", is_signed: "t" },
          { action: "quarantine discard", id: "2", reason: "too", is_signed: "t" },
          { action: "quarantine discard", id: "3", reason: "too", is_signed: "t" }
        ]
      )
      assert.strictEqual((yield* command("quarantine", "discard", "1", "--reason", "again")).code, 2)
      assert.match((yield* command("quarantine", "discard", "--all", "--reason", "x")).out, /^nothing is held$/m)
    })
  )

  it.effect("replays what is held and what follows it, once its cause is repaired, beside the connector", () =>
    Effect.gen(function* () {
      const { append, applied, command, config, database, json, rows, running } = yield* start()
      yield* append(poison)
      yield* applied("other")
      const state = database.query("SELECT status, count(*) AS n FROM fluvio.quarantine GROUP BY status")
      const stored = database.query(
        "SELECT o::text AS position, (SELECT string_agg(r::text, ';') FROM fluvio.relation AS r) AS described FROM fluvio.offset AS o"
      )
      const before = yield* stored
      for (const wrong of [["1", "--all"], ["77"]]) {
        assert.strictEqual((yield* command("quarantine", "replay", ...wrong)).code, 2)
      }
      const follower = yield* command("quarantine", "replay", "3", "--config", config)
      assert.deepStrictEqual([follower.code, follower.out], [4, ""])
      assert.match(follower.err, /transaction 3 .* comes first: 1, 2\n.*quarantine replay 1 2/)

      const tried = yield* command("quarantine", "replay", "1", "--dry-run", "--config", config)
      assert.strictEqual(tried.code, 4)
      assert.match(tried.out, /^would replay nothing\nstopped at 1: nothing of it is applied\nstill held: 1, 2, 3$/m)
      assert.match(tried.err, /SQLSTATE 23514/)
      assert.notInclude(tried.err + tried.out, "secret")

      yield* database.query("ALTER TABLE pets DROP CONSTRAINT pets_name_check")
      const dry = yield* json("quarantine", "replay", "--all", "--dry-run", "--config", config)
      assert.deepStrictEqual(dry, { dryRun: true, replayed: [1, 2, 3], failed: null, left: [] })
      assert.deepStrictEqual(yield* rows, ["0 first", "9 other"])
      assert.deepStrictEqual(yield* state, [{ status: "held", n: "3" }])
      assert.deepStrictEqual(yield* database.query("SELECT FROM fluvio.action"), [])

      const done = yield* command("quarantine", "replay", "1", "--reason", "constraint dropped", "--config", config)
      assert.deepStrictEqual([done.code, done.err], [0, ""])
      assert.match(done.out, /^replayed 3 transactions: 1, 2, 3$/m)
      assert.deepStrictEqual(yield* rows, ["0 first", "2 third", "9 other"])
      assert.deepStrictEqual(yield* state, [{ status: "replayed", n: "3" }])
      assert.deepStrictEqual(yield* stored, before)
      assert.deepStrictEqual(
        yield* database.query("SELECT action, detail->>'id' AS id, reason FROM fluvio.action ORDER BY id"),
        ["1", "2", "3"].map((id) => ({ action: "quarantine replay", id, reason: "constraint dropped" }))
      )
      yield* append(rename(30, 2, "fifth"))
      yield* applied("fifth")
      assert.notInclude(running.err(), "trying again")
      assert.match((yield* command("quarantine", "replay", "--all")).out, /^nothing is held$/m)
    })
  )

  it.effect("stops at the first that fails: what is before it is applied, and the rest stays held", () =>
    Effect.gen(function* () {
      const { append, applied, command, config, database, json, rows } = yield* start()
      yield* append([
        ...insert(10, 1, "bad"),
        ...rename(11, 1, "bad too"),
        ...rename(12, 1, "good"),
        ...insert(13, 9, "x")
      ])
      yield* applied("x")
      yield* database.query(
        "ALTER TABLE pets DROP CONSTRAINT pets_name_check, ADD CONSTRAINT late CHECK (name <> 'bad too')"
      )
      const { code, err, out } = yield* command("quarantine", "replay", "--all", "--json", "--config", config)
      assert.strictEqual(code, 4)
      const answer = JSON.parse(out) as { readonly failed: object; readonly [fact: string]: unknown }
      assert.deepInclude(answer, { dryRun: false, replayed: [1], left: [2, 3] })
      assert.deepInclude(answer.failed, { id: 2, error: "ApplyFailed" })
      assert.include(err, "SQLSTATE 23514")
      assert.deepStrictEqual(yield* rows, ["0 first", "1 bad", "9 x"])
      yield* database.query("ALTER TABLE pets DROP CONSTRAINT late")
      assert.deepInclude((yield* json("quarantine", "replay", "2", "--config", config)) as object, { replayed: [2, 3] })
      assert.deepStrictEqual(yield* rows, ["0 first", "1 good", "9 x"])
    })
  )

  it.effect("says of a record that cannot be read that it can only be discarded", () =>
    Effect.gen(function* () {
      const { append, applied, command, config, rows } = yield* start()
      yield* append([
        ...transaction(20, events.insert(pets.id, pet(5, "lost")), { ...events.commit(1), json: '{"type":"secret"}' }),
        ...rename(21, 5, "follows"),
        ...insert(22, 6, "other")
      ])
      yield* applied("other")
      const { code, err, out } = yield* command("quarantine", "replay", "--all", "--config", config)
      assert.strictEqual(code, 4)
      assert.match(err, /transaction 1 cannot be replayed: the event at offset 6 .* cannot be read/)
      assert.match(err, /`quarantine discard 1`/)
      assert.include(out, "still held: 1, 2")
      assert.strictEqual((yield* command("quarantine", "discard", "1", "--with-followers", "--reason", "lost")).code, 0)
      assert.deepStrictEqual(yield* rows, ["0 first", "6 other"])
    })
  )

  it.effect("replays a record that a setting makes readable", () =>
    Effect.gen(function* () {
      const { append, applied, command, config, database } = yield* start()
      const scores = {
        ...events.relationOf({ id: 3, name: "scores" }),
        columns: [pets.columns[0], { name: "score", isKey: false, typeId: 701, typeModifier: -1 }]
      }
      yield* append([
        ...transaction(20, events.relation(scores), events.insert(3, [events.int4(1), events.float8("0.5")])),
        ...transaction(21, events.insert(3, [events.int4(2), events.float8("null")])),
        ...insert(22, 9, "other")
      ])
      yield* applied("other")
      const refused = yield* command("quarantine", "replay", "1", "--config", config)
      assert.strictEqual(refused.code, 4)
      assert.include(refused.err, "`float-null`")
      const settled = yield* configFile({ "float-null": "nan" })
      assert.strictEqual((yield* command("quarantine", "replay", "1", "--config", settled)).code, 0)
      assert.deepStrictEqual(yield* database.query("SELECT id, score FROM scores ORDER BY id"), [
        { id: "1", score: "0.5" },
        { id: "2", score: "NaN" }
      ])
    })
  )

  it.effect("replays a transaction that is larger than the memory for it, as one", () =>
    Effect.gen(function* () {
      const { append, applied, config, database, json } = yield* start({ group: { bytes: "4 KiB", transactions: 1 } })
      const many = Array.from({ length: 200 }, (_, n) => events.insert(pets.id, pet(100 + n, `pet ${n}`)))
      yield* append([
        ...transaction(20, ...many, events.insert(pets.id, pet(99, "bad"))),
        ...rename(21, 100, "follows"),
        events.begin(22, { timestamp: 22_000_000n }),
        events.relation({ ...pets, id: 2, name: "others" }),
        events.insert(2, pet(1, "other")),
        events.commit(22, { timestamp: 22_000_000n })
      ])
      yield* eventually(
        Effect.map(database.query("SELECT to_regclass('others') IS NOT NULL AS there"), ([row]) => row["there"] === "t")
      )
      assert.deepStrictEqual(yield* database.query("SELECT count(*) AS n FROM pets"), [{ n: "1" }])
      yield* database.query("ALTER TABLE pets DROP CONSTRAINT pets_name_check")
      assert.deepInclude((yield* json("quarantine", "replay", "1", "--config", config)) as object, { replayed: [1, 2] })
      assert.deepStrictEqual(yield* database.query("SELECT count(*) AS n FROM pets"), [{ n: "202" }])
      // In parts, each under a savepoint.
      const [{ parts }] = yield* database.query("SELECT count(DISTINCT xmin::text) AS parts FROM pets WHERE id > 100")
      assert.isAbove(Number(parts), 1)
      yield* append(insert(30, 7, "goes on"))
      yield* applied("goes on")
    })
  )

  it.effect("makes the changes of the schema that were held back, and reads each row by the shape of its time", () =>
    Effect.gen(function* () {
      const { append, applied, command, config, database, json } = yield* start()
      const number = { isKey: false, typeId: 23, typeModifier: -1 }
      const wide = { ...pets, columns: [...pets.columns, { ...number, name: "age" }] }
      const wider = { ...wide, columns: [...wide.columns, { ...number, name: "size" }] }
      const other = { ...pets, id: 2, name: "others" }
      yield* append([
        ...transaction(
          20,
          events.insert(pets.id, pet(1, "narrow")),
          events.relation(wide),
          events.insert(pets.id, [...pet(2, "bad"), events.int4(2)])
        ),
        ...transaction(21, events.insert(pets.id, [...pet(3, "wide"), events.int4(3)])),
        ...transaction(
          22,
          events.relation(wider),
          events.insert(pets.id, [...pet(4, "wider"), events.int4(4), events.int4(44)])
        ),
        ...transaction(23, events.relation(other), events.insert(2, pet(1, "other")))
      ])
      yield* eventually(
        Effect.map(database.query("SELECT to_regclass('others') IS NOT NULL AS there"), ([row]) => row["there"] === "t")
      )
      const { out } = yield* command("quarantine", "show", "1")
      assert.include(out, 'ALTER TABLE "public"."pets" ADD COLUMN "age" integer')
      assert.include(out, "Holds back: public.pets (all rows)")
      yield* database.query("ALTER TABLE pets DROP CONSTRAINT pets_name_check")
      const answer = yield* json("quarantine", "replay", "--all", "--config", config)
      assert.deepInclude(answer as object, { replayed: [1, 2, 3] })
      assert.deepStrictEqual(yield* database.query("SELECT id, name, age, size FROM pets WHERE id > 0 ORDER BY id"), [
        { id: "1", name: "narrow", age: null, size: null },
        { id: "2", name: "bad", age: "2", size: null },
        { id: "3", name: "wide", age: "3", size: null },
        { id: "4", name: "wider", age: "4", size: "44" }
      ])
      yield* append(transaction(30, events.insert(pets.id, [...pet(5, "goes on"), events.int4(5), events.int4(55)])))
      yield* applied("goes on")
      assert.deepStrictEqual(yield* database.query("SELECT age, size FROM pets WHERE id = 5"), [
        { age: "5", size: "55" }
      ])
      assert.strictEqual((yield* database.query("SELECT FROM fluvio.quarantine")).length, 3)
    })
  )

  it.effect("refuses what an earlier version has set aside without its shapes", () =>
    Effect.gen(function* () {
      const { append, applied, command, config, database } = yield* start()
      yield* append(poison)
      yield* applied("other")
      yield* database.query(
        "ALTER TABLE pets DROP CONSTRAINT pets_name_check; UPDATE fluvio.quarantine SET shapes = NULL WHERE id = 1"
      )
      const { code, err } = yield* command("quarantine", "replay", "1", "--config", config)
      assert.strictEqual(code, 4)
      assert.match(err, /earlier version.*\n.*quarantine show 1 --values/)
    })
  )

  it.effect("replays what has come to follow while it was at work", () =>
    Effect.gen(function* () {
      const { append, applied, command, config, database, rows } = yield* start()
      yield* append([...insert(10, 1, "bad"), ...insert(11, 9, "other")])
      yield* applied("other")
      yield* database.query("ALTER TABLE pets DROP CONSTRAINT pets_name_check; BEGIN; LOCK TABLE pets IN SHARE MODE")
      const replaying = yield* Effect.forkChild(command("quarantine", "replay", "1", "--config", config))
      const isWaiting = Effect.map(
        database.query("SELECT FROM pg_locks WHERE relation = 'pets'::regclass AND NOT granted"),
        (waiting) => waiting.length > 0
      )
      yield* eventually(isWaiting)
      yield* append(rename(20, 1, "follows"))
      yield* eventually(Effect.map(database.query("SELECT FROM fluvio.quarantine"), (held) => held.length === 2))
      yield* database.query("COMMIT")
      const { code, out } = yield* Fiber.join(replaying)
      assert.deepStrictEqual([code, out.trim()], [0, "replayed 2 transactions: 1, 2"])
      assert.deepStrictEqual(yield* rows, ["0 first", "1 follows", "9 other"])
    })
  )

  it.effect("is not followed by what would be held at the moment at which it is resolved", () =>
    Effect.gen(function* () {
      const { append, applied, database, rows, running } = yield* start()
      yield* append([...insert(10, 1, "bad"), ...insert(11, 9, "other")])
      yield* applied("other")
      // As a command does in its last moment: it has the lock, and has not committed yet.
      yield* database.query(`
        BEGIN;
        SELECT pg_advisory_xact_lock(hashtextextended('fluvio-postgres-sink/pets/0/quarantine', 0));
        INSERT INTO pets VALUES (1, 'mended');
        UPDATE fluvio.quarantine SET status = 'replayed', resolved_at = now()`)
      yield* append(rename(20, 1, "follows"))
      const isWaiting = Effect.map(
        database.query("SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND NOT granted"),
        (waiting) => waiting.length > 0
      )
      yield* eventually(isWaiting)
      yield* database.query("COMMIT")
      yield* applied("follows")
      assert.deepStrictEqual(yield* rows, ["0 first", "1 follows", "9 other"])
      assert.deepStrictEqual(yield* database.query("SELECT status FROM fluvio.quarantine"), [{ status: "replayed" }])
      assert.notInclude(running.err(), "trying again")
    })
  )
})
