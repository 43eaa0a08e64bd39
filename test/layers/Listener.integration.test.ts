import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { type AddressInfo, createServer, type Server } from "node:net"
import type { Point } from "../../src/operate/History.ts"
import type { Status } from "../../src/operate/Status.ts"
import type { Readiness } from "../../src/operate/Watch.ts"
import * as events from "../events.ts"
import type { Running } from "../executable.ts"
import * as Operator from "../operator.ts"
import { eventually } from "../pipeline.ts"
import { TestPostgres } from "../postgres.ts"
import * as NetworkFault from "../torture/NetworkFault.ts"

const pet = (id: number, name = `pet ${id}`) => [
  events.begin(1000 + id),
  events.relation(events.relationOf()),
  events.insert(16_385, [events.int4(id), events.text(name)]),
  events.commit(1000 + id)
]

interface Event {
  readonly id: string
  readonly status: Status
  readonly takesActions: boolean
  readonly history?: ReadonlyArray<Point>
}

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
}

/** Where it serves, once it does, and what it answers there. */
const served = Effect.fnUntraced(function* (running: Running) {
  const address = () => /Status page, health and metrics at (http:\S+?)"?\s/.exec(running.err())?.[1]
  yield* eventually(Effect.sync(() => address() !== undefined))
  return (path: string, init?: RequestInit): Effect.Effect<Answer> =>
    Effect.promise(async (signal) => {
      const { headers, status, text } = await fetch(`${address()}${path}`, { ...init, signal }).then(
        async (response) => ({
          status: response.status,
          headers: response.headers,
          text: await response.text()
        })
      )
      return { status, headers, text }
    })
})

type Ask = Effect.Success<ReturnType<typeof served>>

const readiness = (ask: Ask) =>
  Effect.map(ask("/health/ready"), ({ status, text }) => ({ status, ...(JSON.parse(text) as Readiness) }))
const isIn = (ask: Ask, state: Readiness["state"]) =>
  eventually(Effect.map(readiness(ask), (readiness) => readiness.state === state))
const names = (status: Status) => status.instances.map(({ name, state }) => `${name} ${state}`)
const status = (ask: Ask) => Effect.map(ask("/status"), ({ text }) => JSON.parse(text) as Status)

