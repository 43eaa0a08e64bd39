/**
 * One connection to a Fluvio server, shared by any number of requests, and the way to the server that leads a partition.
 *
 * Nothing here waits for ever: what the peer owes has a deadline, and a peer that misses it, breaks off or sends bytes
 * that no Fluvio server sends loses the connection with a typed error. Only a stream that holds nothing new may rest.
 */
import { Duration, Effect, Redacted, type Scope } from "effect"
import { connect as connectTcp, isIP, type Socket } from "node:net"
import { checkServerIdentity, connect as connectTls } from "node:tls"
import {
  FluvioProtocolError,
  FluvioSilent,
  FluvioTlsError,
  FluvioUnreachable,
  LeaderMoved,
  partitionsOf,
  TopicNotFound
} from "../../src/stream/FluvioConsumer.ts"
import { type Address, type Cluster, formatAddress, type Tls } from "./Profile.ts"
import {
  type Api,
  ApiVersions,
  correlationIdOf,
  decodeResponse,
  encodeRequest,
  errorText,
  FrameSplitter,
  Partition,
  type PartitionMetadata,
  ProtocolViolation,
  Spu,
  type SpuMetadata
} from "./Protocol.ts"

export type ConnectionError = FluvioUnreachable | FluvioSilent | FluvioProtocolError | FluvioTlsError

export interface ConnectionOptions {
  /** How long the peer may take to accept the connection, and to answer a request, unless bytes keep arriving. */
  readonly timeout: Duration.Duration
  /** A longer frame is taken for nonsense. No more than this is ever allocated for one. */
  readonly maxFrameBytes: number
}

/** One partition of a topic. */
export interface Place {
  readonly topic: string
  readonly partition: number
}

/** The responses to one streaming request, in order. */
export interface Responses<A> {
  /** The next response. What arrived before the connection failed is delivered before its error. One call at a time. */
  readonly next: Effect.Effect<A, ConnectionError>
  /** Whether a response is waiting to be taken. */
  readonly isPending: () => boolean
  /** Responses that still arrive are dropped; the protocol has no way to end a stream but the connection's end. */
  readonly close: () => void
}

interface Waiter {
  readonly operation: string
  readonly accept: (frame: Buffer) => void
  readonly fail: (error: ConnectionError) => void
}

/** Frames that wait unread before the socket is paused. A server that honours acknowledgements never reaches it. */
const maxPending = 2

/** Bytes that must arrive within the deadline for the peer to count as alive while it owes an answer. */
const leastProgress = 1024

const clientId = "fluvio-postgres-sink"

/** Stands for the server's acceptance of the connection; correlation ids start at 1. */
const opening = 0

/** Verification failures carry OpenSSL's names, failures of the handshake itself start with `ERR_SSL` or `ERR_TLS`. */
const isTlsFailure = (code: string): boolean =>
  /^(ERR_SSL|ERR_TLS|ERR_OSSL|CERT_|CRL_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH|EPROTO)/.test(
    code
  )

/** OpenSSL names what it read as the wrong version of TLS, when it was no TLS at all. */
const tlsReasonOf = (error: NodeJS.ErrnoException): string =>
  /WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST/.test(error.code ?? "")
    ? "the server does not speak TLS"
    : error.message

/** A host with several addresses fails with all their errors in one, whose own message is empty. */
const reasonOf = (cause: unknown): string =>
  cause instanceof AggregateError
    ? cause.errors.map(reasonOf).join("; ")
    : cause instanceof Error
      ? cause.message
      : String(cause)

/** What answers with these first bytes, when it is not a Fluvio server in the clear. */
const strangerOf = (first: Buffer): string | undefined => {
  const text = first.toString("latin1", 0, 16)
  // An alert or a handshake of TLS, version 3.x.
  if ((first[0] === 0x15 || first[0] === 0x16) && first[1] === 0x03) return "tls"
  if (/^HTTP\/\d/.test(text)) return "an HTTP server"
  if (text.startsWith("SSH-")) return "an SSH server"
  return /^[\t\r\n -~]{4,}$/.test(text) ? "a server that speaks in text" : undefined
}

