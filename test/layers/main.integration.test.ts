import { NodeFileSystem } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Redacted, Schedule } from "effect"
import * as Broker from "../../layers/embedded/Broker.ts"
import * as events from "../events.ts"
import { executable, invoke, start } from "../executable.ts"
import { exitCodes } from "../../src/stream/Outcome.ts"
import { TestPostgres } from "../postgres.ts"

const eventually = <A, E, R>(check: Effect.Effect<A, E, R>, isMet: (value: A) => boolean) =>
  check.pipe(Effect.repeat({ until: isMet, schedule: Schedule.spaced("20 millis") }), Effect.timeout("30 seconds"))

const transaction = (id: number) => [
  events.begin(1000 + id),
  events.relation(events.relationOf()),
  events.insert(16_385, [events.int4(id), events.text(`pet ${id}`)]),
  events.commit(1000 + id)
]

const pet = (id: number, name: string) => events.insert(16_385, [events.int4(id), events.text(name)])
const whole = (id: number, name: string) => [events.begin(1000 + id), pet(id, name), events.commit(1000 + id)]

layer(TestPostgres.layer(), { excludeTestServices: true })("main", (it) => {
  it.effect("applies what is in the topic, and ends with 0 and its position saved when it is told to stop", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.make()
      const database = yield* TestPostgres.database
      const place = { topic: "pets", partition: 0 }
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      yield* broker.createTopic(place.topic)
      const append = (id: number) =>
        broker.append(
          place,
          events.records(0, transaction(id)).map(({ value }) => ({ value }))
        )
      for (const signal of ["SIGTERM", "SIGINT"] as const) {
        const count = signal === "SIGTERM" ? 1 : 2
        yield* append(count)
        const connector = yield* start([executable, "run", "--topic", place.topic, "--endpoint", broker.endpoint], {
          FLUVIO_PG_DATABASE_URL: Redacted.value(database.url)
        })
        yield* eventually(database.query("SELECT id FROM pets"), (rows) => rows.length === count)
        yield* connector.signal(signal)
        const { code, err, out } = yield* connector.ended
        assert.deepStrictEqual({ code, out }, { code: 0, out: "" }, err)
        assert.notInclude(err, new URL(Redacted.value(database.url)).password)
        assert.deepStrictEqual(yield* database.query("SELECT topic, current_offset FROM fluvio.offset"), [
          { topic: "pets", current_offset: String(4 * count - 1) }
        ])
      }
    })
  )

  it.effect(
    "runs as Fluvio starts a connector: without a command, with secrets from a file, logging to the standard output",
    () =>
      Effect.gen(function* () {
        const broker = yield* Broker.make()
        const database = yield* TestPostgres.database
        yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
        yield* broker.createTopic("pets")
        yield* broker.append(
          { topic: "pets", partition: 0 },
          events.records(0, transaction(1)).map(({ value }) => ({ value }))
        )
        const fs = yield* FileSystem.FileSystem
        const folder = yield* fs.makeTempDirectoryScoped()
        const [config, secrets] = [`${folder}/connector.yaml`, `${folder}/secrets.txt`]
        yield* fs.writeFileString(
          config,
          `apiVersion: 0.1.0
meta: { version: 0.1.0, name: pets-sink, type: postgres-sink, topic: pets, secrets: [{ name: TARGET }] }
postgres-sink: { url: "\${{ secrets.TARGET }}", consumer: { endpoint: "${broker.endpoint}" } }
`
        )
        yield* fs.writeFileString(secrets, `TARGET = ${Redacted.value(database.url)}\n`)
        const asFluvio = [executable, "--config", config, "--secrets", secrets]
        const connector = yield* start(asFluvio, { RUST_LOG: "debug" })
        yield* eventually(database.query("SELECT id FROM pets"), (rows) => rows.length === 1)
        yield* connector.signal("SIGTERM")
        const { code, err, out } = yield* connector.ended
        assert.deepStrictEqual({ code, err }, { code: 0, err: "" })
        assert.include(out, "level=DEBUG")
        assert.include(out, "name=pets-sink")
        assert.notInclude(out, new URL(Redacted.value(database.url)).password)

        yield* fs.writeFileString(secrets, `\n${Redacted.value(database.url)}\n`)
        const refused = yield* Effect.flatMap(start(asFluvio), (running) => running.ended)
        assert.deepStrictEqual(refused, {
          code: exitCodes.usage,
          out: "",
          err: `fluvio-postgres-sink: ${secrets}: expected NAME=value, at line 2\n  correct the file of secrets at line 2\n`
        })
      }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  it.effect("ends with one message when the target refuses it", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.make()
      yield* broker.createTopic("pets")
      const database = yield* TestPostgres.database
      const url = new URL(Redacted.value(database.url))
      url.password = "s3cr3t"
      const { code, err } = yield* invoke(["run", "--topic", "pets", "--endpoint", broker.endpoint], {
        FLUVIO_PG_DATABASE_URL: url.href
      })
      assert.strictEqual(code, exitCodes.usage)
      assert.match(err, /^fluvio-postgres-sink: .*the target refused user or password.*\n {2}check user, password/m)
      assert.notInclude(err, "s3cr3t")
      assert.notInclude(err, "    at ")
    })
  )

  it.effect("ends with 2 when the invocation is wrong and with 0 when it explains itself", () =>
    Effect.gen(function* () {
      const wrong = yield* invoke(["run", "--topic", "pets"])
      assert.strictEqual(wrong.code, exitCodes.usage)
      assert.match(wrong.err, /^fluvio-postgres-sink: url: is required/)
      assert.strictEqual((yield* invoke(["run", "--absent"])).code, exitCodes.usage)
      assert.strictEqual((yield* invoke(["--help"])).code, 0)
      assert.match((yield* invoke(["--version"])).out, /^fluvio-postgres-sink v\d+\.\d+\.\d+/)
    })
  )

  it.effect("says what it needs on an old Node, before it loads anything that such a Node cannot", () =>
    Effect.gen(function* () {
      const pretend = "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '22.18.0' } })"
      const old = yield* start([
        "--import",
        `data:text/javascript,${encodeURIComponent(pretend)}`,
        executable,
        "--help"
      ])
      assert.deepStrictEqual(yield* old.ended, {
        code: 1,
        out: "",
        err: "fluvio-postgres-sink needs Node 22.19 or newer, and this is Node 22.18.0\n"
      })
    })
  )

  it.effect("shows neither the password nor a value of a row, whatever fails and however much it logs", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.make()
      const messages = [
        [events.begin(1000), events.relation(events.relationOf()), pet(0, "s3cret-fine"), events.commit(1000)],
        whole(1, "s3cret-refused"),
        whole(2, "s3cret-and-much-too-long"),
        whole(3, "s3cret-fine")
      ]
      const records = [
        ...messages.flatMap((transaction) => events.records(0, transaction).map(({ value }) => ({ value }))),
        { value: new TextEncoder().encode(`{"wal_start":"s3cret-garbage`) }
      ]
      for (const policy of ["quarantine", "halt"] as const) {
        const database = yield* TestPostgres.database
        yield* database.query(
          "CREATE TABLE pets (id int PRIMARY KEY, name varchar(14) CHECK (name <> 's3cret-refused'))"
        )
        yield* broker.createTopic(policy)
        yield* broker.append({ topic: policy, partition: 0 }, records)
        const connector = yield* start(
          [
            executable,
            "run",
            "--topic",
            policy,
            "--endpoint",
            broker.endpoint,
            "--on-error",
            policy,
            "--log-level",
            "all"
          ],
          { FLUVIO_PG_DATABASE_URL: Redacted.value(database.url) }
        )
        if (policy === "quarantine") {
          // The garbage may be the Begin of more to come, so it is held back; everything before it is dealt with.
          yield* eventually(database.query("SELECT name FROM pets"), (rows) => rows.length === 2)
          assert.lengthOf(yield* database.query("SELECT FROM fluvio.quarantine"), 2)
          yield* connector.signal("SIGTERM")
        }
        const { code, err, out } = yield* connector.ended
        assert.strictEqual(code, policy === "halt" ? exitCodes.stopped : exitCodes.fine, err)
        assert.include(err, policy === "halt" ? "check violation" : "Set aside the transaction")
        assert.notInclude(out + err, "s3cret")
        assert.notInclude(out + err, new URL(Redacted.value(database.url)).password)
      }
    })
  )
})