layer(TestPostgres.layer(), { excludeTestServices: true })("the endpoints", (it) => {
  it.effect("tell what the command tells, of one that follows and of one that stands by", () =>
    Effect.gen(function* () {
      const { append, database, json, run } = yield* Operator.make()
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      yield* append([...pet(1), ...pet(2)])
      const one = yield* Effect.flatMap(run("--name", "one", "--http-listen", "0"), served)
      yield* isIn(one, "following")
      assert.deepStrictEqual(yield* readiness(one), {
        status: 200,
        isReady: true,
        state: "following",
        lagRecords: 0,
        reason: null
      })
      const two = yield* Effect.flatMap(run("--name", "two", "--http-listen", "127.0.0.1:0"), served)
      yield* isIn(two, "standing by")
      assert.deepInclude(yield* readiness(two), { status: 200, lagRecords: null })

      const asked = (yield* json("status")) as Status
      yield* eventually(Effect.map(status(one), (answer) => names(answer).length === 2))
      for (const ask of [one, two]) {
        const { instances, ...answer } = yield* status(ask)
        const { instances: _, ...expected } = asked
        assert.deepStrictEqual(answer, expected)
        assert.deepStrictEqual(names({ instances, ...answer }), ["one following", "two standing by"])
        assert.deepStrictEqual(instances[0].position, asked.instances[0].position)
      }
      assert.deepStrictEqual(Object.keys(yield* status(one)), Object.keys(asked))
      const metrics = yield* one("/metrics")
      assert.deepStrictEqual(
        [metrics.status, metrics.headers.get("content-type")],
        [200, "text/plain; version=0.0.4; charset=utf-8"]
      )
    })
  )

  it.effect(
    "say not ready, and why, while there is too much lag, while it is paused, and while the target is away",
    () =>
      Effect.gen(function* () {
        const { server } = yield* TestPostgres
        const { append, command, database, run } = yield* Operator.make("pets", {
          FLUVIO_PG_HTTP_READY_LAG: "3",
          FLUVIO_PG_RETRY_MAX: "1 s"
        })
        yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
        yield* append(pet(1))
        const ask = yield* Effect.flatMap(run("--http-listen", "0"), served)
        yield* isIn(ask, "following")

        yield* database.query("BEGIN; LOCK TABLE pets")
        yield* append(pet(2))
        const late = "a lag of 4 records, more than 3"
        yield* eventually(Effect.map(readiness(ask), ({ reason }) => reason === late))
        assert.deepInclude(yield* readiness(ask), { status: 503, isReady: false, state: "following", lagRecords: 4 })
        yield* database.query("COMMIT")
        yield* eventually(Effect.map(readiness(ask), ({ isReady }) => isReady))

        yield* command("pause", "--reason", "index build")
        yield* isIn(ask, "paused")
        assert.match((yield* readiness(ask)).reason ?? "", /^paused by postgres@.*: index build$/)
        yield* command("resume")
        yield* isIn(ask, "following")

        yield* server.stop("fast")
        yield* Effect.gen(function* () {
          yield* isIn(ask, "retrying")
          assert.match((yield* readiness(ask)).reason ?? "", /^trying again: /)
          const away = yield* status(ask)
          assert.isNotNull(away.targetError)
          assert.deepInclude(away, { lagRecords: 0, lock: null })
          assert.strictEqual(away.position?.offset, 7)
          assert.strictEqual((yield* ask("/health/live")).status, 200)
        }).pipe(Effect.ensuring(Effect.orDie(server.start)))
        yield* isIn(ask, "following")
        assert.isNull((yield* status(ask)).targetError)
      })
  )

  it.effect("answer while a target that gives no answer is waited for, from the start on", () =>
    Effect.gen(function* () {
      const { server } = yield* TestPostgres
      const { database, run } = yield* Operator.make()
      const proxy = yield* NetworkFault.make
      proxy.forwardTo(server.port)
      const url = new URL(Redacted.value(database.url))
      url.port = String(proxy.port)
      yield* proxy.setFrozen(true)
      const ask = yield* Effect.flatMap(run("--http-listen", "0", "--url", url.href), served)
      assert.deepInclude(yield* readiness(ask), { status: 503, state: "starting", reason: "has not begun yet" })
      assert.deepInclude(yield* status(ask), { position: null, targetError: "it did not answer for 4 seconds" })
      yield* proxy.setFrozen(false)
      yield* isIn(ask, "following")
    })
  )

  it.effect("pause and resume for whoever bears the token, and for nobody else", () =>
    Effect.gen(function* () {
      const { database, run } = yield* Operator.make("pets", { FLUVIO_PG_HTTP_TOKEN: "open-sesame" })
      const ask = yield* Effect.flatMap(run("--http-listen", "0"), served)
      yield* isIn(ask, "following")
      const post = (path: string, body: string, authorization?: string) =>
        ask(path, { method: "POST", body, ...(authorization === undefined ? {} : { headers: { authorization } }) })
      const reason = JSON.stringify({ reason: "index build" })
      for (const [expected, path, body, authorization] of [
        [401, "/pause", reason, undefined],
        [401, "/pause", reason, "Bearer open-sesame2"],
        [401, "/resume", "", "open-sesame"],
        [400, "/pause", "", "Bearer open-sesame"],
        [400, "/pause", JSON.stringify({ reason: " " }), "Bearer open-sesame"],
        [400, "/pause", JSON.stringify({ reason: "x".repeat(10_000) }), "Bearer open-sesame"]
      ] as const) {
        assert.strictEqual((yield* post(path, body, authorization)).status, expected, `${path} ${body}`)
      }
      assert.isNull((yield* status(ask)).pause)

      const paused = yield* post("/pause", reason, "Bearer open-sesame")
      assert.deepInclude(JSON.parse(paused.text) as object, { paused: true, before: null })
      yield* isIn(ask, "paused")
      assert.deepInclude((yield* status(ask)).pause, { by: "http", reason: "index build" })
      assert.strictEqual((yield* post("/resume", "", "Bearer open-sesame")).status, 200)
      yield* isIn(ask, "following")
      assert.deepStrictEqual(yield* database.query("SELECT action, reason, done_by FROM fluvio.action ORDER BY id"), [
        { action: "pause", reason: "index build", done_by: "http" },
        { action: "resume", reason: null, done_by: "http" }
      ])
    })
  )

  it.effect("replay what is held for whoever bears the token, and say what keeps it from being applied", () =>
    Effect.gen(function* () {
      const { append, database, run } = yield* Operator.make("pets", { FLUVIO_PG_HTTP_TOKEN: "open-sesame" })
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name varchar(8))")
      yield* append([...pet(1, "s3cret-and-too-long"), ...pet(2)])
      const ask = yield* Effect.flatMap(run("--http-listen", "0", "--on-error", "quarantine"), served)
      yield* isIn(ask, "following")
      const transactions = Effect.map(
        ask("/quarantine"),
        ({ text }) =>
          (JSON.parse(text) as { readonly transactions: ReadonlyArray<{ readonly id: number }> }).transactions
      )
      // The second describes the table of the first anew, and follows it.
      const [id, follower, ...others] = (yield* transactions).map((held) => held.id)
      assert.deepStrictEqual(others, [])
      const replay = (id: number | string, authorization = "Bearer open-sesame", body: object = {}) =>
        ask(`/quarantine/${id}/replay`, { method: "POST", body: JSON.stringify(body), headers: { authorization } })

      assert.strictEqual((yield* replay(id, "Bearer wrong-token")).status, 401)
      assert.strictEqual((yield* replay("seven")).status, 400)
      assert.strictEqual((yield* replay(id, undefined, { reason: " " })).status, 400)
      assert.strictEqual((yield* replay(follower + 1)).status, 404)
      assert.strictEqual((yield* ask(`/quarantine/${id}/replay`)).headers.get("allow"), "POST")
      const refused = yield* replay(id)
      assert.strictEqual(refused.status, 409)
      assert.notInclude(refused.text, "s3cret")
      const why = JSON.parse(refused.text) as { readonly error: string; readonly failed: object }
      assert.match(why.error, /^public\.pets, offset 2, .*SQLSTATE 22001/)
      assert.deepInclude(why.failed, { id, error: "ApplyFailed" })

      yield* database.query("ALTER TABLE pets ALTER name TYPE text")
      const replayed = yield* replay(id, undefined, { reason: "widened" })
      assert.strictEqual(replayed.status, 200, replayed.text)
      assert.deepInclude(JSON.parse(replayed.text) as object, { replayed: [id, follower], failed: null, left: [] })
      assert.deepStrictEqual(yield* transactions, [])
      assert.deepStrictEqual(yield* database.query("SELECT id FROM pets ORDER BY id"), [{ id: "1" }, { id: "2" }])
      assert.deepStrictEqual(yield* database.query("SELECT action, reason, done_by FROM fluvio.action"), [
        { action: "quarantine replay", reason: "widened", done_by: "http" },
        { action: "quarantine replay", reason: "widened", done_by: "http" }
      ])
      assert.strictEqual((yield* status(ask)).quarantine.held, 0)
    })
  )

  it.effect("tell every second how it is, the history first, and last that it has stopped", () =>
    Effect.gen(function* () {
      const { run } = yield* Operator.make()
      const connector = yield* run("--http-listen", "0")
      const ask = yield* served(connector)
      assert.strictEqual((yield* ask("/pause", { method: "POST" })).status, 404)
      yield* isIn(ask, "following")
      const listening = yield* Effect.forkChild(ask("/events"), { startImmediately: true })
      yield* isIn(ask, "following")
      yield* connector.signal("SIGTERM")
      const { headers, text } = yield* Fiber.join(listening)
      assert.strictEqual((yield* connector.ended).code, 0)
      assert.strictEqual(headers.get("content-type"), "text/event-stream")
      const told = text
        .trim()
        .split("\n\n")
        .map((event) => JSON.parse(event.replace("event: status\ndata: ", "")) as Event)
      const [first, ...others] = told
      assert.isAbove(first.history?.length ?? 0, 0)
      assert.deepInclude(first, { takesActions: false })
      assert.isTrue(others.every(({ history }) => history === undefined))
      const last = told[told.length - 1]
      assert.strictEqual(last.status.instances.find(({ id }) => id === last.id)?.state, "stopped")
    })
  )

  it.effect("take no other path, no other method, and let nothing be loaded or framed", () =>
    Effect.gen(function* () {
      const { run } = yield* Operator.make()
      const ask = yield* Effect.flatMap(run("--http-listen", "0"), served)
      for (const [path, method, expected] of [
        ["/health/live", "HEAD", 200],
        ["/status", "DELETE", 405],
        ["/metrics", "POST", 405],
        ["/metrics", "OPTIONS", 405],
        ["/../etc/passwd", "GET", 404],
        ["//example.com/", "GET", 404]
      ] as const) {
        const { headers, status } = yield* ask(path, {
          method,
          redirect: "manual",
          headers: { origin: "http://a.example" }
        })
        assert.strictEqual(status, expected, `${method} ${path}`)
        assert.match(headers.get("content-security-policy") ?? "", /^default-src 'none';/)
        assert.strictEqual(headers.get("cache-control"), "no-store")
        assert.strictEqual(headers.get("x-content-type-options"), "nosniff")
        assert.isNull(headers.get("access-control-allow-origin"))
      }
    })
  )

  it.effect("are refused a port that is in use, before anything is touched", () =>
    Effect.gen(function* () {
      const { database, run } = yield* Operator.make()
      const taken = yield* Effect.acquireRelease(
        Effect.callback<Server>((resume) => {
          const server = createServer().listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const { port } = taken.address() as AddressInfo
      const { code, err } = yield* Effect.flatMap(run("--http-listen", String(port)), ({ ended }) => ended)
      assert.strictEqual(code, 2)
      assert.match(err, /http\.listen: something else listens there already/)
      assert.deepStrictEqual(yield* database.query("SELECT FROM pg_namespace WHERE nspname = 'fluvio'"), [])
    })
  )
})
