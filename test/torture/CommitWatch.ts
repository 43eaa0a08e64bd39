/** Reads along what a PostgreSQL frontend sends, to see when it commits. */

const Query = 0x51
const Parse = 0x50
const Bind = 0x42

const isCommit = (text: string): boolean => /^\s*COMMIT\b/i.test(text)

/** A message as long as this one is rows, not a COMMIT. */
const longMessage = 64 * 1024

/** The zero-terminated texts that a message begins with. */
const texts = (body: Buffer, count: number): ReadonlyArray<string> => {
  const found: Array<string> = []
  let start = 0
  while (found.length < count) {
    const end = body.indexOf(0, start)
    if (end < 0) return found
    found.push(body.toString("utf8", start, end))
    start = end + 1
  }
  return found
}

export class CommitWatch {
  private rest: Buffer = Buffer.alloc(0)
  /** Bytes of a long message that are still to come. */
  private skipped = 0
  /** The first message of a connection has no type. */
  private isStarted = false
  /** Names of the prepared statements that commit. */
  private readonly prepared = new Set<string>()

  /** Whether one of the messages that these bytes complete asks for a COMMIT. */
  push(chunk: Buffer): boolean {
    let bytes = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk])
    let hasCommit = false
    const skipping = Math.min(this.skipped, bytes.length)
    this.skipped -= skipping
    bytes = bytes.subarray(skipping)
    for (;;) {
      const header = this.isStarted ? 5 : 4
      if (bytes.length < header) break
      const end = header - 4 + bytes.readUInt32BE(header - 4)
      if (bytes.length < end && end < longMessage) break
      if (bytes.length < end) {
        this.skipped = end - bytes.length
        bytes = Buffer.alloc(0)
        break
      }
      if (this.isStarted && this.commits(bytes[0], bytes.subarray(header, end))) hasCommit = true
      this.isStarted = true
      bytes = bytes.subarray(end)
    }
    this.rest = bytes
    return hasCommit
  }

  private commits(type: number | undefined, body: Buffer): boolean {
    if (type === Query) return isCommit(texts(body, 1)[0] ?? "")
    if (type === Parse) {
      const [name = "", text = ""] = texts(body, 2)
      if (isCommit(text)) this.prepared.add(name)
      else this.prepared.delete(name)
      return false
    }
    if (type === Bind) return this.prepared.has(texts(body, 2)[1] ?? "")
    return false
  }
}
