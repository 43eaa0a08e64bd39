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
 * `${{ secrets.NAME }}` stands for an entry of the file's own `secrets`, or else for the environment variable `NAME`.
 * Nothing in the file is ignored: what has no effect here is refused. Messages name keys and never show values.
 */
import { Effect, FileSystem, Predicate } from "effect"
import { type Alias, isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from "yaml"
import { type ConfigSource, ConnectorConfigError, fromObject, nearest } from "../src/ConnectorConfig.ts"
import { type Path, type SettingInfo, shorthands, table } from "../src/Settings.ts"

/** A scalar is the text that stands in the file, so that no number is rounded and no `null` is lost. */
type Tree = string | ReadonlyArray<Tree> | { readonly [key: string]: Tree }
type Section = { readonly [key: string]: Tree }
type Variables = { readonly [name: string]: string | undefined }

/** More than any honest file has, and far less than aliases of aliases can unfold to. */
const maximumNodes = 10_000
const maximumDepth = 100

/** Thrown inside this module only, where plain functions walk trees; `read` makes it a failure. */
const refuse = (path: Path, reason: string, remedy = `correct ${path.join(".")}`): never => {
  throw new ConnectorConfigError({ key: path.join("."), reason, remedy })
}

const isSection = (tree: Tree | undefined): tree is Section => Predicate.isObject(tree) && !Array.isArray(tree)

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
    const remedy = `set the environment variable ${name}`
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

const refuseUnknown = (
  section: Section,
  known: ReadonlyArray<string>,
  path: Path,
  hint?: (name: string) => string | undefined
) => {
  for (const name of Object.keys(section)) {
    if (known.includes(name)) continue
    const meant = nearest(name, known)
    const suggestion = hint?.(name) ?? (meant === undefined ? undefined : [...path, meant].join("."))
    refuse(
      [...path, name],
      suggestion === undefined ? "is not a known key" : `is not a known key; did you mean ${suggestion}?`,
      suggestion === undefined ? `remove it; known here: ${known.join(", ")}` : `write ${suggestion}, or remove it`
    )
  }
}

const isPrefix = (prefix: ReadonlyArray<string>, path: ReadonlyArray<string>) =>
  prefix.length <= path.length && prefix.every((name, index) => name === path[index])

/** The keys that stand at the top of the file, or in `meta`, and not in the connector's own section. */
const outside = new Set(["name", "topic"])
const inside = table.filter((row) => !outside.has(row.key))

const checkMap = (tree: Tree, row: SettingInfo, keys: ReadonlyArray<string>, path: Path): void => {
  const fitting = (row.entries ?? []).filter((entry) => keys.every((key, i) => entry[i] === "*" || entry[i] === key))
  if (fitting.some((entry) => entry.length === keys.length))
    return checkValue(tree, path, `expected ${row.expects}`, true)
  if (!isSection(tree)) return void refuse(path, `expected ${row.expects}`)
  const names = fitting.map((entry) => entry[keys.length])
  if (!names.includes("*")) refuseUnknown(tree, [...new Set(names)], path)
  for (const [name, child] of Object.entries(tree)) checkMap(child, row, [...keys, name], [...path, name])
}

const checkValue = (tree: Tree, path: Path, reason: string, mayBeList: boolean): void => {
  const texts = mayBeList && Array.isArray(tree) ? tree : [tree]
  if (texts.includes("")) refuse(path, "has no value", `give ${path.join(".")} a value, or remove it`)
  if (!texts.every(Predicate.isString)) refuse(path, reason)
}

/** Every key must be a setting's, and every value of the setting's shape: the provider takes other shapes for absent. */
const checkSettings = (section: Section, keys: ReadonlyArray<string>, path: Path): void => {
  const below = inside.filter((row) => isPrefix(keys, row.path))
  const known = [...new Set(below.map((row) => row.path[keys.length]))]
  refuseUnknown(section, known, path, (name) => {
    const elsewhere = nearest(name, known) === undefined ? inside.find((row) => row.path.at(-1) === name) : undefined
    return elsewhere === undefined ? undefined : [...path.slice(0, 1), ...elsewhere.path].join(".")
  })
  for (const [name, tree] of Object.entries(section)) {
    const [here, place] = [
      [...keys, name],
      [...path, name]
    ]
    const row = below.find((candidate) => candidate.path.join() === here.join())
    if (row !== undefined) {
      if (row.entries !== undefined && !Predicate.isString(tree)) checkMap(tree, row, [], place)
      else checkValue(tree, place, `expected ${row.expects}`, row.isList)
    } else if (isSection(tree)) {
      checkSettings(tree, here, place)
    } else if (tree === "" || !Predicate.isString(tree) || !shorthands.some(({ key }) => key === here.join("."))) {
      const names = below.filter((row) => isPrefix(here, row.path)).map((row) => row.path.slice(here.length).join("."))
      refuse(place, `expected keys below it: ${names.join(", ")}`)
    }
  }
}

const sinkType = "postgres-sink"

const checkType = (type: string | undefined, path: Path) => {
  if (type !== undefined && type !== sinkType) refuse([...path, "type"], `expected ${sinkType}`)
}

/** What Fluvio's connectors may say about reading; the parts that would change what is read are refused. */
const readConsumer = (section: Section, path: Path) => {
  for (const [name, reason] of [
    ["id", "the position is kept in the target, not in Fluvio"],
    ["offset", "the position is kept in the target, and a first start begins at the topic's first record"]
  ]) {
    if (at(section, name) !== undefined)
      refuse([...path, name], `is not supported: ${reason}`, `remove ${[...path, name].join(".")}`)
  }
  refuseUnknown(section, ["partition", "max-bytes", "max_bytes"], path)
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
  refuseUnknown(topic, ["version", "meta"], place)
  const inner = sectionAt(topic, "meta", place)
  refuseUnknown(inner, ["name"], [...place, "meta"])
  return textAt(inner, "name", [...place, "meta"])
}

const sections = ["parameters", sinkType]
const urlSecret = "FLUVIO_PG_DATABASE_URL"

/** From the file's form to the settings, and for each the name by which the file calls it. */
const settingsOf = (file: Section): ConfigSource => {
  const isToday = at(file, "apiVersion") !== undefined || at(file, "meta") !== undefined
  const common = ["transforms", ...sections]
  const known = isToday
    ? ["apiVersion", "meta", ...common]
    : ["version", "name", "type", "topic", "consumer", "secrets", ...common]
  refuseUnknown(file, known, [], (name) => {
    const [first] = name.split(".")
    return inside.some((row) => row.path[0] === first) ? `parameters.${name}` : undefined
  })
  refuseTransforms(file)
  const version = textAt(file, "apiVersion", [])
  if (version !== undefined && !["0.0.0", "0.1.0", "0.2.0"].includes(version)) {
    refuse(["apiVersion"], "expected 0.1.0 or 0.2.0")
  }

  const meta = isToday ? sectionAt(file, "meta", []) : file
  const place: Path = isToday ? ["meta"] : []
  if (isToday) {
    if (at(meta, "producer") !== undefined) refuse(["meta", "producer"], "belongs to a source", "remove meta.producer")
    refuseUnknown(meta, ["version", "name", "type", "topic", "consumer", "secrets"], place)
  }
  checkType(textAt(meta, "type", place), place)
  const consumer = readConsumer(sectionAt(meta, "consumer", place), [...place, "consumer"])

  const [own, second] = sections.filter((name) => at(file, name) !== undefined)
  if (second !== undefined) refuse([second], `is given beside ${own}: one of them is enough`, `move it below ${own}`)
  const parent = own ?? sections[0]
  const section = sectionAt(file, parent, [])
  checkSettings(section, [], [parent])

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
  Effect.try({
    try: () => {
      const raw = parseYaml(text, file)
      const secrets = secretsOf(raw)
      const secretOf = (name: string) => {
        const own = at(secrets, name)
        return Predicate.isString(own) && own !== "" ? own : variables[name]
      }
      return settingsOf(interpolate(raw, [], secretOf) as Section)
    },
    catch: (error) => error
  }).pipe(Effect.catch((error) => (error instanceof ConnectorConfigError ? Effect.fail(error) : Effect.die(error))))

/** Reads a configuration file; secrets that it does not hold come from `variables`. */
export const load = Effect.fn("ConfigFile.load")(function* (path: string, variables: Variables) {
  const fs = yield* FileSystem.FileSystem
  const text = yield* fs.readFileString(path).pipe(
    Effect.mapError(
      () =>
        new ConnectorConfigError({
          key: path,
          reason: "the configuration file cannot be read",
          remedy: "check that the file exists and that the connector's user may read it"
        })
    )
  )
  return yield* parse(text, path, variables)
})
