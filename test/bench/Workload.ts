/**
 * The work whose backlog is drained: tables, their rows before the work, and a procedure that does it on the source.
 *
 * Everything is deterministic, so that running `setUp` on two servers gives equal copies.
 */

export interface Workload {
  readonly name: "tpcb" | "insert" | "update_delete"
  readonly title: string
  readonly tables: ReadonlyArray<string>
  readonly setUp: ReadonlyArray<string>
  /** Creates the procedure `bench_work`, which commits each of its transactions. */
  readonly procedure: string
  /** Rows inserted, updated or deleted by the work. */
  readonly changes: number
}

/** A loop of transactions; `body` may use the variables declared in `declare` and the loop's `n`. */
const procedure = (transactions: number, declare: string, before: string, body: string): string => `
  CREATE PROCEDURE bench_work() LANGUAGE plpgsql AS $work$
  DECLARE ${declare}
  BEGIN
    PERFORM setseed(0.5);
    ${before}
    FOR n IN 1..${transactions} LOOP
      ${body}
      COMMIT;
    END LOOP;
  END
  $work$`

const accountsPerBranch = 100_000
const tellersPerBranch = 10

/**
 * pgbench's default script on pgbench's tables, fillers and all: three updates and an insert a transaction. As there,
 * the history has no primary key.
 */
export const tpcb = (scale: number, transactions: number): Workload => ({
  name: "tpcb",
  title: `TPC-B as in pgbench, scale ${scale}`,
  tables: ["pgbench_branches", "pgbench_tellers", "pgbench_accounts", "pgbench_history"],
  setUp: [
    "CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88))",
    "CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84))",
    "CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84))",
    "CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22))",
    `INSERT INTO pgbench_branches (bid, bbalance) SELECT n, 0 FROM generate_series(1, ${scale}) AS n`,
    `INSERT INTO pgbench_tellers (tid, bid, tbalance)
     SELECT n, (n - 1) / ${tellersPerBranch} + 1, 0 FROM generate_series(1, ${scale * tellersPerBranch}) AS n`,
    `INSERT INTO pgbench_accounts (aid, bid, abalance, filler)
     SELECT n, (n - 1) / ${accountsPerBranch} + 1, 0, '' FROM generate_series(1, ${scale * accountsPerBranch}) AS n`
  ],
  procedure: procedure(
    transactions,
    "account int; teller int; branch int; change int;",
    "",
    `account := 1 + floor(random() * ${scale * accountsPerBranch});
     teller := 1 + floor(random() * ${scale * tellersPerBranch});
     branch := 1 + floor(random() * ${scale});
     change := floor(random() * 10001) - 5000;
     UPDATE pgbench_accounts SET abalance = abalance + change WHERE aid = account;
     PERFORM abalance FROM pgbench_accounts WHERE aid = account;
     UPDATE pgbench_tellers SET tbalance = tbalance + change WHERE tid = teller;
     UPDATE pgbench_branches SET bbalance = bbalance + change WHERE bid = branch;
     INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)
     VALUES (teller, branch, account, change, CURRENT_TIMESTAMP);`
  ),
  changes: 4 * transactions
})

const rowsPerTransaction = 10

/** Rows of six columns of common types. */
export const inserts = (transactions: number): Workload => ({
  name: "insert",
  title: `inserts, 6 columns, ${rowsPerTransaction} rows a transaction`,
  tables: ["bench_orders"],
  setUp: [
    "CREATE TABLE bench_orders (id int PRIMARY KEY, customer int, status text, note text, placed_at timestamptz, amount numeric(12,2))"
  ],
  procedure: procedure(
    transactions,
    "",
    "",
    `INSERT INTO bench_orders
     SELECT id, id % 9973, 'status ' || id % 7, 'a somewhat longer note, number ' || id,
       timestamptz '2026-01-01' + id * interval '1 second', id % 99991 * 0.01
     FROM generate_series((n - 1) * ${rowsPerTransaction} + 1, n * ${rowsPerTransaction}) AS id;`
  ),
  changes: rowsPerTransaction * transactions
})

/**
 * Updates of rows at random and deletes of others, by a uuid that says nothing about where its row is. Seven of ten
 * changes are updates.
 */
export const updatesAndDeletes = (rows: number, transactions: number): Workload => ({
  name: "update_delete",
  title: `updates and deletes by a random uuid, 7 and 3 a transaction, ${rows.toLocaleString("en")} rows before`,
  tables: ["bench_items"],
  setUp: [
    "CREATE TABLE bench_items (id uuid PRIMARY KEY, owner int, name text, description text, changed_at timestamptz, price numeric(12,2))",
    `INSERT INTO bench_items
     SELECT md5(n::text)::uuid, n % 9973, 'item ' || n, 'a somewhat longer description, number ' || n,
       timestamptz '2026-01-01' + n * interval '1 second', n % 99991 * 0.01
     FROM generate_series(1, ${rows}) AS n`
  ],
  procedure: procedure(
    transactions,
    "ids uuid[]; item uuid; gone int := 0;",
    // A permutation that neither the heap nor the index knows: its front is deleted, its rest updated.
    "ids := ARRAY(SELECT id FROM bench_items ORDER BY md5(id::text));",
    `FOR i IN 1..7 LOOP
       item := ids[gone + 4 + floor(random() * (${rows} - gone - 4))::int];
       UPDATE bench_items SET owner = owner + 1, name = 'item ' || n, changed_at = clock_timestamp(), price = price + 0.01
       WHERE id = item;
     END LOOP;
     FOR i IN 1..3 LOOP
       gone := gone + 1;
       item := ids[gone];
       DELETE FROM bench_items WHERE id = item;
     END LOOP;`
  ),
  changes: rowsPerTransaction * transactions
})
