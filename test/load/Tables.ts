/** Many tables at once: whatever the connector gathers for one target transaction holds changes of all of them. */
import { Effect } from "effect"
import { compare } from "../../layers/demo/Compare.ts"
import { BenchmarkFailed, type Lab, now, secondsBetween } from "../bench/Lab.ts"
import { connect } from "../postgres.ts"
import { mebibytes, type Outcome, rounded, whole } from "./Outcome.ts"
import * as Source from "./Source.ts"
import * as Subject from "./Subject.ts"

export interface TablesSize {
  readonly tables: number
  readonly transactions: number
}

/**
 * Each transaction does four changes to each table: two inserts, an update, and a delete once there is something old
 * enough. One table follows the other, so that no two changes in a row are of the same.
 */
const work = ({ tables, transactions }: TablesSize) => `
  CREATE PROCEDURE load_work() LANGUAGE plpgsql AS $work$
  BEGIN
    FOR n IN 1..${transactions} LOOP
      FOR t IN 1..${tables} LOOP
        EXECUTE format('INSERT INTO load_table_%s VALUES ($1, $2, $3, clock_timestamp())', t)
        USING 2 * n - 1, t, 'odd, and stays, in table ' || t;
      END LOOP;
      FOR t IN 1..${tables} LOOP
        EXECUTE format('UPDATE load_table_%s SET owner = owner + 1, note = $2, changed_at = clock_timestamp() WHERE id = $1', t)
        USING 2 * (1 + (n * 31 + t) % n) - 1, 'changed by transaction ' || n;
      END LOOP;
      FOR t IN 1..${tables} LOOP
        EXECUTE format('INSERT INTO load_table_%s VALUES ($1, $2, NULL, clock_timestamp())', t) USING 2 * n, -t;
      END LOOP;
      FOR t IN 1..${tables} LOOP
        EXECUTE format('DELETE FROM load_table_%s WHERE id = $1', t) USING 2 * (n - 3);
      END LOOP;
      COMMIT;
    END LOOP;
  END
  $work$`

/** The target has none of the tables when it begins. */
export const run = Effect.fn("Tables.run")(function* (lab: Lab, size: TablesSize) {
  const { tables, transactions } = size
  const source = yield* Source.make(lab, "load_tables", [
    ...Array.from(
      { length: tables },
      (_, t) => `CREATE TABLE load_table_${t + 1} (id int PRIMARY KEY, owner int, note text, changed_at timestamptz)`
    ),
    work(size)
  ])
  yield* source.database.query("CALL load_work()")
  const last = yield* source.send(source.append)
  yield* Effect.logInfo(`${whole(last + 1)} records are in the topic`)
  const changes = tables * (4 * transactions - Math.min(3, transactions))

  const target = yield* connect("target", yield* lab.target.createDatabase("load_tables"))
  const begun = now()
  const connector = yield* Subject.start(source.topic, { endpoint: lab.broker.endpoint, target })
  const seconds = secondsBetween(begun, yield* connector.applied(last))
  const { peak } = yield* connector.memory
  yield* connector.end

  const comparison = yield* compare(source.database.url, target.url)
  const created = comparison.tables.length
  if (comparison.differences > 0 || created !== tables || comparison.rows !== tables * (transactions + 3)) {
    const different = comparison.tables.find(
      ({ extraColumns, extraRows, missingColumns, missingRows }) =>
        extraRows + missingRows + extraColumns.length + missingColumns.length > 0
    )
    return yield* new BenchmarkFailed({
      what: "tables",
      reason: `${comparison.differences} differences in ${comparison.rows} rows of ${created} tables, the first ones in ${JSON.stringify(different)}`
    })
  }
  yield* lab.broker.deleteTopic(source.topic)
  return {
    load: `${tables} tables that the target does not have, ${whole(changes)} inserts, updates and deletes, in each transaction some of all tables`,
    seen: `${whole(comparison.rows)} rows equal to the source's; ${whole(changes / seconds)} changes/s, start included`,
    peak,
    figures: {
      tables,
      transactions,
      changes,
      rows: comparison.rows,
      seconds: rounded(seconds),
      changes_per_second: Math.round(changes / seconds),
      peak_rss_mb: mebibytes(peak)
    }
  } satisfies Outcome
}, Effect.scoped)
