/** The program: the command line on Node, with the real parts. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Layer, Schedule } from "effect"
import { readFileSync } from "node:fs"
import { hostname } from "node:os"
import { findPackageJSON } from "node:module"
import * as Cli from "../src/Cli.ts"
import * as Connector from "../src/Connector.ts"
import { ConnectorConfig } from "../src/ConnectorConfig.ts"
import * as Telemetry from "../src/Telemetry.ts"
import * as Progress from "../src/Progress.ts"
import * as ConfigFile from "./ConfigFile.ts"
import * as Failpoint from "./Failpoint.ts"
import * as Live from "./Live.ts"
import * as StatusLine from "./StatusLine.ts"

/** Of the nearest package.json, which is this package's from the sources and from `dist` alike. */
const version = (): string => {
  const path = findPackageJSON("..", import.meta.url)
  const { version } = JSON.parse(readFileSync(path ?? "package.json", "utf8")) as { readonly version: string }
  return version
}

/** Loaded only where somebody asks for it: it costs a start some time. */
const layerOtlp = Object.entries(process.env).some(([name, value]) => name.startsWith("OTEL_EXPORTER_OTLP_") && value)
  ? Layer.unwrap(
      Effect.map(
        Effect.promise(() => import("./observability/Otlp.ts")),
        (Otlp) => Otlp.layer({ serviceName: "fluvio-postgres-sink", serviceVersion: version() })
      )
    )
  : Layer.empty

/**
 * A person in front of a terminal sees how far catching up has come, and then how it goes; lines of the log stand above.
 */
const apply = (telemetry: Telemetry.Telemetry) => {
  if (!process.stderr.isTTY || process.env["TERM"] === "dumb") return Connector.run(() => Effect.void)
  const line = StatusLine.make(process.stderr)
  return Effect.gen(function* () {
    const console = yield* Console.Console
    const drawState = Effect.gen(function* () {
      // Catching up has a bar, which is drawn with each group.
      if (telemetry.state === "catching up" || telemetry.state === "starting") return
      yield* line.draw(Progress.renderState(telemetry.snapshot(yield* Telemetry.now), line.columns()), false)
    })
    yield* Effect.forkScoped(Effect.repeat(drawState, Schedule.spaced("1 second")))
    yield* Connector.run(Progress.make(line)).pipe(
      Effect.ensuring(line.end),
      Effect.provideService(Console.Console, line.above(console))
    )
  }).pipe(Effect.scoped)
}

/** Whoever asks over HTTP is answered from before the first connection until after the last word. */
const run = Effect.gen(function* () {
  const telemetry = yield* Telemetry.make
  const { listen } = (yield* ConnectorConfig).http
  // Loaded only where somebody asks for it, as the collector's part.
  if (listen !== undefined) yield* (yield* Effect.promise(() => import("./Listener.ts"))).serve(telemetry, listen)
  yield* Effect.provideService(apply(telemetry), Telemetry.Listening, telemetry)
}).pipe(Effect.scoped)

export const main = () =>
  Cli.run({
    version: version(),
    variables: process.env,
    isTerminal: process.stderr.isTTY,
    readConfigFile: (path, secrets) => ConfigFile.load(path, process.env, secrets),
    configFileSchema: ConfigFile.schema,
    live: Live.layer,
    run: run.pipe(
      Effect.provide(Layer.provideMerge(Live.layer, Failpoint.layer(process.env))),
      Effect.provideService(Telemetry.ThisProcess, {
        version: version(),
        host: hostname(),
        pid: process.pid,
        memory: process.memoryUsage.rss
      }),
      Effect.provide(layerOtlp)
    ),
    // Its parts are for development: they are loaded when asked for.
    demo: (options) =>
      Effect.flatMap(
        Effect.promise(() => import("./demo/Demo.ts")),
        ({ demo }) => demo(options)
      )
  })(process.argv.slice(2)).pipe(
    Effect.provide(NodeServices.layer),
    NodeRuntime.runMain({ disableErrorReporting: true, teardown: Cli.teardown })
  )
