import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as events from "../../events.ts"
import * as Operator from "../../operator.ts"
import { eventually } from "../../pipeline.ts"
import { TestPostgres } from "../../postgres.ts"
import * as Pooler from "../../torture/Pooler.ts"

const pets = events.relationOf()
const pet = (id: number) => [
  events.begin(1000 + id),
  events.relation(pets),
  events.insert(pets.id, [events.int4(id), events.text(`pet ${id}`)]),
  events.commit(1000 + id)
]

interface Item {
  readonly name: string
  readonly state: "ok" | "wrong" | "note"
  readonly finding: string
  readonly remedy?: string
}

const itemsOf = (out: string) => (JSON.parse(out) as { readonly items: ReadonlyArray<Item> }).items

/** The answer of `check`, whether it is yes or no. */
const check = (command: Operator.Operator["command"], ...words: ReadonlyArray<string>) =>
  Effect.map(command("check", "--json", ...words), ({ code, err, out }) => {
    assert.include([0, 3], code, err)
    const items = itemsOf(out)
    return { code, items, named: (name: string) => items.filter((item) => item.name === name) }
  })

layer(TestPostgres.layer(), { excludeTestServices: true })("check", (it) => {
  it.effect("finds nothing wrong where a connector can work, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const { append, command, database, run } = yield* Operator.make()
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      yield* append(pet(1))
      const plain = yield* command("check")
      assert.deepStrictEqual({ code: plain.code, err: plain.err }, { code: 0, err: "" })
      assert.match(plain.out, /^✓ topic +pets-0 at .* starts at offset 0 and ends at offset 4$/m)
      assert.match(plain.out, /^✓ target +PostgreSQL \d+/m)
      assert.notInclude(plain.out, "✗")
      assert.deepStrictEqual(
        yield* database.query("SELECT to_regnamespace('fluvio') AS own, (SELECT count(*) FROM pets) AS pets"),
        [{ own: null, pets: "0" }]
      )

      const running = yield* run()
      yield* eventually(Effect.map(database.query("SELECT FROM pets"), (rows) => rows.length === 1))
      const before = yield* database.query("SELECT * FROM fluvio.offset")
      const { code, named } = yield* check(command)
      assert.strictEqual(code, 0)
      assert.match(named("lock")[0].finding, /^fluvio-postgres-sink applies this topic here, from .* \(pid \d+\)$/)
      assert.match(named("position")[0].finding, /^the record at offset 3 is the one that was applied$/)
      assert.deepStrictEqual(yield* database.query("SELECT * FROM fluvio.offset"), before)
      yield* running.signal("SIGTERM")
      yield* running.ended

      yield* database.query("UPDATE fluvio.offset SET checksum = (checksum + 1) % 1000")
      const moved = yield* check(command)
      assert.strictEqual(moved.code, 3)
      assert.deepInclude(moved.named("position")[0], { state: "wrong" })
      assert.match(moved.named("position")[0].remedy ?? "", /point the connector at the topic it was reading/)
    })
  )

  it.effect("prints the rights that a fresh role needs, which are enough for all that a connector does", () =>
    Effect.gen(function* () {
      const { append, command, database, run } = yield* Operator.make()
      const role = `sink ${database.name}`
      yield* database.query(`
        CREATE TABLE pets (id int PRIMARY KEY, name text);
        CREATE TABLE other (id int PRIMARY KEY);
        CREATE SCHEMA farm;
        CREATE TABLE farm.cows (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE farm.cows_1 PARTITION OF farm.cows FOR VALUES FROM (0) TO (1000);
        CREATE TABLE farm.secret (id int PRIMARY KEY);
        ALTER TABLE farm.secret ENABLE ROW LEVEL SECURITY;
        ALTER TABLE farm.secret FORCE ROW LEVEL SECURITY;
        REVOKE CONNECT ON DATABASE ${database.name} FROM PUBLIC;
        REVOKE ALL ON SCHEMA public FROM PUBLIC;
      `)
      const [id] = pets.columns
      const cows = events.relationOf({ id: 16_400, namespace: "farm", name: "cows", columns: [id] })
      const secret = events.relationOf({ id: 16_401, namespace: "farm", name: "secret", columns: [id] })
      yield* append([
        events.begin(1000),
        events.relation(pets),
        events.relation(cows),
        events.relation(secret),
        events.insert(pets.id, [events.int4(1), events.text("one")]),
        events.insert(cows.id, [events.int4(1)]),
        events.insert(secret.id, [events.int4(1)]),
        events.commit(1000)
      ])
      const script = (yield* command("check", "--grants", "--role", role)).out
      assert.include(script, `-- The role does not exist yet: CREATE ROLE "${role}"`)
      assert.notInclude(script, '"other"')
      yield* database.query(`CREATE ROLE "${role}" LOGIN PASSWORD 'hush'`)
      yield* database.query(`GRANT CONNECT ON DATABASE ${database.name} TO "${role}"`)
      const url = new URL(Redacted.value(database.url))
      url.username = encodeURIComponent(role)
      url.password = "hush"
      const asRole = ["--url", url.href]

      const bare = yield* check(command, ...asRole)
      assert.strictEqual(bare.code, 3)
      const [missing] = bare.named("privileges")
      assert.strictEqual(missing.state, "wrong")
      assert.match(missing.remedy ?? "", /^GRANT CREATE ON DATABASE [^]*"farm"."cows_1" OWNER TO [^]* BYPASSRLS;$/)
      assert.deepInclude(bare.named("replica")[0], {
        state: "note",
        remedy: `GRANT SET ON PARAMETER session_replication_role TO "${role}";`
      })

      yield* database.query(script)
      // It can be run again.
      yield* database.query(script)
      const granted = yield* check(command, ...asRole)
      assert.deepStrictEqual(
        granted.items.filter(({ name, state }) => state !== "ok" && name !== "encryption"),
        []
      )
      assert.strictEqual(granted.code, 0)

      const running = yield* run(...asRole)
      const wide = { ...pets, columns: [...pets.columns, { name: "age", isKey: false, typeId: 23, typeModifier: -1 }] }
      yield* append([
        events.begin(2000),
        events.insert(pets.id, [events.int4(2), events.text("two")]),
        events.insert(pets.id, [events.int4(3), events.text("three")]),
        events.update(pets.id, [events.int4(2), events.text("second")]),
        events.remove(pets.id, { key: [events.int4(3), events.sqlNull] }),
        events.truncate([cows.id]),
        events.commit(2000),
        events.begin(3000),
        events.relation(wide),
        events.insert(pets.id, [events.int4(4), events.text("four"), events.int4(4)]),
        events.relation(events.relationOf({ id: 16_402, namespace: "fresh", name: "born", columns: [id] })),
        events.insert(16_402, [events.int4(1)]),
        events.commit(3000)
      ])
      yield* eventually(
        Effect.map(database.query("SELECT to_regclass('fresh.born') AS born"), ([row]) => row["born"] !== null)
      )
      assert.deepStrictEqual(yield* database.query("SELECT * FROM pets ORDER BY id"), [
        { id: "1", name: "one", age: null },
        { id: "2", name: "second", age: null },
        { id: "4", name: "four", age: "4" }
      ])
      assert.deepStrictEqual(yield* database.query("SELECT * FROM farm.cows"), [])
      assert.deepStrictEqual(yield* database.query("SELECT * FROM farm.secret"), [{ id: "1" }])
      assert.notInclude(running.err(), "session_replication_role")

      // The rights of another role, now that the tables of the connector are there, too.
      yield* running.signal("SIGTERM")
      yield* running.ended
      const second = `second ${database.name}`
      yield* database.query(`CREATE ROLE "${second}" LOGIN PASSWORD 'hush'`)
      const flags = ["--schema-changes", "validate"]
      yield* database.query((yield* command("check", "--grants", "--role", second, ...flags)).out)
      url.username = encodeURIComponent(second)
      const next = yield* check(command, "--url", url.href, ...flags)
      assert.deepStrictEqual(
        next.items.filter(({ state }) => state === "wrong"),
        []
      )
      yield* append([
        events.begin(4000),
        events.insert(pets.id, [events.int4(5), events.text("five"), events.int4(5)]),
        events.truncate([cows.id]),
        events.commit(4000)
      ])
      yield* run("--url", url.href, ...flags)
      yield* eventually(Effect.map(database.query("SELECT FROM pets WHERE id = 5"), (rows) => rows.length === 1))
    })
  )

  it.effect("tells what the tables lack, and what to know of them", () =>
    Effect.gen(function* () {
      const { append, command, database } = yield* Operator.make()
      yield* database.query(`
        CREATE TABLE pets (id serial, name varchar(20));
        CREATE INDEX ON pets (id);
        INSERT INTO pets (id, name) VALUES (4711, 's3cr3t');
        CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER noted AFTER INSERT ON pets FOR EACH ROW EXECUTE FUNCTION noted();
        ALTER TABLE pets ENABLE ALWAYS TRIGGER noted;
      `)
      const [id, name] = pets.columns
      const moods = { ...events.relationOf({ id: 16_500, name: "moods" }), columns: [id, { ...name, typeId: 16_600 }] }
      const loose = events.relationOf({ id: 16_501, name: "loose", replicaIdentity: "Nothing" })
      yield* append([
        events.begin(1000),
        events.relation(pets),
        events.type(16_600, "mood", "public"),
        events.relation(moods),
        events.relation(loose),
        events.commit(1000)
      ])
      const { code, items, named } = yield* check(command)
      assert.strictEqual(code, 3)
      const told = (what: string) => named(what).map(({ finding, state }) => [state, finding])
      assert.deepStrictEqual(told("types"), [
        ["note", '"public"."pets", "name" is character varying(20) here and text in the source'],
        ["wrong", '"public"."moods" cannot have the column "name": it has no type with the name public.mood']
      ])
      assert.deepStrictEqual(told("tables"), [
        ["ok", "1 of 3 are here, with all columns"],
        ["note", '"public"."moods" is not here; the connector creates it'],
        ["note", '"public"."loose" is not here; the connector creates it']
      ])
      assert.deepInclude(named("keys")[0], { remedy: 'ALTER TABLE "public"."pets" ADD PRIMARY KEY ("id");' })
      assert.deepStrictEqual(told("triggers"), [
        ["note", '"public"."pets": the trigger "noted" fires while the connector applies']
      ])
      const [sequence] = named("sequences")
      assert.strictEqual(
        sequence.finding,
        '"public"."pets_id_seq" is behind the rows of "public"."pets", as no sequence is part of the stream'
      )
      assert.notMatch(JSON.stringify(items), /4711|s3cr3t/)
      yield* database.query(sequence.remedy?.replace(/^.*?: /, "") ?? "")
      assert.deepStrictEqual((yield* check(command)).named("sequences"), [])

      const strict = yield* check(command, "--schema-changes", "validate")
      assert.deepInclude(strict.named("tables").at(-1), { state: "wrong", finding: '"public"."loose" is not here' })
    })
  )

  it.effect("tells how far retention is from what is still to be applied", () =>
    Effect.gen(function* () {
      const { append, broker, command, database, place, run } = yield* Operator.make()
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      yield* append(pet(1))
      const running = yield* run()
      yield* eventually(Effect.map(database.query("SELECT FROM pets"), (rows) => rows.length === 1))
      yield* running.signal("SIGTERM")
      yield* running.ended
      yield* append(pet(2))
      for (const [start, name, state, finding] of [
        [2, "retention", "ok", /^the topic goes back \d+ \w+, 2 records before the next record to apply$/],
        [4, "retention", "note", /^the next record to apply is the first that the topic has/],
        [4, "position", "note", /^retention has removed the record at offset 3 /],
        [5, "position", "wrong", /^pets-0 was trimmed by retention: offset 4 is needed, the first available is 5$/]
      ] as const) {
        yield* Effect.orDie(broker.trim(place, start))
        const { code, named } = yield* check(command)
        assert.strictEqual(code, state === "wrong" ? 3 : 0)
        assert.strictEqual(named(name)[0].state, state)
        assert.match(named(name)[0].finding, finding)
      }
    })
  )

  it.effect("does not trust an advisory lock behind a pooler in transaction mode", () =>
    Effect.gen(function* () {
      const { append, command, database } = yield* Operator.make()
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      yield* append(pet(1))
      const { url } = yield* Pooler.make(database.url, 3)
      const { code, named } = yield* check(command, "--url", Redacted.value(url))
      assert.strictEqual(code, 3)
      assert.deepInclude(named("pooler")[0], { state: "wrong" })
      assert.include(named("pooler")[0].remedy, "target.lock: none")
    })
  )

  it.effect("says of each server that is not there what resolves it", () =>
    Effect.gen(function* () {
      const { command, database } = yield* Operator.make()
      const noTopic = yield* check(command, "--topic", "absent")
      assert.strictEqual(noTopic.code, 3)
      assert.match(noTopic.named("topic")[0].remedy ?? "", /fluvio topic create absent/)
      assert.deepInclude(noTopic.named("target")[0], { state: "ok" })
      const url = new URL(Redacted.value(database.url))
      url.pathname = "/absent"
      const noTarget = yield* check(command, "--url", url.href)
      assert.strictEqual(noTarget.code, 3)
      assert.deepInclude(noTarget.named("topic")[0], { state: "ok" })
      assert.deepInclude(noTarget.named("target")[0], { state: "wrong" })
      yield* database.query(`ALTER DATABASE ${database.name} SET default_transaction_read_only = on`)
      const readOnly = yield* check(command)
      assert.include(
        readOnly.named("target").map(({ finding }) => finding),
        "the target is read-only"
      )
      const misplaced = yield* command("check", "--role", "sink")
      assert.deepStrictEqual([misplaced.code, misplaced.out], [2, ""])
      assert.match(misplaced.err, /--role: belongs to --grants/)
    })
  )
})
