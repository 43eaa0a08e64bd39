/**
 * What everything is measured on: a source, a target and a broker, each in processes of its own, on one machine. Both
 * servers run with the same settings and wait for the disk.
 */
import { Effect, Schedule, Schema, type Scope } from "effect"
import { readFile } from "node:fs/promises"
import * as Broker from "../../layers/embedded/Broker.ts"
import * as Postgres from "../../layers/embedded/Postgres.ts"
import { quote } from "../../src/target/Identifier.ts"
import { connect, type TestDatabase } from "../postgres.ts"

/** A number would mean nothing: what was measured did not do what it should. */
export class BenchmarkFailed extends Schema.TaggedError<BenchmarkFailed>()("BenchmarkFailed", {
  what: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.what}: ${this.reason}`
  }
}

export interface Lab {
  readonly source: Postgres.PostgresServer
  readonly target: Postgres.PostgresServer
  readonly broker: Broker.BrokerProcess
}

/** Checkpoints and autovacuum come when the benchmark says, so that every round meets the same server. */
const settings = {
  shared_buffers: "512MB",
  max_wal_size: "8GB",
  checkpoint_timeout: "1h",
  autovacuum: false
}

export const make: Effect.Effect<
  Lab,
  Effect.Error<ReturnType<typeof Postgres.make>> | Broker.BrokerError,
  Scope.Scope
> = Effect.gen(function* () {
  const source = yield* Postgres.make({ fsync: true, settings })
  const target = yield* Postgres.make({ fsync: true, settings })
  const broker = yield* Broker.spawn()
  return { source, target, broker }
})

/** Nanoseconds of the one clock that all processes of the machine share. */
export const now = (): bigint => process.hrtime.bigint()

export const secondsBetween = (from: bigint, to: bigint): number => Number(to - from) / 1e9

/** Who applies to the database that it is asked in: the connector's sessions, or the worker of a subscription. */
export const appliers = `SELECT pid FROM pg_stat_activity WHERE datname = current_database()
  AND (application_name = 'fluvio-postgres-sink' OR backend_type = 'logical replication apply worker')`

/** Linux counts processor time for programs in hundredths of a second, whatever the kernel's own clock. */
const ticksPerSecond = 100

/** Processor time of running processes, as {@link appliers} gives them, in seconds; no number where this is not Linux. */
export const processorSeconds = Effect.fnUntraced(function* (processes: ReadonlyArray<{ readonly pid?: unknown }>) {
  const spent = yield* Effect.forEach(processes, ({ pid }) =>
    Effect.promise(async () => {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")
      // Behind the name, which may contain anything: the 14th and 15th field are the time in user and kernel mode.
      const [user, system] = stat
        .slice(stat.lastIndexOf(")") + 2)
        .split(" ")
        .slice(11, 13)
      return (Number(user) + Number(system)) / ticksPerSecond
    })
  )
  return spent.reduce((sum, seconds) => sum + seconds, 0)
})

/** The middle one of an odd number of measurements. */
export const median = (values: ReadonlyArray<number>): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]

/** A new database, as a copy of another one if a template is named. It goes with the scope. */
export const createDatabase = Effect.fnUntraced(function* (
  server: Postgres.PostgresServer,
  name: string,
  template = "template0"
) {
  const admin = yield* connect("postgres", server.url())
  yield* Effect.acquireRelease(admin.query(`CREATE DATABASE ${quote(name)} TEMPLATE ${quote(template)}`), () =>
    Effect.orDie(admin.query(`DROP DATABASE ${quote(name)} WITH (FORCE)`))
  )
  return server.url(name)
})

/** What the tables hold, whatever the order of their rows. */
export const contentOf = Effect.fnUntraced(function* (database: TestDatabase, tables: ReadonlyArray<string>) {
  const digests = tables.map(
    (table) =>
      `SELECT '${table}: ' || count(*) || ' rows, ' || coalesce(sum(hashtextextended(t::text, 0)), 0) AS digest FROM ${quote(table)} AS t`
  )
  const rows = yield* database.query(`${digests.join(" UNION ALL ")} ORDER BY digest`)
  return rows.map((row) => row["digest"]).join("; ")
})

export const assertContent = Effect.fnUntraced(function* (
  what: string,
  database: TestDatabase,
  tables: ReadonlyArray<string>,
  expected: string
) {
  const actual = yield* contentOf(database, tables)
  if (actual !== expected) {
    return yield* new BenchmarkFailed({
      what,
      reason: `the content differs from the source's: ${actual} ≠ ${expected}`
    })
  }
})

/** Waits until a query gives a row, and tells when. */
export const firstRow = (database: TestDatabase, text: string) =>
  database.query(text).pipe(
    Effect.filterOrFail((rows) => rows.length > 0),
    Effect.map(now),
    Effect.retry({
      schedule: Schedule.max([Schedule.spaced("5 millis"), Schedule.during("5 minutes")]),
      while: (error) => error._tag === "NoSuchElementError"
    })
  )
