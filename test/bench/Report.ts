/** What was measured, as a table for people, one JSON object for programs, and a picture. */
import * as echarts from "echarts"
import { cpus, totalmem } from "node:os"
import type { Comparison, Result } from "./Drain.ts"
import type { Latency } from "./Latency.ts"
import type { Memory, StartUp } from "./Memory.ts"

export interface Report {
  readonly isQuick: boolean
  readonly postgres: string
  readonly comparisons: ReadonlyArray<Comparison>
  readonly latencies: ReadonlyArray<Latency>
  readonly memories: ReadonlyArray<Memory>
  readonly start: { readonly long: StartUp; readonly short: StartUp } | undefined
  readonly seconds: number
}

const rounded = (value: number, digits = 2): number => Number(value.toFixed(digits))
const whole = (value: number): string => Math.round(value).toLocaleString("en")
const mebibytes = (bytes: number): number => Math.round(bytes / 2 ** 20)

const machine = ({ postgres }: Report) => ({
  cpu: cpus()[0]?.model ?? "unknown",
  cores: cpus().length,
  memory_gib: Math.round(totalmem() / 2 ** 30),
  node: process.versions.node,
  postgres
})

const ratio = (a: Result, b: Result) => rounded(a.rate / b.rate)

const peakRss = ({ comparisons, memories }: Report): number =>
  Math.max(...comparisons.map(({ maxRss }) => maxRss), ...memories.map(({ maxRss }) => maxRss))

