/** What a column's type in the source is in the target. */
import { Effect } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
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

export interface ResolveOptions {
  /** Names of the source's user-defined types by their OIDs. */
  readonly names: ReadonlyMap<number, string>
  /** The setting `types`: a type of the target by the name or OID of one of the source. */
  readonly settings: { readonly [type: string]: string }
  /** The schema of the target table; of several types of one name, its own is meant. */
  readonly schema: string
}

export interface Resolved {
  /** The type in the target of a column that was asked for. */
  readonly typeOf: (column: Type) => TargetType
  /** The schema of the target table exists. */
  readonly hasSchema: boolean
}

interface Found {
  readonly text: string | null
  readonly named: ReadonlyArray<{ readonly text: string; readonly rank: number }> | null
}

/**
 * The table's schema before `pg_catalog`, where the Type event of a domain leads, as it names the type underneath; then
 * any other. The row types of tables are left out: they are called like their tables.
 */
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
          'rank', CASE namespace.nspname WHEN $2::name THEN 0 WHEN 'pg_catalog' THEN 1 ELSE 2 END
        ) ORDER BY namespace.nspname)
        FROM pg_type AS type
        JOIN pg_namespace AS namespace ON namespace.oid = type.typnamespace
        LEFT JOIN pg_class AS class ON class.oid = type.typrelid
        WHERE type.typname = coalesce(wanted.setting, wanted.name)::name
          AND type.typtype <> 'p' AND coalesce(class.relkind, 'c') = 'c'
      )
    ) ORDER BY place), '[]')
    FROM json_array_elements($1::json) WITH ORDINALITY AS list(item, place)
    CROSS JOIN LATERAL (
      SELECT (item->>'id')::oid AS id, (item->>'modifier')::integer AS modifier, item->>'name' AS name,
        item->>'setting' AS setting
    ) AS wanted
  ) AS types`

const keyOf = ({ typeId, typeModifier }: Type): string => `${typeId}/${typeModifier}`

const decide = (
  found: Found,
  id: number,
  name: string | undefined,
  setting: readonly [key: string, type: string] | undefined
): TargetType => {
  if (found.text !== null) return found.text
  const named = found.named ?? []
  const best = named.filter((type) => type.rank === Math.min(...named.map(({ rank }) => rank)))
  if (best.length === 1) return best[0].text
  const key = setting?.[0] ?? name ?? String(id)
  if (best.length > 1) {
    const choice = best.map((type) => type.text).join(", ")
    return {
      reason: `several types have the name ${setting?.[1] ?? name}`,
      remedy: `set \`types.${key}\` to one of ${choice}`
    }
  }
  if (setting !== undefined) {
    return {
      reason: `the setting \`types.${key}\` names ${setting[1]}, which the target does not have`,
      remedy: `create the type, or correct \`types.${key}\`; a type outside pg_catalog needs its schema`
    }
  }
  if (id < firstUnstableOid) {
    return {
      reason: `its PostgreSQL has no built-in type with the OID ${id}`,
      remedy: `set \`types.${id}\` to a type of the target`
    }
  }
  if (name === undefined) {
    return {
      reason: `the stream does not name the source's type with the OID ${id}`,
      remedy: `set \`types.${id}\` to a type of the target`
    }
  }
  return {
    reason: `it has no type with the name ${name}`,
    remedy: `create the type as it is in the source (CREATE TYPE, CREATE DOMAIN or CREATE EXTENSION), or set \`types.${name}\` to a type of the target`
  }
}

/**
 * Asks the target, in one round trip, for its types: the built-in ones by their OID, which `format_type` spells with
 * their modifiers, the others by the setting, or else by their name.
 */
export const resolve = Effect.fn("SourceType.resolve")(function* (
  columns: ReadonlyArray<Type>,
  { names, schema, settings }: ResolveOptions
): Effect.fn.Return<Resolved, SqlError.SqlError, SqlClient.SqlClient> {
  const sql = yield* SqlClient.SqlClient
  const configured = new Map(Object.entries(settings))
  const wanted = [...new Map(columns.map((column) => [keyOf(column), column])).entries()].map(([key, column]) => {
    const name = names.get(column.typeId)
    const setting = [String(column.typeId), ...(name === undefined ? [] : [name])]
      .map((key) => [key, configured.get(key)] as const)
      .find((entry): entry is [string, string] => entry[1] !== undefined)
    return { key, id: column.typeId, modifier: column.typeModifier, name, setting }
  })
  const list = JSON.stringify(wanted.map(({ setting, ...type }) => ({ ...type, setting: setting?.[1] })))
  const [row] = yield* sql.unsafe<{ readonly hasSchema: boolean; readonly types: ReadonlyArray<Found> }>(query, [
    list,
    schema
  ])
  const types = new Map(
    wanted.map(({ id, key, name, setting }, place) => [key, decide(row.types[place], id, name, setting)])
  )
  return {
    hasSchema: row.hasSchema,
    typeOf: (column) =>
      types.get(keyOf(column)) ?? { reason: `its type was not asked for`, remedy: "report this as a defect" }
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
