import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Redacted, Ref, Schema } from "effect"
import { TestConsole } from "effect/testing"
import * as Mock from "../../layers/Mock.ts"
import * as Cli from "../../src/Cli.ts"
import { ConnectorConfig, ConnectorConfigError, fromObject } from "../../src/ConnectorConfig.ts"
import { type FluvioError, FluvioSilent, OffsetEvicted, TopicNotFound } from "../../src/stream/FluvioConsumer.ts"

class Failed extends Schema.TaggedError<Failed>()("Failed", { remedy: Schema.String }) {
  override get message() {
    return "the group could not be applied"
  }
}

interface Script {
  readonly variables?: { readonly [name: string]: string }
  readonly file?: object
  readonly isTerminal?: boolean
  readonly run?: Effect.Effect<void, Failed | FluvioError>
}

const codeOf = (exit: Exit.Exit<void, unknown>) => {
  let code = -1
  Cli.teardown(exit, (given) => (code = given))
  return code
}

/** Runs the command line, and gives what it printed, its exit code, and the settings that the connector saw. */
const invoke = (script: Script, ...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const seen = yield* Ref.make<ConnectorConfig["Service"] | undefined>(undefined)
    const demo = yield* Ref.make<Cli.DemoOptions | undefined>(undefined)
    const exit = yield* Cli.run({
      version: "9.8.7",
      variables: script.variables ?? {},
      isTerminal: script.isTerminal ?? false,
      readConfigFile: (path) =>
        script.file === undefined
          ? Effect.fail(new ConnectorConfigError({ key: path, reason: "cannot be read", remedy: "create it" }))
          : Effect.succeed(fromObject(script.file, (key) => `parameters.${key.join(".")}`)),
      configFileSchema: {},
      run: ConnectorConfig.pipe(
        Effect.flatMap((config) => Ref.set(seen, config)),
        Effect.andThen(Effect.logInfo("applying")),
        Effect.andThen(script.run ?? Effect.void)
      ),
      live: Mock.layer(),
      demo: (options) => Ref.set(demo, options)
    })(args).pipe(Effect.provide(NodeServices.layer), Effect.exit)
    return {
      code: codeOf(exit),
      config: yield* Ref.get(seen),
      demo: yield* Ref.get(demo),
      out: (yield* TestConsole.logLines).join("\n"),
      err: (yield* TestConsole.errorLines).join("\n")
    }
  }).pipe(Effect.provide(TestConsole.layer, { local: true }))

const topicAndUrl = ["--topic", "orders", "--url", "postgresql://role:s3cr3t@host/db"]

/** How many of two lines are logged, one of them for who debugs. */
const linesAt = (RUST_LOG: string, ...args: ReadonlyArray<string>) =>
  Effect.map(
    invoke({ variables: { RUST_LOG }, run: Effect.logDebug("in detail") }, "run", ...topicAndUrl, ...args),
    ({ err }) => ["applying", "in detail"].filter((line) => err.includes(line)).length
  )

