/** Writing records to one partition, on any Fluvio cluster: what tools and tests of this project produce with. */
import { Clock, Duration, Effect, Exit, Scope, Semaphore } from "effect"
import {
  FluvioProtocolError,
  type FluvioProfileError,
  FluvioUnreachable,
  LeaderMoved,
  TopicNotFound
} from "../../src/stream/FluvioConsumer.ts"
import { connectLeader, type Connection, type ConnectionError, type Place } from "./Connection.ts"
import { type ClusterOptions, resolve } from "./Profile.ts"
import { type ErrorCode, errorText, Produce } from "./Protocol.ts"
import { type Codec, encodeBatch, type NewRecord } from "./RecordBatch.ts"

export interface ProducerOptions extends ClusterOptions, Place {
  readonly codec?: Codec
  /** About how many bytes of keys and values make up a batch; 1 MiB. A larger record is a batch of its own. */
  readonly batchBytes?: number
  /** How long the server may take to accept a connection, and to commit what it was sent; 30 s. */
  readonly timeout?: Duration.Input
}

export type ProducerError = ConnectionError | FluvioProfileError | LeaderMoved | TopicNotFound

export interface Producer {
  /**
   * Appends the records in order, and succeeds once all of them are committed. Calls are served one after the other.
   *
   * Gotcha: of a call that failed, a part may have been appended, from the first record on. Sending again is up to the
   * caller; the next call connects anew.
   */
  send(records: ReadonlyArray<NewRecord>): Effect.Effect<void, ProducerError>
}

const mebibyte = 1024 * 1024
/** Batches travel together up to about this many bytes. */
const requestBytes = 4 * mebibyte
const committed = -1

const failureOf = (error: ErrorCode, endpoint: string, place: Place): ProducerError => {
  const reason = errorText(error)
  switch (error.name) {
    case "NotLeaderForPartition":
    case "PartitionNotLeader":
      return new LeaderMoved({ ...place, reason })
    case "TopicNotFound":
    case "TopicDeleted":
      return new TopicNotFound(place)
    case "RequestTimedOut":
      return new FluvioUnreachable({ endpoint, operation: Produce.name, reason })
    default:
      return new FluvioProtocolError({ endpoint, operation: Produce.name, reason })
  }
}

/** Consecutive runs of items whose sizes sum up to no more than `limit`, unless one item alone is larger. */
const runs = <A>(items: ReadonlyArray<A>, limit: number, sizeOf: (item: A) => number): Array<ReadonlyArray<A>> => {
  const found: Array<ReadonlyArray<A>> = []
  let start = 0
  let size = 0
  items.forEach((item, index) => {
    const bytes = sizeOf(item)
    if (index > start && size + bytes > limit) {
      found.push(items.slice(start, index))
      start = index
      size = 0
    }
    size += bytes
  })
  if (start < items.length) {
    found.push(items.slice(start))
  }
  return found
}

const recordBytes = ({ key, value }: NewRecord): number => (key?.length ?? 0) + value.length

/** A producer that connects when it is first used. Its connection closes with the scope. */
export const make = Effect.fn("Producer.make")(function* ({
  batchBytes = mebibyte,
  codec = "none",
  partition,
  timeout = "30 seconds",
  topic,
  ...clusterOptions
}: ProducerOptions): Effect.fn.Return<Producer, never, Scope.Scope> {
  const place: Place = { topic, partition }
  const deadline = Duration.fromInputUnsafe(timeout)
  const scope = yield* Effect.scope
  const turns = yield* Semaphore.make(1)
  let current: { readonly connection: Connection; readonly scope: Scope.Closeable } | undefined

  const connect = Effect.gen(function* () {
    if (current !== undefined) {
      return current.connection
    }
    const own = yield* Scope.fork(scope)
    const { connection } = yield* connectLeader(yield* resolve(clusterOptions), place, {
      timeout: deadline,
      maxFrameBytes: mebibyte
    }).pipe(
      Scope.provide(own),
      Effect.onError(() => Scope.close(own, Exit.void))
    )
    current = { connection, scope: own }
    return connection
  })

  const disconnect = Effect.suspend(() => {
    const closing = current
    current = undefined
    return closing === undefined ? Effect.void : Scope.close(closing.scope, Exit.void)
  })

  const append = Effect.fnUntraced(function* (batches: ReadonlyArray<Buffer>) {
    const connection = yield* connect
    const { topics } = yield* connection.request(Produce, {
      transactionalId: undefined,
      acks: committed,
      timeoutMs: Math.min(Math.ceil(Duration.toMillis(deadline)), 0x7fff_ffff),
      topics: [{ name: topic, partitions: batches.map((batch) => ({ partition, records: [batch] })) }],
      smartModules: undefined
    })
    const answers = topics.find(({ name }) => name === topic)?.partitions ?? []
    const refused = answers.find(({ error }) => error.code !== 0)
    if (refused !== undefined) {
      return yield* Effect.fail(failureOf(refused.error, connection.endpoint, place))
    }
    if (answers.length !== batches.length) {
      const reason = `${answers.length} answers to ${batches.length} batches`
      return yield* new FluvioProtocolError({ endpoint: connection.endpoint, operation: Produce.name, reason })
    }
  })

  const send = Effect.fn("Producer.send")(
    function* (records: ReadonlyArray<NewRecord>): Effect.fn.Return<void, ProducerError> {
      const timestamp = yield* Clock.currentTimeMillis
      // Encoded request by request, so that a large call is in memory only once.
      const requests = runs(runs(records, batchBytes, recordBytes), requestBytes, (batch) =>
        batch.reduce((total, record) => total + recordBytes(record), 0)
      )
      for (const request of requests) {
        yield* append(request.map((batch) => encodeBatch(batch, { codec, timestamp })))
      }
    },
    Effect.onError(() => disconnect),
    turns.withPermit
  )
  return { send }
})
