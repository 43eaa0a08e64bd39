/**
 * Record batches: how records lie in a log, in a Produce request and in a fetch response.
 *
 * It resembles Kafka's batch of version 2, with differences that matter: compression covers the count together with the
 * records, a key is a flag and bytes, and headers are only a number.
 */
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from "node:zlib"
import { FluvioRecord, type Offset } from "../../src/stream/FluvioConsumer.ts"
import { crc32c, lz4, NativeMissing, snappy } from "./Natives.ts"
import { readI64, writeI64 } from "./Wire.ts"

/** A batch is damaged: its lengths, checksum or codec are wrong, or it holds something else than its header says. */
export class BatchCorrupt extends Error {
  override readonly name = "BatchCorrupt"
  /** The batch's base offset; 0 if even that is nonsensical. */
  readonly offset: number
  readonly reason: string

  constructor(offset: number, reason: string) {
    super(`the batch at offset ${offset} is corrupt: ${reason}`)
    this.offset = offset
    this.reason = reason
  }
}

// The order is that of the codec's number in the attributes.
const codecs = ["none", "gzip", "snappy", "lz4", "zstd"] as const
export type Codec = (typeof codecs)[number]

/** Where a batch lies and what it claims to hold. Nothing but its lengths has been checked. */
export interface BatchHeader {
  /** Index of its first byte and of the one after its last. */
  readonly start: number
  readonly end: number
  readonly baseOffset: number
  readonly lastOffset: number
}

/** A last batch of which the server sent only the beginning. */
export interface CutBatch {
  /** Its base offset, if enough of it is there. */
  readonly baseOffset: number | undefined
  /** Bytes of the whole batch; the least it can be if its length is cut off too. A response must have room for them. */
  readonly bytes: number
}

/** The whole batches in a run of bytes, and the cut one at its end. */
export interface Batches {
  readonly whole: ReadonlyArray<BatchHeader>
  readonly cut: CutBatch | undefined
}

/** Byte positions within a batch. */
const at = {
  length: 8,
  leaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  firstTimestamp: 27,
  maxTimestamp: 35,
  producerId: 43,
  producerEpoch: 51,
  firstSequence: 53,
  body: 57
} as const

const magic = 2
const codecMask = 0x07
const schemaFlag = 0x10
/** The least a record can take: five one-byte numbers, the key's flag and the header count. */
const minRecordBytes = 7
const noTimestamp = -1

/** Above this, decompressed, a batch counts as corrupt: 256 MiB. Servers accept batches of 32 MiB unless told otherwise. */
export const defaultMaxBatchBytes = 256 * 1024 * 1024

/**
 * Finds the batches in what a server sent, by their lengths alone. A batch that the end of the bytes cuts is reported,
 * not an error: servers cut responses at the size that was asked for. Throws {@link BatchCorrupt}.
 */
export const findBatches = (bytes: Buffer, maxBatchBytes = defaultMaxBatchBytes): Batches => {
  const whole: Array<BatchHeader> = []
  let start = 0
  while (start < bytes.length) {
    const left = bytes.length - start
    if (left < at.leaderEpoch) {
      return { whole, cut: { baseOffset: left < at.length ? undefined : offsetAt(bytes, start), bytes: at.body } }
    }
    const baseOffset = offsetAt(bytes, start)
    const length = at.leaderEpoch + bytes.readInt32BE(start + at.length)
    if (length < at.body || length > maxBatchBytes) {
      throw new BatchCorrupt(baseOffset, `a length of ${length} bytes; expected ${at.body} to ${maxBatchBytes}`)
    }
    if (left > at.magic && bytes[start + at.magic] !== magic) {
      throw new BatchCorrupt(baseOffset, `format ${bytes[start + at.magic]}; expected ${magic}`)
    }
    if (length > left) {
      return { whole, cut: { baseOffset, bytes: length } }
    }
    const lastOffset = baseOffset + bytes.readInt32BE(start + at.lastOffsetDelta)
    if (lastOffset < baseOffset || lastOffset > Number.MAX_SAFE_INTEGER - 1) {
      throw new BatchCorrupt(baseOffset, `a last offset of ${lastOffset}`)
    }
    whole.push({ start, end: start + length, baseOffset, lastOffset })
    start += length
  }
  return { whole, cut: undefined }
}

