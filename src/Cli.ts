/**
 * The command line. It knows the settings and the commands, and not the parts they run on: those are given to it, so
 * that embedders and tests may give others.
 */
import {
  Cause,
  Console,
  Effect,
  Exit,
  identity,
  Layer,
  Logger,
  type LogLevel,
  Option,
  Predicate,
  References,
  Runtime
} from "effect"
import { CliConfig, CliError, CliOutput, Command, Flag, GlobalFlag } from "effect/cli"
import { ConnectorConfig } from "./ConnectorConfig.ts"
import * as Check from "./operate/Check.ts"
import * as Plan from "./operate/Plan.ts"
import { HasFields, withFields } from "./LogFields.ts"
import type * as Operation from "./operate/Operation.ts"
import * as Pause from "./operate/Pause.ts"
import * as Position from "./operate/Position.ts"
import * as Quarantine from "./operate/Quarantine.ts"
import * as Skip from "./operate/Skip.ts"
import * as Settings from "./operate/Settings.ts"
import * as Status from "./operate/Status.ts"
import * as SettingFlags from "./SettingFlags.ts"
import { exitCodeOf, exitCodes, pageOf } from "./stream/Outcome.ts"
import { withoutConnectionStrings } from "./TargetUrl.ts"

/** How the demonstration was asked to run. */
export interface DemoOptions {
  /** Print the result as one JSON document. */
  readonly json: boolean
  /** Keep it running, for somebody who wants to type SQL, until it is stopped. */
  readonly serve: boolean
  readonly driver: "wire" | "client"
}

export interface Parts<
  RunError,
  RunContext,
  LiveError,
  FileContext,
  DemoError = never,
  DemoContext = never
> extends Operation.Parts<LiveError, FileContext> {
  /** Whether a person reads the standard error. */
  readonly isTerminal: boolean
  /** Applies until it is interrupted. */
  readonly run: Effect.Effect<void, RunError, RunContext>
  /** Left out where the embedded parts are. */
  readonly demo?: (options: DemoOptions) => Effect.Effect<void, DemoError, DemoContext>
}

const program = "fluvio-postgres-sink"

const logFormats = ["auto", "pretty", "logfmt", "json"] as const

/** Of which connector a line is, for whoever collects the logs of many. */
const withName = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(ConnectorConfig, ({ name, partition, topic }) => withFields({ name, topic, partition })(effect))

/**
 * Logs are text for people and logfmt for machines unless told otherwise. They go to the standard error, and to the
 * standard output where Fluvio has started the connector, as its own connectors' do.
 */
const layerLogger = (
  format: (typeof logFormats)[number],
  { isTerminal, variables }: Pick<Parts<never, never, never, never>, "isTerminal" | "variables">,
  isFluvios: boolean
): Layer.Layer<never> => {
  const isPretty = format === "pretty" || (format === "auto" && isTerminal && !isFluvios)
  const onLines = isFluvios ? Logger.withConsoleLog : Logger.withConsoleError
  const logger =
    format === "json"
      ? onLines(Logger.formatJson)
      : isPretty
        ? Logger.consolePretty({ colors: isTerminal && !(variables["NO_COLOR"] ?? "") && variables["TERM"] !== "dumb" })
        : onLines(Logger.formatLogFmt)
  return Layer.mergeAll(
    Logger.layer([logger, Logger.tracerLogger]),
    Layer.succeed(Logger.LogToStderr, !isFluvios),
    Layer.succeed(HasFields, !isPretty)
  )
}

/** Where a defect arose, and not its message, which stands before the frames and may quote anything. */
const frames = (defect: Error) =>
  (defect.stack ?? "")
    .replace(String(defect), "")
    .split("\n")
    .filter((line) => /^\s+at /.test(line))
    .join("\n")

/** Here the logger and its level are those that the flags ask for. */
const logDefects = Effect.tapCause((cause: Cause.Cause<unknown>) =>
  Effect.forEach(
    cause.reasons.filter(Cause.isDieReason),
    ({ defect }) => (Predicate.isError(defect) ? Effect.logDebug(`${defect.name}\n${frames(defect)}`) : Effect.void),
    { discard: true }
  )
)

