/**
 * The whole way of the data on real parts: a source PostgreSQL, the development inbound connector and broker, this
 * connector in the test's process, and a target PostgreSQL; on demand a native subscription beside it. Scenarios are
 * written with `Scenario.ts`; this is the level below it, for what a scenario cannot say.
 *
 * ```ts
 * layer(Replica.layer, real)("Tables", (it) => {
 *   it.effect("fills a column that only the target has", () =>
 *     Effect.gen(function* () {
 *       const replica = yield* Replica.start({ source: "CREATE TABLE t (id int PRIMARY KEY)", target: "…" })
 *       yield* replica.replicate("INSERT INTO t VALUES (1)", "DELETE FROM t")
 *       yield* replica.same("SELECT * FROM t")
 *     })
 *   )
 * })
 * ```
 *
 * The two servers and the broker serve a test file. A {@link Feed} is one source database and its topic; each
 * {@link Run} of the connector on it has a target database of its own. Everything goes with the test's scope.
 */
import { assert } from "@effect/vitest"
import {
  Cause,
  Context,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Predicate,
  Redacted,
  Schedule,
  Schema,
  type Scope
} from "effect"
import * as Broker from "../../layers/embedded/Broker.ts"
import * as Inbound from "../../layers/embedded/Inbound.ts"
import * as Postgres from "../../layers/embedded/Postgres.ts"
import * as Live from "../../layers/Live.ts"
import type { Applied } from "../../src/Applied.ts"
import * as Connector from "../../src/Connector.ts"
import { ConnectorConfig, type ConnectorConfigError, fromObject } from "../../src/ConnectorConfig.ts"
import type { SqlFailure } from "../../src/target/SqlFailure.ts"
import { invoke } from "../executable.ts"
import { connect, type QueryError, type Row, type TestDatabase } from "../postgres.ts"
import { equalToNative, equalToSource } from "./Equality.ts"

/** Settings of the connector as its file would have them, e.g. `{ "missing-row": "halt" }`. */
export type Settings = Readonly<Record<string, unknown>>

/** Attributes of a role that the connector logs in as, and what it is granted. */
export interface Role {
  readonly attributes: string
  readonly grants: (role: string) => string
}

export interface RunOptions {
  /** What the target holds before the connector starts. */
  readonly target?: string | undefined
  readonly settings?: Settings | undefined
  /** The superuser by default. */
  readonly role?: Role | undefined
}

export interface FeedOptions {
  /** What the source holds before its changes are captured. */
  readonly source?: string | undefined
  /** What the native subscriber holds; without it, there is none. */
  readonly native?: string | undefined
  /** Records are kept until {@link Feed.release}, so that what is read at once does not depend on time. */
  readonly isHeld?: boolean
}

export type ConnectorFailure = Connector.ConnectorError | ConnectorConfigError | SqlFailure

/** Something that had to happen did not happen in time. */
export class Overdue extends Schema.TaggedError<Overdue>()("Overdue", { what: Schema.String, logged: Schema.String }) {
  override get message() {
    return `${this.what} did not come about in time; logged:\n${this.logged}`
  }
}

/** The subscription, in a database of the target's server. */
export interface Native {
  readonly database: TestDatabase
  /** Waits until the subscription has applied what the source has committed. */
  readonly caughtUp: Effect.Effect<void, QueryError | Overdue>
  /** Runs DDL once everything before it has been applied; tables that it creates are subscribed to. */
  define(sql: string): Effect.Effect<void, QueryError | Overdue>
}

/** A source database, and the topic with its changes. */
export interface Feed {
  readonly source: TestDatabase
  readonly native: Native | undefined
  /** The values of the topic's records, by their offsets. */
  readonly records: ReadonlyArray<Uint8Array>
  /** Waits until the source's transactions are in the topic, or held. */
  readonly captured: Effect.Effect<void, QueryError | Overdue>
  /** Appends what was held, in one batch. */
  readonly release: Effect.Effect<void, Broker.BrokerError>
  /** Appends records to the topic as they are. */
  append(...values: ReadonlyArray<string | Uint8Array>): Effect.Effect<void, Broker.BrokerError>
  /** Starts a connector with a target database of its own. */
  run(options: RunOptions): Effect.Effect<Run, QueryError, Scope.Scope>
}

