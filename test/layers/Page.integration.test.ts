import { assert, layer } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { accessSync, constants, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { delimiter, join } from "node:path"
import { type Browser, chromium, type Page } from "playwright-core"
import type { Status } from "../../src/operate/Status.ts"
import * as events from "../events.ts"
import * as Operator from "../operator.ts"
import { eventually } from "../pipeline.ts"
import { TestPostgres } from "../postgres.ts"

const pet = (id: number, name = `pet ${id}`) => [
  events.begin(1000 + id),
  events.relation(events.relationOf()),
  events.insert(16_385, [events.int4(id), events.text(name)]),
  events.commit(1000 + id)
]

const isExecutable = (path: string) => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const executablePath = () => {
  const found = (process.env["PATH"] ?? "")
    .split(delimiter)
    .map((folder) => join(folder, "chromium"))
    .find(isExecutable)
  assert.isDefined(
    found,
    "the test of the status page needs Chromium on the PATH: apt-get install -y --no-install-recommends chromium"
  )
  return found
}

const browser: Effect.Effect<Browser, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(() => chromium.launch({ executablePath: executablePath(), args: ["--no-sandbox"] })),
  (browser) => Effect.promise(() => browser.close())
)

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")

const widths = [1280, 390]
const schemes = ["light", "dark"] as const

/** A page, the sentence that says how the connector is, and what went wrong in the script. */
const open = Effect.fnUntraced(function* (address: string) {
  const page = yield* Effect.flatMap(browser, (browser) => Effect.promise(() => browser.newPage()))
  const failures: Array<string> = []
  page.on("pageerror", (error) => failures.push(error.message))
  page.on("console", (message) => {
    // Chromium itself tells of every answer that is an error, and of a server that is gone.
    const isChromiums = message.text().startsWith("Failed to load resource:")
    if (message.type() === "error" && !isChromiums) failures.push(message.text())
  })
  yield* Effect.promise(() => page.goto(address))
  return { page, failures }
})

const says = (page: Page, text: RegExp) =>
  eventually(Effect.promise(async () => text.test(await page.locator("#state").innerText())))

/** It reads well at each width and in both schemes, and axe finds nothing. */
const isWellMade = Effect.fnUntraced(function* (page: Page, what: string) {
  for (const width of widths) {
    for (const colorScheme of schemes) {
      const findings = yield* Effect.promise(async () => {
        await page.setViewportSize({ width, height: 900 })
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" })
        await page.evaluate(axe)
        return page.evaluate<unknown>(`axe.run().then(({ violations }) => ({
          violations: violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => id + ": " + html)),
          width: document.documentElement.scrollWidth
        }))`)
      })
      assert.deepStrictEqual(findings, { violations: [], width }, `${what}, ${width} px, ${colorScheme}`)
    }
  }
})

/** The cells of a table's row that begins with this text. */
const cells = (page: Page, table: string, first: string) =>
  Effect.promise(() => page.locator(`${table} tr`, { hasText: first }).locator("td").allInnerTexts())

