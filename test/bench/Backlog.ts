/** A workload done on the source: its changes wait in a topic, and once more in a slot for each native drain. */
import { Effect, Fiber } from "effect"
import * as Inbound from "../../layers/embedded/Inbound.ts"
import { connect, type TestDatabase } from "../postgres.ts"
import { assertContent, contentOf, createDatabase, firstRow, type Lab } from "./Lab.ts"
import type { Workload } from "./Workload.ts"

/** Holds one row, written behind the work: where it is visible, everything before it is. */
export const marker = "bench_marker"

export const publication = "bench"

export interface Backlog {
  readonly workload: Workload
  readonly topic: string
  readonly records: number
  /** Values of the first records, for as many changes as were asked for. */
  readonly sample: ReadonlyArray<Uint8Array>
  readonly source: TestDatabase
  /** Slots that still hold the whole work. */
  readonly slots: ReadonlyArray<string>
  /** Database of the target that holds what the source held before the work; every drain gets a copy. */
  readonly template: string
  readonly content: string
}

const isChange = /"type":"(?:insert|update|delete)"/

/** The original inbound connector's producer sends batches of 16 KiB. */
const recordsPerBatch = 60

export const make = Effect.fn("Backlog.make")(function* (
  lab: Lab,
  workload: Workload,
  { rounds, sampleChanges }: { readonly rounds: number; readonly sampleChanges: number }
) {
  const { name, procedure, setUp, tables } = workload
  const source = yield* connect(name, yield* createDatabase(lab.source, name))
  const template = `${name}_before`
  const templateUrl = yield* createDatabase(lab.target, template)
  /** A template must have no connection. */
  const before = yield* Effect.scoped(
    Effect.gen(function* () {
      const copy = yield* connect(template, templateUrl)
      for (const { query } of [source, copy]) {
        for (const statement of [...setUp, `CREATE TABLE ${marker} (id int PRIMARY KEY)`]) yield* query(statement)
        yield* query("VACUUM (FREEZE, ANALYZE)")
      }
      return yield* contentOf(copy, tables)
    })
  )
  yield* assertContent(`the copy of ${name}`, source, tables, before)

  yield* source.query(`CREATE PUBLICATION ${publication} FOR ALL TABLES`)
  const slots = Array.from({ length: rounds }, (_, round) => `${name}_native_${round}`)
  const inboundSlot = `${name}_inbound`
  for (const slot of [...slots, inboundSlot]) {
    yield* Effect.acquireRelease(
      source.query(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`),
      // A drain that failed may have left its walsender at the slot.
      () =>
        Effect.orDie(
          source.query(
            `SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '${slot}' AND active_pid IS NOT NULL;
             SELECT pg_drop_replication_slot('${slot}')`
          )
        )
    )
  }
  const topic = name.replaceAll("_", "-")
  yield* lab.broker.createTopic(topic)
  const sample: Array<Uint8Array> = []
  let records = 0
  let sampled = 0
  const inbound = yield* Inbound.make({ url: source.url, publication, slot: inboundSlot })
  const send: Inbound.Send<unknown, never> = (values) => {
    for (let i = 0; sampled < sampleChanges && i < values.length; i++) {
      sample.push(values[i])
      if (isChange.test(Buffer.from(values[i]).subarray(0, 200).toString())) sampled++
    }
    records += values.length
    return lab.broker.append(
      { topic, partition: 0 },
      values.map((value) => ({ key: undefined, value: Buffer.from(value) })),
      { batch: recordsPerBatch }
    )
  }
  // The topic is filled while the source is at work: there is no need to wait for one and then for the other.
  const filling = yield* Effect.forkScoped(inbound.run(send))

  yield* source.query(procedure)
  yield* source.query("SET synchronous_commit = off")
  yield* source.query("CALL bench_work()")
  yield* source.query("SET synchronous_commit = on")
  yield* source.query(`INSERT INTO ${marker} VALUES (1)`)
  const [{ lsn }] = yield* source.query("SELECT pg_current_wal_flush_lsn() AS lsn")
  const isSent = `SELECT FROM pg_replication_slots WHERE slot_name = '${inboundSlot}' AND confirmed_flush_lsn >= '${lsn}'`
  yield* Effect.raceFirst(Fiber.join(filling), firstRow(source, isSent))
  yield* Fiber.interrupt(filling)
  return {
    workload,
    topic,
    records,
    sample,
    source,
    slots,
    template,
    content: yield* contentOf(source, tables)
  } satisfies Backlog
})
