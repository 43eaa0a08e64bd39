/**
 * The settings that name tables, columns and types of the source: what becomes of their answer when the source renames a
 * table, and which of them name nothing.
 */
import type { Relation } from "../stream/Relation.ts"
import { qualified, quote } from "../target/Identifier.ts"
import { type Mapping, type MappingOptions, matcher, ownSchema, settingsName } from "../target/Mapping.ts"
import type { Refusal } from "./Owners.ts"
import { keysOf, type TypeName } from "./SourceType.ts"

const filtered = (previous: Relation, relation: Relation, mapping: Mapping): Refusal | undefined => {
  const isLeftOut = mapping.table(relation) === undefined
  if ((mapping.table(previous) === undefined) === isLeftOut) return undefined
  const [old, name] = [settingsName(previous), settingsName(relation)]
  const by = mapping.leftOutBy(isLeftOut ? relation : previous)
  const why = by === "its schema" ? "is in the schema of a connector" : `\`${by}\` leaves out`
  if (!isLeftOut) {
    return {
      reason: `the source has renamed ${old}, which ${why}, to ${name}, which is applied`,
      ways: [{ reading: "it is to be applied from here on, and the target has a copy of it", statements: [] }],
      hint: `to go on leaving it out, add ${name} to \`tables.exclude\`; to have the target's table of the old name follow it, let the settings apply ${old} as well`
    }
  }
  return {
    reason: `the source has renamed ${old}, which is applied, to ${name}, which ${why}`,
    ways: [{ reading: "it is to be left out from here on", statements: [] }],
    hint:
      by === "tables.include"
        ? `to go on applying it, add ${name} to \`tables.include\`, and keep ${old} there`
        : by === "tables.exclude"
          ? `to go on applying it, let \`tables.exclude\` not name ${name}`
          : `what is in ${ownSchema} is never applied`
  }
}

const mappedOtherwise = (
  previous: Relation,
  relation: Relation,
  mapping: Mapping,
  following: () => ReadonlyArray<string>
): Refusal | undefined => {
  const [before, after] = [mapping.table(previous), mapping.table(relation)]
  if (before === undefined || after === undefined) return undefined
  const [by, byNow] = [mapping.mappedBy(previous), mapping.mappedBy(relation)]
  if (by === byNow || qualified(before.schema, before.name) === qualified(after.schema, after.name)) return undefined
  const [old, name] = [settingsName(previous), settingsName(relation)]
  return {
    reason: `the source has renamed ${old} to ${name}, and \`tables.map\` names ${[by ?? [], byNow ?? []].flat().join(" and ")}: the rows would go from ${before.schema}.${before.name} to ${after.schema}.${after.name}`,
    ways: [{ reading: "the target's table is to move there", statements: following() }],
    hint: `to leave it where it is, set ${name} to ${before.schema}.${before.name} in \`tables.map\`, and keep the entry of ${by ?? old}`
  }
}

const columnsOtherwise = (previous: Relation, relation: Relation, mapping: Mapping): Refusal | undefined => {
  const [old, name] = [settingsName(previous), settingsName(relation)]
  if (old === name || mapping.table(relation) === undefined) return undefined
  const [before, after] = [mapping.column(previous), mapping.column(relation)]
  const had = new Set(previous.columns.map((column) => column.name))
  const other = relation.columns
    .map((column) => column.name)
    .filter((column) => had.has(column) && (before(column) === undefined) !== (after(column) === undefined))
  if (other.length === 0) return undefined
  return {
    reason: `the source has renamed ${old} to ${name}, and \`tables.columns\` says something else of ${other.map(quote).join(", ")} under that name`,
    ways: [],
    hint: `write in \`tables.columns\` for ${name} what it has for ${old}, and keep both; or remove both, to apply every column`
  }
}

/**
 * Why a renamed table is not followed: the settings say something else under its new name, which their author has not
 * seen. They are the same as before; what is changed in them between two runs is the operator's decision.
 * `following` is what the target needs to follow the source.
 */
export const changed = (
  previous: Relation,
  relation: Relation,
  mapping: Mapping,
  following: () => ReadonlyArray<string>
): Refusal | undefined =>
  filtered(previous, relation, mapping) ??
  mappedOtherwise(previous, relation, mapping, following) ??
  columnsOtherwise(previous, relation, mapping)

export interface Settings {
  readonly tables: MappingOptions
  readonly types: { readonly [type: string]: string }
}

const nothing = (setting: string, name: string, kind: string) =>
  `\`${setting}\` names ${name}, but the source has shown no such ${kind} so far`

/** Settings that name a table, column or type which the stream has not shown, in sentences. */
export const unmatched = (
  { tables, types: settings }: Settings,
  described: ReadonlyArray<Relation>,
  types: ReadonlyMap<number, TypeName>
): ReadonlyArray<string> => {
  const relations = described.filter(({ namespace }) => namespace !== ownSchema)
  const names = relations.map(settingsName)
  const schemas = new Set(relations.map(({ namespace }) => namespace))
  const known = new Set([
    ...relations.flatMap(({ columns }) => columns.map(({ typeId }) => String(typeId))),
    ...[...types].flatMap(([id, type]) => keysOf(id, type))
  ])
  const patterns = (setting: string, list: ReadonlyArray<string> = []) =>
    list.filter((pattern) => !names.some(matcher(pattern))).map((pattern) => nothing(setting, pattern, "table"))
  return [
    ...patterns("tables.include", tables.include),
    ...patterns("tables.exclude", tables.exclude),
    ...Object.entries(tables.columns).flatMap(([table, { exclude = [], include = [] }]) => {
      const columns = relations.find((relation) => settingsName(relation) === table)?.columns.map(({ name }) => name)
      return columns === undefined
        ? [nothing("tables.columns", table, "table")]
        : [...include, ...exclude]
            .filter((column) => !columns.includes(column))
            .map((column) => nothing(`tables.columns.${table}`, column, "column"))
    }),
    ...Object.keys(tables.map).flatMap((name) => {
      const kind = name.includes(".") ? "table" : "schema"
      return (kind === "table" ? names.includes(name) : schemas.has(name)) ? [] : [nothing("tables.map", name, kind)]
    }),
    ...Object.keys(settings)
      .filter((type) => !known.has(type))
      .map((type) => nothing("types", type, "type"))
  ]
}
