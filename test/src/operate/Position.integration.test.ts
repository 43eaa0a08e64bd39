import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { crc32c } from "@node-rs/crc32"
import * as events from "../../events.ts"
import * as Operator from "../../operator.ts"
import { eventually } from "../../pipeline.ts"
import { TestPostgres } from "../../postgres.ts"

/** Without a key, so that a row that is applied twice is there twice. */
const pets = events.relationOf({
  replicaIdentity: "Nothing",
  columns: events.relationOf().columns.map((column) => ({ ...column, isKey: false }))
})
const time = 690_913_417_000_000n
/** Transaction 100 describes the table; the others take three records each, and commit a second after each other. */
const transaction = (lsn: number, ...ids: ReadonlyArray<number>) => {
  const timestamp = time + BigInt(lsn / 100 - 1) * 1_000_000n
  return [
    events.begin(lsn, { timestamp }),
    ...(lsn === 100 ? [events.relation(pets)] : []),
    ...ids.map((id) => events.insert(pets.id, [events.int4(id), events.text(`n${id}`)])),
    events.commit(lsn, { timestamp })
  ]
}

/** A topic of transactions, of which those up to `applied` (an offset) are applied; no connector runs. */
const make = Effect.fnUntraced(function* (applied: number, messages: ReadonlyArray<events.MessageFixture>) {
  const operator = yield* Operator.make()
  const { append, database, run } = operator
  yield* database.query("CREATE TABLE pets (id int, name text)")
  const idsOf = Effect.map(database.query("SELECT id FROM pets ORDER BY id::int"), (rows) =>
    rows.map(({ id }) => Number(id))
  )
  const offset = Effect.map(
    database.query("SELECT current_offset FROM fluvio.offset").pipe(Effect.orElseSucceed(() => [])),
    ([row]) => (row === undefined ? undefined : Number(row["current_offset"]))
  )
  /** Starts a connector, and stops it when it has applied everything up to this offset. */
  const applyThrough = Effect.fnUntraced(function* (last: number) {
    const connector = yield* run()
    yield* eventually(
      Effect.map(offset, (offset) => {
        if (offset !== last && /\blevel=(Error|Fatal)\b/.test(connector.err())) throw new Error(connector.err())
        return offset === last
      })
    )
    yield* connector.signal("SIGTERM")
    const { code, err } = yield* connector.ended
    assert.strictEqual(code, 0, err)
    return err
  })
  yield* append(messages.slice(0, applied + 1))
  if (applied >= 0) yield* applyThrough(applied)
  yield* append(messages.slice(applied + 1))
  return { ...operator, applyThrough, idsOf, offset }
})

layer(TestPostgres.layer(), { excludeTestServices: true })("position show", (it) => {
  it.effect("tells where it is, what lies ahead, and that the topic proves it", () =>
    Effect.gen(function* () {
      const { command, database, json } = yield* make(3, [...transaction(100, 1), ...transaction(200, 2)])
      assert.deepStrictEqual(yield* json("position", "show"), {
        topic: "pets",
        partition: 0,
        position: {
          offset: 3,
          savedBy: "connector",
          hasChecksum: true,
          commitLsn: "0/64",
          commitTime: "2021-11-22T16:23:37.000000Z",
          latestTime: "2021-11-22T16:23:37.000000Z",
          epoch: 0,
          relations: 1,
          types: 0
        },
        log: { start: 0, end: 7 },
        lagRecords: 3,
        isProved: true,
        finding: "the record at offset 3 is the one that was applied",
        remedy: null
      })
      const { code, err, out } = yield* command("position", "show")
      assert.deepStrictEqual({ code, err }, { code: 0, err: "" })
      assert.match(out, /^position +offset 3, saved by the connector$/m)
      assert.match(out, /^place +proved: /m)

      yield* database.query("UPDATE fluvio.offset SET checksum = checksum + 1")
      const differs = yield* command("position", "show")
      assert.strictEqual(differs.code, 3)
      assert.match(differs.out, /^place +not proved: the record at offset 3 of pets-0 is not the one/m)
      assert.match(differs.err, /re-created or this is another cluster/)
    })
  )

  it.effect("writes nothing where no connector has run", () =>
    Effect.gen(function* () {
      const { command, database } = yield* make(-1, transaction(100, 1))
      const { code, out } = yield* command("position", "show")
      assert.strictEqual(code, 0)
      assert.match(out, /^position +none/m)
      assert.deepStrictEqual(yield* database.query("SELECT FROM pg_namespace WHERE nspname = 'fluvio'"), [])
    })
  )

  it.effect("answers with 3 where the topic does not prove the place, and says what to do", () =>
    Effect.gen(function* () {
      const { broker, command, database, place } = yield* make(3, [...transaction(100, 1), ...transaction(200, 2)])
      const refused = Effect.fnUntraced(function* (finding: RegExp, remedy: RegExp) {
        const { code, err, out } = yield* command("position", "show")
        assert.strictEqual(code, 3)
        assert.match(out, finding)
        assert.match(err, remedy)
        const asJson = yield* command("position", "show", "--json")
        assert.strictEqual(asJson.code, 3)
        assert.isFalse((JSON.parse(asJson.out) as { readonly isProved: boolean }).isProved)
      })
      yield* broker.trim(place, 4)
      yield* refused(/not proved: retention has removed the record at offset 3/, /goes on with a warning/)
      yield* broker.trim(place, 5)
      yield* refused(/offset 4 is needed, the first available is 5/, /copy the tables from the source again/)
      yield* database.query("UPDATE fluvio.offset SET current_offset = 5")
      yield* refused(/saved by hand[^]*not proved: the position was set by hand/, /start the connector/)
      yield* database.query("UPDATE fluvio.offset SET current_offset = 50")
      yield* refused(/offset 51 of pets-0 lies beyond its end 7/, /the topic was re-created/)
    })
  )
})