const offsetAt = (bytes: Buffer, start: number): number => {
  const offset = readI64(bytes, start)
  if (!Number.isSafeInteger(offset) || offset < 0) {
    throw new BatchCorrupt(0, "a base offset below 0 or beyond 2^53")
  }
  return offset
}

/**
 * The records of one batch from the offset `from` on, in order. Uncompressed keys and values are views into `bytes`.
 * The checksum is verified first, and every byte of the batch must be accounted for. Throws {@link BatchCorrupt},
 * or {@link NativeMissing} when the codec's package is.
 */
export const decodeRecords = (
  bytes: Buffer,
  batch: BatchHeader,
  from = 0,
  maxBatchBytes = defaultMaxBatchBytes
): Array<FluvioRecord> => {
  const { baseOffset, end, start } = batch
  const expected = bytes.readUInt32BE(start + at.crc)
  const computed = crc32c(bytes.subarray(start + at.attributes, end))
  if (computed !== expected) {
    throw new BatchCorrupt(baseOffset, `CRC-32C is ${hex(computed)} instead of ${hex(expected)}`)
  }
  const attributes = bytes.readInt16BE(start + at.attributes)
  const body = bytes.subarray(start + at.body + (attributes & schemaFlag ? 4 : 0), end)
  const codec = codecs[attributes & codecMask]
  if (codec === undefined) {
    throw new BatchCorrupt(baseOffset, `unknown codec ${attributes & codecMask}`)
  }
  let plain: Buffer
  try {
    plain = decompress(codec, body, maxBatchBytes)
  } catch (cause) {
    if (cause instanceof NativeMissing) throw cause
    throw new BatchCorrupt(baseOffset, `its ${codec} data: ${cause instanceof Error ? cause.message : String(cause)}`)
  }
  return new RecordReader(plain, baseOffset, readI64(bytes, start + at.firstTimestamp)).records(from)
}

const hex = (checksum: number): string => checksum.toString(16).padStart(8, "0")

class RecordReader {
  private readonly bytes: Buffer
  private readonly baseOffset: number
  private readonly firstTimestamp: number
  private position = 0

  constructor(bytes: Buffer, baseOffset: number, firstTimestamp: number) {
    this.bytes = bytes
    this.baseOffset = baseOffset
    this.firstTimestamp = firstTimestamp
  }

  records(from: number): Array<FluvioRecord> {
    const { baseOffset, bytes, firstTimestamp } = this
    const total = bytes.length
    if (total < 4) {
      throw this.corrupt("it ends before its record count")
    }
    const count = bytes.readInt32BE(0)
    if (count < 0 || count * minRecordBytes > total - 4) {
      throw this.corrupt(`${count} records cannot stand in ${total} bytes`)
    }
    this.position = 4
    const records: Array<FluvioRecord> = []
    for (let index = 0; index < count; index++) {
      const length = this.varint()
      const end = this.position + length
      if (length < minRecordBytes - 1 || end > total) {
        throw this.corrupt(`record ${index} has a length of ${length} bytes`)
      }
      // Past the record's own attributes, of which none is defined.
      this.position++
      const timestampDelta = this.varint()
      const offset = baseOffset + this.varint()
      let key: Buffer | undefined
      if (this.flag(index)) {
        const keyEnd = this.run(index, end)
        key = bytes.subarray(this.position, keyEnd)
        this.position = keyEnd
      }
      const valueEnd = this.run(index, end)
      const value = this.position
      this.position = valueEnd
      this.varint()
      if (this.position !== end) {
        throw this.corrupt(`record ${index} ends at byte ${this.position} instead of ${end}`)
      }
      if (!Number.isSafeInteger(offset) || offset < baseOffset) {
        throw this.corrupt(`record ${index} has the offset ${offset}`)
      }
      if (offset >= from) {
        const timestamp = firstTimestamp + timestampDelta
        const isKnown = firstTimestamp !== noTimestamp && Number.isSafeInteger(timestamp)
        records.push(new FluvioRecord(offset as Offset, key, bytes, value, valueEnd, isKnown ? timestamp : undefined))
      }
    }
    if (this.position !== total) {
      throw this.corrupt(`${total - this.position} bytes follow its ${count} records`)
    }
    return records
  }

