import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Layer, Redacted } from "effect"
import * as fc from "fast-check"
import {
  type ConfigSource,
  ConnectorConfig,
  fromEnvironment,
  fromObject,
  fromSettings,
  parse
} from "../../src/ConnectorConfig.ts"
import { type Settings, table } from "../../src/Settings.ts"

const needed = { topic: "orders", url: "postgresql://role:secret@host/db" }

const refusal = (...sources: ReadonlyArray<ConfigSource>) => Effect.flip(parse(sources))

/** What the ambient provider says. */
const ambient = (provider: ConfigProvider.ConfigProvider) =>
  ConnectorConfig.use(Effect.succeed).pipe(
    Effect.provide(Layer.provide(ConnectorConfig.layer, ConfigProvider.layer(provider)))
  )

const unknownKeys: ReadonlyArray<readonly [tree: object, message: string]> = [
  [{ grup: { rows: 1 } }, "grup: is not a known key; did you mean group?"],
  [{ group: { row: 1 } }, "group.row: is not a known key; did you mean group.rows?"],
  [{ schemaChange: "none" }, "schemaChange: is not a known key; did you mean schemaChanges?"],
  [{ schema_changes: "none" }, "schema_changes: is not a known key; did you mean schema-changes?"],
  [{ onEror: "halt" }, "onEror: is not a known key; did you mean onError?"],
  [{ onError: { dta: "halt" } }, "onError.dta: is not a known key; did you mean onError.data?"],
  [{ statementTimeout: "1 s" }, "statementTimeout: is not a known key; did you mean target.statement-timeout?"],
  [{ wholly: { different: 1 } }, "wholly: is not a known key"],
  [
    { tables: { columns: { "a.b": { includes: ["x"] } } } },
    "tables.columns.a.b.includes: is not a known key; did you mean tables.columns.a.b.include?"
  ],
  [{ "schema-changes": "none", schemaChanges: "none" }, "schemaChanges: is given as schema-changes too"],
  [{ __proto__: null, constructor: "x" }, "constructor: is not a known key"]
]

const wrongShapes: ReadonlyArray<readonly [tree: object, message: RegExp]> = [
  [{ group: 5 }, /^group: expected keys below it: rows, bytes, window, transactions, rest-timeout$/],
  [{ group: { rows: { most: 5 } } }, /^group\.rows: expected a whole number/],
  [{ group: { rows: null } }, /^group\.rows: has no value$/],
  [{ group: { rows: "" } }, /^group\.rows: has no value$/],
  [{ group: { rows: () => 5 } }, /^group\.rows: expected plain values$/],
  [{ schemaChanges: "some" }, /^schemaChanges: expected one of /],
  [{ tables: { include: ["a.b", "orders"] } }, /^tables\.include\.1: expected names/]
]

