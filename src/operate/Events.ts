/** The events of a transaction that is set aside, as its operator reads them; values only where they are asked for. */
import { Effect } from "effect"
import { type FluvioRecord } from "../stream/FluvioConsumer.ts"
import { formatLsn } from "../stream/OffsetStore.ts"
import type { Relation } from "../stream/Relation.ts"
import {
  decode,
  EventDecodeError,
  FloatNull,
  type FloatNullPolicy,
  type ReplicationEvent
} from "../stream/ReplicationEvent.ts"
import type { Tuple } from "../stream/Tuple.ts"
import { type Held, recordsOf } from "./Held.ts"

/** The columns of a row, in order; `unchanged` ones were not sent. */
export interface Values {
  readonly values: { readonly [column: string]: string | null }
  readonly unchanged: ReadonlyArray<string>
}

export interface Event {
  readonly offset: number
  readonly kind: ReplicationEvent["type"] | "unreadable"
  readonly tables: ReadonlyArray<string>
  /** An LSN, a type's name, or why the record cannot be read. */
  readonly note?: string
  /** The row as it was before, or the key of it. */
  readonly old?: Values
  readonly new?: Values
}

export interface EventOptions {
  readonly withValues: boolean
  readonly floatNull: FloatNullPolicy
}

const tableOf = ({ name, namespace }: Relation): string => `${namespace}.${name}`

/** Reads events in order, each by the shapes that were described before it. */
class Reader {
  private readonly shapes = new Map<number, Relation>()
  private readonly options: EventOptions

  constructor({ shapes }: Held, options: EventOptions) {
    this.options = options
    for (const { applied, read } of shapes?.relations ?? []) {
      const relation = read ?? applied
      if (relation !== undefined) this.shapes.set(relation.id, relation)
    }
  }

  read(record: FluvioRecord): Event {
    const { offset } = record
    try {
      return { offset, ...this.shown(decode(record, this.options)) }
    } catch (error) {
      if (!(error instanceof EventDecodeError || error instanceof FloatNull)) throw error
      const relation = error.relId === undefined ? undefined : this.shapes.get(error.relId)
      return {
        offset,
        kind: "unreadable",
        tables: relation === undefined ? [] : [tableOf(relation)],
        note: error.message
      }
    }
  }

  private shown(event: ReplicationEvent): Omit<Event, "offset"> {
    const kind = event.type
    switch (event.type) {
      case "begin":
        return { kind, tables: [], note: formatLsn(event.finalLsn) }
      case "commit":
        return { kind, tables: [], note: formatLsn(event.commitLsn) }
      case "origin":
        return { kind, tables: [], note: event.name }
      case "type":
        return { kind, tables: [], note: event.namespace === "" ? event.name : `${event.namespace}.${event.name}` }
      case "relation":
        this.shapes.set(event.relation.id, event.relation)
        return { kind, tables: [tableOf(event.relation)] }
      case "truncate":
        return { kind, tables: event.relIds.map((id) => this.nameOf(id)) }
      case "insert":
        return { kind, tables: [this.nameOf(event.relId)], ...this.values("new", event.relId, event.tuple) }
      case "update":
        return {
          kind,
          tables: [this.nameOf(event.relId)],
          ...this.values("old", event.relId, event.oldTuple),
          ...this.values("old", event.relId, event.keyTuple, true),
          ...this.values("new", event.relId, event.newTuple)
        }
      case "delete":
        return {
          kind,
          tables: [this.nameOf(event.relId)],
          ...this.values("old", event.relId, event.oldTuple),
          ...this.values("old", event.relId, event.keyTuple, true)
        }
    }
  }

  private nameOf(id: number): string {
    const relation = this.shapes.get(id)
    return relation === undefined ? `relation ${id}` : tableOf(relation)
  }

  private values(image: "old" | "new", id: number, tuple: Tuple | null, isKey = false): { old?: Values; new?: Values } {
    if (!this.options.withValues || tuple === null) return {}
    const columns = this.shapes.get(id)?.columns
    const values: Array<readonly [string, string | null]> = []
    const unchanged: Array<string> = []
    tuple.cells.forEach((cell, n) => {
      const column = columns?.length === tuple.length ? columns[n] : undefined
      // Of a key, the other cells are there only to keep the places.
      if (isKey && column?.isKey === false) return
      const name = column?.name ?? `column ${n + 1}`
      if (cell === undefined) unchanged.push(name)
      else values.push([name, cell])
    })
    return { [image]: { values: Object.fromEntries(values), unchanged } }
  }
}

/** Gives the events of a transaction to `each`, part by part. */
export const forEachPart = Effect.fnUntraced(function* <E, R>(
  held: Held,
  options: EventOptions,
  each: (events: ReadonlyArray<Event>) => Effect.Effect<void, E, R>
) {
  const reader = new Reader(held, options)
  for (let from: number = held.firstOffset; ;) {
    const records = yield* recordsOf(held.id, from)
    if (records.length === 0) return
    yield* each(records.map((record) => reader.read(record)))
    from = records[records.length - 1].offset + 1
  }
})
