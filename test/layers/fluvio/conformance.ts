/**
 * What every implementation of `FluvioConsumer` must do, on the development broker.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, type Duration, Effect, Fiber, Schedule, Stream } from "effect"
import * as Broker from "../../../layers/embedded/Broker.ts"
import type { Codec, NewRecord } from "../../../layers/fluvio/RecordBatch.ts"
import {
  type FluvioConsumer,
  type FluvioError,
  type FluvioRecord,
  FluvioSilent,
  Offset,
  OffsetBeyondEnd,
  OffsetEvicted,
  type Records,
  TopicNotFound
} from "../../../src/stream/FluvioConsumer.ts"

export interface Place {
  readonly endpoint: string
  readonly topic: string
  readonly partition: number
}

export interface Driver {
  readonly name: string
  /** Patient enough for a busy machine, except with silence. */
  readonly make: (place: Place & { readonly probeInterval?: Duration.Input }) => FluvioConsumer["Service"]
  readonly codecs: ReadonlyArray<Codec>
  readonly tellsTimestamps: boolean
}

const topic = "changes"
const place = { topic, partition: 0 }

const values = (count: number, from = 0): ReadonlyArray<NewRecord> =>
  Array.from({ length: count }, (_, index) => ({ value: Buffer.from(`value ${from + index}`) }))

const textOf = ({ value }: FluvioRecord) => Buffer.from(value).toString()

/** What is expected of records `from` to `to` that {@link values} made. */
const expected = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, index) => [from + index, `value ${from + index}`])

const seen = (records: Iterable<FluvioRecord>) =>
  [...records].map((record) => [record.offset as number, textOf(record)])

/** `count` records from `from` on. */
export const take = (consumer: FluvioConsumer["Service"], from: number, count: number) =>
  consumer.records(Offset.make(from)).pipe(Stream.flattenArray, Stream.take(count), Stream.runCollect)

/** The error that ends reading from `from`, and the records before it. */
export const fate = Effect.fnUntraced(function* (consumer: FluvioConsumer["Service"], from: number) {
  const records: Array<FluvioRecord> = []
  const error: FluvioError = yield* consumer.records(Offset.make(from)).pipe(
    Stream.runForEach((chunk) => Effect.sync(() => records.push(...chunk))),
    Effect.flip
  )
  return { error, records }
})

/** Waits until a condition holds; the test's own time limit is the deadline. */
export const until = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  condition.pipe(Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced("10 millis") }))

/** Waits for something that a reading brings about; if the reading ends before, so does the wait. */
const whileReading = <A, E, B, E2>(reading: Fiber.Fiber<A, E>, wait: Effect.Effect<B, E2>) =>
  Effect.raceFirst(wait, Fiber.join(reading))

