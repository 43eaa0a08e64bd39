/** The keys of rows as numbers: equal keys get the same one. A hash table over bytes, because a string a row is dear. */
import type { Tuple } from "../stream/Tuple.ts"

// FNV-1a, from a start that nobody outside can know: keys are chosen by users.
const prime = 0x01000193
const seed = Math.floor(Math.random() * 0x1_0000_0000) | 0

export class KeyTable {
  /** Where the parts of a key are in a tuple. */
  private readonly parts: ReadonlyArray<number>
  /** By key, a tuple that has it. */
  private readonly tuples: Array<Tuple> = []
  private hashes = new Int32Array(32)
  /** The keys + 1, at the place of their hash or behind it; 0 is free. */
  private slots = new Int32Array(64)

  constructor(parts: ReadonlyArray<number>) {
    this.parts = parts
  }

  /** The number of the tuple's key, from 0 without gaps; -1 if a part of it is NULL or not known. */
  numberOf(tuple: Tuple): number {
    const hash = this.hash(tuple)
    if (hash < 0) return -1
    const { hashes, slots, tuples } = this
    const mask = slots.length - 1
    let slot = hash & mask
    for (let taken = slots[slot]; taken > 0; taken = slots[slot]) {
      if (hashes[taken - 1] === hash && this.isSame(tuples[taken - 1], tuple)) return taken - 1
      slot = (slot + 1) & mask
    }
    const key = tuples.push(tuple) - 1
    slots[slot] = key + 1
    hashes[key] = hash
    if (2 * tuples.length === slots.length) this.grow()
    return key
  }

  private grow(): void {
    const slots = new Int32Array(4 * this.slots.length)
    const hashes = new Int32Array(slots.length / 2)
    const mask = slots.length - 1
    hashes.set(this.hashes)
    for (let key = 0; key < this.tuples.length; key++) {
      let slot = hashes[key] & mask
      while (slots[slot] > 0) slot = (slot + 1) & mask
      slots[slot] = key + 1
    }
    this.slots = slots
    this.hashes = hashes
  }

  /** Of 31 bits; -1 if a part is NULL or not known. */
  private hash(tuple: Tuple): number {
    let hash = seed
    const { parts } = this
    for (let n = 0; n < parts.length; n++) {
      const part = parts[n]
      const holder = tuple.holder(part)
      if (holder === undefined) return -1
      const { bytes } = holder.arena
      const start = holder.start(part)
      if (start < 0) return -1
      const end = holder.end(part)
      for (let at = start; at < end; at++) hash = Math.imul(hash ^ bytes[at], prime)
      hash = Math.imul(hash ^ 0xff, prime)
    }
    return (hash ^ (hash >>> 15)) & 0x7fff_ffff
  }

  private isSame(left: Tuple, right: Tuple): boolean {
    const { parts } = this
    for (let n = 0; n < parts.length; n++) {
      const part = parts[n]
      const one = left.holder(part)!
      const other = right.holder(part)!
      const start = one.start(part)
      const from = other.start(part)
      const length = one.end(part) - start
      if (other.end(part) - from !== length) return false
      const bytes = one.arena.bytes
      const others = other.arena.bytes
      for (let at = 0; at < length; at++) if (bytes[start + at] !== others[from + at]) return false
    }
    return true
  }
}
