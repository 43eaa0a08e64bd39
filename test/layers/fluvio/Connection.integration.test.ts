import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Redacted, Stream } from "effect"
import * as fc from "fast-check"
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net"
import { createServer, type TlsOptions } from "node:tls"
import { generate } from "selfsigned"
import type { Tls } from "../../../layers/fluvio/Profile.ts"
import { FetchOffsets, noError, StreamFetch } from "../../../layers/fluvio/Protocol.ts"
import { make } from "../../../layers/fluvio/WireConsumer.ts"
import * as Errors from "../../../src/stream/FluvioConsumer.ts"
import { Offset } from "../../../src/stream/FluvioConsumer.ts"
import { batch, controller, fetched, frameOf, offsets, reply, storage } from "./ScriptedCluster.ts"

const alternatives = (...names: ReadonlyArray<string>) => ({
  name: "subjectAltName" as const,
  altNames: names.map((value) => ({ type: 2 as const, value }))
})

const issue = (
  name: string,
  authority?: { readonly key: string; readonly cert: string },
  options: Parameters<typeof generate>[1] = {}
) =>
  Effect.promise(() =>
    generate([{ name: "commonName", value: name }], {
      keyType: "ec",
      algorithm: "sha256",
      ...(authority === undefined
        ? { extensions: [{ name: "basicConstraints", cA: true, critical: true }] }
        : { ca: authority, extensions: [alternatives(name, `*.${name}`)] }),
      ...options
    })
  ).pipe(Effect.map((pems) => ({ key: pems.private, cert: pems.cert })))

/** Listens until the scope closes, and destroys what was accepted. */
const listening = (server: ReturnType<typeof createTcpServer>) =>
  Effect.acquireRelease(
    Effect.callback<ReadonlySet<Socket>>((resume) => {
      const sockets = new Set<Socket>()
      server.on("connection", (socket: Socket) => {
        sockets.add(socket)
        socket.on("error", () => undefined)
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(sockets)))
    }),
    (sockets) =>
      Effect.sync(() => {
        server.close()
        sockets.forEach((socket) => socket.destroy())
      })
  ).pipe(Effect.map(() => (server.address() as AddressInfo).port))

/** Ends TLS in front of a plain-text port. */
const front = (port: number, options: TlsOptions) => {
  const server = createServer(options, (secure) => {
    const plain = connect(port, "127.0.0.1")
    plain.on("error", () => secure.destroy())
    secure.on("error", () => plain.destroy())
    secure.on("close", () => plain.destroy())
    secure.pipe(plain).pipe(secure)
  })
  server.on("tlsClientError", () => undefined)
  return listening(server)
}

/** A cluster behind TLS whose topic holds ten records. */
const secureCluster = Effect.fnUntraced(function* (controllerOptions: TlsOptions, storageOptions = controllerOptions) {
  const plain = yield* storage({
    onOffsets: (call) => offsets(call, 0, 10),
    onFetch: (call) => reply(call, StreamFetch, fetched(batch(0, 10)))
  })
  const port = yield* front(plain, storageOptions)
  return `127.0.0.1:${yield* front(yield* controller(() => ({ port })), controllerOptions)}`
})

const consumer = (endpoint: string, tls?: Tls) =>
  make({ endpoint, topic: "t", partition: 0, timeout: "5 seconds", ...(tls === undefined ? {} : { tls }) })

const firstRecords = (endpoint: string, tls?: Tls) =>
  consumer(endpoint, tls)
    .records(Offset.make(0))
    .pipe(
      Stream.take(1),
      Stream.runCollect,
      Effect.map((chunks) => chunks[0]?.length)
    )

const verified = (authority: string, identity?: { readonly key: string; readonly cert: string }): Tls => ({
  policy: "verified",
  domain: "fluvio.local",
  authority,
  identity: identity && { certificate: identity.cert, key: Redacted.make(identity.key) }
})

