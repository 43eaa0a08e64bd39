/**
 * Compares two databases row by row: every table of the source, every column, each value as PostgreSQL prints it.
 *
 * Rows are compared as multisets, so tables without a key and with duplicate rows are compared as exactly as others,
 * and the order of columns does not matter. Both sides are read sorted and in parts, so memory stays bounded.
 */
import { Effect, type Redacted, type Scope } from "effect"
import { qualified, quote } from "../../src/target/Identifier.ts"
import type { PackageMissing } from "../embedded/OptionalPackage.ts"
import { connect, type Database, type DatabaseError } from "./Database.ts"

export interface TableComparison {
  readonly schema: string
  readonly name: string
  /** Rows in the source. */
  readonly rows: number
  /** Rows that only the source has. A row with another value in the target counts here and among `extraRows`. */
  readonly missingRows: number
  /** Rows that only the target has. */
  readonly extraRows: number
  /** Columns that only the source has; rows are compared without them. */
  readonly missingColumns: ReadonlyArray<string>
  /** Columns that only the target has; rows are compared without them. */
  readonly extraColumns: ReadonlyArray<string>
  /** The first differing rows as text. They hold the databases' values: they are for eyes, not for logs. */
  readonly examples: ReadonlyArray<{ readonly side: "source" | "target"; readonly row: string }>
}

export interface Comparison {
  readonly tables: ReadonlyArray<TableComparison>
  /** Rows in the source. */
  readonly rows: number
  /** Rows and columns that only one side has, over all tables. */
  readonly differences: number
}

interface Column {
  readonly name: string
  readonly isGenerated: boolean
}

interface Table {
  readonly schema: string
  readonly name: string
  readonly columns: ReadonlyArray<Column>
}

/** Of partitioned tables the partitions are compared. What is not logged is not replicated either. */
const catalog = `
  SELECT namespace.nspname, class.relname, attribute.attname, attribute.attgenerated <> ''
  FROM pg_class AS class
  JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
  LEFT JOIN pg_attribute AS attribute
    ON attribute.attrelid = class.oid AND attribute.attnum > 0 AND NOT attribute.attisdropped
  WHERE class.relkind = 'r' AND class.relpersistence = 'p'
    AND namespace.nspname NOT IN ('pg_catalog', 'information_schema')
  ORDER BY namespace.nspname, class.relname, attribute.attname
`

const tablesOf = (database: Database) =>
  Effect.map(database.query(catalog), (rows) => {
    const tables = new Map<string, Table & { readonly columns: Array<Column> }>()
    for (const [schema, name, column, isGenerated] of rows as ReadonlyArray<ReadonlyArray<string>>) {
      const key = JSON.stringify([schema, name])
      const table = tables.get(key) ?? { schema, name, columns: [] }
      tables.set(key, table)
      // A table may have no column at all.
      if (column !== null) table.columns.push({ name: column, isGenerated: isGenerated === "t" })
    }
    return tables
  })

const rowsPerFetch = 1000
const maxExamples = 3

/** The rows of a table, sorted, a part at a time. */
class Rows {
  private readonly database: Database
  private part: ReadonlyArray<string> = []
  private at = 0
  private isAtEnd: boolean

  constructor(database: Database, isEmpty: boolean) {
    this.database = database
    this.isAtEnd = isEmpty
  }

  get current(): string | undefined {
    return this.part[this.at]
  }

  advance(): void {
    this.at += 1
  }

  /** Nothing is in hand, and more may come. */
  get isHungry(): boolean {
    return this.at >= this.part.length && !this.isAtEnd
  }

  readonly fetch = Effect.suspend(() =>
    this.isHungry
      ? Effect.map(this.database.query(`FETCH ${rowsPerFetch} FROM compared`), (rows) => {
          this.part = rows.map(([row]) => row!)
          this.at = 0
          this.isAtEnd = rows.length < rowsPerFetch
        })
      : Effect.void
  )
}

