/** Which relations and columns are applied, and under which names: the settings `tables.*` as functions. */
import type { Relation } from "../stream/Relation.ts"
import type { TableName } from "./TargetTable.ts"

/**
 * The schema in which the connector keeps its position, in every target. In a source it is that of another connector,
 * which applies something else to that database: it is never applied.
 */
export const ownSchema = "fluvio"

export interface MappingOptions {
  /** `schema.table` patterns with `*`; when given, everything else is left out. */
  readonly include: ReadonlyArray<string> | undefined
  readonly exclude: ReadonlyArray<string> | undefined
  readonly columns: {
    readonly [table: string]: {
      readonly include?: ReadonlyArray<string>
      readonly exclude?: ReadonlyArray<string>
    }
  }
  /** `schema` to `schema`, and `schema.table` to `schema.table`; the longer name wins. */
  readonly map: { readonly [name: string]: string }
}

/** A table's name in the source. */
export type SourceName = Pick<Relation, "namespace" | "name">

export interface Mapping {
  /** The target schema of a source schema. */
  readonly schema: (namespace: string) => string
  /** The target table of a source table, or `undefined` when it is filtered out. */
  readonly table: (source: SourceName) => TableName | undefined
  /** What filters a source table out; `undefined` when it is applied. */
  readonly leftOutBy: (source: SourceName) => "tables.include" | "tables.exclude" | "its schema" | undefined
  /** The key of `tables.map` that names the table or its schema. */
  readonly mappedBy: (source: SourceName) => string | undefined
  /** The target column of a source column, or `undefined` when it is filtered out. */
  readonly column: (source: SourceName) => (name: string) => string | undefined
}

/** As the settings write it. */
export const settingsName = ({ name, namespace }: SourceName): string => `${namespace}.${name}`

/** Whether a name matches the pattern, in which `*` stands for any characters. */
export const matcher = (pattern: string): ((name: string) => boolean) => {
  const expression = new RegExp(
    `^${pattern
      .split("*")
      .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
      .join(".*")}$`,
    "su"
  )
  return (name) => expression.test(name)
}

const anyOf = (patterns: ReadonlyArray<string>): ((name: string) => boolean) => {
  const matchers = patterns.map(matcher)
  return (name) => matchers.some((matches) => matches(name))
}

export const make = (options: MappingOptions): Mapping => {
  const isIncluded = options.include === undefined ? () => true : anyOf(options.include)
  const isExcluded = anyOf(options.exclude ?? [])
  const maps = new Map(Object.entries(options.map))
  const columns = new Map(Object.entries(options.columns))
  const schema: Mapping["schema"] = (namespace) => maps.get(namespace) ?? namespace
  const leftOutBy: Mapping["leftOutBy"] = (source) => {
    if (source.namespace === ownSchema) return "its schema"
    const name = settingsName(source)
    return !isIncluded(name) ? "tables.include" : isExcluded(name) ? "tables.exclude" : undefined
  }
  return {
    schema,
    leftOutBy,
    table: (source) => {
      if (leftOutBy(source) !== undefined) return undefined
      const table = maps.get(settingsName(source))
      if (table === undefined) return { schema: schema(source.namespace), name: source.name }
      const dot = table.indexOf(".")
      return { schema: table.slice(0, dot), name: table.slice(dot + 1) }
    },
    mappedBy: (source) => [settingsName(source), source.namespace].find((name) => maps.has(name)),
    column: (source) => {
      const filter = columns.get(settingsName(source))
      if (filter === undefined) return (column) => column
      const { exclude, include } = filter
      return (column) =>
        (include !== undefined && !include.includes(column)) || exclude?.includes(column) === true ? undefined : column
    }
  }
}
