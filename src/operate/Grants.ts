/** What the applying role needs in the target, as SQL for whoever may grant it. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import type { SchemaPolicy } from "../schema/SchemaChange.ts"
import { qualified, quote } from "../target/Identifier.ts"
import { ownSchema } from "../target/Mapping.ts"
import * as SqlFailure from "../target/SqlFailure.ts"
import type { TableName } from "../target/TargetTable.ts"

export interface Grant {
  /** It means the same under every `search_path`, and may be run again. */
  readonly statement: string
  /** The role has it already. */
  readonly isHeld: boolean
  /** The connector does without, at a price that it tells. */
  readonly isOptional?: true
}

interface SchemaFacts {
  readonly name: string
  readonly mayUse: boolean
  readonly mayCreate: boolean
}

interface TableFacts extends TableName {
  readonly owner: string
  readonly isOwnedBySuperuser: boolean
  /** The role owns it, or belongs to the one that does. */
  readonly isOwner: boolean
  readonly mayWrite: boolean
  readonly mayTruncate: boolean
  /** A partition, whose rows are written through its parent. */
  readonly isPartition: boolean
  /** None where the owner is free of it. */
  readonly rowSecurity: "none" | "for others" | "forced"
}

interface Facts {
  readonly exists: boolean
  readonly bypassesRowSecurity: boolean
  readonly database: string
  readonly mayConnect: boolean
  readonly mayCreateSchemas: boolean
  /** `null` before release 15, where only a superuser may. */
  readonly mayBeReplica: boolean | null
  readonly schemas: ReadonlyArray<SchemaFacts>
  readonly tables: ReadonlyArray<TableFacts>
}

const privileges = (names: string) => `(
  SELECT coalesce(bool_and(has_table_privilege(role.oid, class.oid, privilege)), false)
  FROM unnest('{${names}}'::text[]) AS privilege
)`

/** Every function that is asked with the OID of a role that does not exist answers NULL. */
const query = (hasParameters: boolean) => `
WITH wanted AS (
  SELECT item->>'schema' AS schema, item->>'name' AS name FROM json_array_elements($2::json) AS list(item)
), role AS (
  SELECT max(oid::int8)::oid AS oid, coalesce(bool_or(rolsuper OR rolbypassrls), false) AS is_free
  FROM pg_roles WHERE rolname = $1::name
), named AS (
  SELECT class.oid FROM wanted
  JOIN pg_namespace AS namespace ON namespace.nspname = wanted.schema::name
  JOIN pg_class AS class ON class.relnamespace = namespace.oid AND class.relname = wanted.name::name
  WHERE class.relkind IN ('r', 'p')
  UNION
  SELECT class.oid FROM pg_class AS class
  JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
  WHERE namespace.nspname = '${ownSchema}' AND class.relkind IN ('r', 'p')
), found AS (
  SELECT oid FROM named
  UNION
  SELECT part.relid FROM named, pg_partition_tree(named.oid) AS part
)
SELECT role.oid IS NOT NULL AS "exists", role.is_free AS "bypassesRowSecurity", current_database() AS database,
  coalesce(has_database_privilege(role.oid, current_database(), 'CONNECT'), false) AS "mayConnect",
  coalesce(has_database_privilege(role.oid, current_database(), 'CREATE'), false) AS "mayCreateSchemas",
  ${hasParameters ? "coalesce(has_parameter_privilege(role.oid, 'session_replication_role', 'SET'), false)" : "NULL"} AS "mayBeReplica",
  (
    SELECT coalesce(json_agg(json_build_object(
      'name', namespace.nspname,
      'mayUse', coalesce(has_schema_privilege(role.oid, namespace.oid, 'USAGE'), false),
      'mayCreate', coalesce(has_schema_privilege(role.oid, namespace.oid, 'CREATE'), false)
    ) ORDER BY namespace.nspname), '[]')
    FROM pg_namespace AS namespace
    WHERE namespace.nspname = '${ownSchema}' OR namespace.nspname IN (SELECT schema::name FROM wanted)
  ) AS schemas,
  (
    SELECT coalesce(json_agg(json_build_object(
      'schema', namespace.nspname,
      'name', class.relname,
      'owner', owner.rolname,
      'isOwnedBySuperuser', owner.rolsuper,
      'isOwner', coalesce(pg_has_role(role.oid, class.relowner, 'USAGE'), false),
      'mayWrite', ${privileges("SELECT,INSERT,UPDATE,DELETE")},
      'mayTruncate', ${privileges("TRUNCATE")},
      'isPartition', class.relispartition,
      'rowSecurity', CASE WHEN NOT class.relrowsecurity THEN 'none'
        WHEN class.relforcerowsecurity THEN 'forced' ELSE 'for others' END
    ) ORDER BY namespace.nspname, class.relname), '[]')
    FROM found
    JOIN pg_class AS class ON class.oid = found.oid
    JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    JOIN pg_roles AS owner ON owner.oid = class.relowner
  ) AS tables
FROM role`

