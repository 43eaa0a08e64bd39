/**
 * Every setting, defined once: its name, type, default and one-line description. Help, the README's table and the check
 * for unknown keys are made from this definition, so none of them can differ from it.
 */
import {
  ByteSize,
  Config,
  ConfigProvider,
  Context,
  Duration,
  Effect,
  Layer,
  Option,
  Predicate,
  Record,
  Schema,
  SchemaIssue,
  SchemaTransformation,
  String as Text
} from "effect"
import { schemaPolicies } from "./schema/SchemaChange.ts"
import { Offset } from "./stream/FluvioConsumer.ts"

/** Names from the outermost section to the setting, in kebab-case: `["group", "rows"]`. */
export type Path = ReadonlyArray<string | number>

/** A key of its own whose plain value stands for several settings. */
export interface Shorthand {
  readonly key: string
  readonly flag: string
  readonly description: string
  readonly expects: string
}

interface Setting<out A> {
  readonly kind: "setting"
  readonly config: Config.Config<A>
  readonly description: string
  /** What a value looks like, completing "expected …". */
  readonly expects: string
  /** As its author would write it; `undefined` where leaving the setting out has its own meaning. */
  readonly default: string | undefined
  readonly isRequired: boolean
  readonly flag: string | undefined
  readonly environment: string | undefined
  readonly shorthand: Shorthand | undefined
  readonly isFileOnly: boolean
  readonly isList: boolean
  /** Which keys a map takes below its own, `*` being free; `undefined` for a value without keys. */
  readonly entries: ReadonlyArray<ReadonlyArray<string>> | undefined
}

interface Section {
  readonly [name: string]: Setting<unknown> | Section
}

type Values<T> = {
  readonly [K in keyof T]: T[K] extends Setting<infer A> ? A : Values<T[K]>
}

interface Kind<A> {
  readonly codec: Schema.Codec<A, unknown>
  readonly expects: string
  readonly entries?: ReadonlyArray<ReadonlyArray<string>>
  /** A nested map has no form as plain text. */
  readonly isFileOnly?: boolean
  readonly isList?: boolean
}

interface About {
  readonly flag?: string
  /** The environment variable, where it is not the one made from the path. */
  readonly environment?: string
  readonly shorthand?: Shorthand
}

const make = <A>(
  kind: Kind<A>,
  description: string,
  config: Config.Config<A>,
  about: About,
  rest: { readonly default: string | undefined; readonly isRequired: boolean }
): Setting<A> => ({
  kind: "setting",
  config,
  description,
  expects: kind.expects,
  default: rest.default,
  isRequired: rest.isRequired,
  flag: about.flag,
  environment: about.environment,
  shorthand: about.shorthand,
  isFileOnly: kind.isFileOnly ?? false,
  isList: kind.isList ?? false,
  entries: kind.entries
})

const required = <A>(kind: Kind<A>, description: string, about: About = {}) =>
  make(kind, description, Config.schema(kind.codec), about, { default: undefined, isRequired: true })

const optional = <A>(kind: Kind<A>, description: string, about: About = {}): Setting<A | undefined> =>
  make<A | undefined>(
    kind as Kind<A | undefined>,
    description,
    Config.withDefault(Config.schema(kind.codec), undefined),
    about,
    { default: undefined, isRequired: false }
  )

/** The default is written as a user would write it, and read by the same codec. */
const setting = <A>(kind: Kind<A>, fallback: string, description: string, about: About = {}) =>
  make<A>(
    kind,
    description,
    Config.withDefault(Config.schema(kind.codec), Schema.decodeUnknownSync(kind.codec)(fallback) as A & {}),
    about,
    { default: fallback, isRequired: false }
  )

/** A map is empty unless it is given. */
const mapping = <A>(kind: Kind<{ readonly [key: string]: A }>, description: string) =>
  make<{ readonly [key: string]: A }>(
    kind,
    description,
    Config.withDefault(Config.schema(kind.codec), {}),
    {},
    {
      default: undefined,
      isRequired: false
    }
  )

/** A value read from text: `undefined` from `read` means that it is not one. */
const parsed = <A, I>(
  schema: Schema.Codec<A, I>,
  read: (text: string) => I | undefined,
  write: (value: I) => string
): Schema.Codec<A, string> =>
  Schema.String.pipe(
    Schema.decodeTo(
      schema,
      SchemaTransformation.transformEffect({
        decode: (text: string) => {
          const value = read(text.trim())
          return value === undefined ? Effect.fail(new SchemaIssue.InvalidValue()) : Effect.succeed(value)
        },
        encode: (value: I) => Effect.succeed(write(value))
      })
    )
  )

