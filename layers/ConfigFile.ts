/**
 * The configuration file, `run --config connector.yaml`: the original connector's, today's form of Fluvio's
 * connectors, and the settings of this connector below `parameters` (or `postgres-sink`).
 *
 * ```yaml
 * # as for the original                    # today's form
 * version: 0.1.0                           apiVersion: 0.1.0
 * name: my-sink                            meta:
 * type: postgres-sink                        name: my-sink
 * topic: my-topic                            type: postgres-sink
 * parameters:                                topic: my-topic
 *   url: postgresql://…                      consumer: { partition: 0 }
 * secrets:                                 postgres-sink:
 *   FLUVIO_PG_DATABASE_URL: postgresql://…   url: ${{ secrets.MY_URL }}
 * ```
 *
 * `${{ secrets.NAME }}` stands for an entry of the file's own `secrets`, or else of the file of `--secrets`, or else for
 * the environment variable `NAME`.
 * What would have to be ignored is refused, except what the file says of the topic for whoever creates it. Messages name
 * keys and never show values.
 */
import { Effect, FileSystem, Predicate, Redacted } from "effect"
import { type Alias, isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from "yaml"
import {
  type ConfigSource,
  ConnectorConfigError,
  fromObject,
  isSection,
  readTree,
  refuse as refuseKey,
  refuseUnknown,
  refusing,
  type Section,
  type Tree
} from "../src/ConfigSource.ts"
import { nearest } from "../src/Nearest.ts"
import type { JsonSchema } from "../src/SettingKind.ts"
import { type Path, schemaOf, table } from "../src/Settings.ts"
import { isConnectionString } from "../src/TargetUrl.ts"

type Variables = { readonly [name: string]: string | undefined }

/** More than any honest file has, and far less than aliases of aliases can unfold to. */
const maximumNodes = 10_000
const maximumDepth = 100

const refuse = (path: Path, reason: string, remedy?: string): never => refuseKey(path.join("."), reason, remedy)

const parseYaml = (text: string, file: string): Section => {
  const lineCounter = new LineCounter()
  const document = parseDocument(text, {
    version: "1.2",
    schema: "core",
    stringKeys: true,
    lineCounter,
    // The library's own messages quote the line, and with it perhaps a password.
    prettyErrors: false,
    logLevel: "error"
  })
  const [error] = [...document.errors, ...document.warnings]
  if (error !== undefined) {
    const { col, line } = lineCounter.linePos(error.pos[0])
    const reason = error.code === "DUPLICATE_KEY" ? "a key is given twice" : "this is not valid YAML"
    return refuse([file], `${reason}, at line ${line}, column ${col}`, `correct the file at line ${line}`)
  }
  let count = 0
  const convert = (node: unknown, path: Path): Tree => {
    if (++count > maximumNodes || path.length > maximumDepth) {
      return refuse([file], "its aliases unfold to too many values", "write it without aliases")
    }
    const target: unknown = isAlias(node) ? (node as Alias).resolve(document) : node
    if (isMap(target)) {
      return Object.fromEntries(
        target.items.map(({ key, value }) => {
          const name = String(isScalar(key) ? key.value : key)
          return [name, convert(value, [...path, name])]
        })
      )
    }
    if (isSeq(target)) return target.items.map((item, index) => convert(item, [...path, index]))
    if (isScalar(target)) {
      const { source, value } = target
      const isQuoted = target.type === "QUOTE_DOUBLE" || target.type === "QUOTE_SINGLE"
      if (!isQuoted && (value === null || Predicate.isNumber(value)) && source !== undefined) return source
      return value === null ? "" : String(value)
    }
    return ""
  }
  const tree = convert(document.contents, [])
  return isSection(tree) ? tree : refuse([file], "expected keys and values at its top", "see the README for an example")
}

/** Replaces `${{ secrets.NAME }}` in every text. */
const interpolate = (tree: Tree, path: Path, secretOf: (name: string) => string | undefined): Tree => {
  if (Array.isArray(tree)) return tree.map((item, index) => interpolate(item, [...path, index], secretOf))
  if (isSection(tree)) {
    return Object.fromEntries(
      Object.entries(tree).map(([name, child]) => [name, interpolate(child, [...path, name], secretOf)])
    )
  }
  return String(tree).replaceAll(/\$\{\{(.*?)\}\}/gs, (_, expression: string) => {
    const name = /^\s*secrets\.([A-Za-z_][A-Za-z0-9_]*)\s*$/.exec(expression)?.[1]
    if (name === undefined) return refuse(path, "only ${{ secrets.NAME }} can stand between the braces")
    const remedy = `set the environment variable ${name}, or give it in the file of --secrets`
    return secretOf(name) ?? refuse(path, `the secret ${name} is neither in the file nor in the environment`, remedy)
  })
}

const at = (section: Section, name: string): Tree | undefined =>
  Object.hasOwn(section, name) ? section[name] : undefined

/** A part of the file that is a map; left out or left empty, it is an empty one. */
const sectionAt = (parent: Section, name: string, path: Path): Section => {
  const section = at(parent, name)
  if (section === undefined || section === "") return {}
  return isSection(section) ? section : refuse([...path, name], "expected keys and values below it")
}

const textAt = (parent: Section, name: string, path: Path): string | undefined => {
  const value = at(parent, name)
  if (value === undefined) return undefined
  return Predicate.isString(value) && value !== "" ? value : refuse([...path, name], "expected one plain value")
}

const refuseUnknownKeys = (
  section: Section,
  known: ReadonlyArray<string>,
  path: Path,
  hint?: (name: string) => string | undefined
) => {
  for (const name of Object.keys(section)) {
    if (known.includes(name)) continue
    const meant = nearest(name, known)
    const suggestion = hint?.(name) ?? (meant === undefined ? undefined : [...path, meant].join("."))
    refuseUnknown([...path, name].join("."), suggestion, known)
  }
}

/** The keys that stand at the top of the file, or in `meta`, and not in the connector's own section. */
const outside = new Set(["name", "topic"])
const inside = table.filter((row) => !outside.has(row.key))

const sinkType = "postgres-sink"
/** Where the settings stand: as in the original, by this connector's type, or as Fluvio's template for connectors has it. */
const sections = ["parameters", sinkType, "custom"]
const apiVersions = ["0.0.0", "0.1.0", "0.2.0"]

/** Of a setting that stands elsewhere than among the others. */
const jsonOf = (key: string): JsonSchema => {
  const { description, json } = table.find((row) => row.key === key)!
  return { description, ...json }
}

const closed = (properties: { readonly [key: string]: JsonSchema }, type: unknown = "object") => ({
  type,
  properties,
  additionalProperties: false as const
})
const orEmpty = ["object", "null"]
const { json: partition } = table.find(({ key }) => key === "partition")!

const consumerSchema = closed(
  {
    partition: { anyOf: [partition, { type: "array", items: partition, minItems: 1, maxItems: 1 }] },
    "max-bytes": jsonOf("consumer.max-bytes"),
    max_bytes: jsonOf("consumer.max-bytes"),
    offset: closed(
      {
        start: {
          description: "Of a first start; afterwards the position in the target holds",
          anyOf: [{ enum: ["beginning"] }, closed({ "from-beginning": { enum: [0, "0"] } })]
        },
        strategy: { description: "No position is kept in Fluvio", enum: ["none"] }
      },
      orEmpty
    )
  },
  orEmpty
)

/** What Fluvio is to make of a topic: for whoever creates it, and not for who reads it. */
const topicSections: { readonly [name: string]: ReadonlyArray<string> } = {
  partition: ["count", "max-size", "replication", "ignore-rack-assignment", "maps"],
  retention: ["time", "segment-size"],
  compression: ["type"]
}

const topicSchema = closed({
  version: {},
  meta: closed({ name: jsonOf("topic") }, orEmpty),
  ...Object.fromEntries(
    Object.entries(topicSections).map(([name, keys]) => [
      name,
      closed(Object.fromEntries(keys.map((key) => [key, {}])), orEmpty)
    ])
  )
})

const createTopicSchema = { description: "The connector creates no topic", enum: [false, "false"] }

/** What both forms say of the connector, each in its place. */
const metaSchema = {
  version: { description: "Of the connector; not looked at" },
  name: jsonOf("name"),
  type: { enum: [sinkType] },
  topic: { anyOf: [jsonOf("topic"), topicSchema] },
  create_topic: createTopicSchema,
  "create-topic": createTopicSchema,
  consumer: consumerSchema,
  secrets: {}
}

/** What stands at the top in both forms. */
const commonSchema = {
  transforms: { description: "None: they could drop or change a part of a transaction", enum: [null, "", []] },
  ...Object.fromEntries(sections.map((name) => [name, { ...schemaOf(inside), type: orEmpty }]))
}

const isSecret = { type: ["string", "number", "boolean"] }

const todaySchema = closed({
  apiVersion: { enum: apiVersions },
  meta: closed(
    {
      ...metaSchema,
      secrets: {
        description: "Names of environment variables that ${{ secrets.NAME }} stands for",
        anyOf: [
          { type: "array", items: { anyOf: [isSecret, closed({ name: isSecret })] } },
          { type: orEmpty, additionalProperties: isSecret }
        ]
      }
    },
    orEmpty
  ),
  ...commonSchema
})

const originalSchema = closed({
  ...metaSchema,
  secrets: {
    description: "Values that ${{ secrets.NAME }} stands for",
    type: orEmpty,
    additionalProperties: isSecret
  },
  ...commonSchema
})

const isTodays = { anyOf: [{ required: ["apiVersion"] }, { required: ["meta"] }] }

/**
 * What a file may hold, for editors. It knows the keys and the values' form; what only {@link parse} finds is a value out
 * of its range, a table that is named twice, and a secret that is not there.
 */
export const schema: JsonSchema = {
  $schema: "http://json-schema.org/draft-07/schema#",
  title: "Configuration of fluvio-postgres-sink",
  definitions: {
    secret: { type: "string", pattern: "\\$\\{\\{.*\\}\\}" },
    today: todaySchema,
    original: originalSchema
  },
  allOf: [
    { if: { not: isTodays }, else: { $ref: "#/definitions/today" } },
    { if: isTodays, else: { $ref: "#/definitions/original" } }
  ],
  not: {
    anyOf: sections.flatMap((name, index) => sections.slice(index + 1).map((other) => ({ required: [name, other] })))
  }
}

const checkType = (type: string | undefined, path: Path) => {
  if (type !== undefined && type !== sinkType) refuse([...path, "type"], `expected ${sinkType}`)
}

/** What Fluvio's connectors may say about reading; the parts that would change what is read are refused. */
const readConsumer = (section: Section, path: Path) => {
  const refuseHere = (names: Path, reason: string, remedy = `remove ${[...path, ...names].join(".")}`) =>
    refuse([...path, ...names], `is not supported: ${reason}`, remedy)
  if (at(section, "id") !== undefined) refuseHere(["id"], "the position is kept in the target, not in Fluvio")
  refuseUnknownKeys(section, Object.keys(consumerSchema.properties), path)
  const offset = sectionAt(section, "offset", path)
  for (const name of ["flush-period", "flush_period"]) {
    if (at(offset, name) !== undefined) refuseHere(["offset", name], "no position is kept in Fluvio")
  }
  refuseUnknownKeys(offset, ["start", "strategy"], [...path, "offset"])
  const strategy = at(offset, "strategy")
  if (strategy !== undefined && strategy !== "none") {
    refuseHere(
      ["offset", "strategy"],
      "the position is kept in the target, not in Fluvio",
      `write none, or remove ${[...path, "offset", "strategy"].join(".")}`
    )
  }
  const start = at(offset, "start")
  const isBeginning =
    start === "beginning" ||
    (isSection(start) && Object.keys(start).length === 1 && at(start, "from-beginning") === "0")
  if (start !== undefined && !isBeginning) {
    refuseHere(
      ["offset", "start"],
      "a first start begins at the topic's first record, and each later one at the position in the target",
      `write beginning, or remove ${[...path, "offset", "start"].join(".")}; \`position set\` has it begin elsewhere`
    )
  }
  const given = at(section, "partition")
  const partition = Array.isArray(given) && given.length === 1 ? (given[0] as Tree) : given
  if (partition !== undefined && (!Predicate.isString(partition) || partition === "all")) {
    refuse([...path, "partition"], "expected one partition: the order of transactions holds within one only")
  }
  const bytes = at(section, "max-bytes") === undefined ? "max_bytes" : "max-bytes"
  return { partition, maxBytes: textAt(section, bytes, path), maxBytesName: bytes }
}

const refuseTransforms = (file: Section) => {
  const transforms = at(file, "transforms")
  if (transforms === undefined || transforms === "" || (Array.isArray(transforms) && transforms.length === 0)) return
  refuse(
    ["transforms"],
    "are not supported: a SmartModule could drop or change a part of a transaction",
    "remove transforms"
  )
}

const topicOf = (meta: Section, path: Path): string | undefined => {
  const topic = at(meta, "topic")
  if (!isSection(topic)) return textAt(meta, "topic", path)
  const place = [...path, "topic"]
  if (at(topic, "deduplication") !== undefined) {
    refuse(
      [...place, "deduplication"],
      "is not supported: records that are dropped as repeated may be a part of a transaction",
      "read a topic without deduplication"
    )
  }
  refuseUnknownKeys(topic, Object.keys(topicSchema.properties), place)
  for (const [name, keys] of Object.entries(topicSections)) {
    refuseUnknownKeys(sectionAt(topic, name, place), keys, [...place, name])
  }
  const inner = sectionAt(topic, "meta", place)
  refuseUnknownKeys(inner, ["name"], [...place, "meta"])
  return textAt(inner, "name", [...place, "meta"])
}

const urlSecret = "FLUVIO_PG_DATABASE_URL"

/** A partition that the file's own topic does not have. */
const checkCount = (meta: Section, place: Path, partition: Tree | undefined) => {
  const topic = at(meta, "topic")
  if (!isSection(topic)) return
  const count = at(sectionAt(topic, "partition", [...place, "topic"]), "count")
  if (count === undefined) return
  const path = [...place, "topic", "partition", "count"]
  if (!Predicate.isString(count) || !/^[1-9]\d*$/.test(count)) refuse(path, "expected a whole number from 1 on")
  if (Predicate.isString(partition) && Number(partition) >= Number(count)) {
    refuse(path, "the topic has fewer partitions than the one to read needs", "correct it, or the partition to read")
  }
}

const checkCreation = (meta: Section, place: Path) => {
  for (const name of ["create_topic", "create-topic"]) {
    const value = at(meta, name)
    if (value === undefined || value === "false") continue
    refuse(
      [...place, name],
      "is not supported: the topic is the source's, and the connector only reads it",
      `create the topic with \`fluvio topic create\`, and remove ${[...place, name].join(".")}`
    )
  }
}

/** Fluvio's rule for the names of secrets. */
const checkSecretNames = (names: ReadonlyArray<string>, place: Path) => {
  if (names.every((name) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name))) return
  refuse([...place, "secrets"], "expected names of letters, digits and _, that do not begin with a digit")
}

