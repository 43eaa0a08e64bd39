/** A source database whose changes go into a topic as the inbound connector sends them. */
import { Effect } from "effect"
import type { BrokerError } from "../../layers/embedded/Broker.ts"
import * as Inbound from "../../layers/embedded/Inbound.ts"
import { firstRow, type Lab } from "../bench/Lab.ts"
import { connect } from "../postgres.ts"

/** Takes the values of consecutive records into the topic. */
export type Append<E = BrokerError> = (values: ReadonlyArray<Uint8Array>) => Effect.Effect<unknown, E>

/** The original inbound connector's producer sends batches of 16 KiB. */
const recordsPerBatch = 60

/** Creates the database, with what its changes need to be seen, and the topic of the same name. */
export const make = Effect.fn("Source.make")(function* (lab: Lab, name: string, setUp: ReadonlyArray<string>) {
  const database = yield* connect(name, yield* lab.source.createDatabase(name))
  for (const statement of setUp) yield* database.query(statement)
  const topic = name.replaceAll("_", "-")
  yield* lab.broker.createTopic(topic)
  const inbound = yield* Inbound.make({ url: database.url, publication: "load", slot: name })
  const place = { topic, partition: 0 }

  const append: Append = (values) =>
    lab.broker.append(
      place,
      values.map((value) => ({ key: undefined, value: Buffer.from(value) })),
      { batch: recordsPerBatch }
    )

  return {
    database,
    topic,
    append,
    /** Sends all that is committed so far. The offset of the last record. */
    send: <E>(to: Append<E>) =>
      Effect.gen(function* () {
        const [row] = yield* database.query("SELECT pg_current_wal_flush_lsn() AS lsn")
        const isSent = `SELECT FROM pg_replication_slots WHERE slot_name = '${name}' AND confirmed_flush_lsn >= '${row?.["lsn"]}'`
        yield* Effect.raceFirst(
          inbound.run((values) => Effect.asVoid(to(values))),
          firstRow(database, isSent)
        )
        const { end } = yield* lab.broker.bounds(place)
        return end - 1
      })
  }
})
