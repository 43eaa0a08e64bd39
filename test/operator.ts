/** A topic, a target, connectors in processes of their own, and an operator who types commands about them. */
import { Effect, Redacted, type Scope } from "effect"
import * as Broker from "../layers/embedded/Broker.ts"
import * as events from "./events.ts"
import { type Ended, executable, invoke, type Running, start } from "./executable.ts"
import { type TestDatabase, TestPostgres } from "./postgres.ts"

export interface Operator {
  readonly broker: Broker.Broker["Service"]
  readonly database: TestDatabase
  readonly place: { readonly topic: string; readonly partition: number }
  /** Writes events behind what the topic holds. */
  readonly append: (messages: ReadonlyArray<events.MessageFixture>) => Effect.Effect<void>
  /** Starts `run`, with more flags if there are any. */
  readonly run: (...flags: ReadonlyArray<string>) => Effect.Effect<Running, never, Scope.Scope>
  /** The same with more variables in its environment. */
  readonly runWith: (
    more: { readonly [name: string]: string },
    ...flags: ReadonlyArray<string>
  ) => Effect.Effect<Running, never, Scope.Scope>
  /** Types a command, and waits for its end. */
  readonly command: (...words: ReadonlyArray<string>) => Effect.Effect<Ended>
  /** The same with `--json`, and what it printed. It dies when the command failed. */
  readonly json: (...words: ReadonlyArray<string>) => Effect.Effect<unknown>
}

/** Everything goes with the scope. */
export const make = Effect.fnUntraced(function* (
  topic = "pets",
  /** More of the environment of every process. */
  more: { readonly [name: string]: string } = {}
): Effect.fn.Return<Operator, never, Scope.Scope | TestPostgres> {
  const broker = yield* Broker.make().pipe(Effect.orDie)
  const database = yield* TestPostgres.database.pipe(Effect.orDie)
  const place = { topic, partition: 0 }
  yield* broker.createTopic(topic).pipe(Effect.orDie)
  const variables = {
    FLUVIO_PG_DATABASE_URL: Redacted.value(database.url),
    FLUVIO_PG_TOPIC: topic,
    FLUVIO_PG_CONSUMER_ENDPOINT: broker.endpoint,
    ...more
  }
  const command = (...words: ReadonlyArray<string>) => Effect.scoped(invoke(words, variables))
  return {
    broker,
    database,
    place,
    append: (messages) =>
      broker
        .append(
          place,
          messages.map((message) => ({ value: new TextEncoder().encode(events.eventJson(message)) }))
        )
        .pipe(Effect.orDie),
    runWith: (more, ...flags) => start([executable, "run", ...flags], { ...variables, ...more }),
    run: (...flags) => start([executable, "run", ...flags], variables),
    command,
    json: (...words) =>
      Effect.flatMap(command(...words, "--json"), ({ code, err, out }) =>
        code === 0 ? Effect.sync(() => JSON.parse(out) as unknown) : Effect.die(new Error(`exit ${code}: ${err}`))
      )
  }
})