/** The secrets that the file lists, whether it uses them or not. */
const listedIn = (file: Section): ReadonlyArray<string> => {
  const meta = at(file, "meta")
  const secrets = at(isSection(meta) ? meta : file, "secrets")
  const names = Array.isArray(secrets)
    ? secrets.map((secret: Tree) => (isSection(secret) ? at(secret, "name") : secret))
    : Object.keys(isSection(secrets) ? secrets : {})
  return names.filter(Predicate.isString)
}

/** From the file's form to the settings, and for each the name by which the file calls it. */
const settingsOf = (file: Section): ConfigSource => {
  const isToday = at(file, "apiVersion") !== undefined || at(file, "meta") !== undefined
  const known = Object.keys((isToday ? todaySchema : originalSchema).properties)
  refuseUnknownKeys(file, known, [], (name) => {
    const [first] = name.split(".")
    return inside.some((row) => row.path[0] === first) ? `parameters.${name}` : undefined
  })
  refuseTransforms(file)
  const version = textAt(file, "apiVersion", [])
  if (version !== undefined && !apiVersions.includes(version)) {
    refuse(["apiVersion"], "expected 0.1.0 or 0.2.0")
  }

  const meta = isToday ? sectionAt(file, "meta", []) : file
  const place: Path = isToday ? ["meta"] : []
  if (isToday) {
    if (at(meta, "producer") !== undefined)
      refuse(["meta", "producer"], "belongs to a source, and this is a sink", "remove meta.producer")
    refuseUnknownKeys(meta, Object.keys(metaSchema), place)
  }
  checkType(textAt(meta, "type", place), place)
  const consumer = readConsumer(sectionAt(meta, "consumer", place), [...place, "consumer"])

  checkCreation(meta, place)
  checkSecretNames(listedIn(file), place)

  const [own, second] = sections.filter((name) => at(file, name) !== undefined)
  if (second !== undefined) refuse([second], `is given beside ${own}: one of them is enough`, `move it below ${own}`)
  const parent = own ?? sections[0]
  const section = sectionAt(file, parent, [])
  readTree(section, { nameOf: (path) => [parent, ...path].join("."), rows: inside, takesCamelCase: false })

  checkCount(meta, place, consumer.partition ?? at(section, "partition"))
  const names = new Map<string, string>()
  const tree: { [key: string]: Tree } = { ...section }
  const put = (key: string, value: Tree | undefined, name: Path) => {
    names.set(key, name.join("."))
    if (value === undefined) return
    if (at(tree, key) !== undefined) refuse([parent, key], `is given as ${name.join(".")} too`)
    tree[key] = value
  }
  put("name", textAt(meta, "name", place), [...place, "name"])
  put("topic", topicOf(meta, place), [...place, "topic"])
  if (consumer.partition !== undefined) put("partition", consumer.partition, [...place, "consumer", "partition"])
  if (consumer.maxBytes !== undefined) {
    const inner = sectionAt(section, "consumer", [parent])
    const name = [...place, "consumer", consumer.maxBytesName]
    if (at(inner, "max-bytes") !== undefined)
      refuse([parent, "consumer", "max-bytes"], `is given as ${name.join(".")} too`)
    tree["consumer"] = { ...inner, "max-bytes": consumer.maxBytes }
    names.set("consumer.max-bytes", name.join("."))
  }
  // As in the original, where a parameter was a flag and a secret an environment variable: the flag weighed more.
  const secret = isToday ? undefined : textAt(sectionAt(file, "secrets", []), urlSecret, ["secrets"])
  if (at(tree, "url") === undefined && secret !== undefined) put("url", secret, ["secrets", urlSecret])
  return fromObject(tree, (path) => names.get(path.join(".")) ?? [parent, ...path].join("."))
}

