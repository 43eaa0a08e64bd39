/**
 * Faults that no patience heals: the connector stops, says at which offset and what resolves it, and has applied nothing
 * wrongly; after the operator has done what it says, it goes on.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { mkdtemp, open, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Broker from "../../layers/embedded/Broker.ts"
import { encodeBatch } from "../../layers/fluvio/RecordBatch.ts"
import { exitCodes } from "../../src/stream/Outcome.ts"
import * as events from "../events.ts"
import { type TestDatabase, TestPostgres } from "../postgres.ts"
import * as ConnectorProcess from "./ConnectorProcess.ts"
import { until } from "./Harness.ts"

const place = { topic: "pets", partition: 0 }
const { id: relId } = events.relationOf()

const day = 86_400_000_000n

/** A transaction of four records, whose LSN and time follow from `id`. */
const transaction = (id: number, { lsn = 1000 + 10 * id, days = id }: { lsn?: number; days?: number } = {}) => {
  const timestamp = 690_000_000_000_000n + BigInt(days) * day
  return [
    events.begin(lsn, { timestamp }),
    events.relation(events.relationOf()),
    events.insert(relId, [events.int4(id), events.text(`pet ${id}`)]),
    events.commit(lsn, { timestamp })
  ].map((message) => ({ value: Buffer.from(events.eventJson(message, lsn)) }))
}

/** The same record, from another place in the source's log. */
const at = ({ value }: { readonly value: Buffer }, walStart: number) => ({
  value: Buffer.from(value.toString().replace(/"wal_start":\d+/, `"wal_start":${walStart}`))
})

const transactions = (from: number, through: number) =>
  Array.from({ length: through - from + 1 }, (_, index) => transaction(from + index)).flat()

interface Scene {
  readonly broker: Broker.BrokerProcess
  readonly database: TestDatabase
  readonly folder: string
  /** Runs the connector until the rows are these, and ends it. */
  applies(ids: ReadonlyArray<number>, settings?: { readonly [name: string]: string }): Effect.Effect<void>
  /** Runs it until it ends by itself, and gives its last message and the remedy below it. */
  stops(settings?: { readonly [name: string]: string }): Effect.Effect<string>
}

const rows = (database: TestDatabase) =>
  Effect.map(database.query("SELECT id FROM public.pets ORDER BY id"), (found) => found.map(({ id }) => Number(id)))

const temporaryFolder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "fluvio-postgres-sink-stops-"))),
  (folder) => Effect.promise(() => rm(folder, { recursive: true }))
)

const scene: Effect.Effect<Scene, unknown, Scope.Scope | TestPostgres> = Effect.gen(function* () {
  const folder = yield* temporaryFolder
  const broker = yield* Broker.spawn({ folder })
  yield* broker.createTopic(place.topic)
  const database = yield* TestPostgres.database
  const connector = (settings: { readonly [name: string]: string }) =>
    ConnectorProcess.make({
      name: "sink",
      url: database.url,
      settings: Effect.succeed({
        FLUVIO_PG_TOPIC: place.topic,
        FLUVIO_PG_CONSUMER_ENDPOINT: broker.endpoint,
        ...settings
      }),
      onLine: () => {}
    })
  return {
    broker,
    database,
    folder,
    applies: Effect.fnUntraced(function* (ids, settings = {}) {
      const process = yield* connector(settings)
      yield* process.start
      yield* until(Effect.map(rows(database), (found) => found.join() === ids.join())).pipe(
        Effect.timeoutOrElse({
          duration: "30 seconds",
          orElse: () => Effect.flatMap(process.log, (log) => Effect.die(new Error(log.join("\n"))))
        })
      )
      assert.strictEqual((yield* process.stop())?.code, 0)
    }, Effect.scoped),
    stops: Effect.fnUntraced(function* (settings = {}) {
      const process = yield* connector(settings)
      yield* process.start
      const { code, message } = yield* process.nextEnd
      yield* process.stop("SIGKILL")
      assert.strictEqual(code, exitCodes.stopped)
      return message ?? ""
    }, Effect.scoped)
  }
})