const dial = (address: Address, tls: Tls | undefined, spu: string | undefined): Socket => {
  if (tls === undefined) {
    return connectTcp(address)
  }
  if (tls.policy === "anonymous") {
    const name = isIP(address.host) === 0 ? { servername: address.host } : {}
    return connectTls({ ...address, ...name, rejectUnauthorized: false })
  }
  const name = spu === undefined ? tls.domain : `${spu}.${tls.domain}`
  return connectTls({
    ...address,
    // A server name must not be an IP address; the certificate is checked against `domain` in any case.
    ...(isIP(tls.domain) === 0 ? { servername: name } : {}),
    ca: tls.authority,
    ...(tls.identity === undefined ? {} : { cert: tls.identity.certificate, key: Redacted.value(tls.identity.key) }),
    checkServerIdentity: (_, certificate) =>
      checkServerIdentity(name, certificate) && checkServerIdentity(tls.domain, certificate)
  })
}

/** Made by {@link connect}. */
export class Connection {
  /** `host:port`, as errors name it. */
  readonly endpoint: string
  private readonly socket: Socket
  private readonly timeout: Duration.Duration
  private readonly splitter: FrameSplitter
  private readonly waiters = new Map<number, Waiter>()
  private lastId = 0
  private isOpen = false
  private failure: ConnectionError | undefined
  /** Until the first frame has shown that this is a Fluvio server. */
  private isStranger = true

  constructor(address: Address, tls: Tls | undefined, spu: string | undefined, options: ConnectionOptions) {
    this.endpoint = formatAddress(address)
    this.timeout = options.timeout
    this.splitter = new FrameSplitter(options.maxFrameBytes)
    this.socket = dial(address, tls, spu)
    this.socket.setNoDelay(true)
    this.socket.setKeepAlive(true, Duration.toMillis(options.timeout))
    this.socket.once(tls === undefined ? "connect" : "secureConnect", () => {
      this.isOpen = true
      this.waiters.get(opening)?.accept(Buffer.alloc(0))
    })
    this.socket.on("data", (chunk: Buffer) => this.receive(chunk))
    this.socket.on("error", (error: NodeJS.ErrnoException) => {
      this.fail(
        tls !== undefined && isTlsFailure(error.code ?? "")
          ? new FluvioTlsError({ endpoint: this.endpoint, reason: tlsReasonOf(error) })
          : this.unreachable(
              tls !== undefined && !this.isOpen && error.code === "ECONNRESET"
                ? "the server closed the connection instead of agreeing on TLS; perhaps it has none"
                : reasonOf(error)
            )
      )
    })
    this.socket.on("close", () => {
      const hint =
        this.isStranger && tls === undefined && this.isOpen ? " before it answered; perhaps it expects TLS" : ""
      this.fail(this.unreachable(`the peer closed the connection${hint}`))
    })
  }

  private unreachable(reason: string): FluvioUnreachable {
    return new FluvioUnreachable({ endpoint: this.endpoint, operation: this.isOpen ? "reading" : "connecting", reason })
  }

  private receive(chunk: Buffer): void {
    let operation = "reading"
    try {
      const stranger = this.isStranger ? strangerOf(chunk) : undefined
      if (stranger === "tls") {
        const reason = "the server speaks TLS, and this connector was told of none"
        return this.fail(new FluvioTlsError({ endpoint: this.endpoint, reason }))
      }
      if (stranger !== undefined) throw new ProtocolViolation(`it is ${stranger}, and no Fluvio server`)
      for (const frame of this.splitter.push(chunk)) {
        this.isStranger = false
        const id = correlationIdOf(frame)
        const waiter = this.waiters.get(id)
        if (waiter !== undefined) {
          operation = waiter.operation
          waiter.accept(frame)
        } else if (id <= opening || id > this.lastId) {
          throw new ProtocolViolation(`a response to request ${id}, which was never sent`)
        }
      }
    } catch (cause) {
      this.fail(new FluvioProtocolError({ endpoint: this.endpoint, operation, reason: reasonOf(cause) }))
    }
  }

  /** Ends the connection; everything that waits, and every later request, fails with the first error given. */
  fail(error: ConnectionError): void {
    if (this.failure !== undefined) {
      return
    }
    this.failure = error
    this.socket.destroy()
    const waiting = [...this.waiters.values()]
    this.waiters.clear()
    for (const waiter of waiting) {
      waiter.fail(error)
    }
  }

