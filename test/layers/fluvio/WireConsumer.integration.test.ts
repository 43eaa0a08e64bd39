import { conformance, until } from "./conformance.ts"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import * as Broker from "../../../layers/embedded/Broker.ts"
import { FetchOffsets, errorOf, StreamFetch } from "../../../layers/fluvio/Protocol.ts"
import { make, type WireConsumerOptions } from "../../../layers/fluvio/WireConsumer.ts"
import * as Errors from "../../../src/stream/FluvioConsumer.ts"
import { Offset, type Records } from "../../../src/stream/FluvioConsumer.ts"
import {
  acknowledged,
  batch,
  type Call,
  cluster,
  controller,
  fetched,
  frameOf,
  offsets,
  reply,
  storage,
  type Storage
} from "./ScriptedCluster.ts"

const consumer = (endpoint: string, options: Partial<WireConsumerOptions> = {}) =>
  make({ endpoint, topic: "t", partition: 0, timeout: "5 seconds", ...options })

const offsetsOf = (chunks: Iterable<Records>) =>
  [...chunks].flatMap((records) => records.map(({ offset }) => offset as number))

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index)

/** The offsets of the first records from `from` on, as many as there are up to `to`. */
const read = (endpoint: string, from: number, to: number, options: Partial<WireConsumerOptions> = {}) =>
  consumer(endpoint, options)
    .records(Offset.make(from))
    .pipe(
      Stream.takeUntil((records) => (records.at(-1)?.offset ?? 0) >= to - 1),
      Stream.runCollect,
      Effect.map(offsetsOf)
    )

/** The error that ends the stream, and the offsets before it. */
const fate = Effect.fnUntraced(function* (endpoint: string, from = 0, options: Partial<WireConsumerOptions> = {}) {
  const seen: Array<number> = []
  const error = yield* consumer(endpoint, options)
    .records(Offset.make(from))
    .pipe(
      Stream.runForEach((records) => Effect.sync(() => seen.push(...offsetsOf([records])))),
      Effect.flip
    )
  return { error, seen }
})

const log = (end: number, script: Storage): Storage => ({ onOffsets: (call) => offsets(call, 0, end), ...script })

describe("the request", () => {
  it.live("names the absolute offset, wants committed records only, and goes through no filter", () =>
    Effect.gen(function* () {
      const endpoint = yield* cluster(
        log(20, {
          onFetch: (call, { fetchOffset, isolation }) => {
            assert.deepStrictEqual({ fetchOffset, isolation }, { fetchOffset: 15, isolation: 1 })
            reply(call, StreamFetch, fetched(batch(10, 10)))
          }
        })
      )
      assert.deepStrictEqual(yield* read(endpoint, 15, 20), range(15, 20))
    })
  )

  it.live("is not made for an offset that is gone, so that no server can clamp it", () =>
    Effect.gen(function* () {
      const endpoint = yield* cluster({
        onOffsets: (call) => offsets(call, 50, 60),
        onFetch: (call) => reply(call, StreamFetch, fetched(batch(50, 10)))
      })
      const { error } = yield* fate(endpoint, 49)
      assert(error instanceof Errors.OffsetEvicted)
      assert.strictEqual(error.available, 50)
    })
  )
})

