import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as events from "../../events.ts"
import * as Operator from "../../operator.ts"
import { eventually } from "../../pipeline.ts"
import { TestPostgres } from "../../postgres.ts"

const pets = events.relationOf()
const pet = (id: number, name: string) => events.insert(pets.id, [events.int4(id), events.text(name)])
const transaction = (lsn: number, ...changes: ReadonlyArray<events.MessageFixture>) => [
  events.begin(lsn),
  ...changes,
  events.commit(lsn)
]
const why = ["--reason", "too long"]

/** The topic holds these messages, and the target refuses names of more than four characters. */
const make = Effect.fnUntraced(function* (...messages: ReadonlyArray<events.MessageFixture>) {
  const operator = yield* Operator.make()
  yield* operator.database.query("CREATE TABLE pets (id int PRIMARY KEY, name varchar(4))")
  yield* operator.append(messages)
  const names = Effect.map(operator.database.query("SELECT id, name FROM pets ORDER BY id"), (rows) =>
    rows.map(({ id, name }) => `${id} ${name}`)
  )
  return { ...operator, names }
})

const quarantined = `
  SELECT status, class, reason, commit_lsn, first_offset, last_offset, resolved_by <> '' AS is_signed,
    (SELECT count(*) FROM fluvio.quarantine_record WHERE quarantine_id = id) AS records
  FROM fluvio.quarantine`

