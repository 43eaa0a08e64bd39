/**
 * A TCP proxy on loopback that disturbs what passes through it. Left alone it is transparent.
 *
 * It knows one thing of what it carries: when PostgreSQL's frontend asks for a COMMIT, so that a connection can be cut on
 * either side of the one moment whose outcome a client cannot know.
 */
import { Effect, type Scope } from "effect"
import { once } from "node:events"
import { connect, createServer, type Server, type Socket } from "node:net"
import { pipeline } from "node:stream/promises"
import { setImmediate, setTimeout as sleep } from "node:timers/promises"
import { CommitWatch } from "./CommitWatch.ts"

/** On which side of the server's doing the connection breaks: the COMMIT never arrives, or its answer never does. */
export type CommitCut = "before" | "after"

export interface NetworkFault {
  /** The port on 127.0.0.1 that clients are given. */
  readonly port: number
  /** Where connections are passed on to, from now on. */
  forwardTo(port: number): void
  /** Breaks off all connections. */
  readonly cut: Effect.Effect<void>
  /** Breaks off the connection that carries this many further bytes to a client, behind exactly that byte. */
  cutAfter(bytes: number): Effect.Effect<void>
  /** Nothing passes any more in either direction, and nobody is told. */
  setFrozen(isFrozen: boolean): Effect.Effect<void>
  /** New connections are refused; those that are open stay. */
  setRefusing(isRefusing: boolean): Effect.Effect<void>
  /** Milliseconds that everything takes in each direction. */
  setDelay(millis: number): Effect.Effect<void>
  /** Most bytes per second in each direction of a connection. */
  setRate(bytesPerSecond: number): Effect.Effect<void>
  /** Cuts the next connection that commits; succeeds when that has happened. */
  cutAtCommit(when: CommitCut): Effect.Effect<void>
}

/** One connection of a client, and ours to the server. */
class Link {
  readonly client: Socket
  readonly upstream: Socket
  readonly commits = new CommitWatch()
  /** The server's next words are never heard. */
  isCutAtReply = false

  constructor(client: Socket, upstream: Socket) {
    this.client = client
    this.upstream = upstream
  }

  destroy(): void {
    this.client.destroy()
    this.upstream.destroy()
  }
}

class Proxy {
  private readonly links = new Set<Link>()
  private server: Server | undefined
  private upstreamPort = 0
  port = 0
  delay = 0
  bytesPerSecond = Infinity
  private bytesLeft = Infinity
  private thawing: { readonly thawed: Promise<void>; readonly thaw: () => void } | undefined
  private commitCut: { readonly when: CommitCut; readonly done: () => void } | undefined

  forwardTo(port: number): void {
    this.upstreamPort = port
  }

  async listen(): Promise<void> {
    if (this.server !== undefined) return
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.carry(client))
    this.server = server
    server.listen(this.port, "127.0.0.1")
    await once(server, "listening")
    this.port = (server.address() as { readonly port: number }).port
  }

  /** The port is free at once; connections that are open live on. */
  refuse(): void {
    this.server?.close()
    this.server = undefined
  }

  cut(): void {
    for (const link of this.links) link.destroy()
  }

  cutAfter(bytes: number): void {
    this.bytesLeft = bytes
  }

  setFrozen(isFrozen: boolean): void {
    if (isFrozen && this.thawing === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.thawing = { thawed: promise, thaw: resolve }
    } else if (!isFrozen) {
      this.thawing?.thaw()
      this.thawing = undefined
    }
  }

  armCommitCut(when: CommitCut, done: () => void): void {
    this.commitCut = { when, done }
  }

  disarmCommitCut(): void {
    this.commitCut = undefined
  }

  close(): void {
    this.refuse()
    this.setFrozen(false)
    this.cut()
  }

  private carry(client: Socket): void {
    const upstream = connect({ port: this.upstreamPort, host: "127.0.0.1", allowHalfOpen: true, noDelay: true })
    const link = new Link(client, upstream)
    this.links.add(link)
    // Whichever direction fails, both ends learn of it.
    const directions = [
      pipeline(client, (source: AsyncIterable<Buffer>) => this.towardsServer(source, link), upstream),
      pipeline(upstream, (source: AsyncIterable<Buffer>) => this.towardsClient(source, link), client)
    ].map((direction) => direction.catch(() => link.destroy()))
    void Promise.all(directions).then(() => this.links.delete(link))
  }

  private async *towardsServer(source: AsyncIterable<Buffer>, link: Link) {
    for await (const chunk of source) {
      await this.hold(chunk.length)
      if (!link.commits.push(chunk) || this.commitCut === undefined) {
        yield chunk
        continue
      }
      const { done, when } = this.commitCut
      this.commitCut = undefined
      if (when === "before") {
        link.destroy()
        return done()
      }
      link.isCutAtReply = true
      yield chunk
      done()
    }
  }

  private async *towardsClient(source: AsyncIterable<Buffer>, link: Link) {
    for await (const chunk of source) {
      await this.hold(chunk.length)
      if (link.isCutAtReply) return link.destroy()
      if (chunk.length < this.bytesLeft) {
        this.bytesLeft -= chunk.length
        yield chunk
        continue
      }
      yield chunk.subarray(0, this.bytesLeft)
      this.bytesLeft = Infinity
      // What was yielded is written first.
      await setImmediate()
      return link.destroy()
    }
  }

  private async hold(bytes: number): Promise<void> {
    const millis = this.delay + (bytes / this.bytesPerSecond) * 1000
    if (millis > 0) await sleep(millis)
    while (this.thawing !== undefined) await this.thawing.thawed
  }
}

/** It closes with the scope, with all connections. */
export const make: Effect.Effect<NetworkFault, never, Scope.Scope> = Effect.gen(function* () {
  const proxy = yield* Effect.acquireRelease(
    Effect.sync(() => new Proxy()),
    (proxy) => Effect.sync(() => proxy.close())
  )
  yield* Effect.promise(() => proxy.listen())
  return {
    port: proxy.port,
    forwardTo: (port) => proxy.forwardTo(port),
    cut: Effect.sync(() => proxy.cut()),
    cutAfter: (bytes) => Effect.sync(() => proxy.cutAfter(bytes)),
    setFrozen: (isFrozen) => Effect.sync(() => proxy.setFrozen(isFrozen)),
    setRefusing: (isRefusing) =>
      isRefusing ? Effect.sync(() => proxy.refuse()) : Effect.promise(() => proxy.listen()),
    setDelay: (millis) => Effect.sync(() => void (proxy.delay = millis)),
    setRate: (bytesPerSecond) => Effect.sync(() => void (proxy.bytesPerSecond = bytesPerSecond)),
    cutAtCommit: (when) =>
      Effect.callback<void>((resume) => {
        proxy.armCommitCut(when, () => resume(Effect.void))
        return Effect.sync(() => proxy.disarmCommitCut())
      })
  }
})
