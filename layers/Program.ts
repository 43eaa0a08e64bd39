/** The program: the command line on Node, with the real parts. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { readFileSync } from "node:fs"
import { findPackageJSON } from "node:module"
import * as Cli from "../src/Cli.ts"
import * as Connector from "../src/Connector.ts"
import * as ConfigFile from "./ConfigFile.ts"
import * as Failpoint from "./Failpoint.ts"
import * as Live from "./Live.ts"

/** Of the nearest package.json, which is this package's from the sources and from `dist` alike. */
const version = (): string => {
  const path = findPackageJSON("..", import.meta.url)
  const { version } = JSON.parse(readFileSync(path ?? "package.json", "utf8")) as { readonly version: string }
  return version
}

export const main = () =>
  Cli.run({
    version: version(),
    variables: process.env,
    isTerminal: process.stderr.isTTY,
    readConfigFile: (path) => ConfigFile.load(path, process.env),
    run: Effect.provide(
      Connector.run(() => Effect.void),
      Layer.provideMerge(Live.layer, Failpoint.layer(process.env))
    )
  })(process.argv.slice(2)).pipe(
    Effect.provide(NodeServices.layer),
    NodeRuntime.runMain({ disableErrorReporting: true, teardown: Cli.teardown })
  )
