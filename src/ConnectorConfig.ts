/** The settings of this process: where they come from, how they are read and checked. */
import { ConfigProvider, Config, Context, Effect, Layer, Predicate, Schema, SchemaIssue } from "effect"
import { build, environmentName, type Path, settings, shorthands, table, type Values } from "./Settings.ts"

/** A setting is missing, unknown or malformed. It never carries a value: a value may be a secret in the wrong place. */
export class ConnectorConfigError extends Schema.TaggedError<ConnectorConfigError>()("ConnectorConfigError", {
  /** The setting as its author wrote it: a key of the file, a flag, or an environment variable. */
  key: Schema.String,
  reason: Schema.String,
  remedy: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `${this.key}: ${this.reason}`
  }
}

/** Settings from one place, and the names by which that place calls them. */
export interface ConfigSource {
  readonly provider: ConfigProvider.ConfigProvider
  /** `["group", "rows"]` is `--group-rows`, `FLUVIO_PG_GROUP_ROWS` or `parameters.group.rows`. */
  readonly nameOf: (path: Path) => string
}

const settingAt = (path: Path) => table.find((row) => row.path.every((name, index) => path[index] === name))

const variableOf = (path: Path) =>
  table.find((row) => row.path.join() === path.join())?.environment ?? environmentName(path)

/** Environment variables: `FLUVIO_PG_` and the setting's path; the target is `FLUVIO_PG_DATABASE_URL`. */
export const fromEnvironment = (variables: { readonly [name: string]: string | undefined }): ConfigSource => ({
  nameOf: variableOf,
  provider: ConfigProvider.make((path) => {
    const value = variables[variableOf(path)]
    return Effect.succeed(value === undefined || value === "" ? undefined : ConfigProvider.makeValue(value))
  })
})

/** A tree of settings by their keys, such as `{ topic: "orders", group: { rows: 100 } }`. */
export const fromObject = (tree: unknown, nameOf: (path: Path) => string = (path) => path.join(".")): ConfigSource => ({
  provider: ConfigProvider.fromUnknown(tree),
  nameOf
})

/** A plain value at a shorthand stands for every setting below it, within the same source. */
const expandShorthand = ({ provider, nameOf }: ConfigSource): ConfigSource => ({
  nameOf,
  provider: ConfigProvider.make((path) =>
    Effect.flatMap(provider.load(path), (node) => {
      const shorthand = settingAt(path)?.shorthand
      return node !== undefined || shorthand === undefined
        ? Effect.succeed(node)
        : Effect.map(provider.load([shorthand.key]), (plain) =>
            Predicate.isTagged(plain, "Value") ? plain : undefined
          )
    })
  )
})

/** The longest path that an issue points to: the place that its author must correct. */
const deepest = (issue: SchemaIssue.Issue, path: Path): Path => {
  if (Predicate.isTagged(issue, "Pointer")) {
    return deepest(issue.issue, [...path, ...issue.path.map((name) => (Predicate.isSymbol(name) ? "" : name))])
  }
  const inner = "issues" in issue ? issue.issues : "issue" in issue ? [issue.issue] : []
  return inner
    .map((next) => deepest(next, path))
    .reduce((best, next) => (next.length > best.length ? next : best), path)
}

const describe = Effect.fnUntraced(function* (error: Config.ConfigError, sources: ReadonlyArray<ConfigSource>) {
  if (!Schema.isSchemaError(error.cause)) {
    return new ConnectorConfigError({
      key: "configuration",
      reason: "a source of settings cannot be read",
      remedy: "check that the files with the settings exist and can be read"
    })
  }
  const path = deepest(error.cause.issue, [])
  const row = settingAt(path)
  const expects = row?.expects ?? "another value"
  for (const source of sources) {
    // The deepest name that the source really has: a shorthand is shorter than the setting it stands for.
    for (let length = path.length; length > 0; length--) {
      const at = path.slice(0, length)
      const node = yield* source.provider.load(at).pipe(Effect.orElseSucceed(() => undefined))
      if (node === undefined) continue
      return new ConnectorConfigError({
        key: source.nameOf(at),
        reason: `expected ${expects}`,
        remedy: `correct ${source.nameOf(at)}`
      })
    }
  }
  const ways = [...new Set(sources.toReversed().map((source) => source.nameOf(path)))]
  return new ConnectorConfigError({
    key: path.join("."),
    reason: `is required: ${expects}`,
    remedy: `set ${ways.join(", or ")}`
  })
})

/** Reads all settings; the first source that has a setting decides it, also when its value is malformed. */
export const parse = Effect.fn("ConnectorConfig.parse")(function* (sources: ReadonlyArray<ConfigSource>) {
  const expanded = sources.map(expandShorthand)
  const provider = expanded.reduce(
    (all, source) => ConfigProvider.orElse(all, source.provider),
    ConfigProvider.fromUnknown({})
  )
  return yield* build(settings)
    .parse(provider)
    .pipe(Effect.catch((error) => Effect.flatMap(describe(error, sources), Effect.fail)))
})

const distance = (a: string, b: string): number => {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    for (let column = 1; column <= b.length; column++) {
      const replaced = previous[column - 1] + (a[row - 1] === b[column - 1] ? 0 : 1)
      current.push(Math.min(previous[column] + 1, current[column - 1] + 1, replaced))
    }
    previous = current
  }
  return previous[b.length]
}

/** The known name that was most likely meant, when one is near enough. */
export const nearest = (name: string, known: ReadonlyArray<string>, limit = Math.max(2, name.length / 3)) =>
  known
    .map((candidate) => ({ candidate, distance: distance(name, candidate) }))
    .filter((near) => near.distance <= limit)
    .sort((a, b) => a.distance - b.distance)
    .at(0)?.candidate

/**
 * Refuses environment variables that are almost the name of a setting: they would be ignored in silence. Others that
 * begin with `FLUVIO_PG_` may be secrets that the configuration file refers to.
 */
export const checkEnvironment = (variables: { readonly [name: string]: string | undefined }) => {
  const known = [
    ...table.flatMap((row) => row.environment ?? []),
    ...shorthands.map(({ key }) => environmentName([key]))
  ]
  for (const name of Object.keys(variables)) {
    if (!name.startsWith("FLUVIO_PG_") || known.includes(name)) continue
    const fileOnly = table.find((row) => row.environment === undefined && environmentName(row.path) === name)
    if (fileOnly !== undefined) {
      const remedy = `set ${fileOnly.key} in the file`
      return Effect.fail(
        new ConnectorConfigError({ key: name, reason: "only a configuration file can say it", remedy })
      )
    }
    const meant = nearest(name, known, 2)
    if (meant !== undefined) {
      const remedy = `write ${meant}, or rename the variable`
      return Effect.fail(new ConnectorConfigError({ key: name, reason: `is no setting; ${meant} is`, remedy }))
    }
  }
  return Effect.void
}

/** The settings of this process, checked. */
export class ConnectorConfig extends Context.Service<ConnectorConfig, Values<typeof settings>>()(
  "fluvio-postgres-sink/ConnectorConfig"
) {
  /** From the ambient `ConfigProvider`, by paths such as `["group", "rows"]`. */
  static readonly layer = Layer.effect(
    ConnectorConfig,
    Effect.flatMap(ConfigProvider.ConfigProvider, (provider) => parse([{ provider, nameOf: (path) => path.join(".") }]))
  )

  /** From several sources, the first of them weighing most. */
  static readonly layerFrom = (sources: ReadonlyArray<ConfigSource>) => Layer.effect(ConnectorConfig, parse(sources))
}
