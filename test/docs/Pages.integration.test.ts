/** What the pages tell to type, typed: against a broker and databases of its own. */
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted, type Scope } from "effect"
import { spawn } from "node:child_process"
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import * as events from "../events.ts"
import { executable, nodeOptions, type Running } from "../executable.ts"
import * as Operator from "../operator.ts"
import { eventually } from "../pipeline.ts"
import { type TestDatabase, TestPostgres } from "../postgres.ts"
import * as Pages from "./Pages.ts"

const orders = events.relationOf({ name: "orders" })

const inserted = (id: number) => [
  events.begin(id * 1000),
  events.relation(orders),
  events.insert(orders.id, [events.int4(id), events.text(`order${id}`)]),
  events.commit(id * 1000)
]

const insertedTwo = (id: number) => [
  events.begin(id * 1000),
  events.relation(orders),
  events.insert(orders.id, [events.int4(id), events.text(`order${id}`)]),
  events.insert(orders.id, [events.int4(id + 1), events.text(`order${id + 1}`)]),
  events.commit(id * 1000)
]

const blocksOf = (path: string, language: string) =>
  Pages.blocks(Pages.read(path)).filter((block) => block.language === language)

/** What a page tells to type, but for what cannot be run here. */
const commandsOf = (page: string) =>
  Pages.blocks(page)
    .filter(({ language, notRun }) => language === "sh" && notRun === undefined)
    .flatMap(({ text }) => text.trimEnd().split("\n"))
    // The URL of the page is nobody's; that of the environment is this test's.
    .filter((line) => !line.startsWith("export "))

/** A folder in which the commands of the pages are there under the names that they have in them. */
const workshop: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const folder = mkdtempSync(join(tmpdir(), "pages-"))
    const node = `exec ${process.execPath} ${nodeOptions.join(" ")} ${executable}`
    for (const [name, line] of [
      ["fluvio-postgres-sink", `${node} "$@"`],
      // `npm start -- …`, without what npm prints and does with signals.
      ["npm", `shift 2; ${node} run "$@"`],
      ["npx", `shift 2; ${node} "$@"`]
    ]) {
      writeFileSync(join(folder, name), `#!/bin/sh\n${line}\n`)
      chmodSync(join(folder, name), 0o755)
    }
    const [config] = blocksOf("README.md", "yaml")
    writeFileSync(join(folder, "connector.yaml"), config.text)
    return folder
  }),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

/** A connector that applies until it is stopped. */
const isLasting = (command: string) => /^(npm start|fluvio-postgres-sink run)\b/.test(command)

interface Typed {
  readonly code: number | null
  readonly err: string
}

