import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import {
  type Api,
  ApiVersions,
  correlationIdOf,
  decodeRequest,
  decodeRequestHeader,
  decodeResponse,
  encodeRequest,
  encodeResponse,
  errorOf,
  errorText,
  FetchOffsets,
  FrameSplitter,
  noError,
  objectLabel,
  Partition,
  Produce,
  ProtocolViolation,
  Spu,
  StreamFetch,
  Topic,
  UpdateOffsets
} from "../../../layers/fluvio/Protocol.ts"
import { Reader } from "../../../layers/fluvio/Wire.ts"
import { fuzzRuns } from "../../fuzz.ts"

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/[\s|]/g, ""), "hex")

const batch = hex(`
  0000000000000001 00000046 ffffffff 02 f1d3ce5e 0000 00000001 000001a2089e0ec6 000001a2089e0ec6 ffffffffffffffff ffff
  ffffffff 00000002 | 14 00 00 00 01 02 6b 04 7630 00 | 12 00 00 02 01 00 04 7631 00`)

const newTopic = {
  name: "t1",
  dryRun: false,
  timeoutMs: undefined,
  spec: {
    replicas: { type: "computed", partitions: 1, replication: 1, ignoreRack: false },
    cleanupPolicy: undefined,
    storage: undefined,
    compression: 4,
    deduplication: undefined,
    system: false
  }
} as const

interface Golden<Request> {
  readonly api: Api<Request, never>
  readonly correlationId: number
  readonly clientId?: string
  readonly request: Request
  readonly frame: Buffer
}

// Erases the type of the request, which differs from one golden frame to the next.
const golden = <Request>(frame: Golden<Request>): Golden<unknown> => frame as Golden<unknown>

/** Frames that the native client sent. */
const captured = [
  golden({
    api: ApiVersions as Api<unknown, never>,
    correlationId: 1,
    request: { clientVersion: "0.14.9", clientOs: "linux", clientArch: "x86_64" },
    frame: hex("00000027 0012 0002 00000001 0006666c7576696f 0006302e31342e39 00056c696e7578 00067838365f3634")
  }),
  golden({
    api: Spu.watch as Api<unknown, never>,
    correlationId: 1,
    clientId: "dummy",
    request: { epoch: 0, summary: false },
    frame: hex("00000021 03ec 0010 00000001 000564756d6d79 0003535055 00000009 0000000000000000 00")
  }),
  golden({
    api: Topic.create as Api<unknown, never>,
    correlationId: 4,
    request: newTopic,
    frame: hex(`00000030 03e9 0010 00000004 0006666c7576696f 0005546f706963 00000015 00027431 00 00 | 01 00000001
      00000001 00 | 00 00 04 00 00`)
  }),
  golden({
    api: FetchOffsets as Api<unknown, never>,
    correlationId: 2,
    request: { topics: [{ name: "t1", partitions: [0] }], consumerId: undefined },
    frame: hex("00000021 03ea 0017 00000002 0006666c7576696f 00000001 00027431 00000001 00000000 00")
  }),
  golden({
    api: StreamFetch as Api<unknown, never>,
    correlationId: 3,
    request: {
      topic: "t1",
      partition: 0,
      fetchOffset: 0,
      maxBytes: 1_048_890,
      isolation: 0,
      smartModules: undefined,
      consumerId: undefined
    },
    frame: hex(
      "0000002a 03eb 0017 00000003 0006666c7576696f 00027431 00000000 0000000000000000 0010013a 00 00000000 00"
    )
  }),
  golden({
    api: UpdateOffsets as Api<unknown, never>,
    correlationId: 4,
    request: { offsets: [{ offset: 2, sessionId: 1 }] },
    frame: hex("00000020 03ed 0000 00000004 0006666c7576696f 00000001 0000000000000002 00000001")
  }),
  golden({
    api: Produce as Api<unknown, never>,
    correlationId: 1,
    request: {
      transactionalId: undefined,
      acks: 1,
      timeoutMs: 1500,
      topics: [{ name: "t1", partitions: [{ partition: 0, records: [batch] }] }],
      smartModules: undefined
    },
    frame: Buffer.concat([
      hex("00000081 0000 0017 00000001 0006666c7576696f 00 0001 000005dc 00000001 00027431 00000001 00000000 00000052"),
      batch,
      hex("00000000")
    ])
  })
]

