/**
 * The executable on a topic of its own, for one fault at a time: each transaction inserts one row into a table without a
 * key, in which a row that was applied twice is there twice.
 */
import { Effect, type Redacted } from "effect"
import { createHash } from "node:crypto"
import * as Broker from "../../layers/embedded/Broker.ts"
import * as events from "../events.ts"
import type { TestDatabase } from "../postgres.ts"
import * as ConnectorProcess from "./ConnectorProcess.ts"
import { until } from "./Harness.ts"

const place = { topic: "pets", partition: 0 }

const { columns, ...relation } = events.relationOf({ replicaIdentity: "Nothing" })
const keyless = { ...relation, columns: columns.map((column) => ({ ...column, isKey: false })) }

const recordsPerTransaction = 4

/** As long as asked for, and nothing that PostgreSQL could compress. */
const nameOf = (id: number, length: number) =>
  createHash("shake256", { outputLength: Math.ceil((length * 3) / 4) })
    .update(String(id))
    .digest("base64")
    .slice(0, length)

const transaction = (id: number, length: number) =>
  [
    events.begin(1000 + id),
    events.relation(keyless),
    events.insert(keyless.id, [events.int4(id), events.text(nameOf(id, length))]),
    events.commit(1000 + id)
  ].map((message) => ({ value: Buffer.from(events.eventJson(message)) }))

export interface SceneOptions {
  readonly url: Redacted.Redacted<string>
  /** To look into the target by, past whatever the connector has to go through. */
  readonly database: TestDatabase
  readonly settings?: { readonly [variable: string]: string }
}

const patience = "30 seconds"

export const make = Effect.fn("Scene.make")(function* ({ database, settings = {}, url }: SceneOptions) {
  const broker = yield* Broker.make()
  yield* broker.createTopic(place.topic)
  const connector = yield* ConnectorProcess.make({
    name: "sink",
    url,
    settings: Effect.succeed({
      FLUVIO_PG_TOPIC: place.topic,
      FLUVIO_PG_CONSUMER_ENDPOINT: broker.endpoint,
      ...settings
    }),
    onLine: () => {}
  })
  const names: Array<string> = []

  /** Waits until it is so; when it does not become so, the connector's log tells why. */
  const soon = <E, R>(check: Effect.Effect<boolean, E, R>) =>
    until(check).pipe(
      Effect.timeoutOrElse({
        duration: patience,
        orElse: () => Effect.flatMap(connector.log, (log) => Effect.die(new Error(log.join("\n"))))
      })
    )

  return {
    connector,
    soon,
    /** Appends this many transactions, each with a row of this length. */
    append: (count: number, length = 10) => {
      const ids = Array.from({ length: count }, (_, index) => names.length + index)
      names.push(...ids.map((id) => nameOf(id, length)))
      return broker.append(
        place,
        ids.flatMap((id) => transaction(id, length))
      )
    },
    /** Waits until the connector has said it this many times. */
    says: (text: string, times = 1) =>
      soon(Effect.map(connector.log, (log) => log.filter((line) => line.includes(text)).length >= times)),
    /** Whether the target shows the transactions up to its position, and of no other anything. */
    isWhole: Effect.map(
      database.query(`
        SELECT (SELECT count(*) FROM public.pets) = sum(current_offset + 1) / ${recordsPerTransaction} AS whole
        FROM fluvio.offset
      `),
      ([row]) => row?.["whole"] === "t"
    ),
    /** Waits until the position is at the end, and gives what there is and what should be. */
    result: Effect.gen(function* () {
      const end = names.length * recordsPerTransaction - 1
      const isAtEnd = database.query(`SELECT FROM fluvio.offset WHERE current_offset = ${end}`)
      yield* soon(Effect.map(isAtEnd, ({ length }) => length === 1))
      return {
        found: yield* database.query("SELECT id, md5(name) AS name FROM public.pets ORDER BY id"),
        expected: names.map((name, id) => ({ id: String(id), name: createHash("md5").update(name).digest("hex") }))
      }
    })
  }
})
