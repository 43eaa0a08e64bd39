/**
 * The requests and responses that Fluvio's controller (SC) and storage unit (SPU) exchange with a client.
 *
 * Layouts are those of the versions named in {@link Api}, which clusters from 0.11 to 0.18 understand. Every function
 * here is synchronous and throws {@link ProtocolViolation}, nothing else.
 */
import {
  array,
  bool,
  byteParts,
  entries,
  i16,
  i32,
  i64,
  labelled,
  optional,
  ProtocolViolation,
  Reader,
  string,
  struct,
  type TypeOf,
  u16,
  u32,
  u64,
  u8,
  variants,
  type Wire,
  Writer
} from "./Wire.ts"

export { ProtocolViolation }

/** One kind of exchange: a request and the response (or the stream of responses) that carries its correlation id. */
export interface Api<Request, Response> {
  readonly name: string
  readonly key: number
  /** The version of request and response; nothing in a response's frame names it. */
  readonly version: number
  readonly request: Wire<Request>
  readonly response: Wire<Response>
}

const api = <Request, Response>(
  name: string,
  key: number,
  version: number,
  request: Wire<Request>,
  response: Wire<Response>
): Api<Request, Response> => ({ name, key, version, request, response })

const controllerVersion = 16
const storageVersion = 23

/**
 * The outcome that the server reports. `fields` are those of the variant, in order: for `OffsetEvicted`, for example,
 * the requested offset and the next available one.
 */
export interface ErrorCode {
  readonly code: number
  readonly name: string
  readonly fields: ReadonlyArray<string | number | bigint | undefined>
}

type ErrorField = Wire<string | number | bigint | undefined>

const knownErrors: ReadonlyMap<number, readonly [name: string, ...fields: ReadonlyArray<ErrorField>]> = new Map([
  [-1, ["UnknownServerError"]],
  [0, ["None"]],
  [1, ["OffsetOutOfRange"]],
  [2, ["Other", string]],
  [6, ["NotLeaderForPartition"]],
  [7, ["RequestTimedOut", u64, u8]],
  [10, ["MessageTooLarge"]],
  [13, ["PermissionDenied"]],
  [56, ["StorageError"]],
  [60, ["InvalidCreateRequest"]],
  [61, ["InvalidDeleteRequest"]],
  [71, ["OffsetEvicted", i64, i64]],
  [72, ["PartitionFull", string, u32]],
  [73, ["PartitionShortCircuited"]],
  [1000, ["SpuError"]],
  [1001, ["SpuRegistrationFailed"]],
  [1002, ["SpuOffline"]],
  [1003, ["SpuNotFound"]],
  [1004, ["SpuAlreadyExists"]],
  [2000, ["TopicError"]],
  [2001, ["TopicNotFound"]],
  [2002, ["TopicAlreadyExists"]],
  [2003, ["TopicPendingInitialization"]],
  [2004, ["TopicInvalidConfiguration"]],
  [2005, ["TopicNotProvisioned"]],
  [2006, ["TopicInvalidName"]],
  [2007, ["TopicDeleted"]],
  [2008, ["TopicInvalidReplicaType"]],
  [3000, ["PartitionPendingInitialization"]],
  [3001, ["PartitionNotLeader"]],
  [3002, ["FetchSessionNotFound"]],
  [3003, ["OffsetFlushRequestError", string]],
  [3004, ["OffsetManagementDisabled"]],
  [3005, ["MaxRetryReached"]],
  [5000, ["ManagedConnectorError"]],
  [5001, ["ManagedConnectorNotFound"]],
  [5002, ["ManagedConnectorAlreadyExists"]],
  [6000, ["SmartModuleError"]],
  [6001, ["SmartModuleNotFound", string]],
  [6002, ["SmartModuleInvalid", string, optional(string)]],
  [6003, ["SmartModuleInvalidExports", string, string]],
  [6005, ["SmartModuleChainInitError", string]],
  [6007, ["SmartModuleLookBackError", string]],
  [6008, ["SmartModuleMemoryLimitExceeded", u64, u64]],
  [7000, ["TableFormatError"]],
  [7001, ["TableFormatNotFound"]],
  [7002, ["TableFormatAlreadyExists"]],
  [8000, ["DerivedStreamObjectError"]],
  [8001, ["DerivedStreamNotFound", string]],
  [8002, ["DerivedStreamJoinFetchError"]],
  [8003, ["DerivedStreamInvalid", string]],
  [9000, ["CompressionError"]],
  [10000, ["DeduplicationSmartModuleNotLoaded"]],
  [10001, ["DeduplicationSmartModuleNameInvalid", string]],
  [11001, ["MirrorNotFound"]],
  [11002, ["MirrorAlreadyExists"]],
  [11003, ["MirrorProduceFromHome"]],
  [11004, ["MirrorDeleteFromRemote"]],
  [11005, ["MirrorInvalidType"]],
  [11006, ["MirrorProduceFromRemoteNotAllowed"]],
  [12001, ["SystemSpecDeletionAttempt", string, string]],
  [12002, ["SystemSpecUpdatingAttempt", string, string]]
])