describe("golden frames", () => {
  for (const { api, clientId = "fluvio", correlationId, frame, request } of captured) {
    it(`${api.name} is written as the native client writes it`, () => {
      assert.strictEqual(encodeRequest(api, correlationId, clientId, request).toString("hex"), frame.toString("hex"))
    })

    it(`${api.name} of the native client is read`, () => {
      const body = new Reader(frame.subarray(4))
      assert.deepStrictEqual(decodeRequestHeader(body), { key: api.key, version: api.version, correlationId, clientId })
      assert.deepStrictEqual(decodeRequest(api, body), request)
    })
  }

  it("names the type of object before the body is read", () => {
    const body = new Reader(encodeRequest(Topic.create, 4, "fluvio", newTopic).subarray(4))
    decodeRequestHeader(body)
    assert.strictEqual(objectLabel(body), "Topic")
    assert.deepStrictEqual(decodeRequest(Topic.create, body), newTopic)
  })
})

const text = fc.string({ maxLength: 40 })
const u8 = fc.nat(255)
const u16 = fc.nat(65_535)
const u32 = fc.integer({ min: 0, max: 0xffff_ffff })
const i16 = fc.integer({ min: -32_768, max: 32_767 })
const i32 = fc.integer()
const i64 = fc.maxSafeInteger()
const u64 = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn })
const maybe = <A>(value: fc.Arbitrary<A>): fc.Arbitrary<A | undefined> => fc.option(value, { nil: undefined })
const few = <A>(value: fc.Arbitrary<A>): fc.Arbitrary<Array<A>> => fc.array(value, { maxLength: 4 })
const anError = fc.oneof(
  fc.constantFrom(0, 1, 6, 2001, 2007, 3001, 3002).map((code) => errorOf(code)),
  fc.tuple(i64, i64).map(([offset, next]) => errorOf(71, offset, next)),
  text.map((reason) => errorOf(2, reason)),
  fc.tuple(text, maybe(text)).map((fields) => errorOf(6002, ...fields))
)
const records = fc.uint8Array({ maxLength: 9000 }).map((bytes) => (bytes.length === 0 ? [] : [Buffer.from(bytes)]))
const named = <Spec, Status>(spec: fc.Arbitrary<Spec>, status: fc.Arbitrary<Status>) =>
  fc.record({ name: text, spec, status })

const cleanupPolicy = maybe(fc.record({ type: fc.constant("segment" as const), retentionSeconds: u32 }))
const storage = maybe(fc.record({ segmentSize: maybe(u32), maxPartitionSize: maybe(u64) }))
const deduplication = maybe(
  fc.record({
    count: u64,
    age: maybe(fc.record({ seconds: u64, nanoseconds: u32 })),
    uses: text,
    with: few(fc.tuple(text, text))
  })
)
const homePartition = { remoteCluster: text, remoteReplica: text }
const partitionMirror = fc.oneof(
  fc.record({
    type: fc.constant("remote" as const),
    homeCluster: text,
    homeSpuKey: text,
    homeSpu: i32,
    homeSpuEndpoint: text
  }),
  fc.record({ type: fc.constant("home" as const), ...homePartition })
)
const topicMirror = fc.oneof(
  fc.record({
    type: fc.constant("remote" as const),
    homeCluster: text,
    homeSpus: few(fc.record({ id: i32, key: text, endpoint: text }))
  }),
  fc.record({ type: fc.constant("home" as const), partitions: few(fc.record(homePartition)) })
)
const settings = { cleanupPolicy, storage, compression: u8, deduplication, system: fc.boolean() }
const topic = named(
  fc.record({
    replicas: fc.oneof(
      fc.record({
        type: fc.constant("assigned" as const),
        partitions: few(fc.record({ id: u32, replicas: few(i32), mirror: maybe(partitionMirror) }))
      }),
      fc.record({
        type: fc.constant("computed" as const),
        partitions: u32,
        replication: u32,
        ignoreRack: fc.boolean()
      }),
      fc.record({ type: fc.constant("mirror" as const), mirror: topicMirror })
    ),
    ...settings
  }),
  fc.record({
    resolution: u8,
    replicaMap: few(fc.tuple(u32, few(i32))),
    mirrorMap: few(fc.tuple(u32, partitionMirror)),
    reason: text
  })
)
const replicaStatus = fc.record({ spu: i32, highWatermark: i64, endOffset: i64 })
const partition = named(
  fc.record({ leader: i32, replicas: few(i32), ...settings, mirror: maybe(partitionMirror) }),
  fc.record({
    resolution: u8,
    leader: replicaStatus,
    liveReplicas: u32,
    replicas: few(replicaStatus),
    size: i64,
    isBeingDeleted: fc.boolean(),
    baseOffset: i64
  })
)
const endpoint = fc.record({ port: u16, host: text, encryption: u8 })
const spu = named(
  fc.record({
    id: i32,
    kind: u8,
    publicEndpoint: fc.record({
      port: u16,
      ingress: few(fc.record({ hostname: maybe(text), ip: maybe(text) })),
      encryption: u8
    }),
    privateEndpoint: endpoint,
    rack: maybe(text),
    publicEndpointLocal: maybe(endpoint)
  }),
  fc.record({ resolution: u8 })
)
const update = <A>(object: fc.Arbitrary<A>) =>
  fc.record({
    epoch: i64,
    changes: few(fc.record({ type: fc.constantFrom("update" as const, "delete" as const), object })),
    all: few(object)
  })
