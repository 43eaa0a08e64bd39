/** Where settings come from. Every source refuses what is no setting, because it would be ignored without a word. */
import { ConfigProvider, Duration, Effect, Predicate, Redacted, Result, Schema, String as Text } from "effect"
import { nearest } from "./Nearest.ts"
import { environmentName, type Path, type SettingInfo, type Settings, shorthands, table } from "./Settings.ts"
import { isRetryable } from "./stream/Outcome.ts"

/** A setting is missing, unknown or malformed. It never carries a value: a value may be a secret in the wrong place. */
export class ConnectorConfigError extends Schema.TaggedError<ConnectorConfigError>()("ConnectorConfigError", {
  /** The setting as its author wrote it: a key of the file, a flag, or an environment variable. */
  key: Schema.String,
  reason: Schema.String,
  remedy: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  override get message() {
    return `${this.key}: ${this.reason}`
  }
}

type Variables = { readonly [name: string]: string | undefined }

/** Settings from one place, and the names by which that place calls them. */
export interface ConfigSource {
  readonly provider: ConfigProvider.ConfigProvider
  /** `["group", "rows"]` is `--group-rows`, `FLUVIO_PG_GROUP_ROWS` or `parameters.group.rows`. */
  readonly nameOf: (path: Path) => string
  /** Environment variables that this source refers to: they are secrets, and not settings. */
  readonly secrets?: ReadonlyArray<string>
  /** What those secrets are: parts of values that are not shown. */
  readonly secretValues?: ReadonlyArray<Redacted.Redacted<string>>
  /** Fails on what is no setting, given the secrets that all sources refer to. */
  readonly check: (secrets: ReadonlyArray<string>) => Effect.Effect<void, ConnectorConfigError>
}

// Settings as a tree

/** A scalar is text, so that no number is rounded and no `null` is lost. */
export type Tree = string | ReadonlyArray<Tree> | { readonly [key: string]: Tree }
export type Section = { readonly [key: string]: Tree }

export const isSection = (tree: Tree | undefined): tree is Section => Predicate.isObject(tree) && !Array.isArray(tree)

/** Thrown where plain functions walk trees; {@link refusing} makes it a failure. */
export const refuse = (key: string, reason: string, remedy = `correct ${key}`): never => {
  throw new ConnectorConfigError({ key, reason, remedy })
}

/** Runs a function that may {@link refuse}. */
export const refusing = <A>(run: () => A): Result.Result<A, ConnectorConfigError> =>
  Result.try({
    try: run,
    catch: (error) => {
      if (error instanceof ConnectorConfigError) return error
      throw error
    }
  })

/** Refuses a key that is none of those known; `suggestion` is the one that was probably meant. */
export const refuseUnknown = (key: string, suggestion: string | undefined, known: ReadonlyArray<string>): never =>
  suggestion === undefined
    ? refuse(key, "is not a known key", `remove it; known here: ${known.join(", ")}`)
    : refuse(key, `is not a known key; did you mean ${suggestion}?`, `write ${suggestion}, or remove it`)

const isPrefix = (prefix: ReadonlyArray<string>, path: ReadonlyArray<string>) =>
  prefix.length <= path.length && prefix.every((name, index) => name === path[index])

export interface TreeOptions {
  /** How the author calls a path, as it is written. */
  readonly nameOf: (path: Path) => string
  /** The settings that may stand in the tree. */
  readonly rows: ReadonlyArray<SettingInfo>
  /** Whether `schemaChanges` may stand for `schema-changes`. */
  readonly takesCamelCase: boolean
}

/**
 * Checks a tree of settings: every key must be a setting's, and every value of the setting's shape, because a provider
 * takes other shapes for absent. Gives the tree with kebab-case keys, and the author's spelling of each path.
 */
export const readTree = (tree: Section, { nameOf, rows, takesCamelCase }: TreeOptions) => {
  const spelled = new Map<string, Path>()

  const checkValue = (value: Tree, row: SettingInfo, mayBeList: boolean, path: Path) => {
    const texts = mayBeList && Array.isArray(value) ? value : [value]
    if (texts.includes("")) refuse(nameOf(path), "has no value", `give ${nameOf(path)} a value, or remove it`)
    if (!texts.every(Predicate.isString)) refuse(nameOf(path), `expected ${row.expects}`)
  }

  /** The keys of a map are the author's own, down to those that `entries` names. */
  const checkMap = (value: Tree, row: SettingInfo, keys: ReadonlyArray<string>, path: Path): void => {
    const fitting = (row.entries ?? []).filter((entry) => keys.every((key, i) => entry[i] === "*" || entry[i] === key))
    if (fitting.some((entry) => entry.length === keys.length)) return checkValue(value, row, true, path)
    if (!isSection(value)) return refuse(nameOf(path), `expected ${row.expects}`)
    const known = [...new Set(fitting.map((entry) => entry[keys.length]))]
    for (const [name, child] of Object.entries(value)) {
      if (!known.includes("*") && !known.includes(name)) {
        const meant = nearest(name, known)
        refuseUnknown(nameOf([...path, name]), meant && nameOf([...path, meant]), known)
      }
      checkMap(child, row, [...keys, name], [...path, name])
    }
  }

  const walk = (section: Section, keys: ReadonlyArray<string>, path: Path): Section => {
    const below = rows.filter((row) => isPrefix(keys, row.path))
    const known = [...new Set(below.map((row) => row.path[keys.length]))]
    const result: { [key: string]: Tree } = {}
    for (const [name, value] of Object.entries(section)) {
      const key = known.find((candidate) => name === candidate || name === Text.camelCase(candidate))
      if (key === undefined || (key !== name && !takesCamelCase)) {
        const spellings = takesCamelCase ? [...known, ...known.map(Text.camelCase)] : known
        const near = key ?? nearest(name, spellings)
        const elsewhere = rows.find((row) => row.path.at(-1) === Text.kebabCase(name))?.path
        const meant = near === undefined ? elsewhere : [...path, near]
        return refuseUnknown(nameOf([...path, name]), meant && nameOf(meant), known)
      }
      const [here, place] = [
        [...keys, key],
        [...path, name]
      ]
      if (Object.hasOwn(result, key)) {
        const other = nameOf(spelled.get(here.join()) ?? here)
        refuse(nameOf(place), `is given as ${other} too`, `remove one of them`)
      }
      spelled.set(here.join(), place)
      const row = below.find((candidate) => candidate.path.join() === here.join())
      result[key] = value
      if (row !== undefined) {
        if (row.entries !== undefined && !Predicate.isString(value)) checkMap(value, row, [], place)
        else checkValue(value, row, row.isList, place)
      } else if (isSection(value)) {
        result[key] = walk(value, here, place)
      } else if (value === "" || !Predicate.isString(value) || !shorthands.some(({ key }) => key === here.join("."))) {
        const names = below
          .filter((row) => isPrefix(here, row.path))
          .map((row) => row.path.slice(here.length).join("."))
        refuse(nameOf(place), `expected keys below it: ${names.join(", ")}`)
      }
    }
    return result
  }

  return { tree: walk(tree, [], []), spelled }
}

/** Values as a program has them, as the text that a file would have. */
const asText = (value: unknown, path: Path, nameOf: (path: Path) => string): Tree => {
  if (Predicate.isString(value)) return value
  if (Predicate.isNumber(value) || Predicate.isBigInt(value) || Predicate.isBoolean(value)) return String(value)
  if (Redacted.isRedacted(value)) return asText(Redacted.value(value), path, nameOf)
  if (Duration.isDuration(value)) return `${Duration.toMillis(value)} millis`
  if (Array.isArray(value)) return value.map((item, index) => asText(item, [...path, index], nameOf))
  if (value === null) return ""
  if (Predicate.isObject(value)) {
    return Object.fromEntries(
      Object.entries(value).flatMap(([name, child]) =>
        child === undefined ? [] : [[name, asText(child, [...path, name], nameOf)]]
      )
    )
  }
  return refuse(nameOf(path), "expected plain values")
}

const dotted = (path: Path) => path.join(".")

const readObject = (tree: unknown, nameOf: (path: Path) => string) => {
  const texts = Predicate.isObject(tree) ? asText(tree, [], nameOf) : undefined
  return isSection(texts)
    ? readTree(texts, { nameOf, rows: table, takesCamelCase: true })
    : refuse("settings", "expected an object", "give an object such as { topic, url }")
}

/** Settings by their keys. Keys of two words may be written as in the file, `schema-changes`, or as `schemaChanges`. */
export const fromObject = (tree: unknown, nameOf: (path: Path) => string = dotted): ConfigSource => {
  const read = refusing(() => readObject(tree, nameOf))
  const given = Result.getOrUndefined(read)
  return {
    check: () => Effect.asVoid(Effect.fromResult(read)),
    provider: ConfigProvider.fromUnknown(given?.tree ?? {}),
    nameOf: (path) => {
      for (let length = path.length; length > 0; length--) {
        const spelled = given?.spelled.get(path.slice(0, length).join())
        if (spelled !== undefined) return nameOf([...spelled, ...path.slice(length)])
      }
      return nameOf(path)
    }
  }
}

/**
 * Settings as a program has them: `{ topic: "orders", url: Redacted.make(…), group: { rows: 100, window: Duration.millis(5) } }`.
 * Sizes and times may also be text such as `"8 MiB"` and `"10 s"`.
 */
export const fromSettings = (settings: Settings): ConfigSource =>
  fromObject(settings, (path) => path.map((name) => (Predicate.isString(name) ? Text.camelCase(name) : name)).join("."))

// Settings from the environment

const variables = table.flatMap(({ environment, path }) => (environment === undefined ? [] : { environment, path }))
const variableNames = [
  ...variables.map(({ environment }) => environment),
  ...shorthands.map(({ key }) => environmentName([key]))
]

const variableOf = (path: Path) =>
  variables.find((variable) => variable.path.join() === path.join())?.environment ?? environmentName(path)

/** What Kubernetes tells each pod of a service whose name begins with `fluvio-pg`. */
const isServiceLink = (name: string, value: string) =>
  /_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PORT|PROTO|ADDR))?)$/.test(name) ||
  (name.endsWith("_PORT") && /^(?:tcp|udp|sctp):\/\//.test(value))

/** Refuses every variable that begins with `FLUVIO_PG_` and is neither a setting nor a secret. */
const checkVariables = (given: Variables, secrets: ReadonlyArray<string>): void => {
  for (const [name, value = ""] of Object.entries(given)) {
    const upper = name.toUpperCase()
    if (!upper.startsWith("FLUVIO_PG_") || variableNames.includes(name) || secrets.includes(name)) continue
    if (isServiceLink(name, value)) continue
    const row = table.find((candidate) => environmentName(candidate.path) === upper)
    if (row !== undefined && row.environment === undefined) {
      refuse(name, "only a configuration file can say it", `set ${row.key} in the file`)
    }
    const meant = row?.environment ?? nearest(upper, variableNames, 4)
    if (meant !== undefined) {
      refuse(name, `is no setting; ${meant} is`, `write ${meant}, or rename the variable`)
    }
    refuse(
      name,
      "is no setting, and no secret that the configuration file refers to",
      "rename or unset the variable: those that begin with FLUVIO_PG_ are settings"
    )
  }
}

/** Environment variables: `FLUVIO_PG_` and the setting's path; the target is `FLUVIO_PG_DATABASE_URL`. */
export const fromEnvironment = (given: Variables): ConfigSource => ({
  nameOf: variableOf,
  check: (secrets) => Effect.fromResult(refusing(() => checkVariables(given, secrets))),
  provider: ConfigProvider.make((path) => {
    const value = given[variableOf(path)]
    return Effect.succeed(value === undefined || value === "" ? undefined : ConfigProvider.makeValue(value))
  })
})

// Settings from whatever provider the program has

const maximumDepth = 10

/** Everything that a provider can list below a path, as far as it can list. */
export const list = (
  provider: ConfigProvider.ConfigProvider,
  path: Path
): Effect.Effect<unknown, ConfigProvider.SourceError> =>
  Effect.flatMap(provider.load(path), (node) => {
    if (node === undefined || path.length > maximumDepth) return Effect.succeed(undefined)
    if (Predicate.isTagged(node, "Value")) return Effect.succeed(node.value)
    if (Predicate.isTagged(node, "Array")) {
      return Effect.forEach(
        Array.from({ length: node.length }, (_, index) => index),
        (index) => list(provider, [...path, index])
      )
    }
    const own = node.value === undefined ? {} : { "": node.value }
    return Effect.map(
      Effect.forEach([...node.keys], (key) => Effect.map(list(provider, [...path, key]), (child) => [key, child])),
      (children) => ({ ...own, ...Object.fromEntries(children) }) as unknown
    )
  })

/** The names of a listed environment, whose `_` the provider takes for the border of two keys. */
const flatten = (tree: unknown, path: ReadonlyArray<string> = []): ReadonlyArray<string> =>
  Predicate.isObject(tree)
    ? Object.entries(tree).flatMap(([name, child]) => flatten(child, [...path, name]))
    : [path.filter((name) => name !== "").join("_")]

/** Refuses what is almost a setting in an environment that also holds the variables of others. */
const checkShared = (tree: unknown): void => {
  const known = table.map(({ path }) => path.map(Text.constantCase).join("_"))
  for (const name of flatten(tree)) {
    if (known.includes(name) || name.length < 6) continue
    const meant = nearest(name, known, 1)
    if (meant !== undefined) refuse(name, `is no setting; ${meant} is`, `write ${meant}, or rename the variable`)
  }
}

/**
 * Settings from a provider, by paths such as `["group", "rows"]`. What it lists must be settings; only an environment,
 * whose names are in capitals, may hold other things.
 */
export const fromProvider = Effect.fnUntraced(function* (provider: ConfigProvider.ConfigProvider) {
  const tree = yield* list(provider, []).pipe(Effect.orElseSucceed(() => undefined))
  const isEnvironment = Predicate.isObject(tree) && Object.keys(tree).some((name) => /^[A-Z][A-Z0-9]*$/.test(name))
  if (tree !== undefined && !isEnvironment) return fromObject(tree)
  return {
    provider,
    nameOf: dotted,
    check: () => Effect.fromResult(refusing(() => checkShared(tree)))
  } satisfies ConfigSource
})
