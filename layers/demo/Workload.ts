/**
 * A mixed workload for a source database: an endless sequence of transactions that only its seed decides, so that a
 * test that failed can be run again.
 *
 * It holds what makes replication hard: composite keys, FULL identity without a key over duplicate rows, an identity by
 * index, quoted names in a schema of their own, wide types with NULLs and out-of-line values that updates do not touch,
 * key changes and exchanges, keys that are deleted and used again, savepoints rolled back, transactions of one row and of
 * a thousand, TRUNCATE, and columns added, renamed and dropped in mid-stream.
 */

/** One transaction of the source. */
export interface Transaction {
  readonly statements: ReadonlyArray<string>
  /** How many inserts, updates, deletes and truncates it publishes. */
  readonly changes: number
}

/** Runs it in one round trip, by the simple protocol. */
export const textOf = ({ statements }: Transaction): string => ["BEGIN", ...statements, "COMMIT"].join(";\n")

/** User-defined types: the stream does not carry them, so they are created in the source *and* in the target. */
export const types: ReadonlyArray<string> = [`CREATE TYPE mood AS ENUM ('calm', 'merry', 'it''s complicated')`]

/** Created in the source, before `transactions`. */
export const tables: ReadonlyArray<string> = [
  `CREATE TABLE customer (
    id int8 PRIMARY KEY, name text NOT NULL, contact varchar(80), balance numeric(14,2), is_active bool,
    score float8, changed_at timestamptz, extra_0 text
  )`,
  `CREATE TABLE order_line (
    order_id int4, line int2, sku text NOT NULL, quantity int4 NOT NULL, price numeric(10,2),
    PRIMARY KEY (order_id, line)
  )`,
  `CREATE TABLE visit (page text, visitor int4, seconds float4, note text)`,
  `ALTER TABLE visit REPLICA IDENTITY FULL`,
  `CREATE SCHEMA "Sales Desk"`,
  `CREATE TABLE "Sales Desk"."Order" ("Id" uuid PRIMARY KEY, "select" text, "User Name" text, "table" int4, "from" date)`,
  `CREATE TABLE specimen (
    id int4 PRIMARY KEY, amount numeric, price numeric(12,4), at timestamptz, local timestamp(3), day date, clock time,
    span interval, key uuid, plain json, doc jsonb, bytes bytea, numbers int8[], words text[], feeling mood,
    address inet, small int2, big int8, single float4, double float8, code char(4), short varchar(12),
    period tstzrange, flags bit(4), place point
  )`,
  `CREATE TABLE document (id int4 PRIMARY KEY, title text, revision int4 NOT NULL, body text)`,
  // Hexadecimal digits would be compressed and might then fit into the row.
  `ALTER TABLE document ALTER body SET STORAGE EXTERNAL`,
  `CREATE TABLE staging (id int4 PRIMARY KEY, payload jsonb)`,
  `CREATE TABLE voucher (code text NOT NULL, amount numeric(8,2), note text)`,
  `CREATE UNIQUE INDEX voucher_code ON voucher (code)`,
  `ALTER TABLE voucher REPLICA IDENTITY USING INDEX voucher_code`
]

/** A statement and how many changes it publishes. */
interface Step {
  readonly statement: string
  readonly changes: number
}

const step = (statement: string, changes = 1): Step => ({ statement, changes })

const transaction = (...steps: ReadonlyArray<Step>): Transaction => ({
  statements: steps.map(({ statement }) => statement),
  changes: steps.reduce((sum, { changes }) => sum + changes, 0)
})

/** Mulberry32: small, fast and good enough to shuffle with. */
class Random {
  private state: number

  constructor(seed: number) {
    this.state = seed >>> 0
  }