const statusOfRequest = fc.record({ name: text, error: anError, message: maybe(text) })

interface Exchange {
  readonly api: Api<unknown, unknown>
  readonly request: fc.Arbitrary<unknown>
  readonly response: fc.Arbitrary<unknown>
}
const exchange = <Request, Response>(
  api: Api<Request, Response>,
  request: fc.Arbitrary<Request>,
  response: fc.Arbitrary<Response>
): Exchange => ({ api, request, response })

const listRequest = fc.record({ filters: few(text), summary: fc.boolean(), system: fc.boolean() })
const watchRequest = fc.record({ epoch: i64, summary: fc.boolean() })

const exchanges: ReadonlyArray<Exchange> = [
  exchange(
    ApiVersions,
    fc.record({ clientVersion: text, clientOs: text, clientArch: text }),
    fc.record({ error: anError, apis: few(fc.record({ key: i16, min: i16, max: i16 })), platformVersion: text })
  ),
  exchange(Topic.list, listRequest, few(topic)),
  exchange(Topic.watch, watchRequest, update(topic)),
  exchange(
    Topic.create,
    fc.record({ name: text, dryRun: fc.boolean(), timeoutMs: maybe(u32), spec: topic.map(({ spec }) => spec) }),
    statusOfRequest
  ),
  exchange(Topic.delete, fc.record({ name: text, force: fc.boolean() }), statusOfRequest),
  exchange(Partition.list, listRequest, few(partition)),
  exchange(Partition.watch, watchRequest, update(partition)),
  exchange(Spu.list, listRequest, few(spu)),
  exchange(Spu.watch, watchRequest, update(spu)),
  exchange(
    FetchOffsets,
    fc.record({ topics: few(fc.record({ name: text, partitions: few(u32) })), consumerId: maybe(text) }),
    few(
      fc.record({
        name: text,
        partitions: few(fc.record({ error: anError, partition: u32, startOffset: i64, lastStableOffset: i64 }))
      })
    )
  ),
  exchange(
    StreamFetch,
    fc.record({
      topic: text,
      partition: u32,
      fetchOffset: i64,
      maxBytes: i32,
      isolation: u8,
      smartModules: fc.constant(undefined),
      consumerId: maybe(text)
    }),
    fc.record({
      topic: text,
      streamId: u32,
      partition: u32,
      error: anError,
      highWatermark: i64,
      nextFilterOffset: i64,
      logStartOffset: i64,
      aborted: maybe(few(fc.record({ producerId: i64, firstOffset: i64 }))),
      records
    })
  ),
  exchange(
    UpdateOffsets,
    fc.record({ offsets: few(fc.record({ offset: i64, sessionId: u32 })) }),
    few(fc.record({ sessionId: u32, error: anError }))
  ),
  exchange(
    Produce,
    fc.record({
      transactionalId: maybe(text),
      acks: i16,
      timeoutMs: i32,
      topics: few(fc.record({ name: text, partitions: few(fc.record({ partition: u32, records })) })),
      smartModules: fc.constant(undefined)
    }),
    fc.record({
      topics: few(
        fc.record({
          name: text,
          partitions: few(
            fc.record({ partition: u32, error: anError, baseOffset: i64, logAppendTime: i64, logStartOffset: i64 })
          )
        })
      ),
      throttleMs: i32
    })
  )
]

// Records made by the arbitraries have no prototype; what is compared is their content.
const plain = (value: unknown): unknown =>
  value !== null && typeof value === "object" && !Buffer.isBuffer(value)
    ? Array.isArray(value)
      ? value.map(plain)
      : Object.fromEntries(Object.entries(value).map(([name, field]) => [name, plain(field)]))
    : value

/** Runs a decoder over bytes that may mean nothing: it may refuse them, but in no other way than its own. */
const refusesOrReads = (decode: () => unknown): void => {
  try {
    decode()
  } catch (error) {
    assert.instanceOf(error, ProtocolViolation)
  }
}