/** Types a command into a shell; one that lasts is stopped by SIGTERM once it has started. */
const type = (folder: string, command: string, variables: { readonly [name: string]: string }) =>
  Effect.callback<Typed>((resume) => {
    const child = spawn("bash", ["-c", isLasting(command) ? `exec ${command}` : command], {
      cwd: folder,
      env: { PATH: [folder, process.env["PATH"]].join(delimiter), PG_PASSWORD: "hush", ...variables },
      stdio: ["ignore", "ignore", "pipe"]
    })
    let err = ""
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      err += chunk
      if (isLasting(command) && err.includes("which ends at offset")) child.kill("SIGTERM")
    })
    child.once("close", (code) => resume(Effect.succeed({ code, err })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const variablesOf = ({ endpoint }: Operator.Operator["broker"], { url }: TestDatabase) => ({
  FLUVIO_PG_DATABASE_URL: Redacted.value(url),
  FLUVIO_PG_CONSUMER_ENDPOINT: endpoint
})

const namesOf = (database: TestDatabase) =>
  Effect.map(database.query("SELECT name FROM orders ORDER BY id").pipe(Effect.orElseSucceed(() => [])), (rows) =>
    rows.map(({ name }) => name).join(" ")
  )

layer(TestPostgres.layer(), { excludeTestServices: true })("the pages", (it) => {
  for (const path of Pages.paths.filter((path) => commandsOf(Pages.read(path)).length > 0)) {
    it.effect(
      `${path}: its commands do what they are told to`,
      () =>
        Effect.gen(function* () {
          const { append, broker, database } = yield* Operator.make("orders")
          yield* append([...inserted(1), ...inserted(2)])
          const folder = yield* workshop
          const variables = variablesOf(broker, database)
          const commands = commandsOf(Pages.read(path))
          for (const command of commands) {
            const { code, err } = yield* type(folder, command, variables)
            // No is an answer too.
            assert.include([0, 3], code, `${path}: ${command}\n${err}`)
          }
        }),
      // Each command is a process of its own.
      { timeout: 600_000 }
    )
  }

  const roles = [
    { policy: "additive", isPrepared: false },
    { policy: "validate", isPrepared: true }
  ] as const

  for (const [place, { isPrepared, policy }] of roles.entries()) {
    it.effect(`docs/security.md: its role for ${policy} can do all that is asked of it`, () =>
      Effect.gen(function* () {
        const { append, database, run } = yield* Operator.make("orders")
        const role = `sink_${policy}`
        yield* database.query("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        yield* database.query(`REVOKE ALL ON DATABASE ${database.name} FROM PUBLIC`)
        if (isPrepared) {
          yield* database.query("CREATE TABLE orders (id int PRIMARY KEY, name text)")
        }
        const { text } = blocksOf("docs/security.md", "sql")[place]
        yield* database.query(text.replaceAll("sink", role).replaceAll("copy", database.name).replaceAll("…", "hush"))
        const url = new URL(Redacted.value(database.url))
        url.username = role
        url.password = "hush"
        const running = yield* run("--url", url.href, "--schema-changes", policy)
        const wide = {
          ...orders,
          columns: [...orders.columns, { name: "age", isKey: false, typeId: 23, typeModifier: -1 }]
        }
        yield* append([
          ...inserted(1),
          ...inserted(2),
          events.begin(3000),
          events.update(orders.id, [events.int4(1), events.text("first")]),
          events.remove(orders.id, { key: [events.int4(2), events.sqlNull] }),
          events.commit(3000),
          events.begin(4000),
          events.truncate([orders.id]),
          ...(isPrepared ? [] : [events.relation(wide)]),
          events.insert(orders.id, [events.int4(4), events.text("four"), ...(isPrepared ? [] : [events.int4(40)])]),
          events.commit(4000)
        ])
        const found = Effect.map(
          database.query("SELECT * FROM orders").pipe(Effect.orElseSucceed(() => [])),
          (rows) => rows.length === 1 && rows[0]["id"] === "4"
        )
        yield* eventually(found).pipe(Effect.tapCause(() => Effect.logError(running.err())))
        yield* running.signal("SIGTERM")
        const { code, err } = yield* running.ended
        assert.strictEqual(code, 0, err)
        assert.notInclude(err, "session_replication_role")
      })
    )
  }

  it.effect("docs/operating.md: what it says of a retention gap makes the tables equal again", () =>
    Effect.gen(function* () {
      const { append, broker, database, place, run } = yield* Operator.make("orders")
      const folder = yield* workshop
      const lasts = (text: string, running: Running) =>
        Effect.flatMap(
          eventually(Effect.map(namesOf(database), (names) => names === text)).pipe(
            Effect.tapCause(() => Effect.logError(running.err()))
          ),
          () => Effect.andThen(running.signal("SIGTERM"), running.ended)
        )
      yield* append(inserted(1))
      yield* lasts("order1", yield* run())
      yield* append([...inserted(2), ...inserted(3), ...inserted(4)])
      // It begins inside of the second transaction.
      yield* broker.trim(place, 6)
      const stopped = yield* (yield* run()).ended
      assert.strictEqual(stopped.code, 4)
      const page = Pages.read("docs/operating.md")
      assert.match(stopped.err, /orders-0 was trimmed by retention: [^]*see docs\/errors\.md#retentiongap/)

      const runbook = page.split(/^## /m).find((part) => part.startsWith("Retention has removed"))!
      for (const command of commandsOf(runbook).filter((command) => command.includes("position set"))) {
        const { code, err } = yield* type(folder, command, variablesOf(broker, database))
        assert.strictEqual(code, 0, err)
      }
      // The copy holds what the source holds by then: all of it, and one row that is still to come.
      yield* append(inserted(5))
      yield* database.query(
        "TRUNCATE orders; INSERT INTO orders SELECT n, 'order' || n FROM generate_series(1, 5) AS n"
      )
      const [again] = commandsOf(runbook).filter(isLasting)
      yield* append(inserted(6))
      yield* lasts("order1 order2 order3 order4 order5 order6", yield* run(...again.split(" ").slice(4)))
    })
  )

  it.effect("docs/migrating.md: the original connector is taken over from, and once more", () =>
    Effect.gen(function* () {
      const { append, database, run } = yield* Operator.make("orders")
      const caughtUp = Effect.fnUntraced(function* (names: string) {
        const running = yield* run()
        yield* eventually(Effect.map(namesOf(database), (found) => found === names)).pipe(
          Effect.tapCause(() => Effect.logError(running.err()))
        )
        yield* running.signal("SIGTERM")
        return (yield* running.ended).err
      })
      yield* append(insertedTwo(1))
      // The original is inside of a transaction.
      yield* database.query(`
        CREATE SCHEMA fluvio;
        CREATE TABLE fluvio.offset (id INT8 PRIMARY KEY, current_offset INT8 NOT NULL);
        INSERT INTO fluvio.offset (id, current_offset) VALUES (1, 2);
        CREATE TABLE orders (id int PRIMARY KEY, name text);
        INSERT INTO orders VALUES (1, 'order1')`)
      assert.include(yield* caughtUp("order1 order2"), "Taking over from the original connector")

      // And back: it goes on where its row says, and stops inside of the next transaction.
      const [row] = yield* database.query("SELECT current_offset FROM fluvio.offset WHERE id = 1")
      assert.deepStrictEqual(row, { current_offset: "4" })
      yield* append(insertedTwo(3))
      yield* database.query(`
        INSERT INTO orders VALUES (3, 'order3');
        UPDATE fluvio.offset SET current_offset = 7 WHERE id = 1`)
      const [{ text }] = blocksOf("docs/migrating.md", "sql")
      yield* database.query(text)
      assert.include(yield* caughtUp("order1 order2 order3 order4"), "Taking over from the original connector")
    })
  )
})