/** The secrets that the file itself holds; today's form only lists their names. */
const secretsOf = (file: Section): Section => {
  const secrets = at(file, "secrets")
  return isSection(secrets) ? secrets : {}
}

/** Reads a file's text, which came from `file`; secrets that it does not hold come from `variables`. */
export const parse = (
  text: string,
  file: string,
  variables: Variables
): Effect.Effect<ConfigSource, ConnectorConfigError> =>
  Effect.suspend(() =>
    Effect.fromResult(
      refusing(() => {
        const raw = parseYaml(text, file)
        const own = secretsOf(raw)
        const used = new Map<string, string>()
        const secretOf = (name: string) => {
          const given = at(own, name)
          const secret =
            Predicate.isString(given) && given !== ""
              ? given
              : Object.hasOwn(variables, name)
                ? variables[name]
                : undefined
          used.set(name, secret ?? "")
          return secret
        }
        const source = settingsOf(interpolate(raw, [], secretOf) as Section)
        return {
          ...source,
          secrets: [...listedIn(raw), ...used.keys()],
          secretValues: [...used.values()].map((secret) => Redacted.make(secret))
        }
      })
    )
  )

/**
 * Reads the text of a file of secrets, which came from `file`: `NAME=value` in each line, without the blanks around both,
 * as Fluvio's connectors read it. They pass over what they do not understand; here only blank lines and comments are.
 */
