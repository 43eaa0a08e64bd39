/** What a partition holds, and what the servers' errors mean; for both readers. */
import { Effect } from "effect"
import {
  type Bounds,
  type FluvioError,
  FluvioProtocolError,
  FluvioUnreachable,
  LeaderMoved,
  Offset,
  OffsetEvicted,
  TopicNotFound
} from "../../src/stream/FluvioConsumer.ts"
import type { Leader, Place } from "./Connection.ts"
import { type ErrorCode, errorText, FetchOffsets } from "./Protocol.ts"

/** Errors that pass by themselves, or that asking for the bounds anew turns into one that says more. */
const transient: ReadonlySet<string> = new Set([
  "OffsetOutOfRange",
  "RequestTimedOut",
  "SpuOffline",
  "TopicPendingInitialization",
  "PartitionPendingInitialization"
])

/** What an error of the servers means. */
export const failureOf = (error: ErrorCode, operation: string, endpoint: string, place: Place): FluvioError => {
  const reason = errorText(error)
  switch (error.name) {
    case "NotLeaderForPartition":
    case "PartitionNotLeader":
      return new LeaderMoved({ ...place, reason })
    case "TopicNotFound":
    case "TopicDeleted":
      return new TopicNotFound(place)
    case "OffsetEvicted": {
      const [requested, available] = error.fields.map((field) => Math.max(0, Number(field)))
      return new OffsetEvicted({ ...place, requested: requested ?? 0, available: available ?? 0 })
    }
    default:
      return transient.has(error.name)
        ? new FluvioUnreachable({ endpoint, operation, reason })
        : new FluvioProtocolError({ endpoint, operation, reason })
  }
}

/**
 * What the partition holds, as the SPU that leads it says. The controller's word counts only for what other replicas have
 * written: its base offset stays 0 when retention removes segments, and its ends come late.
 */
export const fetchBounds = Effect.fnUntraced(function* (
  { connection, partition: { status } }: Leader,
  place: Place
): Effect.fn.Return<Bounds, FluvioError> {
  const topics = yield* connection.request(FetchOffsets, {
    topics: [{ name: place.topic, partitions: [place.partition] }],
    consumerId: undefined
  })
  const { endpoint } = connection
  const operation = FetchOffsets.name
  const found = topics
    .find(({ name }) => name === place.topic)
    ?.partitions.find(({ partition }) => partition === place.partition)
  if (found === undefined) {
    return yield* new FluvioProtocolError({ endpoint, operation, reason: "the answer is about another partition" })
  }
  if (found.error.code !== 0) {
    return yield* Effect.fail(failureOf(found.error, operation, endpoint, place))
  }
  const { lastStableOffset: end, startOffset: start } = found
  if (start < 0 || end < start) {
    return yield* new FluvioProtocolError({ endpoint, operation, reason: `the log reaches from ${start} to ${end}` })
  }
  const written = Math.max(end, status.leader.endOffset, ...status.replicas.map(({ endOffset }) => endOffset))
  return { start: Offset.make(start), end: Offset.make(end), written: Offset.make(written) }
})
