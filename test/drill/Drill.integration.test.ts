/**
 * Each error of docs/errors.md is caused, and resolved by nothing but what is printed. After each the connector goes on,
 * and the target has the right rows.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Redacted, type Scope } from "effect"
import * as Broker from "../../layers/embedded/Broker.ts"
import type { Tag } from "../../src/stream/Outcome.ts"
import * as events from "../events.ts"
import { TestPostgres } from "../postgres.ts"
import { insert, make, pet, pets, type Scene, transaction } from "./Scene.ts"

type Drill = (scene: Scene) => Effect.Effect<void, unknown, Scope.Scope | TestPostgres>

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
  "reading begins inside of a transaction": [
    "BeginMissing",
    Effect.fnUntraced(function* ({ append, database, fails, runPrinted, setPrinted, well }) {
      yield* append(insert(1).slice(1), insert(2))
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
  ]
}

const target = Layer.mergeAll(TestPostgres.layer(), Broker.Broker.layer())

layer(target, { excludeTestServices: true })("a drill", (it) => {
  for (const [name, [tag, drill]] of Object.entries(drills)) {
    it.effect(`${tag}: ${name}`, () => Effect.flatMap(make, drill))
  }
})
