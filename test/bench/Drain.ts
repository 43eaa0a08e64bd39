/** Drains the same backlog in turns by all who can, on equal copies of the tables, and compares what they made of it. */
import { Console, Effect, Redacted } from "effect"
import { randomUUID } from "node:crypto"
import { rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { quote } from "../../src/target/Identifier.ts"
import { connect, type TestDatabase } from "../postgres.ts"
import { type Backlog, marker, publication } from "./Backlog.ts"
import * as Connector from "./Connector.ts"
import {
  appliers,
  assertContent,
  createDatabase,
  firstRow,
  type Lab,
  median,
  now,
  processorSeconds,
  secondsBetween
} from "./Lab.ts"
import * as PerEvent from "./PerEvent.ts"

/** One drain. */
interface Drain {
  readonly changes: number
  readonly seconds: number
  /** From the start of the process on, where there is one. */
  readonly secondsWithStart: number
}

export interface Result {
  readonly drains: ReadonlyArray<Drain>
  /** Changes a second, the median. */
  readonly rate: number
  readonly rateWithStart: number
}

/** What of a drain is PostgreSQL's part: medians. */
export interface TargetTime {
  /** Processor time of the connector's sessions in the target, in seconds. */
  readonly connector: number
  /** Processor time of the apply worker, in seconds. */
  readonly native: number
  /** How many times as fast as native replication a connector would be that took no time itself. */
  readonly bound: number
}

/** Where the connector's time goes, in seconds; fetching and decoding overlap the rest. */
export interface Shares {
  /** Reading the topic and doing nothing with it, measured alone. */
  readonly fetch: number
  /** Decoding and putting transactions together, measured alone. */
  readonly decode: number
  readonly plan: number
  readonly execute: number
  readonly commit: number
  /** From the first to the last moment of the drain. */
  readonly total: number
  /** Processor time of the process; above `total` where it used more than one core. */
  readonly cpu: number
}

export interface Comparison {
  readonly backlog: Backlog
  readonly connector: Result
  readonly native: Result
  readonly perEvent: Result
  readonly copy: Result | undefined
  readonly shares: Shares
  readonly targetTime: TargetTime
  readonly maxRss: number
}

const isMarked = `SELECT FROM ${marker}`

const resultOf = (drains: ReadonlyArray<Drain>): Result => ({
  drains,
  rate: median(drains.map(({ changes, seconds }) => changes / seconds)),
  rateWithStart: median(drains.map(({ changes, secondsWithStart }) => changes / secondsWithStart))
})

/** By this connector: from the moment its process begins to work until the marker is visible. */
const byConnector = Effect.fn("Drain.byConnector")(function* (
  lab: Lab,
  { records, topic, workload }: Backlog,
  copy: TestDatabase
) {
  const connector = yield* Connector.start({
    topic,
    endpoint: lab.broker.endpoint,
    url: copy.url,
    until: records - 1,
    stage: "apply"
  })
  const done = yield* Effect.raceFirst(firstRow(copy, isMarked), Effect.andThen(connector.report, Effect.never))
  const begun = yield* connector.begun
  const report = yield* connector.report
  const { changes } = workload
  const drain = {
    changes,
    seconds: secondsBetween(begun, done),
    secondsWithStart: secondsBetween(connector.spawned, done)
  }
  return { drain, report }
})

/** By PostgreSQL's apply worker: from the moment the subscription is enabled until the marker is visible. */
const byNative = Effect.fn("Drain.byNative")(function* (backlog: Backlog, slot: string, copy: TestDatabase) {
  const source = Redacted.value(backlog.source.url).replaceAll("'", "''")
  yield* Effect.acquireRelease(
    copy.query(
      `CREATE SUBSCRIPTION bench CONNECTION '${source}' PUBLICATION ${publication}
       WITH (create_slot = false, slot_name = '${slot}', copy_data = false, enabled = false)`
    ),
    () =>
      Effect.gen(function* () {
        yield* copy.query("ALTER SUBSCRIPTION bench DISABLE")
        yield* copy.query("ALTER SUBSCRIPTION bench SET (slot_name = NONE)")
        yield* copy.query("DROP SUBSCRIPTION bench")
      }).pipe(Effect.orDie)
  )
  const started = now()
  yield* copy.query("ALTER SUBSCRIPTION bench ENABLE")
  const seconds = secondsBetween(started, yield* firstRow(copy, isMarked))
  const targetSeconds = yield* processorSeconds(yield* copy.query(appliers))
  const drain: Drain = { changes: backlog.workload.changes, seconds, secondsWithStart: seconds }
  return { drain, targetSeconds }
})

/** By COPY from a file that the server reads itself: less work than any client can make it. */
const byCopy = Effect.fn("Drain.byCopy")(function* (backlog: Backlog, copy: TestDatabase) {
  let seconds = 0
  for (const table of backlog.workload.tables) {
    const path = join(tmpdir(), `fluvio-postgres-sink-${randomUUID()}.copy`)
    yield* Effect.acquireUseRelease(
      backlog.source.query(`COPY ${quote(table)} TO '${path}'`),
      () =>
        Effect.gen(function* () {
          const started = now()
          yield* copy.query(`COPY ${quote(table)} FROM '${path}'`)
          seconds += secondsBetween(started, now())
        }),
      () => Effect.promise(() => rm(path, { force: true }))
    )
  }
  return { changes: backlog.workload.changes, seconds, secondsWithStart: seconds } satisfies Drain
})

/** Seconds to read the whole topic, stopping short at a stage. */
const timeTo = (lab: Lab, { records, topic }: Backlog, url: TestDatabase["url"], stage: "fetch" | "decode") =>
  Effect.scoped(
    Effect.gen(function* () {
      const connector = yield* Connector.start({ topic, endpoint: lab.broker.endpoint, url, until: records - 1, stage })
      const { begun, ended } = yield* connector.report
      return secondsBetween(begun, ended)
    })
  )

export const compare = Effect.fn("Drain.compare")(function* (lab: Lab, backlog: Backlog, withCopy: boolean) {
  const { source, template, workload } = backlog
  const { name, tables } = workload
  /** A round of one contestant on a fresh copy, with both servers at rest. */
  const onCopy = <A, E, R>(what: string, isWhole: boolean, drain: (copy: TestDatabase) => Effect.Effect<A, E, R>) =>
    Effect.scoped(
      Effect.gen(function* () {
        const copy = yield* connect("drain", yield* createDatabase(lab.target, "drain", template))
        yield* copy.query("VACUUM (FREEZE, ANALYZE)")
        yield* copy.query("CHECKPOINT")
        yield* source.query("CHECKPOINT")
        const result = yield* Effect.scoped(drain(copy))
        if (isWhole) yield* assertContent(`${name} ${what}`, copy, tables, backlog.content)
        return result
      })
    )
  const connector: Array<Drain> = []
  const native: Array<Drain> = []
  const perEvent: Array<Drain> = []
  const copied: Array<Drain> = []
  const reports: Array<Connector.ConnectorReport> = []
  const nativeTargetSeconds: Array<number> = []
  for (const slot of backlog.slots) {
    const { drain, report } = yield* onCopy("by the connector", true, (copy) => byConnector(lab, backlog, copy))
    connector.push(drain)
    reports.push(report)
    const byWorker = yield* onCopy("by native replication", true, (copy) => byNative(backlog, slot, copy))
    native.push(byWorker.drain)
    nativeTargetSeconds.push(byWorker.targetSeconds)
    const sampled = yield* onCopy("per event", false, (copy) => PerEvent.drain(copy.url, backlog.sample))
    perEvent.push({ ...sampled, secondsWithStart: sampled.seconds })
    if (withCopy) copied.push(yield* onCopy("by COPY", true, (copy) => byCopy(backlog, copy)))
    const rates = [connector, native, perEvent, ...(withCopy ? [copied] : [])].map((drains) => {
      const { changes, seconds } = drains[drains.length - 1]
      return Math.round(changes / seconds)
    })
    yield* Console.error(
      `${name}: ${rates.join(" / ")} changes/s by connector / native / per event${withCopy ? " / COPY" : ""}`
    )
  }
  const fetch = yield* timeTo(lab, backlog, source.url, "fetch")
  const decode = yield* timeTo(lab, backlog, source.url, "decode")
  const middle =
    reports[connector.findIndex(({ seconds }) => seconds === median(connector.map((drain) => drain.seconds)))]
  const sum = (of: "plan" | "execute" | "commit") => middle.commits.reduce((all, commit) => all + commit[of], 0) / 1000
  const shares: Shares = {
    fetch,
    decode: Math.max(0, decode - fetch),
    plan: sum("plan"),
    execute: sum("execute"),
    commit: sum("commit"),
    total: secondsBetween(middle.begun, middle.ended),
    cpu: middle.cpuSeconds
  }
  const targetSeconds = median(reports.map((report) => report.targetSeconds))
  return {
    backlog,
    connector: resultOf(connector),
    native: resultOf(native),
    perEvent: resultOf(perEvent),
    copy: withCopy ? resultOf(copied) : undefined,
    shares,
    targetTime: {
      connector: targetSeconds,
      native: median(nativeTargetSeconds),
      bound: median(native.map(({ seconds }) => seconds)) / targetSeconds
    },
    maxRss: Math.max(...reports.map(({ maxRss }) => maxRss))
  } satisfies Comparison
})
