/** Settings as the command line takes them: one flag each, beside the configuration file and the environment. */
import { Effect, Option } from "effect"
import { Flag, Param, Primitive } from "effect/cli"
import { type ConfigSource, ConnectorConfigError, fromEnvironment, fromObject } from "./ConnectorConfig.ts"
import type { JsonSchema } from "./SettingKind.ts"
import { type Path, shorthands, table } from "./Settings.ts"

interface SettingFlag {
  readonly name: string
  readonly path: Path
  readonly description: string
  readonly choices: ReadonlyArray<string> | undefined
  readonly fallback: string | undefined
}

const flags: ReadonlyArray<SettingFlag> = [
  ...table.flatMap(({ choices, default: fallback, description, flag, path }) =>
    flag === undefined ? [] : { name: flag, path, description, choices, fallback }
  ),
  ...shorthands.map(({ description, flag, key }) => {
    const choices = table.find(({ shorthand }) => shorthand?.key === key)?.choices
    return { name: flag, path: [key], description, choices, fallback: undefined }
  })
]

/** Where the topic and the target are: all that most commands have to know. */
const connecting: ReadonlyArray<string> = ["topic", "partition", "url", "driver", "endpoint", "profile"]

export type Given = { readonly [name: string]: Option.Option<string> }

/** Help and completions know what it takes; as of every setting, what is wrong with a value is said elsewhere. */
const unchecked = (name: string, known: Primitive.Primitive<string>): Flag.Flag<string> =>
  Param.makeSingle({
    kind: Param.flagKind,
    name,
    primitiveType: Object.assign(Object.create(known) as typeof known, { parse: Effect.succeed<string> })
  })

const choice = (name: string, choices: ReadonlyArray<string>) =>
  unchecked(name, Primitive.Choice(choices.map((value) => [value, value])))

/** A flag is text that the configuration reads, so that it is checked and named where all settings are. */
const flagsOf = (which: ReadonlyArray<SettingFlag>): Record<string, Flag.Flag<Option.Option<string>>> =>
  Object.fromEntries(
    which.map(({ choices, description, fallback, name }) => [
      name,
      (choices === undefined ? Flag.String(name) : choice(name, choices)).pipe(
        Flag.withDescription(fallback === undefined ? description : `${description} (default: ${fallback})`),
        Flag.withMetavar("value"),
        Flag.optional
      )
    ])
  )

/** The settings of a command that applies changes, or shows how they would be applied. */
export const all = flagsOf(flags)

/** The settings of a command that only has to find the topic and the target. */
export const toConnect = flagsOf(flags.filter(({ name }) => connecting.includes(name)))

const fileFlag = (name: string) => unchecked(name, Primitive.Path("file")).pipe(Flag.withMetavar("file"))

/** The files that every command takes settings from. */
export const files = {
  config: fileFlag("config").pipe(
    Flag.withAlias("c"),
    Flag.withDescription("Configuration file, such as connector.yaml; flags and environment prevail over it"),
    Flag.optional
  ),
  secrets: fileFlag("secrets").pipe(
    Flag.withDescription("File with a line NAME=value for each ${{ secrets.NAME }} of the configuration file"),
    Flag.optional
  )
}

export type Files = { readonly [name in keyof typeof files]: Option.Option<string> }

const nameOfFlag = (path: Path) => {
  const flag = flags.find((candidate) => candidate.path.join() === path.join())
  return flag === undefined ? path.join(".") : `--${flag.name}`
}

const fromFlags = (given: Given): ConfigSource => {
  const tree: { [key: string]: unknown } = {}
  for (const { name, path } of flags) {
    const value = given[name] === undefined ? undefined : Option.getOrUndefined(given[name])
    if (value === undefined) continue
    let section = tree
    for (const part of path.slice(0, -1)) section = (section[part] ??= {}) as typeof section
    section[path[path.length - 1]] = value
  }
  return fromObject(tree, nameOfFlag)
}

/** What the process brings along: its environment, and how it reads a file. */
export interface Surroundings<FileContext> {
  /** Settings, and the secrets that a configuration file refers to. */
  readonly variables: { readonly [name: string]: string | undefined }
  /** Secrets that the file refers to are looked up in the file of `secrets` before the variables, where one is given. */
  readonly readConfigFile: (
    path: string,
    secrets?: string
  ) => Effect.Effect<ConfigSource, ConnectorConfigError, FileContext>
  /** What such a file may hold, as a JSON Schema. */
  readonly configFileSchema: JsonSchema
}

/** Flags, then the environment, then the file: the first that has a setting decides it. */
export const sources = Effect.fnUntraced(function* <FileContext>(
  { readConfigFile, variables }: Surroundings<FileContext>,
  { config, secrets }: Files,
  given: Given
) {
  if (Option.isNone(config) && Option.isSome(secrets)) {
    return yield* new ConnectorConfigError({
      key: "--secrets",
      reason: "only a configuration file can refer to secrets, and none is given",
      remedy: "give the configuration file by --config, or leave --secrets out"
    })
  }
  const file = Option.isSome(config) ? [yield* readConfigFile(config.value, Option.getOrUndefined(secrets))] : []
  return [fromFlags(given), fromEnvironment(variables), ...file]
})
