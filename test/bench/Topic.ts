/** Topics written by hand, where the shape of the transactions matters and not what they do to a table. */
import { Effect } from "effect"
import type { BrokerShape } from "../../layers/embedded/Broker.ts"
import { begin, commit, eventJson, insert, int4, type MessageFixture, relation, relationOf, text } from "../events.ts"

/** The table that the rows of these topics go to. */
export const table = "CREATE TABLE bench_events (id int PRIMARY KEY, kind int, name text, note text)"

const shape = relationOf({
  name: "bench_events",
  columns: [
    { name: "id", isKey: true, typeId: 23, typeModifier: -1 },
    { name: "kind", isKey: false, typeId: 23, typeModifier: -1 },
    { name: "name", isKey: false, typeId: 25, typeModifier: -1 },
    { name: "note", isKey: false, typeId: 25, typeModifier: -1 }
  ]
})

const firstLsn = 24_096_440
const recordsPerBatch = 60

export interface Topic {
  readonly name: string
  /** Where the next record will be. */
  readonly end: number
  /** Appends transactions of new rows. The first transaction of the topic describes the table. */
  append(transactions: number, rows: number): Effect.Effect<void, Effect.Error<ReturnType<BrokerShape["append"]>>>
}

export const make = Effect.fn("Topic.make")(function* (broker: BrokerShape, name: string) {
  yield* broker.createTopic(name)
  let end = 0
  let transaction = 0
  let id = 0
  let batch: Array<{ key: undefined; value: Buffer }> = []
  const push = (message: MessageFixture) => {
    batch.push({ key: undefined, value: Buffer.from(eventJson(message, firstLsn + transaction)) })
    end++
  }
  const flush = Effect.suspend(() => {
    const full = batch
    batch = []
    return broker.append({ topic: name, partition: 0 }, full, { batch: recordsPerBatch })
  })
  const topic: Topic = {
    name,
    get end() {
      return end
    },
    append: Effect.fnUntraced(function* (transactions, rows) {
      for (let t = 0; t < transactions; t++) {
        transaction++
        // The commit time rises with the LSN, or the source would seem rewound.
        const timestamp = 690_913_417_000_000n + BigInt(transaction)
        push(begin(firstLsn + transaction, { timestamp, xid: transaction }))
        if (transaction === 1) push(relation(shape))
        for (let row = 0; row < rows; row++) {
          id++
          push(
            insert(shape.id, [
              int4(id),
              int4(id % 9973),
              text(`event ${id}`),
              text(`a somewhat longer note, number ${id}`)
            ])
          )
          if (batch.length >= 20_000) yield* flush
        }
        push(commit(firstLsn + transaction, { timestamp }))
      }
      yield* flush
    })
  }
  return topic
})