  /** From 0 to below `limit`. */
  int(limit: number): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let mixed = this.state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000) * limit)
  }

  chance(oneIn: number): boolean {
    return this.int(oneIn) === 0
  }

  pick<A>(items: ReadonlyArray<A>): A {
    return items[this.int(items.length)]
  }

  hex(digits: number): string {
    return Array.from({ length: digits }, () => this.int(16).toString(16)).join("")
  }

  /** The SQL of a value, or NULL. */
  or(value: string): string {
    return this.chance(6) ? "NULL" : value
  }

  word(): string {
    return literal(this.pick(words))
  }

  money(): string {
    return `${this.int(1_000_000) - 200_000}.${this.int(90) + 10}`
  }

  instant(): string {
    return `timestamptz '2026-01-01 00:00+00' + interval '${this.int(31_536_000)}.${this.int(1_000_000)} s'`
  }
}

const words = [
  "",
  "plain",
  "O'Hara",
  "back\\slash",
  "two\nlines",
  'a "quoted" word',
  "NULL",
  "Grüße 🙂",
  "{a,b}",
  "tab\t."
]

const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`

/** The keys that a table holds, so that every update and delete finds its row. */
class Keys<A = number> {
  private readonly random: Random
  private readonly keys: Array<A> = []

  constructor(random: Random) {
    this.random = random
  }

  get size(): number {
    return this.keys.length
  }

  add(...keys: ReadonlyArray<A>): void {
    this.keys.push(...keys)
  }

  any(): A {
    return this.random.pick(this.keys)
  }

  /** A key that the table holds no longer. */
  take(): A {
    const place = this.random.int(this.keys.length)
    const key = this.keys[place]
    this.keys[place] = this.keys[this.keys.length - 1]
    this.keys.pop()
    return key
  }

  clear(): void {
    this.keys.length = 0
  }
}

/** Every statement of a thousand changes has as many. */
const many = 1000

/** Keyed, of which a column is added, another renamed and a third dropped in every round. */
class Customers {
  private readonly random: Random
  private readonly ids: Keys
  private lastId = 0
  /** A rename of the last column could also be a replacement, which the stream does not tell; this one stands inside. */
  private contact = "contact"

  constructor(random: Random) {
    this.random = random
    this.ids = new Keys(random)
  }

  insert(): Step {
    const { random } = this
    const id = ++this.lastId
    this.ids.add(id)
    const score = `${random.int(1_000_000)}e-${random.int(300)}`
    return step(`
      INSERT INTO customer (id, name, ${this.contact}, balance, is_active, score, changed_at)
      VALUES (${id}, ${random.word()}, ${random.or(random.word())}, ${random.or(random.money())}, ${random.or("true")},
        ${random.or(score)}, ${random.instant()})
    `)
  }

  insertMany(): Step {
    const from = this.lastId + 1
    this.lastId += many
    for (let id = from; id <= this.lastId; id++) this.ids.add(id)
    return step(
      `
      INSERT INTO customer (id, name, ${this.contact}, balance, is_active, score, changed_at)
      SELECT id, 'Customer ' || id, nullif(id % 7, 0) || '@example.org', id * 1.01, id % 3 = 0, sqrt(id::float8),
        timestamptz '2026-01-01 00:00+00' + id * interval '1 minute'
      FROM generate_series(${from}, ${this.lastId}) AS id
    `,
      many
    )
  }

  private updateWith(assignments: string): Step {
    if (this.ids.size === 0) return this.insert()
    return step(`UPDATE customer SET ${assignments} WHERE id = ${this.ids.any()}`)
  }

  update(): Step {
    const { random } = this
    return this.updateWith(
      random.pick([
        `balance = balance + ${random.money()}`,
        `is_active = NOT is_active, changed_at = ${random.instant()}`,
        `${this.contact} = ${random.or(random.word())}`,
        `name = ${random.word()}, score = NULL`
      ])
    )
  }

  changeKey(): Step {
    if (this.ids.size === 0) return this.insert()
    const from = this.ids.take()
    const to = ++this.lastId
    this.ids.add(to)
    return step(`UPDATE customer SET id = ${to}, changed_at = ${this.random.instant()} WHERE id = ${from}`)
  }

  delete(): Step {
    if (this.ids.size === 0) return this.insert()
    return step(`DELETE FROM customer WHERE id = ${this.ids.take()}`)
  }

  /**
   * The new column is written in the transaction that adds it, as a migration would. Its type is not that of the column
   * before, so that the stream tells which of the two is dropped later.
   */
  addColumn(round: number): Transaction {
    return transaction(
      step(`ALTER TABLE customer ADD COLUMN extra_${round} ${round % 2 === 0 ? "text" : "varchar(40)"}`, 0),
      this.insert(),
      this.updateWith(`extra_${round} = ${this.random.word()}`)
    )
  }

  fillColumn(round: number): Transaction {
    return transaction(...Array.from({ length: 5 }, () => this.updateWith(`extra_${round} = ${this.random.word()}`)))
  }

  renameColumn(): Transaction {
    const from = this.contact
    this.contact = from === "contact" ? `"Reached at"` : "contact"
    return transaction(step(`ALTER TABLE customer RENAME COLUMN ${from} TO ${this.contact}`, 0), this.update())
  }

  dropColumn(round: number): Transaction {
    return transaction(step(`ALTER TABLE customer DROP COLUMN extra_${round - 1}`, 0), this.insert())
  }
}

interface Line {
  readonly order: number
  readonly line: number
}

/** Keyed by two columns. */
class OrderLines {
  private static readonly perOrder = 10
  private readonly random: Random
  private readonly keys: Keys<Line>
  private lastOrder = 0

  constructor(random: Random) {
    this.random = random
    this.keys = new Keys(random)
  }

  /** A thousand lines, and then each of them again. */
  fill(): ReadonlyArray<Transaction> {
    const from = this.lastOrder + 1
    this.lastOrder += many / OrderLines.perOrder
    for (let order = from; order <= this.lastOrder; order++) {
      for (let line = 1; line <= OrderLines.perOrder; line++) this.keys.add({ order, line })
    }
    return [
      transaction(
        step(
          `
          INSERT INTO order_line
          SELECT order_id, line, 'SKU-' || order_id % 97, line, nullif(order_id % 11, 0) * 9.99
          FROM generate_series(${from}, ${this.lastOrder}) AS order_id, generate_series(1, ${OrderLines.perOrder}) AS line
        `,
          many
        )
      ),
      transaction(
        step(`UPDATE order_line SET quantity = quantity * 2, price = price + 0.01 WHERE order_id >= ${from}`, many)
      )
    ]
  }

  private insert(): Step {
    const key = { order: ++this.lastOrder, line: 1 }
    this.keys.add(key)
    return step(`INSERT INTO order_line VALUES (${key.order}, ${key.line}, ${this.random.word()}, 1, NULL)`)
  }

  private where({ line, order }: Line): string {
    return `WHERE order_id = ${order} AND line = ${line}`
  }

  update(): Step {
    if (this.keys.size === 0) return this.insert()
    const price = this.random.or(this.random.money())
    return step(`UPDATE order_line SET quantity = quantity + 1, price = ${price} ${this.where(this.keys.any())}`)
  }

  /** One of the two columns changes. */
  changeKey(): Step {
    if (this.keys.size === 0) return this.insert()
    const from = this.keys.take()
    const to = { ...from, order: ++this.lastOrder }
    this.keys.add(to)
    return step(`UPDATE order_line SET order_id = ${to.order} ${this.where(from)}`)
  }

  delete(): Step {
    if (this.keys.size === 0) return this.insert()
    return step(`DELETE FROM order_line ${this.where(this.keys.take())}`)
  }
}

interface Visit {
  readonly page: string
  readonly visitor: number
}

/** Without a key, identified by the whole row, with rows alike. */
class Visits {
  private readonly random: Random
  private readonly visits: Keys<Visit>

  constructor(random: Random) {
    this.random = random
    this.visits = new Keys(random)
  }

  /** One to three rows alike. */
  insert(): Step {
    const { random } = this
    const visit = { page: random.pick(["/", "/it's", "/news"]), visitor: random.int(50) }
    const seconds = random.or(`${random.int(20)}.25`)
    const row = `(${literal(visit.page)}, ${visit.visitor}, ${seconds}, ${random.or(random.word())})`
    const rows = Array.from({ length: 1 + random.int(3) }, () => row)
    for (const _ of rows) this.visits.add(visit)
    return step(`INSERT INTO visit VALUES ${rows.join(", ")}`, rows.length)
  }

  /** One row of those alike. Which of them is left to chance, but what it holds is not. */
  private one({ page, visitor }: Visit): string {
    const alike = `page = ${literal(page)} AND visitor = ${visitor}`
    return `WHERE ctid = (SELECT ctid FROM visit WHERE ${alike} ORDER BY visit LIMIT 1)`
  }

  update(): Step {
    if (this.visits.size === 0) return this.insert()
    return step(`UPDATE visit SET seconds = seconds + 1 ${this.one(this.visits.any())}`)
  }

  delete(): Step {
    if (this.visits.size === 0) return this.insert()
    return step(`DELETE FROM visit ${this.one(this.visits.take())}`)
  }
}

/** Names that must be quoted, in a schema that must be created. */
class Orders {
  private static readonly table = `"Sales Desk"."Order"`
  private readonly random: Random
  private readonly ids: Keys<string>

  constructor(random: Random) {
    this.random = random
    this.ids = new Keys(random)
  }

  insert(): Step {
    const { random } = this
    const id = random.hex(32)
    this.ids.add(id)
    const day = `date '2026-01-01' + ${random.int(365)}`
    return step(
      `INSERT INTO ${Orders.table} VALUES ('${id}', ${random.word()}, ${random.or(random.word())}, ${random.int(100)}, ${day})`
    )
  }

  update(): Step {
    if (this.ids.size === 0) return this.insert()
    const text = this.random.or(this.random.word())
    return step(`UPDATE ${Orders.table} SET "select" = ${text}, "table" = "table" + 1 WHERE "Id" = '${this.ids.any()}'`)
  }

  delete(): Step {
    if (this.ids.size === 0) return this.insert()
    return step(`DELETE FROM ${Orders.table} WHERE "Id" = '${this.ids.take()}'`)
  }

  /** What is rolled back to a savepoint is never published. */
  rollBack(): Transaction {
    return transaction(
      this.insert(),
      step(`SAVEPOINT attempt`, 0),
      step(`DELETE FROM ${Orders.table}`, 0),
      step(`ROLLBACK TO attempt`, 0),
      this.update()
    )
  }
}

/** Most of PostgreSQL's types, each with its odd values. */
class Specimens {
  private readonly random: Random
  private readonly ids: Keys
  private lastId = 0

  constructor(random: Random) {
    this.random = random
    this.ids = new Keys(random)
  }

  private values(): ReadonlyArray<readonly [column: string, value: string]> {
    const { random } = this
    const choices: ReadonlyArray<readonly [column: string, ...values: ReadonlyArray<string>]> = [
      ["amount", `${random.int(1e9)}${random.int(1e9)}${random.int(1e9)}.${random.int(1e9)}`, "'NaN'", "-0.000"],
      ["price", random.money()],
      ["at", random.instant(), "'infinity'", "'0044-03-15 12:00 BC'"],
      ["local", "'2026-02-28 23:59:59.999'"],
      ["day", "'2024-02-29'", "'-infinity'"],
      ["clock", "'24:00'", "'12:34:56.789012'"],
      ["span", "'-1 year 2 mons -3 days 04:05:06.789'"],
      ["key", `'${random.hex(32)}'`],
      ["plain", `'{"a": 1.0, "b" :[null]}'`],
      ["doc", `jsonb_build_object('n', ${random.int(1e9)}, 'text', ${random.word()})`],
      ["bytes", `'\\x${random.hex(2 * random.int(20))}'`],
      ["numbers", "'{9223372036854775807,NULL,-1}'", "'{}'", "'[0:1]={1,2}'", "'{{1,2},{3,4}}'"],
      ["words", `ARRAY[${random.word()}, NULL, 'NULL', ${random.word()}]`],
      ["feeling", "'calm'", "'merry'", "'it''s complicated'"],
      ["address", "'192.168.0.1/24'", "'::1'"],
      ["small", `${random.int(65_536) - 32_768}`],
      ["big", "9223372036854775807", "9007199254740993", `${random.int(1e9)}`],
      ["single", "0.1", "3.4028235e38", "'-0'", "'NaN'", "'Infinity'"],
      ["double", "0.1", "1e308", "5e-324", "'-0'", "'-Infinity'"],
      ["code", "'ab'", "''"],
      ["short", literal("O'Hara 🙂")],
      ["period", "'[2026-01-01 00:00+00,infinity)'", "'empty'"],
      ["flags", "B'1010'"],
      ["place", "'(1.5,-2)'"]
    ]
    return choices.map(([column, ...values]) => [column, random.or(random.pick(values))])
  }

  insert(): Step {
    const id = ++this.lastId
    this.ids.add(id)
    const values = this.values()
    const columns = values.map(([column]) => column).join(", ")
    return step(`INSERT INTO specimen (id, ${columns}) VALUES (${id}, ${values.map(([, value]) => value).join(", ")})`)
  }

  update(): Step {
    if (this.ids.size === 0) return this.insert()
    const some = this.values().filter(() => this.random.chance(8))
    const set = some.length === 0 ? ["small = NULL"] : some.map(([column, value]) => `${column} = ${value}`)
    return step(`UPDATE specimen SET ${set.join(", ")} WHERE id = ${this.ids.any()}`)
  }

  /** Two rows exchange their keys, by way of one that exists only inside the transaction. */
  exchangeKeys(): Transaction {
    const inserted: Array<Step> = []
    while (this.ids.size < 2) inserted.push(this.insert())
    const a = this.ids.take()
    const b = this.ids.take()
    this.ids.add(a, b)
    return transaction(
      ...inserted,
      step(`UPDATE specimen SET id = -1 WHERE id = ${a}`),
      step(`UPDATE specimen SET id = ${a} WHERE id = ${b}`),
      step(`UPDATE specimen SET id = ${b} WHERE id = -1`)
    )
  }

  /** A key is deleted and used again, by a row with other values. */
  replace(): Transaction {
    if (this.ids.size === 0) return transaction(this.insert())
    const id = this.ids.any()
    return transaction(
      step(`DELETE FROM specimen WHERE id = ${id}`),
      step(`INSERT INTO specimen (id, feeling) VALUES (${id}, 'merry')`),
      step(`UPDATE specimen SET amount = 1.50 WHERE id = ${id}`)
    )
  }
}

/** With a text too long for its row: an update that leaves it alone does not carry it. */
class Documents {
  private readonly random: Random
  private readonly ids: Keys
  private lastId = 0

  constructor(random: Random) {
    this.random = random
    this.ids = new Keys(random)
  }

  private body(): string {
    const salt = this.random.hex(8)
    return `(SELECT string_agg(md5('${salt}' || n), '') FROM generate_series(1, ${100 + this.random.int(100)}) AS n)`
  }

  insert(): Step {
    const id = ++this.lastId
    this.ids.add(id)
    return step(`INSERT INTO document VALUES (${id}, ${this.random.word()}, 1, ${this.body()})`)
  }

  /** Mostly without the text; at times with a new text, and at times with a new key. */
  update(): Step {
    if (this.ids.size === 0) return this.insert()
    const { random } = this
    const from = this.ids.take()
    const to = random.chance(5) ? ++this.lastId : from
    this.ids.add(to)
    const body = random.chance(5) ? `, body = ${this.body()}` : ""
    return step(
      `UPDATE document SET id = ${to}, revision = revision + 1, title = ${random.word()}${body} WHERE id = ${from}`
    )
  }
}

/** Filled and emptied as a whole. */
class Staging {
  private lastId = 0
  private size = 0

  insertMany(): Step {
    const from = this.lastId + 1
    this.lastId += many
    this.size += many
    return step(
      `INSERT INTO staging SELECT id, jsonb_build_object('id', id) FROM generate_series(${from}, ${this.lastId}) AS id`,
      many
    )
  }

  deleteAll(): Step {
    const { size } = this
    this.size = 0
    return step(`DELETE FROM staging`, size)
  }

  truncate(): Step {
    this.size = 0
    return step(`TRUNCATE staging`)
  }

  truncateWith(vouchers: Vouchers): Step {
    this.size = 0
    vouchers.forget()
    return step(`TRUNCATE staging, voucher RESTART IDENTITY`)
  }
}

/** Identified by a unique index instead of a primary key. */
class Vouchers {
  private readonly random: Random
  private readonly codes: Keys<string>
  private last = 0

  constructor(random: Random) {
    this.random = random
    this.codes = new Keys(random)
  }

  insert(): Step {
    const code = `V'${++this.last}`
    this.codes.add(code)
    const { random } = this
    return step(`INSERT INTO voucher VALUES (${literal(code)}, ${random.or("12.50")}, ${random.or(random.word())})`)
  }

  update(): Step {
    if (this.codes.size === 0) return this.insert()
    const note = this.random.or(this.random.word())
    return step(`UPDATE voucher SET note = ${note} WHERE code = ${literal(this.codes.any())}`)
  }

  forget(): void {
    this.codes.clear()
  }
}

