/**
 * The contract of reading one partition of a Fluvio topic.
 *
 * Two implementations live in `layers/fluvio`: the wire protocol (default) and the vendor's `@fluvio/client`.
 * Both pass `test/layers/fluvio/conformance.ts`.
 */
import { type Array, Context, type Effect, Schema, type Stream } from "effect"
import { isRetryable, otherTopic, positionSet, untilCaughtUp } from "./Outcome.ts"

/** An absolute offset in a partition: a whole number from 0 to 2^53 - 1. */
export const Offset = Schema.Natural.pipe(Schema.brand("Offset"))
export type Offset = typeof Offset.Type

/** What Fluvio delivers. */
export class FluvioRecord {
  readonly offset: Offset
  readonly key: Uint8Array | undefined
  /** Holds the value, from `start` to before `end`: a view of its own would cost each record as much as its decoding. */
  readonly bytes: Uint8Array
  readonly start: number
  readonly end: number
  /** When the record was produced, in milliseconds since 1970; `undefined` when the driver cannot say. */
  readonly timestamp: number | undefined

  constructor(
    offset: Offset,
    key: Uint8Array | undefined,
    bytes: Uint8Array,
    start: number,
    end: number,
    timestamp: number | undefined
  ) {
    this.offset = offset
    this.key = key
    this.bytes = bytes
    this.start = start
    this.end = end
    this.timestamp = timestamp
  }

  /** A record with a value of its own. */
  static of(offset: Offset, value: Uint8Array): FluvioRecord {
    return new FluvioRecord(offset, undefined, value, 0, value.length, undefined)
  }

  get value(): Uint8Array {
    return this.bytes.subarray(this.start, this.end)
  }

  /** Bytes of the value. */
  get size(): number {
    return this.end - this.start
  }
}

/** A non-empty run of records with contiguous offsets: the unit in which records flow. */
export type Records = Array.NonEmptyReadonlyArray<FluvioRecord>

/** The offsets a partition holds: `start` is the first retained one, `end` is one past the last committed one. */
export interface Bounds {
  readonly start: Offset
  readonly end: Offset
  /** One past the last record that a replica has written, as far as the cluster knows; at least `end`. */
  readonly written: Offset
}

const place = { topic: Schema.String, partition: Schema.Natural }

