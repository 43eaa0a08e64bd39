/**
 * What a column's type in the source is in the target.
 *
 * A user-defined type is found by its name. Where the target has several types of that name, the schema of the Type event
 * decides, and where that does not, nothing does: values that one type takes in another's place may be wrong in silence.
 */
import { Effect } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { StoredType } from "../stream/OffsetStore.ts"
import type { RelationColumn } from "../stream/Relation.ts"
import { typeText } from "../target/TargetTable.ts"

type Type = Pick<RelationColumn, "typeId" | "typeModifier">

/** A type that means nothing in the target, and what would help. */
export interface UnknownType {
  readonly reason: string
  readonly remedy: string
}

/** The text of the type in the target, modifier included, as `TargetColumn.fullType` has it. */
export type TargetType = string | UnknownType

/** From here on an OID says nothing outside the database that gave it; the source names those types in Type events. */
const firstUnstableOid = 10_000

/** What Type events say of a type. */
export type TypeName = Pick<StoredType, "namespace" | "name">

export interface ResolveOptions {
  /** The source's user-defined types by their OIDs. */
  readonly types: ReadonlyMap<number, TypeName>
  /** The setting `types`: a type of the target by the OID, `schema.name` or name of one of the source. */
  readonly settings: { readonly [type: string]: string }
  /** The schema of the target table. */
  readonly schema: string
  /** The target schema of a source schema. */
  readonly schemaOf: (namespace: string) => string
}

export interface Resolved {
  /** The type in the target of a column that was asked for. */
  readonly typeOf: (column: Type) => TargetType
  /** The schema of the target table exists. */
  readonly hasSchema: boolean
}

interface Found {
  readonly text: string | null
  readonly named: ReadonlyArray<{ readonly text: string; readonly schema: string }> | null
}

/** The row types of tables, and arrays of them, are left out: they are called like their tables. */
export const query = `
SELECT
  EXISTS (SELECT FROM pg_namespace WHERE nspname = $2::name) AS "hasSchema",
  (
    SELECT coalesce(json_agg(json_build_object(
      'text', CASE
        WHEN setting IS NULL AND id < ${firstUnstableOid} THEN ${typeText("wanted.id", "wanted.modifier")}
        WHEN setting LIKE '%(%' AND to_regtype(setting) IS NOT NULL THEN setting
        ELSE ${typeText("to_regtype(wanted.setting)", "-1")}
      END,
      'named', (
        SELECT json_agg(json_build_object(
          'text', ${typeText("type.oid", "wanted.modifier")},
          'schema', namespace.nspname
        ) ORDER BY namespace.nspname)
        FROM pg_type AS type
        JOIN pg_namespace AS namespace ON namespace.oid = type.typnamespace
        LEFT JOIN pg_type AS element ON element.oid = type.typelem AND element.typarray = type.oid
        LEFT JOIN pg_class AS class ON class.oid = coalesce(element.typrelid, type.typrelid)
        WHERE type.typname = coalesce(wanted.setting, wanted.name)::name
          AND type.typtype <> 'p' AND coalesce(class.relkind, 'c') = 'c'
      )
    ) ORDER BY place), '[]')
    FROM json_array_elements($1::json) WITH ORDINALITY AS list(item, place)
    -- No cast from text: the target may have one of its own.
    CROSS JOIN LATERAL json_to_record(item) AS wanted(id oid, modifier integer, name text, setting text)
  ) AS types`

const keyOf = ({ typeId, typeModifier }: Type): string => `${typeId}/${typeModifier}`

/** The schema of a type, where the Type event gives it; it does not where it repeats the name. */
export const namespaceOf = ({ name, namespace }: TypeName): string | undefined =>
  namespace === "" ? "pg_catalog" : namespace === name ? undefined : namespace

/** The name with its schema, as far as that is known. */
const fullName = (type: TypeName): string => [namespaceOf(type) ?? [], type.name].flat().join(".")

/** A column's type that is looked for in the target. */
interface Wanted extends Type {
  readonly type: TypeName | undefined
  /** The key and value of the setting for it. */
  readonly setting: readonly [key: string, type: string] | undefined
  /** The type's schema in the target, by `tables.map` and by its own name; none where it is not known or has a setting. */
  readonly schemas: ReadonlyArray<string>
  /** The source has other types of the name, so that one elsewhere in the target may be one of those. */
  readonly isOneOfSeveral: boolean
}

const keyText = (key: string | number): string => (String(key).includes(".") ? `types."${key}"` : `types.${key}`)

