/** The executable, to be run in a process of its own as an operator would. */
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

export const executable = fileURLToPath(new URL("../layers/main.ts", import.meta.url))

/** Compiled code is kept between the many processes that tests start, each of which takes a quarter less time so. */
const compileCache = fileURLToPath(new URL("../node_modules/.cache/compile", import.meta.url))

const [firstLine] = readFileSync(executable, "utf8").split("\n", 1)

/** The options for Node that its first line names, and without which it needs more memory. */
export const nodeOptions: ReadonlyArray<string> = firstLine.match(/--\S+/g) ?? []

export interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

export interface Running {
  readonly ended: Effect.Effect<Ended>
  readonly signal: (name: NodeJS.Signals) => Effect.Effect<void>
  readonly err: () => string
}

/** Starts the executable in a process of its own, without the environment of this one. */
export const start = (
  args: ReadonlyArray<string>,
  variables: { readonly [name: string]: string } = {}
): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, args, {
        env: { PATH: process.env["PATH"], NODE_COMPILE_CACHE: compileCache, ...variables },
        stdio: ["ignore", "pipe", "pipe"]
      })
      const text = { out: "", err: "" }
      child.stdout.setEncoding("utf8").on("data", (chunk: string) => (text.out += chunk))
      child.stderr.setEncoding("utf8").on("data", (chunk: string) => (text.err += chunk))
      const ended = new Promise<Ended>((resolve) => child.once("close", (code) => resolve({ code, ...text })))
      return { child, ended, text }
    }),
    ({ child, ended }) =>
      Effect.promise(() => {
        child.kill("SIGKILL")
        return ended
      })
  ).pipe(
    Effect.map(({ child, ended, text }) => ({
      ended: Effect.promise(() => ended),
      signal: (name) => Effect.sync(() => void child.kill(name)),
      err: () => text.err
    }))
  )

/** Runs a command to its end. */
export const invoke = (args: ReadonlyArray<string>, variables?: { readonly [name: string]: string }) =>
  Effect.flatMap(start([executable, ...args], variables), (running) => running.ended)
