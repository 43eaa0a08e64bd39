/**
 * The reader on the vendor's library, `@fluvio/client` 0.14.9, for those who prefer it: `consumer.driver: client`.
 *
 * The library neither takes nor tells an absolute offset, so this reader counts, from the start of the log. That it asks of
 * the SPU itself, in Fluvio's protocol, because the controller, which the library asks, does not learn of retention. What
 * follows from that, and from the library itself:
 *
 * - If retention moves the start while a stream is opened, the attempt fails and is repeated.
 * - It reads what is not committed yet; after a change of leaders such records may have changed.
 * - Checksums of batches are not verified, so damaged bytes pass, and filtered records shift the count.
 * - An offset 2^32 or more records behind the log's start cannot be named.
 * - About 13 000 records a second; each leaks about 160 bytes, so a long-lived process needs to be restarted.
 * - A stream cannot be closed: its connection ends when it is garbage collected. A read that is pending when the scope
 *   closes stays pending, is kept from being collected (that would crash the process) and keeps the process alive until
 *   a record arrives or the server goes.
 * - It cannot be given TLS settings, and it writes its own log lines to stderr (`RUST_LOG=off` ends that).
 */
import { Array, Duration, Effect, Layer, Stream } from "effect"
import { createRequire } from "node:module"
import {
  type Bounds,
  CorruptBatch,
  DriverLimit,
  FluvioConsumer,
  type FluvioError,
  FluvioProtocolError,
  FluvioRecord,
  FluvioSilent,
  FluvioUnreachable,
  LeaderMoved,
  Offset,
  OffsetEvicted,
  type Records,
  refusalAt,
  TopicNotFound
} from "../../src/stream/FluvioConsumer.ts"
import { fetchBounds } from "./Bounds.ts"
import { connectLeader, type Place } from "./Connection.ts"
import { crc32c } from "./Natives.ts"
import { type Cluster, type ClusterOptions, formatAddress, resolve } from "./Profile.ts"

export interface ClientConsumerOptions extends ClusterOptions {
  readonly topic: string
  readonly partition: number
  /** After this time without records the cluster is asked whether there should be any; 10 s. */
  readonly probeInterval?: Duration.Input | undefined
  /** How long the library may take to connect, to open a stream and to answer the probe; 30 s. */
  readonly timeout?: Duration.Input | undefined
}

const driver = "client"

/** Reading ahead of the consumer pauses at this many bytes, or records. */
const maxAhead = { bytes: 1024 * 1024, records: 1000 }

/** `createStream` takes an index of 32 bits, and casts a larger one silently. */
const maxIndex = 0xffff_ffff

/** A longer answer about topics, partitions and servers is taken for nonsense. */
const maxFrameBytes = 16 * 1024 * 1024

interface Settings {
  readonly place: Place
  readonly cluster: ClusterOptions
  readonly probeInterval: Duration.Duration
  readonly timeout: Duration.Duration
}

interface NativeRecord {
  key(): ArrayBuffer | null
  value(): ArrayBuffer
}

type NativeIterator = AsyncIterator<NativeRecord>

/** The library rejects with an array of one string; only mistakes in the arguments are errors. */
const textOf = (cause: unknown): string =>
  Array.isArray(cause) ? cause.join("; ") : cause instanceof Error ? cause.message : String(cause)

const unreachable =
  /socket closed|connection (refused|reset|aborted)|broken pipe|tim(ed|e) ?out|unreachable|offline|not (been )?initialized|out of range|os error/i

/** The library's errors are texts; those that are not known here end the connector. */
const failureOf = (text: string, operation: string, endpoint: string, place: Place, offset: number): FluvioError => {
  const evicted = /Offset (\d+) is evicted\. The next available is (\d+)/.exec(text)
  if (evicted !== null) {
    return new OffsetEvicted({ ...place, requested: Number(evicted[1]), available: Number(evicted[2]) })
  }
  if (/topic was (not found|deleted)|(topic|partition) not found/i.test(text)) {
    return new TopicNotFound(place)
  }
  if (/not (a|the) leader/i.test(text)) {
    return new LeaderMoved({ ...place, reason: text })
  }
  if (/compress/i.test(text)) {
    return new CorruptBatch({ ...place, offset, reason: text })
  }
  return unreachable.test(text)
    ? new FluvioUnreachable({ endpoint, operation, reason: text })
    : new FluvioProtocolError({ endpoint, operation, reason: text })
}

