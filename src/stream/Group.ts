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

/**
 * How many of the waiting pieces form the next group: at least one, and more only while they stay within the limits.
 * A piece without an end, or one that continues a transaction, is a group of its own: it is streamed. A group is of one
 * epoch, so that what is described in it belongs to that.
 */
export const sizeOf = (waiting: Arr.NonEmptyReadonlyArray<Piece>, limits: GroupLimits): number => {
  let rows = 0
  let bytes = 0
  for (let size = 0; size < waiting.length; size++) {
    const piece = waiting[size]
    if (piece.end === undefined || !piece.isFirst) return Math.max(size, 1)
    if (piece.epoch !== waiting[0].epoch) return size
    rows += piece.changes.length
    bytes += piece.bytes
    if (size > 0 && (rows > limits.rows || bytes > limits.bytes)) return size
    if (size + 1 === limits.transactions) return size + 1
  }
  return waiting.length
}

/** Whether there is no use in waiting for more: the group cannot become larger. */
export const isFull = (waiting: ReadonlyArray<Piece>, limits: GroupLimits): boolean => {
  if (limits.transactions !== undefined && waiting.length >= limits.transactions) return true
  let rows = 0
  let bytes = 0
  // Asked for each chunk that arrives, of everything that waits: one pass.
  for (let n = 0; n < waiting.length; n++) {
    const piece = waiting[n]
    if (piece.end === undefined || !piece.isFirst || piece.epoch !== waiting[0].epoch) return true
    rows += piece.changes.length
    bytes += piece.bytes
  }
  return rows >= limits.rows || bytes >= limits.bytes
}
