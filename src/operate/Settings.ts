/** What a connector would run with, and who has said so. It asks nobody: neither Fluvio nor the target is needed. */
import { Console, Effect, Predicate, Redacted } from "effect"
import { Command } from "effect/cli"
import { type Origin, origins, parse } from "../ConnectorConfig.ts"
import type * as SettingFlags from "../SettingFlags.ts"
import * as Operation from "./Operation.ts"

/** The value without its secrets: the passwords of a URL, and whatever a file has taken from a secret. */
const shown = ({ secrets, setting, value }: Origin): unknown => {
  const withoutSecrets = (text: string) =>
    secrets.map(Redacted.value).reduce((rest, secret) => (secret === "" ? rest : rest.replaceAll(secret, "…")), text)
  const walk = (value: unknown): unknown => {
    if (Predicate.isString(value)) return withoutSecrets(setting.shown?.(value) ?? value)
    if (Array.isArray(value)) return value.map(walk)
    if (!Predicate.isObject(value)) return value
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, walk(inner)]))
  }
  return walk(value)
}

const asText = (value: unknown): string =>
  value === undefined ? "–" : Predicate.isString(value) ? value : JSON.stringify(value)

/** Columns as wide as what stands in them; the last one ends where it ends. */
const columns = (rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  rows
    .map((row) =>
      row
        .map((cell, n) =>
          n === row.length - 1 ? cell : cell.padEnd(Math.max(...rows.map((other) => other[n].length)))
        )
        .join("  ")
    )
    .join("\n")

export const config = <FileContext>(surroundings: SettingFlags.Surroundings<FileContext>) =>
  Operation.makeOnSettings(
    surroundings,
    "config",
    {
      short: "Print every setting, and what has set it",
      description:
        "Print every setting as it holds, and the flag, variable or key of the file that has set it. Secrets are left " +
        "out. Nothing is connected to.",
      takesAllSettings: true,
      examples: [
        { command: "config --config connector.yaml", description: "Of a file, with this environment" },
        { command: "config --config connector.yaml --json | jq '.[\"group.rows\"]'", description: "For a program" }
      ]
    },
    {},
    Effect.fnUntraced(function* (_, json, sources) {
      yield* parse(sources)
      const found = (yield* origins(sources)).map((origin) => ({
        key: origin.setting.key,
        value: shown(origin),
        from: origin.name ?? "default"
      }))
      yield* Operation.print(json, {
        json: Object.fromEntries(found.map(({ from, key, value }) => [key, { value: value ?? null, from }])),
        text: columns(found.map(({ from, key, value }) => [key, asText(value), from]))
      })
    })
  )

export const schema = <FileContext>({ configFileSchema }: SettingFlags.Surroundings<FileContext>) =>
  Command.make("schema", {}, () => Console.log(JSON.stringify(configFileSchema, undefined, 2))).pipe(
    Operation.described({
      short: "Print the JSON Schema of the configuration file",
      description:
        "Print the JSON Schema of the configuration file, by which an editor completes keys, explains them, and marks " +
        "what is none.",
      examples: [{ command: "schema > connector.schema.json", description: "For an editor" }]
    })
  )