describe("cut batches", () => {
  it.live("are asked for again by acknowledging the last whole one", () =>
    Effect.gen(function* () {
      const acks: Array<number> = []
      let stream: Call | undefined
      const endpoint = yield* cluster(
        log(40, {
          onFetch: (call) => {
            stream = call
            reply(
              call,
              StreamFetch,
              fetched(Buffer.concat([batch(0, 10), batch(10, 10), batch(20, 10).subarray(0, 80)]))
            )
          },
          onAcknowledge: (call, offset) => {
            acks.push(offset)
            acknowledged(call)
            if (offset === 20 && stream !== undefined) {
              reply(stream, StreamFetch, fetched(Buffer.concat([batch(20, 10), batch(30, 10)])))
            }
          }
        })
      )
      assert.deepStrictEqual(yield* read(endpoint, 0, 40), range(0, 40))
      assert.strictEqual(acks[0], 20)
    })
  )

  it.live("that do not fit at all make the request grow until they do", () =>
    Effect.gen(function* () {
      const asked: Array<number> = []
      const batches = [batch(0, 10), batch(10, 10, {}, 20_000), batch(20, 10)]
      const bytesFrom = (offset: number) => Buffer.concat(batches.slice(offset / 10))
      let stream: Call | undefined
      let room = 0
      const endpoint = yield* cluster(
        log(30, {
          onFetch: (call, { fetchOffset, maxBytes }) => {
            stream = call
            room = maxBytes
            asked.push(maxBytes)
            reply(call, StreamFetch, fetched(bytesFrom(fetchOffset).subarray(0, room)))
          },
          onAcknowledge: (call, offset) => {
            acknowledged(call)
            if (stream !== undefined && offset < 30) {
              reply(stream, StreamFetch, fetched(bytesFrom(offset).subarray(0, room)))
            }
          }
        })
      )
      assert.deepStrictEqual(yield* read(endpoint, 0, 30, { maxBytes: 2000 }), range(0, 30))
      assert.strictEqual(asked.length, 2)
      assert.isAtLeast(asked[1] ?? 0, 200_000)
    })
  )

  it.live("above the limit end the stream with their size", () =>
    Effect.gen(function* () {
      const large = batch(0, 1, {}, 300_000)
      const endpoint = yield* cluster(
        log(1, { onFetch: (call, { maxBytes }) => reply(call, StreamFetch, fetched(large.subarray(0, maxBytes))) })
      )
      const { error } = yield* fate(endpoint, 0, { maxBytes: 1000, maxBatchBytes: 100_000 })
      assert(error instanceof Errors.BatchTooLarge)
      assert.strictEqual(error.bytes, large.length)
      assert.strictEqual(error.limit, 100_000)
    })
  )
})

/** The fate of a reading whose first response holds these bytes. */
const fateOf = (records: Buffer) =>
  cluster(log(30, { onFetch: (call) => reply(call, StreamFetch, fetched(records)) })).pipe(Effect.flatMap(fate))

describe("what is wrong with the log is an error behind the records before it", () => {
  it.live("a flipped bit", () =>
    Effect.gen(function* () {
      const damaged = batch(10, 10)
      damaged.writeUInt8((damaged.at(-3) ?? 0) ^ 1, damaged.length - 3)
      const { error, seen } = yield* fateOf(Buffer.concat([batch(0, 10), damaged, batch(20, 10)]))
      assert(error instanceof Errors.CorruptBatch)
      assert.strictEqual(error.offset, 10)
      assert.match(error.reason, /CRC-32C/)
      assert.deepStrictEqual(seen, range(0, 10))
    })
  )

  it.live("a gap between batches", () =>
    Effect.gen(function* () {
      const { error, seen } = yield* fateOf(Buffer.concat([batch(0, 10), batch(11, 10)]))
      assert(error instanceof Errors.OffsetGap)
      assert.strictEqual(error.expected, 10)
      assert.strictEqual(error.received, 11)
      assert.deepStrictEqual(seen, range(0, 10))
    })
  )

  it.live("a gap within a batch, as a filter leaves it", () =>
    Effect.gen(function* () {
      const filtered = batch(0, 10)
      filtered.writeInt32BE(19, 23)
      const { crc32c } = yield* Effect.promise(() => import("@node-rs/crc32"))
      filtered.writeUInt32BE(crc32c(filtered.subarray(21)), 17)
      const { error, seen } = yield* fateOf(filtered)
      assert(error instanceof Errors.OffsetGap)
      assert.strictEqual(error.expected, 10)
      assert.deepStrictEqual(seen, [])
    })
  )

  it.live("an error code beside records", () =>
    Effect.gen(function* () {
      const endpoint = yield* cluster(
        log(30, {
          onFetch: (call) => reply(call, StreamFetch, fetched(batch(0, 10), errorOf(71, 10, 25)))
        })
      )
      const { error, seen } = yield* fate(endpoint)
      assert(error instanceof Errors.OffsetEvicted)
      assert.strictEqual(error.requested, 10)
      assert.strictEqual(error.available, 25)
      assert.deepStrictEqual(seen, range(0, 10))
    })
  )
})

