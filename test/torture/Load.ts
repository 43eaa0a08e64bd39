/**
 * What the source does meanwhile: the demonstration's mixed workload in one session, and two sessions that move amounts
 * between tables so that the sum over all of them is zero after each transaction.
 *
 * Each transaction carries its number, so that a session whose source died in mid-commit knows whether to run it again.
 */
import { Deferred, Effect, Latch, type Redacted, type Scope } from "effect"
import * as Workload from "../../layers/demo/Workload.ts"
import { connect, type QueryError, type TestDatabase } from "../postgres.ts"

/** Created in the source and the oracle. The connector creates those of the target by itself. */
export const tables: ReadonlyArray<string> = [
  ...Workload.tables,
  `CREATE TABLE writer (name text PRIMARY KEY, done int8 NOT NULL)`,
  `CREATE TABLE ledger_left (id int4 PRIMARY KEY, balance int8 NOT NULL)`,
  `CREATE TABLE ledger_right (id int4 PRIMARY KEY, balance int8 NOT NULL, note text)`,
  `CREATE TABLE ledger_entry (writer text NOT NULL, amount int8 NOT NULL)`,
  `ALTER TABLE ledger_entry REPLICA IDENTITY FULL`,
  `CREATE TABLE journal (writer text, number int8, PRIMARY KEY (writer, number))`,
  `CREATE TABLE shape (id int8 PRIMARY KEY, a int4, b text)`
]

const accounts = 40

/** The first transaction of all. */
const seeding = [
  "BEGIN",
  `INSERT INTO writer SELECT name, 0 FROM unnest('{mixed,left,right}'::text[]) AS name`,
  `INSERT INTO ledger_left SELECT id, 0 FROM generate_series(1, ${accounts}) AS id`,
  `INSERT INTO ledger_right SELECT id, 0 FROM generate_series(1, ${accounts}) AS id`,
  "COMMIT"
].join(";\n")

/** What every committed state keeps: each column is zero. NULL where nothing was applied yet. */
export const invariant = `
  SELECT
    (SELECT sum(balance) FROM (
      SELECT balance FROM public.ledger_left UNION ALL SELECT balance FROM public.ledger_right
    ) AS balances) AS balance,
    (SELECT sum(amount) FROM public.ledger_entry) AS entries,
    (SELECT sum(done) FROM public.writer WHERE name <> 'mixed') - (SELECT count(*) FROM public.journal) AS journal
`

/** How far each session is, in any of the databases. */
export const progress = `SELECT string_agg(name || '=' || done, ' ' ORDER BY name) AS progress FROM public.writer`

/** Numbers that depend on nothing but their seed and place. */
class Dice {
  private state: number
  constructor(seed: number, name: string, number: number) {
    this.state = Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b) ^ name.charCodeAt(0)
    this.int(2)
  }
  int(limit: number): number {
    this.state = (this.state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.state ^ (this.state >>> 15), this.state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000) * limit)
  }
}

/** Many rows: the transaction is streamed in parts where groups are small. */
const bulk = 300

const transfer = (seed: number, writer: string, number: number): ReadonlyArray<string> => {
  const dice = new Dice(seed, writer, number)
  const amount = 1 + dice.int(1000)
  const [from, to] = [1 + dice.int(accounts), 1 + dice.int(accounts)]
  const across = [
    `UPDATE ledger_left SET balance = balance - ${amount} WHERE id = ${from}`,
    `UPDATE ledger_right SET balance = balance + ${amount}, note = 'from ${from}' WHERE id = ${to}`
  ]
  switch (dice.int(60)) {
    case 0:
      // Rows that are alike: without a key, only their number tells whether one was lost or doubled.
      return [
        `INSERT INTO ledger_entry SELECT '${writer}', CASE n % 2 WHEN 0 THEN ${amount} ELSE -${amount} END FROM generate_series(1, ${bulk}) AS n`
      ]
    case 1:
      return [`DELETE FROM ledger_entry WHERE writer = '${writer}'`]
    case 2:
      return [
        `UPDATE ledger_left SET balance = balance + ${amount} WHERE id <= ${from}`,
        `UPDATE ledger_right SET balance = balance - ${amount} WHERE id <= ${from}`
      ]
    case 3:
      return [...across, `SAVEPOINT here`, `UPDATE ledger_left SET balance = 0`, `ROLLBACK TO here`]
    default:
      return dice.int(3) === 0
        ? [`INSERT INTO ledger_entry VALUES ('${writer}', ${amount}), ('${writer}', -${amount})`]
        : across
  }
}

/** What becomes of a table in turn, and its names behind that. The column stands inside, where its change is clear. */
const shapes: ReadonlyArray<{ readonly change: string; readonly table: string; readonly column: string }> = [
  { change: "ALTER TABLE shape RENAME a TO renamed", table: "shape", column: "renamed" },
  { change: "ALTER TABLE shape ALTER renamed TYPE int8", table: "shape", column: "renamed" },
  { change: "ALTER TABLE shape RENAME TO moved", table: "moved", column: "renamed" },
  { change: "ALTER TABLE moved RENAME renamed TO a", table: "moved", column: "a" },
  { change: "ALTER TABLE moved ALTER a TYPE int4", table: "moved", column: "a" },
  { change: "ALTER TABLE moved RENAME TO shape", table: "shape", column: "a" }
]