const text = (expects: string): Kind<string> => ({ codec: Schema.NonEmptyString, expects })

const readNatural = (value: string) => (/^\d+$/.test(value) ? Number(value) : undefined)

const natural = (minimum: number, maximum: number = Number.MAX_SAFE_INTEGER): Kind<number> => ({
  codec: parsed(Schema.Int.check(Schema.isBetween({ minimum, maximum })), readNatural, String),
  expects:
    maximum === Number.MAX_SAFE_INTEGER
      ? `a whole number from ${minimum} on`
      : `a whole number from ${minimum} to ${maximum}`
})

const offset: Kind<Offset> = {
  codec: parsed(Offset, readNatural, String),
  expects: "an offset of the topic, a whole number from 0 on"
}

const toggle: Kind<boolean> = {
  codec: parsed(
    Schema.Boolean,
    (value) =>
      ["true", "on", "yes"].includes(value) ? true : ["false", "off", "no"].includes(value) ? false : undefined,
    String
  ),
  expects: "true or false"
}

const oneOf = <const L extends ReadonlyArray<string>>(...literals: L): Kind<L[number]> => ({
  codec: Schema.Literals(literals),
  expects: `one of ${literals.join(", ")}`
})

/** Decimal and binary units; Fluvio writes `KB` for 1 000 bytes. */
const readBytes = (value: string) =>
  Option.getOrUndefined(
    ByteSize.fromString(/^\d+$/.test(value) ? `${value} B` : value.replace(/(?<=[\d\s])(?:KB|K|k)$/, "kB"))
  )

const bytes: Kind<number> = {
  codec: parsed(
    Schema.Int.check(Schema.isBetween({ minimum: 1024, maximum: 0x7fffffff })),
    (value) => {
      const size = readBytes(value)
      return size === undefined ? undefined : Number(size)
    },
    (value) => `${value} B`
  ),
  expects: `a size such as "8 MiB", from 1 KiB to below 2 GiB`
}

const units: { readonly [unit: string]: (amount: number) => Duration.Duration } = {
  ms: Duration.millis,
  milli: Duration.millis,
  millis: Duration.millis,
  s: Duration.seconds,
  second: Duration.seconds,
  seconds: Duration.seconds,
  m: Duration.minutes,
  min: Duration.minutes,
  minute: Duration.minutes,
  minutes: Duration.minutes,
  h: Duration.hours,
  hour: Duration.hours,
  hours: Duration.hours
}

const readTime = (value: string) => {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]+)$/.exec(value)
  if (match === null) return value === "0" ? Duration.zero : undefined
  return Object.hasOwn(units, match[2]) ? units[match[2]](Number(match[1])) : undefined
}

const time: Kind<Duration.Duration> = {
  codec: parsed(Schema.Duration, readTime, (value) => `${Duration.toMillis(value)} millis`),
  expects: `a time such as "200 millis", "10 s" or "1 min"`
}

/** As a list in the file; separated by commas anywhere else. */
const list = (item: Schema.Codec<string>, expects: string): Kind<ReadonlyArray<string>> => ({
  codec: Schema.Union([
    Schema.Array(item),
    parsed(
      Schema.Array(item),
      (value) => value.split(",").map((part) => part.trim()),
      (value) => value.join(",")
    )
  ]),
  expects,
  isList: true
})

const TableName = Schema.String.check(Schema.isPattern(/^[^.]+\.[^.].*$/s))

const tables = list(TableName, `names such as "schema.table", with * for any characters`)

const columns: Kind<{
  readonly [table: string]: {
    readonly include?: ReadonlyArray<string>
    readonly exclude?: ReadonlyArray<string>
  }
}> = {
  codec: Schema.Record(
    TableName,
    Schema.Struct({
      include: Schema.optionalKey(Schema.Array(Schema.NonEmptyString)),
      exclude: Schema.optionalKey(Schema.Array(Schema.NonEmptyString))
    })
  ),
  expects: `for each "schema.table", a list of columns to include or to exclude`,
  entries: [
    ["*", "include"],
    ["*", "exclude"]
  ],
  isFileOnly: true
}

const readPairs = (value: string) => {
  const pairs = value.split(",").map((pair) => pair.split("=", 2).map((part) => part.trim()))
  return pairs.every((pair) => pair.length === 2)
    ? (Object.fromEntries(pairs) as { [from: string]: string })
    : undefined
}

const writePairs = (map: { readonly [from: string]: string }) =>
  Object.entries(map)
    .map((pair) => pair.join("="))
    .join(",")