export const parseSecrets = (text: string, file: string): Effect.Effect<Variables, ConnectorConfigError> =>
  Effect.suspend(() =>
    Effect.fromResult(
      refusing(() => {
        const secrets = new Map<string, string>()
        for (const [index, line] of text
          .replace(/^\uFEFF/, "")
          .split("\n")
          .entries()) {
          if (/^\s*(?:#|$)/.test(line)) continue
          const refuseLine = (reason: string) =>
            refuse([file], `${reason}, at line ${index + 1}`, `correct the file of secrets at line ${index + 1}`)
          const [, name, value] =
            /^\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)$/s.exec(line) ?? refuseLine("expected NAME=value")
          if (value.trim() === "") refuseLine("a secret has no value")
          if (secrets.has(name)) refuseLine("a secret is given twice")
          secrets.set(name, value.trim())
        }
        return Object.fromEntries(secrets)
      })
    )
  )

const readFile = Effect.fnUntraced(function* (path: string, flag: string, what: string) {
  if (isConnectionString(path)) {
    return yield* new ConnectorConfigError({
      key: flag,
      reason: "is the connection to a database, and not a file",
      remedy: `give the connection by FLUVIO_PG_DATABASE_URL, and by ${flag} the path of a file`
    })
  }
  const fs = yield* FileSystem.FileSystem
  return yield* fs.readFileString(path).pipe(
    Effect.mapError(
      () =>
        new ConnectorConfigError({
          key: path,
          reason: `the ${what} cannot be read`,
          remedy: "check that the file exists and that the connector's user may read it"
        })
    )
  )
})

/** Reads a configuration file; secrets that it does not hold come from the file `secrets`, or else from `variables`. */
export const load = Effect.fn("ConfigFile.load")(function* (path: string, variables: Variables, secrets?: string) {
  const text = yield* readFile(path, "--config", "configuration file")
  const given =
    secrets === undefined ? {} : yield* parseSecrets(yield* readFile(secrets, "--secrets", "file of secrets"), secrets)
  return yield* parse(text, path, { ...variables, ...given })
})