const loadLibrary = Effect.try({
  // The package is CommonJS, and `require` gives it as it is, whatever loads this file.
  try: () => createRequire(import.meta.url)("@fluvio/client") as typeof import("@fluvio/client"),
  catch: () =>
    new DriverLimit({ driver, reason: "the package @fluvio/client is not installed, or not built for this platform" })
})

/** The library, and the cluster as far as both it and the SPUs can be spoken with. */
const prepare = Effect.fnUntraced(function* (options: ClusterOptions) {
  const library = yield* loadLibrary
  const cluster = yield* resolve(options)
  if (cluster.tls !== undefined) {
    return yield* new DriverLimit({ driver, reason: "the profile asks for TLS, which the library cannot be told" })
  }
  return { library, cluster }
})

const boundsOf = (cluster: Cluster, { place, timeout }: Settings): Effect.Effect<Bounds, FluvioError> =>
  connectLeader(cluster, place, { timeout, maxFrameBytes }).pipe(
    Effect.flatMap((leader) => fetchBounds(leader, place)),
    Effect.scoped
  )

/** A connected client of the library, and the ways to use it. */
const connect = Effect.fnUntraced(function* (settings: Settings) {
  const { place, timeout } = settings
  const { cluster, library } = yield* prepare(settings.cluster)
  const { controller } = cluster
  const endpoint = formatAddress(controller)

  /** One call of the library. It has no deadlines of its own: a peer that falls silent would be waited for for ever. */
  const call = <A>(operation: string, run: () => Promise<A>, offset = 0): Effect.Effect<A, FluvioError> =>
    Effect.tryPromise({
      try: run,
      catch: (cause) => failureOf(textOf(cause), operation, endpoint, place, offset)
    }).pipe(
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () => Effect.fail(new FluvioSilent({ endpoint, operation, seconds: Duration.toSeconds(timeout) }))
      })
    )

  const client = yield* call("connect", () => library.default.connect({ host: controller.host, port: controller.port }))
  const bounds = boundsOf(cluster, settings)

  const openStream = Effect.fnUntraced(function* (offset: number, index: number) {
    const consumer = yield* call("partitionConsumer", () => client.partitionConsumer(place.topic, place.partition))
    const beginning = new library.Offset({ index, from: library.OffsetFrom.Beginning })
    const stream = yield* call("createStream", () => consumer.createStream(beginning), offset)
    return stream[Symbol.asyncIterator]()
  })

  return { endpoint, bounds, openStream }
})

/**
 * Iterators with a read pending. If one became unreachable before its read resolves, garbage collection would free what
 * native code still uses, and the process would crash.
 */
const pending = new Set<NativeIterator>()

/**
 * Reads ahead, one read at a time, up to a limit: what has resolved when the consumer comes is its next chunk. A read is
 * never raced or repeated, since the library loses records when two are pending.
 */
class ReadAhead {
  /** The offset of the next record to arrive. */
  next: number
  private readonly iterator: NativeIterator
  private readonly failureOf: (cause: unknown, offset: number) => FluvioError
  private records: globalThis.Array<FluvioRecord> = []
  private size = 0
  private failure: FluvioError | undefined
  private resume: (() => void) | undefined

  constructor(iterator: NativeIterator, from: number, failureOf: (cause: unknown, offset: number) => FluvioError) {
    this.iterator = iterator
    this.next = from
    this.failureOf = failureOf
  }

  /** Whether the consumer has taken everything that arrived. */
  get isEmpty(): boolean {
    return this.records.length === 0
  }

  private ask(): void {
    const isFull = this.records.length >= maxAhead.records || this.size >= maxAhead.bytes
    if (this.failure !== undefined || isFull || pending.has(this.iterator)) {
      return
    }
    pending.add(this.iterator)
    this.iterator
      .next()
      .finally(() => pending.delete(this.iterator))
      .then((result) => this.accept(result))
      .catch((cause: unknown) => this.fail(this.failureOf(cause, this.next)))
  }

  private accept({ done, value }: IteratorResult<NativeRecord>): void {
    if (done === true) {
      // A server that goes before its first response looks like a clean end.
      return this.fail(this.failureOf("Socket closed: the stream ended", this.next))
    }
    const key = value.key()
    const bytes = new Uint8Array(value.value())
    this.records.push(
      new FluvioRecord(
        Offset.make(this.next),
        key === null ? undefined : new Uint8Array(key),
        bytes,
        0,
        bytes.length,
        undefined
      )
    )
    this.size += bytes.length
    this.next++
    this.wake()
    this.ask()
  }

