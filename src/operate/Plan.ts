/** What a connector would do next, and why: planned, or tried and taken back. Nothing of it stays in the target. */
import { type Array, Effect, Option, References, Stream } from "effect"
import { Flag } from "effect/cli"
import { SqlClient } from "effect/sql"
import { type Applied, ChangeCount, type TableChanges } from "../Applied.ts"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import * as Connector from "../Connector.ts"
import { NoStatement } from "../plan/Statement.ts"
import * as Sink from "../Sink.ts"
import { ApplyFailed, type FoldGivenUp, isFoldsOwn, type SinkError } from "../SinkError.ts"
import type { Change, Piece } from "../stream/Change.ts"
import { formatLsn, formatTime, OffsetStore } from "../stream/OffsetStore.ts"
import { qualified } from "../target/Identifier.ts"
import * as Mapping from "../target/Mapping.ts"
import * as Session from "../target/Session.ts"
import * as SqlFailure from "../target/SqlFailure.ts"
import * as Operation from "./Operation.ts"

const number = new Intl.NumberFormat("en")

const plural = (count: number, what: string): string => `${number.format(count)} ${what}${count === 1 ? "" : "s"}`

/** The parts of a transaction, the last of them with its end unless there was too much to read. */
type Transaction = Array.NonEmptyReadonlyArray<Piece>

interface Step {
  readonly kind: "schema" | "folded" | "in order" | "unknown"
  readonly sql: string | null
  readonly rows: number | null
  /** The types of its parameters, or what else it takes along. */
  readonly parameters: ReadonlyArray<string>
  readonly values?: ReadonlyArray<string | null>
  readonly reason: string
}

/** What stands behind `$1::` in a statement is the type: it has no modifier, and what follows it no small letters. */
const parametersOf = (text: string, params: ReadonlyArray<unknown>): ReadonlyArray<string> =>
  params.map((param, n) => {
    if (param instanceof Uint8Array) return `${number.format(param.length)} bytes of COPY`
    const [, type] = new RegExp(`\\$${n + 1}::((?:"(?:[^"]|"")*"|[a-z0-9_$.[\\] ])+)`).exec(text) ?? ["", "text"]
    return type.trim()
  })

const valuesOf = (params: ReadonlyArray<string | null | Uint8Array>): ReadonlyArray<string | null> =>
  params.map((param) => (param instanceof Uint8Array ? new TextDecoder().decode(param) : param))

/** Why a row has a statement of its own, where others share one. */
const aloneBecause = ({
  isKeyUnique,
  lookup,
  table
}: {
  readonly isKeyUnique: boolean
  readonly lookup: string
  readonly table: { readonly firesTriggers: boolean }
}): string =>
  table.firesTriggers
    ? "a trigger or rule of the table fires, and sees the order"
    : lookup === "image"
      ? "the row is found by all of its values"
      : !isKeyUnique
        ? "no unique index says that the key means one row"
        : "only the order tells what it means"

const stepOf = (step: Sink.Previewed, withValues: boolean): ReadonlyArray<Step> => {
  if (step.type === "schema") {
    return step.statements.map((sql) => ({
      kind: "schema",
      sql,
      rows: null,
      parameters: [],
      reason: "the stream describes the table so from here on"
    }))
  }
  if (step.type === "unknown") {
    const reason = `${plural(step.changes, "change")} of ${step.table}, whose statements are known once what stands before them is done`
    return [{ kind: "unknown", sql: null, rows: null, parameters: [], reason }]
  }
  const { change, statement } = step
  if (statement instanceof NoStatement) return []
  const { kind, params, route, rows, text } = statement
  return [
    {
      kind: change === undefined ? "folded" : "in order",
      sql: text,
      rows: rows ?? null,
      parameters: parametersOf(text, params),
      ...(withValues ? { values: valuesOf(params) } : {}),
      reason:
        change !== undefined
          ? aloneBecause(route)
          : kind === "check"
            ? "no row may have these keys before"
            : kind === "truncate"
              ? "everything before it is done first"
              : route.lookup === "key" && route.isKeyUnique
                ? `the net change of each row of ${qualified(route.table.schema, route.table.name)}`
                : "rows that follow each other"
    }
  ]
}

