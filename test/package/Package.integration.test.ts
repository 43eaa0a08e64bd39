/** What a user gets: the package as `npm pack` makes it, installed into empty folders. */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { execFile } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import * as Broker from "../../layers/embedded/Broker.ts"
import { exitCodes } from "../../src/stream/Outcome.ts"
import * as Pages from "../docs/Pages.ts"
import * as events from "../events.ts"
import { start } from "../executable.ts"
import { eventually } from "../pipeline.ts"
import { TestPostgres } from "../postgres.ts"

const run = promisify(execFile)

/** What each folder is installed with. */
const ways = { plain: [], omit: ["--omit=optional"], scripts: ["--ignore-scripts"] } as const
type Way = keyof typeof ways

/** The package, installed in each way once for all tests. */
class Installed extends Context.Service<Installed, { readonly folder: (way: Way) => string }>()("test/Installed") {
  static readonly layer = Layer.effect(
    Installed,
    Effect.gen(function* () {
      const root = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "package-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      )
      const folder = (way: Way) => join(root, way)
      yield* Effect.promise(async () => {
        await run("npm", ["pack", "--pack-destination", root], { cwd: Pages.root })
        const [packed] = readdirSync(root)
        const install = (way: Way) => {
          mkdirSync(folder(way))
          writeFileSync(join(folder(way), "package.json"), `{ "private": true, "type": "module" }`)
          const flags = ["--prefer-offline", "--no-audit", "--no-fund", "--prefix", folder(way), ...ways[way]]
          return run("npm", ["install", ...flags, join(root, packed)], { cwd: folder(way) })
        }
        await Promise.all([install("plain"), install("omit"), install("scripts")])
      })
      return Installed.of({ folder })
    })
  )

  static readonly folder = (way: Way) => Effect.map(Installed, ({ folder }) => folder(way))
}

const executable = (way: Way) =>
  Effect.map(Installed.folder(way), (folder) => join(folder, "node_modules/.bin/fluvio-postgres-sink"))

const order = (id: number) =>
  events
    .records(0, [
      events.begin(1000 + id),
      events.relation(events.relationOf({ name: "orders" })),
      events.insert(events.relationOf().id, [events.int4(id), events.text(`order ${id}`)]),
      events.commit(1000 + id)
    ])
    .map(({ value }) => ({ value }))

const place = { topic: "orders", partition: 0 }

/** A topic with one transaction, and a database that awaits it. */
const pair = Effect.gen(function* () {
  const broker = yield* Broker.make()
  const database = yield* TestPostgres.database
  yield* database.query("CREATE TABLE orders (id int PRIMARY KEY, name text)")
  yield* broker.createTopic(place.topic)
  const variables = {
    FLUVIO_PG_TOPIC: place.topic,
    FLUVIO_PG_CONSUMER_ENDPOINT: broker.endpoint,
    FLUVIO_PG_DATABASE_URL: Redacted.value(database.url)
  }
  const arrived = eventually(Effect.map(database.query("SELECT id FROM orders"), (rows) => rows.length === 1))
  return { arrived, broker, variables }
})

/** The first program of the page, as it is printed there. */
const program = Pages.blocks(Pages.read("docs/embedding.md")).find(({ language }) => language === "ts")?.text ?? ""

layer(Layer.mergeAll(TestPostgres.layer(), Installed.layer), { excludeTestServices: true, timeout: "5 minutes" })(
  "the package",
  (it) => {
    it.effect("holds what is built, what is read and what the pages link to, and no tests", () =>
      Effect.gen(function* () {
        const folder = join(yield* Installed.folder("omit"), "node_modules/fluvio-postgres-sink")
        assert.sameMembers(readdirSync(folder), [
          "CHANGELOG.md",
          "LICENSE",
          "README.md",
          "package.json",
          "dist",
          "docs",
          "layers",
          "monitoring",
          "src"
        ])
        for (const name of ["dist/layers/main.js", "dist/src/index.d.ts", "layers/page/page.html"]) {
          assert.isTrue(existsSync(join(folder, name)), name)
        }
        assert.isFalse(existsSync(join(folder, "../snappy")))
      })
    )

    for (const way of ["plain", "omit", "scripts"] as const) {
      it.effect(`runs, installed with ${ways[way].join(" ") || "nothing special"}`, () =>
        Effect.gen(function* () {
          const main = yield* executable(way)
          const version = yield* (yield* start([main, "--version"])).ended
          assert.match(version.out, /^fluvio-postgres-sink v\d/, version.err)

          const { arrived, broker, variables } = yield* pair
          const nothing = { ...variables, FLUVIO_PG_CONSUMER_ENDPOINT: "127.0.0.1:1" }
          const check = yield* (yield* start([main, "check"], nothing)).ended
          assert.strictEqual(check.code, exitCodes.notReady, check.err)

          yield* broker.append(place, order(1))
          const connector = yield* start([main, "run"], variables)
          yield* arrived
          yield* connector.signal("SIGTERM")
          const { code, err } = yield* connector.ended
          assert.strictEqual(code, exitCodes.fine, err)
        })
      )
    }

    it.effect("names the package that a batch needs and that was left out", () =>
      Effect.gen(function* () {
        const { broker, variables } = yield* pair
        for (const [codec, name] of [
          ["snappy", "snappy"],
          ["lz4", "lz4-napi"]
        ] as const) {
          yield* broker.createTopic(codec)
          yield* broker.append({ topic: codec, partition: 0 }, order(1), { codec })
          const connector = yield* start([yield* executable("omit"), "run"], { ...variables, FLUVIO_PG_TOPIC: codec })
          const { code, err } = yield* connector.ended
          assert.strictEqual(code, exitCodes.usage, err)
          assert.include(err, `install it with \`npm install ${name}\``)
        }
      })
    )

    it.effect("is embedded by the page's program, which applies and has its types", () =>
      Effect.gen(function* () {
        const folder = yield* Installed.folder("omit")
        const file = join(folder, "program.ts")
        writeFileSync(file, `${program}\nEffect.runFork(connector)\n`)
        const { arrived, broker, variables } = yield* pair
        yield* broker.append(place, order(1))
        yield* start([file], variables)
        yield* arrived

        const compiler = join(Pages.root, "node_modules/typescript/bin/tsc")
        const compile = async ([module, moduleResolution]: readonly [string, string]) => {
          const path = join(folder, `tsconfig.${moduleResolution}.json`)
          // The declarations of `effect` itself need those of the browser.
          const library = { target: "ES2024", lib: ["ES2024", "DOM"], skipLibCheck: false }
          const compilerOptions = { module, moduleResolution, strict: true, noEmit: true, ...library }
          writeFileSync(path, JSON.stringify({ compilerOptions, files: ["program.ts"] }))
          const ended = await run(process.execPath, [compiler, "-p", path]).catch((cause: { stdout: string }) => cause)
          return ended.stdout
        }
        const resolutions = [
          ["NodeNext", "NodeNext"],
          ["ESNext", "Bundler"]
        ] as const
        assert.deepStrictEqual(yield* Effect.promise(() => Promise.all(resolutions.map(compile))), ["", ""])
      })
    )
  }
)