const decide = (found: Found, wanted: Wanted): TargetType => {
  if (found.text !== null) return found.text
  const { isOneOfSeveral, schemas, setting, type, typeId } = wanted
  const named = found.named ?? []
  const own = named.filter(({ schema }) => schemas.includes(schema))
  const choice = own.length > 0 || (isOneOfSeveral && schemas.length > 0) ? own : named
  const isUnclear = isOneOfSeveral && schemas.length === 0 && choice.some(({ schema }) => schema !== "pg_catalog")
  if (choice.length === 1 && !isUnclear) return choice[0].text
  if (choice.length > 0) {
    // Without a schema, only the OID tells it from another type of the source that has its name.
    const key = setting?.[0] ?? (type === undefined || schemas.length === 0 ? typeId : fullName(type))
    return {
      reason: `${isUnclear ? "the source has" : "the target has"} several types with the name ${setting?.[1] ?? type?.name}`,
      remedy: `set \`${keyText(key)}\` to one of ${choice.map(({ text }) => text).join(", ")}`
    }
  }
  if (setting !== undefined) {
    const key = keyText(setting[0])
    return {
      reason: `the setting \`${key}\` names ${setting[1]}, which the target does not have`,
      remedy: `create the type, or correct \`${key}\`; a type outside pg_catalog needs its schema`
    }
  }
  if (typeId < firstUnstableOid) {
    return {
      reason: `its PostgreSQL has no built-in type with the OID ${typeId}`,
      remedy: `set \`types.${typeId}\` to a type of the target`
    }
  }
  if (type === undefined) {
    return {
      reason: `the stream does not name the source's type with the OID ${typeId}`,
      remedy: `set \`types.${typeId}\` to a type of the target`
    }
  }
  return {
    reason: `it has no type with the name ${fullName(type)}`,
    remedy: `create the type as it is in the source (CREATE TYPE, CREATE DOMAIN or CREATE EXTENSION), or set \`${keyText(fullName(type))}\` to a type of the target`
  }
}

/** The settings `types` that speak of a type, the most exact first. */
export const keysOf = (typeId: number, type: TypeName | undefined): ReadonlyArray<string> => [
  String(typeId),
  ...(type === undefined ? [] : [fullName(type), type.name])
]

/**
 * Asks the target, in one round trip, for its types: the built-in ones by their OID, which `format_type` spells with
 * their modifiers, the others by the setting, or else by their name.
 */
export const resolve = Effect.fn("SourceType.resolve")(function* (
  columns: ReadonlyArray<Type>,
  { schema, schemaOf, settings, types }: ResolveOptions
): Effect.fn.Return<Resolved, SqlError.SqlError, SqlClient.SqlClient> {
  const sql = yield* SqlClient.SqlClient
  const configured = new Map(Object.entries(settings))
  const wanted = [...new Map(columns.map((column) => [keyOf(column), column])).values()].map((column): Wanted => {
    const { typeId } = column
    const type = types.get(typeId)
    const namespace = type && namespaceOf(type)
    const setting = keysOf(typeId, type)
      .map((key) => [key, configured.get(key)] as const)
      .find((entry): entry is [string, string] => entry[1] !== undefined)
    const others = [...types].filter(([id, { name }]) => id !== typeId && name === type?.name)
    return {
      ...column,
      type,
      setting,
      schemas: namespace === undefined || setting !== undefined ? [] : [schemaOf(namespace), namespace],
      isOneOfSeveral:
        setting === undefined &&
        others.some(([, other]) => namespace === undefined || ![undefined, namespace].includes(namespaceOf(other)))
    }
  })
  const list = JSON.stringify(
    wanted.map(({ setting, type, typeId, typeModifier }) => ({
      id: typeId,
      modifier: typeModifier,
      name: type?.name,
      setting: setting?.[1]
    }))
  )
  const [row] = yield* sql.unsafe<{ readonly hasSchema: boolean; readonly types: ReadonlyArray<Found> }>(query, [
    list,
    schema
  ])
  const decided = new Map(wanted.map((one, place) => [keyOf(one), decide(row.types[place], one)]))
  return {
    hasSchema: row.hasSchema,
    typeOf: (column) =>
      decided.get(keyOf(column)) ?? { reason: `its type was not asked for`, remedy: "report this as a defect" }
  }
})

const int8 = 20
const int2 = 21
const int4 = 23
const text = 25
const float4 = 700
const float8 = 701
const bpchar = 1042
const varchar = 1043
const date = 1082
const time = 1083
const timestamp = 1114
const timestamptz = 1184
const timetz = 1266
const varbit = 1562
const numeric = 1700

/** Types whose values another type holds all, when that has no modifier. */
const wider = new Map<number, ReadonlyArray<number>>([
  [int2, [int4, int8, numeric, float4, float8]],
  [int4, [int8, numeric, float8]],
  [int8, [numeric]],
  [float4, [float8]],
  [date, [timestamp]],
  [varchar, [text]],
  [bpchar, [text, varchar]],
  [text, [varchar]]
])

/** Types whose modifier grows with what a value can hold. */
const growing = new Set([bpchar, varchar, varbit, time, timetz, timestamp, timestamptz])

/** Digits before and after the point; the scale is signed since PostgreSQL 15. */
const digits = (modifier: number) => {
  const precision = ((modifier - 4) >> 16) & 0xffff
  const scale = (((modifier - 4) & 0x7ff) ^ 1024) - 1024
  return { whole: precision - scale, scale }
}

/** Every value of the old type is a value of the new one. Types that are not listed here are taken not to be. */
export const isWidening = (from: Type, to: Type): boolean => {
  if (from.typeId !== to.typeId) {
    return to.typeModifier === -1 && (wider.get(from.typeId)?.includes(to.typeId) ?? false)
  }
  if (to.typeModifier === -1) return true
  if (from.typeModifier === -1) return false
  if (to.typeId === numeric) {
    const before = digits(from.typeModifier)
    const after = digits(to.typeModifier)
    return after.whole >= before.whole && after.scale >= before.scale
  }
  return growing.has(to.typeId) && to.typeModifier >= from.typeModifier
}
