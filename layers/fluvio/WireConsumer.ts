/**
 * The default reader: Fluvio's wire protocol over one socket per stream.
 *
 * A position is absolute here and every record proves its own: the request names the offset, each batch carries the
 * offset the server gave it, and a checksum over its content. So whatever would make a reader skip or repeat silently is
 * seen and becomes an error.
 */
import { Array, Duration, Effect, Layer, Stream } from "effect"
import {
  BatchTooLarge,
  CodecMissing,
  CorruptBatch,
  FluvioConsumer,
  type FluvioError,
  type FluvioRecord,
  FluvioSilent,
  FluvioUnreachable,
  OffsetGap,
  type Records,
  refusalAt
} from "../../src/stream/FluvioConsumer.ts"
import { failureOf, fetchBounds } from "./Bounds.ts"
import { connectLeader, type Place } from "./Connection.ts"
import { crc32c, NativeMissing } from "./Natives.ts"
import { type ClusterOptions, resolve } from "./Profile.ts"
import { errorText, StreamFetch, UpdateOffsets } from "./Protocol.ts"
import { BatchCorrupt, type Batches, decodeRecords, findBatches } from "./RecordBatch.ts"

export interface WireConsumerOptions extends ClusterOptions {
  readonly topic: string
  readonly partition: number
  /** Most bytes asked for in one response; 1 MiB. About two responses are in memory at a time. */
  readonly maxBytes?: number | undefined
  /** A batch that does not fit into a response makes `maxBytes` grow up to this; 64 MiB. */
  readonly maxBatchBytes?: number | undefined
  /** After this time without data the server is asked whether it is still there; 10 s. */
  readonly probeInterval?: Duration.Input | undefined
  /** How long the server may take to accept a connection and to answer a request; 30 s. */
  readonly timeout?: Duration.Input | undefined
}

const mebibyte = 1024 * 1024

/**
 * Most bytes in one element of the stream, unless a single batch holds more; compressed ones may inflate beyond it. Few
 * enough that decoding them takes less than a millisecond, for which everything else in the process waits.
 */
const chunkBytes = mebibyte / 8

/** Room in a frame for what surrounds the batches. */
const frameOverhead = 64 * 1024

const readCommitted = 1

/** Turns the batches of responses into chunks of records, and sees to it that offsets continue. */
class Batcher {
  private readonly place: Place
  /** The offset of the next record to be given out. */
  next: number
  private bytes: Buffer = Buffer.alloc(0)
  private batches: Batches["whole"] = []
  private index = 0
  private broken: FluvioError | undefined

  constructor(place: Place, from: number) {
    this.place = place
    this.next = from
  }

  /** Takes the batches of a response; the ones before must have been given out. */
  accept(bytes: Buffer): Batches {
    this.bytes = bytes
    this.index = 0
    try {
      const found = findBatches(bytes)
      this.batches = found.whole
      return found
    } catch (cause) {
      this.stop(this.unreadable(cause))
      return { whole: [], cut: undefined }
    }
  }

  /** What stands behind the records that {@link take} still gives. */
  get failure(): FluvioError | undefined {
    return this.broken
  }

  /** To be reported behind the records received so far. The first error stays. */
  fail(error: FluvioError): void {
    this.broken ??= error
  }

  /** To be reported now: nothing behind it may be given out, so it comes before any other error. */
  private stop(error: FluvioError): void {
    this.broken = error
    this.batches = []
  }

