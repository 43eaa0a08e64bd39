/**
 * The whole way of the data on real parts, for acceptance tests: a source PostgreSQL, the development inbound connector
 * and broker, this connector in the test's process, and a target PostgreSQL.
 *
 * ```ts
 * layer(Replica.layer, options)("Tables", (it) => {
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
 * The two servers and the broker serve a test file; each scenario has two databases and a topic of its own.
 */
import { assert } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Logger, Redacted, Schedule, Schema, type Scope } from "effect"
import { compare } from "../../layers/demo/Compare.ts"
import * as Broker from "../../layers/embedded/Broker.ts"
import * as Inbound from "../../layers/embedded/Inbound.ts"
import * as Postgres from "../../layers/embedded/Postgres.ts"
import type { PackageMissing } from "../../layers/embedded/OptionalPackage.ts"
import * as Live from "../../layers/Live.ts"
import * as Connector from "../../src/Connector.ts"
import { ConnectorConfig, type ConnectorConfigError, fromObject } from "../../src/ConnectorConfig.ts"
import type { Applied } from "../../src/Applied.ts"
import type { SqlFailure } from "../../src/target/SqlFailure.ts"
import { connect, type QueryError, type Row, type TestDatabase } from "../postgres.ts"

/** Settings of the connector as its file would have them, e.g. `{ "missing-row": "halt" }`. */
export type Settings = Readonly<Record<string, unknown>>

export interface Scenario {
  /** What the source holds before its changes are captured. */
  readonly source?: string
  /** What the target holds before the connector starts. */
  readonly target?: string
  readonly settings?: Settings
  /** Attributes of a role that the connector logs in as, and what it is granted; the superuser by default. */
  readonly role?: { readonly attributes: string; readonly grants: (role: string) => string }
}

export type ConnectorFailure = Connector.ConnectorError | ConnectorConfigError | SqlFailure

/** Something that had to happen did not happen in time. */
export class Overdue extends Schema.TaggedError<Overdue>()("Overdue", { what: Schema.String, logged: Schema.String }) {
  override get message() {
    return `${this.what} did not come about in time; logged:\n${this.logged}`
  }
}

export interface Replication {
  readonly source: TestDatabase
  readonly target: TestDatabase
  /** The values of the topic's records, by their offsets. */
  readonly records: ReadonlyArray<Uint8Array>
  /** What the connector committed, over all its starts. */
  readonly applied: ReadonlyArray<Applied>
  /** What the connector logged from warnings on, over all its starts. */
  readonly warnings: ReadonlyArray<string>
  /** Runs each text as one source transaction, and waits until the connector's position is behind all of them. */
  replicate(
    ...transactions: ReadonlyArray<string>
  ): Effect.Effect<void, ConnectorFailure | QueryError | Overdue | Broker.BrokerError>
  /** Runs each text as one source transaction, and gives the error with which the connector stops. */
  halt(...transactions: ReadonlyArray<string>): Effect.Effect<Connector.ConnectorError, QueryError | Overdue>
  /** Waits until the source's transactions are in the topic, without the connector. */
  readonly captured: Effect.Effect<void, QueryError | Overdue>
  /** Waits until the connector's position is the topic's end. */
  readonly caughtUp: Effect.Effect<void, ConnectorFailure | QueryError | Overdue | Broker.BrokerError>
  /** The error with which the connector stops. */
  readonly stopped: Effect.Effect<Connector.ConnectorError, Overdue>
  /** Appends records to the topic as they are. */
  append(...values: ReadonlyArray<string | Uint8Array>): Effect.Effect<void, Broker.BrokerError>
  readonly stop: Effect.Effect<void>
  /** Starts the connector again, with these settings instead of the scenario's if there are any. */
  restart(settings?: Settings): Effect.Effect<void>
  /** Runs the query on both sides, and compares the rows. */
  same(query: string): Effect.Effect<void, QueryError>
  /** The rows of the target, each as its values in a row. */
  rows(query: string): Effect.Effect<ReadonlyArray<ReadonlyArray<string | null>>, QueryError>
  /** Compares every table of the source with its namesake in the target. */
  readonly equal: Effect.Effect<void, unknown>
}

const deadline = "30 seconds"

