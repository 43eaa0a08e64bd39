import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Schedule } from "effect"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Broker from "../../../layers/embedded/Broker.ts"
import {
  type Connection,
  connectController,
  connectLeader,
  type ConnectionOptions,
  type Place
} from "../../../layers/fluvio/Connection.ts"
import { type Cluster, parseAddress } from "../../../layers/fluvio/Profile.ts"
import {
  type ErrorCode,
  errorOf,
  FetchOffsets,
  Partition,
  Produce,
  StreamFetch,
  UpdateOffsets
} from "../../../layers/fluvio/Protocol.ts"
import { type Codec, decodeRecords, encodeBatch, findBatches } from "../../../layers/fluvio/RecordBatch.ts"
import { FluvioUnreachable, TopicNotFound } from "../../../src/stream/FluvioConsumer.ts"
import { administerNatively, consumeNatively, type NativeRecord, produceNatively } from "./nativeClient.ts"

const place: Place = { topic: "t", partition: 0 }
const options: ConnectionOptions = { timeout: Duration.seconds(10), maxFrameBytes: 64 * 1024 * 1024 }

const clusterOf = ({ endpoint }: Broker.BrokerShape): Cluster => ({
  controller: parseAddress(endpoint) ?? assert.fail(endpoint),
  tls: undefined,
  preferLocalAddress: false
})

const leaderOf = (broker: Broker.BrokerShape, of = place) =>
  connectLeader(clusterOf(broker), of, options).pipe(Effect.map(({ connection }) => connection))

/** A broker with one topic. */
const withTopic = Effect.fnUntraced(function* (settings: Broker.BrokerOptions = {}) {
  const broker = yield* Broker.make(settings)
  yield* broker.createTopic(place.topic)
  return broker
})

const values = (count: number, size = 20) =>
  Array.from({ length: count }, (_, index) => ({ value: Buffer.alloc(size, index) }))

const fetch = (connection: Connection, fetchOffset: number, { isolation = 0, maxBytes = 1_000_000 } = {}) =>
  connection.stream(StreamFetch, {
    ...place,
    fetchOffset,
    maxBytes,
    isolation,
    smartModules: undefined,
    consumerId: undefined
  })

const acknowledge = (connection: Connection, offset: number, sessionId = 1) =>
  connection.request(UpdateOffsets, { offsets: [{ offset, sessionId }] })

const offsetsIn = (records: ReadonlyArray<Buffer>): ReadonlyArray<number> => {
  const bytes = Buffer.concat(records)
  return findBatches(bytes).whole.flatMap((batch) => decodeRecords(bytes, batch).map(({ offset }) => offset as number))
}

const codeOf = ({ code, fields }: ErrorCode) => [code, ...fields]
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index)

/** Repeats until the check holds; the test's own time limit is the deadline. */
const eventually = <E>(check: Effect.Effect<boolean, E>) =>
  check.pipe(Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced("10 millis") }))

const keyed = (count: number): ReadonlyArray<NativeRecord> =>
  Array.from({ length: count }, (_, index) => ({ key: `key ${index}`, value: `value ${index} äöü` }))

describe("the vendor's native client", () => {
  it.live("creates, finds, lists and deletes topics", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.make()
      const seen = yield* Effect.promise(() => administerNatively(broker.endpoint, "made", 3))
      assert.deepStrictEqual(
        { ...seen, partition: undefined },
        {
          before: false,
          partitions: 3,
          partition: undefined,
          names: ["consumer-offset", "made"],
          spus: ["custom-spu-5001"],
          secondCreation: "Topic already exists",
          after: false
        }
      )
    })
  )

  it.live("reads what it wrote, and what was appended in every codec; the broker in a process of its own", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.spawn()
      yield* broker.createTopic("t")
      const produced = keyed(1000)
      yield* Effect.promise(() => produceNatively(broker.endpoint, "t", produced))
      assert.deepStrictEqual(yield* broker.bounds(place), { start: 0, committed: 1000, end: 1000 })
      const appended = keyed(500)
      for (const codec of ["none", "gzip", "snappy", "lz4", "zstd"] satisfies ReadonlyArray<Codec>) {
        yield* broker.append(
          place,
          appended.map(({ key, value }) => ({ key: Buffer.from(key ?? ""), value: Buffer.from(value) })),
          { codec, batch: 60 }
        )
      }
      const expected = [...produced, ...Array.from({ length: 5 }, () => appended).flat()]
      assert.deepStrictEqual(yield* Effect.promise(() => consumeNatively(broker.endpoint, "t", 0, 0, 3500)), expected)
      assert.deepStrictEqual(
        yield* Effect.promise(() => consumeNatively(broker.endpoint, "t", 0, 3456, 44)),
        expected.slice(3456)
      )
    })
  )

  it.live("is pushed what is appended while it waits at the end", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      const reading = yield* Effect.forkChild(
        Effect.promise(() => consumeNatively(broker.endpoint, "t", 0, 0, 5)),
        { startImmediately: true }
      )
      // One connection to the controller and one to the SPU, where the stream is opened.
      yield* eventually(Effect.map(broker.connections, (count) => count === 2))
      for (const index of range(0, 5)) {
        yield* broker.append(place, [{ value: Buffer.from(`value ${index}`) }])
        yield* Effect.yieldNow
      }
      assert.deepStrictEqual(
        (yield* Fiber.join(reading)).map(({ value }) => value),
        range(0, 5).map((index) => `value ${index}`)
      )
    })
  )

  it.live("several clients and partitions at a time keep to their own", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.make()
      yield* broker.createTopic("a", { partitions: 2 })
      yield* broker.createTopic("b")
      for (const partition of [0, 1]) {
        yield* broker.append({ topic: "a", partition }, [{ value: Buffer.from(`a-${partition}`) }])
      }
      const [a0, a1] = yield* Effect.promise(() =>
        Promise.all([
          consumeNatively(broker.endpoint, "a", 0, 0, 1),
          consumeNatively(broker.endpoint, "a", 1, 0, 1),
          produceNatively(broker.endpoint, "b", keyed(10))
        ])
      )
      assert.deepStrictEqual([a0, a1], [[{ key: null, value: "a-0" }], [{ key: null, value: "a-1" }]])
      assert.strictEqual((yield* broker.bounds({ topic: "b", partition: 0 })).end, 10)
    })
  )
})

