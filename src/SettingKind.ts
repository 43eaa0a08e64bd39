/** The kinds of values that settings have: how each is read, and what one looks like. */
import { ByteSize, Duration, Effect, Option, type Redacted, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { Offset } from "./stream/FluvioConsumer.ts"
import { expectedUrl, isConnectionString, type Problem, problemOf, withoutPasswords } from "./TargetUrl.ts"
import { ownSchema } from "./target/Mapping.ts"

/** A part of a JSON Schema. */
export type JsonSchema = { readonly [keyword: string]: unknown }

export interface Kind<A> {
  readonly codec: Schema.Codec<A, unknown>
  readonly expects: string
  /** What a configuration file may say, as far as a JSON Schema can tell. */
  readonly json: JsonSchema
  readonly entries?: ReadonlyArray<ReadonlyArray<string>>
  /** A nested map has no form as plain text. */
  readonly isFileOnly?: boolean
  readonly isList?: boolean
  /** The values that there are, where they are few. */
  readonly choices?: ReadonlyArray<string>
  /** What may be shown of a value that holds a secret; all of it where this is left out. */
  readonly shown?: (text: string) => string
  /** What is wrong with a text, where more can be said than what is expected. It quotes nothing of the text. */
  readonly explain?: (text: string) => Problem | undefined
}

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

/** Where a JSON Schema of a file has what stands for a secret. */
export const secretReference = "#/definitions/secret"

/** A plain value: what is no text in YAML is read as it is written, and any may come from a secret. */
const plain = (json: JsonSchema): JsonSchema => ({ anyOf: [json, { $ref: secretReference }] })

const texts = (pattern: string): JsonSchema => plain({ type: ["string", "number", "boolean"], pattern })

/** A URL or a password in the wrong place must not get into the messages that name a topic, an endpoint or a file. */
const misplaced = (value: string): Problem | undefined =>
  isConnectionString(value)
    ? { reason: "looks like the connection to a database, which only url may hold", remedy: "give it as url instead" }
    : undefined

const plainText = (expects: string, pattern: RegExp): Kind<string> => ({
  codec: Schema.String.check(
    Schema.isPattern(pattern),
    Schema.makeFilter((value) => misplaced(value) === undefined)
  ),
  expects,
  json: texts(pattern.source),
  explain: misplaced
})

export const text = (expects: string): Kind<string> => plainText(expects, /\S/)

export const topicName: Kind<string> = plainText("the name of a topic", /^[\w.-]+$/)

/** `host`, `host:port` or `[ipv6]:port`. */
export const address: Kind<string> = plainText("host:port", /^(?:\[[0-9a-fA-F:.]+\]|[^\s:/?#@=[\]]+)(?::\d{1,5})?$/)

/** Where a server listens. */
export interface ListenAddress {
  /** `undefined` for every address of this machine. */
  readonly host: string | undefined
  readonly port: number
}

const listening = /^(?:(\[[0-9a-fA-F:.]+\]|[^\s:/?#@=[\]]*):)?(\d{1,5})$/

/** A port alone is for this machine; with a colon before it, for every address of the machine. */
const readListening = (value: string): ListenAddress | undefined => {
  const [, host, port] = listening.exec(value) ?? []
  if (port === undefined || Number(port) > 65_535) return undefined
  return {
    host: host === undefined ? "127.0.0.1" : host === "" ? undefined : host.replace(/^\[(.*)\]$/, "$1"),
    port: Number(port)
  }
}

export const listenAddress: Kind<ListenAddress> = {
  codec: parsed(
    Schema.Struct({ host: Schema.UndefinedOr(Schema.String), port: Schema.Natural }),
    readListening,
    ({ host, port }) => `${host === undefined ? "" : host.includes(":") ? `[${host}]` : host}:${port}`
  ),
  expects: "a port, :port or host:port",
  json: plain({ type: ["integer", "string"], minimum: 0, maximum: 65_535, pattern: listening.source })
}

const readNatural = (value: string) => (/^\d+$/.test(value) ? Number(value) : undefined)

const wholeNumber = (minimum: number, maximum: number = Number.MAX_SAFE_INTEGER): JsonSchema =>
  plain({ type: ["integer", "string"], minimum, maximum, pattern: "^\\s*\\d+\\s*$" })

export const natural = (minimum: number, maximum: number = Number.MAX_SAFE_INTEGER): Kind<number> => ({
  codec: parsed(Schema.Int.check(Schema.isBetween({ minimum, maximum })), readNatural, String),
  json: wholeNumber(minimum, maximum),
  expects:
    maximum === Number.MAX_SAFE_INTEGER
      ? `a whole number from ${minimum} on`
      : `a whole number from ${minimum} to ${maximum}`
})

export const offset: Kind<Offset> = {
  codec: parsed(Offset, readNatural, String),
  json: wholeNumber(0),
  expects: "an offset of the topic, a whole number from 0 on"
}

const [yes, no] = [
  ["true", "on", "yes"],
  ["false", "off", "no"]
]

export const toggle: Kind<boolean> = {
  codec: parsed(
    Schema.Boolean,
    (value) => (yes.includes(value) ? true : no.includes(value) ? false : undefined),
    String
  ),
  json: plain({ enum: [true, false, ...yes, ...no] }),
  expects: "true or false"
}

export const oneOf = <const L extends ReadonlyArray<string>>(...literals: L): Kind<L[number]> => ({
  codec: Schema.Literals(literals),
  expects: `one of ${literals.join(", ")}`,
  // An unquoted null is the word here.
  json: plain({ enum: literals.includes("null") ? [...literals, null] : literals }),
  choices: literals
})

/** Decimal and binary units; Fluvio writes `KB` for 1 000 bytes. */
const readBytes = (value: string) =>
  Option.getOrUndefined(
    ByteSize.fromString(/^\d+$/.test(value) ? `${value} B` : value.replace(/(?<=[\d\s])(?:KB|K|k)$/, "kB"))
  )

export const bytes: Kind<number> = {
  codec: parsed(
    Schema.Int.check(Schema.isBetween({ minimum: 1024, maximum: 0x7fffffff })),
    (value) => {
      const size = readBytes(value)
      return size === undefined ? undefined : Number(size)
    },
    (value) => `${value} B`
  ),
  expects: `a size such as "8 MiB", from 1 KiB to below 2 GiB`,
  json: plain({
    type: ["integer", "string"],
    minimum: 1024,
    maximum: 0x7fffffff,
    pattern: "^\\s*(\\d+|\\d+(\\.\\d+)?\\s*(B|[kK]B?|[MG]B|[KMG]iB|(kilo|mega|giga|kibi|mebi|gibi)?bytes?))\\s*$"
  })
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

const writeTime = (value: Duration.Duration) => `${Duration.toMillis(value)} millis`

const timePattern = `\\d+(\\.\\d+)?\\s*(${Object.keys(units).join("|")})`

export const time: Kind<Duration.Duration> = {
  codec: parsed(Schema.Duration, readTime, writeTime),
  json: plain({ type: ["integer", "string"], maximum: 0, minimum: 0, pattern: `^\\s*(0|${timePattern})\\s*$` }),
  expects: `a time such as "200 millis", "10 s" or "1 min"`
}

/** A time of at least so many milliseconds. */
export const timeFrom = (minimum: number): Kind<Duration.Duration> => ({
  codec: parsed(
    Schema.Duration.check(Schema.makeFilter((value) => Duration.toMillis(value) >= minimum)),
    readTime,
    writeTime
  ),
  expects: `${time.expects}, from ${minimum} millis on`,
  json: plain({ type: "string", pattern: `^\\s*${timePattern}\\s*$` })
})

/** As a list in the file; separated by commas anywhere else. */
const list = (item: Schema.Codec<string>, expects: string, pattern: string): Kind<ReadonlyArray<string>> => ({
  codec: Schema.Union([
    Schema.Array(item),
    parsed(
      Schema.Array(item),
      (value) => value.split(",").map((part) => part.trim()),
      (value) => value.join(",")
    )
  ]),
  expects,
  json: { anyOf: [{ type: "array", items: texts(pattern) }, { type: "string", pattern }, { $ref: secretReference }] },
  isList: true
})

const tableName = /^[^.]+\.[^.][\s\S]*$/
const TableName = Schema.String.check(Schema.isPattern(tableName))

export const tables = list(TableName, `names such as "schema.table", with * for any characters`, tableName.source)

export const columns: Kind<{
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
  json: {
    type: "object",
    propertyNames: { pattern: tableName.source },
    additionalProperties: {
      type: "object",
      properties: Object.fromEntries(
        ["include", "exclude"].map((which) => [which, { type: "array", items: texts("[\\s\\S]") }])
      ),
      additionalProperties: false
    }
  },
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
export const names = (
  expects: string,
  isValid: (from: string, to: string) => boolean = () => true
): Kind<{ readonly [from: string]: string }> => {
  const map = Schema.Record(Schema.String, Schema.NonEmptyString).check(
    Schema.makeFilter((map) => Object.entries(map).every(([from, to]) => isValid(from, to)))
  )
  const pair = "[^,=]*=[^,]+"
  return {
    codec: Schema.Union([map, parsed(map, readPairs, writePairs)]),
    expects,
    entries: [["*"]],
    json: {
      anyOf: [
        { type: "object", additionalProperties: texts("[\\s\\S]") },
        { type: "string", pattern: `^${pair}(,${pair})*$` },
        { $ref: secretReference }
      ]
    }
  }
}

/**
 * A name with a dot is mapped to a name with a dot: the first dot ends the schema's name. The connector's own schema has
 * what a connector keeps there, and is not for others.
 */
export const renames = names(
  `for each "schema" another schema, or for each "schema.table" another "schema.table", neither of them in ${ownSchema}`,
  (from, to) =>
    from.includes(".") === to.includes(".") && [from, to].every((name) => name.split(".", 1)[0] !== ownSchema)
)

export const databaseUrl: Kind<Redacted.Redacted<string>> = {
  codec: Schema.RedactedFromValue(Schema.String.check(Schema.makeFilter((value) => problemOf(value) === undefined))),
  expects: expectedUrl,
  json: plain({ type: "string", pattern: "^postgres(ql)?://" }),
  shown: withoutPasswords,
  explain: problemOf
}

export const secret = (expects: string): Kind<Redacted.Redacted<string>> => ({
  codec: Schema.RedactedFromValue(Schema.String.check(Schema.isPattern(/^[\x21-\x7e]{8,}$/))),
  expects,
  json: texts("^[\\x21-\\x7e]{8,}$"),
  shown: () => "…"
})
