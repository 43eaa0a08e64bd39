import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Redacted, Result } from "effect"
import * as fc from "fast-check"
import * as ConfigFile from "../../layers/ConfigFile.ts"
import * as ConnectorConfig from "../../src/ConnectorConfig.ts"
import { fuzzRuns } from "../fuzz.ts"

const variables = { MY_URL: "postgresql://role:s3cr3t@host/db", PASSWORD: "s3cr3t" }

const read = (text: string, more: { readonly [name: string]: string } = variables) =>
  ConfigFile.parse(text, "connector.yaml", more).pipe(
    Effect.flatMap((file) => ConnectorConfig.parse([ConnectorConfig.fromEnvironment(more), file]))
  )

/** The one message; whatever is wrong, it never shows the password. */
const refusal = (text: string) =>
  Effect.map(Effect.flip(read(text)), (error) => {
    assert.notInclude(JSON.stringify(error) + error.message + error.remedy + (error.stack ?? ""), "s3cr3t")
    return error.message
  })

const minimal = `
topic: orders
parameters:
  url: postgresql://role:s3cr3t@host/db
`

const listing = (secret: string) => `
apiVersion: 0.1.0
meta: { name: sink, type: postgres-sink, topic: orders, secrets: [{ name: ${secret} }] }
parameters: { url: "\${{ secrets.FLUVIO_PG_URL }}" }
`

/** A file in the form that Fluvio gives its connectors. */
const sink = (apiVersion: string, meta: string, rest = "") =>
  `${apiVersion}\nmeta:\n  version: 0.4.0\n  name: pets\n  type: postgres-sink\n${meta
    .split("\n")
    .map((line) => `  ${line}`)
    .join("\n")}\n${rest === "" ? "postgres-sink: { url: 'postgresql://role:s3cr3t@h' }" : rest}\n`