/** The commands of an operator. */
const operations = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) => [
  Status.command(parts),
  Quarantine.command(parts),
  Pause.pause(parts),
  Pause.resume(parts),
  Position.command(parts),
  Skip.command(parts),
  Check.command(parts),
  Plan.command(parts),
  Settings.config(parts),
  Settings.schema(parts)
]

const make = <RunError, RunContext, LiveError, FileContext, DemoError = never, DemoContext = never>(
  parts: Parts<RunError, RunContext, LiveError, FileContext, DemoError, DemoContext>,
  isFluvios: boolean
) => {
  const run = Command.make(
    "run",
    { files: SettingFlags.files, settings: SettingFlags.all },
    Effect.fnUntraced(function* ({ files, settings }) {
      const sources = yield* SettingFlags.sources(parts, files, settings)
      yield* withName(parts.run).pipe(Effect.provide(ConnectorConfig.layerFrom(sources)), logDefects)
    })
  ).pipe(
    Command.withShortDescription("Apply the changes of a topic to a database until stopped"),
    Command.withDescription(
      "Apply the changes of a topic to a database until stopped. Settings come from flags, then the environment " +
        "(FLUVIO_PG_DATABASE_URL, FLUVIO_PG_TOPIC, …), then the configuration file. Others on the machine can see " +
        "flags: give a password by environment or file."
    ),
    Command.withExamples([
      { command: `${program} run --config connector.yaml`, description: "As the file says" },
      {
        command: `FLUVIO_PG_DATABASE_URL=postgresql://… ${program} run --topic orders`,
        description: "Without a file"
      },
      {
        command: `${program} --config connector.yaml --secrets secrets.txt`,
        description: "As Fluvio starts its connectors: without a command, with the log on the standard output"
      }
    ])
  )

  const demo = (start: NonNullable<(typeof parts)["demo"]>) =>
    Command.make(
      "demo",
      {
        json: Flag.Boolean("json").pipe(Flag.withDescription("Print the result as JSON"), Flag.withDefault(false)),
        serve: Flag.Boolean("serve").pipe(
          Flag.withDescription("Keep it running, and print both connection strings"),
          Flag.withDefault(false)
        ),
        driver: Flag.Literals("driver", ["wire", "client"]).pipe(
          Flag.withDescription("How Fluvio is read"),
          Flag.withDefault("wire")
        )
      },
      start
    ).pipe(
      Command.withDescription("Run everything on this machine: two databases, a topic, the connector, and a check")
    )

  return Command.make(program).pipe(
    Command.withSharedFlags({
      logFormat: Flag.Literals("log-format", logFormats).pipe(
        Flag.withDescription("Form of the log (auto: pretty on a terminal, else logfmt)"),
        Flag.withDefault("auto")
      )
    }),
    Command.withDescription("Applies the PostgreSQL changes of a Fluvio topic to another PostgreSQL, exactly once"),
    Command.withSubcommands([run, ...operations(parts), ...(parts.demo === undefined ? [] : [demo(parts.demo)])]),
    Command.provide(({ logFormat }) => layerLogger(logFormat, parts, isFluvios))
  )
}

/** Whether no command is given, but the files that Fluvio gives each connector that it starts. */
const isStartedByFluvio = ([first = "", ...rest]: ReadonlyArray<string>): boolean => {
  if (/^(?:-c|--config|--secrets)(?:=|$)/.test(first)) return true
  const [, value] = /^--log-(?:level|format)(=?)/.exec(first) ?? []
  return value !== undefined && isStartedByFluvio(value === "=" ? rest : rest.slice(1))
}

const rustTarget = program.replaceAll("-", "_")

const rustLevels: { readonly [name: string]: LogLevel.LogLevel } = {
  off: "None",
  error: "Error",
  warn: "Warn",
  info: "Info",
  debug: "Debug",
  trace: "Trace"
}

/**
 * What `RUST_LOG` asks of this program: a level for all, or `target=level` where the target's name begins this one's. The
 * longest such target decides, and what is said of other programs is none of its business.
 */
const rustLevelOf = (directives: string): LogLevel.LogLevel | undefined => {
  let found: { readonly length: number; readonly level: LogLevel.LogLevel } | undefined
  for (const directive of directives.split(",")) {
    const [first, second] = directive.trim().split("=", 2)
    const isForAll = second === undefined && Object.hasOwn(rustLevels, first.toLowerCase())
    const target = isForAll ? "" : first.replaceAll("-", "_")
    const name = (isForAll ? first : (second ?? "trace")).toLowerCase()
    if ((first === "" && !isForAll) || !rustTarget.startsWith(target) || !Object.hasOwn(rustLevels, name)) continue
    if (found === undefined || target.length >= found.length) found = { length: target.length, level: rustLevels[name] }
  }
  return found?.level
}