layer(TestPostgres.layer(), { excludeTestServices: true })("The connector stops", (it) => {
  it.effect("when retention has removed what it needs, and goes on where the operator says", () =>
    Effect.gen(function* () {
      const { applies, broker, database, stops } = yield* scene
      yield* broker.append(place, transactions(1, 2))
      yield* applies([1, 2])
      yield* broker.append(place, transactions(3, 5))
      yield* broker.trim(place, 12)
      assert.include(yield* stops(), "offset 8 is needed, the first available is 12")
      assert.deepStrictEqual(yield* rows(database), [1, 2])
      // Copied from the source, up to the transaction that ends at offset 11.
      yield* database.query("INSERT INTO pets VALUES (3, 'pet 3')")
      yield* database.query("UPDATE fluvio.offset SET current_offset = 11, checksum = NULL")
      yield* applies([1, 2, 3, 4, 5])
    })
  )

  it.effect("when the topic was created again, shorter or longer than its position", () =>
    Effect.gen(function* () {
      const { applies, broker, database, stops } = yield* scene
      yield* broker.append(place, transactions(1, 3))
      yield* applies([1, 2, 3])
      yield* broker.deleteTopic(place.topic)
      yield* broker.createTopic(place.topic)
      yield* broker.append(place, transactions(7, 8))
      assert.include(yield* stops(), "of pets-0 lies beyond its end 8")
      yield* broker.append(place, transactions(9, 10))
      assert.include(yield* stops(), "the record at offset 11 of pets-0 is not the one that was applied there")
      assert.deepStrictEqual(yield* rows(database), [1, 2, 3])
      // The operator wants the new topic in an empty target.
      yield* database.query("TRUNCATE pets; DELETE FROM fluvio.offset")
      yield* applies([7, 8, 9, 10])
    })
  )

  it.effect("when the source was rewound, and goes on with the epoch that the operator accepts", () =>
    Effect.gen(function* () {
      const { applies, broker, database, stops } = yield* scene
      yield* broker.append(place, transactions(1, 3))
      yield* applies([1, 2, 3])
      yield* broker.append(place, [...transaction(4, { lsn: 500 }), ...transaction(5, { lsn: 510 })])
      assert.include(yield* stops(), "the source was rewound")
      assert.deepStrictEqual(yield* rows(database), [1, 2, 3])
      yield* applies([1, 2, 3, 4, 5], { FLUVIO_PG_ACCEPT_EPOCH: "12" })
      // The setting may stay: it is about that place only.
      yield* broker.append(place, transaction(6, { lsn: 520 }))
      yield* applies([1, 2, 3, 4, 5, 6], { FLUVIO_PG_ACCEPT_EPOCH: "12" })
    })
  )

  // Rows that are alike are never compared: in a table without a key these would simply be there twice.
  it.effect("when a producer has appended a part of a transaction twice", () =>
    Effect.gen(function* () {
      const { applies, broker, database, stops } = yield* scene
      yield* database.query("CREATE TABLE pets (id int4, name text)")
      yield* broker.append(place, transactions(1, 2))
      const [begin, relation, insert, commit] = transaction(3)
      const [, , next] = transaction(4)
      const batch = [at(insert!, 5000), at(next!, 5010)]
      yield* broker.append(place, [begin!, relation!, ...batch, ...batch, commit!])
      assert.include(yield* stops(), "a producer has appended it twice")
      assert.deepStrictEqual(yield* rows(database), [1, 2])
      // Copied from the source, with the transaction that ends at offset 14.
      yield* database.query("INSERT INTO pets VALUES (3, 'pet 3'), (4, 'pet 4')")
      yield* database.query("UPDATE fluvio.offset SET current_offset = 14, checksum = NULL")
      yield* broker.append(place, transaction(5))
      yield* applies([1, 2, 3, 4, 5])
    })
  )

  it.effect("in front of a batch that is damaged in the log, until the replica is repaired", () =>
    Effect.gen(function* () {
      const { applies, broker, database, folder, stops } = yield* scene
      const crcPosition = 17
      const before = encodeBatch(transactions(1, 2), { codec: "none", timestamp: 0 })
      const damaged = encodeBatch(transactions(3, 4), { codec: "none", timestamp: 0 })
      const crc = damaged.readUInt32BE(crcPosition)
      damaged.writeUInt32BE(~crc >>> 0, crcPosition)
      yield* broker.appendBatch(place, before)
      yield* broker.appendBatch(place, damaged)
      assert.include(yield* stops(), "the batch at offset 8 of pets-0 is corrupt")
      assert.deepStrictEqual(yield* rows(database), [1, 2])
      yield* broker.kill
      yield* Effect.promise(async () => {
        const log = await open(join(folder, place.topic, "0.log"), "r+")
        const repaired = Buffer.alloc(4)
        repaired.writeUInt32BE(crc)
        await log.write(repaired, 0, 4, before.length + crcPosition)
        await log.close()
      })
      yield* broker.start
      yield* applies([1, 2, 3, 4])
    })
  )
})
