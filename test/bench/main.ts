/**
 * `npm run bench`: this connector beside PostgreSQL's own apply worker, beside one commit per event, and beside COPY, on
 * servers and a broker that it starts itself.
 *
 *   --quick           smaller backlogs, within two minutes on two cores
 *   --only a,b        some of: tpcb, insert, update_delete, latency, memory
 *   --json            ends with one line of JSON
 *
 * The picture goes to `bench-results/drain.svg`, the JSON beside it.
 */
import { Console, Effect } from "effect"
import { mkdir, writeFile } from "node:fs/promises"
import { join, resolve } from "node:path"
import { parseArgs } from "node:util"
import { connect } from "../postgres.ts"
import * as Backlog from "./Backlog.ts"
import * as Drain from "./Drain.ts"
import * as Lab from "./Lab.ts"
import * as Latency from "./Latency.ts"
import * as Memory from "./Memory.ts"
import * as Report from "./Report.ts"
import * as Workload from "./Workload.ts"

const parts = ["tpcb", "insert", "update_delete", "latency", "memory"] as const
type Part = (typeof parts)[number]

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    only: { type: "string" }
  }
})
const isPart = (name: string): name is Part => parts.some((part) => part === name)
const wanted = values.only?.split(",") ?? parts
const isWanted = (part: Part) => wanted.includes(part)
const unknown = wanted.filter((name) => !isPart(name))

const size = values.quick
  ? {
      tpcb: Workload.tpcb(3, 70_000),
      insert: Workload.inserts(50_000),
      updateDelete: Workload.updatesAndDeletes(200_000, 22_000),
      rounds: 3,
      sampleChanges: 500,
      latencySeconds: 2,
      transactionRows: 200_000,
      records: 250_000
    }
  : {
      tpcb: Workload.tpcb(10, 150_000),
      insert: Workload.inserts(150_000),
      updateDelete: Workload.updatesAndDeletes(1_000_000, 60_000),
      rounds: 3,
      sampleChanges: 5_000,
      latencySeconds: 10,
      transactionRows: 1_000_000,
      records: 2_000_000
    }

const compared = Effect.fnUntraced(function* (lab: Lab.Lab, workload: Workload.Workload) {
  yield* Console.error(`${workload.name}: filling the backlog with ${workload.changes.toLocaleString("en")} changes`)
  const backlog = yield* Backlog.make(lab, workload, size)
  const comparison = yield* Drain.compare(lab, backlog, workload.name === "insert")
  yield* lab.broker.deleteTopic(backlog.topic)
  return comparison
}, Effect.scoped)

const bench = Effect.gen(function* () {
  const started = performance.now()
  const lab = yield* Lab.make
  const [{ server_version }] = yield* Effect.flatMap(connect("target", lab.target.url()), ({ query }) =>
    query("SHOW server_version")
  )
  const comparisons: Array<Drain.Comparison> = []
  for (const workload of [size.tpcb, size.insert, size.updateDelete]) {
    if (isWanted(workload.name)) comparisons.push(yield* compared(lab, workload))
  }
  const latencies: Array<Latency.Latency> = []
  if (isWanted("latency")) {
    for (const rate of [1_000, 5_000]) {
      yield* Console.error(`latency at ${rate} changes/s`)
      latencies.push(yield* Latency.measure(lab, rate, size.latencySeconds))
    }
  }
  const memories: Array<Memory.Memory> = []
  let start: Report.Report["start"]
  if (isWanted("memory")) {
    yield* Console.error("memory and start-up")
    memories.push(yield* Memory.ofOneTransaction(lab, size.transactionRows))
    const { long, memory, short } = yield* Memory.ofBacklogAndStart(lab, size.records, size.rounds)
    memories.push(memory)
    start = { long, short }
  }
  const report: Report.Report = {
    isQuick: values.quick,
    postgres: `PostgreSQL ${server_version}`,
    comparisons,
    latencies,
    memories,
    start,
    seconds: (performance.now() - started) / 1000
  }
  const folder = resolve(import.meta.dirname, "../../bench-results")
  const json = JSON.stringify(Report.json(report))
  yield* Effect.promise(async () => {
    await mkdir(folder, { recursive: true })
    await writeFile(join(folder, "bench.json"), `${json}\n`)
    if (comparisons.length > 0) await writeFile(join(folder, "drain.svg"), Report.picture(report))
  })
  yield* Console.log(Report.table(report))
  if (values.json) yield* Console.log(json)
}).pipe(Effect.scoped)

if (unknown.length > 0) {
  console.error(`--only knows ${parts.join(", ")}, not ${unknown.join(", ")}`)
  process.exitCode = 1
} else {
  Effect.runPromise(bench).catch((cause: unknown) => {
    console.error(cause)
    process.exitCode = 1
  })
}