/** A connector on a feed, and its target. */
export interface Run {
  readonly target: TestDatabase
  /** What the connector committed, over all its starts. */
  readonly applied: ReadonlyArray<Applied>
  /** What the connector logged from warnings on, over all its starts. */
  readonly warnings: ReadonlyArray<string>
  /** Waits until the connector's position is the topic's end. */
  readonly caughtUp: Effect.Effect<void, ConnectorFailure | Overdue | Broker.BrokerError>
  /** The error with which the connector stops. */
  readonly stopped: Effect.Effect<Connector.ConnectorError, Overdue>
  readonly stop: Effect.Effect<void>
  /** Starts the connector again, with these settings instead of the run's if there are any. */
  restart(settings?: Settings): Effect.Effect<void>
  /** Types a command about it, which must not fail, and gives what it prints. */
  command(...words: ReadonlyArray<string>): Effect.Effect<string>
  /** The rows of the target, each as its values in a row. */
  rows(query: string): Effect.Effect<ReadonlyArray<ReadonlyArray<string | null>>, QueryError>
}

/** A feed with one run. */
export interface Replication extends Feed, Run {
  /** Runs each text as one source transaction, and waits until the connector's position is behind all of them. */
  replicate(
    ...transactions: ReadonlyArray<string>
  ): Effect.Effect<void, ConnectorFailure | QueryError | Overdue | Broker.BrokerError>
  /** Runs each text as one source transaction, and gives the error with which the connector stops. */
  halt(...transactions: ReadonlyArray<string>): Effect.Effect<Connector.ConnectorError, QueryError | Overdue>
  /** Runs the query on both sides, and compares the rows. */
  same(query: string): Effect.Effect<void, QueryError>
  /** Compares every table of the source with its namesake in the target. */
  readonly equal: Effect.Effect<void, unknown>
  /** Runs statements in the target, and in the native subscriber when that has applied what is committed. */
  onBoth(sql: string): Effect.Effect<void, QueryError | Overdue>
  /** Compares every table of the native subscriber with its namesake in the target. */
  readonly judged: Effect.Effect<void, unknown>
}

export interface ReplicationOptions extends RunOptions, FeedOptions {
  /** There is a native subscriber, which holds what the target holds at first. */
  readonly isJudged?: boolean
}

/** The publication that is captured; made `FOR ALL TABLES` unless the scenario makes it. */
export const publication = "published"

/** The native subscriber that the scenario has asked for. */
export const nativeOf = ({ native }: Feed): Native => {
  assert(native !== undefined, "the scenario has no native subscriber")
  return native
}

const deadline = "30 seconds"

/** Other processes bring it about, so there is no event to wait for. */
const until = <E>(what: string, logged: () => string, condition: Effect.Effect<boolean, E>) =>
  condition.pipe(
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced("3 millis") }),
    Effect.timeoutOrElse({
      duration: deadline,
      orElse: () => Effect.fail(new Overdue({ what, logged: logged() }))
    }),
    Effect.asVoid
  )

const valuesOf = (rows: ReadonlyArray<Row>) => rows.map((row) => Object.values(row))

const utf8 = new TextEncoder()

const logger = (warnings: Array<string>) =>
  Logger.layer([
    Logger.make(({ logLevel, message }) => {
      if (logLevel === "Warn" || logLevel === "Error" || logLevel === "Fatal") warnings.push([message].flat().join(" "))
    })
  ])

/** The role's name is its database's, and it has a password, so that the connector logs in as usual. */
const asRole = (url: Redacted.Redacted<string>, role: string) => {
  const own = new URL(Redacted.value(url))
  own.username = role
  own.password = role
  return Redacted.make(own.href)
}