  private flag(index: number): boolean {
    const byte = this.bytes[this.position++]
    if (byte !== 0 && byte !== 1) {
      throw this.corrupt(`record ${index} has the key flag ${byte}`)
    }
    return byte === 1
  }

  /** Where the run of bytes ends whose length comes next. */
  private run(index: number, limit: number): number {
    const length = this.varint()
    const end = this.position + length
    if (length < 0 || end > limit) {
      throw this.corrupt(`record ${index} holds a run of ${length} bytes`)
    }
    return end
  }

  /** Zigzag, seven bits per byte, low group first; rounded beyond 2^53. Most are of one or two bytes. */
  private varint(): number {
    const { bytes } = this
    const first = bytes[this.position++]
    if (first !== undefined && first < 0x80) {
      return (first >>> 1) ^ -(first & 1)
    }
    const second = bytes[this.position++]
    if (first !== undefined && second !== undefined && second < 0x80) {
      const raw = (first & 0x7f) | (second << 7)
      return (raw >>> 1) ^ -(raw & 1)
    }
    return this.longVarint(this.position - 2)
  }

  private longVarint(start: number): number {
    // The sign stands in the lowest bit, so the magnitude can be summed up without it.
    let magnitude = 0
    let scale = 0.5
    for (let position = start; position < start + 10; position++) {
      const byte = this.bytes[position]
      if (byte === undefined) {
        break
      }
      magnitude += (position === start ? byte & 0x7e : byte & 0x7f) * scale
      scale *= 128
      if (byte < 0x80) {
        this.position = position + 1
        return (this.bytes[start] as number) & 1 ? -magnitude - 1 : magnitude
      }
    }
    throw this.corrupt(`the number at byte ${start} has no end`)
  }

  private corrupt(reason: string): BatchCorrupt {
    return new BatchCorrupt(this.baseOffset, reason)
  }
}

/** What a producer gives. */
export interface NewRecord {
  readonly key?: Uint8Array | undefined
  readonly value: Uint8Array
}

export interface BatchOptions {
  readonly codec?: Codec
  /** When the records were produced, in milliseconds since 1970. */
  readonly timestamp: number
  /** The server assigns its own when it appends. */
  readonly baseOffset?: number
}

/** A batch of at least one record. */
export const encodeBatch = (records: ReadonlyArray<NewRecord>, options: BatchOptions): Buffer => {
  const codec = options.codec ?? "none"
  const body = compress(codec, encodeRecords(records))
  const batch = Buffer.allocUnsafe(at.body + body.length)
  writeI64(batch, options.baseOffset ?? 0, 0)
  batch.writeInt32BE(batch.length - at.leaderEpoch, at.length)
  batch.writeInt32BE(-1, at.leaderEpoch)
  batch[at.magic] = magic
  batch.writeInt16BE(codecs.indexOf(codec), at.attributes)
  batch.writeInt32BE(records.length - 1, at.lastOffsetDelta)
  writeI64(batch, options.timestamp, at.firstTimestamp)
  writeI64(batch, options.timestamp, at.maxTimestamp)
  writeI64(batch, -1, at.producerId)
  batch.writeInt16BE(-1, at.producerEpoch)
  batch.writeInt32BE(-1, at.firstSequence)
  body.copy(batch, at.body)
  batch.writeUInt32BE(crc32c(batch.subarray(at.attributes)), at.crc)
  return batch
}