describe("error codes", () => {
  it.live("in a stream become what they mean", () =>
    Effect.gen(function* () {
      for (const [code, meaning] of [
        [6, Errors.LeaderMoved],
        [3001, Errors.LeaderMoved],
        [2007, Errors.TopicNotFound],
        [2001, Errors.TopicNotFound],
        [1, Errors.FluvioUnreachable],
        [13, Errors.FluvioProtocolError],
        [56, Errors.FluvioProtocolError]
      ] as const) {
        const endpoint = yield* cluster(
          log(30, { onFetch: (call) => reply(call, StreamFetch, fetched(Buffer.alloc(0), errorOf(code))) })
        )
        const { error } = yield* fate(endpoint)
        assert.isTrue(error instanceof meaning, `${code} became ${error.name}`)
      }
    })
  )

  it.live("in the answer about offsets are honoured", () =>
    Effect.gen(function* () {
      const endpoint = yield* cluster({ onOffsets: (call) => offsets(call, 0, 0, errorOf(3001)) })
      assert.instanceOf((yield* fate(endpoint)).error, Errors.LeaderMoved)
      assert.instanceOf(yield* Effect.flip(consumer(endpoint).bounds), Errors.LeaderMoved)
    })
  )

  it.live("in the answer to an acknowledgement end the stream", () =>
    Effect.gen(function* () {
      const endpoint = yield* cluster(
        log(30, {
          onFetch: (call) => reply(call, StreamFetch, fetched(batch(0, 10))),
          onAcknowledge: (call) => acknowledged(call, errorOf(3002))
        })
      )
      const { error, seen } = yield* fate(endpoint)
      assert.instanceOf(error, Errors.FluvioUnreachable)
      assert.deepStrictEqual(seen, range(0, 10))
    })
  )
})

describe("the leader", () => {
  it.live("is looked up anew by every run", () =>
    Effect.gen(function* () {
      const ports: Array<number> = []
      for (const base of [0, 10]) {
        ports.push(
          yield* storage(
            log(20, {
              onFetch: (call, { fetchOffset }) =>
                fetchOffset === base
                  ? reply(call, StreamFetch, fetched(batch(base, 10)))
                  : reply(call, StreamFetch, fetched(Buffer.alloc(0), errorOf(6)))
            })
          )
        )
      }
      let leader = 0
      const endpoint = `127.0.0.1:${yield* controller(() => ({ port: ports[leader] }))}`
      assert.deepStrictEqual(yield* read(endpoint, 0, 10), range(0, 10))
      assert.instanceOf((yield* fate(endpoint, 10)).error, Errors.LeaderMoved)
      leader = 1
      assert.deepStrictEqual(yield* read(endpoint, 10, 20), range(10, 20))
    })
  )

  it.live("may be away: a refused connection, or none elected", () =>
    Effect.gen(function* () {
      const gone = yield* Effect.scoped(storage({}))
      const endpoint = `127.0.0.1:${yield* controller(() => ({ port: gone }))}`
      assert.instanceOf((yield* fate(endpoint)).error, Errors.LeaderMoved)
      const { error } = yield* fate(`localhost:${gone}`)
      assert(error instanceof Errors.FluvioUnreachable)
      assert.match(error.reason, /ECONNREFUSED/)
      const leaderless = `127.0.0.1:${yield* controller(() => ({ port: undefined }))}`
      assert.instanceOf((yield* fate(leaderless)).error, Errors.LeaderMoved)
    })
  )

  it.live("is needed no more once a stream is open: the controller may go", () =>
    Effect.gen(function* () {
      const opened = yield* Deferred.make<Call>()
      const port = yield* storage(log(0, { onFetch: (call) => Effect.runSync(Deferred.succeed(opened, call)) }))
      const reading = yield* Effect.scoped(
        Effect.gen(function* () {
          const endpoint = `127.0.0.1:${yield* controller(() => ({ port }))}`
          const fiber = yield* Effect.forkDetach(read(endpoint, 0, 10))
          yield* Deferred.await(opened)
          return fiber
        })
      )
      reply(yield* Deferred.await(opened), StreamFetch, fetched(batch(0, 10)))
      assert.deepStrictEqual(yield* Fiber.join(reading), range(0, 10))
    })
  )

  // A new leader learns only after a moment that what it has is committed. Reading that as "the topic was re-created"
  // would stop the connector for good at every failover.
  it.live("that has the records, but does not know them committed yet, is asked again", () =>
    Effect.gen(function* () {
      const port = yield* storage(log(8, {}))
      const endOf = (endOffset: number) =>
        Effect.map(
          controller(() => ({ port, endOffset })),
          (controllerPort) => `127.0.0.1:${controllerPort}`
        )
      assert.instanceOf((yield* fate(yield* endOf(10), 10)).error, Errors.LeaderMoved)
      const { error } = yield* fate(yield* endOf(9), 10)
      assert(error instanceof Errors.OffsetBeyondEnd)
      assert.strictEqual(error.requested, 10)
      assert.strictEqual(error.end, 8)
    })
  )

  it.live("is not to be found behind the port of a storage unit", () =>
    Effect.gen(function* () {
      const port = yield* storage({})
      const { error } = yield* fate(`127.0.0.1:${port}`)
      assert(error instanceof Errors.FluvioProtocolError)
    })
  )
})