interface Report {
  readonly firstOffset: number
  /** `null` where its end was not read. */
  readonly lastOffset: number | null
  readonly commitLsn: string | null
  readonly xid: number | null
  readonly commitTime: string | null
  /** It is too large for one group, and goes through an open transaction in parts. */
  readonly isStreamed: boolean
  /** The source has sent it again, and it is skipped: how many transactions. */
  readonly repeated: number
  readonly changes: { readonly [table: string]: TableChanges }
  readonly steps: ReadonlyArray<Step>
  /** What PostgreSQL has said of it; `null` where it was not asked. */
  readonly tried: string | null
  readonly failure: { readonly message: string; readonly remedy: string } | null
}

/** Ends the transaction in which all of it takes place. */
class Undone {
  readonly _tag = "Undone"
}

/** In one transaction that is rolled back, whatever comes of it. */
const undone = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    let answer: A | undefined
    yield* body.pipe(
      Effect.tap((result) => Effect.sync(() => (answer = result))),
      Effect.andThen(Effect.fail(new Undone())),
      sql.withTransaction,
      SqlFailure.typed,
      Effect.catchIf(
        (error): error is Undone => error instanceof Undone,
        () => Effect.void
      )
    )
    return answer as A
  })

/** Whole transactions, as far as they can be read without waiting for what is not there yet. */
const read = Effect.fnUntraced(function* (
  { bounds, needed, records }: Effect.Success<ReturnType<typeof Connector.start>>,
  assembler: Effect.Success<ReturnType<typeof Connector.assembling>>,
  most: { readonly transactions: number; readonly bytes: number }
) {
  const transactions: Array<[Piece, ...Array<Piece>]> = []
  let ended = 0
  let bytes = 0
  let isCut = false
  if (needed < bounds.end) {
    yield* records.pipe(
      Stream.mapEffect((chunk) =>
        Effect.map(Connector.push(assembler, chunk), (pieces) => ({ pieces, last: chunk[chunk.length - 1].offset }))
      ),
      Stream.takeUntil(({ last, pieces }) => {
        for (const piece of pieces) {
          if (ended === most.transactions || bytes >= most.bytes) break
          bytes += piece.bytes
          if (piece.isFirst) transactions.push([piece])
          else transactions[transactions.length - 1].push(piece)
          if (piece.end !== undefined && piece.repeated === undefined) ended += 1
        }
        isCut = ended < most.transactions && bytes >= most.bytes
        return isCut || ended === most.transactions || last >= bounds.end - 1
      }),
      Stream.runDrain
    )
  }
  return { transactions, isCut }
})

/** Applies it, as far as PostgreSQL can tell; a constraint that waits for COMMIT is asked too. */
const attempt = Effect.fnUntraced(function* (sink: Sink.Sink, [first, ...rest]: Transaction) {
  const sql = yield* SqlClient.SqlClient
  const waiting = [...rest]
  const folded: Sink.Run<Applied, SinkError | FoldGivenUp | Sink.BrokenOff> =
    first.end === undefined
      ? sink.parts(
          first,
          Effect.sync(() => waiting.shift()!)
        )
      : Effect.catchIf(sink.whole([first], "folded"), isFoldsOwn, () => sink.whole([first], "in-order"))
  // The parts are all at hand, and the plan in order is given up by nobody.
  const applied = yield* Effect.catchTag(folded, ["FoldGivenUp", "BrokenOff"], (error) => Effect.die(error))
  yield* SqlFailure.typed(sql`SET CONSTRAINTS ALL IMMEDIATE`).pipe(
    Effect.mapError((failure) => {
      const { offset } = applied.position
      return new ApplyFailed({ table: "the whole transaction", offset, commitLsn: applied.position.commitLsn, failure })
    })
  )
  const passed = [
    [applied.missingRows, "missing row"],
    [applied.existingRows, "existing row"],
    [applied.suppressedRows, "row that a trigger or rule kept"]
  ] as const
  return [
    `PostgreSQL took it: ${plural(applied.statements, "statement")}, ${plural(applied.schemaChanges, "schema change")}`,
    ...(applied.replays > 0
      ? ["in order after all, because the folded statements did not touch what they should"]
      : []),
    ...passed.flatMap(([count, what]) => (count === 0 ? [] : [`${plural(count, what)} passed over`]))
  ].join("; ")
})

