import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as events from "../../events.ts"
import * as Operator from "../../operator.ts"
import { eventually } from "../../pipeline.ts"
import { TestPostgres } from "../../postgres.ts"

const pets = events.relationOf()
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
const make = Effect.fnUntraced(function* (
  applied: number,
  messages: ReadonlyArray<events.MessageFixture>,
  table = "CREATE TABLE pets (id int PRIMARY KEY, name text)"
) {
  const operator = yield* Operator.make()
  const { append, database, run } = operator
  yield* database.query(table)
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
      yield* refused(/offset 51 of pets-0 lies beyond its end 7/, /deleted and created again/)
    })
  )
})