describe("an object of settings", () => {
  it.effect("is refused when a key is no setting, with the nearest one that is", () =>
    Effect.forEach(unknownKeys, ([tree, message]) =>
      Effect.map(refusal(fromObject({ ...needed, ...tree })), (error) => assert.strictEqual(error.message, message))
    )
  )

  it.effect("is refused when a value has another shape, which would be taken for absent", () =>
    Effect.forEach(wrongShapes, ([tree, message]) =>
      Effect.map(refusal(fromObject({ ...needed, ...tree })), (error) => assert.match(error.message, message))
    )
  )

  it.effect("is refused when it is no object", () =>
    Effect.forEach([undefined, null, "topic=orders", 5, ["orders"]], (tree) =>
      Effect.map(refusal(fromObject(tree)), (error) => assert.match(error.message, /^settings: expected an object/))
    )
  )

  it.effect("may spell keys as the file does, or as programs do", () =>
    Effect.gen(function* () {
      const tree = {
        ...needed,
        schemaChanges: "none",
        "missing-row": "halt",
        onError: { data: "quarantine", decode: undefined },
        consumer: { profilePath: "/a", "max-bytes": 2048 },
        tables: { map: { camelCase: "kebab-case" }, columns: { "camelCase.t": { include: ["aB"] } } },
        types: { camelCase: "text" }
      }
      const config = yield* parse([fromObject(tree)])
      assert.strictEqual(config.schemaChanges, "none")
      assert.strictEqual(config.missingRow, "halt")
      assert.deepStrictEqual(config.onError, { data: "quarantine", constraint: "halt", schema: "halt", decode: "halt" })
      assert.deepInclude(config.consumer, { profilePath: "/a", maxBytes: 2048 })
      assert.deepStrictEqual(config.tables.map, { camelCase: "kebab-case" })
      assert.deepStrictEqual(config.tables.columns, { "camelCase.t": { include: ["aB"] } })
      assert.deepStrictEqual(config.types, { camelCase: "text" })
      const all = yield* parse([fromObject({ ...needed, onError: "quarantine" })])
      assert.deepStrictEqual([...new Set(Object.values(all.onError))], ["quarantine"])
    })
  )

  it.effect("holds a key only if it is some setting's, whatever the key", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.string().filter((key) => !table.some(({ path }) => path[0] === key.toLowerCase() || key in needed)),
          async (key) => {
            if (["onError", "schemaChanges", "missingRow", "existingRow", "floatNull"].includes(key)) return
            if (["truncateCascade", "quarantineLimit", "acceptEpoch"].includes(key)) return
            const error = await Effect.runPromise(refusal(fromObject({ ...needed, [key]: "x" })))
            assert.include(error.message, "is not a known key")
          }
        )
      )
    )
  )

  it("is typed", () => {
    const settings: Settings = {
      topic: "orders",
      url: Redacted.make("postgresql://host/db"),
      schemaChanges: "none",
      group: { rows: 100, bytes: "8 MiB", window: Duration.millis(5) },
      retry: { min: Duration.seconds(1), max: "1 min" },
      target: { prepare: false },
      onError: "quarantine",
      tables: { include: ["public.*"], columns: { "a.b": { exclude: ["c"] } } }
    }
    assert.isDefined(settings)
    // @ts-expect-error a key that is no setting
    fromSettings({ topic: "orders", grup: {} })
    // @ts-expect-error a key as the file has it
    fromSettings({ "schema-changes": "none" })
    // @ts-expect-error a value that the setting does not have
    fromSettings({ schemaChanges: "some" })
  })

  it.effect("takes the values that programs have, and refuses at run time what types cannot", () =>
    Effect.gen(function* () {
      const config = yield* parse([
        fromSettings({
          topic: "orders",
          url: Redacted.make(needed.url),
          group: { rows: 100, bytes: 65_536, window: Duration.millis(2.5) },
          retry: { min: Duration.seconds(1), times: 0 },
          target: { prepare: false },
          onError: "quarantine",
          types: { 16401: "text" }
        })
      ])
      assert.strictEqual(Redacted.value(config.url), needed.url)
      assert.deepInclude(config.group, { rows: 100, bytes: 65_536, window: Duration.millis(2.5) })
      assert.deepInclude(config.retry, { min: Duration.seconds(1), times: 0 })
      assert.isFalse(config.target.prepare)
      assert.strictEqual(config.onError.schema, "quarantine")
      const cases: ReadonlyArray<readonly [object, string]> = [
        [{ grup: {} }, "grup: is not a known key; did you mean group?"],
        [
          { group: { window: Duration.infinity } },
          'group.window: expected a time such as "200 millis", "10 s" or "1 min"'
        ],
        [{ group: { rows: 1.5 } }, "group.rows: expected a whole number from 1 on"],
        [{ consumer: { maxBytes: 1 } }, 'consumer.maxBytes: expected a size such as "8 MiB", from 1 KiB to below 2 GiB']
      ]
      for (const [more, message] of cases) {
        const error = yield* refusal(fromSettings({ ...needed, ...more } as Settings))
        assert.strictEqual(error.message, message)
      }
    })
  )
})