const changesOf = (pieces: Transaction, mapping: Mapping.Mapping) => {
  const counted = new ChangeCount()
  for (const { changes } of pieces) counted.add(changes satisfies ReadonlyArray<Change>)
  return Object.fromEntries(counted.byTable((relation) => mapping.table(relation) !== undefined))
}

interface Given {
  readonly transactions: number
  readonly bytes: number
  readonly withValues: boolean
  readonly isTried: boolean
}

const report = Effect.fnUntraced(function* (given: Given) {
  const config = yield* ConnectorConfig
  const store = yield* OffsetStore
  const session = yield* Session.make(config.target)
  yield* session.begin
  // Where no connector has run, its tables are made here, and go with the transaction.
  const stored = yield* store.load
  const begun = yield* Connector.start(stored)
  const assembler = yield* Connector.assembling(stored, begun)
  // Made first: what the records teach is not known before they are applied.
  const planner = yield* Sink.make(stored, assembler.learned)
  const applier = given.isTried ? yield* Sink.make(stored, assembler.learned) : undefined
  const { isCut, transactions } = yield* read(begun, assembler, given)
  const mapping = Mapping.make(config.tables)
  const reports: Array<Report> = []
  for (const pieces of transactions) {
    const [first] = pieces
    const { end, repeated } = pieces[pieces.length - 1]
    const steps: Array<Step> = []
    let tried: string | null = null
    const plan = Effect.gen(function* (): Effect.fn.Return<void, SinkError, SqlClient.SqlClient | OffsetStore> {
      const previews = Effect.forEach(pieces, (piece) => planner.preview(piece, given.isTried))
      for (const step of (yield* given.isTried ? undone(previews) : previews).flat()) {
        steps.push(...stepOf(step, given.withValues))
      }
      if (applier !== undefined && end !== undefined) tried = yield* attempt(applier, pieces)
    })
    const failed = yield* Effect.flip(plan).pipe(Effect.option)
    const failure = Option.match(failed, {
      onNone: () => null,
      onSome: ({ message, remedy }) => ({ message, remedy })
    })
    reports.push({
      firstOffset: first.first,
      lastOffset: end?.record.offset ?? null,
      commitLsn: end?.commitLsn === undefined ? null : formatLsn(end.commitLsn),
      xid: first.xid ?? null,
      commitTime: end?.commitTime === undefined ? null : formatTime(end.commitTime),
      isStreamed: first.end === undefined,
      repeated: repeated?.transactions ?? 0,
      changes: changesOf(pieces, mapping),
      steps,
      tried,
      failure
    })
    if (failure !== null) break
  }
  return { reports, isCut, next: begun.needed, end: begun.bounds.end }
})

const header = (one: Report): string => {
  const what =
    one.repeated > 0 ? plural(one.repeated, "transaction") : `transaction${one.xid === null ? "" : ` ${one.xid}`}`
  const place =
    one.lastOffset === null
      ? `from offset ${one.firstOffset}, its end not read`
      : `at offsets ${one.firstOffset} to ${one.lastOffset}`
  const facts = [
    ...(one.commitLsn === null ? [] : [one.commitLsn]),
    ...(one.commitTime === null ? [] : [`committed ${one.commitTime}`]),
    ...(one.isStreamed ? ["larger than group.bytes, and streamed in parts"] : []),
    ...(one.repeated > 0 ? ["sent again by the source, and skipped"] : [])
  ]
  return [`${what} ${place}`, ...facts].join(", ")
}