// Fields follow the tag without a length, so a code that is not known here cannot be skipped.
const knownError = (code: number) => {
  const known = knownErrors.get(code)
  if (known === undefined) {
    throw new ProtocolViolation(`unknown error code ${code}`)
  }
  return known
}

const errorCode: Wire<ErrorCode> = {
  write: (writer, value) => {
    const [, ...fields] = knownError(value.code)
    writer.i16(value.code)
    fields.forEach((field, index) => field.write(writer, value.fields[index]))
  },
  read: (reader) => {
    const code = reader.i16()
    const [name, ...fields] = knownError(code)
    return { code, name, fields: fields.map((field) => field.read(reader)) }
  }
}

export const errorOf = (code: number, ...fields: ErrorCode["fields"]): ErrorCode => ({
  code,
  name: knownError(code)[0],
  fields
})

/** Success. */
export const noError: ErrorCode = errorOf(0)

/** An error as a person reads it, such as `OffsetEvicted (71): 200, 800`. */
export const errorText = (error: ErrorCode): string =>
  `${error.name} (${error.code})${error.fields.length === 0 ? "" : `: ${error.fields.join(", ")}`}`

/** The first exchange on every connection, with either server. */
export const ApiVersions = api(
  "ApiVersions",
  18,
  2,
  struct({ clientVersion: string, clientOs: string, clientArch: string }),
  struct({
    error: errorCode,
    apis: array(struct({ key: i16, min: i16, max: i16 })),
    /** Semantic version of the cluster; an SPU says 0.0.0. */
    platformVersion: string
  })
)

const cleanupPolicy = variants({ segment: struct({ retentionSeconds: u32 }) })
const storage = struct({ segmentSize: optional(u32), maxPartitionSize: optional(u64) })
const deduplication = struct({
  count: u64,
  age: optional(struct({ seconds: u64, nanoseconds: u32 })),
  uses: string,
  with: entries(string, string)
})
const homePartition = struct({ remoteCluster: string, remoteReplica: string })
const partitionMirror = variants({
  remote: struct({ homeCluster: string, homeSpuKey: string, homeSpu: i32, homeSpuEndpoint: string }),
  home: homePartition
})
const topicMirror = variants({
  remote: struct({ homeCluster: string, homeSpus: array(struct({ id: i32, key: string, endpoint: string })) }),
  home: struct({ partitions: array(homePartition) })
})

const topicSpec = struct({
  replicas: variants({
    assigned: struct({
      partitions: array(struct({ id: u32, replicas: array(i32), mirror: optional(partitionMirror) }))
    }),
    computed: struct({ partitions: u32, replication: u32, ignoreRack: bool }),
    mirror: struct({ mirror: topicMirror })
  }),
  cleanupPolicy: optional(cleanupPolicy),
  storage: optional(storage),
  /** 0 none, 1 gzip, 2 snappy, 3 lz4, 4 any, 5 zstd: not the numbers of a batch's codec. */
  compression: u8,
  deduplication: optional(deduplication),
  system: bool
})
const topicStatus = struct({
  /** 0 init, 1 pending, 2 insufficient resources, 3 invalid configuration, 4 provisioned, 5 deleting. */
  resolution: u8,
  replicaMap: entries(u32, array(i32)),
  mirrorMap: entries(u32, partitionMirror),
  reason: string
})

const replicaStatus = struct({ spu: i32, highWatermark: i64, endOffset: i64 })
const partitionSpec = struct({
  /** The id of the SPU that serves this partition. */
  leader: i32,
  replicas: array(i32),
  cleanupPolicy: optional(cleanupPolicy),
  storage: optional(storage),
  compression: u8,
  deduplication: optional(deduplication),
  system: bool,
  mirror: optional(partitionMirror)
})
const partitionStatus = struct({
  /** 0 offline, 1 online, 2 leader offline, 3 election found a leader. */
  resolution: u8,
  leader: replicaStatus,
  liveReplicas: u32,
  replicas: array(replicaStatus),
  size: i64,
  isBeingDeleted: bool,
  /** Where the log starts; updated some time after the log was trimmed. */
  baseOffset: i64
})

const endpoint = struct({ port: u16, host: string, encryption: u8 })
const spuSpec = struct({
  id: i32,
  /** 0 managed, 1 custom. */
  kind: u8,
  publicEndpoint: struct({
    port: u16,
    ingress: array(struct({ hostname: optional(string), ip: optional(string) })),
    /** 0 plain text, 1 TLS. */
    encryption: u8
  }),
  privateEndpoint: endpoint,
  rack: optional(string),
  publicEndpointLocal: optional(endpoint)
})
const spuStatus = struct({
  /** 0 online, 1 offline, 2 init. */
  resolution: u8
})