layer(TestPostgres.layer(), { excludeTestServices: true })("skip", (it) => {
  it.effect("passes over the transaction at which a connector has stopped, and keeps it", () =>
    Effect.gen(function* () {
      const { command, database, json, names, run } = yield* make(
        ...transaction(100, events.relation(pets), pet(1, "one")),
        ...transaction(200, pet(2, "much too long"), pet(3, "tre")),
        ...transaction(300, pet(4, "four"), events.update(pets.id, [events.int4(1), events.text("uno")]))
      )
      const stopped = yield* (yield* run()).ended
      assert.strictEqual(stopped.code, 4)
      assert.match(stopped.err, /0\/C8/)
      assert.deepStrictEqual(yield* names, ["1 one"])

      const asked = yield* command("skip", "--lsn", "0/C8", ...why)
      assert.deepStrictEqual({ code: asked.code, err: asked.err }, { code: 0, err: "" })
      assert.match(asked.out, /^transaction 0\/C8 of pets-0, at offsets 4 to 7, is passed over: /)
      const connector = yield* run()
      yield* eventually(Effect.map(names, (found) => found.length === 2))
      assert.deepStrictEqual(yield* names, ["1 uno", "4 four"])
      assert.match(connector.err(), /Passed over the transaction at offsets 4 to 7 \(0\/C8\), .*: too long/)
      yield* connector.signal("SIGTERM")
      assert.strictEqual((yield* connector.ended).code, 0)
      assert.deepStrictEqual(yield* database.query(quarantined), [
        {
          status: "discarded",
          class: "skipped",
          reason: "too long",
          commit_lsn: "0/C8",
          first_offset: "4",
          last_offset: "7",
          is_signed: "t",
          records: "4"
        }
      ])
      assert.deepStrictEqual(
        yield* database.query("SELECT commit_lsn, epoch, reason, skipped_at IS NOT NULL AS is_done FROM fluvio.skip"),
        [{ commit_lsn: "0/C8", epoch: "0", reason: "too long", is_done: "t" }]
      )
      assert.deepStrictEqual(yield* database.query("SELECT action, reason FROM fluvio.action"), [
        { action: "skip", reason: "too long" }
      ])

      const late = yield* command("skip", "--lsn", "0/C8", ...why)
      assert.strictEqual(late.code, 4)
      assert.match(late.err, /0\/C8 lies at or before the position, 0\/12C/)
      const tooLate = yield* command("skip", "--lsn", "0/C8", "--cancel", ...why)
      assert.match(tooLate.err, /was passed over already/)
      const unknown = yield* command("skip", "--lsn", "FF/0", ...why)
      assert.strictEqual(unknown.code, 4)
      assert.match(unknown.err, /holds no transaction with the commit LSN FF\/0/)
      assert.deepInclude(yield* json("skip", "--lsn", "FF/0", "--cancel", ...why), { wasAsked: false })
    })
  )

  it.effect("passes over one that is streamed, and one that cannot be read", () =>
    Effect.gen(function* () {
      const { append, command, database, names, run } = yield* make(
        ...transaction(100, events.relation(pets), pet(1, "one"))
      )
      const many = Array.from({ length: 20 }, (_, n) => pet(10 + n, n === 15 ? "x".repeat(200) : "many"))
      yield* append(transaction(200, ...many))
      // A row of one cell too many.
      yield* append(transaction(300, events.insert(pets.id, [events.int4(2), events.text("two"), events.int4(0)])))
      yield* append(transaction(400, pet(3, "tre")))
      const flags = ["--group-bytes", "1 KiB"]
      const first = yield* (yield* run(...flags)).ended
      assert.strictEqual(first.code, 4)
      assert.strictEqual((yield* command("skip", "--lsn", "0/C8", ...why)).code, 0)
      const second = yield* (yield* run(...flags)).ended
      assert.strictEqual(second.code, 4)
      assert.match(second.err, /has 3 cells for the 2 columns/)
      assert.deepStrictEqual(yield* names, ["1 one"])
      assert.strictEqual((yield* command("skip", "--lsn", "0/12C", ...why)).code, 0)
      const third = yield* run(...flags)
      yield* eventually(Effect.map(names, (found) => found.length === 2))
      assert.deepStrictEqual(yield* names, ["1 one", "3 tre"])
      yield* third.signal("SIGTERM")
      yield* third.ended
      assert.deepStrictEqual(
        yield* database.query("SELECT status, first_offset, last_offset FROM fluvio.quarantine ORDER BY id"),
        [
          { status: "discarded", first_offset: "4", last_offset: "25" },
          { status: "discarded", first_offset: "26", last_offset: "28" }
        ]
      )
    })
  )

  it.effect("learns the tables that the transaction describes, and says which change of the schema is not made", () =>
    Effect.gen(function* () {
      const wider = {
        ...pets,
        columns: [...pets.columns, { name: "age", isKey: false, typeId: 23, typeModifier: -1 }]
      }
      const { command, database, run } = yield* make(
        ...transaction(100, events.relation(pets), pet(1, "one")),
        ...transaction(
          200,
          events.relation(wider),
          events.insert(pets.id, [events.int4(2), events.text("too long"), events.int4(9)])
        )
      )
      assert.strictEqual((yield* (yield* run()).ended).code, 4)
      assert.strictEqual((yield* command("skip", "--lsn", "0/C8", ...why)).code, 0)
      const connector = yield* run()
      yield* eventually(Effect.sync(() => connector.err().includes("Its change of the schema is not made")))
      assert.match(connector.err(), /ADD COLUMN.*age/)
      assert.deepStrictEqual(
        yield* database.query("SELECT jsonb_array_length(relation->'columns') AS columns FROM fluvio.relation"),
        [{ columns: "3" }]
      )
    })
  )

  it.effect("is taken back before it is done, and told to a connector that tries again", () =>
    Effect.gen(function* () {
      const { command, database, json, names, run } = yield* make(
        ...transaction(100, events.relation(pets), pet(1, "one")),
        ...transaction(200, pet(2, "two")),
        ...transaction(300, pet(3, "tre"))
      )
      assert.deepInclude(yield* json("skip", "--lsn", "0/64", ...why), { isAsked: true, firstOffset: 0, lastOffset: 3 })
      assert.deepInclude(yield* json("skip", "--lsn", "0/64", "--cancel", ...why), { wasAsked: true })
      assert.deepInclude(yield* json("skip", "--lsn", "0/64", "--cancel", ...why), { wasAsked: false })
      // Every attempt fails, until it is passed over.
      yield* database.query(`
        CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF NEW.id = 2 THEN RAISE lock_not_available; END IF;
          RETURN NEW;
        END $$;
        CREATE TRIGGER busy BEFORE INSERT ON pets FOR EACH ROW EXECUTE FUNCTION busy();
        ALTER TABLE pets ENABLE ALWAYS TRIGGER busy`)
      const connector = yield* run()
      yield* eventually(Effect.sync(() => connector.err().includes("trying again")))
      assert.strictEqual((yield* command("skip", "--lsn", "0/C8", ...why)).code, 0)
      yield* eventually(Effect.map(names, (found) => found.includes("3 tre")))
      assert.deepStrictEqual(yield* names, ["1 one", "3 tre"])
      assert.deepStrictEqual(yield* database.query("SELECT action FROM fluvio.action ORDER BY id"), [
        { action: "skip" },
        { action: "skip --cancel" },
        { action: "skip" }
      ])
    })
  )
})
