/** A run: faults at random from all classes over a mixed workload, and what the oracle says in between and in the end. */
import { Effect, Random } from "effect"
import { compare } from "../../layers/demo/Compare.ts"
import { connect, type TestDatabase } from "../postgres.ts"
import type { ConnectorProcess, End } from "./ConnectorProcess.ts"
import { type FaultClass, faultClasses, faultsOf, Misbehaviour } from "./Faults.ts"
import * as Harness from "./Harness.ts"
import * as Load from "./Load.ts"

export interface TortureOptions {
  readonly seed: number
  readonly minutes: number
  /** Injects no other faults than those whose class and name hold this text: to look into one of them. */
  readonly only?: string
  /** Told of each line of the connectors' logs. */
  readonly onLine?: (line: string) => void
}

export interface Report {
  readonly seed: number
  readonly minutes: number
  /** Injected, by class and name. */
  readonly faults: { readonly [Class in FaultClass]: { readonly [name: string]: number } }
  /** Whose moment did not come. */
  readonly missed: number
  /** Committed in the source. */
  readonly transactions: number
  /** Inserts, updates, deletes and truncates sent to the topic, repetitions included. */
  readonly changes: number
  /** Ends of the connector's process, each followed by a start. */
  readonly restarts: number
  /** Rows of the oracle that the target lacks. */
  readonly lost: number
  /** Rows of the target that the oracle does not have. */
  readonly doubled: number
  /** Reads that saw part of a transaction. */
  readonly torn: number
  /** Reads of the invariant. */
  readonly reads: number
  /** How often the target was compared with the oracle, and how many rows at last. */
  readonly comparisons: number
  readonly rows: number
  /** What the connector did that it should not, beyond rows. */
  readonly misbehaviour: ReadonlyArray<string>
  /** What differed, and the connector's last words. Empty when all is well. */
  readonly evidence: ReadonlyArray<string>
}

export const isOk = ({ doubled, lost, misbehaviour, torn }: Report): boolean =>
  lost === 0 && doubled === 0 && torn === 0 && misbehaviour.length === 0

export const faultCount = (report: Report, faultClass: FaultClass): number =>
  Object.values(report.faults[faultClass]).reduce((sum, count) => sum + count, 0)

/** About how long faults go on before everything comes to rest and is compared. */
const roundMinutes = 0.75
/** A database that stands still for so many milliseconds, with nothing in its way, has not caught up. */
const patience = 60_000

/** Between two faults of a class, in milliseconds. */
const pauses: { readonly [Class in FaultClass]: readonly [min: number, max: number] } = {
  connector: [1500, 4500],
  postgres: [800, 3500],
  fluvio: [500, 3000],
  source: [1500, 5000]
}

/** What an operator's supervisor may have to deal with: a batch that is corrupt stops the connector, and it was once. */
const isExpected = ({ code, message, signal }: End): boolean =>
  signal !== null || code === 0 || message?.includes(" is corrupt: ") === true

class Tally {
  readonly faults: { readonly [Class in FaultClass]: { [name: string]: number } } = {
    connector: {},
    postgres: {},
    fluvio: {},
    source: {}
  }
  readonly nextFault: { [Class in FaultClass]: number } = { connector: 0, postgres: 0, fluvio: 0, source: 0 }
  readonly misbehaviour: Array<string> = []
  readonly evidence: Array<string> = []
  missed = 0
  torn = 0
  reads = 0
  lost = 0
  doubled = 0
  comparisons = 0
  rows = 0
}

/** Sees whether any state that the target shows breaks what each transaction of the source keeps. */
const readInvariant = Effect.fnUntraced(function* ({ target }: Harness.Harness, tally: Tally) {
  const reader = yield* connect("reader", target.url)
  yield* reader.query(Load.invariant).pipe(
    Effect.map(([row = {}]) => {
      tally.reads += 1
      const broken = Object.entries(row).filter(([, sum]) => sum !== null && sum !== "0")
      if (broken.length === 0) return
      tally.torn += 1
      tally.evidence.push(`torn: ${broken.map(([name, sum]) => `${name} is ${sum}`).join(", ")}`)
    }),
    // The server is away, or the tables are not there yet.
    Effect.ignore,
    Effect.andThen(Effect.sleep("20 millis")),
    Effect.forever
  )
})

/** The faults of a class, one after the other; each kind comes once before any comes again. */
const lane = Effect.fnUntraced(function* (
  harness: Harness.Harness,
  faultClass: FaultClass,
  { only = "", seed }: TortureOptions,
  tally: Tally,
  millis: number
) {
  const faults = faultsOf(harness)[faultClass].filter(({ name }) => `${faultClass}: ${name}`.includes(only))
  const until = performance.now() + millis
  while (faults.length > 0 && performance.now() < until) {
    const number = tally.nextFault[faultClass]++
    const round = Math.floor(number / faults.length)
    const order = yield* Random.shuffle(faults).pipe(Random.withSeed(`${seed}/${faultClass}/${round}`))
    const { inject, name } = order[number % faults.length]!
    yield* Effect.gen(function* () {
      yield* Effect.sleep(yield* Random.nextIntBetween(...pauses[faultClass]))
      yield* Effect.logDebug(`${faultClass}: ${name}`)
      yield* inject.pipe(
        Effect.andThen(
          Effect.sync(() => {
            const counts = tally.faults[faultClass]
            counts[name] = (counts[name] ?? 0) + 1
          })
        ),
        Effect.catch((error) =>
          Effect.sync(() => {
            if (error instanceof Misbehaviour) tally.misbehaviour.push(error.message)
            else tally.missed += 1
          })
        )
      )
    }).pipe(Random.withSeed(`${seed}/${faultClass}/${round}/${number}`))
  }
})

