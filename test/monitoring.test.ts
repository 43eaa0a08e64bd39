import { assert, describe, it } from "vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { parse } from "yaml"
import { metrics, prefix } from "../src/Metrics.ts"

const root = join(import.meta.dirname, "..")
const text = (file: string) => readFileSync(join(root, file), "utf8")

/** As Prometheus has them: a histogram is several series. */
const series = Object.entries(metrics).flatMap(([name, { kind }]) =>
  kind === "histogram" ? ["_bucket", "_count", "_sum"].map((part) => `${prefix}${name}${part}`) : [`${prefix}${name}`]
)

const used = (file: string) => [...new Set(text(file).match(new RegExp(`${prefix}\\w+`, "g")))]

describe("what Prometheus and Grafana are given", () => {
  it("uses only metrics that there are", () => {
    for (const file of ["monitoring/alerts.yml", "monitoring/grafana-dashboard.json"]) {
      const names = used(file)
      assert.isAbove(names.length, 3)
      assert.deepStrictEqual(
        names.filter((name) => !series.includes(name)),
        [],
        file
      )
    }
  })

  it("is YAML and JSON", () => {
    assert.isAbove(parse(text("monitoring/alerts.yml")).groups[0].rules.length, 3)
    assert.strictEqual(JSON.parse(text("monitoring/grafana-dashboard.json")).title, "fluvio-postgres-sink")
  })

  it("documents every metric, in the order of their definition", () => {
    const listed = text("docs/metrics.md")
      .split("\n")
      .map((line) => /^\| `(\w+)` +\| (\w+) +\| (.*?) +\| (.*?) +\|$/.exec(line))
      .filter((match) => match !== null)
      .map(([, name, kind, labels, help]) => ({ name, kind, labels, help }))
    assert.deepStrictEqual(
      listed,
      Object.entries(metrics).map(([name, { help, kind, labels }]) => ({
        name: `${prefix}${name}`,
        kind,
        labels: labels.length === 0 ? "–" : labels.map((label) => `\`${label}\``).join(", "),
        help
      }))
    )
  })
})