const rows = (table: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = table[0].map((_, i) => Math.max(...table.map((row) => row[i].length)))
  return table
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

/** The table; figures that were not asked for are left out. */
export const table = (report: Report): string => {
  const { cores, cpu, memory_gib, node } = machine(report)
  const { comparisons, latencies, memories, start } = report
  const parts = [`${cpu}, ${cores} cores, ${memory_gib} GiB; Node ${node}, ${report.postgres}; fsync on`]
  if (comparisons.length > 0) {
    parts.push(
      rows([
        ["changes/s, median", "connector", "native", "ratio", "per event", "ratio", "COPY", "with start-up"],
        ...comparisons.map(({ backlog, connector, copy, native, perEvent }) => [
          backlog.workload.title,
          whole(connector.rate),
          whole(native.rate),
          `${ratio(connector, native)}×`,
          whole(perEvent.rate),
          `${rounded(connector.rate / perEvent.rate, 0)}×`,
          copy === undefined ? "" : whole(copy.rate),
          whole(connector.rateWithStart)
        ])
      ]),
      rows([
        ["where the connector's time goes, s", "total", "fetch", "decode", "plan", "execute", "commit", "processor"],
        ...comparisons.map(({ backlog, shares }) => [
          backlog.workload.name,
          ...(["total", "fetch", "decode", "plan", "execute", "commit", "cpu"] as const).map((share) =>
            shares[share].toFixed(2)
          )
        ])
      ]),
      rows([
        ["processor time in PostgreSQL, s", "connector", "native", "bound of the ratio"],
        ...comparisons.map(({ backlog, targetTime }) => [
          backlog.workload.name,
          targetTime.connector.toFixed(2),
          targetTime.native.toFixed(2),
          `${rounded(targetTime.bound)}×`
        ])
      ])
    )
  }
  if (latencies.length > 0) {
    parts.push(
      rows([
        ["append to visible, ms", "p50", "p99", "max"],
        ...latencies.map(({ maxMillis, p50Millis, p99Millis, rate }) => [
          `${whole(rate)} changes/s`,
          ...[p50Millis, p99Millis, maxMillis].map((millis) => millis.toFixed(1))
        ])
      ])
    )
  }
  if (memories.length > 0) {
    parts.push(
      rows([
        ["peak memory", "rows", "s", "MiB"],
        ...memories.map(({ maxRss, rows, seconds, what }) => [
          what,
          whole(rows),
          seconds.toFixed(1),
          String(mebibytes(maxRss))
        ])
      ])
    )
  }
  if (start !== undefined) {
    parts.push(
      rows([
        ["process start to first commit", "s"],
        ...[start.short, start.long].map(({ records, seconds }) => [
          `at the end of ${whole(records)} records`,
          seconds.toFixed(2)
        ])
      ])
    )
  }
  return parts.join("\n\n")
}

const figures = ({ drains, rate, rateWithStart }: Result) => ({
  rate: Math.round(rate),
  rate_with_start: Math.round(rateWithStart),
  seconds: drains.map(({ seconds }) => rounded(seconds, 3))
})

/** Ratios under the names that docs/benchmarks.md explains, `null` where they were not asked for, and the figures behind them. */
export const json = (report: Report) => {
  const { comparisons, latencies, memories, start } = report
  const of = (name: string) => comparisons.find(({ backlog }) => backlog.workload.name === name)
  const versusNative = (name: string) => {
    const found = of(name)
    return found === undefined ? null : ratio(found.connector, found.native)
  }
  const insert = of("insert")
  const [latency] = latencies
  const isMeasured = comparisons.length > 0 || memories.length > 0
  return {
    tpcb_vs_native: versusNative("tpcb"),
    insert_vs_native: versusNative("insert"),
    update_delete_vs_native: versusNative("update_delete"),
    vs_per_event:
      comparisons.length === 0
        ? null
        : Math.min(...comparisons.map(({ connector, perEvent }) => ratio(connector, perEvent))),
    copy_fraction: insert?.copy === undefined ? null : ratio(insert.connector, insert.copy),
    latency_p50_ms: latency === undefined ? null : rounded(latency.p50Millis),
    latency_p99_ms: latency === undefined ? null : rounded(latency.p99Millis),
    peak_rss_mb: isMeasured ? mebibytes(peakRss(report)) : null,
    start_ratio: start === undefined ? null : rounded(start.long.seconds / start.short.seconds),
    quick: report.isQuick,
    seconds: rounded(report.seconds, 0),
    machine: machine(report),
    workloads: Object.fromEntries(
      comparisons.map(({ backlog, connector, copy, maxRss, native, perEvent, shares, targetTime }) => [
        backlog.workload.name,
        {
          changes: backlog.workload.changes,
          records: backlog.records,
          connector: figures(connector),
          native: figures(native),
          per_event: { ...figures(perEvent), changes: perEvent.drains[0].changes },
          copy: copy === undefined ? null : figures(copy),
          shares_s: Object.fromEntries(Object.entries(shares).map(([share, seconds]) => [share, rounded(seconds, 3)])),
          target_s: { connector: rounded(targetTime.connector), native: rounded(targetTime.native) },
          bound: rounded(targetTime.bound),
          rss_mb: mebibytes(maxRss)
        }
      ])
    ),
    latency: latencies.map(({ maxMillis, p50Millis, p99Millis, rate }) => ({
      rate,
      p50_ms: rounded(p50Millis),
      p99_ms: rounded(p99Millis),
      max_ms: rounded(maxMillis)
    })),
    memory: memories.map(({ maxRss, rows, seconds, what }) => ({
      what,
      rows,
      seconds: rounded(seconds),
      rss_mb: mebibytes(maxRss)
    })),
    start: start === undefined ? null : { long: start.long, short: start.short }
  }
}

/** The rates of all drains as bars. */
export const picture = (report: Report): string => {
  const { comparisons } = report
  const chart = echarts.init(null, null, { renderer: "svg", ssr: true, width: 960, height: 480 })
  const bars = (name: string, color: string, of: (comparison: Comparison) => Result | undefined) => ({
    name,
    type: "bar" as const,
    itemStyle: { color },
    label: {
      show: true,
      position: "top" as const,
      formatter: ({ value }: { readonly value?: unknown }) => whole(Number(value))
    },
    data: comparisons.map((comparison) => {
      const result = of(comparison)
      return result === undefined ? "-" : Math.round(result.rate)
    })
  })
  const { cores, cpu, postgres } = machine(report)
  chart.setOption({
    animation: false,
    backgroundColor: "#fff",
    title: {
      text: "Draining a backlog, changes a second",
      subtext: `${cpu}, ${cores} cores, ${postgres}, fsync on`,
      left: 16
    },
    legend: { right: 16, top: 12 },
    grid: { left: 72, right: 16, top: 80, bottom: 40 },
    xAxis: {
      type: "category",
      data: comparisons.map(({ backlog }) => backlog.workload.title),
      axisLabel: { width: 280, overflow: "break" }
    },
    yAxis: { type: "value" },
    series: [
      bars("this connector", "#2f6fde", ({ connector }) => connector),
      bars("native logical replication", "#8a94a6", ({ native }) => native),
      bars("one commit per event", "#d9a441", ({ perEvent }) => perEvent),
      bars("COPY", "#c9d1dc", ({ copy }) => copy)
    ]
  })
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg
}
