/**
 * Everything that a run needs: a source, its inbound connector and a broker in a process of its own, the executable
 * under test with a disturbed network on both of its sides, its target, and the oracle, which is a native subscription of
 * PostgreSQL to the same source.
 *
 * The target is itself the source of a chain: all of its tables are published, the connector's own among them, and a
 * third connector applies them to a database of its own, as a role without any privilege, without one of the columns,
 * and with a trigger that sees each row.
 */
import { Effect, FileSystem, Redacted, Schedule } from "effect"
import * as Broker from "../../layers/embedded/Broker.ts"
import * as Workload from "../../layers/demo/Workload.ts"
import * as Postgres from "../../layers/embedded/Postgres.ts"
import { connect, type TestDatabase } from "../postgres.ts"
import * as ClockFault from "./ClockFault.ts"
import * as ConnectorProcess from "./ConnectorProcess.ts"
import * as Disk from "./Disk.ts"
import * as Feed from "./Feed.ts"
import * as Load from "./Load.ts"
import * as NetworkFault from "./NetworkFault.ts"

export const place = { topic: "torture", partition: 0 }

/** Where the target's own changes go. */
const chain = { topic: "chain", partition: 0 }

/** What the chained connector leaves out. */
export const excluded = { table: "customer", column: "score" }

/** SPUs, of which the first leads to begin with. */
export const spus = 2

/** The connector's role: no superuser, so that limits hold for it. */
export const role = "sink"

/** Of the target's disk, in bytes; a full one has none left. */
export const diskSize = 2 ** 32

const publication = "torture"

/** Waits until it is so. */
export const until = <E, R>(check: Effect.Effect<boolean, E, R>) =>
  check.pipe(
    Effect.orElseSucceed(() => false),
    Effect.repeat({ until: (isSo) => isSo, schedule: Schedule.spaced("50 millis") }),
    Effect.asVoid
  )

/** Waits until a database has all of it, as long as it comes closer; whether it has. */
export const catchesUp = Effect.fnUntraced(function* (database: TestDatabase, progress: string, patience: number) {
  let last: string | null | undefined
  let since = performance.now()
  while (last !== progress && performance.now() - since < patience) {
    const now = yield* database.query(Load.progress).pipe(
      Effect.map(([row]) => row?.["progress"]),
      Effect.orElseSucceed(() => last)
    )
    if (now !== last) since = performance.now()
    last = now
    yield* Effect.sleep("50 millis")
  }
  return last === progress
})

/** A database that learns of the source by PostgreSQL's own means, except for what those do not carry. */
const makeOracle = Effect.fn("Harness.oracle")(function* (source: Redacted.Redacted<string>) {
  const server = yield* Postgres.make({ settings: { wal_retrieve_retry_interval: "200ms" } })
  const url = yield* server.createDatabase("oracle")
  const database = yield* connect("oracle", url)
  for (const statement of [...Workload.types, ...Load.tables]) yield* database.query(statement)
  // Without a key PostgreSQL looks for each row from the start of the table, unless it finds an index.
  yield* database.query("CREATE INDEX ON ledger_entry (amount); CREATE INDEX ON visit (visitor)")
  const connection = Redacted.value(source).replaceAll("'", "''")
  yield* database.query(
    `CREATE SUBSCRIPTION oracle CONNECTION '${connection}' PUBLICATION ${publication} WITH (copy_data = false)`
  )
  return { url, database }
})

/**
 * What a published table must have that an operator gives it, because the target's copy has no identity of its own: tables
 * without a key, and one whose key is an index.
 */
const published = Load.tables
  .filter((statement) => /TABLE (?:visit|voucher|ledger_entry)\b|INDEX voucher_code/.test(statement))
  .join(";")

/** Sees each change of a table, as the triggers of an ordinary role's tables do. */
const audit = `
  CREATE TABLE ledger_left (id int4 PRIMARY KEY, balance int8 NOT NULL);
  CREATE TABLE audit (amount int8 NOT NULL);
  CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO public.audit VALUES (coalesce(NEW.balance, 0) - CASE TG_OP WHEN 'UPDATE' THEN OLD.balance ELSE 0 END);
      RETURN NULL;
    END
  $$;
  CREATE TRIGGER audit AFTER INSERT OR UPDATE ON ledger_left FOR EACH ROW EXECUTE FUNCTION audit();
`

/** What the trigger saw, and what it should have seen. */
export const audited = `SELECT (SELECT sum(amount) FROM audit) AS seen, (SELECT sum(balance) FROM ledger_left) AS held`

/** Settings that a connector starts with: patience for hundreds of faults in minutes, and groups of all sizes. */
const settingsOf = (topic: string, endpoint: string, start: number) => ({
  FLUVIO_PG_TOPIC: topic,
  FLUVIO_PG_SCHEMA_CHANGES: "full",
  FLUVIO_PG_CONSUMER_ENDPOINT: endpoint,
  FLUVIO_PG_CONSUMER_PROBE_INTERVAL: "500 millis",
  FLUVIO_PG_CONSUMER_TIMEOUT: "2 s",
  FLUVIO_PG_TARGET_LOCK_TIMEOUT: "1 s",
  FLUVIO_PG_RETRY_MIN: "50 millis",
  FLUVIO_PG_RETRY_MAX: "500 millis",
  FLUVIO_PG_GROUP_BYTES: ["64 KiB", "1 MiB", "16 KiB", "8 MiB"][start % 4]!,
  FLUVIO_PG_GROUP_ROWS: ["50", "20000", "500"][start % 3]!
})