/** Gives a stored batch its place in the log. The checksum does not cover it. */
export const setBaseOffset = (batch: Buffer, baseOffset: number): void => writeI64(batch, baseOffset, 0)

const encodeRecords = (records: ReadonlyArray<NewRecord>): Buffer => {
  let total = 4
  const lengths: Array<number> = []
  records.forEach(({ key, value }, index) => {
    const length =
      2 +
      varintBytes(index) +
      1 +
      (key === undefined ? 0 : varintBytes(key.length) + key.length) +
      varintBytes(value.length) +
      value.length +
      1
    lengths.push(length)
    total += varintBytes(length) + length
  })
  const bytes = Buffer.allocUnsafe(total)
  bytes.writeInt32BE(records.length, 0)
  let position = 4
  records.forEach(({ key, value }, index) => {
    position = writeVarint(bytes, lengths[index] as number, position)
    bytes[position++] = 0
    bytes[position++] = 0
    position = writeVarint(bytes, index, position)
    if (key === undefined) {
      bytes[position++] = 0
    } else {
      bytes[position++] = 1
      position = writeVarint(bytes, key.length, position)
      bytes.set(key, position)
      position += key.length
    }
    position = writeVarint(bytes, value.length, position)
    bytes.set(value, position)
    position += value.length
    bytes[position++] = 0
  })
  return bytes
}

/** Only lengths and positions are written, so zigzag is doubling. */
const varintBytes = (value: number): number => {
  let bytes = 1
  for (let rest = value * 2; rest >= 0x80; rest = Math.floor(rest / 0x80)) {
    bytes++
  }
  return bytes
}

const writeVarint = (bytes: Buffer, value: number, position: number): number => {
  let rest = value * 2
  while (rest >= 0x80) {
    bytes[position++] = (rest % 0x80) | 0x80
    rest = Math.floor(rest / 0x80)
  }
  bytes[position++] = rest
  return position
}

const compress = (codec: Codec, bytes: Buffer): Buffer => {
  switch (codec) {
    case "none":
      return bytes
    case "gzip":
      return gzipSync(bytes)
    case "snappy":
      return snappyFrames(bytes)
    case "lz4":
      return lz4().compressFrameSync(bytes)
    case "zstd":
      return zstdCompressSync(bytes)
  }
}

/** Never makes more than `limit` bytes, however much the compressed ones stand for. */
const decompress = (codec: Codec, bytes: Buffer, limit: number): Buffer => {
  switch (codec) {
    case "none":
      return bytes
    case "gzip":
      return gunzipSync(bytes, { maxOutputLength: limit })
    case "snappy":
      return snappyPlain(bytes, limit)
    case "lz4":
      return lz4().decompressFrameSync(lz4Frame(bytes, limit))
    case "zstd":
      return zstdDecompressSync(bytes, { maxOutputLength: limit })
  }
}

const tooLarge = (limit: number): Error => new Error(`more than ${limit} bytes when decompressed`)

// The framing format of Snappy: chunks of a type, a 24-bit little-endian length, a masked CRC-32C of the plain bytes
// and at most 64 KiB of them. The library frames only asynchronously, through a thread of its own.
const snappyStart = Buffer.from([0xff, 0x06, 0x00, 0x00, 0x73, 0x4e, 0x61, 0x50, 0x70, 0x59])
const snappyChunkBytes = 65_536
const snappyCompressed = 0x00
const snappyUncompressed = 0x01
const snappyFirstSkippable = 0x80

const snappyChecksum = (plain: Uint8Array): number => {
  const crc = crc32c(plain)
  return (((crc >>> 15) | (crc << 17)) + 0xa282_ead8) >>> 0
}