/** Other processes bring it about, so there is no event to wait for. */
const until = <E>(what: string, warnings: ReadonlyArray<string>, condition: Effect.Effect<boolean, E>) =>
  condition.pipe(
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced("3 millis") }),
    Effect.timeoutOrElse({
      duration: deadline,
      orElse: () => Effect.fail(new Overdue({ what, logged: warnings.join("\n") }))
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

export class Replica extends Context.Service<
  Replica,
  {
    start(
      scenario: Scenario
    ): Effect.Effect<
      Replication,
      QueryError | Postgres.PostgresServerError | PackageMissing | Inbound.InboundError | Broker.BrokerError,
      Scope.Scope
    >
  }
>()("test/Replica") {
  static readonly layer = Layer.effect(
    Replica,
    Effect.gen(function* () {
      const settings = { max_replication_slots: 100, max_wal_senders: 100, max_prepared_transactions: 10 }
      const [sourceServer, targetServer] = yield* Effect.all([Postgres.make({ settings }), Postgres.make()], {
        concurrency: 2
      })
      const broker = yield* Broker.make()
      let count = 0

      const start = Effect.fnUntraced(function* (scenario: Scenario) {
        const name = `scenario_${++count}`
        const topic = `scenario-${count}`
        const place = { topic, partition: 0 }
        const records: Array<Uint8Array> = []
        const applied: Array<Applied> = []
        const warnings: Array<string> = []
        const scope = yield* Effect.scope
        const [source, target] = yield* Effect.all(
          [sourceServer, targetServer].map((server) =>
            Effect.flatMap(server.createDatabase(name), (url) => connect(name, url))
          ),
          { concurrency: 2 }
        )
        yield* broker.createTopic(topic)
        if (scenario.source !== undefined) yield* source.query(scenario.source)
        if (scenario.target !== undefined) yield* target.query(scenario.target)
        let { url } = target
        if (scenario.role !== undefined) {
          const { attributes, grants } = scenario.role
          yield* target.query(`
            CREATE ROLE ${name} LOGIN PASSWORD '${name}' ${attributes};
            GRANT CREATE ON DATABASE ${name} TO ${name};
            ${grants(name)}`)
          url = asRole(url, name)
        }

        const send = (values: ReadonlyArray<Uint8Array>) =>
          Effect.suspend(() => {
            records.push(...values)
            return broker.append(
              place,
              values.map((value) => ({ value }))
            )
          })
        const inbound = yield* Inbound.make({ url: source.url, publication: name, slot: name })
        const capturing = yield* inbound.run(send).pipe(
          Effect.retry({
            while: (error) => "isRetryable" in error && error.isRetryable,
            schedule: Schedule.spaced("10 millis")
          }),
          Effect.forkScoped
        )

        const run = (own: Settings) =>
          Connector.run((one) => Effect.sync(() => applied.push(one))).pipe(
            Effect.provide(
              Live.layer.pipe(
                Layer.provideMerge(
                  ConnectorConfig.layerFrom([
                    fromObject({
                      topic,
                      url: Redacted.value(url),
                      consumer: { endpoint: broker.endpoint },
                      retry: { min: "20 millis", max: "100 millis" },
                      ...own
                    })
                  ])
                )
              ),
              // Each start has a pool of its own.
              { local: true }
            ),
            Effect.provide(logger(warnings)),
            Effect.forkIn(scope)
          )
        let connector = yield* run(scenario.settings ?? {})

        const captured = Effect.gen(function* () {
          const [row] = yield* source.query("SELECT pg_current_wal_flush_lsn() AS lsn")
          yield* until(
            "capturing the source's changes",
            warnings,
            Effect.gen(function* () {
              if (capturing.pollUnsafe() !== undefined) return yield* Effect.die(yield* Fiber.await(capturing))
              const [slot] = yield* source.query(`
                SELECT confirmed_flush_lsn >= '${row?.["lsn"]}' AS reached
                FROM pg_replication_slots WHERE slot_name = '${name}'`)
              return slot?.["reached"] === "t"
            })
          )
        })

        const caughtUp = Effect.gen(function* () {
          const { end } = yield* broker.bounds(place)
          yield* until(
            `applying the records before offset ${end}`,
            warnings,
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
            warnings,
            Effect.sync(() => connector.pollUnsafe() !== undefined)
          )
          return yield* Effect.orDie(Effect.flip(Fiber.join(connector))) as Effect.Effect<Connector.ConnectorError>
        })

        const commit = (transactions: ReadonlyArray<string>) =>
          Effect.forEach(transactions, (text) => source.query(text), { discard: true })

        const rows = (query: string) => Effect.map(target.query(query), valuesOf)

        const replication: Replication = {
          source,
          target,
          records,
          applied,
          warnings,
          captured,
          caughtUp,
          stopped,
          replicate: (...transactions) => commit(transactions).pipe(Effect.andThen(captured), Effect.andThen(caughtUp)),
          halt: (...transactions) => Effect.andThen(commit(transactions), stopped),
          append: (...values) =>
            send(values.map((value) => (typeof value === "string" ? utf8.encode(value) : value))).pipe(Effect.asVoid),
          stop: Effect.suspend(() => Fiber.interrupt(connector)),
          restart: (own = scenario.settings ?? {}) =>
            Effect.gen(function* () {
              yield* Fiber.interrupt(connector)
              connector = yield* run(own)
            }),
          same: (query) =>
            Effect.gen(function* () {
              const [wanted, found] = yield* Effect.all([source.query(query), target.query(query)])
              assert.deepStrictEqual(found, wanted)
            }),
          rows,
          equal: Effect.map(compare(source.url, target.url), ({ tables }) =>
            assert.deepStrictEqual(
              tables.filter((table) => table.missingRows + table.extraRows + table.missingColumns.length > 0),
              []
            )
          )
        }
        return replication
      })

      return Replica.of({ start })
    })
  )

  static readonly start = (scenario: Scenario) => Effect.flatMap(Replica, ({ start }) => start(scenario))
}

/** Time passes: other processes are waited for. */
export const real = { excludeTestServices: true } as const
