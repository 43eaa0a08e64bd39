/**
 * A pull reader of one JSON text that loses nothing: numbers keep their source text, strings every code point.
 *
 * It walks over the bytes once and copies the text of values, still as bytes, to where the caller wants it. Time is
 * linear in the length and nesting is bounded.
 */
import { Arena } from "./Tuple.ts"

const encoder = new TextEncoder()

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
  "unknown cell tag",
  "value left out"
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

/** A text that is expected at a place, with the bytes that it is recognised by. */
export interface Expected {
  readonly text: string
  readonly bytes: Uint8Array
}
/** `"text":` */
export const key = (text: string): Expected => ({ text, bytes: encoder.encode(`"${text}":`) })
/** `"text"` */
export const string = (text: string): Expected => ({ text, bytes: encoder.encode(`"${text}"`) })

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

const word = (text: string): Uint8Array => encoder.encode(text)
const True = word("true")
const False = word("false")
const Null = word("null")

/** The byte that a letter behind a backslash stands for, by the letter. */
const escapes: Array<number | undefined> = Array.from({ length: 128 })
for (const [letter, text] of Object.entries({
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t"
})) {
  escapes[letter.charCodeAt(0)] = text.charCodeAt(0)
}

/** How deep a value that is skipped may nest: more than any sensible extension, far less than the stack holds. */
const maxDepth = 64

/** Whole numbers of at most this many digits are exact as a double. */
const exactDigits = 15

const maxUint64 = 2n ** 64n - 1n

// A byte order mark is kept and then refused, as JSON does.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
const empty = new Uint8Array(0)

/** Takes the strings that are not cells, as names and keys are; a longer one gets its own, so that none is kept. */
const scratch = new Arena(4096, 0)

export class JsonReader {
  /** Where in the document the reader is; the caller keeps it up for the sake of errors. */
  path = ""
  /** The element of an array at `path`, or -1. */
  index = -1

  private bytes: Uint8Array = empty
  private base = 0
  private end = 0
  private pos = 0
  /** Whether the whole text is known to be UTF-8: it is looked at as soon as a byte is not ASCII. */
  private isUtf8 = false

  // What the last call of `digits` found.
  private start = 0
  private count = 0
  private value = 0
  private isNegative = false

  /** Reads `bytes` from `base` to before `end`; what stands around that decides nothing. */
  load(bytes: Uint8Array, base: number, end: number): void {
    this.bytes = bytes
    this.base = base
    this.end = end
    this.pos = base
    this.isUtf8 = false
    this.path = "$"
    this.index = -1
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
  }

  /** The path of the value being read. */
  where(): string {
    return this.index < 0 ? this.path : `${this.path}[${this.index}]`
  }

  refuse(reason: Refusal): never {
    // What is not even text is not called bad JSON.
    if (reason !== "invalid UTF-8") this.checkUtf8()
    throw new JsonRefused(reason, this.where(), this.pos - this.base)
  }