  /** The next chunk, or `undefined`: then another response is due, unless there is a {@link failure}. */
  take(): Records | undefined {
    const records: Array<FluvioRecord> = []
    let size = 0
    for (;;) {
      const batch = this.batches[this.index]
      if (batch === undefined || (records.length > 0 && size + batch.end - batch.start > chunkBytes)) {
        break
      }
      this.index++
      if (batch.lastOffset < this.next) {
        continue
      }
      let decoded: ReadonlyArray<FluvioRecord>
      try {
        decoded = decodeRecords(this.bytes, batch, this.next)
      } catch (cause) {
        this.stop(this.unreadable(cause))
        break
      }
      const gap = this.gap(decoded, batch.baseOffset, batch.lastOffset)
      if (gap !== undefined) {
        this.stop(gap)
        break
      }
      for (let n = 0; n < decoded.length; n++) {
        size += decoded[n].size
        records.push(decoded[n])
      }
      this.next = batch.lastOffset + 1
    }
    return Array.isReadonlyArrayNonEmpty(records) ? records : undefined
  }

  private gap(records: ReadonlyArray<FluvioRecord>, first: number, last: number): OffsetGap | undefined {
    let expected = this.next
    if (first > expected) {
      return new OffsetGap({ ...this.place, expected, received: first })
    }
    for (let n = 0; n < records.length; n++) {
      const { offset } = records[n]
      if (offset !== expected) {
        return new OffsetGap({ ...this.place, expected, received: offset })
      }
      expected++
    }
    return expected === last + 1 ? undefined : new OffsetGap({ ...this.place, expected, received: last + 1 })
  }

  private unreadable(cause: unknown): CorruptBatch | CodecMissing {
    if (cause instanceof NativeMissing) {
      const { packageName, reason } = cause
      return new CodecMissing({ ...this.place, offset: this.next, package: packageName, reason })
    }
    return cause instanceof BatchCorrupt
      ? new CorruptBatch({ ...this.place, offset: cause.offset, reason: cause.reason })
      : new CorruptBatch({ ...this.place, offset: this.next, reason: String(cause) })
  }
}
interface Settings {
  readonly place: Place
  readonly cluster: ClusterOptions
  readonly maxBytes: number
  readonly maxBatchBytes: number
  readonly probeInterval: Duration.Duration
  readonly timeout: Duration.Duration
}

// The profile is read for every connection, so that a renewed certificate is taken up without a restart.
const connect = Effect.fnUntraced(function* ({ cluster, maxBatchBytes, place, timeout }: Settings) {
  return yield* connectLeader(yield* resolve(cluster), place, {
    timeout,
    maxFrameBytes: maxBatchBytes + frameOverhead
  })
})

/**
 * One reading of the partition, on a connection of its own: a pull that gives the next chunk.
 *
 * A response is acknowledged when its first chunk is taken, so that the server prepares the next one meanwhile: while the
 * consumer holds one response, at most one more waits here, and the rest stays on the server.
 */
