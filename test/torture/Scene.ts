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

/** As long as asked for, and nothing that PostgreSQL could compress. */
const nameOf = (id: number, length: number) =>
  createHash("shake256", { outputLength: Math.ceil((length * 3) / 4) })
    .update(String(id))
    .digest("base64")
    .slice(0, length)

const encode = (messages: ReadonlyArray<events.MessageFixture>) =>
  messages.map((message) => ({ value: Buffer.from(events.eventJson(message)) }))

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
  /** A row's name by its id, and the offset of its Commit. */
  const rows: Array<{ readonly name: string; readonly offset: number }> = []
  let transactions = 0
  let records = 0

  const transaction = (changes: ReadonlyArray<events.MessageFixture>) => {
    const lsn = 1000 + ++transactions
    const messages = [events.begin(lsn), ...changes, events.commit(lsn)]
    records += messages.length
    return encode(messages)
  }

  /** Waits until it is so; when it does not become so, the connector's log tells why. */
  const soon = <E, R>(check: Effect.Effect<boolean, E, R>) =>
    until(check).pipe(
      Effect.timeoutOrElse({
        duration: patience,
        orElse: () => Effect.flatMap(connector.log, (log) => Effect.die(new Error(log.join("\n"))))
      })
    )

  const atEnd = Effect.suspend(() =>
    soon(
      Effect.map(
        database.query(`SELECT FROM fluvio.offset WHERE current_offset = ${records - 1}`),
        ({ length }) => length === 1
      )
    )
  )

  return {
    connector,
    soon,
    /** Appends this many transactions, each with a row whose name is of this length. */
    append: (count: number, length = 10) => {
      const values = Array.from({ length: count }, () => {
        const id = rows.length
        const name = nameOf(id, length)
        const encoded = transaction([
          events.relation(keyless),
          events.insert(keyless.id, [events.int4(id), events.text(name)])
        ])
        rows.push({ name, offset: records - 1 })
        return encoded
      })
      return broker.append(place, values.flat())
    },
    appendEmpty: Effect.suspend(() => broker.append(place, transaction([]))),
    /** Waits until the connector has said it this many times. */
    says: (text: string, times = 1) =>
      soon(Effect.map(connector.log, (log) => log.filter((line) => line.includes(text)).length >= times)),
    /** Whether the target shows the rows up to its position, and no others. */
    isWhole: Effect.map(
      database.query("SELECT current_offset, (SELECT count(*) FROM public.pets) AS rows FROM fluvio.offset"),
      ([row]) => Number(row?.["rows"]) === rows.filter(({ offset }) => offset <= Number(row?.["current_offset"])).length
    ),
    /** Waits until the position is at the end. */
    atEnd,
    /** What there is at the end, and what should be. */
    result: Effect.gen(function* () {
      yield* atEnd
      return {
        found: yield* database.query("SELECT id, md5(name) AS name FROM public.pets ORDER BY id"),
        expected: rows.map(({ name }, id) => ({ id: String(id), name: createHash("md5").update(name).digest("hex") }))
      }
    })
  }
})
