/**
 * Rows on their way from the record to the statement: the text of their cells as bytes, one behind the other in a few
 * large buffers. A string a cell would cost several times as much, most of it in garbage collection.
 *
 * A row stands there as a line of COPY's text format, but for what would have to be escaped: new rows are most of what is
 * applied, and travel as they stand.
 */

/**
 * One column's value in PostgreSQL's text format, exactly as the source printed it: `null` is SQL NULL, `undefined`
 * is an unchanged TOASTed value that the source did not send. Numbers stay text: nothing is rounded.
 */
export type Cell = string | null | undefined

// Where a cell would begin that has no text.
const Null = -1
const Unchanged = -2

const Tab = 0x09
const Newline = 0x0a
const Space = 0x20
const Quote = 0x22
const Backslash = 0x5c
const LetterN = 0x4e

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })
const encoder = new TextEncoder()

/** A buffer of cells. It lives as long as a tuple in it. */
export class Arena {
  /** UTF-8 */
  readonly bytes: Uint8Array
  /** How many of the bytes are taken. */
  length = 0
  /** Beginning and end in `bytes`, for each cell. */
  spans: Int32Array
  /** How many cells there are. */
  count = 0
  /** A cell may contain a double quote. */
  hasQuotes = false
  /** A cell may contain a backslash or a control character. */
  hasEscapes = false

  constructor(size: number, cells: number) {
    this.bytes = new Uint8Array(size)
    this.spans = new Int32Array(2 * cells)
  }

  /** The bytes from `start` on, which are already in place, become a cell. */
  addText(start: number): void {
    this.add(start, this.length)
    this.bytes[this.length++] = Tab
  }

  addNull(): void {
    this.add(Null, this.length)
    this.bytes[this.length++] = Backslash
    this.bytes[this.length++] = LetterN
    this.bytes[this.length++] = Tab
  }

  addUnchanged(): void {
    this.add(Unchanged, 0)
  }

  /** The cells that were added last are a whole row. Of one without bytes this leaves what stands before it as it is. */
  endRow(): void {
    if (this.length > 0) this.bytes[this.length - 1] = Newline
  }

  /** Notes that a byte of a cell may need an escape; most bytes need not be told. */
  note(byte: number): void {
    if (byte === Quote) this.hasQuotes = true
    else if (byte === Backslash || byte < Space) this.hasEscapes = true
  }

  private add(start: number, end: number): void {
    const at = 2 * this.count++
    if (at === this.spans.length) {
      const grown = new Int32Array(2 * at + 16)
      grown.set(this.spans)
      this.spans = grown
    }
    this.spans[at] = start
    this.spans[at + 1] = end
  }
}

/** A row: one cell per column of the relation, in its order. */
export class Tuple {
  readonly arena: Arena
  /** Which of the arena's cells is the first. */
  readonly first: number
  readonly length: number
  /** Every cell is known. */
  readonly isComplete: boolean
  /** Holds what is unchanged here. */
  private readonly under: Tuple | undefined

  constructor(arena: Arena, first: number, length: number, isComplete: boolean, under: Tuple | undefined = undefined) {
    this.arena = arena
    this.first = first
    this.length = length
    this.isComplete = isComplete
    this.under = under
  }

  /** A tuple of cells that are strings already. */
  static of(cells: ReadonlyArray<Cell>): Tuple {
    const texts = cells.map((cell) => (cell === null || cell === undefined ? cell : encoder.encode(cell)))
    const arena = new Arena(
      texts.reduce((size, text) => size + (text?.length ?? 2) + 1, 0),
      texts.length
    )
    for (const text of texts) {
      if (text === undefined) arena.addUnchanged()
      else if (text === null) arena.addNull()
      else {
        const start = arena.length
        arena.bytes.set(text, start)
        arena.length += text.length
        arena.hasQuotes = true
        arena.hasEscapes = true
        arena.addText(start)
      }
    }
    arena.endRow()
    return new Tuple(arena, 0, texts.length, !texts.includes(undefined))
  }

  /** The same row, with what it leaves out taken from an older image of it. */
  over(older: Tuple): Tuple {
    if (this.isComplete) return this
    const { arena, first, length } = this
    const places = Array.from({ length }, (_, index) => index)
    // An image that gives nothing would only be kept in memory.
    if (!places.some((index) => !this.isKnown(index) && older.isOwn(index))) {
      return older.under === undefined ? this : this.over(older.under)
    }
    if (this.under === undefined && older.under === undefined) {
      const isComplete = places.every((index) => this.isOwn(index) || older.isOwn(index))
      return new Tuple(arena, first, length, isComplete, older)
    }
    return Tuple.of(places.map((index) => (this.isKnown(index) ? this : older).cell(index)))
  }

  isKnown(index: number): boolean {
    return this.isComplete || this.holder(index) !== undefined
  }

  /** The tuple in whose arena the cell is; `undefined` for one that is not known. */
  holder(index: number): Tuple | undefined {
    if (this.isOwn(index)) return this
    return this.under?.holder(index)
  }

  /** Where the cell's bytes begin in the own arena; negative for one without. */
  start(index: number): number {
    return this.arena.spans[2 * (this.first + index)]
  }

  end(index: number): number {
    return this.arena.spans[2 * (this.first + index) + 1]
  }

  /**
   * All of the row stands in its own arena, from `lineStart` to before `lineEnd`, and that is its line for COPY if the
   * arena has no escapes. There must be a cell.
   */
  get isLine(): boolean {
    return this.isComplete && this.under === undefined
  }

  get lineStart(): number {
    const { spans } = this.arena
    const at = 2 * this.first
    return spans[at] === Null ? spans[at + 1] : spans[at]
  }

  get lineEnd(): number {
    const { spans } = this.arena
    const at = 2 * (this.first + this.length - 1)
    return spans[at] === Null ? spans[at + 1] + 3 : spans[at + 1] + 1
  }

  private isOwn(index: number): boolean {
    return this.start(index) !== Unchanged
  }

  cell(index: number): Cell {
    const holder = this.holder(index)
    if (holder === undefined) return undefined
    const start = holder.start(index)
    return start === Null ? null : utf8.decode(holder.arena.bytes.subarray(start, holder.end(index)))
  }

  get cells(): ReadonlyArray<Cell> {
    return Array.from({ length: this.length }, (_, index) => this.cell(index))
  }
}
