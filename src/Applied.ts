/** What a committed group did, and how it is counted while it is being applied. */
import { Effect } from "effect"
import type { Statement } from "./plan/Statement.ts"
import { tableOf } from "./SinkError.ts"
import type { Change } from "./stream/Change.ts"
import type { Position } from "./stream/OffsetStore.ts"
import type { Relation } from "./stream/Relation.ts"

/** The source's changes of one table, as the stream has them: what was folded counts. */
export interface TableChanges {
  readonly insert: number
  readonly update: number
  readonly delete: number
  readonly truncate: number
}

export const noChanges: TableChanges = { insert: 0, update: 0, delete: 0, truncate: 0 }

export const addChanges = (left: TableChanges, right: TableChanges): TableChanges => ({
  insert: left.insert + right.insert,
  update: left.update + right.update,
  delete: left.delete + right.delete,
  truncate: left.truncate + right.truncate
})

/** By the table's name in the source, `public.orders`. */
export type ChangesByTable = ReadonlyMap<string, TableChanges>

/** Counts changes by relation: one pass over an array, with a look-up only where the table changes. */
export class ChangeCount {
  readonly #byRelation = new Map<Relation, { -readonly [K in keyof TableChanges]: TableChanges[K] }>()

  #of(relation: Relation) {
    let counts = this.#byRelation.get(relation)
    if (counts === undefined) this.#byRelation.set(relation, (counts = { ...noChanges }))
    return counts
  }

  add(changes: ReadonlyArray<Change>): void {
    let known: Relation | undefined
    let counts = { ...noChanges }
    for (let n = 0; n < changes.length; n++) {
      const change = changes[n]
      if (change.type === "relation" || change.type === "type") continue
      if (change.type === "truncate") {
        for (const relation of change.relations) this.#of(relation).truncate += 1
        continue
      }
      if (change.relation !== known) counts = this.#of((known = change.relation))
      if (change.type === "insert") counts.insert += 1
      else if (change.type === "update") counts.update += 1
      else counts.delete += 1
    }
  }

  addAll(other: ChangeCount): void {
    for (const [relation, counts] of other.#byRelation)
      Object.assign(this.#of(relation), addChanges(this.#of(relation), counts))
  }

  /** By name, of the relations that are applied. */
  byTable(isApplied: (relation: Relation) => boolean): ChangesByTable {
    const result = new Map<string, TableChanges>()
    for (const [relation, counts] of this.#byRelation) {
      if (!isApplied(relation)) continue
      const table = tableOf(relation)
      result.set(table, addChanges(result.get(table) ?? noChanges, counts))
    }
    return result
  }
}

const bothTables = (first: ChangesByTable, second: ChangesByTable): ChangesByTable => {
  const result = new Map(first)
  for (const [table, counts] of second) result.set(table, addChanges(result.get(table) ?? noChanges, counts))
  return result
}

/** What one committed group did. */
export interface Applied {
  readonly position: Position
  readonly transactions: number
  /** Transactions that the source repeated and that were skipped whole. */
  readonly duplicates: number
  readonly changes: number
  /** The same by table and kind, of the tables that are applied. */
  readonly tables: ChangesByTable
  readonly records: number
  readonly bytes: number
  readonly statements: number
  readonly schemaChanges: number
  /** Updates and deletes whose row was missing and that were skipped. */
  readonly missingRows: number
  /** Inserts whose row was there already and that were skipped. */
  readonly existingRows: number
  /** Changes that a trigger or rule of the target kept from their row. */
  readonly suppressedRows: number
  /** Groups and parts that were replayed in order, because their folded plan was given up. */
  readonly replays: number
  /** Transactions that were set aside. */
  readonly quarantined: number
  /** When its last record was appended to the topic, in milliseconds since 1970; `undefined` when the driver cannot say. */
  readonly appendedAt: number | undefined
  /** Where the time went, in milliseconds. */
  readonly millis: { readonly plan: number; readonly execute: number; readonly commit: number }
}

/** Two commits in a row, as what they did together. */
export const together = (first: Applied, second: Applied): Applied => ({
  position: second.position,
  appendedAt: second.appendedAt,
  tables: bothTables(first.tables, second.tables),
  transactions: first.transactions + second.transactions,
  duplicates: first.duplicates + second.duplicates,
  changes: first.changes + second.changes,
  records: first.records + second.records,
  bytes: first.bytes + second.bytes,
  statements: first.statements + second.statements,
  schemaChanges: first.schemaChanges + second.schemaChanges,
  missingRows: first.missingRows + second.missingRows,
  existingRows: first.existingRows + second.existingRows,
  suppressedRows: first.suppressedRows + second.suppressedRows,
  replays: first.replays + second.replays,
  quarantined: first.quarantined + second.quarantined,
  millis: {
    plan: first.millis.plan + second.millis.plan,
    execute: first.millis.execute + second.millis.execute,
    commit: first.millis.commit + second.millis.commit
  }
})

/** What an attempt did so far; thrown away with it. */
export class Tally {
  changes = 0
  statements = 0
  schemaChanges = 0
  missingRows = 0
  existingRows = 0
  suppressedRows = 0
  replays = 0
  quarantined = 0
  plan = 0
  execute = 0

  /** The changes that were run, by table; no number itself. */
  readonly counted = new ChangeCount()

  /** How many rows were passed over, by kind and table; private, so that it is none of the counts. */
  readonly #conflicts = new Map<string, number>()

  /** What is told once it is committed: the log must not speak of what is rolled back. */
  readonly #news: Array<Effect.Effect<void>> = []

  tell(news: Effect.Effect<void>): void {
    this.#news.push(news)
  }

  skip(kind: keyof typeof skipped, { route }: Statement, rows: number): void {
    this[kind] += rows
    this.#note(`${tableOf(route.relation)}: ${skipped[kind]}`, rows)
  }

  add(other: Tally): void {
    for (const key of Object.keys(other) as Array<keyof Tally>) {
      if (key !== "counted") this[key as Count] += other[key as Count]
    }
    this.counted.addAll(other.counted)
    for (const [conflict, rows] of other.#conflicts) this.#note(conflict, rows)
    this.#news.push(...other.#news)
  }

  /** Told once they are committed: what is rolled back was not skipped. */
  get told(): Effect.Effect<void> {
    const skipped = Effect.forEach(this.#conflicts, ([conflict, rows]) => Effect.logWarning(`${conflict}: ${rows}`), {
      discard: true
    })
    return Effect.andThen(Effect.all(this.#news, { discard: true }), skipped)
  }

  #note(conflict: string, rows: number): void {
    this.#conflicts.set(conflict, (this.#conflicts.get(conflict) ?? 0) + rows)
  }
}

type Count = { readonly [K in keyof Tally]: Tally[K] extends number ? K : never }[keyof Tally]

const skipped = {
  missingRows: "updates and deletes skipped, because the target does not have their row",
  existingRows: "inserts skipped, because the target has their row already",
  suppressedRows: "changes suppressed by a trigger or rule of the target"
}