  private wake(): void {
    const { resume } = this
    // The consumer may run, and wait again, before this returns.
    this.resume = undefined
    resume?.()
  }

  /** Ends reading. What was read before is still given out; the first error stays. */
  fail(error: FluvioError): void {
    this.failure ??= error
    this.wake()
  }

  /** What has been read, at least one record. */
  readonly take: Effect.Effect<Records, FluvioError> = Effect.suspend(() => {
    const records = this.records
    if (Array.isArrayNonEmpty(records)) {
      this.records = []
      this.size = 0
      this.ask()
      return Effect.succeed(records)
    }
    return this.failure === undefined ? Effect.andThen(this.arrival, this.take) : Effect.fail(this.failure)
  })

  private readonly arrival = Effect.callback<void>((resume) => {
    this.resume = () => resume(Effect.void)
    this.ask()
  })
}

const openReading = Effect.fnUntraced(function* (settings: Settings, from: number) {
  const { place } = settings
  const { bounds, endpoint, openStream } = yield* connect(settings)

  const before = yield* bounds
  const refused = refusalAt(place, from, before)
  if (refused !== undefined) {
    return yield* refused
  }
  const { start } = before
  const index = from - start
  if (index > maxIndex) {
    return yield* new DriverLimit({
      driver,
      reason: `offset ${from} lies ${index} records behind the start of the log, and the library counts to ${maxIndex}`
    })
  }
  const iterator = yield* openStream(from, index)
  const { start: startAfter } = yield* bounds
  if (startAfter !== start) {
    return yield* new FluvioUnreachable({
      endpoint,
      operation: "createStream",
      reason: `retention moved the start of the log from ${start} to ${startAfter} while the stream was opened`
    })
  }

  const reading = yield* Effect.acquireRelease(
    Effect.sync(
      () => new ReadAhead(iterator, from, (cause, offset) => failureOf(textOf(cause), "read", endpoint, place, offset))
    ),
    (reading) =>
      Effect.sync(() =>
        reading.fail(new FluvioUnreachable({ endpoint, operation: "read", reason: "it was closed on this side" }))
      )
  )

  // The library waits for a silent peer for ever, so somebody else has to look.
  const probe = Effect.gen(function* () {
    let seen = reading.next
    let isLate = false
    for (;;) {
      yield* Effect.sleep(settings.probeInterval)
      if (reading.next === seen && reading.isEmpty) {
        const { end, start } = yield* bounds
        const isOwed = reading.next === seen && end > seen
        if (isOwed && isLate) {
          return yield* Effect.fail(
            start > seen
              ? new OffsetEvicted({ ...place, requested: seen, available: start })
              : new FluvioSilent({ endpoint, operation: "read", seconds: Duration.toSeconds(settings.probeInterval) })
          )
        }
        isLate = isOwed
      } else {
        isLate = false
      }
      seen = reading.next
    }
  }).pipe(Effect.catch((error) => Effect.sync(() => reading.fail(error))))
  yield* Effect.forkScoped(probe)

  return Effect.map(reading.take, Array.of)
})

/** The service for one partition. The library is loaded when a stream is run or the bounds are asked for, not before. */
export const make = (options: ClientConsumerOptions): FluvioConsumer["Service"] => {
  const { partition, probeInterval, timeout, topic, ...cluster } = options
  const settings: Settings = {
    place: { topic, partition },
    cluster,
    probeInterval: Duration.fromInputUnsafe(probeInterval ?? "10 seconds"),
    timeout: Duration.fromInputUnsafe(timeout ?? "30 seconds")
  }
  return FluvioConsumer.of({
    topic,
    partition,
    records: (from) =>
      Stream.unwrap(Effect.map(openReading(settings, from), (pull) => Stream.fromPull(Effect.succeed(pull)))),
    bounds: prepare(settings.cluster).pipe(
      Effect.flatMap(({ cluster }) => boundsOf(cluster, settings)),
      Effect.withSpan("FluvioConsumer.bounds")
    ),
    checksum: crc32c
  })
}

export const layer = (options: ClientConsumerOptions): Layer.Layer<FluvioConsumer> =>
  Layer.sync(FluvioConsumer, () => make(options))