/** An object of the controller: what was asked for and what became of it. */
export interface Metadata<Spec, Status> {
  readonly name: string
  readonly spec: Spec
  readonly status: Status
}

/** A first update carries everything in `all`; later ones what changed. */
export interface WatchUpdate<Spec, Status> {
  readonly epoch: number
  readonly changes: ReadonlyArray<{
    readonly type: "update" | "delete"
    readonly object: Metadata<Spec, Status>
  }>
  readonly all: ReadonlyArray<Metadata<Spec, Status>>
}

const objectApis = <Spec, Status>(label: string, spec: Wire<Spec>, status: Wire<Status>) => {
  const metadata: Wire<Metadata<Spec, Status>> = struct({ name: string, spec, status })
  const change = struct({ object: metadata })
  const update: Wire<WatchUpdate<Spec, Status>> = struct({
    epoch: i64,
    changes: array(variants({ update: change, delete: change })),
    all: array(metadata)
  })
  return {
    label,
    /** All objects of the type whose name is in `filters`, or all there are. */
    list: api(
      `List ${label}`,
      1003,
      controllerVersion,
      labelled(label, struct({ filters: array(string), summary: bool, system: bool })),
      labelled(label, array(metadata))
    ),
    /** A stream of updates until the connection ends. */
    watch: api(
      `Watch ${label}`,
      1004,
      controllerVersion,
      labelled(label, struct({ epoch: i64, summary: bool })),
      labelled(label, update)
    )
  }
}

const statusOfRequest = struct({ name: string, error: errorCode, message: optional(string) })

export const Topic = {
  ...objectApis("Topic", topicSpec, topicStatus),
  create: api(
    "Create Topic",
    1001,
    controllerVersion,
    labelled("Topic", struct({ name: string, dryRun: bool, timeoutMs: optional(u32), spec: topicSpec })),
    statusOfRequest
  ),
  delete: api(
    "Delete Topic",
    1002,
    controllerVersion,
    labelled("Topic", struct({ name: string, force: bool })),
    statusOfRequest
  )
}

/** Named `<topic>-<index>`. */
export const Partition = objectApis("Partition", partitionSpec, partitionStatus)

export const Spu = objectApis("SPU", spuSpec, spuStatus)

export type TopicMetadata = Metadata<TypeOf<typeof topicSpec>, TypeOf<typeof topicStatus>>
export type PartitionMetadata = Metadata<TypeOf<typeof partitionSpec>, TypeOf<typeof partitionStatus>>
export type SpuMetadata = Metadata<TypeOf<typeof spuSpec>, TypeOf<typeof spuStatus>>

/** Which type of object a controller's request is about; its body starts with this label. */
export const objectLabel = (body: Reader): string => {
  const start = body.position
  const label = string.read(body)
  body.position = start
  return label
}

const withoutSmartModules: Wire<undefined> = {
  write: (writer) => writer.i32(0),
  read: (reader) => {
    const count = reader.i32()
    if (count > 0) {
      throw new ProtocolViolation(`${count} SmartModules are asked for, none is understood`)
    }
    return undefined
  }
}

/** The bounds of partitions: the log's start, and one past the last committed record. */
export const FetchOffsets = api(
  "FetchOffsets",
  1002,
  storageVersion,
  struct({
    topics: array(struct({ name: string, partitions: array(u32) })),
    /** Makes the server answer with the offset it stored for this consumer; `undefined` for the log's own bounds. */
    consumerId: optional(string)
  }),
  array(
    struct({
      name: string,
      partitions: array(struct({ error: errorCode, partition: u32, startOffset: i64, lastStableOffset: i64 }))
    })
  )
)

/** Records from an offset on: one response now, and one after each {@link UpdateOffsets} or append. */
export const StreamFetch = api(
  "StreamFetch",
  1003,
  storageVersion,
  struct({
    topic: string,
    partition: u32,
    fetchOffset: i64,
    /** A server may cut the last batch of a response at this size. */
    maxBytes: i32,
    /** 0 read uncommitted, 1 read committed. */
    isolation: u8,
    smartModules: withoutSmartModules,
    consumerId: optional(string)
  }),
  struct({
    topic: string,
    /** What {@link UpdateOffsets} calls the session. */
    streamId: u32,
    partition: u32,
    error: errorCode,
    highWatermark: i64,
    /** Where to go on after filtered records; 0 when nothing filters. */
    nextFilterOffset: i64,
    logStartOffset: i64,
    aborted: optional(array(struct({ producerId: i64, firstOffset: i64 }))),
    /** Batches, back to back; at most one part when received. */
    records: byteParts
  })
)

