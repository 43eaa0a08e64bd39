import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Layer, Redacted } from "effect"
import * as ConnectorConfig from "../../src/ConnectorConfig.ts"
import { table } from "../../src/Settings.ts"

const needed = { topic: "orders", url: "postgresql://role:secret@host/db" }

const parse = (...sources: ReadonlyArray<ConnectorConfig.ConfigSource>) => ConnectorConfig.parse(sources)
const file = (tree: object) =>
  ConnectorConfig.fromObject({ ...needed, ...tree }, (path) => `parameters.${path.join(".")}`)
const refused = (tree: object, variables: { [name: string]: string } = {}) =>
  Effect.flip(parse(ConnectorConfig.fromEnvironment(variables), file(tree)))
const message = (tree: object, variables?: { [name: string]: string }) =>
  Effect.map(refused(tree, variables), (error) => error.message)
const time = (value: string) => Effect.map(parse(file({ group: { window: value } })), (config) => config.group.window)
const size = (value: string) => Effect.map(parse(file({ group: { bytes: value } })), (config) => config.group.bytes)

describe("ConnectorConfig", () => {
  it.effect("needs nothing but a topic and a target", () =>
    Effect.gen(function* () {
      const config = yield* parse(file({}))
      assert.strictEqual(config.topic, "orders")
      assert.strictEqual(Redacted.value(config.url), needed.url)
      assert.strictEqual(config.group.rows, 20_000)
      assert.strictEqual(config.group.bytes, 6 * 1024 * 1024)
      assert.deepStrictEqual(config.consumer.probeInterval, Duration.seconds(10))
      assert.deepStrictEqual(config.onError, { data: "halt", constraint: "halt", schema: "halt", decode: "halt" })
      assert.strictEqual(config.retry.times, undefined)
      assert.deepStrictEqual(config.tables.map, {})
    })
  )

  it.effect("reads quantities as people write them", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* time("200 millis"), Duration.millis(200))
      assert.deepStrictEqual(yield* time("1.5s"), Duration.millis(1500))
      assert.deepStrictEqual(yield* time("2 min"), Duration.minutes(2))
      assert.deepStrictEqual(yield* time("0"), Duration.zero)
      assert.strictEqual(yield* size("65536"), 65_536)
      assert.strictEqual(yield* size("1.5 MiB"), 1_572_864)
      assert.strictEqual(yield* size("1 MB"), 1_000_000)
      assert.strictEqual(yield* size("512 KB"), 512_000)
    })
  )

  it.effect("lets the first source that has a setting decide it", () =>
    Effect.gen(function* () {
      const flags = ConnectorConfig.fromObject({ group: { rows: "1" } })
      const environment = ConnectorConfig.fromEnvironment({
        FLUVIO_PG_GROUP_ROWS: "2",
        FLUVIO_PG_GROUP_TRANSACTIONS: "2",
        FLUVIO_PG_DATABASE_URL: "postgres://other"
      })
      const config = yield* parse(flags, environment, file({ group: { rows: "3", transactions: "3", window: "3 s" } }))
      assert.strictEqual(config.group.rows, 1)
      assert.strictEqual(config.group.transactions, 2)
      assert.deepStrictEqual(config.group.window, Duration.seconds(3))
      assert.strictEqual(Redacted.value(config.url), "postgres://other")
    })
  )

  it.effect("takes a plain on-error for all classes, within its own source", () =>
    Effect.gen(function* () {
      const config = yield* parse(file({ "on-error": { data: "quarantine" } }))
      assert.deepStrictEqual(config.onError, { data: "quarantine", constraint: "halt", schema: "halt", decode: "halt" })
      const flag = yield* parse(
        ConnectorConfig.fromObject({ "on-error": "quarantine" }),
        file({ "on-error": { data: "halt" } })
      )
      assert.deepStrictEqual([...new Set(Object.values(flag.onError))], ["quarantine"])
    })
  )

  it.effect("reads lists and maps, from text too", () =>
    Effect.gen(function* () {
      const tree = {
        types: { 16401: "text", mood: "public.mood" },
        tables: {
          include: ["public.*"],
          columns: { "public.orders": { exclude: ["note"] } },
          map: { sales: "archive", "public.orders": "archive.old.orders" }
        }
      }
      const config = yield* parse(file(tree))
      assert.deepStrictEqual({ types: config.types, tables: { ...config.tables } }, {
        ...tree,
        tables: { ...tree.tables, exclude: undefined }
      } as never)
      const variables = yield* parse(
        ConnectorConfig.fromEnvironment({ FLUVIO_PG_TABLES_EXCLUDE: "a.b, c.*", FLUVIO_PG_TYPES: "16401=text, a=b" }),
        file({})
      )
      assert.deepStrictEqual(variables.tables.exclude, ["a.b", "c.*"])
      assert.deepStrictEqual(variables.types, { 16401: "text", a: "b" })
    })
  )

  it.effect("names a malformed setting as its author wrote it, and never its value", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* message({ group: { rows: "many" } }),
        "parameters.group.rows: expected a whole number from 1 on"
      )
      assert.strictEqual(
        yield* message({ group: { rows: "1" } }, { FLUVIO_PG_GROUP_ROWS: "0" }),
        "FLUVIO_PG_GROUP_ROWS: expected a whole number from 1 on"
      )
      assert.strictEqual(
        yield* message({ "on-error": "ignore" }),
        "parameters.on-error: expected one of halt, quarantine"
      )
      assert.match(
        yield* message({ tables: { include: ["a.b", "orders"] } }),
        /^parameters\.tables\.include\.1: expected/
      )
      assert.match(yield* message({ tables: { map: { "a.b": "c" } } }), /^parameters\.tables\.map: expected/)
      // What another connector keeps in its schema goes nowhere, and nothing goes to this one's.
      for (const map of [{ a: "fluvio" }, { "a.b": "fluvio.b" }, { fluvio: "a" }, { "fluvio.offset": "a.b" }]) {
        assert.match(
          yield* message({ tables: { map } }),
          /^parameters\.tables\.map: expected .* neither of them in fluvio/
        )
      }
      for (const url of [
        "postgres://role:s3cr3t@[/db",
        "mysql://role:s3cr3t@host/db",
        "s3cr3t",
        "postgres:///s3cr3t",
        "postgres://role:s3cr3t%@host",
        "postgres://h:x/s3cr3t"
      ]) {
        const error = yield* refused({ url })
        assert.match(error.message, /^parameters\.url: expected a URL such as postgresql:/)
        assert.notInclude(JSON.stringify(error), "s3cr3t")
      }
      assert.match(yield* message({ topic: undefined }), /^topic: is required/)
      const unknown = yield* refused({ url: `${needed.url}?sslmod=require` })
      assert.strictEqual(unknown.message, "parameters.url: its parameter sslmod is not known; did you mean sslmode?")
      assert.strictEqual(unknown.remedy, "write sslmode in the URL")
    })
  )

  it.effect("is read from the ambient provider by whoever embeds it", () =>
    Effect.gen(function* () {
      const config = yield* ConnectorConfig.ConnectorConfig
      assert.strictEqual(config.consumer.driver, "client")
    }).pipe(
      Effect.provide(
        ConnectorConfig.ConnectorConfig.layer.pipe(
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ ...needed, consumer: { driver: "client" } })))
        )
      )
    )
  )

  it("documents every setting, once", () => {
    const names = ["key", "environment", "flag"] as const
    for (const name of names) {
      const all = table.flatMap((row) => row[name] ?? [])
      assert.deepStrictEqual(all, [...new Set(all)])
    }
    assert.isTrue(table.every((row) => row.description !== "" && row.expects !== ""))
    assert.deepStrictEqual(
      table.filter((row) => row.isRequired).map((row) => row.key),
      ["topic", "url"]
    )
  })
})
