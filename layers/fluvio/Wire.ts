/**
 * How Fluvio writes values into bytes.
 *
 * A {@link Wire} is one value's layout, read and written from one definition, so that a client and a broker cannot
 * disagree about it. Everything is big endian.
 */

/** The peer sent bytes that no Fluvio peer sends, or a value was to be written that has no place in the protocol. */
export class ProtocolViolation extends Error {
  override readonly name = "ProtocolViolation"
}

const initialCapacity = 256
/** Byte runs from this size on are passed through instead of being copied. */
const passThrough = 4096

/** Writes one message. Large byte runs are kept by reference: do not change them before the message is sent. */
export class Writer {
  private readonly done: Array<Buffer> = []
  private buffer = Buffer.allocUnsafe(initialCapacity)
  private start = 0
  private position = 0
  private size = 0

  /** Bytes written so far. */
  get length(): number {
    return this.size
  }

  private reserve(bytes: number): number {
    if (this.position + bytes > this.buffer.length) {
      this.flush()
      this.buffer = Buffer.allocUnsafe(Math.max(bytes, this.buffer.length * 2))
      this.start = 0
      this.position = 0
    }
    const at = this.position
    this.position += bytes
    this.size += bytes
    return at
  }

  private flush(): void {
    if (this.position > this.start) {
      this.done.push(this.buffer.subarray(this.start, this.position))
      this.start = this.position
    }
  }

  private whole(value: number, min: number, max: number): number {
    if (!Number.isInteger(value) || value < min || value > max) {
      throw new ProtocolViolation(`${value} is not a whole number from ${min} to ${max}`)
    }
    return value
  }

  u8(value: number): void {
    const byte = this.whole(value, 0, 0xff)
    const at = this.reserve(1)
    this.buffer[at] = byte
  }

  u16(value: number): void {
    const checked = this.whole(value, 0, 0xffff)
    const at = this.reserve(2)
    this.buffer.writeUInt16BE(checked, at)
  }

  i16(value: number): void {
    const checked = this.whole(value, -0x8000, 0x7fff)
    const at = this.reserve(2)
    this.buffer.writeInt16BE(checked, at)
  }

  u32(value: number): void {
    const checked = this.whole(value, 0, 0xffff_ffff)
    const at = this.reserve(4)
    this.buffer.writeUInt32BE(checked, at)
  }

  i32(value: number): void {
    const checked = this.whole(value, -0x8000_0000, 0x7fff_ffff)
    const at = this.reserve(4)
    this.buffer.writeInt32BE(checked, at)
  }

  i64(value: number): void {
    const checked = this.whole(value, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)
    const at = this.reserve(8)
    writeI64(this.buffer, checked, at)
  }

  /** Bytes without a length of their own. */
  bytes(value: Uint8Array): void {
    if (value.length < passThrough) {
      const at = this.reserve(value.length)
      this.buffer.set(value, at)
    } else {
      this.flush()
      this.done.push(Buffer.from(value.buffer, value.byteOffset, value.byteLength))
      this.size += value.length
    }
  }

  /** The message, in pieces. */
  pieces(): ReadonlyArray<Buffer> {
    this.flush()
    return this.done
  }
}

/** Reads one message. Every read is checked against the end of the message. */
export class Reader {
  readonly buffer: Buffer
  readonly end: number
  position: number

  constructor(buffer: Buffer, position = 0, end = buffer.length) {
    this.buffer = buffer
    this.position = position
    this.end = end
  }

  get remaining(): number {
    return this.end - this.position
  }

  private take(bytes: number): number {
    const at = this.position
    if (bytes > this.end - at) {
      throw new ProtocolViolation(`message ends at byte ${this.end}, but ${bytes} bytes were due at byte ${at}`)
    }
    this.position = at + bytes
    return at
  }

  u8(): number {
    const at = this.take(1)
    return this.buffer[at] as number
  }

  u16(): number {
    return this.buffer.readUInt16BE(this.take(2))
  }

  i16(): number {
    return this.buffer.readInt16BE(this.take(2))
  }

