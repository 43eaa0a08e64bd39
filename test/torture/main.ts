/** `npm run torture -- --seed N --minutes M [--json]` */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Clock, Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { appendFileSync } from "node:fs"
import { faultClasses } from "./Faults.ts"
import * as Torture from "./Torture.ts"

const print = Effect.fnUntraced(function* (report: Torture.Report) {
  yield* Effect.forEach(report.evidence, (line) => Console.error(line), { discard: true })
  for (const faultClass of faultClasses) {
    yield* Console.log(`${faultClass}: ${Torture.faultCount(report, faultClass)} faults`)
    for (const [name, count] of Object.entries(report.faults[faultClass]).sort()) {
      yield* Console.log(`  ${String(count).padStart(4)}  ${name}`)
    }
  }
  yield* Console.log(
    `${report.transactions} transactions, ${report.changes} changes sent, ${report.restarts} restarts, ${report.reads} reads of the invariant, ${report.comparisons} comparisons of ${report.rows} rows`
  )
  yield* Effect.forEach(report.misbehaviour, (line) => Console.log(line), { discard: true })
  yield* Console.log(
    `lost ${report.lost}, doubled ${report.doubled}, torn ${report.torn}: ${Torture.isOk(report) ? "all is well" : "FAILED"} with seed ${report.seed}`
  )
})

/** The last line of the output, for programs. */
const summary = (report: Torture.Report) => {
  const byClass = Object.fromEntries(faultClasses.map((name) => [name, Torture.faultCount(report, name)]))
  const total = Object.values(byClass).reduce((sum, count) => sum + count, 0)
  const { changes, doubled, lost, minutes, misbehaviour, restarts, seed, torn, transactions } = report
  const ok = Torture.isOk(report)
  const faults = { total, ...byClass }
  return { seed, minutes, faults, transactions, changes, restarts, lost, doubled, torn, misbehaviour, ok }
}

const torture = Command.make(
  "torture",
  {
    seed: Flag.Int("seed").pipe(Flag.withDescription("Decides faults and workload; random by default"), Flag.optional),
    minutes: Flag.Finite("minutes").pipe(Flag.withDescription("How long faults go on"), Flag.withDefault(5)),
    only: Flag.String("only").pipe(
      Flag.withDescription("Only faults whose `class: name` holds this text"),
      Flag.withDefault("")
    ),
    log: Flag.String("log").pipe(Flag.withDescription("File that the connectors' logs are appended to"), Flag.optional),
    json: Flag.Boolean("json").pipe(Flag.withDescription("End with a line of JSON"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function* ({ json, log, minutes, only, seed }) {
    const now = yield* Clock.currentTimeMillis
    const report = yield* Torture.run({
      seed: Option.getOrElse(seed, () => now % 1_000_000),
      minutes,
      only,
      ...(Option.isSome(log) ? { onLine: (line: string) => appendFileSync(log.value, `${line}\n`) } : {})
    })
    yield* print(report)
    if (json) yield* Console.log(JSON.stringify(summary(report)))
    if (!Torture.isOk(report)) process.exitCode = 1
  })
).pipe(Command.withDescription("Prove the connector's promise by breaking everything around it"))

torture.pipe(Command.run({ version: "0.1.0" }), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