describe("flow control", () => {
  it.live("leaves everything but one response on the server while the consumer is busy", () =>
    Effect.gen(function* () {
      let sent = 0
      let stream: Call | undefined
      const send = (call: Call) => {
        reply(call, StreamFetch, fetched(batch(sent * 10, 10)))
        sent++
      }
      const endpoint = yield* cluster(
        log(1000, {
          onFetch: (call) => {
            stream = call
            send(call)
          },
          onAcknowledge: (call) => {
            acknowledged(call)
            if (stream !== undefined) {
              send(stream)
            }
          }
        })
      )
      const sentWhenTaken: Array<number> = []
      yield* consumer(endpoint)
        .records(Offset.make(0))
        .pipe(
          Stream.take(5),
          Stream.runForEach(() =>
            Effect.sync(() => sentWhenTaken.push(sent)).pipe(
              // Long enough for a server without restraint to run ahead.
              Effect.andThen(Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 20))))
            )
          )
        )
      sentWhenTaken.forEach((count, index) => assert.isAtMost(count, index + 2))
    })
  )

  it.live("does not depend on the server's restraint: what it pushes unasked stays in the socket", () =>
    Effect.gen(function* () {
      const blocked = yield* Deferred.make<void>()
      const large = batch(0, 10, {}, 100_000)
      const endpoint = yield* cluster(
        log(1_000_000, {
          onFetch: (call) => {
            const push = (base: number): void => {
              large.writeBigInt64BE(BigInt(base), 0)
              // A socket that takes no more is one whose reader has stopped reading.
              if (call.socket.write(frameOf(call, StreamFetch, fetched(large)))) {
                setImmediate(push, base + 10)
              } else if (call.socket.writableLength > 8_000_000) {
                Effect.runSync(Deferred.succeed(blocked, undefined))
              } else {
                setTimeout(push, 1, base + 10)
              }
            }
            push(0)
          }
        })
      )
      const chunks = yield* consumer(endpoint)
        .records(Offset.make(0))
        .pipe(
          Stream.tap(() => Deferred.await(blocked)),
          Stream.take(3),
          Stream.runCollect
        )
      assert.deepStrictEqual(offsetsOf(chunks), range(0, 30))
    })
  )
})

