import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { chmod, mkdtemp, readdir, rm } from "node:fs/promises"
import { connect as dial } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import type { DemoResult } from "../../../layers/demo/Demo.ts"
import { connect } from "../../postgres.ts"

/** A run takes some 15 s, and several times that beside other tests. */
const timeout = 300_000

const main = fileURLToPath(new URL("../../../layers/main.ts", import.meta.url))

/** Waits for a condition that an operating system process brings about, which has no event to wait for. */
const eventually = async (what: string, condition: () => boolean | Promise<boolean>) => {
  const deadline = Date.now() + 120_000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`${what} did not come about`)
    await sleep(20)
  }
}

const isOpen = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = dial(port, "127.0.0.1")
    socket.once("connect", () => {
      socket.destroy()
      resolve(true)
    })
    socket.once("error", () => resolve(false))
  })

const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const numbersIn = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map(([, found]) => Number(found))

/** The demo through the executable, with a folder of its own for whatever is temporary. */
const running = (...args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const folder = await mkdtemp(join(tmpdir(), "demo-"))
      // The servers may run as another user than we do.
      await chmod(folder, 0o755)
      const child = spawn(process.execPath, [main, "demo", ...args], {
        stdio: ["pipe", "pipe", "pipe"],
        env: { ...process.env, TMPDIR: folder }
      })
      const demo = { child, folder, out: "", err: "", exit: once(child, "close") }
      child.stdout.setEncoding("utf8").on("data", (text: string) => (demo.out += text))
      child.stderr.setEncoding("utf8").on("data", (text: string) => (demo.err += text))
      return demo
    }),
    ({ child, exit, folder }) =>
      Effect.promise(async () => {
        child.kill("SIGTERM")
        await exit
        await rm(folder, { recursive: true })
      })
  ).pipe(
    Effect.map((demo) => ({
      says: (pattern: RegExp) =>
        Effect.promise(() =>
          eventually(`${pattern} in\n${demo.out}${demo.err}`, () => {
            if (demo.child.exitCode !== null) throw new Error(`the demo has ended:\n${demo.out}${demo.err}`)
            return pattern.test(demo.out + demo.err)
          })
        ),
      pressEnter: Effect.sync(() => demo.child.stdin.write("\n")),
      signal: (name: NodeJS.Signals) => Effect.sync(() => demo.child.kill(name)),
      /** Waits for the end, and that nothing is left: neither servers, nor a sink, nor a temporary file. */
      end: Effect.promise(async () => {
        const [code] = await demo.exit
        const text = demo.out + demo.err
        const ports = numbersIn(text, /(?:127\.0\.0\.1:| and :)(\d+)/g)
        const pids = numbersIn(text, /\((\d+)\)/g)
        assert.isAbove(pids.length, 0)
        await eventually("the end of the sink", () => !pids.some(isAlive))
        await eventually("an empty folder", async () => (await readdir(demo.folder)).length === 0)
        for (const port of ports) assert.isFalse(await isOpen(port))
        return { code, out: demo.out, err: demo.err }
      }),
      urls: Effect.sync(() => [...demo.out.matchAll(/psql '([^']+)'/g)].map(([, url]) => Redacted.make(url)))
    }))
  )

const resultOf = (text: string) => JSON.parse(text.trimEnd().split("\n").at(-1) ?? "") as DemoResult

describe("demo", () => {
  it.live(
    "replicates the workload through two kills without a difference, and leaves nothing behind",
    () =>
      Effect.gen(function* () {
        const demo = yield* running("--json")
        const { code, out } = yield* demo.end
        assert.strictEqual(code, 0)
        const result = resultOf(out)
        assert.deepInclude(result, { ok: true, tables: 8, kills: 2, differences: 0, driver: "wire" })
        assert.isAbove(result.rows, 10_000)
        assert.isAbove(result.changes, 40_000)
        assert.isAbove(result.records, result.changes)
      }),
    timeout
  )

  it.live(
    "keeps running to be played with, also when the sink stops, and ends with Ctrl-C",
    () =>
      Effect.gen(function* () {
        const demo = yield* running("--serve", "--driver", "client")
        yield* demo.says(/Ctrl-C/)
        const [sourceUrl, targetUrl] = yield* demo.urls
        const source = yield* connect("source", sourceUrl)
        const target = yield* connect("target", targetUrl)
        yield* source.query("CREATE TABLE hello (id int PRIMARY KEY, word text); INSERT INTO hello VALUES (1, 'world')")
        const arrived = target.query("TABLE hello").pipe(Effect.catch(() => Effect.succeed([])))
        yield* Effect.promise(() =>
          eventually("the row in the target", async () => (await Effect.runPromise(arrived)).length > 0)
        )
        assert.deepStrictEqual(yield* arrived, [{ id: "1", word: "world" }])

        // What stops the sink is resolved as it says, and then it goes on.
        yield* target.query("CREATE TABLE bound (id int PRIMARY KEY CHECK (id < 2))")
        yield* source.query("CREATE TABLE bound (id int PRIMARY KEY); INSERT INTO bound VALUES (1), (2)")
        yield* demo.says(
          /the sink has stopped[^]*public\.bound[^]*check violation[^]*correct the row or the constraint/
        )
        yield* target.query("ALTER TABLE bound DROP CONSTRAINT bound_id_check")
        yield* demo.pressEnter
        yield* demo.says(/the sink has stopped[^]*started it again/)
        yield* Effect.promise(() =>
          eventually(
            "the rows in the target",
            async () => (await Effect.runPromise(target.query("TABLE bound"))).length === 2
          )
        )

        yield* demo.signal("SIGINT")
        const { code, err, out } = yield* demo.end
        assert.strictEqual(code, 0)
        assert.strictEqual(err, "")
        assert.match(out, /0 differences · 8 tables · .* · 2 kills/)
        const own = out.slice(0, out.indexOf("Ctrl-C")).split("\n")
        assert.isAbove(own.length, 20)
        for (const line of own) assert.isBelow(line.length, 80, line)
      }),
    timeout
  )

  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    it.live(
      `leaves nothing behind after ${signal} in the middle of its work`,
      () =>
        Effect.gen(function* () {
          const demo = yield* running()
          yield* demo.says(/killed the sink/)
          yield* demo.signal(signal)
          const { code } = yield* demo.end
          assert.strictEqual(code, signal === "SIGKILL" ? null : 0)
        }),
      timeout
    )
  }
})
