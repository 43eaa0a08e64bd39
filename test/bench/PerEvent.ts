/**
 * How the original connector applies, as a yardstick: each change is one text of two statements, its own and that of
 * the position, which the server commits at once. Nothing is prepared, and the next change waits for the answer.
 */
import { Effect, Redacted } from "effect"
import { Client } from "pg"
import { qualified, quote } from "../../src/target/Identifier.ts"
import { BenchmarkFailed, now, secondsBetween } from "./Lab.ts"

type Cell = string | Readonly<Record<string, string | number | boolean | ReadonlyArray<number>>>

interface Relation {
  readonly rel_id: number
  readonly namespace: string
  readonly name: string
  readonly columns: ReadonlyArray<{ readonly name: string; readonly flags: number }>
}

type Message =
  | (Relation & { readonly type: "relation" })
  | { readonly type: "insert"; readonly rel_id: number; readonly tuple: ReadonlyArray<Cell> }
  | {
      readonly type: "update"
      readonly rel_id: number
      readonly key_tuple: ReadonlyArray<Cell> | null
      readonly new_tuple: ReadonlyArray<Cell>
    }
  | { readonly type: "delete"; readonly rel_id: number; readonly key_tuple: ReadonlyArray<Cell> }
  | { readonly type: "begin" | "commit" }

const literal = (cell: Cell): string => {
  if (typeof cell === "string") return "NULL"
  const [value] = Object.values(cell)
  if (typeof value === "number" || typeof value === "boolean") return String(value)
  return `'${(typeof value === "string" ? value : Buffer.from(value).toString()).replaceAll("'", "''")}'`
}

const pairs = ({ columns }: Relation, tuple: ReadonlyArray<Cell>, isKey: boolean): ReadonlyArray<string> =>
  columns.flatMap(({ flags, name }, i) => (isKey && flags !== 1 ? [] : [`${quote(name)} = ${literal(tuple[i])}`]))

const statementOf = (
  relation: Relation,
  message: Exclude<Message, Relation | { type: "begin" | "commit" }>
): string => {
  const table = qualified(relation.namespace, relation.name)
  switch (message.type) {
    case "insert":
      return `INSERT INTO ${table} (${relation.columns.map(({ name }) => quote(name)).join(", ")}) VALUES (${message.tuple.map(literal).join(", ")})`
    case "update":
      return `UPDATE ${table} SET ${pairs(relation, message.new_tuple, false).join(", ")} WHERE ${pairs(relation, message.key_tuple ?? message.new_tuple, true).join(" AND ")}`
    case "delete":
      return `DELETE FROM ${table} WHERE ${pairs(relation, message.key_tuple, true).join(" AND ")}`
  }
}

/** Applies the records of whole JSON events to an empty `fluvio.offset`, and gives changes and seconds. */
export const drain = Effect.fn("PerEvent.drain")(function* (
  url: Redacted.Redacted<string>,
  records: ReadonlyArray<Uint8Array>
) {
  const client = yield* Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Client({ connectionString: Redacted.value(url) })
      await client.connect()
      await client.query("CREATE SCHEMA fluvio")
      await client.query("CREATE TABLE fluvio.offset (id int PRIMARY KEY, current_offset bigint NOT NULL)")
      await client.query("INSERT INTO fluvio.offset VALUES (1, 0)")
      return client
    }),
    (client) => Effect.promise(() => client.end())
  )
  const applyAll = async () => {
    const relations = new Map<number, Relation>()
    let changes = 0
    for (const [offset, value] of records.entries()) {
      const { message } = JSON.parse(Buffer.from(value).toString()) as { readonly message: Message }
      if (message.type === "relation") relations.set(message.rel_id, message)
      if (message.type !== "insert" && message.type !== "update" && message.type !== "delete") continue
      const relation = relations.get(message.rel_id)
      if (relation === undefined) throw new Error(`offset ${offset}: no relation ${message.rel_id}`)
      const text = `${statementOf(relation, message)}; UPDATE fluvio.offset SET current_offset = ${offset} WHERE id = 1`
      const results = (await client.query(text)) as unknown as ReadonlyArray<{ readonly rowCount: number }>
      if (results[0].rowCount !== 1) throw new Error(`offset ${offset}: ${results[0].rowCount} rows instead of 1`)
      changes++
    }
    return changes
  }
  const started = now()
  const changes = yield* Effect.tryPromise({
    try: applyAll,
    catch: (cause) => new BenchmarkFailed({ what: "one statement and commit per event", reason: String(cause) })
  })
  return { changes, seconds: secondsBetween(started, now()) }
})