  u32(): number {
    return this.buffer.readUInt32BE(this.take(4))
  }

  i32(): number {
    return this.buffer.readInt32BE(this.take(4))
  }

  /** A 64-bit integer that a number can hold; anything beyond 2^53 is a violation. */
  i64(): number {
    const at = this.take(8)
    const value = readI64(this.buffer, at)
    if (!Number.isSafeInteger(value)) {
      throw new ProtocolViolation(`the 64-bit integer at byte ${at} is beyond 2^53`)
    }
    return value
  }

  /** A view of the next `length` bytes. */
  bytes(length: number): Buffer {
    const at = this.take(length)
    return this.buffer.subarray(at, at + length)
  }

  /** Fails unless the whole message was read. */
  finish(): void {
    if (this.position !== this.end) {
      throw new ProtocolViolation(`${this.end - this.position} bytes are left over at byte ${this.position}`)
    }
  }
}

/** The 64-bit integer at `at`, rounded beyond 2^53. */
export const readI64 = (buffer: Buffer, at: number): number =>
  buffer.readInt32BE(at) * 0x1_0000_0000 + buffer.readUInt32BE(at + 4)

export const writeI64 = (buffer: Buffer, value: number, at: number): void => {
  const high = Math.floor(value / 0x1_0000_0000)
  buffer.writeInt32BE(high, at)
  buffer.writeUInt32BE(value - high * 0x1_0000_0000, at + 4)
}

/** How a value of type `A` stands in a message. Both directions throw {@link ProtocolViolation}. */
export interface Wire<A> {
  write(writer: Writer, value: A): void
  read(reader: Reader): A
}

export type TypeOf<W> = W extends Wire<infer A> ? A : never

export const u8: Wire<number> = { write: (writer, value) => writer.u8(value), read: (reader) => reader.u8() }
export const u16: Wire<number> = { write: (writer, value) => writer.u16(value), read: (reader) => reader.u16() }
export const i16: Wire<number> = { write: (writer, value) => writer.i16(value), read: (reader) => reader.i16() }
export const u32: Wire<number> = { write: (writer, value) => writer.u32(value), read: (reader) => reader.u32() }
export const i32: Wire<number> = { write: (writer, value) => writer.i32(value), read: (reader) => reader.i32() }
/** Signed and unsigned 64-bit integers within ±2^53. */
export const i64: Wire<number> = { write: (writer, value) => writer.i64(value), read: (reader) => reader.i64() }
/** Settings whose greatest value may stand for "without limit". */
export const u64: Wire<bigint> = {
  write: (writer, value) => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64BE(value)
    writer.bytes(bytes)
  },
  read: (reader) => reader.bytes(8).readBigUInt64BE()
}

export const bool: Wire<boolean> = {
  write: (writer, value) => writer.u8(value ? 1 : 0),
  read: (reader) => {
    const byte = reader.u8()
    if (byte > 1) {
      throw new ProtocolViolation(`the boolean at byte ${reader.position - 1} is ${byte}`)
    }
    return byte === 1
  }
}

/** UTF-8 of at most 32,767 bytes: the length is read as a signed number, and one below 1 means empty. */
export const string: Wire<string> = {
  write: (writer, value) => {
    const bytes = Buffer.from(value)
    writer.i16(bytes.length)
    writer.bytes(bytes)
  },
  read: (reader) => {
    const length = reader.i16()
    return length < 1 ? "" : reader.bytes(length).toString("utf8")
  }
}

/**
 * Bytes behind their `i32` length. Written from parts, by reference, so that stored batches need no joining; read as at
 * most one part, a view into the message.
 */
export const byteParts: Wire<ReadonlyArray<Buffer>> = {
  write: (writer, parts) => {
    let length = 0
    for (const part of parts) {
      length += part.length
    }
    writer.i32(length)
    for (const part of parts) {
      writer.bytes(part)
    }
  },
  read: (reader) => {
    const length = reader.i32()
    return length < 1 ? [] : [reader.bytes(length)]
  }
}