layer(TestPostgres.layer(), { excludeTestServices: true })("the status page", (it) => {
  it.effect("shows a connector from catching up to the error that stopped it, to everybody", () =>
    Effect.gen(function* () {
      const { append, database, run } = yield* Operator.make("pets", {
        FLUVIO_PG_HTTP_TOKEN: "open-sesame",
        FLUVIO_PG_ON_ERROR_DATA: "quarantine"
      })
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name varchar(10)); BEGIN; LOCK TABLE pets")
      yield* append(Array.from({ length: 50 }, (_, id) => pet(id)).flat())
      const connector = yield* run("--http-listen", "0", "--name", "pets-copy")
      const address = () => /Status page, health and metrics at (http:\S+?)"?\s/.exec(connector.err())?.[1]
      yield* eventually(Effect.sync(() => address() !== undefined))
      const { failures, page } = yield* open(address()!)

      yield* says(page, /^Catching up/)
      yield* isWellMade(page, "catching up")
      yield* database.query("COMMIT")
      yield* says(page, /^Well:/)
      yield* eventually(Effect.promise(async () => (await page.locator("#tables").innerText()).includes("public.pets")))
      yield* isWellMade(page, "idle")

      const ask = (path: string) => Effect.promise(() => fetch(`${address()}${path}`).then((answer) => answer.text()))
      const status = JSON.parse(yield* ask("/status")) as Status
      const [{ count }] = yield* database.query("SELECT count(*) FROM pets")
      const [{ offset }] = yield* database.query("SELECT current_offset AS offset FROM fluvio.offset")
      const metrics = yield* ask("/metrics")
      const metric = (name: string, label = "") =>
        metrics
          .split("\n")
          .find((line) => line.startsWith(`fluvio_postgres_sink_${name}{`) && line.includes(label))
          ?.split(" ")
          .at(-1)
      const figures = yield* Effect.promise(() => page.locator("#figures").innerText())
      assert.match(figures, /Lag\s+0\s/)
      assert.strictEqual(metric("lag_records"), "0")
      assert.strictEqual(status.lagRecords, 0)
      const [inserts] = yield* cells(page, "#tables", "public.pets")
      assert.deepStrictEqual(
        [inserts, String(status.instances[0].tables[0].insert), metric("changes_total", 'kind="insert"')],
        [count, count, count]
      )
      const position = yield* Effect.promise(() => page.locator("#position").innerText())
      assert.match(position, new RegExp(`Offset\\s+${offset}\\s`))
      assert.deepStrictEqual([String(status.position?.offset), metric("position_offset")], [offset, offset])

      const pause = page.getByRole("button", { name: "Pause" })
      const resume = page.getByRole("button", { name: "Resume" })
      assert.isFalse(yield* Effect.promise(() => pause.isVisible()))
      yield* Effect.promise(async () => {
        await page.getByLabel(/^Token/).fill("wrong-token")
        await page.getByLabel("Why").fill("a look")
        await pause.click()
      })
      yield* eventually(Effect.promise(async () => /not the right one/.test(await page.locator("#answer").innerText())))
      yield* Effect.promise(async () => {
        await page.getByLabel(/^Token/).fill("open-sesame")
        await page.getByLabel("Why").press("Enter")
      })
      yield* says(page, /^Paused by http: a look/)
      yield* isWellMade(page, "paused")
      yield* Effect.promise(() => resume.click())
      yield* says(page, /^Well:/)

      yield* append(pet(50, "s3cret-and-too-long"))
      yield* says(page, /^Going on, but a transaction is set aside/)
      const replay = page.getByRole("button", { name: /^Replay/ })
      yield* eventually(Effect.promise(() => replay.isVisible()))
      yield* isWellMade(page, "set aside")
      assert.match(yield* Effect.promise(() => page.locator("#held").innerText()), /public\.pets.*data: public\.pets/s)
      yield* Effect.promise(() => replay.click())
      yield* eventually(
        Effect.promise(async () => (await page.locator("#answer").innerText()).startsWith("Not done: public.pets"))
      )
      yield* database.query("ALTER TABLE pets ALTER name TYPE text")
      yield* Effect.promise(() => replay.click())
      yield* says(page, /^Well:/)
      yield* eventually(
        Effect.map(
          Effect.promise(() => replay.isVisible()),
          (isVisible) => !isVisible
        )
      )

      yield* append([
        events.begin(9000),
        events.insert(16_385, [events.int4(0), events.text("twice")]),
        events.commit(9000)
      ])
      yield* says(page, /^Stopped by an error: public\.pets.*Connection lost, trying again/s)
      assert.strictEqual((yield* connector.ended).code, 4)
      yield* isWellMade(page, "stopped")
      assert.match(yield* Effect.promise(() => page.locator("#errors").innerText()), /ApplyFailed .*What resolves it/s)
      assert.notInclude(yield* Effect.promise(() => page.content()), "s3cret")
      assert.deepStrictEqual(failures, [])
    })
  )
})