/** Asks for the next response of a stream. It stores nothing. */
export const UpdateOffsets = api(
  "UpdateOffsets",
  1005,
  0,
  struct({ offsets: array(struct({ offset: i64, sessionId: u32 })) }),
  array(struct({ sessionId: u32, error: errorCode }))
)

/** Appends batches. The response answers one entry per entry of the request, in order. */
export const Produce = api(
  "Produce",
  0,
  storageVersion,
  struct({
    transactionalId: optional(string),
    /** 1: the leader has it; negative: it is committed. */
    acks: i16,
    timeoutMs: i32,
    topics: array(struct({ name: string, partitions: array(struct({ partition: u32, records: byteParts })) })),
    smartModules: withoutSmartModules
  }),
  struct({
    topics: array(
      struct({
        name: string,
        partitions: array(
          struct({ partition: u32, error: errorCode, baseOffset: i64, logAppendTime: i64, logStartOffset: i64 })
        )
      })
    ),
    throttleMs: i32
  })
)

const requestHeader = struct({ key: u16, version: i16, correlationId: i32, clientId: string })
export type RequestHeader = TypeOf<typeof requestHeader>

/** The pieces of a frame are to be written one after the other; joining them is left to whoever needs one buffer. */
const frame = (write: (writer: Writer) => void): ReadonlyArray<Buffer> => {
  const writer = new Writer()
  writer.i32(0)
  write(writer)
  const pieces = writer.pieces()
  pieces[0]?.writeInt32BE(writer.length - 4, 0)
  return pieces
}

/** A whole frame, with its length. */
export const encodeRequest = <Request, Response>(
  api: Api<Request, Response>,
  correlationId: number,
  clientId: string,
  request: Request
): Buffer =>
  Buffer.concat(
    frame((writer) => {
      requestHeader.write(writer, { key: api.key, version: api.version, correlationId, clientId })
      api.request.write(writer, request)
    })
  )

/** Reads the header and leaves the reader at the body, for {@link decodeRequest}. */
export const decodeRequestHeader = (body: Reader): RequestHeader => requestHeader.read(body)

/** Reads the body of a request to its end. */
export const decodeRequest = <Request, Response>(api: Api<Request, Response>, body: Reader): Request => {
  const request = api.request.read(body)
  body.finish()
  return request
}

/** A whole frame, with its length, in pieces to be written in order: stored batches go out as they are. */
export const encodeResponse = <Request, Response>(
  api: Api<Request, Response>,
  correlationId: number,
  response: Response
): ReadonlyArray<Buffer> =>
  frame((writer) => {
    writer.i32(correlationId)
    api.response.write(writer, response)
  })

/** Which request a response answers. The frame is without its length, as {@link FrameSplitter} yields it. */
export const correlationIdOf = (frame: Buffer): number => new Reader(frame).i32()

/** The response in a frame that is without its length. Byte runs are views into the frame. */
export const decodeResponse = <Request, Response>(api: Api<Request, Response>, frame: Buffer): Response => {
  const reader = new Reader(frame, 4)
  const response = api.response.read(reader)
  reader.finish()
  return response
}

/** Frames, without their lengths, from the chunks of a socket. Each byte is copied at most once. */
export class FrameSplitter {
  private readonly maxFrameBytes: number
  /** The frame being received, its length, and the first bytes of the next length, whichever is known. */
  private frame: Buffer | undefined
  private received = 0
  private readonly head = Buffer.alloc(4)
  private headReceived = 0

  constructor(maxFrameBytes: number) {
    this.maxFrameBytes = maxFrameBytes
  }

  /** The frames that this chunk completes. A frame above the limit, or with a nonsensical length, is a violation. */
  push(chunk: Buffer): ReadonlyArray<Buffer> {
    const frames: Array<Buffer> = []
    let at = 0
    while (at < chunk.length) {
      if (this.frame === undefined) {
        const copied = chunk.copy(this.head, this.headReceived, at, at + 4 - this.headReceived)
        this.headReceived += copied
        at += copied
        if (this.headReceived < 4) {
          break
        }
        this.headReceived = 0
        const length = this.head.readInt32BE()
        if (length < 4 || length > this.maxFrameBytes) {
          throw new ProtocolViolation(`a frame of ${length} bytes; expected 4 to ${this.maxFrameBytes}`)
        }
        if (length <= chunk.length - at) {
          frames.push(chunk.subarray(at, at + length))
          at += length
        } else {
          this.frame = Buffer.allocUnsafeSlow(length)
          this.received = 0
        }
      } else {
        const copied = chunk.copy(this.frame, this.received, at)
        this.received += copied
        at += copied
        if (this.received === this.frame.length) {
          frames.push(this.frame)
          this.frame = undefined
        }
      }
    }
    return frames
  }
}
