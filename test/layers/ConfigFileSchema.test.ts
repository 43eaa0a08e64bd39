import { assert, describe, it } from "@effect/vitest"
import { Ajv } from "ajv"
import { Effect, Result } from "effect"
import { readFileSync } from "node:fs"
import { parse } from "yaml"
import * as ConfigFile from "../../layers/ConfigFile.ts"
import * as ConnectorConfig from "../../src/ConnectorConfig.ts"
import { table } from "../../src/Settings.ts"

const ajv = new Ajv({ strict: true, allowUnionTypes: true, strictTypes: false, strictRequired: false, allErrors: true })
const validate = ajv.compile(ConfigFile.schema)

/** The places that the schema finds wrong, and nothing where it finds none. */
const wrongAt = (text: string): ReadonlyArray<string> =>
  validate(parse(text)) ? [] : (validate.errors ?? []).map(({ instancePath }) => instancePath)

const variables = { PG_PASSWORD: "s3cr3t", FLUVIO_PG_TOPIC: "orders", FLUVIO_PG_DATABASE_URL: "postgres://h" }

/** Whether the connector takes the file. */
const isTaken = (text: string) =>
  ConfigFile.parse(text, "connector.yaml", variables).pipe(
    Effect.flatMap((file) => ConnectorConfig.parse([file, ConnectorConfig.fromEnvironment(variables)])),
    Effect.result,
    Effect.map(Result.isSuccess)
  )

const at = (settings: string) => `topic: orders\nparameters:\n  url: postgres://h\n  ${settings}\n`

describe("the schema of a configuration file", () => {
  it.effect("takes the README's example", () =>
    Effect.gen(function* () {
      const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8")
      const files = [...readme.matchAll(/^```yaml\n([^]*?)^```$/gm)]
        .map(([, text]) => text)
        .filter((text) => text.startsWith("apiVersion:"))
      assert.isAbove(files.length, 0)
      for (const text of files) {
        assert.isTrue(yield* isTaken(text))
        assert.deepStrictEqual(wrongAt(text), [], text)
      }
    })
  )

  it.effect("takes what the connector takes", () =>
    Effect.gen(function* () {
      for (const text of [
        "version: 0.1.0\nname: sink\ntype: postgres-sink\ntopic: orders\nparameters: { url: 'postgres://h' }",
        "version: 1\nname: 5\ntopic: 7\nsecrets: { FLUVIO_PG_DATABASE_URL: 'postgres://h' }\nparameters:",
        "apiVersion: 0.1.0\nmeta: { topic: { meta: { name: a } }, consumer: { partition: [3], max_bytes: 1 MB } }\ntransforms: []",
        "apiVersion: 0.2.0\nmeta: { topic: a, consumer: { partition: 0 } }\npostgres-sink: { group: { rows: '50' } }",
        "meta: { topic: a, secrets: [{ name: PG_PASSWORD }] }\nparameters: { url: 'postgres://u:${{ secrets.PG_PASSWORD }}@h' }",
        "meta: { topic: { meta: { name: a }, partition: { count: 2 }, retention: { time: 1h }, compression: { type: Lz4 } } }",
        "meta: { topic: a, create_topic: false, consumer: { offset: { start: beginning, strategy: none } } }\ncustom: { group: { rows: 5 } }",
        at("float-null: null"),
        at("on-error: quarantine"),
        at("on-error: { data: quarantine, decode: halt }"),
        at("target: { synchronous-commit: on, prepare: no, lock: none, lock-timeout: 0 }"),
        at("consumer: { endpoint: 'localhost:9003', profile-path: '/${{ secrets.PG_PASSWORD }}' }"),
        at("group: { window: 1.5 s, bytes: 3000000, rest-timeout: 2min }"),
        at("types: { 16401: text, mood: public.mood }"),
        at("types: mood=public.mood,a=b"),
        at("tables: { include: [public.*, sales.orders], exclude: 'a.b,c.d', map: { sales: archive } }"),
        at("tables: { columns: { public.orders: { exclude: [note] } } }")
      ]) {
        assert.isTrue(yield* isTaken(text), text)
        assert.deepStrictEqual(wrongAt(text), [], text)
      }
    })
  )

  it.effect("refuses what the connector refuses, where it is", () =>
    Effect.gen(function* () {
      for (const [text, place] of [
        [at("gruop: { rows: 1 }"), "/parameters"],
        [at("group: { row: 1 }"), "/parameters/group"],
        [at("group: 5"), "/parameters/group"],
        [at("group: { rows: 0 }"), "/parameters/group/rows"],
        [at("group: { rows: many }"), "/parameters/group/rows"],
        [at("group: { rows: }"), "/parameters/group/rows"],
        [at("group: { bytes: 5 }"), "/parameters/group/bytes"],
        [at("group: { bytes: 5 pounds }"), "/parameters/group/bytes"],
        [at("group: { window: soon }"), "/parameters/group/window"],
        [at("group: { rest-timeout: 0 }"), "/parameters/group/rest-timeout"],
        [at("schema-changes: some"), "/parameters/schema-changes"],
        [at("on-error: ignore"), "/parameters/on-error"],
        [at("on-error: { dta: halt }"), "/parameters/on-error"],
        [at("target: { prepare: perhaps }"), "/parameters/target/prepare"],
        [at("consumer: { endpoint: 'a b' }"), "/parameters/consumer/endpoint"],
        [at("tables: { include: [orders] }"), "/parameters/tables/include/0"],
        [at("tables: { columns: { a.b: { includes: [x] } } }"), "/parameters/tables/columns/a.b"],
        [at("types: [a]"), "/parameters/types"],
        [at("topic: x"), "/parameters"],
        ["topic: a\nparameters: { url: 'mysql://h' }", "/parameters/url"],
        ["topic: a b\nparameters: { url: 'postgres://h' }", "/topic"],
        ["topic: a\ntype: postgres-source", "/type"],
        ["topic: a\ntopics: x", ""],
        ["topic: a\nconsumer: { partition: all }", "/consumer/partition"],
        ["topic: a\nconsumer: { id: x }", "/consumer"],
        ["topic: a\ntransforms: [{ uses: infinyon/jolt@0.1.0 }]", "/transforms"],
        ["topic: a\nparameters: { url: 'postgres://h' }\npostgres-sink: { url: 'postgres://h' }", ""],
        ["apiVersion: 9.0.0\nmeta: { topic: a }", "/apiVersion"],
        ["apiVersion: 0.1.0\ntopic: a", ""],
        ["meta: { topic: a, producer: { linger: 1 } }", "/meta"]
      ] as const) {
        assert.isFalse(yield* isTaken(text), text)
        assert.include(wrongAt(text), place, text)
      }
    })
  )

  it("says of every setting what it is, and what its default is", () => {
    const { definitions } = ConfigFile.schema as {
      readonly definitions: { readonly today: { readonly properties: { readonly [name: string]: object } } }
    }
    for (const { default: fallback, description, path } of table) {
      if (path[0] === "name" || path[0] === "topic") continue
      interface Part {
        readonly anyOf?: ReadonlyArray<Part>
        readonly properties?: { readonly [name: string]: Part }
      }
      let place: Part | undefined = definitions.today.properties["parameters"]
      for (const name of path) place = (place?.properties ?? place?.anyOf?.at(-1)?.properties)?.[name]
      assert.deepInclude<object | undefined>(place, {
        description,
        ...(fallback === undefined ? {} : { default: fallback })
      })
    }
  })
})
