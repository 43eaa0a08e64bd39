/**
 * Whose a table of the target is: of the source's relations that are mapped to it.
 *
 * A relation is known by its id, which no rename changes. A name is the relation's that was described last under it: the
 * one that had it before was dropped or has another name by now, and until the stream tells that, it has none.
 */
import { HashMap, Option } from "effect"
import type { TruncateChange } from "../stream/Change.ts"
import type { Relation } from "../stream/Relation.ts"
import { qualified, quote } from "../target/Identifier.ts"
import { type Mapping, settingsName } from "../target/Mapping.ts"
import type { TableName } from "../target/TargetTable.ts"

/** A way out: what it takes for granted, and the statements that bring the target there. */
export interface Way {
  readonly reading: string
  readonly statements: ReadonlyArray<string>
}

/** Why something is not done to a table, and the ways out. */
export interface Refusal {
  readonly reason: string
  readonly ways: ReadonlyArray<Way>
  readonly hint: string
}

const tableOf = (mapping: Mapping, relation: Relation): string | undefined => {
  const table = mapping.table(relation)
  return table && qualified(table.schema, table.name)
}

const lookup = <K, V>(map: HashMap.HashMap<K, V>, key: K): V | undefined => Option.getOrUndefined(HashMap.get(map, key))

interface Index {
  readonly byId: HashMap.HashMap<number, Relation>
  readonly byName: HashMap.HashMap<string, Relation>
  readonly byTable: HashMap.HashMap<string, ReadonlyArray<Relation>>
}

/** Immutable: when a transaction is rolled back, what was before it is at hand. */
export class Owners {
  private readonly mapping: Mapping
  private readonly index: Index

  private constructor(mapping: Mapping, index: Index) {
    this.mapping = mapping
    this.index = index
  }

  /** Takes the relations in the order in which they were described. */
  static of(mapping: Mapping, relations: Iterable<Relation>): Owners {
    let owners = new Owners(mapping, { byId: HashMap.empty(), byName: HashMap.empty(), byTable: HashMap.empty() })
    for (const relation of relations) owners = owners.with(relation)
    return owners
  }

  get relations(): ReadonlyArray<Relation> {
    return [...HashMap.values(this.index.byId)]
  }

  /** The other relation that has the name of this one. */
  rivalOf(relation: Relation): Relation | undefined {
    const holder = lookup(this.index.byName, settingsName(relation))
    return holder?.id === relation.id ? undefined : holder
  }

  /** The relation has the name that it was described under last: no other one was described under it since. */
  hasName(relation: Relation): boolean {
    return lookup(this.index.byName, settingsName(relation))?.id === relation.id
  }

  /** The relations whose rows are in a table. */
  of(table: TableName): ReadonlyArray<Relation> {
    return lookup(this.index.byTable, qualified(table.schema, table.name)) ?? []
  }

  /** The owners once the relation is described. */
  with(relation: Relation): Owners {
    const { byId } = this.index
    let { byName, byTable } = this.index
    for (const one of [lookup(byId, relation.id), this.rivalOf(relation)]) {
      if (one === undefined || !this.hasName(one)) continue
      byName = HashMap.remove(byName, settingsName(one))
      const table = tableOf(this.mapping, one)
      if (table === undefined) continue
      byTable = HashMap.modify(byTable, table, (owners) => owners.filter(({ id }) => id !== one.id))
    }
    const table = tableOf(this.mapping, relation)
    if (table !== undefined) byTable = HashMap.set(byTable, table, [...(lookup(byTable, table) ?? []), relation])
    return new Owners(this.mapping, {
      byId: HashMap.set(byId, relation.id, relation),
      byName: HashMap.set(byName, settingsName(relation), relation),
      byTable
    })
  }
}

const listed = (relations: ReadonlyArray<Relation>): string => relations.map(settingsName).join(", ")