describe("Cli", () => {
  it.effect("takes settings from flags, then the environment, then the file", () =>
    Effect.gen(function* () {
      const { code, config } = yield* invoke(
        {
          variables: { FLUVIO_PG_DATABASE_URL: "postgresql://environment", FLUVIO_PG_TOPIC: "environment" },
          file: {
            topic: "file",
            url: "postgresql://file",
            group: { rows: "7", window: "1 s" },
            "on-error": { data: "halt" }
          }
        },
        ..."run --config connector.yaml --topic flag --group-rows=9 --on-error quarantine --endpoint h:1".split(" ")
      )
      assert.strictEqual(code, 0)
      assert.strictEqual(config?.topic, "flag")
      assert.strictEqual(config?.group.rows, 9)
      assert.strictEqual(config?.consumer.endpoint, "h:1")
      assert.strictEqual(config?.onError.data, "quarantine")
      assert.strictEqual(config && Redacted.value(config.url), "postgresql://environment")
    })
  )

  it.effect("runs without a command as Fluvio starts it, and logs to the standard output", () =>
    Effect.gen(function* () {
      const file = { topic: "orders", url: "postgresql://role:s3cr3t@host/db" }
      for (const args of [
        "--config connector.yaml --secrets secrets.txt",
        "--secrets=secrets.txt --config=connector.yaml",
        "-c connector.yaml",
        "--log-format json --log-level=info --config connector.yaml --group-rows 7"
      ]) {
        const { code, config, err, out } = yield* invoke({ file, isTerminal: true }, ...args.split(" "))
        assert.deepStrictEqual([code, config?.topic, err], [0, "orders", ""], args)
        assert.match(out, args.includes("json") ? /^{.*"applying"/ : /^timestamp=.*applying/)
      }
      const byCommand = yield* invoke({ file }, "run", "--config", "connector.yaml")
      assert.match(byCommand.err, /applying/)
      assert.strictEqual(byCommand.out, "")
      const wrong = yield* invoke({ file }, "--config", "connector.yaml", "status")
      assert.strictEqual(wrong.code, 2)
      assert.match(wrong.err, /status/)
    })
  )

  it.effect("refuses secrets that nothing can refer to", () =>
    Effect.gen(function* () {
      const { code, err } = yield* invoke({}, "run", "--secrets", "secrets.txt", ...topicAndUrl)
      assert.strictEqual(code, 2)
      assert.match(err, /^fluvio-postgres-sink: --secrets: only a configuration file can refer to secrets/)
    })
  )

  it.effect("logs what RUST_LOG asks for, unless a flag says otherwise", () =>
    Effect.gen(function* () {
      for (const [level, lines] of [
        ["", 1],
        ["info", 1],
        ["off", 0],
        ["WARN", 0],
        ["error", 0],
        ["debug", 2],
        ["trace", 2],
        ["fluvio_postgres_sink=debug,info", 2],
        ["debug, fluvio-postgres-sink=off", 0],
        ["fluvio=debug", 2],
        ["fluvio=debug,fluvio_postgres_sink=warn", 0],
        ["fluvio_postgres_sink", 2],
        ["sqlx=off", 1],
        ["sqlx=debug,error", 0],
        ["fluvio_postgres_sink=loud", 1],
        ["constructor,=debug,,", 1]
      ] as const) {
        assert.strictEqual(yield* linesAt(level), lines, level)
      }
      assert.strictEqual(yield* linesAt("off", "--log-level", "debug"), 2)
    })
  )

  it.effect("refuses bad settings in one message, before anything is touched", () =>
    Effect.gen(function* () {
      const cases: ReadonlyArray<readonly [Script, ReadonlyArray<string>, string]> = [
        [
          {},
          ["run"],
          "fluvio-postgres-sink: topic: is required: the name of a topic\n  set FLUVIO_PG_TOPIC, or --topic"
        ],
        [
          {},
          ["run", ...topicAndUrl, "--group-rows", "many"],
          "fluvio-postgres-sink: --group-rows: expected a whole number from 1 on\n  correct --group-rows"
        ],
        [
          { file: { topic: "a", url: "postgres://h", retry: { min: "soon" } } },
          ["run", "-c", "x"],
          'fluvio-postgres-sink: parameters.retry.min: expected a time such as "200 millis", "10 s" or "1 min", from 10 millis on\n  correct parameters.retry.min'
        ],
        [
          { variables: { FLUVIO_PG_RETRY_MIN: "0", FLUVIO_PG_RETRY_MAX: "0" } },
          ["run", ...topicAndUrl],
          'fluvio-postgres-sink: FLUVIO_PG_RETRY_MIN: expected a time such as "200 millis", "10 s" or "1 min", from 10 millis on\n  correct FLUVIO_PG_RETRY_MIN'
        ],
        [
          { variables: { FLUVIO_PG_RETRY_MAX: "0" } },
          ["run", ...topicAndUrl],
          'fluvio-postgres-sink: FLUVIO_PG_RETRY_MAX: expected a time such as "200 millis", "10 s" or "1 min", from 100 millis on\n  correct FLUVIO_PG_RETRY_MAX'
        ],
        [{}, ["run", "--config", "absent.yaml"], "fluvio-postgres-sink: absent.yaml: cannot be read\n  create it"],
        [
          { variables: { FLUVIO_PG_TOPC: "a" } },
          ["run", ...topicAndUrl],
          "fluvio-postgres-sink: FLUVIO_PG_TOPC: is no setting; FLUVIO_PG_TOPIC is\n  write FLUVIO_PG_TOPIC, or rename the variable"
        ]
      ]
      for (const [script, args, message] of cases) {
        const { code, config, err, out } = yield* invoke(script, ...args)
        assert.deepStrictEqual({ code, config, err, out }, { code: 2, config: undefined, err: message, out: "" })
      }
    })
  )

  it.effect("refuses bad invocations in one message without help text, and never shows a password", () =>
    Effect.gen(function* () {
      for (const [args, message] of [
        [["runn"], /^fluvio-postgres-sink: Unknown subcommand "runn"[^]*run\n {2}see: fluvio-postgres-sink --help$/],
        [["run", "--topics", "x"], /^fluvio-postgres-sink: Unrecognized flag: --topics/],
        [["run", "postgresql://role:s3cr3t@host/db"], /"postgresql:\/\/…"/],
        [["run", "postgresql://role:p s3cr3t@host/db"], /"postgresql:\/\/…"/],
        [["run", "host=h password=s3cr3t"], /"…"/],
        [["run", "--log-level=postgres://role:s3cr3t@h"], /"postgres:\/\/…"/],
        [["postgres://h/d?password=s3cr3t"], /"postgres:\/\/…"/],
        [["run", "--topic", "postgres://role:s3cr3t@h/d"], /^[^]*--topic: looks like the connection to a database/],
        [["run", "--topic", "s3cr3t topic"], /^[^]*--topic: expected the name of a topic/],
        [
          ["run", "--topic", "a", "--endpoint", "host=h password=s3cr3t"],
          /^[^]*--endpoint: looks like the connection to a database/
        ],
        [["run", "--topic", "a", "--endpoint", "s3cr3t@host:9003"], /^[^]*--endpoint: expected host:port/],
        [["run", "--name", "postgres://h/d?password=s3cr3t"], /^[^]*--name: looks like/],
        [["run", "--topic", "a", "--profile", "postgres://u:s3cr3t@h"], /^[^]*--profile: looks like/],
        [
          ["run", ...topicAndUrl, "--schema-changes", "s3cr3t"],
          /^fluvio-postgres-sink: --schema-changes: expected one of none, validate, additive, full\n/
        ],
        [["run", "--topic", "a", "--url", "s3cr3t"], /^fluvio-postgres-sink: --url: expected a URL/],
        [["run", "--log-format", "xml"], /^fluvio-postgres-sink: Invalid value for flag --log-format/]
      ] as const) {
        const { code, err, out } = yield* invoke({}, ...args)
        assert.match(err, message)
        assert.notInclude(err, "s3cr3t")
        assert.deepStrictEqual({ code, out }, { code: 2, out: "" })
      }
    })
  )

  it.effect("ends with the failure's message and remedy", () =>
    Effect.gen(function* () {
      const { code, err } = yield* invoke(
        { run: Effect.fail(new Failed({ remedy: "correct the row" })) },
        "run",
        ...topicAndUrl,
        "--log-level",
        "none"
      )
      assert.strictEqual(code, 1)
      assert.strictEqual(err, "fluvio-postgres-sink: the group could not be applied\n  correct the row")
    })
  )

  it.effect("exits with what the table of outcomes says of the failure", () =>
    Effect.gen(function* () {
      const place = { topic: "orders", partition: 0 }
      for (const [failure, expected] of [
        [new OffsetEvicted({ ...place, requested: 1, available: 2 }), 4],
        [new FluvioSilent({ endpoint: "broker:9003", operation: "reading", seconds: 30 }), 5],
        [new TopicNotFound(place), 2]
      ] as const) {
        const { code, err } = yield* invoke({ run: Effect.fail(failure) }, "run", ...topicAndUrl, "--log-level", "none")
        assert.deepStrictEqual(
          [code, err],
          [
            expected,
            `fluvio-postgres-sink: ${failure.message}\n  ${failure.remedy}\n  see docs/errors.md#${failure._tag.toLowerCase()}`
          ]
        )
      }
    })
  )

  it.effect("says of a defect what kind it is, and not what it says", () =>
    Effect.gen(function* () {
      const { code, err } = yield* invoke(
        { run: Effect.die(new TypeError("s3cr3t")) },
        "run",
        ...topicAndUrl,
        "--log-level",
        "debug"
      )
      assert.strictEqual(code, 1)
      assert.include(err, "fluvio-postgres-sink: internal error (TypeError)")
      assert.match(err, /level=DEBUG [^]*at [^]*Cli\.test\.ts/)
      assert.notInclude(err, "s3cr3t")
      const quiet = yield* invoke({ run: Effect.die(new TypeError("s3cr3t")) }, "run", ...topicAndUrl)
      assert.notInclude(quiet.err, "Cli.test.ts")
    })
  )

  it("takes an interruption for success, and a failure of clean-up for failure", () => {
    assert.strictEqual(codeOf(Exit.void), 0)
    assert.strictEqual(codeOf(Exit.failCause(Cause.interrupt())), 0)
    assert.strictEqual(codeOf(Exit.failCause(Cause.combine(Cause.interrupt(), Cause.fail("clean-up")))), 1)
  })

  it.effect("logs to the standard error, as logfmt or JSON", () =>
    Effect.gen(function* () {
      const logfmt = yield* invoke({}, "run", ...topicAndUrl)
      assert.match(
        logfmt.err,
        /^timestamp=\S+ level=INFO fiber=\S+ message=applying name=fluvio-postgres-sink topic=orders partition=0$/
      )
      assert.strictEqual(logfmt.out, "")
      const json = yield* invoke({}, "run", ...topicAndUrl, "--log-format", "json")
      assert.deepInclude(JSON.parse(json.err), { level: "INFO", message: "applying" })
      const quiet = yield* invoke({}, "run", ...topicAndUrl, "--log-level", "error")
      assert.strictEqual(quiet.err, "")
    })
  )

  it.effect("colours what a person reads, unless NO_COLOR asks for none", () =>
    Effect.gen(function* () {
      const escape = "\u001B["
      const isColoured = (script: Script, ...more: ReadonlyArray<string>) =>
        Effect.map(invoke(script, "run", ...topicAndUrl, ...more), ({ err }) => {
          assert.include(err, "applying")
          return err.includes(escape)
        })
      assert.isTrue(yield* isColoured({ isTerminal: true }))
      assert.isTrue(yield* isColoured({ isTerminal: true, variables: { NO_COLOR: "" } }))
      assert.isFalse(yield* isColoured({ isTerminal: true, variables: { NO_COLOR: "1" } }))
      assert.isFalse(yield* isColoured({ isTerminal: true, variables: { TERM: "dumb" } }))
      assert.isFalse(yield* isColoured({}, "--log-format", "pretty"))
    })
  )

  it.effect("explains itself", () =>
    Effect.gen(function* () {
      const help = yield* invoke({}, "run", "--help")
      assert.strictEqual(help.code, 0)
      for (const text of [
        "--config",
        "--topic",
        "--url",
        "--endpoint",
        "--driver",
        "--log-level",
        "(default: 20000)",
        "(default: additive) (choices: none, validate, additive, full)"
      ]) {
        assert.include(help.out, text)
      }
      const version = yield* invoke({}, "--version")
      assert.deepInclude(version, { code: 0, out: "fluvio-postgres-sink v9.8.7" })
      const nothing = yield* invoke({})
      assert.include(nothing.out, "demo")
    })
  )

  it.effect("hands the demonstration its options", () =>
    Effect.gen(function* () {
      const plain = yield* invoke({}, "demo")
      assert.deepStrictEqual(plain.demo, { json: false, serve: false, driver: "wire" })
      const all = yield* invoke({}, "demo", "--json", "--serve", "--driver", "client")
      assert.deepStrictEqual(all.demo, { json: true, serve: true, driver: "client" })
    })
  )
})