/** Retention removed the wanted record. */
export class OffsetEvicted extends Schema.TaggedError<OffsetEvicted>()("OffsetEvicted", {
  ...place,
  requested: Schema.Natural,
  available: Schema.Natural
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = `the records in between are gone: run ${positionSet("--first-whole-transaction --allow-loss")}, with the same settings, and only then copy the tables from the source again; ${untilCaughtUp}`
  override get message() {
    return `offset ${this.requested} of ${this.topic}-${this.partition} was removed by retention; the first available is ${this.available}`
  }
}

/** The wanted offset lies behind the end of the log: the topic was re-created or belongs to another cluster. */
export class OffsetBeyondEnd extends Schema.TaggedError<OffsetBeyondEnd>()("OffsetBeyondEnd", {
  ...place,
  requested: Schema.Natural,
  end: Schema.Natural
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = `the topic was re-created, this is another cluster, or the position was set by hand to where the topic has nothing: ${otherTopic}`
  override get message() {
    return `offset ${this.requested} of ${this.topic}-${this.partition} lies beyond its end ${this.end}`
  }
}

/**
 * Why nothing can be read at `from`, if so. A new leader may know for a moment that it has a record, but not yet that it is
 * committed: this passes. A record that no replica has written will not come back.
 */
export const refusalAt = (
  place: { readonly topic: string; readonly partition: number },
  from: number,
  { end, start, written }: Bounds
): OffsetEvicted | OffsetBeyondEnd | LeaderMoved | undefined => {
  if (from < start) return new OffsetEvicted({ ...place, requested: from, available: start })
  if (from <= end) return undefined
  return from <= written
    ? new LeaderMoved({ ...place, reason: `offset ${from} is written, but committed only up to ${end}` })
    : new OffsetBeyondEnd({ ...place, requested: from, end })
}

/** The cluster does not know the topic or the partition. */
export class TopicNotFound extends Schema.TaggedError<TopicNotFound>()("TopicNotFound", {
  ...place,
  /** The topic's partitions, where the cluster named them; none if it does not know the topic. */
  partitions: Schema.optionalKey(Schema.Array(Schema.Natural))
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    const known = this.partitions ?? []
    return known.length > 0
      ? `set \`partition\` to ${known.length === 1 ? known[0] : `one of ${known.join(", ")}`}`
      : `create it with \`fluvio topic create ${this.topic}\`, or correct \`topic\``
  }
  override get message() {
    const known = this.partitions ?? []
    return known.length > 0
      ? `the topic ${this.topic} has no partition ${this.partition}; it has ${known.join(", ")}`
      : `the cluster does not know the topic ${this.topic}${this.partitions === undefined ? `, or its partition ${this.partition}` : ""}`
  }
}

/** A batch failed its CRC-32C, its codec or its own lengths. Nothing of it was emitted. */
export class CorruptBatch extends Schema.TaggedError<CorruptBatch>()("CorruptBatch", {
  ...place,
  offset: Schema.Natural,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "the log is damaged at this offset: repair the replica, then start again; nothing was skipped"
  override get message() {
    return `the batch at offset ${this.offset} of ${this.topic}-${this.partition} is corrupt: ${this.reason}`
  }
}

/** A batch is compressed in a way that needs a package, and the package is not installed. Nothing of it was emitted. */
export class CodecMissing extends Schema.TaggedError<CodecMissing>()("CodecMissing", {
  ...place,
  offset: Schema.Natural,
  package: Schema.String,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    return `install it with \`npm install ${this.package}\` and without \`--omit=optional\`, then start again; batches without compression, or of gzip or zstd, need no package`
  }
  override get message() {
    return `the batch at offset ${this.offset} of ${this.topic}-${this.partition} can only be unpacked with the package ${this.package}, which cannot be loaded: ${this.reason}`
  }
}

/** A batch is larger than the reader is willing to hold. */
export class BatchTooLarge extends Schema.TaggedError<BatchTooLarge>()("BatchTooLarge", {
  ...place,
  offset: Schema.Natural,
  bytes: Schema.Natural,
  limit: Schema.Natural
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "raise `consumer.max-bytes` above the size of the batch; the process needs a few times that memory"
  override get message() {
    return `the batch at offset ${this.offset} of ${this.topic}-${this.partition} has ${this.bytes} bytes, more than the ${this.limit} allowed`
  }
}

/** Offsets did not continue without a gap. */
export class OffsetGap extends Schema.TaggedError<OffsetGap>()("OffsetGap", {
  ...place,
  expected: Schema.Natural,
  received: Schema.Natural
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy =
    "records are missing in the log or a filter removed them: this connector needs the raw, complete log"
  override get message() {
    return `${this.topic}-${this.partition} continued at offset ${this.received} instead of ${this.expected}`
  }
}

/** The partition's leader moved; the next attempt looks it up again. */
export class LeaderMoved extends Schema.TaggedError<LeaderMoved>()("LeaderMoved", {
  ...place,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "check with `fluvio cluster spu list` that the SPU that leads the partition is online"
  override get message() {
    return `the leader of ${this.topic}-${this.partition} moved or is away: ${this.reason}`
  }
}

/** Connecting, or an open connection, failed. */
export class FluvioUnreachable extends Schema.TaggedError<FluvioUnreachable>()("FluvioUnreachable", {
  endpoint: Schema.String,
  operation: Schema.String,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "check that the cluster runs and that `consumer.endpoint` (or the active Fluvio profile) names it"
  override get message() {
    return `${this.operation} at ${this.endpoint} failed: ${this.reason}`
  }
}

/** The peer stayed silent past the deadline although the connection is open. */
export class FluvioSilent extends Schema.TaggedError<FluvioSilent>()("FluvioSilent", {
  endpoint: Schema.String,
  operation: Schema.String,
  seconds: Schema.Finite
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "check that the cluster answers at that endpoint, and raise `consumer.timeout` if it needs longer"
  override get message() {
    return `${this.endpoint} did not answer ${this.operation} for ${this.seconds} s`
  }
}

/** The peer refused a request, or sent a frame that cannot be understood. */
export class FluvioProtocolError extends Schema.TaggedError<FluvioProtocolError>()("FluvioProtocolError", {
  endpoint: Schema.String,
  operation: Schema.String,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy =
    "set `consumer.endpoint` (or the active Fluvio profile) to the public endpoint of a Fluvio cluster of version 0.11 to 0.18, which is port 9003 by default"
  override get message() {
    return `${this.endpoint} answered ${this.operation} with something unexpected: ${this.reason}`
  }
}

/** TLS could not be agreed on: wrong authority, wrong name, expired or missing certificate. */
export class FluvioTlsError extends Schema.TaggedError<FluvioTlsError>()("FluvioTlsError", {
  endpoint: Schema.String,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy =
    "correct the `tls` section of the Fluvio profile (tls_policy, domain, ca_cert, cert, key) and leave `consumer.endpoint` out, or renew the certificate"
  override get message() {
    return `TLS with ${this.endpoint} failed: ${this.reason}`
  }
}

/** The endpoint could not be found: no setting, no environment, no usable Fluvio profile. */
export class FluvioProfileError extends Schema.TaggedError<FluvioProfileError>()("FluvioProfileError", {
  path: Schema.String,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "set `consumer.endpoint`, or select a profile with `fluvio profile switch <name>`"
  override get message() {
    return `no Fluvio endpoint: ${this.path}: ${this.reason}`
  }
}

/** The chosen driver cannot do what is asked. */
export class DriverLimit extends Schema.TaggedError<DriverLimit>()("DriverLimit", {
  driver: Schema.String,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "use `consumer.driver: wire`"
  override get message() {
    return `the ${this.driver} driver cannot go on: ${this.reason}`
  }
}

export type FluvioError =
  | OffsetEvicted
  | OffsetBeyondEnd
  | TopicNotFound
  | CorruptBatch
  | CodecMissing
  | BatchTooLarge
  | OffsetGap
  | LeaderMoved
  | FluvioUnreachable
  | FluvioSilent
  | FluvioProtocolError
  | FluvioTlsError
  | FluvioProfileError
  | DriverLimit

/** Which partitions a topic has, by the names that the cluster gives to partitions, such as `orders-0`. */
export const partitionsOf = (topic: string, names: ReadonlyArray<string>): ReadonlyArray<number> =>
  names
    .flatMap((name) => (name.startsWith(`${topic}-`) ? [name.slice(topic.length + 1)] : []))
    .filter((number) => /^\d+$/.test(number))
    .map(Number)
    .toSorted((a, b) => a - b)

/**
 * One partition of one topic.
 *
 * It never skips, never clamps and never invents: whatever stands between the reader and the wanted record is a
 * {@link FluvioError}. Backpressure is real: no more than about two responses are held in memory ahead of the
 * consumer of the stream. Closing the scope closes the socket.
 */
export class FluvioConsumer extends Context.Service<
  FluvioConsumer,
  {
    readonly topic: string
    readonly partition: number
    /**
     * Records from the absolute offset `from`, without end. The first record emitted has exactly the offset `from`,
     * and each next one continues without a gap. `from` may equal the end of the log: the stream then waits.
     */
    records(from: Offset): Stream.Stream<Records, FluvioError>
    /** What the partition holds now. */
    readonly bounds: Effect.Effect<Bounds, FluvioError>
    /** CRC-32C (unsigned) of a record's value, the checksum that the stored position carries. */
    checksum(value: Uint8Array): number
  }
>()("fluvio-postgres-sink/FluvioConsumer") {}
