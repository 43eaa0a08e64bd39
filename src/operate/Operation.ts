/**
 * What the commands of an operator have in common: their settings, the parts they run on, and how they answer. Each
 * command is a file beside this one and is listed in `Cli`.
 */
import { Console, Effect, Layer, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import type { SqlClient } from "effect/sql"
import { type ConfigSource, ConnectorConfig } from "../ConnectorConfig.ts"
import * as SettingFlags from "../SettingFlags.ts"
import type { FluvioConsumer } from "../stream/FluvioConsumer.ts"
import type { OffsetStore } from "../stream/OffsetStore.ts"
import { isRetryable } from "../stream/Outcome.ts"

/** What a command may use besides its settings. Nothing is connected before it is used. */
export type Services = ConnectorConfig | FluvioConsumer | OffsetStore | SqlClient.SqlClient

export interface Parts<LiveError, FileContext> extends SettingFlags.Surroundings<FileContext> {
  /** The topic and the target of the settings. */
  readonly live: Layer.Layer<FluvioConsumer | OffsetStore | SqlClient.SqlClient, LiveError, ConnectorConfig>
  readonly version: string
}

/** The answer to a question is no: something is not ready, differs, or lags behind. The report is printed before it. */
export class NotReady extends Schema.TaggedError<NotReady>()("NotReady", {
  message: Schema.String,
  remedy: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
}

/** What a command says: to a person, or as one JSON document on the standard output. */
export interface Answer {
  readonly json: unknown
  readonly text: string
}

export const json = Flag.Boolean("json").pipe(
  Flag.withDescription("Print the answer as one JSON document"),
  Flag.withDefault(false)
)

/** Prints the answer in the form that was asked for. */
export const print = (asJson: boolean, { json, text }: Answer): Effect.Effect<void> =>
  Console.log(asJson ? JSON.stringify(json, undefined, 2) : text)

export interface About {
  readonly short: string
  /** What it does, what it reads and writes; {@link About.short} where nothing is to be added. */
  readonly description?: string
  readonly examples?: ReadonlyArray<{ readonly command: string; readonly description: string }>
  /** Takes the flag of every setting, and not only of those by which the topic and the target are found. */
  readonly takesAllSettings?: boolean
}

/** What help says of a command. */
export const described =
  ({ description, examples = [], short }: About) =>
  <Name extends string, Input, Context, E, R>(command: Command.Command<Name, Input, Context, E, R>) =>
    command.pipe(
      Command.withShortDescription(short),
      Command.withDescription(description ?? short),
      Command.withExamples(
        examples.map(({ command, ...rest }) => ({ ...rest, command: `fluvio-postgres-sink ${command}` }))
      )
    )

/** A command that has its settings, and not what they name: nothing is connected, and not all of them may be right. */
export const makeOnSettings = <
  const Name extends string,
  const Flags extends Command.Command.Config,
  E,
  R,
  FileContext
>(
  surroundings: SettingFlags.Surroundings<FileContext>,
  name: Name,
  about: About,
  flags: Flags,
  handler: (
    given: Command.Command.Config.Infer<Flags>,
    asJson: boolean,
    sources: ReadonlyArray<ConfigSource>
  ) => Effect.Effect<void, E, R>
) =>
  Command.make(
    name,
    {
      json,
      files: SettingFlags.files,
      settings: about.takesAllSettings === true ? SettingFlags.all : SettingFlags.toConnect,
      own: flags
    },
    Effect.fnUntraced(function* ({ files, json, own, settings }) {
      const sources = yield* SettingFlags.sources(surroundings, files, settings)
      yield* handler(own as Command.Command.Config.Infer<Flags>, json, sources)
    })
  ).pipe(described(about))

/** A command on the topic and the target that the settings name; each handler prints its own answer with {@link print}. */
export const make = <const Name extends string, const Flags extends Command.Command.Config, E, LiveError, FileContext>(
  parts: Parts<LiveError, FileContext>,
  name: Name,
  about: About,
  flags: Flags,
  handler: (given: Command.Command.Config.Infer<Flags>, asJson: boolean) => Effect.Effect<void, E, Services>
) =>
  makeOnSettings(parts, name, about, flags, (given, asJson, sources) =>
    handler(given, asJson).pipe(Effect.provide(Layer.provideMerge(parts.live, ConnectorConfig.layerFrom(sources))))
  )