const openReading = Effect.fnUntraced(function* (settings: Settings, from: number) {
  const { place } = settings
  const leader = yield* connect(settings)
  const { connection } = leader
  const refused = refusalAt(place, from, yield* fetchBounds(leader, place))
  if (refused !== undefined) {
    return yield* refused
  }

  const scope = yield* Effect.scope
  const batcher = new Batcher(place, from)
  let maxBytes = settings.maxBytes
  /** The offset up to which whole batches have arrived. */
  let received = from
  /** Counts responses, for the probe. */
  let responseCount = 0

  const fetch = Effect.suspend(() =>
    connection.stream(StreamFetch, {
      topic: place.topic,
      partition: place.partition,
      fetchOffset: received,
      maxBytes,
      isolation: readCommitted,
      smartModules: undefined,
      consumerId: undefined
    })
  )
  let responses = yield* fetch

  /** A refusal ends the connection behind the responses that are already here: one of them may say what happened. */
  const acknowledge = (offset: number, sessionId: number) =>
    connection.request(UpdateOffsets, { offsets: [{ offset, sessionId }] }).pipe(
      Effect.map((answers) => {
        const refused = answers.find(({ error }) => error.code !== 0)
        if (refused !== undefined) {
          const reason = errorText(refused.error)
          const { endpoint } = connection
          connection.fail(new FluvioUnreachable({ endpoint, operation: UpdateOffsets.name, reason }))
        }
      }),
      // A connection that failed fails the stream as well.
      Effect.ignore
    )

  /** Asks again from the same place, with room for the batch that did not fit. */
  const grow = Effect.fnUntraced(function* (bytes: number) {
    if (bytes > settings.maxBatchBytes) {
      return batcher.fail(new BatchTooLarge({ ...place, offset: batcher.next, bytes, limit: settings.maxBatchBytes }))
    }
    maxBytes = Math.min(Math.max(bytes, maxBytes * 2), settings.maxBatchBytes)
    responses.close()
    responses = yield* fetch
  })

  const receive = Effect.gen(function* () {
    const response = yield* responses.next
    responseCount++
    const { cut, whole } = batcher.accept(response.records[0] ?? Buffer.alloc(0))
    if (response.error.code !== 0) {
      return batcher.fail(failureOf(response.error, StreamFetch.name, connection.endpoint, place))
    }
    if (cut !== undefined && whole.length === 0) {
      return yield* grow(cut.bytes)
    }
    received = Math.max(received, (whole.at(-1)?.lastOffset ?? -1) + 1)
    const offset = response.nextFilterOffset > 0 ? response.nextFilterOffset : received
    yield* Effect.forkIn(acknowledge(offset, response.streamId), scope)
  }).pipe(Effect.catch((error) => Effect.sync(() => batcher.fail(error))))

  /**
   * Silence is only a fault if the server does not answer either, or if it holds records and sends none: it may have
   * lost the stream, or no longer be the leader, without saying so.
   */
  const probe = Effect.gen(function* () {
    let seen = responseCount
    let isLate = false
    for (;;) {
      yield* Effect.sleep(settings.probeInterval)
      const isSilent = () => responseCount === seen && !responses.isPending()
      if (isSilent()) {
        const { end } = yield* fetchBounds(leader, place)
        const isOwed = isSilent() && end > received
        if (isOwed && isLate) {
          return yield* new FluvioSilent({
            endpoint: connection.endpoint,
            operation: StreamFetch.name,
            seconds: Duration.toSeconds(settings.probeInterval)
          })
        }
        isLate = isOwed
      } else {
        isLate = false
      }
      seen = responseCount
    }
  }).pipe(
    Effect.catch((error) =>
      Effect.sync(() => {
        batcher.fail(error)
        connection.close()
      })
    )
  )
  yield* Effect.forkIn(probe, scope)

  return Effect.gen(function* () {
    for (;;) {
      const records = batcher.take()
      if (records !== undefined) {
        return Array.of(records)
      }
      if (batcher.failure !== undefined) {
        return yield* Effect.fail(batcher.failure)
      }
      yield* receive
    }
  })
})

/** The service for one partition. A connection is made when a stream is run or the bounds are asked for, not before. */
export const make = (options: WireConsumerOptions): FluvioConsumer["Service"] => {
  const { maxBatchBytes, maxBytes, partition, probeInterval, timeout, topic, ...cluster } = options
  const most = maxBytes ?? mebibyte
  const settings: Settings = {
    place: { topic, partition },
    cluster,
    maxBytes: most,
    maxBatchBytes: Math.max(most, maxBatchBytes ?? 64 * mebibyte),
    probeInterval: Duration.fromInputUnsafe(probeInterval ?? "10 seconds"),
    timeout: Duration.fromInputUnsafe(timeout ?? "30 seconds")
  }
  return FluvioConsumer.of({
    topic,
    partition,
    records: (from) =>
      Stream.unwrap(Effect.map(openReading(settings, from), (pull) => Stream.fromPull(Effect.succeed(pull)))),
    bounds: connect(settings).pipe(
      Effect.flatMap((leader) => fetchBounds(leader, settings.place)),
      Effect.scoped,
      Effect.withSpan("FluvioConsumer.bounds")
    ),
    checksum: crc32c
  })
}

export const layer = (options: WireConsumerOptions): Layer.Layer<FluvioConsumer> =>
  Layer.sync(FluvioConsumer, () => make(options))