describe("a stream", () => {
  it.live("has one response in flight, and is pushed to once it has caught up", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      yield* broker.append(place, values(30), { batch: 10 })
      const connection = yield* leaderOf(broker)
      const stream = yield* fetch(connection, 5, { maxBytes: 1 })
      const first = yield* stream.next
      // The first batch may begin before the offset that was asked for.
      assert.deepStrictEqual(offsetsIn(first.records), range(0, 10))
      assert.strictEqual(first.streamId, 1)
      yield* broker.append(place, values(5))
      yield* acknowledge(connection, 10)
      assert.deepStrictEqual(offsetsIn((yield* stream.next).records), range(10, 20))
      yield* acknowledge(connection, 20)
      assert.deepStrictEqual(offsetsIn((yield* stream.next).records), range(20, 30))
      assert.isFalse(stream.isPending())
      yield* acknowledge(connection, 30)
      assert.deepStrictEqual(offsetsIn((yield* stream.next).records), range(30, 35))
      yield* acknowledge(connection, 35)
      assert.isFalse(stream.isPending())
      yield* broker.append(place, values(1))
      const pushed = yield* stream.next
      assert.deepStrictEqual(offsetsIn(pushed.records), [35])
      assert.strictEqual(pushed.highWatermark, 36)
    })
  )

  it.live("reads committed records only, if asked to", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      yield* broker.append(place, values(3))
      yield* broker.setFaults({ withholdingCommits: true })
      assert.deepStrictEqual(yield* broker.append(place, values(2)), { start: 0, committed: 3, end: 5 })
      const connection = yield* leaderOf(broker)
      const uncommitted = yield* fetch(connection, 0)
      assert.deepStrictEqual(offsetsIn((yield* uncommitted.next).records), range(0, 5))
      const committed = yield* fetch(connection, 0, { isolation: 1 })
      assert.deepStrictEqual(offsetsIn((yield* committed.next).records), range(0, 3))
      yield* acknowledge(connection, 3, 2)
      assert.isFalse(committed.isPending())
      yield* broker.setFaults({ withholdingCommits: false })
      assert.deepStrictEqual(offsetsIn((yield* committed.next).records), range(3, 5))
    })
  )

  it.live("is told of what stands against it", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic({ spus: 2 })
      yield* broker.append(place, values(30), { batch: 10 })
      assert.deepStrictEqual(yield* broker.trim(place, 15), { start: 15, committed: 30, end: 30 })
      const connection = yield* leaderOf(broker)
      const errorFrom = Effect.fnUntraced(function* (offset: number) {
        const stream = yield* fetch(connection, offset)
        return codeOf((yield* stream.next).error)
      })
      assert.deepStrictEqual(yield* errorFrom(14), [71, 14, 15])
      assert.deepStrictEqual(yield* errorFrom(31), [2, "start offset: 31 is greater than leo: 30"])
      yield* broker.setFaults({ fetchError: errorOf(56) })
      assert.deepStrictEqual(yield* errorFrom(15), [56])
      assert.deepStrictEqual(yield* errorFrom(15), [0])

      const parked = yield* fetch(connection, 30)
      // Requests are taken in order, so the answer to a second one says that the first has arrived.
      yield* acknowledge(connection, 30, 99)
      yield* broker.moveLeader(place, 5002)
      assert.deepStrictEqual(codeOf((yield* parked.next).error), [6])
      assert.deepStrictEqual(yield* errorFrom(30), [6])
      const moved = yield* leaderOf(broker)
      assert.notStrictEqual(moved.endpoint, connection.endpoint)
      const stream = yield* fetch(moved, 30)
      yield* acknowledge(moved, 30, 99)
      yield* broker.deleteTopic(place.topic)
      assert.deepStrictEqual(codeOf((yield* stream.next).error), [2007])
      const [offsets] = yield* moved.request(FetchOffsets, {
        topics: [{ name: "t", partitions: [0] }],
        consumerId: undefined
      })
      assert.deepStrictEqual(
        offsets?.partitions.map(({ error }) => codeOf(error)),
        [[3001]]
      )
      assert.instanceOf(yield* Effect.flip(leaderOf(broker)), TopicNotFound)
    })
  )
})