const indent = (text: string) => text.replaceAll("\n", "\n  ")

/** Invalid invocations get their message and where to find help; help itself is for who asks for it. */
const presenter = (args: ReadonlyArray<string>): CliOutput.Presenter => ({
  present: (event) =>
    Predicate.isTagged(event, "InvalidInvocation")
      ? Console.error(
          [
            ...event.errors.map((error) => `${program}: ${withoutConnectionStrings(error.message, valuesIn(args))}`),
            `  see: ${event.commandPath.join(" ")} --help`
          ].join("\n")
        )
      : CliOutput.defaultPresenter.present(event)
})

/** Arguments, and what stands behind the = of a flag. */
const valuesIn = (args: ReadonlyArray<string>) => args.flatMap((arg) => [arg, arg.replace(/^--?[\w-]+=/, "")])

/** These say everything: which setting to correct, or no, below a report that says why. */
const needsNoPage = ["ConnectorConfigError", "NotReady"].map((tag) => Predicate.isTagged(tag))

/** What the operator reads last: what happened, what resolves it, and where there is more. No stack, no cause, no values. */
export const describe = (error: unknown): string => {
  if (!Predicate.isError(error) && !Predicate.hasProperty(error, "message")) return "it failed for an unknown reason"
  const remedy = Predicate.hasProperty(error, "remedy") ? [String(error.remedy)] : []
  const page = needsNoPage.some((isOne) => isOne(error)) ? undefined : pageOf(error)
  const more = page === undefined ? [] : [`see ${page}`]
  return [String(error.message), ...remedy, ...more].map(indent).join("\n  ")
}

/** A defect's message may quote anything, so only its kind and, for who asks for it, its place are shown. */
const describeDefect = (defect: unknown) => {
  const kind = Predicate.isError(defect) ? defect.name : typeof defect
  return `internal error (${kind}): this is a defect of the connector\n  please report it with the log of --log-level debug`
}

/**
 * Runs the program with its arguments. A failure is printed on the standard error, as one message and its remedy, and
 * then goes on as it is: {@link teardown} makes the exit code of it.
 */
export const run =
  <RunError, RunContext, LiveError, FileContext, DemoError = never, DemoContext = never>(
    parts: Parts<RunError, RunContext, LiveError, FileContext, DemoError, DemoContext>
  ) =>
  (args: ReadonlyArray<string>) => {
    const isFluvios = isStartedByFluvio(args)
    const level = rustLevelOf(parts.variables["RUST_LOG"] ?? "")
    return Command.runWith(make(parts, isFluvios), { version: parts.version })(
      isFluvios ? ["run", ...args] : args
    ).pipe(
      // Of less weight than --log-level.
      level === undefined ? identity : Effect.provideService(References.MinimumLogLevel, level),
      Effect.provide([
        CliOutput.layerPresenter(presenter(args)),
        CliConfig.layer({
          builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions, GlobalFlag.LogLevel]
        })
      ]),
      Effect.tapCause((cause) => {
        if (Cause.hasInterruptsOnly(cause)) return Effect.void
        const failure = Option.getOrUndefined(Cause.findErrorOption(cause))
        if (failure !== undefined) {
          return Predicate.isTagged(failure, "ShowHelp")
            ? Effect.void
            : Console.error(`${program}: ${describe(failure)}`)
        }
        return Console.error(`${program}: ${describeDefect(Cause.squash(cause))}`)
      })
    )
  }

/** An interrupted connector has finished the group in hand, or given it up as a whole: that is success. */
export const teardown: Runtime.Teardown = (exit, onExit) => {
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return onExit(exitCodes.fine)
  const failure = Cause.squash(exit.cause)
  if (!CliError.isCliError(failure)) return onExit(exitCodeOf(failure))
  const isHelp = Predicate.isTagged(failure, "ShowHelp") && failure.errors.length === 0
  onExit(isHelp ? exitCodes.fine : exitCodes.usage)
}
