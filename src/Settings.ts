/**
 * Every setting, defined once: its name, type, default and one-line description. Help, the tables of docs/settings.md and
 * the check for unknown keys are made from this definition, so none of them can differ from it.
 */
import { Config, type Duration, Record, type Redacted, Schema, String as Text } from "effect"
import { schemaPolicies, unclearPolicies } from "./schema/SchemaChange.ts"
import {
  address,
  bytes,
  columns,
  databaseUrl,
  type JsonSchema,
  type Kind,
  listenAddress,
  type ListenAddress,
  names,
  natural,
  offset,
  oneOf,
  renames,
  secret,
  tables,
  text,
  time,
  timeFrom,
  toggle,
  topicName
} from "./SettingKind.ts"

/** Names from the outermost section to the setting, in kebab-case: `["group", "rows"]`. */
export type Path = ReadonlyArray<string | number>

/** A key of its own whose plain value stands for several settings. */
export interface Shorthand {
  readonly key: string
  readonly flag: string
  readonly description: string
  readonly expects: string
}

/** One setting: how it is read, and what is said of it. */
export interface Setting<out A> {
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
  readonly json: JsonSchema
  readonly choices: ReadonlyArray<string> | undefined
  readonly isList: boolean
  readonly shown: Kind<A>["shown"]
  /** Which keys a map takes below its own, `*` being free; `undefined` for a value without keys. */
  readonly entries: ReadonlyArray<ReadonlyArray<string>> | undefined
  readonly explain: Kind<A>["explain"]
}

interface Section {
  readonly [name: string]: Setting<unknown> | Section
}