  private checkUtf8(): void {
    if (this.isUtf8) return
    this.isUtf8 = true
    try {
      utf8.decode(this.bytes.subarray(this.base, this.end))
    } catch {
      this.path = "$"
      this.index = -1
      this.pos = this.base
      this.refuse("invalid UTF-8")
    }
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
  take(expected: Uint8Array): boolean {
    const length = expected.length
    const from = this.pos
    if (from + length > this.end) return false
    const bytes = this.bytes
    for (let i = 0; i < length; i++) if (bytes[from + i] !== expected[i]) return false
    this.pos = from + length
    return true
  }

  /** A member's key, its colon consumed. The expected one is recognised without building a string. */
  key(expected: Expected | undefined): string {
    if (expected !== undefined && this.take(expected.bytes)) return expected.text
    const found = this.string()
    if (this.peek() !== Colon) this.refuse("invalid JSON")
    this.pos++
    return found
  }

  string(): string {
    // Of a record that is longer than the scratch, the string alone decides: there may be as many as it has bytes.
    const size = this.end - this.base <= scratch.bytes.length ? 0 : this.stringSize()
    const out = size <= scratch.bytes.length ? scratch : new Arena(size, 0)
    out.length = 0
    this.appendString(out)
    return utf8.decode(out.bytes.subarray(0, out.length))
  }

  /** At most how many bytes the text of the string that comes next has: none is longer than what is written for it. */
  private stringSize(): number {
    this.peek()
    const { bytes, end } = this
    const start = this.pos + 1
    let pos = start
    while (pos < end && bytes[pos] !== Quote) pos += bytes[pos] === Backslash ? 2 : 1
    return Math.min(pos, end) - start
  }

  /** A string whose text goes to `out`, which has room for as many bytes as are written for it. */
  appendString(out: Arena): void {
    if (this.peek() !== Quote) this.unexpected()
    const { bytes, end } = this
    const to = out.bytes
    let length = out.length
    let pos = this.pos + 1
    let seen = 0
    while (pos < end) {
      const byte = bytes[pos]!
      if (byte === Quote) {
        this.pos = pos + 1
        out.length = length
        if (seen > 0x7f) this.checkUtf8()
        return
      }
      if (byte === Backslash) {
        this.pos = pos + 1
        length = this.escape(to, length)
        out.note(to[length - 1]!)
        pos = this.pos
        continue
      }
      if (byte < 0x20) break
      seen |= byte
      to[length++] = byte
      pos++
    }
    this.pos = pos
    this.refuse("invalid JSON")
  }

  /** What stands behind a backslash, as UTF-8; returns where it ends in `to`. */
  private escape(to: Uint8Array, at: number): number {
    const simple = escapes[this.ahead(0)]
    if (simple !== undefined) {
      this.pos++
      to[at] = simple
      return at + 1
    }
    let point = this.unicode()
    if (point >= 0xd800 && point <= 0xdfff) {
      if (point > 0xdbff || this.ahead(0) !== Backslash || this.ahead(1) !== LowerU) this.refuse("lone surrogate")
      this.pos++
      const low = this.unicode()
      if (low < 0xdc00 || low > 0xdfff) this.refuse("lone surrogate")
      point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00)
    }
    return at + encoder.encodeInto(String.fromCodePoint(point), to.subarray(at)).written
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

  /** `true` or `false`, as it is written. */
  appendBoolean(out: Arena): void {
    this.peek()
    const start = this.pos
    if (!this.take(True) && !this.take(False)) this.unexpected()
    this.append(start, out)
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

  /** What the last call of `digits` passed over. */
  private source(): string {
    return this.ascii(this.start)
  }

  /** Of a number: everything between `from` and the current position is ASCII. */
  private ascii(from: number): string {
    return String.fromCharCode(...this.bytes.subarray(from, this.pos))
  }

  /** Copies what was passed over since `from` to `out`. */
  private append(from: number, out: Arena): void {
    const { bytes, pos } = this
    const to = out.bytes
    let { length } = out
    for (let at = from; at < pos; at++) to[length++] = bytes[at]!
    out.length = length
  }

  /** A whole number between two bounds that a double holds exactly. */
  integer(min: number, max: number): number {
    this.digits()
    const value = this.isNegative ? -this.value : this.value
    if (value < min || value > max) this.refuse("number out of range")
    return value
  }

  /** The same, as it is written. */
  appendInteger(min: number, max: number, out: Arena): void {
    const { bytes, end } = this
    const to = out.bytes
    let { length } = out
    this.isNegative = this.peek() === Minus
    let pos = this.pos
    if (this.isNegative) to[length++] = bytes[pos++]!
    const first = bytes[pos]
    let value = 0
    let byte = 0
    while (pos < end && isDigit((byte = bytes[pos]!))) {
      value = value * 10 + (byte - Zero)
      to[length++] = byte
      pos++
    }
    const signed = this.isNegative ? -value : value
    // What is out of the ordinary is looked at again, to say why it is refused.
    const isPlain = (byte === CloseBrace || byte === Comma) && signed >= min && signed <= max
    if (isPlain && isDigit(first!) && (first !== Zero || pos === this.pos + 1)) {
      this.pos = pos
      out.length = length
      return
    }
    this.integer(min, max)
    this.append(this.start, out)
  }

  /** Passes over a number of 1 to 18 digits, as nearly all are, or else over nothing. */
  private skipPlain(): boolean {
    const first = this.peek()
    const { bytes, end, pos } = this
    if (first <= Zero || first > Nine) return false
    let at = pos + 1
    while (at < end && isDigit(bytes[at]!)) at++
    const byte = bytes[at]
    if (at === end || at - pos > 18 || (byte !== Comma && byte !== CloseBrace)) return false
    this.pos = at
    return true
  }

  /** Passes over an unsigned 64-bit number. */
  skipUint64(): void {
    if (!this.skipPlain()) this.readUint64()
  }

  private readUint64(): void {
    this.digits()
    if (this.isNegative || this.count > 20 || (this.count === 20 && BigInt(this.source()) > maxUint64)) {
      this.refuse("number out of range")
    }
  }

  uint64(): bigint {
    this.readUint64()
    return BigInt(this.count <= exactDigits ? this.value : this.source())
  }

  /** Passes over a signed 64-bit number. */
  skipInt64(): void {
    if (!this.skipPlain()) this.readInt64()
  }

  private readInt64(): void {
    this.digits()
    if (this.count > 19 || (this.count === 19 && BigInt.asIntN(64, BigInt(this.source())) !== BigInt(this.source()))) {
      this.refuse("number out of range")
    }
  }

  int64(): bigint {
    this.readInt64()
    return BigInt(this.count <= exactDigits && !this.isNegative ? this.value : this.source())
  }

  /** A signed 64-bit number as it is written. */
  appendInt64(out: Arena): void {
    this.peek()
    const start = this.pos
    this.skipInt64()
    this.append(start, out)
  }

  /** Any JSON number as it is written. */
  appendNumber(out: Arena): void {
    const start = this.skipNumber()
    this.append(start, out)
  }

  /** Passes over any JSON number; returns where it began. */
  private skipNumber(): number {
    const isNegative = this.peek() === Minus
    const start = this.pos
    let pos = isNegative ? start + 1 : start
    const whole = pos
    pos = this.pastDigits(pos)
    if (pos - whole > 1 && this.bytes[whole] === Zero) this.refuse("invalid JSON")
    if (pos < this.end && this.bytes[pos] === Dot) pos = this.pastDigits(pos + 1)
    if (pos < this.end && (this.bytes[pos]! | 0x20) === LowerE) {
      const sign = this.bytes[pos + 1]
      pos = this.pastDigits(sign === Plus || sign === Minus ? pos + 2 : pos + 1)
    }
    this.pos = pos
    return start
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
  appendByteText(out: Arena): void {
    this.open(OpenBracket)
    const start = out.length
    let seen = this.compactBytes(out)
    if (seen < 0) {
      seen = 0
      for (let n = 0; this.another(n, CloseBracket); n++) {
        const byte = this.integer(0, 255)
        out.note(byte)
        seen |= byte
        out.bytes[out.length++] = byte
      }
    }
    if (seen <= 0x7f) return
    try {
      utf8.decode(out.bytes.subarray(start, out.length))
    } catch {
      this.refuse("invalid UTF-8")
    }
  }

  /**
   * Reads the elements of a byte array without white space and its closing bracket; returns the union of their bits.
   * Whatever is not in that form, or not valid, is left where it is (-1).
   */
  private compactBytes(out: Arena): number {
    const bytes = this.bytes
    const to = out.bytes
    // Three digits and a bracket are always followed by what closes the tuple, the message and the event.
    const last = this.end - 4
    let { length } = out
    let seen = 0
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
      if (value <= Quote || value === Backslash) out.note(value)
      seen |= value
      to[length++] = value
      if (next === CloseBracket) {
        this.pos = pos
        out.length = length
        return seen
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
    } else if (byte === Minus || isDigit(byte)) this.skipNumber()
    else if (!this.take(True) && !this.take(False) && !this.take(Null)) this.refuse("invalid JSON")
  }
}
