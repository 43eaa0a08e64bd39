/** Consecutive source transactions that are applied in one target transaction. */
import { type Array as Arr } from "effect"
import type { Piece } from "./Change.ts"

export type Group = Arr.NonEmptyReadonlyArray<Piece>

export interface GroupLimits {
  readonly rows: number
  readonly bytes: number
  /** Most source transactions in a group; `undefined` for any number. */
  readonly transactions: number | undefined
}

/** A piece without an end, or one that continues a transaction, is a group of its own: it is streamed. */
const isStreamed = (piece: Piece): boolean => piece.end === undefined || !piece.isFirst

/**
 * The pieces that wait for their group. What they hold together is counted as they come: it is asked for with each chunk
 * that arrives, when thousands of them may wait.
 */
export class Waiting {
  #pieces: Array<Piece> = []
  #rows = 0
  #bytes = 0
  /** One of them ends the group before it, whatever comes. */
  #isBounded = false
  #hasWork = false

  get count(): number {
    return this.#pieces.length
  }

  /** Whether there is anything besides positions of transactions that changed nothing. */
  get hasWork(): boolean {
    return this.#hasWork
  }

  add(pieces: ReadonlyArray<Piece>): void {
    for (let n = 0; n < pieces.length; n++) {
      const piece = pieces[n]
      this.#pieces.push(piece)
      this.#rows += piece.changes.length
      this.#bytes += piece.bytes
      this.#isBounded ||= isStreamed(piece) || piece.epoch !== this.#pieces[0].epoch
      this.#hasWork ||= piece.changes.length > 0 || isStreamed(piece)
    }
  }

  /** Whether there is no use in waiting for more: the group cannot become larger. */
  isFull(limits: GroupLimits): boolean {
    return (
      this.#isBounded ||
      this.#rows >= limits.rows ||
      this.#bytes >= limits.bytes ||
      (limits.transactions !== undefined && this.#pieces.length >= limits.transactions)
    )
  }

  /**
   * The next group: at least one piece, and more only while they stay within the limits. A group is of one epoch, so that
   * what is described in it belongs to that. There must be a piece.
   */
  take(limits: GroupLimits): Group {
    const pieces = this.#pieces
    const size = this.#sizeOfGroup(limits)
    this.#pieces = []
    this.#rows = 0
    this.#bytes = 0
    this.#isBounded = false
    this.#hasWork = false
    this.add(pieces.slice(size))
    pieces.length = size
    return pieces as unknown as Group
  }

  #sizeOfGroup(limits: GroupLimits): number {
    const pieces = this.#pieces
    let rows = 0
    let bytes = 0
    for (let size = 0; size < pieces.length; size++) {
      const piece = pieces[size]
      if (isStreamed(piece)) return Math.max(size, 1)
      if (piece.epoch !== pieces[0].epoch) return size
      rows += piece.changes.length
      bytes += piece.bytes
      if (size > 0 && (rows > limits.rows || bytes > limits.bytes)) return size
      if (size + 1 === limits.transactions) return size + 1
    }
    return pieces.length
  }
}