const why = ["--reason", "test"]
const four = [100, 200, 300, 400].flatMap((lsn) => transaction(lsn, lsn / 100))

/** The commands that a message offers, as they are written there. */
const offered = (err: string) =>
  [...err.matchAll(/`fluvio-postgres-sink ([^`]+)`/g)].map(([, words]) => words!.split(" "))

/** The row, as the connector saves it behind this record. */
const rowAt = (messages: ReadonlyArray<events.MessageFixture>, offset: number, lsn: number | null, epoch = 0) => {
  const commitTime = lsn === null ? null : String(time + BigInt(lsn / 100 - 1) * 1_000_000n)
  return {
    current_offset: String(offset),
    saved_offset: String(offset),
    checksum: String(crc32c(events.eventJson(messages[offset]!))),
    commit_lsn: lsn === null ? null : `0/${lsn.toString(16).toUpperCase()}`,
    commit_time: commitTime,
    latest_time: commitTime,
    epoch: String(epoch)
  }
}
const row = `SELECT current_offset, saved_offset, checksum, commit_lsn, commit_time, latest_time, epoch FROM fluvio.offset`
const actions = "SELECT action, reason, done_by <> '' AS is_signed FROM fluvio.action ORDER BY id"

layer(TestPostgres.layer(), { excludeTestServices: true })("position set", (it) => {
  it.effect("shows what would be skipped, does it when it is told to, and the rest is applied", () =>
    Effect.gen(function* () {
      const { applyThrough, command, database, idsOf, json } = yield* make(3, four)
      const before = yield* database.query(row)
      const set = ["position", "set", "--offset", "10", ...why]
      assert.deepStrictEqual(yield* json(...set), {
        topic: "pets",
        partition: 0,
        isDone: false,
        from: { offset: 4, commitLsn: "0/64", commitTime: "2021-11-22T16:23:37.000000Z" },
        to: { offset: 10, commitLsn: "0/12C", commitTime: "2021-11-22T16:23:39.000000Z" },
        removedRecords: 0,
        skipped: {
          records: 6,
          transactions: 2,
          firstOffset: 4,
          lastOffset: 9,
          firstLsn: "0/C8",
          lastLsn: "0/12C",
          firstTime: "2021-11-22T16:23:38.000000Z",
          lastTime: "2021-11-22T16:23:39.000000Z"
        },
        repeated: null,
        epoch: 0,
        needs: ["--allow-loss"],
        notes: []
      })
      const dry = yield* command(...set)
      assert.deepStrictEqual({ code: dry.code, err: dry.err }, { code: 0, err: "" })
      assert.match(dry.out, /^nothing was changed: add --allow-loss --yes to do it$/m)
      const refused = yield* command(...set, "--yes")
      assert.strictEqual(refused.code, 4)
      assert.match(refused.err, /never applied would be passed over\n {2}add --allow-loss/)
      assert.deepStrictEqual(yield* database.query(row), before)
      assert.deepStrictEqual(yield* database.query(actions), [])

      const done = yield* command(...set, "--yes", "--allow-loss")
      assert.deepStrictEqual({ code: done.code, err: done.err }, { code: 0, err: "" })
      assert.match(done.out, /^done: the connector goes on at offset 10/m)
      assert.deepStrictEqual(yield* database.query(row), [rowAt(four, 9, 300)])
      assert.deepStrictEqual(yield* database.query(actions), [
        { action: "position set", reason: "test", is_signed: "t" }
      ])
      assert.strictEqual((yield* command("position", "show")).code, 0)
      const log = yield* applyThrough(12)
      assert.notMatch(log, /set by hand|learning/)
      assert.deepStrictEqual(yield* idsOf, [1, 4])
    })
  )

  it.effect("goes back, with the tables as they were described there", () =>
    Effect.gen(function* () {
      const wider = {
        ...pets,
        columns: [...pets.columns, { name: "age", isKey: false, typeId: 23, typeModifier: -1 }]
      }
      const messages = [
        ...transaction(100, 1),
        ...transaction(200, 2),
        events.begin(300, { timestamp: time + 2_000_000n }),
        events.relation(wider),
        events.insert(pets.id, [events.int4(3), events.text("n3"), events.int4(9)]),
        events.commit(300, { timestamp: time + 2_000_000n })
      ]
      const { applyThrough, command, database, idsOf } = yield* make(10, messages)
      const set = ["position", "set", "--at-lsn", "0/64", ...why, "--yes"]
      const refused = yield* command(...set)
      assert.strictEqual(refused.code, 4)
      assert.match(refused.err, /would be applied again\n {2}add --allow-repeat/)
      assert.match(refused.out, /^repeated +7 records at offsets 4 to 10, 2 transactions: 0\/C8 of .* to 0\/12C of /m)
      const done = yield* command(...set, "--allow-repeat")
      assert.strictEqual(done.code, 0, done.err)
      assert.deepStrictEqual(yield* database.query(row), [rowAt(messages, 3, 100)])
      assert.deepStrictEqual(
        yield* database.query(
          "SELECT record_offset, jsonb_array_length(relation->'columns') AS columns FROM fluvio.relation"
        ),
        [{ record_offset: "1", columns: "2" }]
      )
      yield* applyThrough(10)
      assert.deepStrictEqual(yield* idsOf, [1, 2, 2, 3, 3])
    })
  )

  it.effect("finds the place by an LSN, a time, or the first transaction that is left", () =>
    Effect.gen(function* () {
      const { applyThrough, broker, command, database, idsOf, json, place, run } = yield* make(3, four)
      const to = (...flags: ReadonlyArray<string>) => json("position", "set", ...flags, ...why)
      assert.deepInclude(yield* to("--at-lsn", "0/FF"), {
        to: { offset: 7, commitLsn: "0/C8", commitTime: "2021-11-22T16:23:38.000000Z" }
      })
      const ahead = yield* command("position", "set", "--at-lsn", "FF/0", ...why)
      assert.match(ahead.out, /^note +the topic ends with transaction 0\/190, before FF\/0/m)
      const atTime = yield* command("position", "set", "--at-time", "2021-11-22T17:23:38.5+01:00", ...why)
      assert.match(atTime.out, /^to +offset 7, behind 0\/C8/m)
      yield* broker.trim(place, 8)
      const stopped = yield* (yield* run()).ended
      assert.strictEqual(stopped.code, 4)
      const first = ["position", "set", "--first-whole-transaction", ...why]
      assert.match((yield* command(...first)).out, /^removed +4 records, by retention$/m)
      assert.match((yield* command(...first, "--yes")).err, /add --allow-loss/)
      const done = yield* command(...offered(stopped.err)[0]!)
      assert.strictEqual(done.code, 0, done.err)
      // Behind the rest of a transaction; what was applied last is still known.
      assert.deepStrictEqual(yield* database.query(row), [{ ...rowAt(four, 9, 100), commit_lsn: "0/64" }])
      yield* applyThrough(12)
      assert.deepStrictEqual(yield* idsOf, [1, 4])
    })
  )

  it.effect("goes on without proof where the record before the place is gone", () =>
    Effect.gen(function* () {
      const { applyThrough, broker, command, database, idsOf, place } = yield* make(3, four)
      yield* broker.trim(place, 7)
      const { code, out } = yield* command(
        ..."position set --first-whole-transaction --allow-loss --yes".split(" "),
        ...why
      )
      assert.strictEqual(code, 0)
      assert.match(out, /^note +the record before this place is no longer in the topic/m)
      assert.deepStrictEqual(yield* database.query("SELECT current_offset, checksum, commit_lsn FROM fluvio.offset"), [
        { current_offset: "6", checksum: null, commit_lsn: null }
      ])
      assert.match(yield* applyThrough(12), /set by hand/)
      assert.deepStrictEqual(yield* idsOf, [1, 3, 4])
    })
  )

  it.effect("stands between two transactions, and names the commands for the nearest places", () =>
    Effect.gen(function* () {
      const { applyThrough, command, database, idsOf, run } = yield* make(6, four)
      const inside = yield* command("position", "set", "--offset", "8", "--allow-loss", ...why, "--yes")
      assert.strictEqual(inside.code, 4)
      assert.match(inside.err, /offset 8 of pets-0 lies inside a transaction/)
      const commands = offered(inside.err)
      assert.deepStrictEqual(commands, [
        "position set --offset 7 --reason … --yes".split(" "),
        "position set --offset 10 --allow-loss --reason … --yes".split(" ")
      ])
      const outside = yield* command("position", "set", "--offset", "50", ...why)
      assert.match(outside.err, /offset 50 lies outside of pets-0, which starts at offset 0 and ends at offset 13/)
      assert.match(outside.err, /--offset 13 --allow-loss/)
      const done = yield* command(...commands[1]!)
      assert.strictEqual(done.code, 0, done.err)
      assert.deepStrictEqual(yield* database.query(row), [rowAt(four, 9, 300)])
      yield* applyThrough(12)
      assert.deepStrictEqual(yield* idsOf, [1, 2, 4])

      // Set by a statement, the connector itself finds it there.
      yield* database.query("UPDATE fluvio.offset SET current_offset = 8")
      const stopped = yield* (yield* run()).ended
      assert.strictEqual(stopped.code, 4)
      const back = yield* command(...offered(stopped.err)[0]!)
      assert.strictEqual(back.code, 0, back.err)
      assert.deepStrictEqual(yield* database.query(row), [rowAt(four, 6, 200)])
    })
  )

  it.effect("begins a new epoch, where the source has a new history", () =>
    Effect.gen(function* () {
      const owners = { ...pets, name: "owners" }
      const later = time + 60_000_000n
      const rewound = [
        events.begin(50, { timestamp: later }),
        events.relation(owners),
        events.insert(pets.id, [events.int4(7), events.text("n7")]),
        events.commit(50, { timestamp: later })
      ]
      const messages = [...transaction(100, 1), ...rewound]
      const { applyThrough, command, database, run } = yield* make(3, messages)
      const stopped = yield* (yield* run()).ended
      assert.strictEqual(stopped.code, 4)
      assert.match(stopped.err, /the source was rewound/)
      const done = yield* command(...offered(stopped.err)[0]!)
      assert.strictEqual(done.code, 0, done.err)
      assert.deepStrictEqual(yield* database.query(row), [rowAt(messages, 3, null, 1)])
      assert.deepStrictEqual(yield* database.query("SELECT FROM fluvio.relation"), [])
      yield* applyThrough(7)
      assert.deepStrictEqual(yield* database.query("SELECT id FROM owners"), [{ id: "7" }])
      assert.deepStrictEqual(yield* database.query("SELECT epoch, commit_lsn FROM fluvio.offset"), [
        { epoch: "1", commit_lsn: "0/32" }
      ])
    })
  )

  it.effect("refuses another topic's offsets, unless a new epoch begins", () =>
    Effect.gen(function* () {
      const { append, applyThrough, broker, command, database, idsOf, place } = yield* make(6, four.slice(0, 7))
      yield* broker.deleteTopic(place.topic)
      yield* broker.createTopic(place.topic)
      const again = { ...pets, id: 20_000 }
      const pet = (lsn: number, id: number) => [
        events.begin(lsn),
        events.relation(again),
        events.insert(again.id, [events.int4(id), events.text("n")]),
        events.commit(lsn)
      ]
      const messages = [...pet(10, 11), ...pet(20, 12), ...pet(30, 13)]
      yield* append(messages)
      const set = [..."position set --offset 4".split(" "), ...why, "--yes"]
      const refused = yield* command(...set)
      assert.strictEqual(refused.code, 4)
      assert.match(refused.err, /is not the one that was applied there\n.*add `--new-epoch`/)
      const loss = yield* command(...set, "--new-epoch")
      assert.match(loss.err, /--allow-loss/)
      const done = yield* command(...set, "--new-epoch", "--allow-loss")
      assert.strictEqual(done.code, 0, done.err)
      assert.deepStrictEqual(yield* database.query(row), [rowAt(messages, 3, null, 1)])
      yield* applyThrough(11)
      assert.deepStrictEqual(yield* idsOf, [1, 2, 12, 13])
    })
  )

  it.effect("is refused while a connector applies the topic, and when somebody else has moved it meanwhile", () =>
    Effect.gen(function* () {
      const { command, database, offset, run } = yield* make(3, four)
      const connector = yield* run()
      yield* eventually(Effect.map(offset, (offset) => offset === 12))
      const refused = yield* command(..."position set --offset 4 --allow-repeat --yes".split(" "), ...why)
      assert.strictEqual(refused.code, 4)
      assert.match(refused.err, /a connector applies pets-0.*\n {2}stop it/)
      const reset = yield* command(..."position reset --yes".split(" "), ...why)
      assert.strictEqual(reset.code, 4)
      yield* connector.signal("SIGTERM")
      yield* connector.ended
      assert.strictEqual(yield* offset, 12)
      // As by one with `target.lock: none`, between looking and writing.
      yield* database.query(`
        CREATE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF NEW.current_offset = 3 THEN RETURN NULL; END IF;
          RETURN NEW;
        END $$;
        CREATE TRIGGER moved BEFORE UPDATE ON fluvio.offset FOR EACH ROW EXECUTE FUNCTION moved()`)
      const conflict = yield* command(..."position set --offset 4 --allow-repeat --yes".split(" "), ...why)
      assert.strictEqual(conflict.code, 5)
      assert.match(conflict.err, /was changed by another instance/)
      assert.strictEqual(yield* offset, 12)
      assert.deepStrictEqual(yield* database.query(actions), [])
    })
  )

  it.effect("takes exactly one place, and a reason", () =>
    Effect.gen(function* () {
      const { command } = yield* Operator.make()
      const cases: ReadonlyArray<readonly [string, RegExp]> = [
        ["--reason x", /give exactly one of --offset, --at-lsn, --at-time and --first-whole-transaction/],
        ["--offset 4 --at-lsn 0/1 --reason x", /exactly one/],
        ["--offset 4", /--reason/],
        ["--offset -4 --reason x", /from 0 on/],
        ["--at-lsn 4711 --reason x", /expected an LSN such as 16\/B374D848/],
        ["--at-time yesterday --reason x", /with its zone/]
      ]
      for (const [words, message] of cases) {
        const { code, err } = yield* command("position", "set", ...words.split(" "))
        assert.strictEqual(code, 2, words)
        assert.match(err, message)
      }
    })
  )
})

layer(TestPostgres.layer(), { excludeTestServices: true })("position reset", (it) => {
  it.effect("forgets all, and the topic is applied from its start", () =>
    Effect.gen(function* () {
      const { applyThrough, command, database, idsOf, offset } = yield* make(6, four)
      const dry = yield* command("position", "reset", ...why)
      assert.strictEqual(dry.code, 0)
      assert.match(dry.out, /^position +offset 6[^]*nothing was changed: add --yes/)
      assert.strictEqual(yield* offset, 6)
      const done = yield* command("position", "reset", "--yes", ...why)
      assert.strictEqual(done.code, 0, done.err)
      for (const table of ["offset", "relation", "type"]) {
        assert.deepStrictEqual(yield* database.query(`SELECT FROM fluvio.${table}`), [])
      }
      assert.deepStrictEqual(yield* database.query(actions), [
        { action: "position reset", reason: "test", is_signed: "t" }
      ])
      assert.match((yield* command("position", "reset", "--yes", ...why)).out, /there is nothing to forget/)
      yield* applyThrough(12)
      assert.deepStrictEqual(yield* idsOf, [1, 1, 2, 2, 3, 4])
    })
  )

  it.effect("is what setting the position to the first record is", () =>
    Effect.gen(function* () {
      const { applyThrough, command, database, idsOf } = yield* make(6, four)
      const done = yield* command(..."position set --offset 0 --allow-repeat --yes".split(" "), ...why)
      assert.strictEqual(done.code, 0, done.err)
      assert.deepStrictEqual(yield* database.query("SELECT FROM fluvio.offset"), [])
      yield* applyThrough(12)
      assert.deepStrictEqual(yield* idsOf, [1, 1, 2, 2, 3, 4])
    })
  )
})
