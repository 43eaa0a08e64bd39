/**
 * A pooler in transaction mode, as PgBouncer is one: a client has a server's session from the first message of a
 * transaction to its end, and the next transaction has the session that has been idle for longest, so that consecutive
 * transactions of one client run in different sessions.
 *
 * It admits everybody, offers no TLS, takes cancel requests without doing anything about them, and knows as little of
 * prepared statements as PgBouncer did before 1.21.
 */
import { Effect, Redacted, type Scope } from "effect"
import { once } from "node:events"
import { createServer, type Server, type Socket } from "node:net"
import { Client } from "pg"

export interface Pooler {
  /** Of the same database, through the pooler. */
  readonly url: Redacted.Redacted<string>
  /** How many transactions each of its sessions has carried. */
  readonly transactions: Effect.Effect<ReadonlyArray<number>>
  /** Breaks every connection off, as its death would, and starts anew. */
  readonly kill: Effect.Effect<void>
}

const int32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

const message = (type: string, ...body: ReadonlyArray<Buffer>) =>
  Buffer.concat([Buffer.from(type), int32(4 + Buffer.concat(body).length), ...body])

const text = (value: string) => Buffer.from(`${value}\0`)

const authenticationOk = message("R", int32(0))
const isIdle = Buffer.from("I")
const readyForQuery = message("Z", isIdle)

const protocolVersion = 3 << 16
const refusingEncryption = Buffer.from("N")

/** Cuts what arrives into messages; the first of a client's has no type. */
class Messages {
  private rest: Buffer = Buffer.alloc(0)
  private header: number

  constructor(isStarted: boolean) {
    this.header = isStarted ? 5 : 4
  }

  start(): void {
    this.header = 5
  }

  *push(chunk: Buffer): Generator<Buffer> {
    this.rest = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk])
    while (this.rest.length >= this.header) {
      const end = this.header - 4 + this.rest.readInt32BE(this.header - 4)
      if (this.rest.length < end) return
      const whole = this.rest.subarray(0, end)
      this.rest = this.rest.subarray(end)
      yield whole
    }
  }
}

/** A server's session. */
class Session {
  readonly socket: Socket
  readonly messages = new Messages(true)
  client: PooledClient | undefined
  transactions = 0
  /** Answers that are still to come before the session can be idle. */
  expected = 0

  constructor(socket: Socket) {
    this.socket = socket
  }
}

interface PooledClient {
  readonly socket: Socket
  session: Session | undefined
  /** What it sent while it has no session. */
  readonly waiting: Array<Buffer>
}

const sync = "S".charCodeAt(0)
const query = "Q".charCodeAt(0)
const terminate = "X".charCodeAt(0)
const ready = "Z".charCodeAt(0)

class TransactionPooler {
  private readonly target: string
  private readonly size: number
  private readonly clients = new Set<PooledClient>()
  private readonly queue: Array<PooledClient> = []
  private readonly parameters = new Map<string, string>()
  private idle: Array<Session> = []
  private server: Server | undefined
  sessions: Array<Session> = []
  port = 0

  constructor(target: string, size: number) {
    this.target = target
    this.size = size
  }

  async listen(): Promise<void> {
    for (let number = 0; number < this.size; number++) await this.open()
    const server = createServer({ noDelay: true }, (socket) => this.welcome(socket))
    this.server = server
    server.listen(this.port, "127.0.0.1")
    await once(server, "listening")
    this.port = (server.address() as { readonly port: number }).port
  }

  close(): void {
    this.server?.close()
    for (const { socket } of this.clients) socket.destroy()
    for (const { socket } of this.sessions) socket.destroy()
    this.sessions = []
    this.idle = []
    this.queue.length = 0
  }

  /** The driver logs in; from then on the socket is ours. */
  private async open(): Promise<void> {
    const client = new Client({ connectionString: this.target, application_name: "pooler" })
    client.on("error", () => {})
    client.connection.on("parameterStatus", ({ parameterName, parameterValue }) => {
      this.parameters.set(parameterName, parameterValue)
    })
    await client.connect()
    const socket = client.connection.stream as Socket
    const session = new Session(socket)
    socket.removeAllListeners("data").on("data", (chunk: Buffer) => this.hear(session, chunk))
    socket.once("close", () => {
      this.sessions = this.sessions.filter((other) => other !== session)
      this.idle = this.idle.filter((other) => other !== session)
      session.client?.socket.destroy()
    })
    this.sessions.push(session)
    this.release(session)
  }

  private welcome(socket: Socket): void {
    const client: PooledClient = { socket, session: undefined, waiting: [] }
    const messages = new Messages(false)
    let isStarted = false
    this.clients.add(client)
    socket.on("error", () => {})
    socket.once("close", () => {
      this.clients.delete(client)
      // Whatever it left open must not become another client's.
      client.session?.socket.destroy()
    })
    socket.on("data", (chunk) => {
      for (const whole of messages.push(chunk)) {
        if (isStarted) this.forward(client, whole)
        else if (whole.readInt32BE(4) === protocolVersion) {
          isStarted = true
          messages.start()
          const parameters = [...this.parameters].map(([name, value]) => message("S", text(name), text(value)))
          socket.write(
            Buffer.concat([authenticationOk, ...parameters, message("K", int32(1), int32(1)), readyForQuery])
          )
        } else if (whole.length === 8) socket.write(refusingEncryption)
        else socket.destroy()
      }
    })
  }

  /** From a client to its session, which it is given when it has none. */
  private forward(client: PooledClient, whole: Buffer): void {
    const { session } = client
    if (whole[0] === terminate) client.socket.destroy()
    else if (session !== undefined) {
      if (whole[0] === sync || whole[0] === query) session.expected += 1
      session.socket.write(whole)
    } else {
      client.waiting.push(whole)
      if (client.waiting.length > 1) return
      this.queue.push(client)
      this.assign()
    }
  }

  /** From a session to its client, which loses it when its transaction is over. */
  private hear(session: Session, chunk: Buffer): void {
    for (const whole of session.messages.push(chunk)) {
      session.client?.socket.write(whole)
      if (whole[0] !== ready) continue
      session.expected -= 1
      if (session.expected === 0 && whole.subarray(5).equals(isIdle)) this.release(session)
    }
  }

  private release(session: Session): void {
    if (session.client !== undefined) {
      session.client.session = undefined
      session.client = undefined
      session.transactions += 1
    }
    this.idle.push(session)
    this.assign()
  }

  private assign(): void {
    while (this.queue.length > 0 && this.idle.length > 0) {
      const client = this.queue.shift()!
      if (client.socket.destroyed) continue
      const session = this.idle.shift()!
      session.client = client
      client.session = session
      for (const whole of client.waiting.splice(0)) this.forward(client, whole)
    }
  }
}

/** With so many sessions on the database of this URL; it closes with the scope. */
export const make = (url: Redacted.Redacted<string>, size: number): Effect.Effect<Pooler, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const pooler = new TransactionPooler(Redacted.value(url), size)
      await pooler.listen()
      return pooler
    }),
    (pooler) => Effect.sync(() => pooler.close())
  ).pipe(
    Effect.map((pooler) => {
      const pooled = new URL(Redacted.value(url))
      pooled.port = String(pooler.port)
      return {
        url: Redacted.make(pooled.href),
        transactions: Effect.sync(() => pooler.sessions.map(({ transactions }) => transactions)),
        kill: Effect.promise(() => {
          pooler.close()
          return pooler.listen()
        })
      }
    })
  )