describe("a peer that falls silent", () => {
  const impatient = { timeout: "200 millis", probeInterval: "50 millis" } as const

  it.live("while connecting, is given up", () =>
    Effect.gen(function* () {
      const endpoint = yield* cluster({ onOffsets: () => undefined })
      const { error } = yield* fate(endpoint, 0, impatient)
      assert(error instanceof Errors.FluvioSilent)
      assert.strictEqual(error.operation, FetchOffsets.name)
      assert.isTrue(error.isRetryable)
    })
  )

  it.live("in mid-stream, is found out by the probe and loses the connection", () =>
    Effect.gen(function* () {
      const closed = yield* Deferred.make<void>()
      let isFrozen = false
      const endpoint = yield* cluster({
        onOffsets: (call) => {
          if (!isFrozen) {
            offsets(call, 0, 10)
          }
        },
        onFetch: (call) => {
          isFrozen = true
          call.socket.on("close", () => Effect.runSync(Deferred.succeed(closed, undefined)))
          reply(call, StreamFetch, fetched(batch(0, 10)))
        }
      })
      const { error, seen } = yield* fate(endpoint, 0, impatient)
      assert.instanceOf(error, Errors.FluvioSilent)
      assert.deepStrictEqual(seen, range(0, 10))
      yield* Deferred.await(closed)
    })
  )

  it.live("only on the stream, though it holds records, is found out as well", () =>
    Effect.gen(function* () {
      const endpoint = yield* cluster(log(20, { onFetch: (call) => reply(call, StreamFetch, fetched(batch(0, 10))) }))
      const { error, seen } = yield* fate(endpoint, 0, impatient)
      assert(error instanceof Errors.FluvioSilent)
      assert.strictEqual(error.operation, StreamFetch.name)
      assert.deepStrictEqual(seen, range(0, 10))
    })
  )

  it.live("is not one that takes longer than the deadline over a large response", () =>
    Effect.gen(function* () {
      let isBusy = false
      const questions: Array<Call> = []
      const endpoint = yield* cluster({
        // Frames go out one after the other, so that the probe is answered behind the response.
        onOffsets: (call) => (isBusy ? questions.push(call) : offsets(call, 0, 10)),
        onFetch: (call) => {
          isBusy = true
          const frame = frameOf(call, StreamFetch, fetched(batch(0, 10, {}, 20_000)))
          const write = (at: number): void => {
            call.socket.write(frame.subarray(at, at + 10_000))
            if (at + 10_000 < frame.length) {
              setTimeout(write, 30, at + 10_000)
            } else {
              questions.forEach((question) => offsets(question, 0, 10))
            }
          }
          write(0)
        }
      })
      assert.deepStrictEqual(yield* read(endpoint, 0, 10, impatient), range(0, 10))
    })
  )

  it.live("because nothing is produced, is waited for", () =>
    Effect.gen(function* () {
      let probes = 0
      let stream: Call | undefined
      const endpoint = yield* cluster({
        onOffsets: (call) => {
          offsets(call, 0, 0)
          if (++probes === 5 && stream !== undefined) {
            reply(stream, StreamFetch, fetched(batch(0, 10)))
          }
        },
        onFetch: (call) => {
          stream = call
        }
      })
      assert.deepStrictEqual(yield* read(endpoint, 0, 10, impatient), range(0, 10))
    })
  )

  it.live("having lost the leadership, is left", () =>
    Effect.gen(function* () {
      let asked = 0
      const endpoint = yield* cluster({
        onOffsets: (call) => offsets(call, 0, 0, ++asked > 1 ? errorOf(3001) : errorOf(0))
      })
      assert.instanceOf((yield* fate(endpoint, 0, impatient)).error, Errors.LeaderMoved)
    })
  )
})

const place = { topic: "t", partition: 0 }

/** Records whose values are their offsets, as {@link batch} makes them. */
const values = (from: number, to: number, bytes = 0) =>
  range(from, to).map((offset) => ({ value: Buffer.from(String(offset).padEnd(bytes)) }))

/** A broker whose topic `t` holds `count` records in batches of 10. */
const broker = Effect.fnUntraced(function* (count: number, options: { bytes?: number; spus?: number } = {}) {
  const broker = yield* Broker.make({ spus: options.spus ?? 1 })
  yield* broker.createTopic("t")
  if (count > 0) {
    yield* broker.append(place, values(0, count, options.bytes), { batch: 10 })
  }
  return broker
})