/** `record_out` keeps NULL and the empty text apart, and bytes sort alike whatever the databases' collations are. */
const openRows = Effect.fnUntraced(function* (
  database: Database,
  { name, schema }: Table,
  columns: ReadonlyArray<string>
) {
  yield* database.query(`
    DECLARE compared NO SCROLL CURSOR FOR
    SELECT printed FROM (
      SELECT ROW(${columns.map((column) => `compared.${quote(column)}`).join(", ")})::text AS printed
      FROM ONLY ${qualified(schema, name)} AS compared
    ) AS rows
    ORDER BY convert_to(printed, 'UTF8')
  `)
  return new Rows(database, false)
})

const bytesOrder = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))

/** Goes through both sides until one of them has nothing in hand; synchronous, because it runs for every row. */
class Merge {
  rows = 0
  missingRows = 0
  extraRows = 0
  readonly examples: Array<TableComparison["examples"][number]> = []

  step(source: Rows, target: Rows): void {
    for (;;) {
      if (source.isHungry || target.isHungry) return
      const left = source.current
      const right = target.current
      if (left === undefined && right === undefined) return
      const order = left === right ? 0 : left === undefined ? 1 : right === undefined ? -1 : bytesOrder(left, right)
      if (order <= 0) {
        this.rows += 1
        source.advance()
      }
      if (order >= 0) target.advance()
      if (order < 0) {
        this.missingRows += 1
        this.note("source", left!)
      } else if (order > 0) {
        this.extraRows += 1
        this.note("target", right!)
      }
    }
  }

  private note(side: "source" | "target", row: string): void {
    if (this.examples.length < maxExamples) this.examples.push({ side, row })
  }
}

/** A table that the target lacks differs by its rows: of a table that never had any, nothing was ever sent. */
const compareTable = Effect.fnUntraced(function* (
  source: Database,
  target: Database,
  table: Table,
  copy: Table | undefined
) {
  const there = new Set(copy?.columns.map(({ name }) => name))
  const here = new Set(table.columns.map(({ name }) => name))
  // A generated column is not replicated unless the publication says so.
  const missing = table.columns.filter(({ isGenerated, name }) => !there.has(name) && !isGenerated)
  const columns = table.columns.filter(({ name }) => copy === undefined || there.has(name)).map(({ name }) => name)

  const [left, right] = yield* Effect.all(
    [
      openRows(source, table, columns),
      copy === undefined ? Effect.succeed(new Rows(target, true)) : openRows(target, copy, columns)
    ],
    { concurrency: 2 }
  )
  const merge = new Merge()
  while (left.isHungry || right.isHungry) {
    yield* Effect.all([left.fetch, right.fetch], { concurrency: 2, discard: true })
    merge.step(left, right)
  }
  yield* source.query("CLOSE compared")
  if (copy !== undefined) yield* target.query("CLOSE compared")

  const { examples, extraRows, missingRows, rows } = merge
  return {
    schema: table.schema,
    name: table.name,
    rows,
    missingRows,
    extraRows,
    missingColumns: copy === undefined ? [] : missing.map(({ name }) => name),
    extraColumns: (copy?.columns ?? []).map(({ name }) => name).filter((name) => !here.has(name)),
    examples
  } satisfies TableComparison
})

const snapshot = (
  url: Redacted.Redacted<string>
): Effect.Effect<Database, DatabaseError | PackageMissing, Scope.Scope> =>
  Effect.tap(connect(url), (database) =>
    database.query("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = ''")
  )

/**
 * Compares every table that the source has with its namesake in the target; what only the target has is left out. Each
 * side is read from one snapshot, so the databases should be at rest, or their tables compare as of slightly different
 * moments.
 */
export const compare = Effect.fn("Compare.compare")(function* (
  sourceUrl: Redacted.Redacted<string>,
  targetUrl: Redacted.Redacted<string>
) {
  const [source, target] = yield* Effect.all([snapshot(sourceUrl), snapshot(targetUrl)], { concurrency: 2 })
  const [wanted, found] = yield* Effect.all([tablesOf(source), tablesOf(target)], { concurrency: 2 })
  const tables = yield* Effect.forEach(wanted, ([key, table]) => compareTable(source, target, table, found.get(key)))
  return {
    tables,
    rows: tables.reduce((sum, { rows }) => sum + rows, 0),
    differences: tables.reduce(
      (sum, { extraColumns, extraRows, missingColumns, missingRows }) =>
        sum + missingRows + extraRows + missingColumns.length + extraColumns.length,
      0
    )
  } satisfies Comparison
}, Effect.scoped)
