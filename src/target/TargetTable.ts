/** What the target's catalog says of a table: everything that decides how a row can be written there. */
import { Effect, Schema } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { qualified } from "./Identifier.ts"
import { isRetryable } from "../stream/Outcome.ts"

/** A table by its names, unquoted. */
export interface TableName {
  readonly schema: string
  readonly name: string
}

export interface TargetColumn {
  readonly name: string
  /**
   * The type to cast a text to, as SQL text that means the same under every `search_path`. It has no modifier, because
   * a cast to `varchar(3)` would truncate in silence, and for the same reason a domain's is the type underneath: the
   * assignment to the column checks both the modifier and the domain.
   */
  readonly type: string
  /** The declared type with its modifier, the domain's name included: for comparison and for messages. */
  readonly fullType: string
  /** The type is an array (or a domain over one): `unnest` would flatten it, so its cells travel as text. */
  readonly isArray: boolean
  /** Somebody has created a cast from text to the array type, which is another function than its input. */
  readonly hasTextCast?: boolean
  /** What stands between the elements of an array of the type, where that is not a comma (box, and types that chose it). */
  readonly delimiter?: string
  /**
   * `=` exists for the type; where it does not (json, xml, point, …), values are compared as text. So they are where it is
   * that of all enums, composites, ranges or arrays, and somebody's implicit cast offers another one.
   */
  readonly hasEquality: boolean
  /**
   * The operator of equality where a plain `=` would not find it: an extension's, as in `OPERATOR(public.=)`. Under an
   * empty `search_path` a plain `=` fails on hstore, and on citext it means that of text, which no index serves.
   */
  readonly equality?: string
  /** STORED or VIRTUAL generated: never written. */
  readonly isGenerated: boolean
  readonly identity: "always" | "default" | undefined
  readonly isNullable: boolean
  readonly hasDefault: boolean
}

export interface DeferrableKey {
  readonly constraint: string
  readonly isPrimary: boolean
  readonly columns: ReadonlyArray<string>
}

/** A foreign key's other table. */
export interface Reference extends TableName {
  /** What happens to its rows happens to those that refer to them: ON DELETE or ON UPDATE CASCADE. */
  readonly cascades: boolean
}

export interface TargetTable extends TableName {
  readonly isPartitioned: boolean
  readonly columns: ReadonlyArray<TargetColumn>
  /** Column names of the primary key, in its order. */
  readonly primaryKey: ReadonlyArray<string> | undefined
  /** The primary key is checked late: it cannot serve `ON CONFLICT`, and two rows may share a key for a while. */
  readonly isPrimaryKeyDeferrable: boolean
  /** The primary key is WITHOUT OVERLAPS: it cannot serve `ON CONFLICT` either. */
  readonly isPrimaryKeyTemporal: boolean
  /** Unique constraints that are checked late, the primary key among them: none of them can serve `ON CONFLICT`. */
  readonly deferrableKeys: ReadonlyArray<DeferrableKey>
  /** Column names of each other unique index that is valid, immediate, and without expressions or predicate. */
  readonly uniqueKeys: ReadonlyArray<ReadonlyArray<string>>
  /** How many unique indexes and exclusion constraints there are, of every kind: also those that are no keys. */
  readonly uniqueIndexes: number
  /** A trigger or rule fires in the applying session, so the order of statements can be observed. */
  readonly firesTriggers: boolean
  /** A foreign key, its own or one that refers to it, is checked in the applying session, at the end of each statement. */
  readonly checksForeignKeys: boolean
  /** The tables that its own foreign keys refer to, as far as they are checked in the applying session. */
  readonly references: ReadonlyArray<Reference>
  /** A deferrable key is not checked at all: PostgreSQL does it by a trigger, which does not fire in the applying session. */
  readonly hasUncheckedKey: boolean
  /** Row security would filter the applying role. */
  readonly hasRowSecurity: boolean
}