export type Values<T> = {
  readonly [K in keyof T]: T[K] extends Setting<infer A> ? A : Values<T[K]>
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
  json: kind.json,
  choices: kind.choices,
  isList: kind.isList ?? false,
  shown: kind.shown,
  entries: kind.entries,
  explain: kind.explain
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

const policy = oneOf("halt", "quarantine")
type PolicyName = (typeof policy.codec)["Type"]
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

export const settings = {
  name: setting(
    text("a name"),
    "fluvio-postgres-sink",
    "Name of this connector's sessions in the target (application_name)",
    { flag: "name" }
  ),
  topic: required(topicName, "Topic to read", { flag: "topic" }),
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
    endpoint: optional(address, "Fluvio's public endpoint, instead of the one in the profile", {
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
    timeout: setting(
      timeFrom(1000),
      "60 s",
      "A connection without an answer for this time is given up, unless the server is at work on the statement"
    ),
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
    transactions: optional(natural(1), "Most source transactions applied in one target transaction"),
    restTimeout: setting(
      timeFrom(1000),
      "1 min",
      "How long an open target transaction waits for the rest of a streamed transaction before it is rolled back"
    )
  },
  schemaChanges: setting(
    oneOf(...schemaPolicies),
    "additive",
    "What of the source's schema changes is made in the target",
    { flag: "schema-changes" }
  ),
  unclearChanges: setting(
    oneOf(...unclearPolicies),
    "stop",
    "A schema change that can be read in several ways: stop, or keep the target's columns while rows fit"
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
  truncateCascade: setting(
    oneOf("never", "as-source"),
    "never",
    "Whether a TRUNCATE … CASCADE empties tables that only the target has; those of the source are named in any case"
  ),
  onError: {
    data: onError("a value the target refuses"),
    constraint: onError("a constraint of the target"),
    schema: onError("a table, column or type the target lacks"),
    decode: onError("a record that cannot be read")
  },
  quarantineLimit: setting(natural(1), "5", "So many transactions set aside in a row stop the connector"),
  types: mapping(
    names("for each type of the source, by OID, schema.name or name, a type of the target"),
    "Target types of the source's user-defined types"
  ),
  tables: {
    include: optional(tables, "Tables to apply, and no others"),
    exclude: optional(tables, "Tables to leave out"),
    columns: mapping(columns, "Columns to apply, or to leave out"),
    map: mapping(renames, "Target schemas and tables that are named otherwise than in the source")
  },
  retry: {
    min: setting(timeFrom(10), "250 millis", "First pause before a retry; each next one is twice as long"),
    max: setting(timeFrom(100), "30 s", "Longest pause before a retry"),
    times: optional(natural(0), "So many retries without progress stop the connector; without it, none do")
  },
  shutdownTimeout: setting(time, "20 s", "How long a shutdown waits for the group in hand, before that is rolled back"),
  http: {
    listen: optional(
      listenAddress,
      "Where the status page, health, status and metrics are served over HTTP; without it, nowhere",
      {
        flag: "http-listen"
      }
    ),
    readyLag: optional(natural(0), "With more records of lag the connector is not ready; without it, any lag is"),
    token: optional(
      secret("at least 8 characters without spaces"),
      "Who bears it may pause, resume and replay over HTTP, and on the status page; without it, nobody may"
    )
  },
  acceptEpoch: optional(offset, "The source was rewound: accept its new history from this offset on", {
    flag: "accept-epoch"
  })
}

const isSetting = (node: Setting<unknown> | Section): node is Setting<unknown> => node.kind === "setting"

export const build = <T extends Section>(section: T): Config.Config<Values<T>> =>
  Config.all(
    Record.map(section, (node: Setting<unknown> | Section, name) =>
      Config.nested(isSetting(node) ? node.config : build(node), Text.kebabCase(name))
    )
  ) as unknown as Config.Config<Values<T>>

/** A setting's value as a program gives it: sizes and times may also be text. */
type Given<A> = A extends Duration.Duration
  ? Duration.Duration | string
  : A extends Redacted.Redacted<infer B>
    ? Redacted.Redacted<B> | B
    : A extends ListenAddress
      ? number | string
      : A extends number
        ? number | string
        : A

type Tree<T> = {
  readonly [K in keyof T]?:
    (T[K] extends Setting<infer A> ? Given<A> : Tree<T[K]> | (K extends "onError" ? PolicyName : never)) | undefined
}

/** Settings as a program gives them. */
export type Settings = Tree<typeof settings>

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
  /** What a configuration file may say. */
  readonly json: JsonSchema
  /** The values that there are, where they are few. */
  readonly choices: ReadonlyArray<string> | undefined
  readonly isList: boolean
  /** What may be shown of a value that holds a secret. */
  readonly shown: Kind<unknown>["shown"]
  /** Which keys a map takes below its own, `*` being free; `undefined` for a value without keys. */
  readonly entries: ReadonlyArray<ReadonlyArray<string>> | undefined
  readonly explain: Kind<unknown>["explain"]
}

export const environmentName = (path: Path) =>
  ["FLUVIO_PG", ...path.map((name) => Text.constantCase(String(name)))].join("_")

const rows = (section: Section, parent: ReadonlyArray<string>): ReadonlyArray<SettingInfo> =>
  Object.entries(section).flatMap(([name, node]) => {
    const path = [...parent, Text.kebabCase(name)]
    if (!isSetting(node)) return rows(node, path)
    const { flag, description, expects, explain, isList, isRequired, shown, shorthand, entries } = node
    const { choices, json } = node
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
      json,
      choices,
      isList,
      shown,
      entries,
      explain
    }
  })

/** All settings, in the order in which they are documented. */
export const table: ReadonlyArray<SettingInfo> = rows(settings, [])

/** The JSON Schema of these settings as they stand below `path` in a file. */
export const schemaOf = (rows: ReadonlyArray<SettingInfo>, path: Path = []): JsonSchema => {
  const names = new Set(rows.map((row) => row.path[path.length]))
  const properties = [...names].map((name) => {
    const below = rows.filter((row) => row.path[path.length] === name)
    const [first] = below
    if (below.length === 1 && first.path.length === path.length + 1) {
      const { default: fallback, description, json } = first
      return [name, { description, ...(fallback === undefined ? {} : { default: fallback }), ...json }]
    }
    const section = schemaOf(below, [...path, name])
    const shorthand = shorthands.find(({ key }) => key === [...path, name].join("."))
    return [
      name,
      shorthand === undefined ? section : { description: shorthand.description, anyOf: [first.json, section] }
    ]
  })
  return { type: "object", properties: Object.fromEntries(properties), additionalProperties: false }
}

/** The keys that stand for several settings. */
export const shorthands: ReadonlyArray<Shorthand> = [...new Set(table.flatMap((row) => row.shorthand ?? []))]