/** Sections are merged, so that one key of a section can be set. */
const merged = (base: Settings, own: Settings): Settings => {
  const all: Record<string, unknown> = { ...base }
  for (const [key, value] of Object.entries(own)) {
    const there = all[key]
    all[key] =
      Predicate.isObject(there) && Predicate.isObject(value) ? merged(there as Settings, value as Settings) : value
  }
  return all
}

/** Databases are dropped when a test is through with them, so that a file's scenarios do not fill the disk. */
const databases = Effect.fnUntraced(function* (server: Postgres.PostgresServer) {
  const admin = yield* connect("postgres", server.url())
  const drop = (name: string) =>
    admin.query(`DROP DATABASE ${name} WITH (FORCE)`).pipe(
      // A walsender that ends just now still holds its slot.
      Effect.retry({ schedule: Schedule.spaced("5 millis"), times: 1000 }),
      Effect.andThen(
        admin.query(`
          DO $$ BEGIN
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = '${name}') THEN DROP OWNED BY ${name}; DROP ROLE ${name}; END IF;
          END $$`)
      ),
      Effect.orDie
    )
  return (name: string) =>
    Effect.acquireRelease(Effect.as(admin.query(`CREATE DATABASE ${name}`), server.url(name)), () => drop(name)).pipe(
      Effect.flatMap((url) => connect(name, url))
    )
})

const hasReached = (source: TestDatabase, slot: string, lsn: string) =>
  Effect.map(
    source.query(`
      SELECT confirmed_flush_lsn >= '${lsn}' AS reached FROM pg_replication_slots WHERE slot_name = '${slot}'`),
    ([row]) => row?.["reached"] === "t"
  )

const flushed = (source: TestDatabase) =>
  Effect.map(source.query("SELECT pg_current_wal_flush_lsn() AS lsn"), ([row]) => String(row?.["lsn"]))

const subscribe = Effect.fnUntraced(function* (source: TestDatabase, database: TestDatabase, prepared: string) {
  const name = database.name
  const connection = Redacted.value(source.url).replaceAll("'", "''")
  // A subscriber learns of tables by REFRESH PUBLICATION, which asks the source for those that it has by then. Rows of
  // a table may come in the very step that creates it, so they are entered here, as REFRESH without a copy does.
  const enter = `
    SET allow_system_table_mods = on;
    INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)
    SELECT pg_subscription.oid, pg_class.oid, 'r' FROM pg_subscription, pg_class
    WHERE subname = '${name}' AND relkind IN ('r', 'p') AND relpersistence = 'p'
      AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
      AND NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srsubid = pg_subscription.oid AND srrelid = pg_class.oid);
    RESET allow_system_table_mods`
  yield* database.query(prepared)
  yield* source.query(`SELECT pg_create_logical_replication_slot('${name}', 'pgoutput')`)
  yield* Effect.acquireRelease(
    database.query(`
      CREATE SUBSCRIPTION ${name} CONNECTION '${connection}' PUBLICATION ${publication}
      WITH (connect = false, slot_name = '${name}', synchronous_commit = local, streaming = off);
      ${enter};
      ALTER SUBSCRIPTION ${name} ENABLE`),
    () => Effect.orDie(database.query(`DROP SUBSCRIPTION ${name}`))
  )
  const caughtUp = Effect.gen(function* () {
    const lsn = yield* flushed(source)
    let errors = 0
    yield* until(
      "the native subscription's catching up",
      () => `the subscription failed ${errors} times`,
      Effect.gen(function* () {
        if (yield* hasReached(source, name, lsn)) return true
        const [stats] = yield* database.query(
          `SELECT apply_error_count FROM pg_stat_subscription_stats WHERE subname = '${name}'`
        )
        errors = Number(stats?.["apply_error_count"])
        if (errors > 0) {
          return yield* new Overdue({
            what: "the native subscription's catching up",
            logged: "its apply worker stops with an error: what the step needs in the target is missing in `native`"
          })
        }
        return false
      })
    )
  })
  return {
    database,
    caughtUp,
    define: (sql) => Effect.andThen(caughtUp, database.query(`${sql}; ${enter}`)).pipe(Effect.asVoid)
  } satisfies Native
})

