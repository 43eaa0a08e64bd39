/**
 * `COPY … FROM STDIN` through a driver that does not know it: what it sends and hears is rewritten on the way.
 *
 * To the driver it is a statement like any other, with the data as its one parameter, a `bytea`; PostgreSQL's COPY has no
 * parameters, so none can be meant otherwise. On the wire the parameter is taken out of Parse and Bind, and follows
 * Execute as CopyData and CopyDone, in the same write: whether the server is ready for it need not be awaited, because
 * after an error it passes over everything up to the Sync. Of the answer only CopyInResponse is kept from the driver.
 *
 * Messages are those of PostgreSQL's frontend/backend protocol, version 3: a byte of type, then the length, which counts
 * itself, in four.
 */

const Parse = 0x50
const Bind = 0x42
const Execute = 0x45
const Close = 0x43
const CopyData = 0x64
const CopyDone = 0x63
const CopyInResponse = 0x47
const ReadyForQuery = 0x5a
const ErrorResponse = 0x45
const BackendKeyData = 0x4b
const ByStatement = 0x53

const headerSize = 5
const copy = Buffer.from("COPY ")
/** No types of parameters, or no parameters. */
const none = Buffer.alloc(2)
/** What stands before a message's body of `size` bytes. */
const headerOf = (type: number, size: number): Buffer => {
  const header = Buffer.allocUnsafe(headerSize)
  header[0] = type
  header.writeInt32BE(headerSize - 1 + size, 1)
  return header
}

const message = (type: number, body: ReadonlyArray<Uint8Array>): Buffer =>
  Buffer.concat([
    headerOf(
      type,
      body.reduce((size, part) => size + part.length, 0)
    ),
    ...body
  ])

const copyDone = headerOf(CopyDone, 0)

/** The SQLSTATE (`C`) among an error's fields, if its severity (`V`, in no language) says that it ends the session. */
const fatalState = (fields: string): string | undefined => {
  const field = (code: string) =>
    fields
      .split("\0")
      .find((text) => text.startsWith(code))
      ?.slice(1)
  return ["FATAL", "PANIC"].includes(field("V") ?? "") ? field("C") : undefined
}

/** Whether a frame can hold a statement: a cycle begins with one of these, or with what it closes before. */
const mayHoldStatement = (type: number) => type === Parse || type === Bind || type === Close

/** For one connection: what goes to the server and what comes from it, each in order. */
export class CopyProtocol {
  /** Names of the prepared statements that are COPY. */
  readonly #copies = new Set<string>()
  /** Data of the COPY that was bound, until it is executed. */
  #data: Buffer | undefined
  /** The cycle under way carries data, for which the server shows itself ready; of any other COPY the driver must hear. */
  #isCopying = false
  /** Received, and not yet a whole header, or of a message that is needed whole. */
  #held: Buffer = Buffer.alloc(0)
  /** How much of the message that was begun is still to come. */
  #rest = 0
  #endedBy: string | undefined
  #processId: number | undefined
  #isAwaited = false

  /** Of the server's process, once it has said it. */
  get processId(): number | undefined {
    return this.#processId
  }

  /** The server has been asked something, and has not shown itself ready for more since. */
  get isAwaited(): boolean {
    return this.#isAwaited
  }

  /** The SQLSTATE with which the server has ended the session, as it does before it closes the connection. */
  get endedBy(): string | undefined {
    return this.#endedBy
  }

  /** What to write instead of a frame of the driver, which is always one of whole messages. */
  outgoing(frame: Buffer): ReadonlyArray<Buffer> {
    this.#isAwaited = true
    if (!mayHoldStatement(frame[0])) return [frame]
    const out: Array<Buffer> = []
    let from = 0
    let at = 0
    const instead = (parts: ReadonlyArray<Buffer>, end: number) => {
      out.push(frame.subarray(from, at), ...parts)
      from = end
    }
    while (at < frame.length) {
      const end = at + 1 + frame.readInt32BE(at + 1)
      const body = frame.subarray(at + headerSize, end)
      switch (frame[at]) {
        case Parse: {
          const query = body.indexOf(0) + 1
          const name = body.toString("latin1", 0, query - 1)
          this.#copies.delete(name)
          const types = body.indexOf(0, query) + 1
          const isCopy = body.compare(copy, 0, copy.length, query, query + copy.length) === 0
          if (isCopy && body.readInt16BE(types) === 1) {
            this.#copies.add(name)
            instead([message(Parse, [body.subarray(0, types), none])], end)
          }
          break
        }
        case Close:
          if (body[0] === ByStatement) this.#copies.delete(body.toString("latin1", 1, body.length - 1))
          break
        case Bind: {
          const statement = body.indexOf(0) + 1
          const formats = body.indexOf(0, statement) + 1
          if (!this.#copies.has(body.toString("latin1", statement, formats - 1))) break
          // Behind the formats: how many parameters there are, the length of the one, and the data.
          const count = formats + 2 + 2 * body.readInt16BE(formats)
          const data = count + 6
          this.#data = body.subarray(data, data + body.readInt32BE(count + 2))
          instead([message(Bind, [body.subarray(0, count), none, body.subarray(data + this.#data.length)])], end)
          break
        }
        case Execute: {
          if (this.#data === undefined) break
          instead([frame.subarray(at, end), headerOf(CopyData, this.#data.length), this.#data, copyDone], end)
          this.#data = undefined
          this.#isCopying = true
          break
        }
      }
      at = end
    }
    out.push(frame.subarray(from))
    return out.filter((part) => part.length > 0)
  }

  /** What the driver is to hear of what was received, which may be cut anywhere. */
  incoming(received: Buffer): ReadonlyArray<Buffer> {
    const bytes = this.#held.length === 0 ? received : Buffer.concat([this.#held, received])
    const out: Array<Buffer> = []
    let from = 0
    let at = this.#rest
    while (at + headerSize <= bytes.length) {
      // A length that cannot be is the driver's to refuse.
      const end = at + Math.max(headerSize, 1 + bytes.readInt32BE(at + 1))
      if (bytes[at] === ReadyForQuery) {
        this.#isCopying = false
        this.#isAwaited = false
      }
      if (bytes[at] === BackendKeyData) {
        if (end > bytes.length) break
        this.#processId = bytes.readInt32BE(at + headerSize)
      }
      if (bytes[at] === ErrorResponse) {
        if (end > bytes.length) break
        this.#endedBy = fatalState(bytes.toString("latin1", at + headerSize, end))
      }
      if (this.#isCopying && bytes[at] === CopyInResponse) {
        if (end > bytes.length) break
        out.push(bytes.subarray(from, at))
        from = end
      }
      at = end
    }
    const known = Math.min(at, bytes.length)
    this.#rest = at - known
    this.#held = bytes.subarray(known)
    out.push(bytes.subarray(from, known))
    return out.filter((part) => part.length > 0)
  }
}