/** Moves a table of the target; between the two statements it has its old name in its new schema. */
export const moved = (from: TableName, to: TableName): ReadonlyArray<string> => [
  ...(from.schema === to.schema
    ? []
    : [
        `CREATE SCHEMA IF NOT EXISTS ${quote(to.schema)}`,
        `ALTER TABLE ${qualified(from.schema, from.name)} SET SCHEMA ${quote(to.schema)}`
      ]),
  ...(from.name === to.name ? [] : [`ALTER TABLE ${qualified(to.schema, from.name)} RENAME TO ${quote(to.name)}`])
]

/** Where a table waits whose relation has lost its name, until the stream tells the new one: a name that nothing has. */
export const parked = (table: TableName, { id }: Relation): TableName => ({ ...table, name: `relation_${id}` })

/**
 * Another relation has come to have the name of one whose rows are in the table. Of that one's drop or rename the stream
 * shows nothing, and what comes next must not meet its rows. `needs` are the statements of the new relation, once there is room.
 */
export const taken = (
  relation: Relation,
  rival: Relation,
  { needs, owners, table }: { needs: ReadonlyArray<string>; owners: Owners; table: TableName }
): Refusal => {
  const name = qualified(table.schema, table.name)
  const others = owners.of(table).filter(({ id }) => id !== rival.id)
  const reason = `relation ${relation.id} of the source is called ${settingsName(relation)} now, and the target's table has the rows of relation ${rival.id}, which had the name before and was dropped or renamed`
  const ask = `in the source, SELECT ${rival.id}::regclass shows the name of the old table, or the number alone if it was dropped`
  if (others.length > 0) {
    return {
      reason,
      ways: [{ reading: "the table may have the rows of both", statements: [] }],
      hint: `the rows of ${listed(others)} are in it too: delete those of relation ${rival.id} by hand if it was dropped; ${ask}`
    }
  }
  return {
    reason,
    ways: [
      { reading: "the old table was dropped", statements: [`DROP TABLE ${name}`, ...needs] },
      {
        reading: `the old table was renamed (it waits as ${parked(table, rival).name} until the stream tells its name)`,
        statements: [...moved(table, parked(table, rival)), ...needs]
      }
    ],
    hint: ask
  }
}

/** What the source did to one of the relations that a table belongs to, which would do it to the others. */
export const shared = (
  relation: Relation,
  others: ReadonlyArray<Relation>,
  statements: ReadonlyArray<string>
): Refusal => ({
  reason: `the source has altered ${settingsName(relation)}, and the target's table has the rows of ${listed(others)} too`,
  ways: [
    { reading: `the source has done it to ${listed(others)} too, or dropped them`, statements },
    { reading: "the table is to stay as it is", statements: [] }
  ],
  hint: "or give it a table of its own with `tables.map`"
})

/** Which of the truncated relations have a table that also has the rows of others, which were not emptied. */
export const bystanders = (
  { relations }: Pick<TruncateChange, "relations">,
  mapping: Mapping,
  owners: Owners
): { readonly sharing: ReadonlyArray<Relation>; readonly others: ReadonlyArray<Relation> } => {
  const emptied = new Set(relations.map(({ id }) => id))
  const sharing: Array<Relation> = []
  const others = new Set<Relation>()
  for (const relation of relations) {
    const table = mapping.table(relation)
    const left = table === undefined ? [] : owners.of(table).filter(({ id }) => !emptied.has(id))
    if (left.length > 0) sharing.push(relation)
    for (const other of left) others.add(other)
  }
  return { sharing, others: [...others] }
}

/** What a truncate would do to the rows of others; `all` empties every table, `own` those that are not shared. */
export const truncated = (
  { others, sharing }: ReturnType<typeof bystanders>,
  { all, own }: { readonly all: ReadonlyArray<string>; readonly own: ReadonlyArray<string> }
): Refusal => ({
  reason: `the source has emptied ${listed(sharing)}, and the rows of ${listed(others)} are in the same table of the target`,
  ways: [
    { reading: `the source has dropped or emptied ${listed(others)} too`, statements: all },
    { reading: `the rows of ${listed(sharing)} are to stay, or you delete them by hand`, statements: own }
  ],
  hint: "or give it a table of its own with `tables.map`"
})
