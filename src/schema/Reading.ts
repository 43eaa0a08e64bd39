/**
 * What became of a table's columns, told apart from what is run for it here.
 *
 * A relation lists its columns in the order of their attribute numbers: a rename keeps place and type, a new column comes
 * last. So two descriptions can be read in several ways, each of them an order-preserving matching of old to new
 * columns: an old one without a partner was dropped, a new one without a partner, which is possible only behind the last
 * matched one, was added, and a matched pair may be renamed or retyped. Each of these is one command of the source.
 *
 * A change is clear if one reading is at least two commands shorter than every other one that leaves other content. The
 * rest is the operator's to decide. Pure.
 */
import type { RelationColumn } from "../stream/Relation.ts"

/** What a change is known from. */
export type Proof = "descriptions"

export type ColumnChange =
  | {
      readonly type: "renamed" | "retyped"
      readonly before: RelationColumn
      readonly after: RelationColumn
      readonly proof: Proof
    }
  | { readonly type: "dropped"; readonly before: RelationColumn; readonly proof: Proof }
  | { readonly type: "added"; readonly after: RelationColumn; readonly proof: Proof }

/** One way in which the columns can have become what they are. */
export interface Reading {
  /** One command each. */
  readonly changes: ReadonlyArray<ColumnChange>
  /** For each column of the later description the earlier one that it was, `undefined` if it is new. */
  readonly origins: ReadonlyArray<RelationColumn | undefined>
}

export interface Interpretation {
  /**
   * The readings that leave different content, the shortest first: at most two commands longer than the first, and a
   * new key is a command too.
   */
  readonly readings: ReadonlyArray<Reading>
  readonly isClear: boolean
  /** There are more readings than are listed. */
  readonly isCut: boolean
  /** All of the shortest readings, also those of the same content. */
  readonly shortest: ReadonlyArray<Reading>
}

/** More readings than this are of no use to anybody. */
const mostReadings = 60
export const mostListed = 16

export const isSameType = (a: RelationColumn, b: RelationColumn): boolean =>
  a.typeId === b.typeId && a.typeModifier === b.typeModifier

const commands = (before: RelationColumn, after: RelationColumn): number =>
  (before.name === after.name ? 0 : 1) + (isSameType(before, after) ? 0 : 1)

type Columns = ReadonlyArray<RelationColumn>

/**
 * By `[new][old]`: the fewest commands that lead from the old columns from there on to the new ones from there on. Wide
 * tables have 1,600 columns, so it is one array of numbers.
 */
const leastCommands = (before: Columns, after: Columns): ((next: number, old: number) => number) => {
  const width = before.length + 1
  const least = new Int32Array(width * (after.length + 1))
  for (let next = after.length; next >= 0; next--) {
    for (let old = before.length; old >= 0; old--) {
      let fewest = before.length - old + (after.length - next)
      if (next < after.length && old < before.length) {
        const matched = commands(before[old], after[next]) + least[(next + 1) * width + old + 1]
        fewest = Math.min(fewest, matched, 1 + least[next * width + old + 1])
      }
      least[next * width + old] = fewest
    }
  }
  return (next, old) => least[next * width + old]
}

const readingOf = (before: Columns, after: Columns, partners: ReadonlyArray<number>): Reading => {
  const changes: Array<ColumnChange> = []
  const proof = "descriptions"
  const matched = new Set(partners)
  before.forEach((column, old) => {
    if (!matched.has(old)) changes.push({ type: "dropped", before: column, proof })
  })
  const origins = after.map((column, next) => {
    const old = next < partners.length ? before[partners[next]] : undefined
    if (old === undefined) changes.push({ type: "added", after: column, proof })
    else {
      if (old.name !== column.name) changes.push({ type: "renamed", before: old, after: column, proof })
      if (!isSameType(old, column)) changes.push({ type: "retyped", before: old, after: column, proof })
    }
    return old
  })
  return { changes, origins }
}

interface Found {
  readonly readings: ReadonlyArray<Reading>
  /** There are more. */
  readonly isCut: boolean
}

/** The readings of at most `most` commands, up to a number that somebody may want to read. */
const enumerate = (
  before: Columns,
  after: Columns,
  least: (next: number, old: number) => number,
  most: number
): Found => {
  const readings: Array<Reading> = []
  // Without recursion, because a table may have 1,600 columns.
  const partners: Array<number> = []
  /** The commands that the first so many new columns take. */
  const spent: Array<number> = [0]
  /** The old column to be tried next. */
  let from = 0
  const emit = (): boolean => {
    const depth = partners.length
    const old = depth === 0 ? 0 : partners[depth - 1] + 1
    const total = spent[depth] + (before.length - old) + (after.length - depth)
    if (total > most) return true
    if (readings.length === mostReadings) return false
    readings.push(readingOf(before, after, partners))
    return true
  }
  if (!emit()) return { readings, isCut: true }
  for (;;) {
    const depth = partners.length
    const first = depth === 0 ? 0 : partners[depth - 1] + 1
    let chosen = -1
    if (depth < after.length) {
      for (let old = Math.max(from, first); old < before.length; old++) {
        const dropped = spent[depth] + (old - first)
        if (dropped > most) break
        const cost = dropped + commands(before[old], after[depth])
        if (cost + least(depth + 1, old + 1) > most) continue
        chosen = old
        spent[depth + 1] = cost
        break
      }
    }
    if (chosen === -1) {
      if (depth === 0) return { readings, isCut: false }
      from = partners.pop()! + 1
      continue
    }
    partners.push(chosen)
    from = 0
    if (!emit()) return { readings, isCut: true }
  }
}

/** Whether the identity is another one, which takes a command of its own: other columns are flagged. */
const movesKey = (after: Columns, { origins }: Reading): boolean =>
  after.some((column, n) => origins[n] !== undefined && origins[n].isKey !== column.isKey)

/** The fewest commands first; of as many, those that keep more columns. */
const byLength = (a: Reading, b: Reading): number =>
  a.changes.length - b.changes.length ||
  b.origins.filter((origin) => origin !== undefined).length - a.origins.filter((origin) => origin !== undefined).length

/**
 * Reads what became of the columns. `isKey` of a column counts only where it says what the identity is. Readings of which
 * `contentOf` says the same leave the same content in the target, and need not be told apart.
 */
export const interpret = (
  before: Columns,
  after: Columns,
  contentOf: (reading: Reading) => string = ({ origins }) => JSON.stringify(origins.map((origin) => origin?.name))
): Interpretation => {
  const least = leastCommands(before, after)
  const shortest = least(0, 0)
  const best = enumerate(before, after, least, shortest)
  const near = enumerate(before, after, least, shortest + 1)
  const all = enumerate(before, after, least, shortest + 2)
  const byContent = new Map<string, Reading>()
  const found = [...best.readings, ...near.readings, ...all.readings].toSorted(byLength)
  for (const reading of found) {
    const content = contentOf(reading)
    if (!byContent.has(content)) byContent.set(content, reading)
  }
  const total = (reading: Reading) => reading.changes.length + (movesKey(after, reading) ? 1 : 0)
  const most = Math.min(...found.map(total)) + 2
  const readings = [...byContent.values()].filter((reading) => total(reading) <= most)
  return {
    readings: readings.slice(0, mostListed),
    isClear: !near.isCut && new Set(near.readings.map(contentOf)).size === 1,
    isCut: all.isCut || readings.length > mostListed,
    shortest: best.readings
  }
}
