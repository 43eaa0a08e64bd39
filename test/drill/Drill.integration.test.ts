/**
 * Each error of docs/errors.md is caused, and resolved by nothing but what is printed. After each the connector goes on,
 * and the target has the right rows.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Redacted, type Scope } from "effect"
import * as Broker from "../../layers/embedded/Broker.ts"
import { type Tag, tags } from "../../src/stream/Outcome.ts"
import * as events from "../events.ts"
import { eventually } from "../pipeline.ts"
import { connect, type TestDatabase, TestPostgres } from "../postgres.ts"
import { insert, known, make, more, pet, pets, type Scene, transaction } from "./Scene.ts"

type Drill = (scene: Scene) => Effect.Effect<void, unknown, Scope.Scope | TestPostgres>

/** Makes a role that may do no more than log in, and gives its URL. */
const role = Effect.fnUntraced(function* ({ query, url }: TestDatabase, name: string) {
  yield* query(`CREATE ROLE "${name}" LOGIN PASSWORD 'drill'`)
  return Object.assign(new URL(Redacted.value(url)), { username: name, password: "drill" }).href
})

const drills: { readonly [name: string]: readonly [tag: Tag, drill: Drill] } = {
  "retention has removed what was not applied": [
    "RetentionGap",
    Effect.fnUntraced(function* ({ append, broker, database, fails, place, runPrinted, setPrinted, well }) {
      yield* append(insert(1))
      yield* well("1 pet 1")
      yield* append(insert(2), insert(3))
      yield* broker.trim(place, 6)
      const printed = yield* fails("RetentionGap", 4)
      yield* runPrinted(printed)
      // The copy, in which a part of what the topic holds is already.
      yield* database.query("TRUNCATE pets; INSERT INTO pets VALUES (1, 'pet 1'), (2, 'pet 2'), (3, 'pet 3')")
      setPrinted(printed, "existing-row")
      yield* append(insert(4))
      yield* well("1 pet 1", "2 pet 2", "3 pet 3", "4 pet 4")
    })
  ],
  "the endpoint is that of another cluster": [
    "PlaceNotProved",
    Effect.fnUntraced(function* ({ append, broker, fails, place, set, well }) {
      yield* append(insert(1))
      yield* well("1 pet 1")
      const other = yield* Broker.make()
      yield* other.createTopic(place.topic)
      yield* other.append(
        place,
        events.records(0, insert(9)).map(({ value }) => ({ value }))
      )
      set("consumer.endpoint", other.endpoint)
      assert.include(yield* fails("PlaceNotProved", 4), "point the connector at the topic it was reading")
      set("consumer.endpoint", broker.endpoint)
      yield* append(insert(2))
      yield* well("1 pet 1", "2 pet 2")
    })
  ],
  "the topic was created again, and is as long": [
    "PlaceNotProved",
    Effect.fnUntraced(function* ({ append, broker, database, fails, place, runPrinted, setPrinted, well }) {
      yield* append(insert(1))
      yield* well("1 pet 1")
      yield* broker.deleteTopic(place.topic)
      yield* broker.createTopic(place.topic)
      yield* append(insert(2), insert(3))
      const printed = yield* fails("PlaceNotProved", 4)
      yield* runPrinted(printed)
      yield* database.query("TRUNCATE pets; INSERT INTO pets VALUES (1, 'pet 1'), (2, 'pet 2'), (3, 'pet 3')")
      setPrinted(printed, "existing-row")
      yield* append(insert(4))
      yield* well("1 pet 1", "2 pet 2", "3 pet 3", "4 pet 4")
    })
  ],
  "the topic was created again, and is shorter": [
    "OffsetBeyondEnd",
    Effect.fnUntraced(function* ({ append, broker, database, fails, place, runPrinted, setPrinted, well }) {
      yield* append(insert(1), insert(2))
      yield* well("1 pet 1", "2 pet 2")
      yield* broker.deleteTopic(place.topic)
      yield* broker.createTopic(place.topic)
      yield* append(insert(3))
      const printed = yield* fails("OffsetBeyondEnd", 4)
      yield* runPrinted(printed)
      yield* database.query("TRUNCATE pets; INSERT INTO pets VALUES (1, 'pet 1'), (2, 'pet 2'), (3, 'pet 3')")
      setPrinted(printed, "existing-row")
      yield* append(insert(4))
      yield* well("1 pet 1", "2 pet 2", "3 pet 3", "4 pet 4")
    })
  ],
  "the position was set by hand, into a transaction": [
    "PlaceInsideTransaction",
    Effect.fnUntraced(function* ({ append, database, fails, place, runPrinted, well }) {
      yield* append(insert(1))
      yield* well("1 pet 1")
      yield* append(insert(2), insert(3))
      yield* database.query(`UPDATE fluvio.offset SET current_offset = 5 WHERE topic = '${place.topic}'`)
      yield* runPrinted(yield* fails("PlaceInsideTransaction", 4))
      yield* well("1 pet 1", "2 pet 2", "3 pet 3")
    })
  ],
  "the original connector left off inside of a transaction whose beginning is gone": [
    "BeginMissing",
    Effect.fnUntraced(function* ({ append, broker, database, fails, place, runPrinted, setPrinted, well }) {
      yield* append(insert(1), insert(2))
      yield* broker.trim(place, 2)
      yield* database.query(
        "CREATE SCHEMA fluvio; CREATE TABLE fluvio.offset (id int8 PRIMARY KEY, current_offset int8 NOT NULL); INSERT INTO fluvio.offset VALUES (1, 1)"
      )
      const printed = yield* fails("BeginMissing", 4)
      yield* runPrinted(printed)
      yield* database.query("INSERT INTO pets VALUES (1, 'pet 1'), (2, 'pet 2')")
      setPrinted(printed, "existing-row")
      yield* append(insert(3))
      yield* well("1 pet 1", "2 pet 2", "3 pet 3")
    })
  ],
  "the source has failed over": [
    "SourceRewound",
    Effect.fnUntraced(function* ({ append, database, fails, runPrinted, well }) {
      yield* append(insert(1), insert(5))
      yield* well("1 pet 1", "5 pet 5")
      yield* append(insert(3), insert(6))
      const printed = yield* fails("SourceRewound", 4)
      yield* database.query("DELETE FROM pets WHERE id = 5")
      yield* runPrinted(printed)
      yield* well("1 pet 1", "3 pet 3", "6 pet 6")
    })
  ],
  "the source has failed over inside of a transaction": [
    "CommitMissing",
    Effect.fnUntraced(function* ({ append, fails, runPrinted, well }) {
      yield* append(insert(1), insert(2).slice(0, 3), insert(3))
      yield* runPrinted(yield* fails("CommitMissing", 4))
      yield* well("1 pet 1", "3 pet 3")
    })
  ],
  "the target refused the password": [
    "SqlFailure",
    Effect.fnUntraced(function* ({ append, database, fails, set, well }) {
      yield* append(insert(1))
      const url = new URL(Redacted.value(database.url))
      const { href } = url
      url.password = "wrong"
      set("url", url.href)
      assert.include(yield* fails("SqlFailure", 2), "check user, password and database of the target's URL")
      set("url", href)
      yield* well("1 pet 1")
    })
  ],
  "the topic is not there": [
    "TopicNotFound",
    Effect.fnUntraced(function* ({ append, broker, fails, place, well }) {
      yield* broker.deleteTopic(place.topic)
      const [, topic] = (yield* fails("TopicNotFound", 2)).match(/`fluvio topic create (\S+)`/)!
      yield* broker.createTopic(topic!)
      yield* append(insert(1))
      yield* well("1 pet 1")
    })
  ],
  "a row of an update is missing, and is put in": [
    "RowConflict",
    Effect.fnUntraced(function* ({ append, database, fails, set, well }) {
      set("missing-row", "halt")
      yield* append(transaction(1001, events.update(pets.id, pet(1, "renamed"))), insert(2))
      assert.include(yield* fails("RowConflict", 4), "repair the row in the target")
      yield* database.query("INSERT INTO pets VALUES (1, 'first')")
      yield* well("1 renamed", "2 pet 2")
    })
  ],
  "a row of an update is missing, and nobody needs it": [
    "RowConflict",
    Effect.fnUntraced(function* ({ append, fails, set, setPrinted, well }) {
      set("missing-row", "halt")
      yield* append(transaction(1001, events.update(pets.id, pet(1, "renamed"))), insert(2))
      setPrinted(yield* fails("RowConflict", 4), "missing-row")
      yield* well("2 pet 2")
    })
  ],
  "a row is there already": [
    "ApplyFailed",
    Effect.fnUntraced(function* ({ append, database, fails, setPrinted, well }) {
      yield* database.query("INSERT INTO pets VALUES (1, 'pet 1')")
      yield* append(insert(1), insert(2))
      setPrinted(yield* fails("ApplyFailed", 4), "existing-row")
      yield* well("1 pet 1", "2 pet 2")
    })
  ],
  "a constraint of the target refuses a row, which is replayed when that is dropped": [
    "ApplyFailed",
    Effect.fnUntraced(function* ({ append, database, fails, setPrinted, type, well }) {
      yield* database.query("ALTER TABLE pets ADD CONSTRAINT no_one CHECK (id <> 1)")
      yield* append(insert(3))
      yield* well("3 pet 3")
      yield* append(more(4))
      yield* append(
        known(1007, events.insert(pets.id, pet(1, "pet 1"))),
        known(1008, events.insert(pets.id, pet(2, "pet 2")))
      )
      setPrinted(yield* fails("ApplyFailed", 4), "on-error.constraint")
      yield* well("2 pet 2", "3 pet 3", "4 pet 4")
      yield* database.query("ALTER TABLE pets DROP CONSTRAINT no_one")
      const id = (yield* type("quarantine", "list")).out.match(/^(\d+) /m)![1]!
      assert.strictEqual((yield* type("quarantine", "replay", id)).code, 0)
      yield* well("1 pet 1", "2 pet 2", "3 pet 3", "4 pet 4")
    })
  ],
  "a value does not fit its column, which is corrected": [
    "ApplyFailed",
    Effect.fnUntraced(function* ({ append, database, fails, well }) {
      yield* database.query("ALTER TABLE pets ALTER name TYPE varchar(3)")
      yield* append(insert(1))
      assert.include(yield* fails("ApplyFailed", 4), "correct the column's type in the target")
      yield* database.query("ALTER TABLE pets ALTER name TYPE text")
      yield* well("1 pet 1")
    })
  ],
  "too much is set aside in a row": [
    "QuarantineLimit",
    Effect.fnUntraced(function* ({ append, database, fails, runPrinted, set, type, well }) {
      set("on-error.constraint", "quarantine")
      set("quarantine-limit", "2")
      yield* database.query("ALTER TABLE pets ADD CONSTRAINT few CHECK (id > 3)")
      yield* append(insert(1), insert(2), insert(3), insert(4))
      const printed = yield* fails("QuarantineLimit", 4)
      const ids = [...(yield* runPrinted(printed)).out.matchAll(/^(\d+) /gm)].map(([, id]) => id!)
      assert.lengthOf(ids, 2)
      assert.include(printed, "`quarantine replay`")
      assert.include(printed, "`quarantine discard`")
      assert.strictEqual((yield* type("quarantine", "discard", ids[0]!, "--reason", "test data")).code, 0)
      yield* database.query("ALTER TABLE pets DROP CONSTRAINT few")
      assert.strictEqual((yield* type("quarantine", "replay", ids[1]!)).code, 0)
      yield* well("2 pet 2", "3 pet 3", "4 pet 4")
    })
  ],
  "somebody else has written to the topic": [
    "EventDecodeError",
    Effect.fnUntraced(function* ({ append, broker, fails, place, setPrinted, well }) {
      yield* append(insert(1))
      yield* broker.append(place, [{ value: new TextEncoder().encode("hello") }])
      yield* append(insert(2), insert(3))
      setPrinted(yield* fails("EventDecodeError", 4), "on-error.decode")
      yield* well("1 pet 1", "2 pet 2", "3 pet 3")
    })
  ],
  "nothing has described the table": [
    "UnknownRelation",
    Effect.fnUntraced(function* ({ append, fails, setPrinted, well }) {
      yield* append(
        [events.begin(1001), events.insert(pets.id, pet(1, "pet 1")), events.commit(1001)],
        insert(2),
        insert(3)
      )
      setPrinted(yield* fails("UnknownRelation", 4), "on-error.decode")
      yield* well("2 pet 2", "3 pet 3")
    })
  ],
  "a row has more values than its table has columns": [
    "WrongArity",
    Effect.fnUntraced(function* ({ append, database, fails, setPrinted, start, type, well }) {
      yield* append(insert(1), known(1002, events.insert(pets.id, [...pet(2, "pet 2"), events.text("more")])), more(3))
      setPrinted(yield* fails("WrongArity", 4), "on-error.decode")
      // Whatever is of the same table follows it, as nobody knows which row it was.
      const running = yield* start("run")
      yield* eventually(Effect.map(database.query("SELECT FROM fluvio.quarantine"), (held) => held.length === 2))
      yield* running.stop
      const ids = [...(yield* type("quarantine", "list")).out.matchAll(/^(\d+) /gm)].map(([, id]) => id!)
      assert.strictEqual((yield* type("quarantine", "discard", ids[0]!, "--reason", "torn")).code, 0)
      assert.strictEqual((yield* type("quarantine", "replay", ids[1]!)).code, 0)
      yield* well("1 pet 1", "3 pet 3")
    })
  ],
  "the source's JSON has lost a float": [
    "FloatNull",
    Effect.fnUntraced(function* ({ append, database, fails, set, well }) {
      yield* database.query("ALTER TABLE pets ADD weight float8")
      const weighed = events.relationOf({
        columns: [...pets.columns, { name: "weight", isKey: false, typeId: 701, typeModifier: -1 }]
      })
      yield* append(
        transaction(
          1001,
          events.relation(weighed),
          events.insert(pets.id, [...pet(1, "pet 1"), { json: '{"Float8":null}', cell: null }])
        )
      )
      const [, value] = (yield* fails("FloatNull", 4)).match(/set `float-null` to `(\w+)`/)!
      set("float-null", value)
      yield* well("1 pet 1 NaN")
    })
  ],
  ...Object.fromEntries(
    (
      [
        ["CommitWithoutBegin", [...insert(1), ...insert(2).slice(3)]],
        ["OutsideTransaction", [...insert(1), ...insert(2).slice(1, 3)]],
        ["CommitMismatch", [...insert(1), ...insert(2).slice(0, 3), events.commit(1009)]]
      ] as const
    ).map(([tag, log]): [string, readonly [Tag, Drill]] => [
      `the tables are copied again (${tag})`,
      [
        tag,
        Effect.fnUntraced(function* ({ append, database, fails, runPrinted, setPrinted, well }) {
          yield* append(log, insert(3), insert(4))
          const printed = yield* fails(tag, 4)
          // The copy began when the source was at the third one, and saw the fourth.
          yield* database.query(
            "TRUNCATE pets; INSERT INTO pets VALUES (1, 'pet 1'), (2, 'pet 2'), (3, 'pet 3'), (4, 'pet 4')"
          )
          yield* runPrinted(printed, { having: "--at-lsn", fill: { "X/Y": "0/3EB" } })
          setPrinted(printed, "existing-row")
          yield* append(insert(5))
          yield* well("1 pet 1", "2 pet 2", "3 pet 3", "4 pet 4", "5 pet 5")
        })
      ]
    ])
  ),
  "the target lacks a column, which is added by the connector": [
    "SchemaRefused",
    Effect.fnUntraced(function* ({ append, database, fails, set, setPrinted, well }) {
      set("schema-changes", "validate")
      yield* database.query("ALTER TABLE pets DROP name")
      yield* append(insert(1))
      setPrinted(yield* fails("SchemaRefused", 4), "schema-changes")
      yield* well("1 pet 1")
    })
  ],
  "the target lacks a column, which is added by hand": [
    "SchemaRefused",
    Effect.fnUntraced(function* ({ append, fails, database, queryPrinted, set, well }) {
      set("schema-changes", "validate")
      yield* database.query("ALTER TABLE pets DROP name")
      yield* append(insert(1))
      yield* queryPrinted(yield* fails("SchemaRefused", 4), /run in the target: (.*?;)/)
      yield* well("1 pet 1")
    })
  ],
  "the target demands a value for a column that the source does not have": [
    "SchemaRefused",
    Effect.fnUntraced(function* ({ append, database, fails, queryPrinted, well }) {
      yield* database.query("ALTER TABLE pets ADD chip int NOT NULL")
      yield* append(insert(1))
      yield* queryPrinted(yield* fails("SchemaRefused", 4), /\(1\) if its values are still of use here: (.*?;) OR/)
      yield* well("1 pet 1 ")
    })
  ],
  ...Object.fromEntries(
    (
      [
        ["renamed", /\(1\) if [^:]*: (.*?;) OR \(2\)/, "1 pet 1", "2 pet 2"],
        ["dropped, and another added", /\(2\) if [^:]*: (.*?;) (?:OR|—)/, "1 ", "2 pet 2"]
      ] as const
    ).map(([what, pattern, ...rows]): [string, readonly [Tag, Drill]] => [
      `a column was ${what}`,
      [
        "SchemaRefused",
        Effect.fnUntraced(function* ({ append, fails, queryPrinted, set, well }) {
          set("schema-changes", "full")
          yield* append(insert(1))
          yield* well("1 pet 1")
          const after = events.relationOf({ columns: [pets.columns[0]!, { ...pets.columns[1]!, name: "title" }] })
          yield* append(transaction(1002, events.relation(after), events.insert(pets.id, pet(2, "pet 2"))))
          yield* queryPrinted(yield* fails("SchemaRefused", 4), pattern)
          yield* well(...rows)
        })
      ]
    ])
  ),
  "a table was dropped in the target": [
    "TableMissing",
    Effect.fnUntraced(function* ({ append, database, fails, well }) {
      yield* append(insert(1))
      yield* well("1 pet 1")
      yield* database.query("DROP TABLE pets")
      yield* append(more(2))
      assert.include(yield* fails("TableMissing", 4), "create the table in the target with the rows")
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text); INSERT INTO pets VALUES (1, 'pet 1')")
      yield* well("1 pet 1", "2 pet 2")
    })
  ],
  "the target never had a table, which is made": [
    "SchemaRefused",
    Effect.fnUntraced(function* ({ append, database, fails, queryPrinted, set, well }) {
      set("schema-changes", "validate")
      yield* database.query("DROP TABLE pets")
      yield* append(insert(1))
      yield* queryPrinted(yield* fails("SchemaRefused", 4), /run in the target: (.*?;) —/)
      yield* well("1 pet 1")
    })
  ],
  "the target has a view by the name of a table": [
    "NotATable",
    Effect.fnUntraced(function* ({ append, database, fails, well }) {
      yield* database.query("ALTER TABLE pets RENAME TO animals; CREATE VIEW pets AS SELECT * FROM animals")
      yield* append(insert(1))
      assert.include(yield* fails("NotATable", 4), "make it a table")
      yield* database.query("DROP VIEW pets; ALTER TABLE animals RENAME TO pets")
      yield* well("1 pet 1")
    })
  ],
  "inserts look for their rows, and no index finds them": [
    "ArbiterMissing",
    Effect.fnUntraced(function* ({ append, database, fails, queryPrinted, set, well }) {
      set("existing-row", "update")
      set("schema-changes", "none")
      yield* database.query("ALTER TABLE pets DROP CONSTRAINT pets_pkey")
      yield* append(insert(1))
      yield* queryPrinted(yield* fails("ArbiterMissing", 4), /in the target run (.*?;)/)
      yield* well("1 pet 1")
    })
  ],
  "the database is not there": [
    "SqlFailure",
    Effect.fnUntraced(function* ({ append, database, fails, set, start }) {
      yield* append(insert(1))
      const url = new URL(Redacted.value(database.url))
      const absent = `${database.name}_absent`
      set("url", Object.assign(new URL(url.href), { pathname: absent }).href)
      assert.include(yield* fails("SqlFailure", 2), "create the target's database")
      yield* database.query(`CREATE DATABASE ${absent} TEMPLATE template0`)
      const made = yield* connect(absent, Redacted.make(Object.assign(new URL(url.href), { pathname: absent }).href))
      const running = yield* start("run")
      yield* eventually(
        made.query("SELECT FROM pets").pipe(
          Effect.map((rows) => rows.length === 1),
          Effect.orElseSucceed(() => false)
        )
      )
      assert.strictEqual((yield* running.stop).code, 0)
    })
  ],
  "the role may do nothing": [
    "OffsetStoreError",
    Effect.fnUntraced(function* ({ append, database, fails, place, runPrinted, set, well }) {
      set("schema-changes", "validate")
      set("url", yield* role(database, place.topic))
      yield* append(insert(1))
      yield* database.query((yield* runPrinted(yield* fails("OffsetStoreError", 4))).out)
      yield* well("1 pet 1")
    })
  ],
  "the role may not write to a table": [
    "ApplyFailed",
    Effect.fnUntraced(function* ({ append, database, fails, place, runPrinted, set, type, well }) {
      set("schema-changes", "validate")
      yield* append(insert(1))
      set("url", yield* role(database, place.topic))
      yield* database.query((yield* type("check", "--grants")).out)
      yield* database.query(`REVOKE INSERT ON pets FROM "${place.topic}"`)
      yield* database.query((yield* runPrinted(yield* fails("ApplyFailed", 4))).out)
      yield* well("1 pet 1")
    })
  ],
  "row security would hide rows": [
    "RowSecurityActive",
    Effect.fnUntraced(function* ({ append, database, fails, place, queryPrinted, set, type, well }) {
      set("schema-changes", "validate")
      yield* append(insert(1))
      yield* database.query("ALTER TABLE pets ENABLE ROW LEVEL SECURITY")
      set("url", yield* role(database, place.topic))
      yield* database.query((yield* type("check", "--grants")).out.replace(/^.*BYPASSRLS.*$/m, ""))
      yield* queryPrinted(yield* fails("RowSecurityActive", 4), /(ALTER ROLE .*? BYPASSRLS)/, `"${place.topic}"`)
      yield* well("1 pet 1")
    })
  ],
  "the role may have no more connections": [
    "SqlFailure",
    Effect.fnUntraced(function* ({ append, database, fails, place, set, type, well }) {
      set("schema-changes", "validate")
      yield* append(insert(1))
      set("url", yield* role(database, place.topic))
      yield* database.query((yield* type("check", "--grants")).out)
      yield* database.query(`ALTER ROLE "${place.topic}" CONNECTION LIMIT 0`)
      assert.include(yield* fails("SqlFailure", 5), "the role's connection limit")
      yield* database.query(`ALTER ROLE "${place.topic}" CONNECTION LIMIT -1`)
      yield* well("1 pet 1")
    })
  ],
  "a setting is unknown": [
    "ConnectorConfigError",
    Effect.fnUntraced(function* ({ append, fails, set, well }) {
      yield* append(insert(1))
      set("topc", "orders")
      const [, right] = (yield* fails("ConnectorConfigError", 2)).match(/rename the variable|write (\S+),/)!
      assert.strictEqual(right, "FLUVIO_PG_TOPIC")
      set("topc", undefined)
      yield* well("1 pet 1")
    })
  ],
  "nothing listens at the endpoint": [
    "FluvioUnreachable",
    Effect.fnUntraced(function* ({ append, broker, fails, set, well }) {
      yield* append(insert(1))
      set("consumer.endpoint", "127.0.0.1:1")
      assert.include(yield* fails("FluvioUnreachable", 5), "`consumer.endpoint`")
      set("consumer.endpoint", broker.endpoint)
      yield* well("1 pet 1")
    })
  ],
  "an update does not say which row it means": [
    "IdentityMissing",
    Effect.fnUntraced(function* ({ append, database, fails, runPrinted, well }) {
      const nothing = events.relationOf({
        replicaIdentity: "Nothing",
        columns: pets.columns.map((column) => ({ ...column, isKey: false }))
      })
      yield* database.query("ALTER TABLE pets DROP CONSTRAINT pets_pkey; INSERT INTO pets VALUES (1, 'first')")
      yield* append(
        transaction(1001, events.relation(nothing), events.update(pets.id, pet(1, "pet 1"))),
        known(1002, events.insert(pets.id, pet(2, "pet 2")))
      )
      yield* runPrinted(yield* fails("IdentityMissing", 4))
      yield* database.query("UPDATE pets SET name = 'pet 1' WHERE id = 1")
      yield* well("1 pet 1", "2 pet 2")
    })
  ],
  "a producer has appended a part of a transaction twice": [
    "RecordsRepeated",
    Effect.fnUntraced(function* ({ append, broker, database, fails, place, runPrinted, setPrinted, well }) {
      const [begin, relation, row, commit] = insert(1) as [
        events.MessageFixture,
        events.MessageFixture,
        events.MessageFixture,
        events.MessageFixture
      ]
      yield* broker.append(
        place,
        (
          [
            [begin, 900],
            [relation, 0],
            [row, 950],
            [row, 960],
            [row, 950],
            [commit, 1001]
          ] as const
        ).map(([message, lsn]) => ({ value: new TextEncoder().encode(events.eventJson(message, lsn)) }))
      )
      yield* append(insert(3), insert(4))
      const printed = yield* fails("RecordsRepeated", 4)
      yield* database.query("TRUNCATE pets; INSERT INTO pets VALUES (1, 'pet 1'), (3, 'pet 3'), (4, 'pet 4')")
      yield* runPrinted(printed, { having: "--at-lsn", fill: { "X/Y": "0/3EB" } })
      setPrinted(printed, "existing-row")
      yield* append(insert(5))
      yield* well("1 pet 1", "3 pet 3", "4 pet 4", "5 pet 5")
    })
  ],
  "one wants what is not in quarantine": [
    "NotHeld",
    Effect.fnUntraced(function* ({ append, fails, runPrinted, well }) {
      yield* append(insert(1))
      yield* well("1 pet 1")
      yield* runPrinted(yield* fails("NotHeld", 2, "quarantine", "discard", "7", "--reason", "test"))
    })
  ],
  "one replays what follows something else": [
    "ReplayRefused",
    Effect.fnUntraced(function* ({ append, database, fails, runPrinted, set, type, well }) {
      set("on-error.constraint", "quarantine")
      yield* database.query("ALTER TABLE pets ADD CONSTRAINT no_one CHECK (id <> 1)")
      yield* append(insert(3))
      yield* well("3 pet 3")
      yield* append(more(4))
      yield* append(
        known(1005, events.insert(pets.id, pet(1, "pet 1"))),
        known(1006, events.update(pets.id, pet(1, "renamed"))),
        known(1007, events.insert(pets.id, pet(2, "pet 2")))
      )
      yield* well("2 pet 2", "3 pet 3", "4 pet 4")
      yield* database.query("ALTER TABLE pets DROP CONSTRAINT no_one")
      const ids = [...(yield* type("quarantine", "list")).out.matchAll(/^(\d+) /gm)].map(([, id]) => id!)
      assert.lengthOf(ids, 2)
      yield* runPrinted(yield* fails("ReplayRefused", 4, "quarantine", "replay", ids[1]!))
      yield* well("1 renamed", "2 pet 2", "3 pet 3", "4 pet 4")
    })
  ],
  "one passes over what is not in the topic": [
    "SkipRefused",
    Effect.fnUntraced(function* ({ append, database, fails, type, well }) {
      yield* database.query("ALTER TABLE pets ADD CONSTRAINT no_one CHECK (id <> 1)")
      yield* append(insert(2))
      yield* well("2 pet 2")
      yield* append(known(1005, events.insert(pets.id, pet(1, "pet 1"))), more(6))
      assert.include(
        yield* fails("SkipRefused", 4, "skip", "--lsn", "0/3F5", "--reason", "test"),
        "take the LSN from the connector's error"
      )
      const [, lsn] = (yield* fails("ApplyFailed", 4)).match(/transaction (\S+):/)!
      assert.strictEqual((yield* type("skip", "--lsn", lsn!, "--reason", "test")).code, 0)
      yield* well("2 pet 2", "6 pet 6")
    })
  ],
  "one sets the position into a transaction": [
    "PositionRefused",
    Effect.fnUntraced(function* ({ append, fails, runPrinted, well }) {
      yield* append(insert(1), insert(2))
      yield* well("1 pet 1", "2 pet 2")
      yield* append(insert(3))
      const printed = yield* fails(
        "PositionRefused",
        4,
        ..."position set --offset 10 --allow-loss --reason test --yes".split(" ")
      )
      yield* runPrinted(printed, { having: "--allow-loss" })
      yield* append(insert(4))
      yield* well("1 pet 1", "2 pet 2", "4 pet 4")
    })
  ],
  "one asks whether the position is proved, and it is not": [
    "NotReady",
    Effect.fnUntraced(function* ({ append, broker, fails, place, set, well }) {
      yield* append(insert(1))
      yield* well("1 pet 1")
      const other = yield* Broker.make()
      yield* other.createTopic(place.topic)
      yield* other.append(
        place,
        events.records(0, insert(9)).map(({ value }) => ({ value }))
      )
      set("consumer.endpoint", other.endpoint)
      assert.include(yield* fails("NotReady", 3, "position", "show"), "point the connector at the topic it was reading")
      set("consumer.endpoint", broker.endpoint)
      yield* append(insert(2))
      yield* well("1 pet 1", "2 pet 2")
    })
  ],
  "no one leads the partition": [
    "LeaderMoved",
    Effect.fnUntraced(function* ({ append, broker, fails, place, well }) {
      yield* append(insert(1))
      yield* broker.moveLeader(place, -1)
      assert.include(yield* fails("LeaderMoved", 5), "check with `fluvio cluster spu list`")
      yield* broker.moveLeader(place, 5001)
      yield* well("1 pet 1")
    })
  ]
}

