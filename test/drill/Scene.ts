/**
 * A topic, a target and an operator who knows nothing but what is printed: each command, statement and setting that
 * resolves an error is taken out of the text of the error, and run as it stands there.
 *
 * The connector runs in this process, by its real command line, on the real parts.
 */
import { NodeServices } from "@effect/platform-node"
import { assert } from "@effect/vitest"
import { Console, Effect, Exit, Fiber, Redacted, type Scope } from "effect"
import { TestConsole } from "effect/testing"
import { Broker, type BrokerShape } from "../../layers/embedded/Broker.ts"
import * as Live from "../../layers/Live.ts"
import * as Cli from "../../src/Cli.ts"
import * as Connector from "../../src/Connector.ts"
import { fromObject } from "../../src/ConnectorConfig.ts"
import { pageOf, type Tag } from "../../src/stream/Outcome.ts"
import * as events from "../events.ts"
import { eventually } from "../pipeline.ts"
import { type TestDatabase, TestPostgres } from "../postgres.ts"

export interface Printed {
  readonly code: number
  readonly out: string
  readonly err: string
}

interface Started {
  readonly ended: Effect.Effect<Printed>
  readonly hasEnded: () => boolean
  readonly err: Effect.Effect<string>
  /** As SIGTERM does. */
  readonly stop: Effect.Effect<Printed>
}

/** A setting by its name in the pages is a variable. */
const variableOf = (setting: string) =>
  setting === "url" ? "FLUVIO_PG_DATABASE_URL" : `FLUVIO_PG_${setting.toUpperCase().replaceAll(/[.-]/g, "_")}`

const start = Effect.fnUntraced(function* (
  args: ReadonlyArray<string>,
  variables: { readonly [name: string]: string }
): Effect.fn.Return<Started, never, Scope.Scope> {
  const console = yield* TestConsole.make
  const fiber = yield* Cli.run({
    version: "0.0.0",
    variables,
    isTerminal: false,
    readConfigFile: () => Effect.succeed(fromObject({}, (key) => key.join("."))),
    configFileSchema: {},
    live: Live.layer,
    run: Effect.provide(
      Connector.run(() => Effect.void),
      Live.layer
    )
  })(args).pipe(
    Effect.provide(NodeServices.layer),
    Effect.provideService(Console.Console, console),
    Effect.exit,
    Effect.forkScoped
  )
  const printed = (exit: Exit.Exit<unknown, unknown>) =>
    Effect.gen(function* () {
      let code = -1
      Cli.teardown(exit, (given) => (code = given))
      return {
        code,
        out: (yield* console.logLines).join("\n"),
        err: (yield* console.errorLines).join("\n")
      }
    })
  const exit = Effect.map(Fiber.await(fiber), (outer) =>
    Exit.isSuccess(outer) ? outer.value : (outer as Exit.Exit<unknown, unknown>)
  )
  return {
    ended: Effect.flatMap(exit, printed),
    hasEnded: () => fiber.pollUnsafe() !== undefined,
    err: Effect.map(console.errorLines, (lines) => lines.join("\n")),
    stop: Effect.andThen(Fiber.interrupt(fiber), Effect.flatMap(exit, printed))
  }
})

/** The one thing that an error's text has of a kind; it fails the drill where it has none. */
const take = (pattern: RegExp, text: string): string => {
  const [, found] = text.match(pattern) ?? []
  assert.isDefined(found, `${pattern} is not in what is printed: ${text}`)
  return found!
}

export const pets = events.relationOf()
export const pet = (id: number, name: string): events.Row => [events.int4(id), events.text(name)]

/** A source transaction with this LSN, which describes its table anew: four records if it has one change. */
export const transaction = (lsn: number, ...messages: ReadonlyArray<events.MessageFixture>) => [
  events.begin(lsn, { timestamp: BigInt(lsn) * 1_000_000n, xid: lsn }),
  ...(messages.some(({ event }) => event.type === "relation") ? [] : [events.relation(pets)]),
  ...messages,
  events.commit(lsn, { timestamp: BigInt(lsn) * 1_000_000n })
]
export const insert = (id: number) => transaction(1000 + id, events.insert(pets.id, pet(id, `pet ${id}`)))

/** The same where the table is known already. */
export const known = (lsn: number, ...messages: ReadonlyArray<events.MessageFixture>) => [
  events.begin(lsn, { timestamp: BigInt(lsn) * 1_000_000n, xid: lsn }),
  ...messages,
  events.commit(lsn, { timestamp: BigInt(lsn) * 1_000_000n })
]
export const more = (id: number) => known(1000 + id, events.insert(pets.id, pet(id, `pet ${id}`)))

let scenes = 0