  /** Closes the socket. */
  close(): void {
    this.fail(this.unreachable("it was closed on this side"))
  }

  private send<Request>(api: Api<Request, unknown>, request: Request): number {
    const id = (this.lastId = this.lastId === 0x7fff_ffff ? 1 : this.lastId + 1)
    this.socket.write(encodeRequest(api, id, clientId, request))
    return id
  }

  /** One answer by the peer, by the deadline. */
  private answer<A>(
    operation: string,
    send: () => number,
    decode: (frame: Buffer) => A
  ): Effect.Effect<A, ConnectionError> {
    return Effect.callback<A, ConnectionError>((resume) => {
      if (this.failure !== undefined) {
        return resume(Effect.fail(this.failure))
      }
      const id = send()
      this.waiters.set(id, {
        operation,
        accept: (frame) => {
          const value = decode(frame)
          this.waiters.delete(id)
          resume(Effect.succeed(value))
        },
        fail: (error) => resume(Effect.fail(error))
      })
      return Effect.sync(() => this.waiters.delete(id))
    }).pipe(Effect.raceFirst(this.silence(operation)))
  }

  /** Fails, and ends the connection, when the deadline passes without progress: a large response may take longer. */
  private silence(operation: string): Effect.Effect<never, FluvioSilent> {
    const { endpoint, socket, timeout } = this
    return Effect.suspend(() => {
      const before = socket.bytesRead
      return Effect.flatMap(Effect.sleep(timeout), () => {
        if (socket.bytesRead - before >= leastProgress) {
          return this.silence(operation)
        }
        const silent = new FluvioSilent({ endpoint, operation, seconds: Duration.toSeconds(timeout) })
        this.fail(silent)
        return Effect.fail(silent)
      })
    })
  }

  /** Waits until the server has accepted the connection, and TLS if any. */
  get opened(): Effect.Effect<void, ConnectionError> {
    return Effect.suspend(() =>
      this.isOpen
        ? Effect.void
        : this.answer(
            "connecting",
            () => opening,
            () => undefined
          )
    )
  }

  /** Sends a request and waits for its response. A peer that does not answer in time loses the connection. */
  request<Request, Response>(api: Api<Request, Response>, request: Request): Effect.Effect<Response, ConnectionError> {
    return this.answer(
      api.name,
      () => this.send(api, request),
      (frame) => decodeResponse(api, frame)
    )
  }

  /** Sends a request that is answered by any number of responses until the connection ends. */
  stream<Request, Response>(
    api: Api<Request, Response>,
    request: Request
  ): Effect.Effect<Responses<Response>, ConnectionError> {
    return Effect.suspend(() => {
      if (this.failure !== undefined) {
        return Effect.fail(this.failure)
      }
      const pending: Array<Response> = []
      let resume: ((effect: Effect.Effect<Response, ConnectionError>) => void) | undefined
      const id = this.send(api, request)
      const wake = (effect: Effect.Effect<Response, ConnectionError>): void => {
        const woken = resume
        resume = undefined
        woken?.(effect)
      }
      this.waiters.set(id, {
        operation: api.name,
        accept: (frame) => {
          const response = decodeResponse(api, frame)
          if (resume !== undefined) {
            return wake(Effect.succeed(response))
          }
          if (pending.push(response) >= maxPending) {
            this.socket.pause()
          }
        },
        fail: (error) => wake(Effect.fail(error))
      })
      const next = Effect.callback<Response, ConnectionError>((waiting) => {
        const response = pending.shift()
        if (response !== undefined) {
          this.socket.resume()
          return waiting(Effect.succeed(response))
        }
        if (this.failure !== undefined) {
          return waiting(Effect.fail(this.failure))
        }
        resume = waiting
        return Effect.sync(() => {
          resume = undefined
        })
      })
      return Effect.succeed({
        next,
        isPending: () => pending.length > 0,
        close: () => {
          this.waiters.delete(id)
          pending.length = 0
          this.socket.resume()
        }
      })
    })
  }
}

