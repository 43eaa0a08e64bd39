/** Which relations and columns are applied, and under which names: the settings `tables.*` as functions. */
import type { Relation } from "../stream/Relation.ts"
import type { TableName } from "./TargetTable.ts"

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

export interface Mapping {
  /** The target schema of a source schema. */
  readonly schema: (namespace: string) => string
  /** The target table of a source table, or `undefined` when it is filtered out. */
  readonly table: (source: Pick<Relation, "namespace" | "name">) => TableName | undefined
  /** The target column of a source column, or `undefined` when it is filtered out. */
  readonly column: (source: Pick<Relation, "namespace" | "name">) => (name: string) => string | undefined
}

const matcher = (patterns: ReadonlyArray<string>): ((name: string) => boolean) => {
  const expressions = patterns.map(
    (pattern) =>
      new RegExp(
        `^${pattern
          .split("*")
          .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
          .join(".*")}$`,
        "su"
      )
  )
  return (name) => expressions.some((expression) => expression.test(name))
}

export const make = (options: MappingOptions): Mapping => {
  const isIncluded = options.include === undefined ? () => true : matcher(options.include)
  const isExcluded = matcher(options.exclude ?? [])
  const maps = new Map(Object.entries(options.map))
  const columns = new Map(Object.entries(options.columns))
  const schema = (namespace: string) => maps.get(namespace) ?? namespace
  return {
    schema,
    table: ({ name, namespace }) => {
      const source = `${namespace}.${name}`
      if (!isIncluded(source) || isExcluded(source)) return undefined
      const table = maps.get(source)
      if (table === undefined) return { schema: schema(namespace), name }
      const dot = table.indexOf(".")
      return { schema: table.slice(0, dot), name: table.slice(dot + 1) }
    },
    column: ({ name, namespace }) => {
      const filter = columns.get(`${namespace}.${name}`)
      if (filter === undefined) return (column) => column
      const { exclude, include } = filter
      return (column) =>
        (include !== undefined && !include.includes(column)) || exclude?.includes(column) === true ? undefined : column
    }
  }
}