describe("messages", () => {
  for (const { api, request, response } of exchanges) {
    it(`${api.name}: whatever is written is read back`, () => {
      fc.assert(
        fc.property(request, i32, (value, correlationId) => {
          const body = new Reader(encodeRequest(api, correlationId, "c", value).subarray(4))
          assert.strictEqual(decodeRequestHeader(body).correlationId, correlationId)
          assert.deepStrictEqual(plain(decodeRequest(api, body)), plain(value))
        }),
        { numRuns: 50 }
      )
      fc.assert(
        fc.property(response, i32, (value, correlationId) => {
          const frame = Buffer.concat(encodeResponse(api, correlationId, value))
          assert.strictEqual(frame.readInt32BE(0), frame.length - 4)
          assert.strictEqual(correlationIdOf(frame.subarray(4)), correlationId)
          assert.deepStrictEqual(plain(decodeResponse(api, frame.subarray(4))), plain(value))
        }),
        { numRuns: 50 }
      )
    })

    it(`${api.name}: bytes that mean nothing are refused`, () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
          refusesOrReads(() => decodeResponse(api, Buffer.from(bytes)))
          refusesOrReads(() => decodeRequest(api, new Reader(Buffer.from(bytes))))
        }),
        fuzzRuns(100)
      )
    })

    it(`${api.name}: damaged responses are refused or read`, () => {
      fc.assert(
        fc.property(response, fc.nat(), u8, fc.nat(), (value, place, byte, cut) => {
          const frame = Buffer.concat(encodeResponse(api, 1, value)).subarray(4)
          frame[place % frame.length] = byte
          refusesOrReads(() => decodeResponse(api, frame))
          refusesOrReads(() => decodeResponse(api, frame.subarray(0, cut % frame.length)))
        }),
        fuzzRuns(100)
      )
    })
  }

  it("a number that has no place in its field is refused when written", () => {
    const partitions = [-1, 2 ** 32, 0.5, Number.NaN]
    for (const partition of partitions) {
      assert.throws(
        () =>
          encodeRequest(FetchOffsets, 1, "c", {
            topics: [{ name: "t", partitions: [partition] }],
            consumerId: undefined
          }),
        ProtocolViolation
      )
    }
  })

  it("a string above 32,767 bytes is refused when written", () => {
    assert.throws(
      () => encodeRequest(Topic.delete, 1, "c", { name: "x".repeat(32_768), force: false }),
      ProtocolViolation
    )
  })

  it("an offset beyond 2^53 is refused when read", () => {
    const frame = Buffer.concat(
      encodeResponse(FetchOffsets, 1, [
        { name: "t", partitions: [{ error: noError, partition: 0, startOffset: 0, lastStableOffset: 7 }] }
      ])
    ).subarray(4)
    frame.writeBigInt64BE(2n ** 53n, frame.length - 8)
    assert.throws(() => decodeResponse(FetchOffsets, frame), /beyond 2\^53/)
  })

  it("an unknown error code is refused by its number", () => {
    const frame = Buffer.concat(encodeResponse(UpdateOffsets, 1, [{ sessionId: 1, error: noError }])).subarray(4)
    frame.writeInt16BE(777, frame.length - 2)
    assert.throws(() => decodeResponse(UpdateOffsets, frame), /unknown error code 777/)
  })

  it("errors read as sentences", () => {
    assert.strictEqual(errorText(errorOf(71, 200, 800)), "OffsetEvicted (71): 200, 800")
    assert.strictEqual(errorText(errorOf(2007)), "TopicDeleted (2007)")
  })
})

const framed = (content: Buffer): Buffer => {
  const length = Buffer.alloc(4)
  length.writeInt32BE(content.length)
  return Buffer.concat([length, content])
}

describe("FrameSplitter", () => {
  it("yields the same frames however the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ minLength: 4, maxLength: 60 }), { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 10 }),
        (contents, sizes) => {
          const bytes = Buffer.concat(contents.map((content) => framed(Buffer.from(content))))
          const splitter = new FrameSplitter(100)
          const frames: Array<Buffer> = []
          for (let at = 0, step = 0; at < bytes.length; step++) {
            const size = sizes[step % sizes.length] as number
            frames.push(...splitter.push(bytes.subarray(at, at + size)))
            at += size
          }
          assert.deepStrictEqual(
            frames.map((frame) => frame.toString("hex")),
            contents.map((content) => Buffer.from(content).toString("hex"))
          )
        }
      )
    )
  })

  it("takes a frame of 32 MB in chunks of 64 KB", () => {
    const content = Buffer.alloc(32 * 1024 * 1024, "0123456789")
    const bytes = framed(content)
    const splitter = new FrameSplitter(content.length)
    const frames: Array<Buffer> = []
    for (let at = 0; at < bytes.length; at += 65_536) {
      frames.push(...splitter.push(bytes.subarray(at, at + 65_536)))
    }
    assert.strictEqual(frames.length, 1)
    assert.isTrue(frames[0]?.equals(content))
  })

  it("refuses a frame above the limit, and a nonsensical length, before it allocates anything", () => {
    for (const length of [101, 0x7fff_ffff, 3, 0, -1]) {
      const head = Buffer.alloc(4)
      head.writeInt32BE(length)
      assert.throws(() => new FrameSplitter(100).push(head), ProtocolViolation)
    }
  })
})