describe("the environment", () => {
  const given = { FLUVIO_PG_TOPIC: "orders", FLUVIO_PG_DATABASE_URL: needed.url, HOME: "/root", FLUVIO_ENDPOINT: "h:1" }

  it.effect("is refused when a variable begins with FLUVIO_PG_ and is no setting", () =>
    Effect.gen(function* () {
      yield* parse([fromEnvironment({ ...given, FLUVIO_PG_GROUP_ROWS: "1", FLUVIO_PG_ON_ERROR: "halt" })])
      const cases = {
        FLUVIO_PG_GROUP_ROW: "is no setting; FLUVIO_PG_GROUP_ROWS is",
        FLUVIO_PG_ON_EROR: "is no setting; FLUVIO_PG_ON_ERROR is",
        FLUVIO_PG_URL: "is no setting; FLUVIO_PG_DATABASE_URL is",
        FLUVIO_PG_SCHEMACHANGES: "is no setting; FLUVIO_PG_SCHEMA_CHANGES is",
        fluvio_pg_topic: "is no setting; FLUVIO_PG_TOPIC is",
        FLUVIO_PG_TABLES_COLUMNS: "only a configuration file can say it",
        FLUVIO_PG_SOMETHING_ELSE_ALTOGETHER: "is no setting",
        FLUVIO_PG_PORT: "is no setting"
      }
      for (const [name, reason] of Object.entries(cases)) {
        const error = yield* refusal(fromEnvironment({ ...given, [name]: "s3cr3t" }))
        assert.isTrue(error.message.startsWith(`${name}: ${reason}`), error.message)
        assert.notInclude(JSON.stringify(error), "s3cr3t")
      }
    })
  )

  it.effect("may hold secrets that another source refers to, and what Kubernetes tells of a service", () =>
    Effect.gen(function* () {
      const variables = { ...given, FLUVIO_PG_MY_PASSWORD: "s3cr3t" }
      assert.match((yield* refusal(fromEnvironment(variables))).message, /^FLUVIO_PG_MY_PASSWORD: is no setting/)
      yield* parse([fromEnvironment(variables), { ...fromObject({}), secrets: ["FLUVIO_PG_MY_PASSWORD"] }])
      yield* parse([
        fromEnvironment({
          ...given,
          FLUVIO_PG_SERVICE_HOST: "10.0.0.1",
          FLUVIO_PG_SERVICE_PORT: "5432",
          FLUVIO_PG_PORT: "tcp://10.0.0.1:5432",
          FLUVIO_PG_PORT_5432_TCP_ADDR: "10.0.0.1"
        })
      ])
    })
  )
})

describe("the ambient provider", () => {
  it.effect("is refused when it lists what is no setting", () =>
    Effect.gen(function* () {
      for (const [tree, message] of unknownKeys) {
        const error = yield* Effect.flip(ambient(ConfigProvider.fromUnknown({ ...needed, ...tree })))
        assert.strictEqual(error.message, message)
      }
      const nested = ConfigProvider.nested(ConfigProvider.fromUnknown({ http: { port: 1 }, sink: needed }), "sink")
      assert.strictEqual((yield* ambient(nested)).topic, "orders")
    })
  )

  it.effect("may be an environment that holds other things too, but nothing that is almost a setting", () =>
    Effect.gen(function* () {
      const env = { PATH: "/bin", HOME: "/root", URL: needed.url, TOPIC: "orders", GROUP_ROWS: "5", TARGET_ARCH: "arm" }
      const provider = (more: object) =>
        ConfigProvider.constantCase(ConfigProvider.fromEnv({ env: { ...env, ...more } }))
      assert.strictEqual((yield* ambient(provider({}))).group.rows, 5)
      const error = yield* Effect.flip(ambient(provider({ GROUP_WINDOWS: "1 s" })))
      assert.strictEqual(error.message, "GROUP_WINDOWS: is no setting; GROUP_WINDOW is")
    })
  )
})
