/** What the driver speaks through: TCP or a Unix socket, TLS where it is wanted, and COPY, which the driver does not know. */
import { PgProtocol } from "@effect/sql-pg"
import { connect, isIP, type Socket } from "node:net"
import { Duplex } from "node:stream"
import { type ConnectionOptions, connect as secure } from "node:tls"
import { CopyProtocol } from "./CopyProtocol.ts"

/** Where the server is. A host that begins with a slash is the folder of its Unix socket. */
export interface Address {
  readonly host: string
  readonly port: number
}

export interface Tls {
  /** Without it, a server that has no TLS is spoken to in the clear. */
  readonly isRequired: boolean
  readonly options: ConnectionOptions
}

/** What is done about a server that stays silent. */
export interface Watch {
  /** So long an answer is waited for without a byte that comes or goes, before it is asked whether to go on. */
  readonly millis: number
  /** Whether to wait on for the server's process; `undefined` where it has not said which that is. */
  readonly goOn: (processId: number | undefined) => Promise<boolean>
}

const keepAliveMillis = 30_000

const offered = 0x53
const notOffered = 0x4e

/** As Node names what is wrong with TLS. */
const refused = "ERR_TLS_REFUSED"

type Done = (error?: Error | null) => void

export class TargetSocket extends Duplex {
  readonly #address: Address
  readonly #tls: Tls | undefined
  readonly #raw: Socket
  readonly #protocol = new CopyProtocol()
  readonly #watch: Watch | undefined
  #timer: NodeJS.Timeout | undefined
  /** The raw one, or TLS over it. */
  #socket: Duplex

  constructor(address: Address, tls: Tls | undefined, watch?: Watch) {
    const { host, port } = address
    // What is no address throws here, before there is a stream.
    const raw = host.startsWith("/")
      ? connect({ path: `${host}/.s.PGSQL.${port}` })
      : connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMillis })
    super()
    this.#address = address
    this.#tls = tls
    this.#watch = watch
    this.#raw = raw
    this.#socket = raw
    raw.on("error", (error) => this.destroy(error))
    // A reader that has stopped hears what is held for it first.
    raw.on("close", () => (this.readableLength === 0 ? this.destroy() : this.once("end", () => this.destroy())))
  }

  /** Whatever goes wrong here destroys the stream, which waits for `done`: it comes when the raw socket is closed. */
  override _construct(done: Done): void {
    const tls = this.#tls
    const closed = () => done()
    const begin = (socket: Duplex) => {
      this.#raw.off("close", closed)
      this.#begin(socket)
      done()
    }
    if (tls === undefined) return begin(this.#raw)
    this.#raw.once("close", closed)
    this.#raw.once("data", (answer: Buffer) => {
      // The answer is one byte: what follows it in the clear is not the server's, and an error is none of TLS.
      const said = answer.length === 1 ? answer[0] : undefined
      if (said === offered) this.#secure(tls.options, begin)
      else if (said !== notOffered) this.destroy(new Error("the server did not say whether it has TLS"))
      else if (tls.isRequired) this.destroy(Object.assign(new Error("the server refused TLS"), { code: refused }))
      else begin(this.#raw)
    })
    this.#raw.write(PgProtocol.encodeSslRequest())
  }

  #secure(options: ConnectionOptions, begin: (socket: Duplex) => void): void {
    const { host } = this.#address
    const name = isIP(host) === 0 && !host.startsWith("/") ? { servername: host } : {}
    try {
      const socket = secure({ host, ...name, ...options, socket: this.#raw })
      socket.on("error", (error) => this.destroy(error))
      socket.once("secureConnect", () => begin(socket))
    } catch (cause) {
      // A certificate or key that is none is found out here.
      this.destroy(cause as Error)
    }
  }

  #begin(socket: Duplex): void {
    this.#socket = socket
    socket.on("data", (received: Buffer) => {
      let wantsMore = true
      for (const part of this.#protocol.incoming(received)) wantsMore = this.push(part)
      if (!this.#protocol.isAwaited) this.#unwatch()
      if (!wantsMore) socket.pause()
    })
    socket.on("end", () => {
      const code = this.#protocol.endedBy
      // The driver waits for more after an error, and then would know only that the connection is closed.
      if (code === undefined) this.push(null)
      else this.destroy(Object.assign(new Error("the server ended the session"), { code }))
    })
  }

  override _read(): void {
    this.#socket.resume()
  }

  override _write(frame: Buffer, _: BufferEncoding, done: Done): void {
    const parts = this.#protocol.outgoing(frame)
    if (this.#timer === undefined) this.#waitForAnswer()
    this.#socket.cork()
    parts.forEach((part, n) => this.#socket.write(part, n === parts.length - 1 ? done : undefined))
    this.#socket.uncork()
  }

  override _final(done: Done): void {
    this.#socket.end(done)
  }

  /** How much has come and gone: what lies in a buffer of ours has not. */
  get #moved(): number {
    return this.#raw.bytesRead + this.#raw.bytesWritten - this.#raw.writableLength
  }

  #waitForAnswer(): void {
    const watch = this.#watch
    if (watch === undefined || this.destroyed) return
    const before = this.#moved
    const isStill = () => !this.destroyed && this.#protocol.isAwaited
    this.#timer = setTimeout(async () => {
      // What is not read for want of room is no silence.
      const isSilent = this.#moved === before && !this.#socket.isPaused()
      const goesOn = !isStill() || !isSilent || (await watch.goOn(this.#protocol.processId))
      if (!isStill()) return
      if (goesOn || this.#moved !== before) this.#waitForAnswer()
      else this.destroy(Object.assign(new Error("the server does not answer"), { code: "ETIMEDOUT" }))
    }, watch.millis)
  }

  #unwatch(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  override destroy(error?: Error): this {
    this.#unwatch()
    this.#raw.destroy()
    return super.destroy(error)
  }
}
