/**
 * A cluster that does what a test says, on real sockets: also what no healthy server would do.
 */
import { Effect, type Scope } from "effect"
import { type AddressInfo, createServer, type Socket } from "node:net"
import {
  type Api,
  ApiVersions,
  decodeRequest,
  decodeRequestHeader,
  encodeResponse,
  type ErrorCode,
  FetchOffsets,
  FrameSplitter,
  noError,
  Partition,
  ProtocolViolation,
  Spu,
  StreamFetch,
  UpdateOffsets
} from "../../../layers/fluvio/Protocol.ts"
import { encodeBatch, type BatchOptions } from "../../../layers/fluvio/RecordBatch.ts"
import { Reader, type TypeOf } from "../../../layers/fluvio/Wire.ts"

/** One request, and the ways to answer it. */
export interface Call {
  readonly socket: Socket
  readonly key: number
  readonly correlationId: number
  readonly body: Reader
}

export const request = <Request>(call: Call, api: Api<Request, unknown>): Request =>
  decodeRequest(api as Api<Request, never>, call.body)

export const reply = <Response>(
  call: Call,
  api: { readonly response: Api<unknown, Response>["response"] },
  response: Response
) => {
  call.socket.write(frameOf(call, api, response))
}

/** A response as bytes, for tests that send only a part of it, or something else instead. */
export const frameOf = <Response>(
  call: Call,
  api: { readonly response: Api<unknown, Response>["response"] },
  response: Response
): Buffer => Buffer.concat(encodeResponse(api as Api<never, Response>, call.correlationId, response))

/** Listens on a free port of loopback until the scope closes; every request goes to `onCall`. */
export const listen = (onCall: (call: Call) => void): Effect.Effect<number, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
      const sockets = new Set<Socket>()
      const server = createServer((socket) => {
        sockets.add(socket)
        const splitter = new FrameSplitter(1 << 20)
        socket.on("error", () => undefined)
        socket.on("close", () => sockets.delete(socket))
        socket.on("data", (chunk: Buffer) => {
          try {
            for (const frame of splitter.push(chunk)) {
              const body = new Reader(frame)
              const { correlationId, key } = decodeRequestHeader(body)
              onCall({ socket, key, correlationId, body })
            }
          } catch (cause) {
            // A real server hangs up as well; anything else is a mistake in the test.
            if (!(cause instanceof ProtocolViolation)) {
              throw cause
            }
            socket.destroy()
          }
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const close = () => {
          server.close()
          sockets.forEach((socket) => socket.destroy())
        }
        resume(Effect.succeed({ port: (server.address() as AddressInfo).port, close }))
      })
    }),
    ({ close }) => Effect.sync(close)
  ).pipe(Effect.map(({ port }) => port))

const greet = (call: Call, keys: ReadonlyArray<number>) =>
  reply(call, ApiVersions, {
    error: noError,
    apis: keys.map((key) => ({ key, min: 0, max: 25 })),
    platformVersion: "0.18.1"
  })

/** What {@link controller} tells about its only partition, `t-0`. */
export interface Leadership {
  /** Where the leader listens; `undefined` for no leader. */
  readonly port: number | undefined
  /** Up to where the replicas have written. */
  readonly endOffset?: number
}

/** A controller that answers with the leadership of the moment. */
export const controller = (leadership: () => Leadership) =>
  listen((call) => {
    const { endOffset = 0, port } = leadership()
    if (call.key === ApiVersions.key) {
      return greet(call, [1001, 1002, 1003, 1004, 1006])
    }
    if (new Reader(call.body.buffer, call.body.position).bytes(5).toString("latin1", 2) === "SPU") {
      return reply(
        call,
        Spu.list,
        port === undefined
          ? []
          : [
              {
                name: "main-0",
                spec: {
                  id: 5001,
                  kind: 0,
                  publicEndpoint: { port, ingress: [{ hostname: "127.0.0.1", ip: undefined }], encryption: 0 },
                  privateEndpoint: { port, host: "127.0.0.1", encryption: 0 },
                  rack: undefined,
                  publicEndpointLocal: undefined
                },
                status: { resolution: 0 }
              }
            ]
      )
    }
    const replica = { spu: 5001, highWatermark: endOffset, endOffset }
    reply(call, Partition.list, [
      {
        name: "t-0",
        spec: {
          leader: port === undefined ? -1 : 5001,
          replicas: [5001],
          cleanupPolicy: undefined,
          storage: undefined,
          compression: 4,
          deduplication: undefined,
          system: false,
          mirror: undefined
        },
        status: {
          resolution: 1,
          leader: replica,
          liveReplicas: 1,
          replicas: [replica],
          size: 0,
          isBeingDeleted: false,
          baseOffset: 0
        }
      }
    ])
  })

/** What a storage unit does; a test states where it differs from a partition that holds nothing and stays silent. */
export interface Storage {
  readonly onOffsets?: (call: Call) => void
  readonly onFetch?: (call: Call, fetch: TypeOf<typeof StreamFetch.request>) => void
  readonly onAcknowledge?: (call: Call, offset: number) => void
}

export const offsets = (call: Call, startOffset: number, lastStableOffset: number, error: ErrorCode = noError) =>
  reply(call, FetchOffsets, [{ name: "t", partitions: [{ error, partition: 0, startOffset, lastStableOffset }] }])

export const acknowledged = (call: Call, error: ErrorCode = noError) =>
  reply(call, UpdateOffsets, [{ sessionId: 1, error }])

export const storage = ({ onAcknowledge, onFetch, onOffsets }: Storage) =>
  listen((call) => {
    switch (call.key) {
      case ApiVersions.key:
        return greet(call, [0, 1, 1002, 1003, 1005])
      case FetchOffsets.key:
        return onOffsets === undefined ? offsets(call, 0, 0) : onOffsets(call)
      case StreamFetch.key:
        return onFetch?.(call, request(call, StreamFetch))
      case UpdateOffsets.key: {
        const [update] = request(call, UpdateOffsets).offsets
        return onAcknowledge === undefined ? acknowledged(call) : onAcknowledge(call, update?.offset ?? -1)
      }
    }
  })

/** A controller and the storage unit that leads `t-0`: gives the controller's `host:port`. */
export const cluster = (script: Storage) =>
  Effect.gen(function* () {
    const port = yield* storage(script)
    return `127.0.0.1:${yield* controller(() => ({ port }))}`
  })

/** A response of a stream, holding `records`. */
export const fetched = (records: Buffer, error: ErrorCode = noError): TypeOf<typeof StreamFetch.response> => ({
  topic: "t",
  streamId: 1,
  partition: 0,
  error,
  highWatermark: 0,
  nextFilterOffset: 0,
  logStartOffset: 0,
  aborted: undefined,
  records: [records]
})

/** A batch of records whose values are their offsets. */
export const batch = (baseOffset: number, count: number, options: Partial<BatchOptions> = {}, bytes = 0): Buffer =>
  encodeBatch(
    Array.from({ length: count }, (_, index) => ({ value: Buffer.from(String(baseOffset + index).padEnd(bytes)) })),
    { timestamp: 1_700_000_000_000, baseOffset, ...options }
  )
