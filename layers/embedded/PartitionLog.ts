/**
 * The batches of one partition, as they were received: in memory, or in a file that is only ever appended to.
 *
 * All of it is synchronous. What was appended survives the death of the process, not that of the machine.
 */
import {
  appendFileSync,
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  writeFileSync
} from "node:fs"
import { findBatches, setBaseOffset } from "../fluvio/RecordBatch.ts"

interface StoredBatch {
  readonly baseOffset: number
  readonly nextOffset: number
  /** Where it begins in the file. */
  readonly position: number
  readonly length: number
  /** Absent when it is in the file. */
  readonly bytes: Buffer | undefined
}

const headerBytes = 57

export class PartitionLog {
  /** Batches whose last record is at or behind `start`, in order and without a gap. */
  private readonly batches: Array<StoredBatch> = []
  private readonly path: string | undefined
  private readonly file: number | undefined
  private fileLength = 0
  private logStart: number
  private logEnd: number

  /**
   * Opens the log in the file `path`, or makes it; without a path the log is in memory. A new log starts at
   * `firstOffset`. An incomplete batch at the end of the file, left by a death in mid-append, is cut off.
   */
  constructor(path: string | undefined, firstOffset = 0) {
    this.path = path
    this.logStart = firstOffset
    this.logEnd = firstOffset
    if (path !== undefined) {
      this.file = openSync(path, "a+")
      this.logStart = readStart(path) ?? firstOffset
      this.logEnd = this.logStart
      this.recover(this.file)
      writeStart(path, this.logStart)
    }
  }

  private recover(file: number): void {
    const size = fstatSync(file).size
    const header = Buffer.alloc(headerBytes)
    while (size - this.fileLength >= headerBytes) {
      readSync(file, header, 0, headerBytes, this.fileLength)
      const length = findBatches(header).cut?.bytes ?? headerBytes
      if (length > size - this.fileLength) {
        break
      }
      const batch = Buffer.alloc(length)
      readSync(file, batch, 0, length, this.fileLength)
      const [found] = findBatches(batch).whole
      if (found === undefined) {
        break
      }
      this.push(found.baseOffset, found.lastOffset + 1, length, undefined)
    }
    ftruncateSync(file, this.fileLength)
    this.dropBelow(this.logStart)
  }

  private push(baseOffset: number, nextOffset: number, length: number, bytes: Buffer | undefined): void {
    this.batches.push({ baseOffset, nextOffset, position: this.fileLength, length, bytes })
    this.fileLength += length
    this.logEnd = nextOffset
  }

  /** The first retained offset. */
  get start(): number {
    return this.logStart
  }

  /** One past the last appended record. */
  get end(): number {
    return this.logEnd
  }

  /** Bytes of the retained batches. */
  get size(): number {
    return this.batches.reduce((total, { length }) => total + length, 0)
  }

  /** Appends one whole batch, gives it its place in the log, and returns its base offset. */
  append(batch: Buffer): number {
    const baseOffset = this.logEnd
    // A copy: what was received may lie in a much larger chunk of a socket, and belongs to someone else.
    const bytes = Buffer.from(batch)
    setBaseOffset(bytes, baseOffset)
    const found = findBatches(bytes).whole[0]
    if (found?.end !== bytes.length) {
      throw new Error("one whole batch is appended at a time")
    }
    if (this.file !== undefined) {
      appendFileSync(this.file, bytes)
    }
    this.push(baseOffset, found.lastOffset + 1, bytes.length, this.file === undefined ? bytes : undefined)
    return baseOffset
  }

  /** Forgets what lies before `offset`, as retention does. The file keeps it. */
  trim(offset: number): void {
    this.logStart = offset
    if (this.path !== undefined) {
      writeStart(this.path, offset)
    }
    this.dropBelow(offset)
  }

  private dropBelow(offset: number): void {
    this.batches.splice(0, this.indexOf(offset))
  }

  /** The index of the batch that holds `offset`, or the number of batches if it is the end. */
  private indexOf(offset: number): number {
    let low = 0
    let high = this.batches.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.batches[middle] as StoredBatch).nextOffset <= offset) {
        low = middle + 1
      } else {
        high = middle
      }
    }
    return low
  }

  /**
   * Batches from the one that holds `from` to the last that begins below `until`: as many as fit into `maxBytes`, and
   * at least one. With `cut` the bytes are cut at `maxBytes` wherever that is.
   */
  read(from: number, until: number, maxBytes: number, cut: boolean): ReadonlyArray<Buffer> {
    const first = this.indexOf(from)
    let next = first
    let length = 0
    for (; next < this.batches.length; next++) {
      const batch = this.batches[next] as StoredBatch
      const isFull = cut ? length >= maxBytes : next > first && length + batch.length > maxBytes
      if (batch.baseOffset >= until || isFull) {
        break
      }
      length += batch.length
    }
    const taken = this.batches.slice(first, next)
    const [firstTaken] = taken
    if (firstTaken === undefined) {
      return []
    }
    const wanted = cut ? Math.min(length, maxBytes) : length
    if (this.file !== undefined) {
      const bytes = Buffer.allocUnsafe(wanted)
      readSync(this.file, bytes, 0, wanted, firstTaken.position)
      return [bytes]
    }
    const parts = taken.map(({ bytes }) => bytes as Buffer)
    if (wanted < length) {
      const last = parts.pop() as Buffer
      parts.push(last.subarray(0, last.length - (length - wanted)))
    }
    return parts
  }

  close(): void {
    if (this.file !== undefined) {
      closeSync(this.file)
    }
  }
}

// A log's start cannot be read off its batches: retention may have left none, or end within one.
const startPath = (path: string): string => `${path}.start`

const readStart = (path: string): number | undefined => {
  try {
    return Number(readFileSync(startPath(path), "utf8"))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") {
      return undefined
    }
    throw error
  }
}

const writeStart = (path: string, offset: number): void => {
  writeFileSync(`${startPath(path)}.new`, String(offset))
  renameSync(`${startPath(path)}.new`, startPath(path))
}