describe("producing", () => {
  it.live("is answered batch by batch, and only when committed if that was asked for", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      yield* broker.setFaults({ withholdingCommits: true })
      const connection = yield* leaderOf(broker)
      const batches = [3, 4].map((count) => encodeBatch(values(count), { timestamp: 1 }))
      const produce = (acks: number, ...partitions: ReadonlyArray<number>) =>
        connection.request(Produce, {
          transactionalId: undefined,
          acks,
          timeoutMs: 5000,
          topics: [{ name: "t", partitions: partitions.map((partition) => ({ partition, records: batches })) }],
          smartModules: undefined
        })
      const outcome = ({ topics }: Effect.Success<ReturnType<typeof produce>>) =>
        topics.flatMap(({ partitions }) =>
          partitions.map(({ baseOffset, error, partition }) => [partition, error.code, baseOffset])
        )
      assert.deepStrictEqual(outcome(yield* produce(1, 0, 1, 0)), [
        [0, 0, 0],
        [1, 6, -1],
        [0, 0, 7]
      ])
      const answered = yield* Deferred.make<void>()
      const waiting = yield* produce(-1, 0).pipe(
        Effect.tap(() => Deferred.succeed(answered, undefined)),
        Effect.forkChild
      )
      yield* eventually(Effect.map(broker.bounds(place), ({ end }) => end === 21))
      assert.isFalse(yield* Deferred.isDone(answered))
      yield* broker.setFaults({ withholdingCommits: false })
      assert.deepStrictEqual(outcome(yield* Fiber.join(waiting)), [[0, 0, 14]])
    })
  )

  it.live("of something that is no batch is refused", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      const connection = yield* leaderOf(broker)
      const batch = encodeBatch(values(3), { timestamp: 1 })
      for (const records of [batch.subarray(0, -1), Buffer.alloc(80)]) {
        const { topics } = yield* connection.request(Produce, {
          transactionalId: undefined,
          acks: 1,
          timeoutMs: 5000,
          topics: [{ name: "t", partitions: [{ partition: 0, records: [records] }] }],
          smartModules: undefined
        })
        assert.strictEqual(topics[0]?.partitions[0]?.error.code, 2)
      }
      assert.strictEqual((yield* broker.bounds(place)).end, 0)
    })
  )
})

