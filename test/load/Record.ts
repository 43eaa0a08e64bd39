/** Records as large as a Fluvio server takes: a batch of its own each, many times what the reader asks for. */
import { Effect } from "effect"
import * as Producer from "../../layers/fluvio/Producer.ts"
import { BenchmarkFailed, type Lab, now, secondsBetween } from "../bench/Lab.ts"
import { connect, type TestDatabase } from "../postgres.ts"
import { mebibytes, type Outcome, rounded } from "./Outcome.ts"
import * as Source from "./Source.ts"
import * as Subject from "./Subject.ts"

export interface RecordSize {
  /** Of the largest record, about; servers take batches of 32 MiB unless told otherwise. */
  readonly bytes: number
}

const table = "CREATE TABLE load_documents (id int PRIMARY KEY, title text, body text, scan bytea)"

/** Text that does not compress away. */
const text = (bytes: number, salt: string) =>
  `(SELECT string_agg(md5('${salt}' || n), '') FROM generate_series(1, ${Math.floor(bytes / 32)}) AS n)`

/** Each byte is two hexadecimal digits, and each of these is its number and a comma in the record: about 6.4 bytes. */
const scan = (bytes: number, salt: string) => `decode(${text((bytes / 6.4) * 2, salt)}, 'hex')`

/** Values of documents come and change; in the last step a large one is only left as it is. */
const steps = (bytes: number) => [
  `INSERT INTO load_documents VALUES (1, 'text', ${text(bytes, "first")}, NULL)`,
  `INSERT INTO load_documents VALUES (2, 'bytes', NULL, ${scan(bytes, "second")})`,
  `UPDATE load_documents SET body = ${text(bytes, "third")} WHERE id = 1`,
  `UPDATE load_documents SET scan = ${scan(bytes, "fourth")} WHERE id = 2`,
  "UPDATE load_documents SET title = title || ', changed'"
]

const digest = (database: TestDatabase) =>
  Effect.map(
    database.query(
      "SELECT id, title, length(body) AS body, md5(body), length(scan) AS scan, md5(scan) AS md5_scan FROM load_documents ORDER BY id"
    ),
    (rows) => JSON.stringify(rows)
  )

export const run = Effect.fn("Record.run")(function* (lab: Lab, { bytes }: RecordSize) {
  const source = yield* Source.make(lab, "load_record", [table])
  const target = yield* connect("target", yield* lab.target.createDatabase("load_record"))
  yield* target.query(table)
  for (const statement of steps(bytes)) yield* source.database.query(statement)

  // Through the server's own limits, unlike an append.
  const { endpoint } = lab.broker
  const producer = yield* Producer.make({ endpoint, topic: source.topic, partition: 0 })
  let largest = 0
  let total = 0
  const last = yield* source.send((values) => {
    for (const { length } of values) {
      largest = Math.max(largest, length)
      total += length
    }
    return producer.send(values.map((value) => ({ value })))
  })
  if (largest < bytes) {
    return yield* new BenchmarkFailed({ what: "record", reason: `the largest record has only ${largest} bytes` })
  }

  yield* Effect.logInfo(`${mebibytes(total)} MiB of records are in the topic`)

  // A real server cuts such a batch at what the reader asks for, which is 1 MiB at first.
  yield* lab.broker.setFaults({ cutAtMaxBytes: true })
  yield* Effect.addFinalizer(() => Effect.orDie(lab.broker.setFaults({ cutAtMaxBytes: false })))
  const begun = now()
  const connector = yield* Subject.start(source.topic, { endpoint, target })
  const seconds = secondsBetween(begun, yield* connector.applied(last))
  const { peak } = yield* connector.memory
  yield* connector.end

  const [expected, found] = yield* Effect.all([digest(source.database), digest(target)])
  if (expected !== found) return yield* new BenchmarkFailed({ what: "record", reason: `${found} ≠ ${expected}` })
  yield* lab.broker.deleteTopic(source.topic)
  return {
    load: `Records of up to ${(largest / 1e6).toFixed(1)} MB: a \`text\` and a \`bytea\` inserted and updated, and updates that leave them alone`,
    seen: `equal md5 on both sides; ${mebibytes(total)} MiB of records in ${seconds.toFixed(1)} s, start included`,
    peak,
    figures: {
      largest_record_bytes: largest,
      total_bytes: total,
      seconds: rounded(seconds),
      peak_rss_mb: mebibytes(peak)
    }
  } satisfies Outcome
}, Effect.scoped)