export const array = <A>(item: Wire<A>): Wire<ReadonlyArray<A>> => ({
  write: (writer, values) => {
    writer.i32(values.length)
    for (const value of values) {
      item.write(writer, value)
    }
  },
  read: (reader) => items(reader, reader.i32(), item)
})

const items = <A>(reader: Reader, count: number, item: Wire<A>): ReadonlyArray<A> => {
  // Every item takes at least a byte, so a nonsensical count cannot make us allocate more than the message is long.
  if (count > reader.remaining) {
    throw new ProtocolViolation(`${count} items cannot stand in the ${reader.remaining} bytes that are left`)
  }
  const values: Array<A> = []
  for (let index = 0; index < count; index++) {
    values.push(item.read(reader))
  }
  return values
}

/** A map as its entries; unlike an array it carries a 16-bit count. */
export const entries = <K, V>(key: Wire<K>, value: Wire<V>): Wire<ReadonlyArray<readonly [K, V]>> => {
  const entry: Wire<readonly [K, V]> = {
    write: (writer, pair) => {
      key.write(writer, pair[0])
      value.write(writer, pair[1])
    },
    read: (reader) => [key.read(reader), value.read(reader)]
  }
  return {
    write: (writer, pairs) => {
      writer.u16(pairs.length)
      for (const pair of pairs) {
        entry.write(writer, pair)
      }
    },
    read: (reader) => items(reader, reader.u16(), entry)
  }
}

export const optional = <A>(item: Wire<A>): Wire<A | undefined> => ({
  write: (writer, value) => {
    bool.write(writer, value !== undefined)
    if (value !== undefined) {
      item.write(writer, value)
    }
  },
  read: (reader) => (bool.read(reader) ? item.read(reader) : undefined)
})

/** Fields one after the other, in the order of the definition. */
export const struct = <const Fields extends Record<string, Wire<unknown>>>(
  fields: Fields
): Wire<{ readonly [Name in keyof Fields]: TypeOf<Fields[Name]> }> => {
  type Struct = { readonly [Name in keyof Fields]: TypeOf<Fields[Name]> }
  const layout = Object.entries<Wire<unknown>>(fields)
  return {
    write: (writer, value) => {
      for (const [name, field] of layout) {
        field.write(writer, value[name])
      }
    },
    read: (reader) => {
      const value: Record<string, unknown> = {}
      for (const [name, field] of layout) {
        value[name] = field.read(reader)
      }
      return value as Struct
    }
  }
}

/** A one-byte tag that chooses the variant; the value carries the variant's name as `type`. */
export const variants = <const Variants extends Record<string, Wire<object>>>(
  cases: Variants
): Wire<{ [Type in keyof Variants]: { readonly type: Type } & TypeOf<Variants[Type]> }[keyof Variants]> => {
  type Union = { [Type in keyof Variants]: { readonly type: Type } & TypeOf<Variants[Type]> }[keyof Variants]
  const names = Object.keys(cases)
  return {
    write: (writer, value) => {
      writer.u8(names.indexOf(value.type as string))
      cases[value.type]?.write(writer, value)
    },
    read: (reader) => {
      const tag = reader.u8()
      const type = names[tag]
      if (type === undefined) {
        throw new ProtocolViolation(`${tag} is none of the ${names.length} variants (${names.join(", ")})`)
      }
      return { ...cases[type]?.read(reader), type } as Union
    }
  }
}

/** An object's label, then its length in bytes, then the object. A different label is a violation. */
export const labelled = <A>(label: string, body: Wire<A>): Wire<A> => ({
  write: (writer, value) => {
    const inner = new Writer()
    body.write(inner, value)
    string.write(writer, label)
    writer.u32(inner.length)
    for (const piece of inner.pieces()) {
      writer.bytes(piece)
    }
  },
  read: (reader) => {
    const found = string.read(reader)
    if (found !== label) {
      throw new ProtocolViolation(`expected an object of type ${label}, received ${JSON.stringify(found)}`)
    }
    const length = reader.u32()
    const inner = new Reader(reader.bytes(length))
    const value = body.read(inner)
    inner.finish()
    return value
  }
})
