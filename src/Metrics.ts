/**
 * The metrics of a connector, made of what its {@link Telemetry} knows: once a second, except the two histograms, which
 * see each group. They go into effect's registry, from where `/metrics` and OTLP take them.
 */
import { type Context, Metric } from "effect"
import type { Applied } from "./Applied.ts"
import { type Instance, states } from "./operate/Instance.ts"

type Kind = "counter" | "gauge" | "histogram"

/** A metric as the documentation lists it. The unit is the last word of its name, but for `_total`. */
export interface About {
  readonly kind: Kind
  readonly help: string
  /** Its own labels, besides `name`, `topic` and `partition`. */
  readonly labels: ReadonlyArray<string>
}

const gauge = (help: string, ...labels: ReadonlyArray<string>) => ({ kind: "gauge", help, labels }) satisfies About
const counter = (help: string, ...labels: ReadonlyArray<string>) => ({ kind: "counter", help, labels }) satisfies About
const histogram = (help: string, ...labels: ReadonlyArray<string>) =>
  ({ kind: "histogram", help, labels }) satisfies About

/** Every metric, by its name behind the prefix; documented from here. */
export const metrics = {
  state: gauge("1 for the state the connector is in, 0 for the others", "state"),
  lag_records: gauge("Records of the topic behind the position"),
  lag_seconds: gauge("Age of the last applied record while there are others behind it, else 0"),
  lag_bytes: gauge("Bytes behind the position, from the mean size of the records applied"),
  position_offset: gauge("Offset of the last applied record"),
  log_start_offset: gauge("Offset of the first record that the topic holds"),
  log_end_offset: gauge("One past the last record that the topic holds"),
  head_room_records: gauge("Records before the position that retention has left"),
  head_room_seconds: gauge(
    "How much older the topic's first record is than the last applied one, once retention removed any"
  ),
  records_total: counter("Records applied"),
  bytes_total: counter("Bytes of the records applied"),
  transactions_total: counter("Source transactions applied"),
  groups_total: counter("Target transactions committed"),
  statements_total: counter("Statements run for changes"),
  changes_total: counter("Changes of the source applied", "table", "kind"),
  schema_changes_total: counter("Statements run for changes of the source's schema"),
  duplicates_total: counter("Transactions that the source sent again, and that were skipped"),
  replays_total: counter("Groups and parts that were replayed change by change"),
  conflicts_total: counter("Rows passed over: missing_row, existing_row, suppressed_row", "kind"),
  quarantined_total: counter("Transactions set aside"),
  quarantine_held: gauge("Transactions that are set aside and not resolved"),
  retries_total: counter("Attempts that failed and were followed by another one", "error"),
  stage_seconds_total: counter("Time spent in each stage; decode and plan overlap the others", "stage"),
  commit_latency_seconds: histogram(
    "From a record's arrival in the topic to its commit here: the last record of each group"
  ),
  group_seconds: histogram("Duration of a committed group's statements and commit"),
  memory_bytes: gauge("Resident memory of the process")
} satisfies { readonly [name: string]: About }

export type Name = keyof typeof metrics

export const prefix = "fluvio_postgres_sink_"

/** From a local target's to a night's. */
const boundaries = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600]

type Labels = { readonly [label: string]: string }

/** The metrics of one connector; `context` holds the registry. */
export class Metrics {
  readonly #context: Context.Context<never>
  readonly #place: Labels
  readonly #made = new Map<string, Metric.Metric<number, unknown>>()
  /** What the counters have been told: they are told what has come since. */
  readonly #counted = new Map<string, number>()

  constructor(
    context: Context.Context<never>,
    place: { readonly name: string; readonly topic: string; readonly partition: number }
  ) {
    this.#context = context
    this.#place = { name: place.name, topic: place.topic, partition: String(place.partition) }
  }

  #metric(name: Name, labels: Labels): Metric.Metric<number, unknown> {
    const key = `${name} ${Object.values(labels).join(" ")}`
    const known = this.#made.get(key)
    if (known !== undefined) return known
    const { help: description, kind } = metrics[name]
    const options = { description, attributes: { ...this.#place, ...labels } }
    const id = `${prefix}${name}`
    const made: Metric.Metric<number, unknown> =
      kind === "counter"
        ? Metric.counter(id, { ...options, incremental: true })
        : kind === "gauge"
          ? Metric.gauge(id, options)
          : Metric.histogram(id, { ...options, boundaries })
    this.#made.set(key, made)
    return made
  }

  /** A gauge that nothing is known of is left as it was, and is absent as long as nothing ever was. */
  #set(name: Name, value: number | null | undefined, labels: Labels = {}): void {
    if (value !== null && value !== undefined) this.#metric(name, labels).updateUnsafe(value, this.#context)
  }

  #count(name: Name, total: number, labels: Labels = {}): void {
    const key = `${name} ${Object.values(labels).join(" ")}`
    const before = this.#counted.get(key) ?? 0
    this.#counted.set(key, total)
    this.#metric(name, labels).updateUnsafe(total - before, this.#context)
  }

  applied({ appendedAt, millis }: Applied, now: number): void {
    this.#set("group_seconds", (millis.execute + millis.commit) / 1000)
    if (appendedAt !== undefined) this.#set("commit_latency_seconds", Math.max(0, now - appendedAt) / 1000)
  }

  update(instance: Instance): void {
    const { lag, log, position, stages, tables, totals } = instance
    for (const state of states) this.#set("state", state === instance.state ? 1 : 0, { state })
    this.#set("lag_records", lag?.records)
    this.#set("lag_seconds", lag?.seconds)
    this.#set("lag_bytes", lag?.bytes)
    this.#set("position_offset", position?.offset)
    this.#set("log_start_offset", log?.start)
    this.#set("log_end_offset", log?.end)
    this.#set("head_room_records", log?.headRoomRecords)
    this.#set("head_room_seconds", log?.headRoomSeconds)
    this.#set("quarantine_held", instance.quarantineHeld)
    this.#set("memory_bytes", instance.memoryBytes)
    this.#count("records_total", totals.records)
    this.#count("bytes_total", totals.bytes)
    this.#count("transactions_total", totals.transactions)
    this.#count("groups_total", totals.groups)
    this.#count("statements_total", totals.statements)
    this.#count("schema_changes_total", totals.schemaChanges)
    this.#count("duplicates_total", totals.duplicates)
    this.#count("replays_total", totals.replays)
    this.#count("conflicts_total", totals.missingRows, { kind: "missing_row" })
    this.#count("conflicts_total", totals.existingRows, { kind: "existing_row" })
    this.#count("conflicts_total", totals.suppressedRows, { kind: "suppressed_row" })
    this.#count("quarantined_total", totals.quarantined)
    for (const { count, error } of instance.retries) this.#count("retries_total", count, { error })
    for (const [stage, seconds] of Object.entries(stages)) this.#count("stage_seconds_total", seconds, { stage })
    for (const { table, ...counts } of tables) {
      for (const kind of ["insert", "update", "delete", "truncate"] as const) {
        this.#count("changes_total", counts[kind], { table, kind })
      }
    }
  }
}
