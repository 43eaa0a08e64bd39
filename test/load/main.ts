/** `npm run load -- [--only a,b] [--quick] [--json]`: the connector under loads that ask the most of it, on parts that are started for it. */
import { NodeServices } from "@effect/platform-node"
import { Console, Effect, Logger } from "effect"
import { cpus } from "node:os"
import { parseArgs } from "node:util"
import * as Lab from "../bench/Lab.ts"
import { connect } from "../postgres.ts"
import { type Outcome, table } from "./Outcome.ts"
import * as Scenarios from "./Scenarios.ts"

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    only: { type: "string" }
  }
})
const isName = (name: string): name is Scenarios.Name => Scenarios.names.some((known) => known === name)
const wanted = values.only?.split(",") ?? Scenarios.names
const unknown = wanted.filter((name) => !isName(name))

const load = Effect.gen(function* () {
  const lab = yield* Lab.make
  const database = yield* connect("target", lab.target.url())
  const [version] = yield* database.query("SHOW server_version")
  const outcomes: { [name: string]: Outcome } = {}
  const failures: { [name: string]: string } = {}
  for (const name of Scenarios.names.filter((known) => wanted.includes(known))) {
    const started = performance.now()
    yield* Console.error(`${name} …`)
    yield* Scenarios.run(name, lab, values.quick ? Scenarios.quick : Scenarios.full).pipe(
      Effect.map((outcome) => void (outcomes[name] = outcome)),
      // One that fails does not keep the others from being shown.
      Effect.catch((error) => Effect.sync(() => void (failures[name] = error.message)))
    )
    const verdict = failures[name] === undefined ? "held" : `FAILED: ${failures[name]}`
    yield* Console.error(`${name} ${verdict} (${((performance.now() - started) / 1000).toFixed(1)} s)`)
  }
  const ok = Object.keys(failures).length === 0
  if (!ok) process.exitCode = 1
  const machine = {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    node: process.versions.node,
    postgres: version?.["server_version"]
  }
  yield* Console.log(table(outcomes))
  if (values.json) {
    const figures = Object.fromEntries(Object.entries(outcomes).map(([name, outcome]) => [name, outcome.figures]))
    yield* Console.log(JSON.stringify({ ok, quick: values.quick, machine, ...figures, failures }))
  }
}).pipe(Effect.scoped, Effect.provide(NodeServices.layer), Effect.provideService(Logger.LogToStderr, true))

if (unknown.length > 0) {
  console.error(`--only knows ${Scenarios.names.join(", ")}, not ${unknown.join(", ")}`)
  process.exitCode = 1
} else {
  Effect.runPromise(load).catch((cause: unknown) => {
    console.error(cause)
    process.exitCode = 1
  })
}
