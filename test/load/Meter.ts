/** A TCP proxy on loopback that counts what a server sends. */
import { Effect, type Scope } from "effect"
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"
import { pipeline } from "node:stream/promises"

export interface Meter {
  /** The port on 127.0.0.1 that clients are given. */
  readonly port: number
  /** Where connections are passed on to. */
  forwardTo(port: number): void
  /** Bytes sent by the server so far, on all connections. */
  readonly sent: Effect.Effect<number>
}

/** It closes with the scope, with all connections. */
export const make: Effect.Effect<Meter, never, Scope.Scope> = Effect.gen(function* () {
  const upstreams: Array<Socket> = []
  let upstreamPort = 0
  const server = yield* Effect.acquireRelease(
    Effect.promise(async () => {
      const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
        const upstream = connect({ port: upstreamPort, host: "127.0.0.1", allowHalfOpen: true, noDelay: true })
        upstreams.push(upstream)
        for (const direction of [pipeline(client, upstream), pipeline(upstream, client)]) {
          // A connection that breaks on one side breaks on the other.
          direction.catch(() => [client, upstream].forEach((socket) => socket.destroy()))
        }
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      return server
    }),
    (server) =>
      Effect.sync(() => {
        server.close()
        for (const upstream of upstreams) upstream.destroy()
      })
  )
  const { port } = server.address() as { readonly port: number }
  return {
    port,
    forwardTo: (port) => void (upstreamPort = port),
    sent: Effect.sync(() => upstreams.reduce((sum, { bytesRead }) => sum + bytesRead, 0))
  }
})
