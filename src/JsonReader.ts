/**
 * A pull reader of one JSON text that loses nothing: numbers keep their source text, strings every code unit.
 *
 * It walks over the bytes and takes what it returns out of the decoded text, which is several times faster than
 * decoding each part. Time is linear in the length and nesting is bounded.
 */

/** Why a text was refused. */
export const refusals = [
  "invalid UTF-8",
  "invalid JSON",
  "lone surrogate",
  "nested too deep",
  "unexpected value",
  "number out of range",
  "missing field",
  "duplicate field",
  "unknown message type",
  "unknown cell tag"
] as const
export type Refusal = (typeof refusals)[number]

/** Thrown by the reader; it names the place but never what stands there. */
export class JsonRefused extends Error {
  readonly reason: Refusal
  readonly path: string
  /** The byte at which reading stopped. */
  readonly position: number
  constructor(reason: Refusal, path: string, position: number) {
    super(`${path}: ${reason}`)
    this.reason = reason
    this.path = path
    this.position = position
  }
}

/** A key that is expected at a place, with the bytes `"key":` it is recognised by. */
export interface Key {
  readonly text: string
  readonly bytes: Uint8Array
}
export const key = (text: string): Key => ({ text, bytes: new TextEncoder().encode(`"${text}":`) })

export const OpenBrace = 0x7b
export const CloseBrace = 0x7d
export const OpenBracket = 0x5b
export const CloseBracket = 0x5d
export const Quote = 0x22
const Backslash = 0x5c
const Comma = 0x2c
const Colon = 0x3a
const Minus = 0x2d
const Plus = 0x2b
const Dot = 0x2e
const Zero = 0x30
const Nine = 0x39
const LowerE = 0x65
const LowerN = 0x6e
const LowerU = 0x75

const isDigit = (byte: number): boolean => byte >= Zero && byte <= Nine

const word = (text: string): Uint8Array => new TextEncoder().encode(text)
const True = word("true")
const False = word("false")
const Null = word("null")