const betweenScenes = 40

/**
 * The transactions, without end. They come in rounds: each shows every scene once, with small transactions at random in
 * between. Statements depend on those before, so they must be run in order, from the first one on, without a gap.
 *
 * Gotcha: a round adds a column and drops one, and PostgreSQL never uses a column's number again: after some 1 500
 * rounds the table takes no more.
 */
export function* transactions(seed: number): Generator<Transaction, never, void> {
  const random = new Random(seed)
  const customers = new Customers(random)
  const lines = new OrderLines(random)
  const visits = new Visits(random)
  const orders = new Orders(random)
  const specimens = new Specimens(random)
  const documents = new Documents(random)
  const staging = new Staging()
  const vouchers = new Vouchers(random)

  const steps: ReadonlyArray<() => Step> = [
    () => customers.insert(),
    () => customers.update(),
    () => customers.update(),
    () => customers.changeKey(),
    () => customers.delete(),
    () => lines.update(),
    () => lines.changeKey(),
    () => lines.delete(),
    () => visits.insert(),
    () => visits.update(),
    () => visits.delete(),
    () => orders.insert(),
    () => orders.insert(),
    () => orders.update(),
    () => orders.delete(),
    () => specimens.insert(),
    () => specimens.update(),
    () => documents.insert(),
    () => documents.update(),
    () => documents.update(),
    () => vouchers.insert(),
    () => vouchers.update()
  ]
  /** One change, mostly; at times several, over several tables. */
  const small = (): Transaction => {
    const length = random.chance(4) ? 2 + random.int(5) : 1
    return transaction(...Array.from({ length }, () => random.pick(steps)()))
  }

  for (let round = 1; ; round++) {
    const scenes: ReadonlyArray<() => ReadonlyArray<Transaction>> = [
      () => [transaction(customers.insertMany())],
      () => lines.fill(),
      () => [customers.addColumn(round)],
      () => [specimens.exchangeKeys()],
      () => [transaction(round % 2 === 0 ? staging.deleteAll() : staging.truncate())],
      () => [customers.fillColumn(round)],
      () => [customers.renameColumn()],
      () => [specimens.replace()],
      // Filled, emptied and filled again: the order within the transaction decides.
      () => [transaction(staging.insertMany(), vouchers.insert(), staging.truncateWith(vouchers), vouchers.insert())],
      () => [orders.rollBack()],
      () => [customers.dropColumn(round)],
      () => [transaction(staging.insertMany())]
    ]
    for (const scene of scenes) {
      yield* scene()
      for (let count = 0; count < betweenScenes; count++) yield small()
    }
  }
}

/** How many transactions are a round: as many show everything that the workload has. */
export const transactionsPerRound = 13 + 12 * betweenScenes

/** The first `count` of them. */
export const take = (seed: number, count: number): ReadonlyArray<Transaction> => {
  const taken: Array<Transaction> = []
  const all = transactions(seed)
  while (taken.length < count) taken.push(all.next().value)
  return taken
}