/** As a map in the file; as `from=to,from=to` anywhere else. */
const names = (
  expects: string,
  isValid: (from: string, to: string) => boolean = () => true
): Kind<{ readonly [from: string]: string }> => {
  const map = Schema.Record(Schema.String, Schema.NonEmptyString).check(
    Schema.makeFilter((map) => Object.entries(map).every(([from, to]) => isValid(from, to)))
  )
  return { codec: Schema.Union([map, parsed(map, readPairs, writePairs)]), expects, entries: [["*"]] }
}

/** A name with a dot is mapped to a name with a dot: the first dot ends the schema's name. */
const renames = names(
  `for each "schema" another schema, or for each "schema.table" another "schema.table"`,
  (from, to) => from.includes(".") === to.includes(".")
)

const decode = Option.liftThrowable(decodeURIComponent)

/** What the driver would refuse only when it connects, and then look like a target that is down. */
const isTarget = (value: string): boolean => {
  if (!URL.canParse(value)) return false
  const { hostname, password, pathname, protocol, searchParams, username } = new URL(value)
  const isNatural = (name: string, maximum: number) =>
    searchParams.getAll(name).every((text) => /^\d+$/.test(text) && Number(text) <= maximum)
  return (
    ["postgres:", "postgresql:"].includes(protocol) &&
    (hostname !== "" || searchParams.has("host")) &&
    [hostname, password, pathname, username].every((part) => Option.isSome(decode(part))) &&
    isNatural("port", 65_535) &&
    isNatural("connect_timeout", 2_147_483)
  )
}

const databaseUrl = {
  codec: Schema.RedactedFromValue(Schema.String.check(Schema.makeFilter(isTarget))),
  expects:
    "a URL such as postgresql://user:password@host:5432/database, special characters in the password percent-encoded"
}

const policy = oneOf("halt", "quarantine")
const everyError: Shorthand = {
  key: "on-error",
  flag: "on-error",
  description: "All of on-error.data, .constraint, .schema and .decode at once",
  expects: policy.expects
}
const onError = (what: string) =>
  setting(policy, "halt", `A transaction that fails on ${what}: stop, or set it aside and go on`, {
    shorthand: everyError
  })