/** The change comes first: the oracle, which is told of it, has the new shape for all of the transaction. */
const reshape = (turn: number): ReadonlyArray<string> => {
  const { change, column, table } = shapes[turn % shapes.length]!
  return [
    change,
    `INSERT INTO ${table} (id, ${column}, b) VALUES (${turn}, ${turn}, 'row ${turn}')`,
    `UPDATE ${table} SET ${column} = ${column} + 1 WHERE id < ${turn}`
  ]
}

/** Between two changes of the table's shape, in transactions. */
const betweenShapes = 25

export interface LoadOptions {
  readonly seed: number
  readonly source: Redacted.Redacted<string>
  /** Runs before a transaction that changes the schema, with its statements: the oracle does not learn of them. */
  beforeSchemaChange(statements: ReadonlyArray<string>, progress: string): Effect.Effect<void>
}

export interface Load {
  /** Stops after the transactions in hand. What is done then is final until `resume`. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** A session cannot go on, which no fault explains. */
  readonly broken: Effect.Effect<never>
  /** Committed so far. */
  readonly transactions: Effect.Effect<number>
}

/** A source that is away, and what two sessions do to each other; anything else is a mistake in this file. */
const isPassing = ({ sqlState }: QueryError): boolean =>
  sqlState === undefined || /^(?:08|40|57|E[A-Z]+$)/.test(sqlState)

const isSchemaChange = (statement: string): boolean => /^\s*ALTER TABLE/.test(statement)

/** How far a session is, however long the source is away. */
const done = (database: TestDatabase, writer: string) =>
  database.query(`SELECT done FROM writer WHERE name = '${writer}'`).pipe(
    Effect.map(([row]) => Number(row?.["done"])),
    Effect.tapError(() => Effect.sleep("100 millis")),
    Effect.eventually
  )

/** Commits the transaction exactly once. */
const commit = Effect.fnUntraced(function* (
  database: TestDatabase,
  writer: string,
  number: number,
  statements: ReadonlyArray<string>
) {
  const text = [
    "BEGIN",
    ...statements,
    `UPDATE writer SET done = ${number} WHERE name = '${writer}'`,
    ...(writer === "mixed" ? [] : [`INSERT INTO journal VALUES ('${writer}', ${number})`]),
    "COMMIT"
  ].join(";\n")
  while ((yield* done(database, writer)) < number) {
    yield* database.query(text).pipe(
      Effect.catchIf(isPassing, () =>
        // An error within the text leaves the session in a failed transaction.
        Effect.ignore(database.query("ROLLBACK"))
      ),
      Effect.orDie
    )
  }
})

/** Runs until the scope closes; starts paused. The source's tables must be there. */
export const make = Effect.fn("Load.make")(function* ({
  beforeSchemaChange,
  seed,
  source
}: LoadOptions): Effect.fn.Return<Load, QueryError, Scope.Scope> {
  const gate = Latch.makeUnsafe()
  const broken = Deferred.makeUnsafe<never>()
  let busy = 0
  let transactions = 0

  const first = yield* connect("source", source)
  yield* first.query(seeding)

  const session = Effect.fnUntraced(
    function* (writer: string, statementsOf: (number: number) => ReadonlyArray<string>, millis: number) {
      const database = yield* connect(writer, source)
      const dice = new Dice(seed, writer, -1)
      for (let number = 1; ; number++) {
        yield* gate.await
        busy += 1
        const statements = statementsOf(number)
        const schemaChanges = statements.filter(isSchemaChange)
        if (schemaChanges.length > 0) {
          yield* beforeSchemaChange(schemaChanges, `${writer}=${number - 1}`)
        }
        yield* commit(database, writer, number, statements)
        transactions += 1
        busy -= 1
        yield* Effect.sleep(dice.int(2 * millis))
      }
    },
    Effect.tapCause((cause) => Deferred.failCause(broken, cause))
  )

  const mixed = Workload.transactions(seed)
  yield* Effect.forkScoped(session("mixed", () => mixed.next().value.statements, 40))
  const left = (number: number) =>
    number % betweenShapes === 0 ? reshape(number / betweenShapes - 1) : transfer(seed, "left", number)
  yield* Effect.forkScoped(session("left", left, 40))
  yield* Effect.forkScoped(session("right", (number) => transfer(seed, "right", number), 40))

  return {
    pause: Effect.suspend(() => {
      gate.closeUnsafe()
      return Effect.sleep("10 millis").pipe(Effect.repeat({ until: () => busy === 0 }), Effect.asVoid)
    }),
    resume: Effect.sync(() => void gate.openUnsafe()),
    broken: Deferred.await(broken),
    transactions: Effect.sync(() => transactions)
  }
})