/** Counts what a database has otherwise than the oracle, but for a column that it leaves out. */
const judge = Effect.fnUntraced(function* (
  oracle: Harness.Harness["oracle"],
  { name: database, url }: TestDatabase,
  excluded: typeof Harness.excluded | undefined,
  tally: Tally
) {
  const { rows, tables } = yield* compare(oracle.url, url)
  tally.comparisons += 1
  tally.rows = rows
  for (const table of tables) {
    const { examples, extraColumns, extraRows, missingRows, name } = table
    const missingColumns = table.missingColumns.filter(
      (column) => name !== excluded?.table || column !== excluded.column
    )
    const leaks = name === excluded?.table && !table.missingColumns.includes(excluded.column)
    tally.lost += missingRows + missingColumns.length
    tally.doubled += extraRows + extraColumns.length + (leaks ? 1 : 0)
    if (leaks) tally.evidence.push(`${database}: ${name} has the column ${excluded.column}, which is left out`)
    if (missingRows + extraRows + missingColumns.length + extraColumns.length === 0) continue
    tally.evidence.push(
      `${database}: ${name}: ${missingRows} rows lost, ${extraRows} rows too many, columns lost: ${missingColumns.join()}, too many: ${extraColumns.join()}`,
      ...examples.map(
        ({ row, side }) => `  only in the ${side === "source" ? "oracle" : database}: ${row.slice(0, 500)}`
      )
    )
  }
})

/** Lets everything come to rest, and compares. */
const settle = Effect.fnUntraced(function* (harness: Harness.Harness, tally: Tally) {
  const { chained, load, oracle, source, target } = harness
  yield* Effect.logDebug("waiting for the source's transactions")
  yield* load.pause
  const [row] = yield* source.database.query(Load.progress)
  const progress = row?.["progress"] ?? ""
  yield* Effect.logDebug(`coming to rest at ${progress}`)
  if (!(yield* Harness.catchesUp(oracle.database, progress, patience))) {
    return yield* Effect.die(new Error(`the oracle did not reach ${progress}`))
  }
  yield* Effect.logDebug(`the oracle has caught up`)
  for (const { database } of [target, chained]) {
    if (yield* Harness.catchesUp(database, progress, patience)) continue
    tally.misbehaviour.push(`${database.name} stood still and did not reach ${progress}`)
  }
  yield* judge(oracle, target.database, undefined, tally)
  yield* judge(oracle, chained.database, Harness.excluded, tally)
  const [audited] = yield* chained.database.query(Harness.audited)
  if (audited?.["seen"] !== audited?.["held"]) {
    tally.misbehaviour.push(`a trigger saw ${audited?.["seen"]} of ${audited?.["held"]}`)
  }
})

const isBroken = ({ doubled, lost, misbehaviour, torn }: Tally): boolean =>
  lost + doubled + torn + misbehaviour.length > 0

const unexpectedEnds = (connector: ConnectorProcess) =>
  Effect.map(connector.ends, (ends) => [
    ...new Set(
      ends
        .filter((end) => !isExpected(end))
        .map(({ code, message }) => `${connector.name} ended with code ${code}: ${message ?? "without a word"}`)
    )
  ])

export const run = Effect.fn("Torture.run")(function* (options: TortureOptions) {
  const { minutes, onLine = () => {}, seed } = options
  const harness = yield* Harness.make(seed, onLine)
  const tally = new Tally()
  const { chained, feed, first, load, second } = harness
  const connectors = [first, second, chained.connector]
  yield* first.start
  yield* chained.connector.start
  yield* load.resume
  yield* Effect.forkScoped(readInvariant(harness, tally))

  yield* Effect.raceFirst(
    Effect.gen(function* () {
      const rounds = Math.max(1, Math.round(minutes / roundMinutes))
      for (let round = 0; round < rounds && !isBroken(tally); round++) {
        yield* load.resume
        const millis = (minutes * 60_000) / rounds
        yield* Effect.forEach(faultClasses, (faultClass) => lane(harness, faultClass, options, tally, millis), {
          concurrency: faultClasses.length,
          discard: true
        })
        yield* settle(harness, tally)
        yield* Effect.logInfo(`round ${round + 1} of ${rounds} is over`)
      }
    }),
    load.broken
  )

  tally.misbehaviour.push(...(yield* Effect.forEach(connectors, unexpectedEnds)).flat())
  if (isBroken(tally)) {
    tally.evidence.push(...(yield* Effect.forEach(connectors, ({ log }) => log)).flat())
  }
  return {
    seed,
    minutes,
    faults: tally.faults,
    missed: tally.missed,
    transactions: yield* load.transactions,
    changes: (yield* feed.changes) + (yield* chained.feed.changes),
    restarts: (yield* Effect.forEach(connectors, ({ ends }) => ends)).flat().length,
    lost: tally.lost,
    doubled: tally.doubled,
    torn: tally.torn,
    reads: tally.reads,
    comparisons: tally.comparisons,
    rows: tally.rows,
    misbehaviour: tally.misbehaviour,
    evidence: tally.evidence
  } satisfies Report
}, Effect.scoped)