export const conformance = (driver: Driver) => {
  /** A broker whose topic holds `count` records, in batches of 7, and a consumer of it. */
  const given = Effect.fnUntraced(function* (count: number, options: { readonly firstOffset?: number } = {}) {
    const broker = yield* Broker.make()
    yield* broker.createTopic(topic, options)
    if (count > 0) {
      yield* broker.append(place, values(count, options.firstOffset), { batch: 7 })
    }
    return { broker, consumer: driver.make({ endpoint: broker.endpoint, ...place }) }
  })

  describe(`${driver.name}: where reading starts`, () => {
    it.live("at the beginning, in the middle of the log and in the middle of a batch", () =>
      Effect.gen(function* () {
        const { consumer } = yield* given(100)
        for (const from of [0, 49, 52, 99]) {
          assert.deepStrictEqual(seen(yield* take(consumer, from, 100 - from)), expected(from, 100))
        }
      })
    )

    it.live("at the end, where it waits for what is produced next", () =>
      Effect.gen(function* () {
        const { broker, consumer } = yield* given(10)
        const reading = yield* Effect.forkChild(take(consumer, 10, 3))
        yield* whileReading(reading, until(Effect.map(broker.connections, (connections) => connections > 0)))
        yield* broker.append(place, values(3, 10))
        assert.deepStrictEqual(seen(yield* Fiber.join(reading)), expected(10, 13))
      })
    )

    it.live("at the end of an empty log", () =>
      Effect.gen(function* () {
        const { broker, consumer } = yield* given(0)
        const reading = yield* Effect.forkChild(take(consumer, 0, 3))
        yield* whileReading(reading, until(Effect.map(broker.connections, (connections) => connections > 0)))
        yield* broker.append(place, values(3))
        assert.deepStrictEqual(seen(yield* Fiber.join(reading)), expected(0, 3))
      })
    )

    it.live("by the absolute offset, wherever the log starts", () =>
      Effect.gen(function* () {
        const { broker, consumer } = yield* given(100)
        yield* broker.trim(place, 50)
        assert.deepStrictEqual(seen(yield* take(consumer, 50, 50)), expected(50, 100))
        assert.deepStrictEqual(seen(yield* take(consumer, 73, 27)), expected(73, 100))

        const far = 5_000_000_000
        const { consumer: farConsumer } = yield* given(100, { firstOffset: far })
        assert.deepStrictEqual(seen(yield* take(farConsumer, far + 55, 45)), expected(far + 55, far + 100))
      })
    )

    it.live("not at an offset that retention removed", () =>
      Effect.gen(function* () {
        const { broker, consumer } = yield* given(100)
        yield* broker.trim(place, 50)
        const { error, records } = yield* fate(consumer, 49)
        assert(error instanceof OffsetEvicted)
        const { available, partition, requested, topic } = error
        assert.deepStrictEqual({ available, partition, requested, topic }, { ...place, requested: 49, available: 50 })
        assert.isEmpty(records)
      })
    )

    it.live("not beyond the end", () =>
      Effect.gen(function* () {
        const { consumer } = yield* given(100)
        const { error, records } = yield* fate(consumer, 101)
        assert(error instanceof OffsetBeyondEnd)
        assert.strictEqual(error.requested, 101)
        assert.strictEqual(error.end, 100)
        assert.isFalse(error.isRetryable)
        assert.isEmpty(records)
      })
    )

    it.live("not in an unknown topic or partition", () =>
      Effect.gen(function* () {
        const { broker } = yield* given(1)
        for (const unknown of [
          { topic: "nowhere", partition: 0 },
          { topic, partition: 1 }
        ]) {
          const consumer = driver.make({ endpoint: broker.endpoint, ...unknown })
          const { error } = yield* fate(consumer, 0)
          assert(error instanceof TopicNotFound, error.message)
          assert.strictEqual(error.topic, unknown.topic)
          assert.strictEqual(error.partition, unknown.partition)
          assert.instanceOf(yield* Effect.flip(consumer.bounds), TopicNotFound)
        }
      })
    )
  })

  describe(`${driver.name}: what is read`, () => {
    it.live("every record once and in order, over many batches, in every codec", () =>
      Effect.gen(function* () {
        const { broker, consumer } = yield* given(0)
        let end = 0
        for (const codec of driver.codecs) {
          for (const batch of [1, 7, 500]) {
            yield* broker.append(place, values(1000, end), { batch, codec })
            end += 1000
          }
        }
        assert.deepStrictEqual(seen(yield* take(consumer, 0, end)), expected(0, end))
      })
    )

    it.live("keys and values as they are: none, empty, binary, large", () =>
      Effect.gen(function* () {
        const { broker, consumer } = yield* given(0)
        const binary = Buffer.from([0, 0xff, 0xc3, 0x28, 0x0a])
        const large = Buffer.alloc(3_000_000, "large")
        const records: ReadonlyArray<NewRecord> = [
          { value: Buffer.from("no key") },
          { key: Buffer.alloc(0), value: Buffer.from("an empty key") },
          { key: binary, value: binary },
          { value: Buffer.alloc(0) },
          { key: Buffer.from("k"), value: large },
          { value: Buffer.from("last") }
        ]
        yield* broker.append(place, records, { batch: 1, timestamp: 1_700_000_000_000 })
        const read = yield* take(consumer, 0, records.length)
        assert.deepStrictEqual(
          read.map(({ key }) => key && Buffer.from(key).toString("hex")),
          records.map(({ key }) => key && Buffer.from(key).toString("hex"))
        )
        read.forEach(({ timestamp, value }, index) => {
          assert.isTrue(Buffer.from(records[index]?.value ?? []).equals(value), `value ${index}`)
          assert.strictEqual(timestamp, driver.tellsTimestamps ? 1_700_000_000_000 : undefined)
        })
        assert.strictEqual(consumer.checksum(Buffer.from("123456789")), 0xe306_9283)
      })
    )

    it.live("what is appended while reading", () =>
      Effect.gen(function* () {
        const { broker, consumer } = yield* given(10)
        const reading = yield* Effect.forkChild(take(consumer, 0, 60))
        for (let end = 10; end < 60; end += 10) {
          yield* broker.append(place, values(10, end))
        }
        assert.deepStrictEqual(seen(yield* Fiber.join(reading)), expected(0, 60))
      })
    )

    it.live("by two readers at once, each by itself", () =>
      Effect.gen(function* () {
        const { consumer } = yield* given(500)
        const [first, second] = yield* Effect.all([take(consumer, 0, 500), take(consumer, 250, 250)], {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(seen(first), expected(0, 500))
        assert.deepStrictEqual(seen(second), expected(250, 500))
      })
    )

    it.live("beside the bounds of the log", () =>
      Effect.gen(function* () {
        const { broker, consumer } = yield* given(100)
        assert.deepStrictEqual(
          { ...(yield* consumer.bounds) },
          {
            start: Offset.make(0),
            end: Offset.make(100),
            written: Offset.make(100)
          }
        )
        yield* broker.trim(place, 30)
        yield* broker.append(place, values(1, 100))
        assert.deepStrictEqual(
          { ...(yield* consumer.bounds) },
          {
            start: Offset.make(30),
            end: Offset.make(101),
            written: Offset.make(101)
          }
        )
      })
    )
  })

  describe(`${driver.name}: what ends reading`, () => {
    it.live("its scope, also while it waits", () =>
      Effect.gen(function* () {
        const { consumer } = yield* given(10)
        const first = yield* Deferred.make<Records>()
        const reading = yield* consumer.records(Offset.make(0)).pipe(
          Stream.runForEach((records) => Deferred.succeed(first, records)),
          Effect.forkChild
        )
        yield* whileReading(reading, Deferred.await(first))
        yield* Fiber.interrupt(reading)
      })
    )

    it.live("the death of the server, after which another run goes on where this one stopped", () =>
      Effect.gen(function* () {
        const broker = yield* Broker.spawn()
        yield* broker.createTopic(topic)
        yield* broker.append(place, values(50), { batch: 7 })
        const consumer = driver.make({ endpoint: broker.endpoint, ...place })
        const arrived = yield* Deferred.make<void>()
        const records: Array<FluvioRecord> = []
        const reading = yield* consumer.records(Offset.make(0)).pipe(
          Stream.runForEach((chunk) =>
            Effect.suspend(() => {
              records.push(...chunk)
              return records.length === 50 ? Deferred.succeed(arrived, undefined) : Effect.void
            })
          ),
          Effect.flip,
          Effect.forkChild
        )
        yield* whileReading(reading, Deferred.await(arrived))
        yield* broker.kill
        const error = yield* Fiber.join(reading)
        assert.isTrue(error.isRetryable, error.message)
        assert.deepStrictEqual(seen(records), expected(0, 50))
        assert.isTrue((yield* fate(consumer, 50)).error.isRetryable)

        yield* broker.start
        yield* broker.createTopic(topic)
        yield* broker.append(place, values(80), { batch: 7 })
        assert.deepStrictEqual(seen(yield* take(consumer, 50, 30)), expected(50, 80))
        assert.deepStrictEqual(
          { ...(yield* Effect.retry(consumer.bounds, { times: 1 })) },
          { start: 0, end: 80, written: 80 }
        )
      })
    )

    it.live("a server that freezes", () =>
      Effect.gen(function* () {
        const { broker } = yield* given(10)
        const impatient = driver.make({ endpoint: broker.endpoint, ...place, probeInterval: "50 millis" })
        const records: Array<FluvioRecord> = []
        const error = yield* impatient.records(Offset.make(0)).pipe(
          Stream.runForEach((chunk) =>
            Effect.suspend(() => {
              records.push(...chunk)
              return records.length === 10 ? Effect.orDie(broker.setFaults({ frozen: true })) : Effect.void
            })
          ),
          Effect.flip
        )
        assert.instanceOf(error, FluvioSilent)
        assert.isTrue(error.isRetryable)
        assert.strictEqual(records.length, 10)
        yield* broker.setFaults({ frozen: false })
      })
    )

    it.live("the deletion of the topic", () =>
      Effect.gen(function* () {
        const { broker, consumer } = yield* given(10)
        const arrived = yield* Deferred.make<void>()
        const reading = yield* consumer.records(Offset.make(0)).pipe(
          Stream.runForEach((chunk) =>
            chunk.at(-1)?.offset === 9 ? Deferred.succeed(arrived, undefined) : Effect.void
          ),
          Effect.flip,
          Effect.forkChild
        )
        yield* whileReading(reading, Deferred.await(arrived))
        yield* broker.deleteTopic(topic)
        assert.instanceOf(yield* Fiber.join(reading), TopicNotFound)
      })
    )

    it.live("retention that overtakes a slow reader: the records before are whole, nothing is skipped", () =>
      Effect.gen(function* () {
        const { broker, consumer } = yield* given(0)
        const large = Array.from({ length: 2000 }, (_, index) => ({ value: Buffer.alloc(10_000, `${index}`) }))
        yield* broker.append(place, large, { batch: 20 })
        const records: Array<FluvioRecord> = []
        let isTrimmed = false
        const error = yield* consumer.records(Offset.make(0)).pipe(
          Stream.runForEach((chunk) =>
            Effect.suspend(() => {
              records.push(...chunk)
              if (isTrimmed) {
                return Effect.void
              }
              isTrimmed = true
              return Effect.orDie(broker.trim(place, 1990))
            })
          ),
          Effect.flip
        )
        assert(error instanceof OffsetEvicted, error.message)
        assert.isAtLeast(error.available, 1980)
        assert.strictEqual(error.requested, records.length)
        records.forEach(({ offset }, index) => assert.strictEqual(offset as number, index))
      })
    )
  })
}