/** What the catalog says of a role's rights. Anybody may ask. */
const look = Effect.fnUntraced(function* (role: string, tables: ReadonlyArray<TableName>) {
  const sql = yield* SqlClient.SqlClient
  const [{ version }] = yield* sql<{ readonly version: number }>`
    SELECT current_setting('server_version_num')::integer AS version
  `
  const [facts] = yield* sql.unsafe<Facts>(query(version >= 150_000), [role, JSON.stringify(tables)])
  return facts
}, SqlFailure.typed)

/** The connector's own tables: it makes them, unless they are there. */
const ofOwnSchema = (facts: Facts, grantee: string): ReadonlyArray<Grant> => {
  const { schemas, tables } = facts
  const schema = schemas.find(({ name }) => name === ownSchema)
  const name = quote(ownSchema)
  if (schema === undefined) {
    return [
      { statement: `CREATE SCHEMA IF NOT EXISTS ${name} AUTHORIZATION ${grantee}`, isHeld: facts.mayCreateSchemas }
    ]
  }
  const own = tables.filter((table) => table.schema === ownSchema)
  if (own.some((table) => table.name === "migration")) {
    return [
      { statement: `GRANT USAGE ON SCHEMA ${name} TO ${grantee}`, isHeld: schema.mayUse },
      {
        statement: `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${name} TO ${grantee}`,
        isHeld: own.every(({ mayWrite }) => mayWrite)
      }
    ]
  }
  // What the original connector has left there is altered.
  return [
    { statement: `GRANT USAGE, CREATE ON SCHEMA ${name} TO ${grantee}`, isHeld: schema.mayUse && schema.mayCreate },
    ...own.flatMap((table) => owning(table, grantee))
  ]
}

/** Whoever owned it before keeps the rights that ownership gave. */
const owning = ({ isOwnedBySuperuser, isOwner, name, owner, schema }: TableFacts, grantee: string) => {
  const table = qualified(schema, name)
  return [
    { statement: `ALTER TABLE ${table} OWNER TO ${grantee}`, isHeld: isOwner },
    ...(isOwner || isOwnedBySuperuser ? [] : [{ statement: `GRANT ALL ON ${table} TO ${quote(owner)}`, isHeld: false }])
  ]
}

export interface Wanted {
  readonly role: string
  readonly policy: SchemaPolicy
  /** The target's tables, whether they exist or not. */
  readonly tables: ReadonlyArray<TableName>
}

/**
 * Everything that the role needs, in the order in which it can be granted. To alter a table is its owner's right alone, so
 * what follows the source's schema owns the tables.
 */
export const needed = Effect.fn("Grants.needed")(function* ({ policy, role, tables: wanted }: Wanted) {
  const facts = yield* look(role, wanted)
  const { database, exists } = facts
  const grantee = quote(role)
  const alters = policy === "additive" || policy === "full"
  const tables = facts.tables.filter(({ schema }) => schema !== ownSchema)
  const schemas = facts.schemas.filter(({ name }) => name !== ownSchema)
  const grants: ReadonlyArray<Grant> = [
    { statement: `GRANT CONNECT ON DATABASE ${quote(database)} TO ${grantee}`, isHeld: facts.mayConnect },
    ...(alters
      ? [{ statement: `GRANT CREATE ON DATABASE ${quote(database)} TO ${grantee}`, isHeld: facts.mayCreateSchemas }]
      : []),
    ...ofOwnSchema(facts, grantee),
    ...(facts.mayBeReplica === null
      ? []
      : [
          {
            statement: `GRANT SET ON PARAMETER session_replication_role TO ${grantee}`,
            isHeld: facts.mayBeReplica,
            isOptional: true as const
          }
        ]),
    ...schemas.map(({ mayCreate, mayUse, name }) => ({
      statement: `GRANT USAGE${alters ? ", CREATE" : ""} ON SCHEMA ${quote(name)} TO ${grantee}`,
      isHeld: mayUse && (mayCreate || !alters)
    })),
    ...tables
      .filter(({ isPartition }) => !isPartition)
      .map(({ mayTruncate, mayWrite, name, schema }) => ({
        statement: `GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ${qualified(schema, name)} TO ${grantee}`,
        isHeld: mayWrite && mayTruncate
      })),
    ...(alters ? tables.flatMap((table) => owning(table, grantee)) : []),
    ...(tables.some(
      ({ isOwner, rowSecurity }) => rowSecurity === "forced" || (rowSecurity !== "none" && !isOwner && !alters)
    )
      ? [{ statement: `ALTER ROLE ${grantee} BYPASSRLS`, isHeld: facts.bypassesRowSecurity }]
      : [])
  ]
  return { exists, mayBeReplica: facts.mayBeReplica, grants }
})