const snappyFrames = (bytes: Buffer): Buffer => {
  const pieces: Array<Uint8Array> = [snappyStart]
  for (let start = 0; start < bytes.length; start += snappyChunkBytes) {
    const plain = bytes.subarray(start, start + snappyChunkBytes)
    const compressed = snappy().compressSync(plain)
    const smaller = compressed.length < plain.length
    const data = smaller ? compressed : plain
    const head = Buffer.allocUnsafe(8)
    head[0] = smaller ? snappyCompressed : snappyUncompressed
    head.writeUIntLE(data.length + 4, 1, 3)
    head.writeUInt32LE(snappyChecksum(plain), 4)
    pieces.push(head, data)
  }
  return Buffer.concat(pieces)
}

const snappyPlain = (bytes: Buffer, limit: number): Buffer => {
  if (!bytes.subarray(0, snappyStart.length).equals(snappyStart)) {
    throw new Error("no stream identifier")
  }
  const pieces: Array<Buffer> = []
  let total = 0
  for (let position = snappyStart.length; position < bytes.length;) {
    const type = bytes[position] as number
    const start = position + 4
    const length = start <= bytes.length ? bytes.readUIntLE(position + 1, 3) : 0
    position = start + length
    if (position > bytes.length) {
      throw new Error("a chunk is cut")
    }
    if (type === snappyCompressed || type === snappyUncompressed) {
      if (length < 4) {
        throw new Error("a chunk without a checksum")
      }
      const data = bytes.subarray(start + 4, position)
      if (type === snappyCompressed && snappyLength(data) > snappyChunkBytes) {
        throw new Error("a chunk above 64 KiB")
      }
      const plain = type === snappyCompressed ? (snappy().uncompressSync(data) as Buffer) : data
      if (snappyChecksum(plain) !== bytes.readUInt32LE(start)) {
        throw new Error("a chunk's checksum differs")
      }
      total += plain.length
      if (total > limit) {
        throw tooLarge(limit)
      }
      pieces.push(plain)
    } else if (type < snappyFirstSkippable) {
      throw new Error(`an unknown chunk of type ${type}`)
    }
  }
  return Buffer.concat(pieces, total)
}

/** How long a raw block claims to be: a plain little-endian varint before its data. */
const snappyLength = (block: Buffer): number => {
  let length = 0
  for (let index = 0; index < 5; index++) {
    const byte = block[index] ?? 0
    length += (byte & 0x7f) * 2 ** (7 * index)
    if (byte < 0x80) {
      return length
    }
  }
  return Number.POSITIVE_INFINITY
}

/**
 * The LZ4 frame at the start of `bytes`, if what it stands for is certain to fit into `limit`. The library has no limit
 * of its own, but the frame names its block size, and no block can become larger than that or 255 times its data.
 */
const lz4Frame = (bytes: Buffer, limit: number): Buffer => {
  if (bytes.length < 7 || bytes.readUInt32LE(0) !== 0x184d_2204) {
    throw new Error("no LZ4 frame")
  }
  const flags = bytes[4] as number
  const blockBytes = 2 ** (8 + 2 * (((bytes[5] as number) >>> 4) & 0x07))
  const blockChecksum = flags & 0x10 ? 4 : 0
  let position = 7 + (flags & 0x08 ? 8 : 0) + (flags & 0x01 ? 4 : 0)
  let most = 0
  for (;;) {
    if (position + 4 > bytes.length) {
      throw new Error("a block is cut")
    }
    const word = bytes.readUInt32LE(position)
    position += 4
    if (word === 0) {
      break
    }
    const length = word & 0x7fff_ffff
    most += word > 0x7fff_ffff ? length : Math.min(blockBytes, length * 255)
    position += length + blockChecksum
    if (most > limit) {
      throw tooLarge(limit)
    }
  }
  return bytes.subarray(0, position + (flags & 0x04 ? 4 : 0))
}