describe("TLS", () => {
  it.live("verified: the authority signs, and the name is the domain's or an SPU's below it", () =>
    Effect.gen(function* () {
      const authority = yield* issue("authority")
      const wild = yield* issue("fluvio.local", authority)
      assert.strictEqual(yield* firstRecords(yield* secureCluster(wild), verified(authority.cert)), 10)
      const bare = yield* issue("fluvio.local", authority, { extensions: [alternatives("fluvio.local")] })
      assert.strictEqual(yield* firstRecords(yield* secureCluster(bare), verified(authority.cert)), 10)
      const ofSpu = yield* issue("fluvio.local", authority, { extensions: [alternatives("main-0.fluvio.local")] })
      assert.strictEqual(yield* firstRecords(yield* secureCluster(bare, ofSpu), verified(authority.cert)), 10)
    })
  )

  it.live("anonymous: nobody is checked", () =>
    Effect.gen(function* () {
      const endpoint = yield* secureCluster(yield* issue("anybody"))
      assert.strictEqual(yield* firstRecords(endpoint, { policy: "anonymous" }), 10)
    })
  )

  it.live("refuses another authority, another name, and an expired certificate", () =>
    Effect.gen(function* () {
      const authority = yield* issue("authority")
      const refused = Effect.fnUntraced(function* (certificate: TlsOptions) {
        const error = yield* Effect.flip(firstRecords(yield* secureCluster(certificate), verified(authority.cert)))
        assert(error instanceof Errors.FluvioTlsError, error.message)
        assert.isFalse(error.isRetryable)
        return error.reason
      })
      assert.match(yield* refused(yield* issue("fluvio.local", yield* issue("stranger"))), /certificate/)
      assert.match(yield* refused(yield* issue("elsewhere.local", authority)), /altnames/)
      const past = { notBeforeDate: new Date(2020, 0), notAfterDate: new Date(2021, 0) }
      assert.match(yield* refused(yield* issue("fluvio.local", authority, past)), /expired/)
    })
  )

  it.live("shows a client certificate to a server that asks for it", () =>
    Effect.gen(function* () {
      const authority = yield* issue("authority")
      const server = yield* issue("fluvio.local", authority)
      const endpoint = yield* secureCluster({ ...server, ca: authority.cert, requestCert: true })
      const client = yield* issue("sink", authority)
      assert.strictEqual(yield* firstRecords(endpoint, verified(authority.cert, client)), 10)
      const error = yield* Effect.flip(firstRecords(endpoint, verified(authority.cert)))
      assert.instanceOf(error, Errors.FluvioTlsError)
    })
  )

  it.live("refuses what is no certificate before it connects", () =>
    Effect.gen(function* () {
      const authority = yield* issue("authority")
      const tls = verified(authority.cert, { cert: "no certificate", key: "SECRET" })
      const error = yield* Effect.flip(firstRecords("127.0.0.1:1", tls))
      assert.instanceOf(error, Errors.FluvioTlsError)
      assert.notInclude(error.message, "SECRET")
    })
  )

  it.live("is said to be missing on the side where it is missing", () =>
    Effect.gen(function* () {
      const certificate = yield* issue("anybody")
      // Node's server hangs up, others tell with an alert.
      const plainToTls = yield* Effect.flip(firstRecords(yield* secureCluster(certificate)))
      assert.instanceOf(plainToTls, Errors.FluvioUnreachable)
      assert.match(plainToTls.message, /perhaps it expects TLS|reset/)
      const alert = Buffer.from([0x15, 0x03, 0x03, 0, 2, 2, 0x46])
      const alerting = yield* listening(createTcpServer((socket) => socket.end(alert)))
      const told = yield* Effect.flip(firstRecords(`127.0.0.1:${alerting}`))
      assert.instanceOf(told, Errors.FluvioTlsError)
      assert.include(told.message, "the server speaks TLS, and this connector was told of none")
      const port = yield* controller(() => ({ port: undefined }))
      // The server takes the greeting for a frame of nonsensical length and hangs up.
      const tlsToPlain = yield* Effect.flip(firstRecords(`127.0.0.1:${port}`, { policy: "anonymous" }))
      assert.match(tlsToPlain.message, /perhaps it has none|does not speak TLS/)
      const http = yield* listening(createTcpServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n")))
      const tlsToHttp = yield* Effect.flip(firstRecords(`127.0.0.1:${http}`, { policy: "anonymous" }))
      assert.instanceOf(tlsToHttp, Errors.FluvioTlsError)
      assert.include(tlsToHttp.message, "the server does not speak TLS")
    })
  )

  it.live("that is no Fluvio server at all is named", () =>
    Effect.gen(function* () {
      for (const [greeting, reason] of [
        ["HTTP/1.1 400 Bad Request\r\n\r\n", "it is an HTTP server, and no Fluvio server"],
        ["SSH-2.0-OpenSSH_9.6\r\n", "it is an SSH server, and no Fluvio server"],
        ["220 mail.example ESMTP\r\n", "it is a server that speaks in text, and no Fluvio server"]
      ] as const) {
        const port = yield* listening(createTcpServer((socket) => socket.end(greeting)))
        const error = yield* Effect.flip(firstRecords(`127.0.0.1:${port}`))
        assert.instanceOf(error, Errors.FluvioProtocolError)
        assert.include(error.message, reason)
      }
    })
  )
})

/** Reads until the end that every hostile server below brings about, and gives that end. */
const end = (port: number) =>
  make({ endpoint: `127.0.0.1:${port}`, topic: "t", partition: 0, timeout: "100 millis", maxBatchBytes: 1 << 22 })
    .records(Offset.make(0))
    .pipe(Stream.runDrain, Effect.exit)

/** An end is good if it is one of the errors that the contract names. */
const assertTyped = (exit: Exit.Exit<void, Errors.FluvioError>) => {
  assert(Exit.isFailure(exit))
  assert.isFalse(Cause.hasDies(exit.cause), Cause.pretty(exit.cause))
}

const property = <A>(arbitrary: fc.Arbitrary<A>, check: (value: A) => Effect.Effect<void>, numRuns: number) =>
  Effect.promise(() =>
    fc.assert(
      fc.asyncProperty(arbitrary, (value) => Effect.runPromise(check(value))),
      { numRuns }
    )
  )

/** A way to spoil a frame. */
const spoil = fc.oneof(
  fc
    .record({ at: fc.nat(), bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }) })
    .map(({ at, bytes }) => (frame: Buffer) => {
      const copy = Buffer.from(frame)
      copy.set(bytes.subarray(0, copy.length - (at % copy.length)), at % copy.length)
      return copy
    }),
  fc.nat().map((length) => (frame: Buffer) => frame.subarray(0, length % frame.length)),
  fc.uint8Array({ maxLength: 64 }).map((bytes) => (frame: Buffer) => Buffer.concat([frame, bytes])),
  fc.uint8Array({ maxLength: 64 }).map((bytes) => (frame: Buffer) => {
    const body = Buffer.concat([frame.subarray(4, 8), bytes])
    const length = Buffer.alloc(4)
    length.writeInt32BE(body.length)
    return Buffer.concat([length, body])
  })
)

