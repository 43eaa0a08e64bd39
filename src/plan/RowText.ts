/** Rows as PostgreSQL reads many at once: one array a column, or lines of COPY. Hot paths, over bytes. */
import type { Tuple } from "../stream/Tuple.ts"

const Quote = 0x22
const Backslash = 0x5c
const Tab = 0x09
const Newline = 0x0a
const Return = 0x0d
const LetterN = 0x4e
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })

/** Where arrays are written; one that grew beyond this is given up again. */
const ordinarySize = 4_194_304
let buffer: Uint8Array = new Uint8Array(262_144)

/** Makes room for `more` bytes behind the first `length`. */
const reserve = (length: number, more: number): Uint8Array => {
  if (length + more > buffer.length) {
    const grown = new Uint8Array(2 * (length + more))
    grown.set(buffer.subarray(0, length))
    buffer = grown
  }
  return buffer
}

/** One column of a set of rows as the text of a PostgreSQL array. Every element is quoted: no cell can become two. */
export const arrayOf = (rows: ReadonlyArray<Tuple>, index: number, delimiter = ","): string => {
  const between = delimiter.charCodeAt(0)
  let to = buffer
  let length = 0
  to[length++] = 0x7b
  for (let row = 0; row < rows.length; row++) {
    const holder = rows[row].holder(index)
    const start = holder === undefined ? -1 : holder.start(index)
    const size = start < 0 ? 0 : holder!.end(index) - start
    // Every byte may need its backslash; then NULL or the quotes, what stands between, and the brace.
    if (length + 2 * size + 8 > to.length) to = reserve(length, 2 * size + 8)
    if (row > 0) to[length++] = between
    if (start < 0) {
      to[length++] = 0x4e
      to[length++] = 0x55
      to[length++] = 0x4c
      to[length++] = 0x4c
      continue
    }
    const { bytes, hasEscapes, hasQuotes } = holder!.arena
    const end = start + size
    to[length++] = Quote
    if (!hasEscapes && !hasQuotes) for (let at = start; at < end; at++) to[length++] = bytes[at]
    else {
      for (let at = start; at < end; at++) {
        const byte = bytes[at]
        if (byte === Quote || byte === Backslash) to[length++] = Backslash
        to[length++] = byte
      }
    }
    to[length++] = Quote
  }
  to[length++] = 0x7d
  const text = utf8.decode(to.subarray(0, length))
  if (buffer.length > ordinarySize) buffer = new Uint8Array(ordinarySize)
  return text
}

/** What COPY's text format writes behind a backslash for a byte that means something to it; 0 for one that does not. */
const copyEscapes = new Uint8Array(256)
copyEscapes[Backslash] = Backslash
copyEscapes[Tab] = 0x74
copyEscapes[Newline] = 0x6e
copyEscapes[Return] = 0x72

/** Cells of rows, by their places in the tuple, in the text format of COPY: a line a row, tabs between, `\N` for NULL. */
export const linesOf = (places: ReadonlyArray<number>, rows: ReadonlyArray<Tuple>): Uint8Array => {
  const isWhole = places.every((index, place) => index === place)
  let length = 0
  for (let row = 0; row < rows.length;) {
    const tuple = rows[row]
    const { arena } = tuple
    if (isWhole && tuple.length === places.length && tuple.isLine && !arena.hasEscapes) {
      const start = tuple.lineStart
      let end = tuple.lineEnd
      // Lines of one transaction, and mostly those of many, stand one behind the other.
      for (row++; row < rows.length; row++) {
        const next = rows[row]
        if (next.arena !== arena || next.length !== places.length || !next.isLine || next.lineStart !== end) break
        end = next.lineEnd
      }
      reserve(length, end - start).set(arena.bytes.subarray(start, end), length)
      length += end - start
    } else length = addLine(places, rows[row++], length)
  }
  const data = buffer.slice(0, length)
  if (buffer.length > ordinarySize) buffer = new Uint8Array(ordinarySize)
  return data
}

/** Writes one row to the buffer; returns where it ends. */
const addLine = (places: ReadonlyArray<number>, tuple: Tuple, from: number): number => {
  let length = from
  for (let n = 0; n < places.length; n++) {
    const index = places[n]
    const holder = tuple.holder(index)
    const start = holder === undefined ? -1 : holder.start(index)
    const size = start < 0 ? 0 : holder!.end(index) - start
    // Every byte may need its backslash; or else there is NULL; and then a tab or the end of the line.
    const to = reserve(length, 2 * size + 3)
    if (start < 0) {
      to[length++] = Backslash
      to[length++] = LetterN
    } else {
      const { bytes } = holder!.arena
      for (let at = start, end = start + size; at < end; at++) {
        const byte = bytes[at]
        const escape = copyEscapes[byte]
        if (escape > 0) to[length++] = Backslash
        to[length++] = escape > 0 ? escape : byte
      }
    }
    to[length++] = n === places.length - 1 ? Newline : Tab
  }
  return length
}