/** The server's answer to the first exchange: which requests it takes. */
const greet = Effect.fnUntraced(function* (connection: Connection) {
  const { apis, error } = yield* connection.request(ApiVersions, {
    clientVersion: "0.1.0",
    clientOs: process.platform,
    clientArch: process.arch
  })
  if (error.code !== 0) {
    return yield* new FluvioProtocolError({
      endpoint: connection.endpoint,
      operation: ApiVersions.name,
      reason: errorText(error)
    })
  }
  return new Set(apis.map(({ key }) => key))
})

const open = Effect.fnUntraced(function* (
  address: Address,
  tls: Tls | undefined,
  spu: string | undefined,
  options: ConnectionOptions
) {
  const connection = yield* Effect.acquireRelease(
    Effect.try({
      try: () => new Connection(address, tls, spu, options),
      // Only a malformed certificate or key throws before anything was sent.
      catch: (cause) => new FluvioTlsError({ endpoint: formatAddress(address), reason: reasonOf(cause) })
    }),
    (connection) => Effect.sync(() => connection.close())
  )
  yield* connection.opened
  return { connection, apis: yield* greet(connection) }
})

/** Connects to the cluster's controller (SC). The connection closes with the scope. */
export const connectController = Effect.fn("Connection.connectController")(function* (
  cluster: Cluster,
  options: ConnectionOptions
): Effect.fn.Return<Connection, ConnectionError, Scope.Scope> {
  const { apis, connection } = yield* open(cluster.controller, cluster.tls, undefined, options)
  if (!apis.has(Partition.watch.key)) {
    return yield* new FluvioProtocolError({
      endpoint: connection.endpoint,
      operation: ApiVersions.name,
      reason: "this is not the port of a controller (SC), which is 9003 by default"
    })
  }
  return connection
})

const everything = { filters: [], summary: false, system: false }

const publicAddress = ({ publicEndpoint: { ingress, port } }: SpuMetadata["spec"]): Address | undefined => {
  const host = ingress[0]?.hostname ?? ingress[0]?.ip
  return host === undefined ? undefined : { host, port }
}

/** Asks the controller for a partition, and for the SPU that leads it if there is one. */
const lookup = Effect.fn("Connection.lookup")(function* (cluster: Cluster, place: Place, options: ConnectionOptions) {
  const controller = yield* connectController(cluster, options)
  const listed = yield* controller.request(Partition.list, everything)
  const name = `${place.topic}-${place.partition}`
  const partition = listed.find((candidate) => candidate.name === name)
  if (partition === undefined) {
    const partitions = partitionsOf(
      place.topic,
      listed.map((candidate) => candidate.name)
    )
    return yield* new TopicNotFound({ ...place, partitions })
  }
  const spus = yield* controller.request(Spu.list, everything)
  return { partition, leader: spus.find(({ spec }) => spec.id === partition.spec.leader) }
}, Effect.scoped)

/** The way to a partition. */
export interface Leader {
  /** To the SPU that leads it. */
  readonly connection: Connection
  /** What the controller knew of it just before. */
  readonly partition: PartitionMetadata
}

/**
 * Connects to the SPU that leads the partition, as the controller names it now. The connection closes with the scope.
 *
 * Fails with `LeaderMoved` when there is no leader, or when it does not accept connections: the next attempt asks again.
 */
export const connectLeader = Effect.fn("Connection.connectLeader")(function* (
  cluster: Cluster,
  place: Place,
  options: ConnectionOptions
): Effect.fn.Return<Leader, ConnectionError | TopicNotFound | LeaderMoved, Scope.Scope> {
  const { leader, partition } = yield* lookup(cluster, place, options)
  const local = cluster.preferLocalAddress ? leader?.spec.publicEndpointLocal : undefined
  const address = local ?? (leader === undefined ? undefined : publicAddress(leader.spec))
  if (leader === undefined || address === undefined) {
    return yield* new LeaderMoved({ ...place, reason: "the controller names no leader" })
  }
  const { connection } = yield* open(address, cluster.tls, leader.name, options).pipe(
    Effect.catchTag("FluvioUnreachable", (error) => Effect.fail(new LeaderMoved({ ...place, reason: error.message })))
  )
  return { connection, partition }
})