export interface Scene {
  readonly broker: BrokerShape
  readonly database: TestDatabase
  readonly place: { readonly topic: string; readonly partition: number }
  readonly append: (...transactions: ReadonlyArray<ReadonlyArray<events.MessageFixture>>) => Effect.Effect<void>
  /** Gives a setting another value, or takes it away. */
  readonly set: (setting: string, value: string | undefined) => void
  /** Runs until it has applied these rows, in the words `1 pet 1`, and stops it. */
  readonly well: (...rows: ReadonlyArray<string>) => Effect.Effect<void>
  /** Runs it, or another command, to its end, which is this error and this exit code, and gives what it printed last. */
  readonly fails: (tag: Tag, code: number, ...words: ReadonlyArray<string>) => Effect.Effect<string>
  readonly start: (...args: ReadonlyArray<string>) => Effect.Effect<Started, never, Scope.Scope>
  /** Types a command. */
  readonly type: (...words: ReadonlyArray<string>) => Effect.Effect<Printed>
  /** Types the command that is printed, word by word, or the one that has this in it; `fill` is what only the operator knows. */
  readonly runPrinted: (
    text: string,
    options?: { readonly having?: string; readonly fill?: Readonly<Record<string, string>> }
  ) => Effect.Effect<Printed>
  /** Sets what is printed as `setting: value`. */
  readonly setPrinted: (text: string, setting: string) => void
  /** Runs the SQL that this finds; `fill` is what only the operator knows, in the place of its …. */
  readonly queryPrinted: (text: string, pattern: RegExp, fill?: string) => Effect.Effect<void>
}

/** Everything goes with the scope. */
export const make = Effect.gen(function* (): Effect.fn.Return<Scene, never, Scope.Scope | TestPostgres | Broker> {
  const broker = yield* Broker
  const database = yield* Effect.orDie(TestPostgres.database)
  const place = { topic: `drill-${++scenes}`, partition: 0 }
  yield* Effect.orDie(broker.createTopic(place.topic))
  yield* Effect.orDie(database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)"))
  const variables: Record<string, string> = {
    FLUVIO_PG_DATABASE_URL: Redacted.value(database.url),
    FLUVIO_PG_TOPIC: place.topic,
    FLUVIO_PG_CONSUMER_ENDPOINT: broker.endpoint,
    // What may pass is given up soon.
    FLUVIO_PG_RETRY_MIN: "10 millis",
    FLUVIO_PG_RETRY_MAX: "100 millis",
    FLUVIO_PG_RETRY_TIMES: "2"
  }
  const set: Scene["set"] = (setting, value) => {
    if (value === undefined) delete variables[variableOf(setting)]
    else variables[variableOf(setting)] = value
  }
  const type: Scene["type"] = (...words) =>
    Effect.scoped(Effect.flatMap(start(words, { ...variables }), ({ ended }) => ended))
  const rows = database.query("SELECT * FROM pets ORDER BY id").pipe(
    Effect.map((all) => all.map((row) => Object.values(row).join(" "))),
    // Before the connector has created it.
    Effect.orElseSucceed((): ReadonlyArray<string> => [])
  )
  return {
    broker,
    database,
    place,
    append: (...transactions) =>
      Effect.asVoid(
        Effect.orDie(
          broker.append(
            place,
            transactions.flat().map((message) => ({ value: new TextEncoder().encode(events.eventJson(message)) }))
          )
        )
      ),
    set,
    type,
    start: (...args) => start(args, { ...variables }),
    well: (...expected) =>
      Effect.gen(function* () {
        const running = yield* start(["run"], { ...variables })
        const isThere = Effect.map(rows, (found) => JSON.stringify(found) === JSON.stringify(expected))
        yield* eventually(Effect.map(isThere, (is) => is || running.hasEnded()))
        if (running.hasEnded()) assert.fail((yield* running.ended).err)
        const { code, err } = yield* running.stop
        assert.strictEqual(code, 0, err)
        assert.deepStrictEqual(yield* rows, expected)
      }).pipe(Effect.scoped),
    fails: (tag, code, ...words) =>
      Effect.gen(function* () {
        const running = yield* start(words.length === 0 ? ["run"] : words, { ...variables })
        yield* eventually(Effect.sync(running.hasEnded))
        const ended = yield* running.ended
        assert.strictEqual(ended.code, code, ended.err)
        const last = ended.err.slice(ended.err.lastIndexOf("fluvio-postgres-sink: "))
        if (!["ConnectorConfigError", "NotReady"].includes(tag)) assert.include(last, `see ${pageOf({ _tag: tag })}`)
        return last
      }).pipe(Effect.scoped),
    runPrinted: (text, { fill = {}, having = "" } = {}) => {
      let command = take(new RegExp(`\`fluvio-postgres-sink ([^\`]*${having}[^\`]*)\``), text)
      for (const [placeholder, value] of Object.entries(fill)) {
        assert.include(command, placeholder)
        command = command.replace(placeholder, value)
      }
      return Effect.tap(type(...command.split(" ")), ({ code, err }) =>
        Effect.sync(() => assert.strictEqual(code, 0, `${command}: ${err}`))
      )
    },
    setPrinted: (text, setting) => set(setting, take(new RegExp(`\`${setting}: ([^\`]+)\``), text)),
    queryPrinted: (text, pattern, fill = "…") =>
      Effect.asVoid(Effect.orDie(database.query(take(pattern, text).replace("…", fill))))
  }
})