const escapes: ReadonlyMap<number, string> = new Map(
  Object.entries({ '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" }).map(
    ([letter, text]) => [letter.charCodeAt(0), text]
  )
)

/** How deep a value that is skipped may nest: more than any sensible extension, far less than the stack holds. */
const maxDepth = 64

/** Whole numbers of at most this many digits are exact as a double. */
const exactDigits = 15

const maxUint64 = 2n ** 64n - 1n

// A byte order mark is kept and then refused, as JSON does.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
const empty = Buffer.alloc(0)

/** From this length on V8 makes a slice a view of the whole string instead of a copy. */
const shortestView = 13

/** Holds the bytes of byte arrays of ordinary size; a larger one gets its own, so that none is kept. */
const scratch = new Uint8Array(4096)

export class JsonReader {
  /** Where in the document the reader is; the caller keeps it up for the sake of errors. */
  path = ""
  /** The element of an array at `path`, or -1. */
  index = -1

  private bytes: Buffer = empty
  private text = ""
  private end = 0
  private pos = 0
  /** By how much the position in the bytes is ahead of the one in the text: code points above 127 take more bytes. */
  private shift = 0

  // What the last call of `digits` found.
  private start = 0
  private count = 0
  private value = 0
  private isNegative = false

  load(bytes: Uint8Array): void {
    this.bytes = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    this.end = bytes.length
    this.pos = 0
    this.shift = 0
    this.path = "$"
    this.index = -1
    try {
      this.text = utf8.decode(bytes)
    } catch {
      this.refuse("invalid UTF-8")
    }
  }

  /** Nothing but white space may follow. */
  finish(): void {
    this.blank()
    if (this.pos < this.end) {
      this.path = "$"
      this.refuse("invalid JSON")
    }
  }

  /** Forgets the text, which would otherwise stay reachable until the next one. */
  release(): void {
    this.bytes = empty
    this.text = ""
  }

  /** The path of the value being read. */
  where(): string {
    return this.index < 0 ? this.path : `${this.path}[${this.index}]`
  }

  refuse(reason: Refusal): never {
    throw new JsonRefused(reason, this.where(), this.pos)
  }

  private unexpected(): never {
    return this.refuse(this.pos < this.end ? "unexpected value" : "invalid JSON")
  }

  /** A place to come back to with {@link rewind}. */
  mark(): number {
    return this.pos
  }

  /** Returns to a place that was passed before. */
  rewind(mark: number): void {
    for (let at = mark; at < this.pos; at++) this.shift -= ahead(this.bytes[at]!)
    this.pos = mark
  }

  /** The next byte that is not white space, without consuming it; 0 at the end. */
  peek(): number {
    if (this.pos < this.end) {
      const byte = this.bytes[this.pos]!
      if (byte > 0x20) return byte
    }
    this.blank()
    return this.pos < this.end ? this.bytes[this.pos]! : 0
  }

  /** The byte `distance` behind the current position; 0 behind the end. */
  ahead(distance: number): number {
    return this.pos + distance < this.end ? this.bytes[this.pos + distance]! : 0
  }

  private blank(): void {
    while (this.pos < this.end) {
      const byte = this.bytes[this.pos]!
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return
      this.pos++
    }
  }

  open(byte: number): void {
    if (this.peek() !== byte) this.unexpected()
    this.pos++
  }

  /** Whether a further member (the `n`-th, from 0) of an object or array follows, or else consumes what closes it. */
  another(n: number, close: number): boolean {
    const byte = this.peek()
    if (byte === close) {
      this.pos++
      return false
    }
    if (n > 0) {
      if (byte !== Comma) this.refuse("invalid JSON")
      this.pos++
    }
    return true
  }

  /** Whether exactly these bytes come next; consumes them. */
  private take(expected: Uint8Array): boolean {
    const length = expected.length
    const from = this.pos
    if (from + length > this.end) return false
    const bytes = this.bytes
    for (let i = 0; i < length; i++) if (bytes[from + i] !== expected[i]) return false
    this.pos = from + length
    return true
  }

  /** A member's key, its colon consumed. The expected one is recognised without building a string. */
  key(expected: Key | undefined): string {
    if (expected !== undefined && this.take(expected.bytes)) return expected.text
    const found = this.string()
    if (this.peek() !== Colon) this.refuse("invalid JSON")
    this.pos++
    return found
  }

  string(): string {
    if (this.peek() !== Quote) this.unexpected()
    const bytes = this.bytes
    const end = this.end
    const start = this.pos + 1
    let pos = start
    while (pos < end) {
      const byte = bytes[pos]!
      if (byte === Quote) {
        this.pos = pos + 1
        // A slice this long would keep the whole document in memory; a copy costs less than what that does.
        if (pos - start >= shortestView) return bytes.toString("latin1", start, pos)
        return this.text.slice(start - this.shift, pos - this.shift)
      }
      if (byte === Backslash || byte < 0x20 || byte > 0x7f) break
      pos++
    }
    return this.richString(start)
  }

  /** A string with escapes or with code points above 127. */
  private richString(start: number): string {
    const bytes = this.bytes
    const end = this.end
    let text = ""
    let from = start - this.shift
    let pos = start
    while (pos < end) {
      const byte = bytes[pos]!
      if (byte > 0x7f) {
        this.shift += ahead(byte)
        pos++
      } else if (byte === Quote) {
        this.pos = pos + 1
        return text + this.text.slice(from, pos - this.shift)
      } else if (byte === Backslash) {
        text += this.text.slice(from, pos - this.shift)
        this.pos = pos + 1
        text += this.escape()
        pos = this.pos
        from = pos - this.shift
      } else if (byte < 0x20) {
        this.pos = pos
        this.refuse("invalid JSON")
      } else {
        pos++
      }
    }
    this.pos = pos
    return this.refuse("invalid JSON")
  }

  /** What stands behind a backslash. */
  private escape(): string {
    const letter = this.ahead(0)
    const simple = escapes.get(letter)
    if (simple !== undefined) {
      this.pos++
      return simple
    }
    const unit = this.unicode()
    if (unit < 0xd800 || unit > 0xdfff) return String.fromCharCode(unit)
    if (unit > 0xdbff || this.ahead(0) !== Backslash || this.ahead(1) !== LowerU) this.refuse("lone surrogate")
    this.pos++
    const low = this.unicode()
    if (low < 0xdc00 || low > 0xdfff) this.refuse("lone surrogate")
    return String.fromCharCode(unit, low)
  }

  /** `uXXXX` */
  private unicode(): number {
    if (this.ahead(0) !== LowerU) this.refuse("invalid JSON")
    let unit = 0
    for (let i = 1; i <= 4; i++) {
      const byte = this.ahead(i)
      const letter = byte | 0x20
      if (isDigit(byte)) unit = unit * 16 + (byte - Zero)
      else if (letter >= 0x61 && letter <= 0x66) unit = unit * 16 + (letter - 0x57)
      else this.refuse("invalid JSON")
    }
    this.pos += 5
    return unit
  }

  boolean(): boolean {
    this.peek()
    if (this.take(True)) return true
    if (this.take(False)) return false
    return this.unexpected()
  }

  /** Whether the value is `null`; consumes it then. */
  null(): boolean {
    if (this.peek() !== LowerN) return false
    if (!this.take(Null)) this.refuse("invalid JSON")
    return true
  }

  /** Reads a whole number: no fraction, no exponent, no leading zero, no -0 (which would not survive being compared). */
  private digits(): void {
    this.isNegative = this.peek() === Minus
    const bytes = this.bytes
    const end = this.end
    const start = this.isNegative ? this.pos + 1 : this.pos
    let pos = start
    let value = 0
    let byte = 0
    while (pos < end && isDigit((byte = bytes[pos]!))) {
      value = value * 10 + (byte - Zero)
      pos++
    }
    const first = this.pos
    const count = pos - start
    if (count === 0) this.unexpected()
    this.pos = pos
    if (bytes[start] === Zero && (count > 1 || this.isNegative)) this.unexpected()
    if (pos < end && (byte === Dot || (byte | 0x20) === LowerE)) this.unexpected()
    this.start = first
    this.count = count
    this.value = value
  }

  private source(): string {
    return this.text.slice(this.start - this.shift, this.pos - this.shift)
  }

  /** A whole number between two bounds that a double holds exactly. */
  integer(min: number, max: number): number {
    this.digits()
    const value = this.isNegative ? -this.value : this.value
    if (value < min || value > max) this.refuse("number out of range")
    return value
  }

  /** The same, as it is written. */
  integerText(min: number, max: number): string {
    this.integer(min, max)
    return this.source()
  }

  /** Passes over an unsigned 64-bit number. */
  skipUint64(): void {
    this.digits()
    if (this.isNegative || this.count > 20 || (this.count === 20 && BigInt(this.source()) > maxUint64)) {
      this.refuse("number out of range")
    }
  }

  uint64(): bigint {
    this.skipUint64()
    return BigInt(this.count <= exactDigits ? this.value : this.source())
  }

  /** Passes over a signed 64-bit number. */
  skipInt64(): void {
    this.digits()
    if (this.count > 19 || (this.count === 19 && BigInt.asIntN(64, BigInt(this.source())) !== BigInt(this.source()))) {
      this.refuse("number out of range")
    }
  }

  int64(): bigint {
    this.skipInt64()
    return BigInt(this.count <= exactDigits && !this.isNegative ? this.value : this.source())
  }

  /** A signed 64-bit number as it is written. */
  int64Text(): string {
    this.skipInt64()
    return this.source()
  }

  /** Any JSON number as it is written. */
  numberText(): string {
    const isNegative = this.peek() === Minus
    const start = this.pos
    let pos = isNegative ? start + 1 : start
    const whole = pos
    pos = this.pastDigits(pos)
    if (pos - whole > 1 && this.bytes[whole] === Zero) this.refuse("invalid JSON")
    if (this.bytes[pos] === Dot) pos = this.pastDigits(pos + 1)
    if (pos < this.end && (this.bytes[pos]! | 0x20) === LowerE) {
      const sign = this.bytes[pos + 1]
      pos = this.pastDigits(sign === Plus || sign === Minus ? pos + 2 : pos + 1)
    }
    this.pos = pos
    return this.text.slice(start - this.shift, pos - this.shift)
  }

  /** The position behind at least one digit. */
  private pastDigits(from: number): number {
    let pos = from
    while (pos < this.end && isDigit(this.bytes[pos]!)) pos++
    if (pos === from) {
      this.pos = pos
      this.unexpected()
    }
    return pos
  }

  /** An array of bytes, as numbers, that together are UTF-8 text. */
  byteText(): string {
    this.open(OpenBracket)
    // Each byte takes at least a digit and what separates it from the next.
    const room = (this.end - this.pos + 1) >> 1
    const out = room <= scratch.length ? scratch : new Uint8Array(room)
    let length = this.compactBytes(out)
    if (length < 0) {
      length = 0
      for (let n = 0; this.another(n, CloseBracket); n++) out[length++] = this.integer(0, 255)
    }
    try {
      return utf8.decode(out.subarray(0, length))
    } catch {
      return this.refuse("invalid UTF-8")
    }
  }

  /**
   * Reads the elements of a byte array without white space and its closing bracket; returns how many. Whatever is
   * not in that form, or not valid, is left where it is (-1).
   */
  private compactBytes(out: Uint8Array): number {
    const bytes = this.bytes
    // Three digits and a bracket are always followed by what closes the tuple, the message and the event.
    const last = this.end - 4
    let length = 0
    let pos = this.pos
    while (pos < last) {
      let value = bytes[pos++]! - Zero
      if (value < 0 || value > 9) return -1
      let next = bytes[pos++]!
      if (next >= Zero && next <= Nine && value > 0) {
        value = value * 10 + (next - Zero)
        next = bytes[pos++]!
        if (next >= Zero && next <= Nine) {
          value = value * 10 + (next - Zero)
          next = bytes[pos++]!
        }
      }
      if (value > 255) return -1
      out[length++] = value
      if (next === CloseBracket) {
        this.pos = pos
        return length
      }
      if (next !== Comma) return -1
    }
    return -1
  }

  /** Consumes one value of any kind. */
  skip(depth = 0): void {
    const byte = this.peek()
    if (byte === Quote) this.string()
    else if (byte === OpenBrace || byte === OpenBracket) {
      if (depth === maxDepth) this.refuse("nested too deep")
      this.pos++
      const close = byte === OpenBrace ? CloseBrace : CloseBracket
      for (let n = 0; this.another(n, close); n++) {
        if (byte === OpenBrace) this.key(undefined)
        this.skip(depth + 1)
      }
    } else if (byte === Minus || isDigit(byte)) this.numberText()
    else if (!this.take(True) && !this.take(False) && !this.take(Null)) this.refuse("invalid JSON")
  }
}

/** How many bytes more than UTF-16 code units the code point takes that this byte begins; 0 within one. */
const ahead = (byte: number): number => (byte < 0xc0 ? 0 : byte < 0xe0 ? 1 : 2)