describe("a hostile peer", () => {
  it.live("that sends anything at all brings about a typed error", () =>
    property(
      fc.uint8Array({ maxLength: 200 }),
      (bytes) =>
        Effect.gen(function* () {
          const port = yield* listening(createTcpServer((socket) => socket.end(bytes)))
          assertTyped(yield* end(port))
        }).pipe(Effect.scoped),
      200
    )
  )

  it.live("that spoils the answer about offsets or the records brings about a typed error", () =>
    property(
      fc.record({ spoil, spoilsOffsets: fc.boolean(), compressed: fc.boolean() }),
      ({ compressed, spoil, spoilsOffsets }) =>
        Effect.gen(function* () {
          const good = batch(0, 20, compressed ? { codec: "gzip" } : {})
          const bounds = [
            { name: "t", partitions: [{ error: noError, partition: 0, startOffset: 0, lastStableOffset: 20 }] }
          ]
          const port = yield* storage({
            onOffsets: (call) => {
              const frame = frameOf(call, FetchOffsets, bounds)
              call.socket.write(spoilsOffsets ? spoil(frame) : frame)
            },
            onFetch: (call) => {
              const frame = frameOf(call, StreamFetch, fetched(good))
              call.socket.end(spoilsOffsets ? frame : spoil(frame))
            }
          })
          assertTyped(yield* end(yield* controller(() => ({ port }))))
        }).pipe(Effect.scoped),
      150
    )
  )

  it.live("that announces a frame of two gigabytes is left at once, without memory for it", () =>
    Effect.gen(function* () {
      const port = yield* listening(createTcpServer((socket) => socket.write(Buffer.from([0x7f, 0xff, 0xff, 0xff]))))
      const error = yield* Effect.flip(firstRecords(`127.0.0.1:${port}`))
      assert(error instanceof Errors.FluvioProtocolError)
      assert.match(error.reason, /a frame of 2147483647 bytes/)
    })
  )

  it.live("that breaks off in the middle of a frame loses nothing but that frame", () =>
    Effect.gen(function* () {
      const port = yield* storage({
        onOffsets: (call) => offsets(call, 0, 20),
        onFetch: (call) => {
          const [first, second] = [batch(0, 10), batch(10, 10)].map((records) =>
            frameOf(call, StreamFetch, fetched(records))
          )
          call.socket.end(Buffer.concat([first ?? Buffer.alloc(0), second?.subarray(0, 60) ?? Buffer.alloc(0)]))
        }
      })
      const seen: Array<number> = []
      const error = yield* consumer(`127.0.0.1:${yield* controller(() => ({ port }))}`)
        .records(Offset.make(0))
        .pipe(
          Stream.runForEach((records) => Effect.sync(() => seen.push(records.length))),
          Effect.flip
        )
      assert.instanceOf(error, Errors.FluvioUnreachable)
      assert.isTrue(error.isRetryable)
      assert.deepStrictEqual(seen, [10])
    })
  )
})
