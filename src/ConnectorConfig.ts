/** The settings of this process: where they come from, how they are read and checked. */
import { ConfigProvider, Config, Context, Effect, Layer, Predicate, type Redacted, Schema, SchemaIssue } from "effect"
import { ConnectorConfigError, type ConfigSource, fromProvider, list } from "./ConfigSource.ts"
export { type ConfigSource, ConnectorConfigError, fromEnvironment, fromObject, fromSettings } from "./ConfigSource.ts"
import { build, type Path, type SettingInfo, settings, table, type Values } from "./Settings.ts"

const settingAt = (path: Path) => table.find((row) => row.path.every((name, index) => path[index] === name))

/** A plain value at a shorthand stands for every setting below it, within the same source. */
const expandShorthand = ({ provider }: ConfigSource): ConfigProvider.ConfigProvider =>
  ConfigProvider.make((path) =>
    Effect.flatMap(provider.load(path), (node) => {
      const shorthand = settingAt(path)?.shorthand
      return node !== undefined || shorthand === undefined
        ? Effect.succeed(node)
        : Effect.map(provider.load([shorthand.key]), (plain) =>
            Predicate.isTagged(plain, "Value") ? plain : undefined
          )
    })
  )

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
      const problem = Predicate.isTagged(node, "Value") ? row?.explain?.(node.value) : undefined
      return new ConnectorConfigError({
        key: source.nameOf(at),
        reason: problem?.reason ?? `expected ${expects}`,
        remedy: problem?.remedy ?? `correct ${source.nameOf(at)}`
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
  const secrets = sources.flatMap((source) => source.secrets ?? [])
  yield* Effect.forEach(sources, (source) => source.check(secrets), { discard: true })
  const provider = sources
    .map(expandShorthand)
    .reduce((all, next) => ConfigProvider.orElse(all, next), ConfigProvider.fromUnknown({}))
  return yield* build(settings)
    .parse(provider)
    .pipe(Effect.catch((error) => Effect.flatMap(describe(error, sources), Effect.fail)))
})

/** A setting and what decides it. */
export interface Origin {
  readonly setting: SettingInfo
  /** As its author calls it: a flag, a variable, a key of the file; `undefined` where nobody has set it. */
  readonly name: string | undefined
  /** As its author wrote it, or its default, with its secrets. */
  readonly value: unknown
  /** What of the value is not to be shown. */
  readonly secrets: ReadonlyArray<Redacted.Redacted<string>>
}

/** Which source decides each setting. They may be wrong: {@link parse} tells. */
export const origins = (sources: ReadonlyArray<ConfigSource>) =>
  Effect.forEach(
    table,
    Effect.fnUntraced(function* (setting) {
      for (const source of sources) {
        for (const path of [setting.path, ...(setting.shorthand === undefined ? [] : [[setting.shorthand.key]])]) {
          const value = yield* list(source.provider, path).pipe(Effect.orElseSucceed(() => undefined))
          // A shorthand is also the section of the settings that it stands for.
          if (value === undefined || (path !== setting.path && !Predicate.isString(value))) continue
          return { setting, name: source.nameOf(path), value, secrets: source.secretValues ?? [] } satisfies Origin
        }
      }
      return { setting, name: undefined, value: setting.default, secrets: [] } satisfies Origin
    })
  )

/** The settings of this process, checked. */
export class ConnectorConfig extends Context.Service<ConnectorConfig, Values<typeof settings>>()(
  "fluvio-postgres-sink/ConnectorConfig"
) {
  /** From the ambient `ConfigProvider`, by paths such as `["group", "rows"]`. What it lists must be settings. */
  static readonly layer = Layer.effect(
    ConnectorConfig,
    Effect.flatMap(Effect.flatMap(ConfigProvider.ConfigProvider, fromProvider), (source) => parse([source]))
  )

  /** From several sources, the first of them weighing most. */
  static readonly layerFrom = (sources: ReadonlyArray<ConfigSource>) => Layer.effect(ConnectorConfig, parse(sources))
}
