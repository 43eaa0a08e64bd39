/** Whether two databases hold the same, by one query to each; where they differ, row by row. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { compare, type TableComparison } from "../../layers/demo/Compare.ts"
import { qualified, quote } from "../../src/target/Identifier.ts"
import type { TestDatabase } from "../postgres.ts"

/** The connector's own tables are not the source's. Of partitioned tables the partitions are compared. */
const catalog = `
  SELECT nspname, relname, attname FROM pg_class
  JOIN pg_namespace ON pg_namespace.oid = relnamespace
  LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
  WHERE relkind = 'r' AND relpersistence = 'p' AND nspname NOT IN ('pg_catalog', 'information_schema', 'fluvio')
  ORDER BY 1, 2, 3`

/** One schema's tables, or those of all. */
const within = (schema: string | undefined) =>
  schema === undefined ? catalog : catalog.replace("ORDER", `AND nspname = '${schema}' ORDER`)

/** For each table, how many rows it has and the sum of their hashes, which do not depend on their order. */
const digestQuery = Effect.fnUntraced(function* (database: TestDatabase, schema?: string) {
  const tables = new Map<string, Array<string>>()
  for (const { attname, nspname, relname } of yield* database.query(within(schema))) {
    const table = qualified(nspname!, relname!)
    const columns = tables.get(table) ?? []
    tables.set(table, columns)
    if (attname !== null) columns.push(`it.${quote(attname!)}`)
  }
  const parts = [...tables].map(
    ([table, columns]) => `
      SELECT '${table.replaceAll("'", "''")}', count(*), sum(hashtextextended(ROW(${columns.join(", ")})::text, 0)) FROM ONLY ${table} AS it`
  )
  return parts.length === 0 ? "SELECT" : parts.join("\nUNION ALL")
})

/** By the first one's tables and columns; `undefined` when the second one lacks some of them. */
const areEqual = Effect.fnUntraced(function* (
  one: TestDatabase,
  other: TestDatabase,
  hasSameShape: boolean,
  schema?: string
) {
  const query = yield* digestQuery(one, schema)
  if (hasSameShape && query !== (yield* digestQuery(other, schema))) return false
  const [left, right] = yield* Effect.all([one.query(query), other.query(query)], { concurrency: 2 })
  return JSON.stringify(left) === JSON.stringify(right)
})

const isOwn = ({ schema }: TableComparison): boolean => schema === "fluvio"

/** Every table of the source, or of one schema of it, has its rows in the target. */
export const equalToSource = Effect.fnUntraced(function* (source: TestDatabase, target: TestDatabase, schema?: string) {
  if (yield* Effect.orElseSucceed(areEqual(source, target, false, schema), () => false)) return
  const { tables } = yield* compare(source.url, target.url)
  const differing = tables.filter(
    (table) =>
      !isOwn(table) &&
      (schema === undefined || table.schema === schema) &&
      table.missingRows + table.extraRows + table.missingColumns.length > 0
  )
  assert.deepStrictEqual(differing, [], "source and target differ")
})

/** Every table has the same columns and rows on both sides; one without rows may be missing. */
export const equalToNative = Effect.fnUntraced(function* (native: TestDatabase, target: TestDatabase) {
  if (yield* areEqual(native, target, true)) return
  const { tables } = yield* compare(native.url, target.url)
  const names = new Set(tables.map(({ name, schema }) => `${schema}.${name}`))
  const { tables: others } = yield* compare(target.url, native.url)
  const alone = others.filter((table) => table.rows > 0 && !names.has(`${table.schema}.${table.name}`))
  const differing = tables.filter(
    (table) => table.missingRows + table.extraRows + table.missingColumns.length + table.extraColumns.length > 0
  )
  assert.deepStrictEqual(
    [...differing, ...alone].filter((table) => !isOwn(table)),
    [],
    "the native subscriber (the source here) and the target differ"
  )
})