const settings = {
  name: setting(text("a name"), "fluvio-postgres-sink", "Name of this connector in logs and metrics", { flag: "name" }),
  topic: required(text("the name of a topic"), "Topic to read", { flag: "topic" }),
  partition: setting(natural(0, 0x7fffffff), "0", "Partition to read; the order of transactions holds within one", {
    flag: "partition"
  }),
  url: required(databaseUrl, "Target database; sslmode, sslrootcert, sslcert and sslkey mean what they mean to libpq", {
    flag: "url",
    environment: "FLUVIO_PG_DATABASE_URL"
  }),
  consumer: {
    driver: setting(oneOf("wire", "client"), "wire", "How Fluvio is read: this package's reader, or @fluvio/client", {
      flag: "driver"
    }),
    endpoint: optional(text("host:port"), "Fluvio's public endpoint, instead of the one in the profile", {
      flag: "endpoint"
    }),
    profile: optional(text("the name of a profile"), "Fluvio profile, instead of the current one", { flag: "profile" }),
    profilePath: optional(text("a path"), "File with the Fluvio profiles, instead of ~/.fluvio/config"),
    maxBytes: setting(bytes, "1 MiB", "Most bytes asked for in one response", { flag: "max-bytes" }),
    probeInterval: setting(time, "10 s", "A silent connection is probed after this time"),
    timeout: setting(time, "30 s", "A connection that does not answer for this time is given up")
  },
  target: {
    statementTimeout: optional(time, "PostgreSQL's statement_timeout while applying; without it, none"),
    lockTimeout: setting(time, "30 s", "PostgreSQL's lock_timeout while applying; 0 waits for ever"),
    prepare: setting(
      toggle,
      "true",
      "Prepared statements, and COPY for new rows; turn off behind a pooler in transaction mode"
    ),
    lock: setting(
      oneOf("session", "none"),
      "session",
      "Advisory lock against a second instance; none behind a pooler in transaction mode"
    ),
    synchronousCommit: setting(
      oneOf("off", "local", "remote_write", "on", "remote_apply"),
      "off",
      "PostgreSQL's synchronous_commit while applying; rows and position are lost or kept together in any case"
    ),
    caFile: optional(text("a path"), "Certificates of the authorities that may sign the server's (sslrootcert)"),
    certFile: optional(text("a path"), "Client certificate (sslcert)"),
    keyFile: optional(text("a path"), "Key of the client certificate (sslkey)")
  },
  group: {
    rows: setting(natural(1), "20000", "Most rows applied in one target transaction, unless a transaction is larger", {
      flag: "group-rows"
    }),
    bytes: setting(bytes, "6 MiB", "Most bytes of records held for one group; more are streamed", {
      flag: "group-bytes"
    }),
    window: setting(time, "0 millis", "How long a group waits for more transactions before it is applied", {
      flag: "group-window"
    }),
    transactions: optional(natural(1), "Most source transactions applied in one target transaction")
  },
  schemaChanges: setting(
    oneOf(...schemaPolicies),
    "full",
    "What of the source's schema changes is made in the target",
    { flag: "schema-changes" }
  ),
  missingRow: setting(
    oneOf("skip", "insert", "halt"),
    "skip",
    "An update or delete whose row the target does not have",
    {
      flag: "missing-row"
    }
  ),
  existingRow: setting(oneOf("halt", "update", "skip"), "halt", "An insert whose key the target already has", {
    flag: "existing-row"
  }),
  floatNull: setting(
    oneOf("halt", "nan", "null"),
    "halt",
    "A float that the source's JSON shows as null: it was NaN or an infinity"
  ),
  truncateCascade: setting(oneOf("as-source", "never"), "as-source", "Whether a TRUNCATE … CASCADE cascades here too"),
  onError: {
    data: onError("a value the target refuses"),
    constraint: onError("a constraint of the target"),
    schema: onError("a table, column or type the target lacks"),
    decode: onError("a record that cannot be read")
  },
  quarantineLimit: setting(natural(1), "5", "So many transactions set aside in a row stop the connector"),
  types: mapping(
    names("for each type of the source, by name or OID, a type of the target"),
    "Target types of the source's user-defined types"
  ),
  tables: {
    include: optional(tables, "Tables to apply, and no others"),
    exclude: optional(tables, "Tables to leave out"),
    columns: mapping(columns, "Columns to apply, or to leave out"),
    map: mapping(renames, "Target schemas and tables that are named otherwise than in the source")
  },
  retry: {
    min: setting(time, "250 millis", "First pause before a retry; each next one is twice as long"),
    max: setting(time, "30 s", "Longest pause before a retry"),
    times: optional(natural(0), "So many retries without progress stop the connector; without it, none do")
  },
  acceptEpoch: optional(offset, "The source was rewound: accept its new history from this offset on", {
    flag: "accept-epoch"
  })
}

const isSetting = (node: Setting<unknown> | Section): node is Setting<unknown> => node.kind === "setting"

const build = <T extends Section>(section: T): Config.Config<Values<T>> =>
  Config.all(
    Record.map(section, (node: Setting<unknown> | Section, name) =>
      Config.nested(isSetting(node) ? node.config : build(node), Text.kebabCase(name))
    )
  ) as unknown as Config.Config<Values<T>>

/** A row of the table of settings. */
export interface SettingInfo {
  readonly path: ReadonlyArray<string>
  /** The path as it is written: `group.rows`. */
  readonly key: string
  readonly flag: string | undefined
  /** `undefined` for what only a file can say. */
  readonly environment: string | undefined
  readonly description: string
  readonly expects: string
  readonly default: string | undefined
  readonly isRequired: boolean
  readonly shorthand: Shorthand | undefined
  readonly isList: boolean
  /** Which keys a map takes below its own, `*` being free; `undefined` for a value without keys. */
  readonly entries: ReadonlyArray<ReadonlyArray<string>> | undefined
}

const environmentName = (path: Path) => ["FLUVIO_PG", ...path.map((name) => Text.constantCase(String(name)))].join("_")

const rows = (section: Section, parent: ReadonlyArray<string>): ReadonlyArray<SettingInfo> =>
  Object.entries(section).flatMap(([name, node]) => {
    const path = [...parent, Text.kebabCase(name)]
    if (!isSetting(node)) return rows(node, path)
    const { flag, description, expects, isList, isRequired, shorthand, entries } = node
    const environment = node.isFileOnly ? undefined : (node.environment ?? environmentName(path))
    return {
      path,
      key: path.join("."),
      flag,
      environment,
      description,
      expects,
      default: node.default,
      isRequired,
      shorthand,
      isList,
      entries
    }
  })

/** All settings, in the order in which they are documented. */
export const table: ReadonlyArray<SettingInfo> = rows(settings, [])

/** The keys that stand for several settings. */
export const shorthands: ReadonlyArray<Shorthand> = [...new Set(table.flatMap((row) => row.shorthand ?? []))]

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
