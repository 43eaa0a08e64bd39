/**
 * The shapes by which a transaction that is set aside is understood: those of its tables and types as they were known
 * right before it. The stream goes on to describe others, and rows must never be read by those.
 */
import { Schema } from "effect"
import type { Change } from "./stream/Change.ts"
import { Offset } from "./stream/FluvioConsumer.ts"
import type { Described } from "./stream/OffsetStore.ts"
import { Relation } from "./stream/Relation.ts"

/** A table of the transaction. */
export const HeldRelation = Schema.Struct({
  /** What had been described of it before, and where; absent for one that was new. */
  applied: Schema.optionalKey(Relation),
  offset: Schema.optionalKey(Offset),
  /** By what its first row is read, where that is another shape. */
  read: Schema.optionalKey(Relation)
})
export type HeldRelation = typeof HeldRelation.Type

/** As it is stored with the transaction. */
export const HeldShapes = Schema.Struct({
  relations: Schema.Array(HeldRelation),
  types: Schema.Array(
    Schema.Struct({ id: Schema.Number, namespace: Schema.NullOr(Schema.String), name: Schema.String, offset: Offset })
  )
})
export type HeldShapes = typeof HeldShapes.Type

const shapesIn = (change: Change): ReadonlyArray<Relation> => {
  switch (change.type) {
    case "type":
      return []
    case "truncate":
      return change.relations
    case "relation":
      return [change.previous ?? [], change.relation].flat()
    default:
      return [change.relation]
  }
}

/** The ids of the relations and types that the shapes of these changes refer to. */
export const namedIn = (
  changes: ReadonlyArray<Change>
): { readonly relations: ReadonlyArray<number>; readonly types: ReadonlyArray<number> } => {
  // One object stands for one shape, so that there are few of them.
  const shapes = new Set(changes.flatMap(shapesIn))
  const relations = new Set<number>()
  const types = new Set<number>()
  for (const { columns, id } of shapes) {
    relations.add(id)
    for (const { typeId } of columns) types.add(typeId)
  }
  return { relations: [...relations], types: [...types] }
}

/** What was known before these changes, which are in order; `before` is what was stored of {@link namedIn}. */
export const shapesOf = (changes: ReadonlyArray<Change>, before: Described): HeldShapes => {
  const offsets = new Map(before.relations.map(({ offset, relation }) => [relation.id, offset]))
  const found = new Map<number, HeldRelation>()
  const add = (applied: Relation | undefined, read: Relation) => {
    if (found.has(read.id)) return
    const offset = offsets.get(read.id)
    found.set(read.id, {
      ...(applied === undefined ? {} : { applied }),
      ...(applied === undefined || offset === undefined ? {} : { offset }),
      ...(applied === read ? {} : { read })
    })
  }
  for (const change of changes) {
    if (change.type === "relation") add(change.previous, change.relation)
    else for (const relation of shapesIn(change)) add(relation, relation)
  }
  return {
    relations: [...found.values()],
    types: before.types.map(({ namespace, ...type }) => ({ ...type, namespace: namespace ?? null }))
  }
}