const make = Effect.gen(function* () {
  const [sourceServer, targetServer] = yield* Effect.all(
    [
      Postgres.make({ settings: { max_replication_slots: 100, max_wal_senders: 100, max_prepared_transactions: 10 } }),
      Postgres.make({
        settings: {
          max_logical_replication_workers: 32,
          max_worker_processes: 40,
          max_active_replication_origins: 100,
          wal_retrieve_retry_interval: "10ms"
        }
      })
    ],
    { concurrency: 2 }
  )
  const [sourceDatabase, targetDatabase] = yield* Effect.all([databases(sourceServer), databases(targetServer)])
  const broker = yield* Broker.make()
  let feeds = 0

  const feed = Effect.fnUntraced(function* (options: FeedOptions) {
    const number = ++feeds
    const name = `scenario_${number}`
    const topic = `scenario-${number}`
    const place = { topic, partition: 0 }
    const records: Array<Uint8Array> = []
    const held: Array<Uint8Array> = []
    const scope = yield* Effect.scope
    yield* broker.createTopic(topic)
    const [source, subscriber] = yield* Effect.all(
      [sourceDatabase(name), options.native === undefined ? Effect.undefined : targetDatabase(`native_${number}`)],
      { concurrency: 2 }
    )
    if (options.source !== undefined) yield* source.query(options.source)

    const append = (values: ReadonlyArray<Uint8Array>) =>
      Effect.suspend(() => {
        records.push(...values)
        return broker.append(
          place,
          values.map((value) => ({ value }))
        )
      })
    const inbound = yield* Inbound.make({ url: source.url, publication, slot: name })
    const capturing = yield* inbound
      .run((values) => (options.isHeld === true ? Effect.sync(() => void held.push(...values)) : append(values)))
      .pipe(
        Effect.retry({
          while: (error) => "isRetryable" in error && error.isRetryable,
          schedule: Schedule.spaced("10 millis")
        }),
        Effect.forkScoped
      )
    const native = subscriber && (yield* subscribe(source, subscriber, options.native ?? ""))

    let runs = 0
    const run = Effect.fnUntraced(function* ({ role, settings = {}, target: prepared }: RunOptions) {
      const own = `${name}_${++runs}`
      const target = yield* targetDatabase(own)
      const applied: Array<Applied> = []
      const warnings: Array<string> = []
      if (prepared !== undefined) yield* target.query(prepared)
      let { url } = target
      if (role !== undefined) {
        yield* target.query(`
          CREATE ROLE ${own} LOGIN PASSWORD '${own}' ${role.attributes};
          GRANT CREATE ON DATABASE ${own} TO ${own};
          ${role.grants(own)}`)
        url = asRole(url, own)
      }
      const start = (changed: Settings) =>
        Connector.run((one) => Effect.sync(() => applied.push(one))).pipe(
          Effect.provide(
            Live.layer.pipe(
              Layer.provideMerge(
                ConnectorConfig.layerFrom([
                  fromObject(
                    merged(
                      {
                        topic,
                        url: Redacted.value(url),
                        consumer: { endpoint: broker.endpoint },
                        retry: { min: "20 millis", max: "100 millis" }
                      },
                      changed
                    )
                  )
                ])
              )
            ),
            // Each start has a pool of its own.
            { local: true }
          ),
          Effect.provide(logger(warnings)),
          Effect.forkIn(scope)
        )
      let connector = yield* start(settings)

      const caughtUp = Effect.gen(function* () {
        const { end } = yield* broker.bounds(place)
        yield* until(
          `applying the records before offset ${end}`,
          () => warnings.join("\n"),
          Effect.gen(function* () {
            // Joining it fails with its error.
            if (connector.pollUnsafe() !== undefined) yield* Fiber.join(connector)
            return end === 0 || applied.at(-1)?.position.offset === end - 1
          })
        )
      })

      const stopped = Effect.gen(function* () {
        yield* until(
          "the connector's stop",
          () => warnings.join("\n"),
          Effect.sync(() => connector.pollUnsafe() !== undefined)
        )
        return yield* Effect.orDie(Effect.flip(Fiber.join(connector))) as Effect.Effect<Connector.ConnectorError>
      })

      return {
        target,
        applied,
        warnings,
        caughtUp,
        stopped,
        stop: Effect.suspend(() => Fiber.interrupt(connector)),
        restart: (changed = settings) =>
          Effect.gen(function* () {
            yield* Fiber.interrupt(connector)
            connector = yield* start(changed)
          }),
        command: (...words) =>
          invoke(words, {
            FLUVIO_PG_TOPIC: topic,
            FLUVIO_PG_DATABASE_URL: Redacted.value(url),
            FLUVIO_PG_CONSUMER_ENDPOINT: broker.endpoint
          }).pipe(
            Effect.scoped,
            Effect.tap(({ code, err }) => Effect.sync(() => assert.strictEqual(code, 0, err))),
            Effect.map(({ out }) => out.trim())
          ),
        rows: (query) => Effect.map(target.query(query), valuesOf)
      } satisfies Run
    })

    return {
      source,
      native,
      records,
      captured: Effect.gen(function* () {
        const lsn = yield* flushed(source)
        yield* until(
          "capturing the source's changes",
          () => "",
          Effect.gen(function* () {
            const exit = capturing.pollUnsafe()
            if (exit !== undefined && Exit.isFailure(exit)) return yield* Effect.die(Cause.squash(exit.cause))
            return yield* hasReached(source, name, lsn)
          })
        )
      }),
      release: Effect.suspend(() => (held.length === 0 ? Effect.void : Effect.asVoid(append(held.splice(0))))),
      append: (...values) =>
        append(values.map((value) => (typeof value === "string" ? utf8.encode(value) : value))).pipe(Effect.asVoid),
      run
    } satisfies Feed
  })

  const start = Effect.fnUntraced(function* (options: ReplicationOptions) {
    const fed = yield* feed(options.isJudged === true ? { ...options, native: options.target ?? "" } : options)
    const run = yield* fed.run(options)
    const commit = (transactions: ReadonlyArray<string>) =>
      Effect.forEach(transactions, (text) => fed.source.query(text), { discard: true })
    const replication: Replication = {
      ...fed,
      ...run,
      replicate: (...transactions) =>
        commit(transactions).pipe(Effect.andThen(fed.captured), Effect.andThen(run.caughtUp)),
      halt: (...transactions) => Effect.andThen(commit(transactions), run.stopped),
      same: (query) =>
        Effect.gen(function* () {
          const [wanted, found] = yield* Effect.all([fed.source.query(query), run.target.query(query)])
          assert.deepStrictEqual(found, wanted)
        }),
      equal: equalToSource(fed.source, run.target),
      onBoth: (sql) => Effect.andThen(nativeOf(fed).define(sql), run.target.query(sql)).pipe(Effect.asVoid),
      judged: Effect.suspend(() =>
        Effect.andThen(nativeOf(fed).caughtUp, equalToNative(nativeOf(fed).database, run.target))
      )
    }
    return replication
  })

  return { feed, start }
})

export class Replica extends Context.Service<Replica, Effect.Success<typeof make>>()("test/Replica") {
  static readonly layer = Layer.effect(Replica, make)

  static readonly start = (options: ReplicationOptions) => Effect.flatMap(Replica, ({ start }) => start(options))

  static readonly feed = (options: FeedOptions) => Effect.flatMap(Replica, ({ feed }) => feed(options))
}

/** Time passes: other processes are waited for. */
export const real = { excludeTestServices: true } as const
