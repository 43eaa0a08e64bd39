import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as Broker from "../../../layers/embedded/Broker.ts"
import { make, type ProducerOptions } from "../../../layers/fluvio/Producer.ts"
import type { Codec } from "../../../layers/fluvio/RecordBatch.ts"
import * as WireConsumer from "../../../layers/fluvio/WireConsumer.ts"
import {
  FluvioProtocolError,
  type FluvioRecord,
  FluvioUnreachable,
  LeaderMoved,
  Offset,
  TopicNotFound
} from "../../../src/stream/FluvioConsumer.ts"
import { consumeNatively } from "../embedded/nativeClient.ts"

const place = { topic: "t", partition: 0 }

const producerOf = ({ endpoint }: Broker.BrokerShape, options: Partial<ProducerOptions> = {}) =>
  make({ endpoint, ...place, timeout: "10 seconds", ...options })

const withTopic = Effect.fnUntraced(function* (options: Broker.BrokerOptions = {}) {
  const broker = yield* Broker.make(options)
  yield* broker.createTopic(place.topic)
  return broker
})

const texts = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => `value ${from + index}`)

const records = (from: number, to: number) =>
  texts(from, to).map((text, index) => ({
    key: index % 2 === 0 ? undefined : Buffer.from(`key of ${text}`),
    value: Buffer.from(text)
  }))

const readAll = Effect.fnUntraced(function* (broker: Broker.BrokerShape) {
  const { end } = yield* broker.bounds(place)
  const read: Array<FluvioRecord> = []
  yield* WireConsumer.make({ endpoint: broker.endpoint, ...place })
    .records(Offset.make(0))
    .pipe(
      Stream.takeUntil((chunk) => (chunk.at(-1)?.offset ?? 0) >= end - 1),
      Stream.runForEach((chunk) => Effect.sync(() => read.push(...chunk)))
    )
  return read
})

const valuesOf = (read: ReadonlyArray<FluvioRecord>) => read.map(({ value }) => Buffer.from(value).toString())

describe("send", () => {
  it.live("in every codec is read by the vendor's native client and by our own reader", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      for (const codec of ["none", "gzip", "snappy", "lz4", "zstd"] satisfies ReadonlyArray<Codec>) {
        const producer = yield* producerOf(broker, { codec, batchBytes: 500 })
        yield* producer.send(records(0, 300))
      }
      const native = yield* Effect.promise(() => consumeNatively(broker.endpoint, "t", 0, 0, 1500))
      const expected = Array.from({ length: 5 }, () => records(0, 300)).flat()
      assert.deepStrictEqual(
        native,
        expected.map(({ key, value }) => ({ key: key?.toString() ?? null, value: value.toString() }))
      )
      const read = yield* readAll(broker)
      assert.deepStrictEqual(
        read.map(({ key, value }) => ({ key, value })),
        expected as never
      )
    })
  )

  it.live("splits what is large into batches and requests, and keeps the order", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      const producer = yield* producerOf(broker, { batchBytes: 100_000 })
      const sizes = Array.from({ length: 300 }, (_, index) => (index === 150 ? 5_000_000 : 30_000))
      yield* producer.send(sizes.map((size, index) => ({ value: Buffer.alloc(size, index) })))
      const read = yield* readAll(broker)
      assert.deepStrictEqual(
        read.map(({ value }) => [value.length, value[0]]),
        sizes.map((size, index) => [size, index % 256])
      )
    })
  )

  it.live("of several callers at a time keeps each call together, in the order of the calls", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      const producer = yield* producerOf(broker, { batchBytes: 50 })
      yield* Effect.forEach([0, 1, 2, 3, 4], (index) => producer.send(records(index * 100, index * 100 + 100)), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(valuesOf(yield* readAll(broker)), texts(0, 500))
    })
  )

  it.live("of nothing does nothing", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      yield* (yield* producerOf(broker)).send([])
      assert.strictEqual((yield* broker.bounds(place)).end, 0)
    })
  )
})

describe("failures", () => {
  it.live("a topic that does not exist, until it does", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.make()
      const producer = yield* producerOf(broker)
      assert.instanceOf(yield* Effect.flip(producer.send(records(0, 1))), TopicNotFound)
      yield* broker.createTopic(place.topic)
      yield* producer.send(records(0, 1))
      assert.strictEqual((yield* broker.bounds(place)).end, 1)
    })
  )

  it.live("a broker that dies and comes back", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      const producer = yield* producerOf(broker)
      yield* producer.send(records(0, 10))
      yield* broker.setFaults({ refusing: true })
      yield* broker.closeConnections
      assert.instanceOf(yield* Effect.flip(producer.send(records(10, 20))), FluvioUnreachable)
      assert.instanceOf(yield* Effect.flip(producer.send(records(10, 20))), FluvioUnreachable)
      yield* broker.setFaults({ refusing: false })
      yield* producer.send(records(10, 20))
      assert.deepStrictEqual(valuesOf(yield* readAll(broker)), texts(0, 20))
    })
  )

  it.live("a leader that moves is looked up again by the next call", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic({ spus: 2 })
      const producer = yield* producerOf(broker)
      yield* producer.send(records(0, 10))
      yield* broker.moveLeader(place, 5002)
      assert.instanceOf(yield* Effect.flip(producer.send(records(10, 20))), LeaderMoved)
      yield* producer.send(records(10, 20))
      assert.deepStrictEqual(valuesOf(yield* readAll(broker)), texts(0, 20))
    })
  )

  it.live("a batch that the server refuses", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      const producer = yield* producerOf(broker)
      const error = yield* Effect.flip(producer.send([{ value: Buffer.alloc(40 * 1024 * 1024) }]))
      assert.instanceOf(error, FluvioProtocolError)
      assert.match(error.message, /Other \(2\)/)
      yield* producer.send(records(0, 1))
      assert.strictEqual((yield* broker.bounds(place)).end, 1)
    })
  )

  it.live("closing the scope closes the connection", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      yield* Effect.scoped(Effect.flatMap(producerOf(broker), (producer) => producer.send(records(0, 1))))
      yield* broker.connections.pipe(Effect.repeat({ until: (count) => count === 0 }))
    })
  )
})