const kinds = ["insert", "update", "delete", "truncate"] as const

const changesText = (changes: Report["changes"]): string =>
  Object.entries(changes)
    .map(([table, counts]) => {
      const own = kinds.flatMap((kind) => (counts[kind] === 0 ? [] : [plural(counts[kind], kind)]))
      return `${table}: ${own.join(", ")}`
    })
    .join("; ")

const line = (label: string, text: string): string => `  ${label.padEnd(10)}${text}`

const stepLines = ({ kind, parameters, reason, rows, sql, values }: Step): ReadonlyArray<string> => {
  if (sql === null) return [line(kind, reason)]
  const facts = [
    ...(rows === null ? [] : [plural(rows, "row")]),
    ...(parameters.length === 0 ? [] : [plural(parameters.length, "parameter") + `: ${parameters.join(", ")}`]),
    reason
  ]
  return [
    line(kind, sql),
    line("", facts.join("; ")),
    ...(values ?? []).map((value, n) => line("", `$${n + 1} = ${JSON.stringify(value)}`))
  ]
}

const reportLines = (one: Report): string =>
  [
    header(one),
    ...(Object.keys(one.changes).length === 0 ? [] : [line("changes", changesText(one.changes))]),
    ...one.steps.flatMap(stepLines),
    ...(one.tried === null ? [] : [line("tried", one.tried)]),
    ...(one.failure === null ? [] : [line("fails", one.failure.message), line("", one.failure.remedy)])
  ].join("\n")

const positive = (name: string, fallback: number) =>
  Flag.Int(name).pipe(
    Flag.filter(
      (value) => value > 0,
      () => "expected a whole number from 1 on"
    ),
    Flag.withMetavar("count"),
    Flag.withDefault(fallback)
  )

export const command = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "plan",
    {
      short: "Show what would be run for the next transactions, and why",
      description:
        "Show what would be run for the next transactions of the topic, and why in that form. All of it happens in a " +
        "transaction that is rolled back. Row values are shown only with --values. It exits with 3 where the connector " +
        "would stop.",
      takesAllSettings: true,
      examples: [
        { command: "plan --config connector.yaml", description: "The next transaction" },
        {
          command: "plan --config connector.yaml --transactions 20 --try",
          description: "And whether PostgreSQL takes them"
        }
      ]
    },
    {
      transactions: positive("transactions", 1).pipe(Flag.withDescription("So many transactions (default: 1)")),
      bytes: positive("limit-bytes", 64 * 1024 * 1024).pipe(
        Flag.withDescription("Read at most about so many bytes of records (default: 67108864)")
      ),
      withValues: Flag.Boolean("values").pipe(
        Flag.withDescription("Show the values of rows, too"),
        Flag.withDefault(false)
      ),
      isTried: Flag.Boolean("try").pipe(
        Flag.withDescription("Run it, and roll it back: what PostgreSQL says. Its locks are held for as long"),
        Flag.withDefault(false)
      )
    },
    Effect.fnUntraced(function* (given, json) {
      const { end, isCut, next, reports } = yield* undone(report(given)).pipe(
        Effect.provideService(References.MinimumLogLevel, "Warn")
      )
      const { partition, topic } = yield* ConnectorConfig
      const rest = isCut
        ? ["the limit of bytes was reached: --limit-bytes raises it"]
        : reports.length === 0
          ? [
              next === end
                ? `nothing to apply: ${topic}-${partition} ends at offset ${end}`
                : `no whole transaction to apply: ${topic}-${partition} ends at offset ${end}`
            ]
          : []
      yield* Operation.print(json, {
        json: { transactions: reports, isCut },
        text: [...reports.map(reportLines), ...rest].join("\n\n")
      })
      const failure = reports.at(-1)?.failure ?? null
      if (failure !== null) return yield* new Operation.NotReady(failure)
    })
  )