describe("ConfigFile", () => {
  it.effect("takes the original's file as it is", () =>
    Effect.gen(function* () {
      const byParameter = yield* read(`
version: 0.1.0
name: my-postgres-sink
type: postgres-sink
topic: postgres-topic
parameters:
  url: postgres://postgres:mysecretpassword@localhost:5432
`)
      assert.strictEqual(byParameter.name, "my-postgres-sink")
      assert.strictEqual(byParameter.topic, "postgres-topic")
      assert.strictEqual(Redacted.value(byParameter.url), "postgres://postgres:mysecretpassword@localhost:5432")

      const bySecret = `
version: 0.1.0
name: my-postgres-sink
type: postgres-sink
topic: postgres-topic
secrets:
  FLUVIO_PG_DATABASE_URL: postgres://postgres:mysecretpassword@localhost:5432
`
      assert.strictEqual(
        Redacted.value((yield* read(bySecret)).url),
        "postgres://postgres:mysecretpassword@localhost:5432"
      )
      assert.strictEqual(
        Redacted.value((yield* read(bySecret, { FLUVIO_PG_DATABASE_URL: "postgres://other" })).url),
        "postgres://other"
      )
    })
  )

  it.effect("takes today's form, with secrets from the environment", () =>
    Effect.gen(function* () {
      const config = yield* read(
        `
apiVersion: 0.1.0
meta:
  version: 0.3.1
  name: sink
  type: postgres-sink
  topic: orders
  secrets:
    - name: PASSWORD
  consumer:
    partition: 3
    max_bytes: 1 MB
transforms: []
postgres-sink:
  url: "postgresql://role:\${{ secrets.PASSWORD }}@host/db"
  group: { rows: 5_0 }
`.replace("5_0", "50")
      )
      assert.strictEqual(Redacted.value(config.url), "postgresql://role:s3cr3t@host/db")
      assert.strictEqual(config.partition, 3)
      assert.strictEqual(config.consumer.maxBytes, 1_000_000)
      assert.strictEqual(config.group.rows, 50)
      const topic = yield* read(`
apiVersion: 0.2.0
meta: { name: sink, type: postgres-sink, topic: { meta: { name: orders } }, consumer: { partition: [0] } }
parameters: { url: "\${{secrets.MY_URL}}" }
`)
      assert.strictEqual(topic.topic, "orders")
    })
  )

  it.effect("reads every kind of value, as text and unrounded", () =>
    Effect.gen(function* () {
      const config = yield* read(`${minimal}
  float-null: null
  on-error: quarantine
  accept-epoch: 9007199254740991
  target: { synchronous-commit: on, prepare: false, lock: none }
  consumer: { endpoint: "localhost:9003" }
  types: { 16401: text, mood: public.mood }
  tables:
    include: [public.*, &t sales.orders]
    exclude: [*t]
    columns:
      public.orders: { exclude: [note] }
    map: { sales: archive }
`)
      assert.strictEqual(config.floatNull, "null")
      assert.strictEqual(config.onError.decode, "quarantine")
      assert.strictEqual(config.acceptEpoch, Number.MAX_SAFE_INTEGER)
      assert.deepInclude(config.target, { synchronousCommit: "on", prepare: false, lock: "none" })
      assert.strictEqual(config.consumer.endpoint, "localhost:9003")
      assert.deepStrictEqual(config.types, { 16401: "text", mood: "public.mood" })
      assert.deepStrictEqual(config.tables, {
        include: ["public.*", "sales.orders"],
        exclude: ["sales.orders"],
        columns: { "public.orders": { exclude: ["note"] } },
        map: { sales: "archive" }
      })
    })
  )

  it.effect("may refer to secrets whose names begin as those of settings do", () =>
    Effect.gen(function* () {
      const secrets = { FLUVIO_PG_URL: variables.MY_URL, FLUVIO_PG_PASSWORD: "s3cr3t" }
      assert.strictEqual(Redacted.value((yield* read(listing("FLUVIO_PG_PASSWORD"), secrets)).url), variables.MY_URL)
      const error = yield* Effect.flip(read(listing("OTHER"), secrets))
      assert.match(error.message, /^FLUVIO_PG_PASSWORD: is no setting, and no secret/)
    })
  )

  it.effect("refuses unknown keys, and suggests what was meant", () =>
    Effect.gen(function* () {
      const cases = {
        [`${minimal}  gruop: { rows: 1 }`]: "parameters.gruop: is not a known key; did you mean parameters.group?",
        [`${minimal}  group: { row: 1 }`]:
          "parameters.group.row: is not a known key; did you mean parameters.group.rows?",
        [`${minimal}  endpoint: x`]:
          "parameters.endpoint: is not a known key; did you mean parameters.consumer.endpoint?",
        [`${minimal}group: { rows: 1 }`]: "group: is not a known key; did you mean parameters.group?",
        [`${minimal}topics: x`]: "topics: is not a known key; did you mean topic?",
        [`${minimal}wholly-different: x`]: "wholly-different: is not a known key",
        [`${minimal}  tables: { columns: { a.b: { includes: [x] } } }`]:
          "parameters.tables.columns.a.b.includes: is not a known key; did you mean parameters.tables.columns.a.b.include?",
        [`${minimal}  topic: x`]: "parameters.topic: is not a known key",
        [`${minimal}  __proto__: { rows: 1 }`]: "parameters.__proto__: is not a known key",
        "meta: { topics: x }": "meta.topics: is not a known key; did you mean meta.topic?"
      }
      for (const [text, message] of Object.entries(cases)) assert.strictEqual(yield* refusal(text), message)
    })
  )

  it.effect("refuses values of the wrong shape, by the name that the file gives them", () =>
    Effect.gen(function* () {
      const cases = {
        [`${minimal}  group: 5`]:
          /^parameters\.group: expected keys below it: rows, bytes, window, transactions, rest-timeout$/,
        [`${minimal}  group:`]: /^parameters\.group: expected keys below it/,
        [`${minimal}  group: { rows: [1] }`]: /^parameters\.group\.rows: expected a whole number/,
        [`${minimal}  group: { rows: { a: 1 } }`]: /^parameters\.group\.rows: expected a whole number/,
        [`${minimal}  group: { rows: }`]: /^parameters\.group\.rows: has no value$/,
        [`${minimal}  group: { rows: "" }`]: /^parameters\.group\.rows: has no value$/,
        [`${minimal}  group: { rows: 0 }`]: /^parameters\.group\.rows: expected a whole number from 1 on$/,
        [`${minimal}  group: { rows: 0x10 }`]: /^parameters\.group\.rows: expected a whole number from 1 on$/,
        [`${minimal}  tables: { include: { a: b } }`]: /^parameters\.tables\.include: expected names/,
        [`${minimal}  types: [a]`]: /^parameters\.types: expected/,
        [`${minimal}  on-error: [halt]`]: /^parameters\.on-error: expected keys below it/,
        "topic: [a]\nparameters: { url: x }": /^topic: expected one plain value$/,
        "topic:\nparameters: { url: x }": /^topic: expected one plain value$/,
        "topic: a\nparameters: { url: 's3cr3t' }": /^parameters\.url: expected a URL/,
        "topic: a\nsecrets: { FLUVIO_PG_DATABASE_URL: 's3cr3t' }": /^secrets\.FLUVIO_PG_DATABASE_URL: expected a URL/,
        "meta: { topic: a, consumer: { max-bytes: s3cr3t } }\nparameters: { url: 'postgres://h' }":
          /^meta\.consumer\.max-bytes: expected a size/,
        "topic: a": /^url: is required/,
        "meta: { name: a }\nparameters: { url: 'postgres://h' }": /^topic: is required/,
        "- a": /^connector\.yaml: expected keys and values at its top$/,
        "": /^connector\.yaml: expected keys and values at its top$/
      }
      for (const [text, message] of Object.entries(cases)) assert.match(yield* refusal(text), message)
      const missing = yield* Effect.flip(read("meta: { name: a }\nparameters: { url: 'postgres://h' }"))
      assert.strictEqual(missing.remedy, "set meta.topic, or FLUVIO_PG_TOPIC")
    })
  )

  it.effect("refuses what it would have to ignore", () =>
    Effect.gen(function* () {
      const cases = {
        [`${minimal}type: postgres-source`]: /^type: expected postgres-sink$/,
        [`${minimal}transforms: [{ uses: infinyon/jolt@0.1.0 }]`]: /^transforms: are not supported/,
        [`${minimal}consumer: { id: a }`]: /^consumer\.id: is not supported/,
        [`${minimal}consumer: { partition: all }`]: /^consumer\.partition: expected one partition/,
        [`${minimal}consumer: { partition: [0, 1] }`]: /^consumer\.partition: expected one partition/,
        [`${minimal}  partition: 1\nconsumer: { partition: 1 }`]:
          /^parameters\.partition: is given as consumer\.partition/,
        [`${minimal}postgres-sink: { url: x }`]: /^postgres-sink: is given beside parameters/,
        "apiVersion: 9.0.0\nmeta: { topic: a }": /^apiVersion: expected 0\.1\.0 or 0\.2\.0$/,
        "meta: { topic: a, producer: { linger: 1 } }": /^meta\.producer: belongs to a source, and this is a sink$/,
        "meta: { topic: a, consumer: { offset: { start: end } } }": /^meta\.consumer\.offset\.start: is not supported/
      }
      for (const [text, message] of Object.entries(cases)) assert.match(yield* refusal(text), message)
    })
  )

  it.effect("takes each form that Fluvio gives a connector.yaml, or says why not", () =>
    Effect.gen(function* () {
      const topic = `topic:
  version: 0.1.0
  meta: { name: orders }
  partition: { count: 4, max-size: 2.0 GB, replication: 2, ignore-rack-assignment: false }
  retention: { time: 7days, segment-size: 64.0 MB }
  compression: { type: Zstd }`
      const versions = ["", "apiVersion: 0.0.0", "apiVersion: 0.1.0", "apiVersion: 0.2.0"]
      const taken: ReadonlyArray<readonly [text: string, partition: number]> = [
        ...versions.map((version) => [sink(version, "topic: orders"), 0] as const),
        ...versions.map((version) => [sink(version, `${topic}\nconsumer: { partition: 3 }`), 3] as const),
        [sink("apiVersion: 0.1.0", "topic: orders\ncreate_topic: false"), 0],
        [sink("", "topic: orders\ncreate-topic: false\nconsumer: { partition: [2], max-bytes: 1 MB }"), 2],
        [sink("", "topic: orders\nconsumer: { offset: { start: beginning, strategy: none } }"), 0],
        [sink("", "topic: orders\nconsumer: { offset: { start: { from-beginning: 0 }, strategy: none } }"), 0],
        [sink("", "topic: orders\nsecrets: [{ name: MY_URL }]", "custom: { url: '${{ secrets.MY_URL }}' }"), 0],
        [sink("", "topic: orders", "parameters: { url: 'postgresql://h', partition: 5 }\ntransforms: []"), 5]
      ]
      for (const [text, partition] of taken) {
        const config = yield* read(text)
        assert.deepStrictEqual([config.name, config.topic, config.partition], ["pets", "orders", partition], text)
      }
      const refused: ReadonlyArray<readonly [text: string, message: RegExp]> = [
        [sink("apiVersion: v1", "topic: orders"), /^apiVersion: expected 0\.1\.0 or 0\.2\.0$/],
        [sink("", "topic: orders\ncreate_topic: true"), /^meta\.create_topic: .*the connector only reads it$/],
        [sink("", `${topic}\nconsumer: { partition: 4 }`), /^meta\.topic\.partition\.count: .*fewer partitions/],
        [sink("", topic, "custom: { url: 'postgresql://h', partition: 4 }"), /^meta\.topic\.partition\.count: .*fewer/],
        [sink("", topic.replace("count: 4", "count: many")), /^meta\.topic\.partition\.count: expected a whole number/],
        [sink("", topic.replace("time:", "tine:")), /^meta\.topic\.retention\.tine: .*meta\.topic\.retention\.time\?$/],
        [
          sink("", `${topic}\n  deduplication: { bounds: { count: 9 } }`),
          /^meta\.topic\.deduplication: .*transaction$/
        ],
        [sink("", "topic: orders\nconsumer: { partition: all }"), /^meta\.consumer\.partition: .*within one only$/],
        [sink("", "topic: orders\nconsumer: { id: pets }"), /^meta\.consumer\.id: .*kept in the target/],
        ...["manual", "auto"].map(
          (strategy) =>
            [
              sink("", `topic: orders\nconsumer: { offset: { strategy: ${strategy} } }`),
              /^meta\.consumer\.offset\.strategy: .*kept in the target/
            ] as const
        ),
        ...["end", "{ absolute: 7 }", "{ from-end: 7 }", "{ from-beginning: 7 }"].map(
          (start) =>
            [
              sink("", `topic: orders\nconsumer: { offset: { start: ${start}, strategy: none } }`),
              /^meta\.consumer\.offset\.start: .*the topic's first record/
            ] as const
        ),
        [
          sink("", "topic: orders\nconsumer: { offset: { strategy: none, flush-period: { secs: 5, nanos: 0 } } }"),
          /^meta\.consumer\.offset\.flush-period: .*no position is kept/
        ],
        [sink("", "topic: orders\nproducer: { linger: 5ms, compression: gzip }"), /^meta\.producer: .*this is a sink$/],
        [sink("", "topic: orders\nsecrets: [{ name: my password }]"), /^meta\.secrets: expected names of letters/],
        [sink("", "topic: orders\nsecrets: [{ name: 2nd }]"), /^meta\.secrets: expected names of letters/],
        [
          sink("", "topic: orders", "custom: { url: x }\nparameters: { url: x }"),
          /^custom: is given beside parameters/
        ],
        [
          sink(
            "",
            "topic: orders",
            "custom: { url: 'postgresql://h' }\ntransforms: [{ uses: a/b, lookback: { last: 9 } }]"
          ),
          /^transforms: are not supported: a SmartModule/
        ],
        [
          "meta: { name: a, type: http-source, topic: a }\nhttp: { interval: 9s }",
          /^(?:http: is not a known key|meta\.type)/
        ]
      ]
      for (const [text, message] of refused) assert.match(yield* refusal(text), message, text)
    })
  )

  it.effect("refuses secrets that are not there, and other expressions", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* refusal("topic: a\nparameters: { url: 'postgres://s3cr3t@${{ secrets.ABSENT }}' }"),
        "parameters.url: the secret ABSENT is neither in the file nor in the environment"
      )
      assert.match(yield* refusal("topic: ${{ env.MY_URL }}"), /^topic: only \$\{\{ secrets\.NAME \}\}/)
      assert.match(yield* refusal("topic: ${{ secrets.1X }}"), /^topic: only/)
      assert.match(yield* refusal("topic: ${{ secrets.constructor }}"), /^topic: the secret constructor is neither/)
      const own = yield* read("topic: ${{ secrets.T }}\nsecrets: { T: orders }\nparameters: { url: 'postgres://h' }")
      assert.strictEqual(own.topic, "orders")
    })
  )

  it.effect("reads secrets as Fluvio's connectors do, before those of the environment", () =>
    Effect.gen(function* () {
      const secrets = yield* ConfigFile.parseSecrets(
        "\uFEFF# of the target\r\n\r\n PASSWORD = a=b c\r\nQUOTED='x'\n_1=#\nLAST=z",
        "secrets.txt"
      )
      assert.deepStrictEqual(secrets, { PASSWORD: "a=b c", QUOTED: "'x'", _1: "#", LAST: "z" })
      const fs = yield* FileSystem.FileSystem
      const folder = yield* fs.makeTempDirectoryScoped()
      const [config, file] = [`${folder}/connector.yaml`, `${folder}/secrets.txt`]
      yield* fs.writeFileString(config, "topic: ${{ secrets.T }}\nparameters: { url: '${{ secrets.U }}' }")
      yield* fs.writeFileString(file, "U=postgresql://role:s3cr3t@file/db\n")
      const source = yield* ConfigFile.load(config, { T: "orders", U: "postgresql://variable" }, file)
      const { topic, url } = yield* ConnectorConfig.parse([source])
      assert.deepStrictEqual([topic, Redacted.value(url)], ["orders", "postgresql://role:s3cr3t@file/db"])
      const absent = yield* Effect.flip(ConfigFile.load(config, {}, `${folder}/absent`))
      assert.strictEqual(absent.message, `${folder}/absent: the file of secrets cannot be read`)
      const url2 = yield* Effect.flip(ConfigFile.load(config, {}, "postgresql://role:s3cr3t@host/db"))
      assert.strictEqual(url2.message, "--secrets: is the connection to a database, and not a file")
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  it.effect("refuses a malformed file of secrets by its line, and shows nothing of it", () =>
    Effect.gen(function* () {
      for (const [text, reason] of [
        ["A=1\ns3cr3t", "expected NAME=value, at line 2"],
        ["\n#\nA: s3cr3t", "expected NAME=value, at line 3"],
        ["=s3cr3t", "expected NAME=value, at line 1"],
        ["1A=s3cr3t", "expected NAME=value, at line 1"],
        ["export A=s3cr3t", "expected NAME=value, at line 1"],
        ["A=s3cr3t\nB=1\nA=2", "a secret is given twice, at line 3"],
        ["A=s3cr3t\nB=", "a secret has no value, at line 2"]
      ]) {
        const error = yield* Effect.flip(ConfigFile.parseSecrets(text, "secrets.txt"))
        assert.strictEqual(error.message, `secrets.txt: ${reason}`)
        assert.notInclude(JSON.stringify(error) + error.remedy, "s3cr3t")
      }
    })
  )

  it.effect("refuses bad YAML by line and column only", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* refusal("topic: a\nparameters:\n  url: s3cr3t\n  url: s3cr3t\n"),
        "connector.yaml: a key is given twice, at line 4, column 3"
      )
      assert.match(
        yield* refusal("topic: a\nparameters: { url: 's3cr3t }\n"),
        /^connector\.yaml: this is not valid YAML, at line \d+, column \d+$/
      )
      assert.match(yield* refusal("topic: a\n---\ntopic: b"), /^connector\.yaml: this is not valid YAML, at line 2/)
      assert.match(
        yield* refusal("topic: !!js/function 's3cr3t'"),
        /^connector\.yaml: this is not valid YAML, at line 1/
      )
      const levels = Array.from(
        { length: 12 },
        (_, i) =>
          `l${i}: &l${i} [${Array(9)
            .fill(`*l${i - 1}`)
            .join(",")}]`
      )
      const bomb = ["l: &l-1 x", ...levels].join("\n")
      assert.strictEqual(yield* refusal(bomb), "connector.yaml: its aliases unfold to too many values")
      assert.match(yield* refusal("topic: &a [*a]"), /^connector\.yaml:/)
    })
  )

  it.effect("names a file that cannot be read", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(ConfigFile.load("/absent/connector.yaml", {}))
      assert.strictEqual(error.message, "/absent/connector.yaml: the configuration file cannot be read")
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  it("answers hostile files with a configuration or one message", () => {
    const pieces = [
      minimal,
      "topic: orders",
      "parameters:\n  url: postgresql://role:s3cr3t@host/db\n",
      "  group:\n    rows: 10\n",
      "  tables:\n    include: [public.*]\n",
      "__proto__:\n  topic: x\n",
      "constructor: {prototype: {topic: x}}\n",
      "a: &a [*a]\n",
      "? [x]\n: y\n",
      "<<: *a\n",
      "!!js/function 'x'\n",
      "--- |\n",
      "${{ secrets.PASSWORD }}",
      "\u0000",
      "\t- ",
      "'",
      '"',
      "{",
      "[",
      ": ",
      "\n"
    ]
    const hostile = fc
      .tuple(
        fc.array(fc.oneof(fc.constantFrom(...pieces), fc.string({ maxLength: 20 })), { maxLength: 8 }),
        fc.nat(),
        fc.nat(5)
      )
      .map(([parts, at, length]) => {
        const text = parts.join("")
        const from = text.length === 0 ? 0 : at % text.length
        return text.slice(0, from) + text.slice(from + length)
      })
    fc.assert(
      fc.property(hostile, (text) => {
        const result = Effect.runSync(Effect.result(read(text)))
        if (Result.isSuccess(result)) return
        const { failure } = result
        assert.instanceOf(failure, ConnectorConfig.ConnectorConfigError)
        assert.notInclude(failure.message + failure.remedy, "s3cr3t")
      }),
      fuzzRuns(2500)
    )
    assert.isUndefined(({} as Record<string, unknown>)["topic"])
  })
})