/** What cannot be caused here, or would not show anything that another one does not. */
const elsewhere: { readonly [tag in Tag]?: string } = {
  OffsetEvicted: "retention has to strike between two answers of the cluster; the next start is a RetentionGap",
  OffsetGap: "the log has to be damaged, and its replica repaired",
  CorruptBatch: "the log has to be damaged, and its replica repaired",
  BatchTooLarge: "it takes a batch of more than the least memory that the connector may be given",
  FluvioSilent: "it passes by itself",
  FluvioProtocolError: "something else than a cluster has to listen at the endpoint",
  FluvioTlsError: "the development broker has no TLS",
  FluvioProfileError: "it takes another home directory than that of whoever runs the tests",
  DriverLimit: "the development broker has no TLS",
  RestMissing: "it passes by itself, after a minute",
  PositionConflict: "it passes by itself",
  LockLost: "it passes by itself",
  RowsUnfilled: "its remedy takes the source's default; test/native/SchemaKeys has its statements",
  IdentityFixed: "its remedy is one statement; test/native/Constraints has the case",
  SessionsPooled: "it takes a pooler; the torture tests have one",
  InTransactionFailed: "it is of a program that embeds the connector and does work of its own in its transactions",
  TooFewConnections: "the command line has a pool of its own",
  QuarantineResolved: "it passes by itself",
  SkipCancelled: "it passes by itself",
  PackageMissing: "it takes an installation without the optional packages",
  CodecMissing: "it takes an installation without the optional packages",
  BrokerError: "of the parts for development",
  DatabaseError: "of the parts for development",
  DatabasesDiffer: "of the parts for development",
  InboundError: "of the parts for development",
  PostgresServerError: "of the parts for development",
  SinkEnded: "of the parts for development",
  WaitedTooLong: "of the parts for development"
}

const target = Layer.mergeAll(TestPostgres.layer(), Broker.Broker.layer())

layer(target, { excludeTestServices: true })("a drill", (it) => {
  for (const [name, [tag, drill]] of Object.entries(drills)) {
    it.effect(`${tag}: ${name}`, () => Effect.flatMap(make, drill))
  }

  it("has every error, or says why not", () => {
    const drilled = new Set(Object.values(drills).map(([tag]) => tag))
    assert.sameMembers([...drilled, ...Object.keys(elsewhere)], [...tags])
  })
})