export const make = Effect.fn("Harness.make")(function* (seed: number, onLine: (line: string) => void) {
  const files = yield* FileSystem.FileSystem
  const folder = yield* files.makeTempDirectoryScoped({ prefix: "fluvio-postgres-sink-torture-" })
  const toController = yield* NetworkFault.make
  const toSpus = yield* Effect.replicateEffect(NetworkFault.make, spus)
  const toTarget = yield* NetworkFault.make

  const disk = yield* Disk.make(diskSize)
  const [source, target, broker] = yield* Effect.all(
    [
      Postgres.make(),
      Postgres.make(),
      Broker.spawn({ folder: `${folder}/topics`, spus, publicPorts: toSpus.map(({ port }) => port) })
    ],
    { concurrency: 3 }
  )
  const [controllerPort = 0, ...spuPorts] = broker.ports
  toController.forwardTo(controllerPort)
  toSpus.forEach((proxy, index) => proxy.forwardTo(spuPorts[index]!))
  toTarget.forwardTo(target.port)
  for (const { topic } of [place, chain]) yield* broker.createTopic(topic)

  const sourceUrl = yield* source.createDatabase("source")
  const sourceDatabase = yield* connect("source", sourceUrl)
  for (const statement of [...Workload.types, ...Load.tables]) yield* sourceDatabase.query(statement)
  const feed = yield* Feed.make({ url: sourceUrl, publication, slot: "torture", broker, place })
  const oracle = yield* makeOracle(sourceUrl)

  const targetUrl = yield* target.createDatabase("target")
  yield* Disk.hold(disk, yield* connect("postgres", target.url()), "target")
  const administrator = yield* connect("target", targetUrl)
  yield* administrator.query(`
    CREATE ROLE ${role} LOGIN PASSWORD '${role}';
    ALTER DATABASE target OWNER TO ${role};
    GRANT SET ON PARAMETER session_replication_role TO ${role};
    ${Workload.types.join(";")};
    SET ROLE ${role};
    ${published};
    RESET ROLE;
  `)

  const chainedUrl = yield* target.createDatabase("chained")
  const chainedDatabase = yield* connect("chained", chainedUrl)
  yield* chainedDatabase.query(`
    CREATE ROLE chained LOGIN PASSWORD 'chained';
    ALTER DATABASE chained OWNER TO chained;
    ${Workload.types.join(";")};
    SET ROLE chained;
    ${audit};
    RESET ROLE;
  `)
  const chainedFeed = yield* Feed.make({ url: targetUrl, publication: "chain", slot: "chain", broker, place: chain })
  const chainedFile = `${folder}/chained.yaml`
  yield* files.writeFileString(
    chainedFile,
    JSON.stringify({
      apiVersion: "0.1.0",
      meta: { name: "chained", type: "postgres-sink", topic: chain.topic, version: "latest" },
      parameters: {
        tables: { columns: { [`public.${excluded.table}`]: { exclude: [excluded.column] } } }
      }
    })
  )

  const throughProxy = (url: Redacted.Redacted<string>, user: string) => {
    const own = new URL(Redacted.value(url))
    own.username = user
    own.password = user
    own.port = String(toTarget.port)
    return Redacted.make(own.href)
  }
  let starts = seed
  const clock = yield* ClockFault.make
  const settings = (topic: string) =>
    Effect.sync(() => ({
      ...settingsOf(topic, `127.0.0.1:${toController.port}`, starts++),
      ...clock.variables
    }))
  const connector = (name: string) =>
    ConnectorProcess.make({ name, url: throughProxy(targetUrl, role), settings: settings(place.topic), onLine })

  const load = yield* Load.make({
    seed,
    source: sourceUrl,
    beforeSchemaChange: Effect.fnUntraced(function* (statements, progress) {
      // The oracle must have its rows of the old shape before it gets the new one.
      yield* until(
        Effect.map(oracle.database.query(Load.progress), ([row]) =>
          (row?.["progress"] ?? "").split(" ").includes(progress)
        )
      )
      for (const statement of statements) yield* Effect.orDie(oracle.database.query(statement))
    })
  })

  return {
    source: { server: source, url: sourceUrl, database: sourceDatabase },
    target: { server: target, url: targetUrl, database: administrator, disk },
    oracle,
    chained: {
      url: chainedUrl,
      database: chainedDatabase,
      feed: chainedFeed,
      connector: yield* ConnectorProcess.make({
        name: "sink_chained",
        url: throughProxy(chainedUrl, "chained"),
        settings: settings(chain.topic),
        config: chainedFile,
        onLine
      })
    },
    broker,
    feed,
    load,
    clock,
    network: { toController, toSpus, toTarget },
    /** The one that applies, and one that is started as a second instance at times. */
    first: yield* connector("sink_first"),
    second: yield* connector("sink_second")
  }
})

export type Harness = Effect.Success<ReturnType<typeof make>>