describe("on a whole cluster", () => {
  it.live("responses cut at the size asked for lose nothing, whatever that size is", () =>
    Effect.gen(function* () {
      const { endpoint, setFaults } = yield* broker(1000, { bytes: 100 })
      yield* setFaults({ cutAtMaxBytes: true })
      for (const maxBytes of [100, 1300, 5000, 33_333]) {
        assert.deepStrictEqual(yield* read(endpoint, 3, 1000, { maxBytes }), range(3, 1000))
      }
    })
  )

  it.live("a batch that comes twice is read once", () =>
    Effect.gen(function* () {
      const { endpoint, setFaults } = yield* broker(100)
      yield* setFaults({ duplicateBatch: true })
      assert.deepStrictEqual(yield* read(endpoint, 0, 100), range(0, 100))
    })
  )

  it.live("what is not committed is not read", () =>
    Effect.gen(function* () {
      const { append, endpoint, setFaults } = yield* broker(10)
      yield* setFaults({ withholdingCommits: true })
      yield* append(place, values(10, 20))
      assert.strictEqual((yield* consumer(endpoint).bounds).end as number, 10)
      const early = yield* Effect.flip(read(endpoint, 15, 20))
      assert.instanceOf(early, Errors.LeaderMoved)
      const reading = yield* Effect.forkChild(read(endpoint, 0, 20))
      yield* append(place, values(20, 30))
      yield* setFaults({ withholdingCommits: false })
      assert.deepStrictEqual((yield* Fiber.join(reading)).slice(0, 20), range(0, 20))
    })
  )

  it.live("retention that overtakes a waiting reader is told", () =>
    Effect.gen(function* () {
      const { append, connections, endpoint, setFaults, trim } = yield* broker(10)
      const arrived = yield* Deferred.make<void>()
      const reading = yield* consumer(endpoint)
        .records(Offset.make(0))
        .pipe(
          Stream.runForEach(() => Deferred.succeed(arrived, undefined)),
          Effect.flip,
          Effect.forkChild
        )
      yield* Deferred.await(arrived)
      yield* until(Effect.map(connections, (count) => count === 1))
      yield* setFaults({ withholdingCommits: true })
      yield* append(place, values(10, 30))
      yield* trim(place, 25)
      yield* setFaults({ withholdingCommits: false })
      const error = yield* Fiber.join(reading)
      assert(error instanceof Errors.OffsetEvicted)
      assert.strictEqual(error.requested, 10)
      assert.isAtLeast(error.available, 20)
    })
  )

  it.live("a leader that moves is followed by the next run", () =>
    Effect.gen(function* () {
      const { append, endpoint, moveLeader } = yield* broker(10, { spus: 2 })
      const seen: Array<number> = []
      const arrived = yield* Deferred.make<void>()
      const reading = yield* consumer(endpoint)
        .records(Offset.make(0))
        .pipe(
          Stream.runForEach((records) =>
            Effect.suspend(() => {
              seen.push(...offsetsOf([records]))
              return Deferred.succeed(arrived, undefined)
            })
          ),
          Effect.flip,
          Effect.forkChild
        )
      yield* Deferred.await(arrived)
      yield* moveLeader(place, 5002)
      assert.instanceOf(yield* Fiber.join(reading), Errors.LeaderMoved)
      assert.deepStrictEqual(seen, range(0, 10))
      yield* append(place, values(10, 20))
      assert.deepStrictEqual(yield* read(endpoint, 10, 20), range(10, 20))
    })
  )

  it.live("closing the scope closes the socket", () =>
    Effect.gen(function* () {
      const { connections, endpoint } = yield* broker(100)
      yield* read(endpoint, 0, 100)
      yield* until(Effect.map(connections, (count) => count === 0))
    })
  )
})

conformance({
  name: "wire",
  make: (options) => make({ timeout: "2 seconds", ...options }),
  codecs: ["none", "gzip", "snappy", "lz4", "zstd"],
  tellsTimestamps: true
})