describe("faults", () => {
  const firstResponse = Effect.fnUntraced(function* (broker: Broker.BrokerShape, maxBytes?: number) {
    const connection = yield* leaderOf(broker)
    const stream = yield* fetch(connection, 0, maxBytes === undefined ? {} : { maxBytes })
    return Buffer.concat((yield* stream.next).records)
  }, Effect.scoped)

  it.live("a response is cut at the reader's limit", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      yield* broker.append(place, values(30), { batch: 10 })
      yield* broker.setFaults({ cutAtMaxBytes: true })
      assert.strictEqual((yield* firstResponse(broker, 100)).length, 100)
      assert.isUndefined(findBatches(yield* firstResponse(broker)).cut)
    })
  )

  it.live("a batch is damaged, or comes twice, once", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      yield* broker.append(place, values(20), { batch: 10 })
      yield* broker.setFaults({ corruptBatch: true })
      const damaged = yield* firstResponse(broker)
      assert.throws(() => offsetsIn([damaged]), /CRC-32C/)
      yield* broker.setFaults({ duplicateBatch: true })
      assert.deepStrictEqual(offsetsIn([yield* firstResponse(broker)]), [...range(0, 20), ...range(10, 20)])
      assert.deepStrictEqual(offsetsIn([yield* firstResponse(broker)]), range(0, 20))
    })
  )

  it.live("a frame is cut by the end of the connection", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      yield* broker.append(place, values(20))
      yield* broker.setFaults({ cutFrame: true })
      assert.instanceOf(yield* Effect.flip(firstResponse(broker)), FluvioUnreachable)
      assert.strictEqual(offsetsIn([yield* firstResponse(broker)]).length, 20)
    })
  )

  it.live("frozen, it keeps connections and answers nothing; thawed, it answers what it was asked", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      const connection = yield* leaderOf(broker)
      const stream = yield* fetch(connection, 0)
      yield* broker.setFaults({ frozen: true })
      yield* broker.append(place, values(3))
      const offsets = yield* connection
        .request(FetchOffsets, { topics: [{ name: "t", partitions: [0] }], consumerId: undefined })
        .pipe(Effect.forkChild({ startImmediately: true }))
      const joining = yield* Effect.forkChild(leaderOf(broker).pipe(Effect.scoped), { startImmediately: true })
      yield* eventually(Effect.map(broker.connections, (count) => count === 2))
      assert.isFalse(stream.isPending())
      yield* broker.setFaults({ frozen: false })
      assert.deepStrictEqual(offsetsIn((yield* stream.next).records), range(0, 3))
      assert.strictEqual((yield* Fiber.join(offsets))[0]?.partitions[0]?.lastStableOffset, 3)
      yield* Fiber.join(joining)
    })
  )

  it.live("refusing, it keeps connections and accepts none; then again on the same ports", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      const connection = yield* connectController(clusterOf(broker), options)
      yield* broker.setFaults({ refusing: true })
      const refused = yield* connectController(clusterOf(broker), options).pipe(Effect.scoped, Effect.flip)
      assert.match(refused.message, /ECONNREFUSED/)
      const partitions = yield* connection.request(Partition.list, { filters: [], summary: false, system: false })
      assert.deepStrictEqual(
        partitions.map(({ name }) => name),
        ["consumer-offset-0", "t-0"]
      )
      yield* broker.setFaults({ refusing: false })
      yield* leaderOf(broker)
      yield* broker.closeConnections
      yield* eventually(Effect.map(broker.connections, (count) => count === 0))
    })
  )

  it.live("delayed, responses keep their order", () =>
    Effect.gen(function* () {
      const broker = yield* withTopic()
      const connection = yield* leaderOf(broker)
      yield* broker.setFaults({ delay: 20 })
      const order: Array<number> = []
      yield* Effect.forEach(
        range(0, 10),
        (index) => acknowledge(connection, 0, index).pipe(Effect.tap(() => Effect.sync(() => order.push(index)))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(order, range(0, 10))
    })
  )

  it.live("what cannot be done is said", () =>
    Effect.gen(function* () {
      for (const broker of [yield* Broker.make(), yield* Broker.spawn()]) {
        const error = yield* Effect.flip(broker.trim(place, 3))
        assert.strictEqual(error.message, "the development broker could not trim: there is no partition t-0")
        const invalid = yield* Effect.flip(broker.createTopic("Not A Name"))
        assert.match(invalid.message, /TopicInvalidName/)
      }
    })
  )
})

describe("a broker in a folder", () => {
  const folder = Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "broker-"))),
    (path) => Effect.promise(() => rm(path, { recursive: true }))
  )

  it.live("survives SIGKILL of its process, on the same ports", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.spawn({ folder: yield* folder })
      yield* broker.createTopic("t", { partitions: 2 })
      yield* broker.createTopic("gone")
      yield* broker.append(place, values(25), { batch: 10, codec: "lz4" })
      yield* broker.trim(place, 12)
      yield* broker.deleteTopic("gone")
      yield* broker.kill
      assert.match((yield* Effect.flip(broker.bounds(place))).message, /its process has ended/)
      yield* broker.start
      assert.deepStrictEqual(yield* broker.bounds(place), { start: 12, committed: 25, end: 25 })
      assert.deepStrictEqual(yield* broker.bounds({ topic: "t", partition: 1 }), { start: 0, committed: 0, end: 0 })
      assert.match((yield* Effect.flip(broker.bounds({ topic: "gone", partition: 0 }))).message, /no partition/)
      const connection = yield* leaderOf(broker)
      const stream = yield* fetch(connection, 12)
      assert.deepStrictEqual(offsetsIn((yield* stream.next).records), range(10, 25))
    })
  )

  it.live("says so when its port is taken", () =>
    Effect.gen(function* () {
      const first = yield* Broker.make()
      const port = Number(first.endpoint.split(":")[1])
      assert.match((yield* Effect.flip(Broker.make({ port }))).message, /EADDRINUSE/)
      assert.match((yield* Effect.flip(Broker.spawn({ port }))).message, /EADDRINUSE/)
    })
  )
})