/** The target has something of the table's name that rows are not written to: a view, a foreign table, a sequence, … */
export class NotATable extends Schema.TaggedError<NotATable>()("NotATable", {
  table: Schema.String,
  kind: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "make it a table, map the source's table to another name, or leave it out of the tables to apply"
  override get message() {
    return `${this.table} is a ${this.kind} in the target, not a table`
  }
}

/**
 * SQL for the text of a type that means the same under every `search_path`, or NULL where the OID is none:
 * `format_type` alone leaves out the schema of whatever the session happens to see. Both arguments are SQL.
 */
export const typeText = (oid: string, modifier: string): string => `(
  SELECT CASE
      WHEN namespace.nspname = 'pg_catalog' THEN format_type(scalar.oid, ${modifier})
      ELSE quote_ident(namespace.nspname) || '.' || quote_ident(scalar.typname)
        || substr(format_type(scalar.oid, ${modifier}), length(format_type(scalar.oid, -1)) + 1)
    END || CASE WHEN element.oid IS NULL THEN '' ELSE '[]' END
  FROM pg_type AS declared
  LEFT JOIN pg_type AS element ON element.oid = declared.typelem AND element.typarray = declared.oid
  JOIN pg_type AS scalar ON scalar.oid = coalesce(element.oid, declared.oid)
  JOIN pg_namespace AS namespace ON namespace.oid = scalar.typnamespace
  WHERE declared.oid = ${oid}
)`

/** Whether a trigger or rule fires, by its `enabled` column and the session's role. */
export const fires = (enabled: string): string =>
  `${enabled} IN ('A', CASE current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)`

/** The triggers of a table and its partitions that fire, each with the constraint that it serves. */
const firing = `
    SELECT FROM pg_trigger AS trigger
    LEFT JOIN pg_constraint AS reason ON reason.oid = trigger.tgconstraint
    WHERE (trigger.tgrelid = found.oid OR trigger.tgrelid IN (SELECT relid FROM pg_partition_tree(found.oid)))
      AND ${fires("trigger.tgenabled")}`

/**
 * A domain is followed down to its base type, and a type down to the parts that must be comparable for it to be: the
 * elements of arrays and the attributes of composites. Enums and ranges always are. For the rest the default operator
 * class of btree or hash tells, the type's own or that of a type which it is implicitly the same as (varchar and text).
 */
export const query = `
WITH RECURSIVE wanted AS (
  SELECT place, item->>'schema' AS schema, item->>'name' AS name
  FROM json_array_elements($1::json) WITH ORDINALITY AS list(item, place)
), found AS (
  SELECT wanted.place, wanted.schema, wanted.name, class.oid, class.relkind
  FROM wanted
  JOIN pg_namespace AS namespace ON namespace.nspname = wanted.schema::name
  JOIN pg_class AS class ON class.relnamespace = namespace.oid AND class.relname = wanted.name::name
), layer AS (
  SELECT DISTINCT atttypid AS declared, atttypid AS type, false AS has_not_null, false AS has_default
  FROM found JOIN pg_attribute ON attrelid = found.oid AND attnum > 0 AND NOT attisdropped
  UNION ALL
  SELECT layer.declared, domain.typbasetype, layer.has_not_null OR domain.typnotnull,
    layer.has_default OR domain.typdefault IS NOT NULL
  FROM layer JOIN pg_type AS domain ON domain.oid = layer.type AND domain.typtype = 'd'
), base AS (
  SELECT layer.*, type.typtype, element.oid IS NOT NULL AS is_array, nullif(type.typdelim, ',') AS delimiter
  FROM layer
  JOIN pg_type AS type ON type.oid = layer.type AND type.typtype <> 'd'
  LEFT JOIN pg_type AS element ON element.oid = type.typelem AND element.typarray = type.oid
), part AS (
  SELECT DISTINCT type AS whole, type FROM base
  UNION
  SELECT part.whole, inside.type
  FROM part
  JOIN pg_type AS type ON type.oid = part.type
  CROSS JOIN LATERAL (
    SELECT type.typbasetype AS type WHERE type.typtype = 'd'
    UNION ALL
    SELECT element.oid FROM pg_type AS element WHERE element.oid = type.typelem AND element.typarray = type.oid
    UNION ALL
    SELECT atttypid FROM pg_attribute
    WHERE type.typtype = 'c' AND attrelid = type.typrelid AND attnum > 0 AND NOT attisdropped
  ) AS inside
), equality AS (
  SELECT part.whole, part.type, operator.oid IS NOT NULL AS is_defined,
    CASE WHEN operator.nspname <> 'pg_catalog'
      THEN 'OPERATOR(' || quote_ident(operator.nspname) || '.' || operator.oprname || ')' END AS text
  FROM part
  JOIN pg_type AS type ON type.oid = part.type AND type.typtype = 'b'
  LEFT JOIN LATERAL (
    SELECT op.oid, op.oprname, namespace.nspname
    FROM (
      SELECT type.oid, 0 AS distance
      UNION ALL
      SELECT casttarget, 1 FROM pg_cast WHERE castsource = type.oid AND castmethod = 'b' AND castcontext = 'i'
    ) AS same
    JOIN pg_opclass AS class ON class.opcintype = same.oid AND class.opcdefault
    JOIN pg_am AS method ON method.oid = class.opcmethod AND method.amname IN ('btree', 'hash')
    JOIN pg_amop AS member ON member.amopfamily = class.opcfamily
      AND member.amoplefttype = class.opcintype AND member.amoprighttype = class.opcintype
      AND member.amopstrategy = CASE method.amname WHEN 'btree' THEN 3 ELSE 1 END
    JOIN pg_operator AS op ON op.oid = member.amopopr
    JOIN pg_namespace AS namespace ON namespace.oid = op.oprnamespace
    ORDER BY same.distance, method.amname
    LIMIT 1
  ) AS operator ON true
  WHERE NOT EXISTS (SELECT FROM pg_type AS element WHERE element.oid = type.typelem AND element.typarray = type.oid)
)
SELECT found.schema, found.name,
  CASE found.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
    WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' WHEN 'c' THEN 'composite type'
    ELSE 'table' END AS kind,
  found.relkind = 'p' AS "isPartitioned",
  row_security_active(found.oid) AS "hasRowSecurity",
  EXISTS (${firing}
      -- Nobody can observe the checks of constraints, which are triggers too.
      AND NOT (trigger.tgisinternal AND reason.contype IN ('p', 'u', 'x', 'f'))
  ) OR EXISTS (
    SELECT FROM pg_rewrite AS rule
    WHERE rule.ev_class = found.oid AND rule.ev_type <> '1' AND ${fires("rule.ev_enabled")}
  ) AS "firesTriggers",
  EXISTS (${firing}
      AND trigger.tgisinternal AND reason.contype = 'f'
  ) AS "checksForeignKeys",
  (
    SELECT coalesce(json_agg(json_build_object(
      'schema', namespace.nspname, 'name', other.relname, 'cascades', key.confdeltype = 'c' OR key.confupdtype = 'c'
    )), '[]')
    FROM pg_constraint AS key
    JOIN pg_class AS other ON other.oid = key.confrelid
    JOIN pg_namespace AS namespace ON namespace.oid = other.relnamespace
    WHERE key.conrelid = found.oid AND key.contype = 'f'
      AND EXISTS (SELECT FROM pg_trigger WHERE tgconstraint = key.oid AND ${fires("tgenabled")})
  ) AS "references",
  EXISTS (
    SELECT FROM pg_trigger AS trigger
    JOIN pg_constraint AS reason ON reason.oid = trigger.tgconstraint AND reason.contype IN ('p', 'u', 'x')
    WHERE (trigger.tgrelid = found.oid OR trigger.tgrelid IN (SELECT relid FROM pg_partition_tree(found.oid)))
      AND NOT ${fires("trigger.tgenabled")}
  ) AS "hasUncheckedKey",
  (
    SELECT coalesce(json_agg(json_build_object(
      'name', a.attname,
      'type', ${typeText("base.type", "-1")},
      'fullType', ${typeText("a.atttypid", "a.atttypmod")},
      'isArray', base.is_array,
      'hasTextCast', base.is_array AND EXISTS (
        SELECT FROM pg_cast WHERE castsource = 'pg_catalog.text'::regtype AND casttarget = base.type
      ),
      'delimiter', base.delimiter,
      'hasEquality', NOT EXISTS (SELECT FROM equality WHERE whole = base.type AND NOT is_defined)
        AND NOT ((base.typtype <> 'b' OR base.is_array)
          AND EXISTS (SELECT FROM pg_cast WHERE castsource = base.type AND castcontext = 'i')),
      'equality', (SELECT text FROM equality WHERE whole = base.type AND type = base.type),
      'isGenerated', a.attgenerated <> '',
      'identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'default' END,
      'isNullable', NOT (a.attnotnull OR base.has_not_null),
      'hasDefault', a.attgenerated = '' AND (a.atthasdef OR base.has_default)
    ) ORDER BY a.attnum), '[]')
    FROM pg_attribute AS a JOIN base ON base.declared = a.atttypid
    WHERE a.attrelid = found.oid AND a.attnum > 0 AND NOT a.attisdropped
  ) AS columns,
  (
    SELECT count(*)::integer FROM pg_index AS index
    WHERE index.indrelid = found.oid AND (index.indisunique OR index.indisexclusion)
  ) AS "uniqueIndexes",
  (
    SELECT coalesce(json_agg(json_build_object(
      'name', (SELECT relname FROM pg_class WHERE oid = index.indexrelid),
      'isPrimary', index.indisprimary,
      'isImmediate', index.indimmediate,
      'isTemporal', index.indisexclusion,
      'columns', (
        SELECT json_agg(a.attname ORDER BY key.place)
        FROM unnest(index.indkey::smallint[]) WITH ORDINALITY AS key(attnum, place)
        JOIN pg_attribute AS a ON a.attrelid = found.oid AND a.attnum = key.attnum
        WHERE key.place <= index.indnkeyatts
      )
    ) ORDER BY index.indexrelid), '[]')
    FROM pg_index AS index
    WHERE index.indrelid = found.oid AND index.indisunique AND index.indisvalid
      AND index.indpred IS NULL AND index.indexprs IS NULL
  ) AS keys
FROM found
ORDER BY found.place`

/** A row that {@link query} gives, one for each table that exists. */
export interface CatalogRow extends TableName {
  readonly kind: string
  readonly isPartitioned: boolean
  readonly hasRowSecurity: boolean
  readonly firesTriggers: boolean
  readonly checksForeignKeys: boolean
  readonly references: ReadonlyArray<Reference>
  readonly hasUncheckedKey: boolean
  readonly uniqueIndexes: number
  readonly columns: ReadonlyArray<
    Omit<TargetColumn, "identity" | "equality" | "hasTextCast" | "delimiter"> & {
      readonly identity: "always" | "default" | null
      readonly equality: string | null
      readonly hasTextCast?: boolean | null
      readonly delimiter?: string | null
    }
  >
  readonly keys: ReadonlyArray<{
    readonly name: string
    readonly isPrimary: boolean
    readonly isImmediate: boolean
    readonly isTemporal: boolean
    readonly columns: ReadonlyArray<string>
  }>
}

const fromCatalog = (row: CatalogRow): TargetTable => {
  const primary = row.keys.find((key) => key.isPrimary)
  return {
    schema: row.schema,
    name: row.name,
    isPartitioned: row.isPartitioned,
    columns: row.columns.map(({ delimiter, equality, hasTextCast, identity, ...column }) => ({
      ...column,
      ...(hasTextCast === true ? { hasTextCast } : {}),
      ...(typeof delimiter === "string" ? { delimiter } : {}),
      ...(equality === null ? {} : { equality }),
      identity: identity ?? undefined
    })),
    primaryKey: primary?.columns,
    isPrimaryKeyDeferrable: primary !== undefined && !primary.isImmediate,
    deferrableKeys: row.keys
      .filter((key) => !key.isImmediate)
      .map(({ columns, isPrimary, name }) => ({ constraint: name, isPrimary, columns })),
    isPrimaryKeyTemporal: primary?.isTemporal === true,
    uniqueKeys: row.keys
      .filter((key) => !key.isPrimary && key.isImmediate && !key.isTemporal)
      .map((key) => key.columns),
    uniqueIndexes: row.uniqueIndexes,
    firesTriggers: row.firesTriggers,
    checksForeignKeys: row.checksForeignKeys,
    references: row.references,
    hasUncheckedKey: row.hasUncheckedKey,
    hasRowSecurity: row.hasRowSecurity
  }
}

/**
 * Reads what the catalog says of tables, ordinary and partitioned, in one round trip, and as the ambient transaction
 * sees it. The keys of the map are the tables' qualified names; a table that does not exist is absent.
 *
 * What fires, is checked or hides rows depends on the session and role that ask, so they must be those that apply.
 */
export const load = Effect.fn("TargetTable.load")(function* (
  names: ReadonlyArray<TableName>
): Effect.fn.Return<ReadonlyMap<string, TargetTable>, SqlError.SqlError | NotATable, SqlClient.SqlClient> {
  if (names.length === 0) return new Map()
  const sql = yield* SqlClient.SqlClient
  const wanted = JSON.stringify(names.map(({ schema, name }) => ({ schema, name })))
  const rows = yield* sql.unsafe<CatalogRow>(query, [wanted])
  const other = rows.find((row) => row.kind !== "table")
  if (other !== undefined) {
    return yield* new NotATable({ table: qualified(other.schema, other.name), kind: other.kind })
  }
  return new Map(rows.map((row) => [qualified(row.schema, row.name), fromCatalog(row)]))
})
