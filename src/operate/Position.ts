/** Where the connector is in its topic: looking at it, and setting it by hand. */
import { Array, Clock, Effect, Option, Schema, Stream } from "effect"
import { CliError, Command, Flag } from "effect/cli"
import { SqlClient } from "effect/sql"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import { PlaceNotProved, RetentionGap } from "../Connector.ts"
import { lockName } from "../Standby.ts"
import { Assembler } from "../stream/Assembler.ts"
import {
  type Bounds,
  FluvioConsumer,
  type FluvioError,
  type FluvioRecord,
  Offset,
  refusalAt
} from "../stream/FluvioConsumer.ts"
import {
  type Described,
  formatLsn,
  formatTime,
  nothingStored,
  OffsetStore,
  parseLsn,
  parseTime,
  type Position,
  type Stored
} from "../stream/OffsetStore.ts"
import { isRetryable, positionSet } from "../stream/Outcome.ts"
import * as Action from "./Action.ts"
import { type Found, type Place, Survey, type Wanted } from "./Boundaries.ts"
import * as Operation from "./Operation.ts"

/** The position is left where it is. */
export class PositionRefused extends Schema.TaggedError<PositionRefused>()("PositionRefused", {
  message: Schema.String,
  remedy: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
}

const number = new Intl.NumberFormat("en")

/** A line with a label, as the answers of all commands have them. */
const row = (label: string, text: string): string => `${label.padEnd(12)}${text}`

/** Whether the connector goes on here, and why not. */
export interface Judgement {
  readonly isProved: boolean
  /** Whether it goes on without proof. */
  readonly goesOn: boolean
  /** It was applied from another log, whose offsets and descriptions mean nothing here. */
  readonly isElsewhere: boolean
  readonly finding: string
  /** What to do about it, where there is something to do. */
  readonly remedy: string | undefined
}

const unproved = (finding: string, remedy: string, goesOn: boolean): Judgement => ({
  isProved: false,
  goesOn,
  isElsewhere: false,
  finding,
  remedy
})

const proved = (finding: string): Judgement => ({
  isProved: true,
  goesOn: true,
  isElsewhere: false,
  finding,
  remedy: undefined
})

/** Where reading goes on. */
export const nextOf = (position: Option.Option<Position>): Offset =>
  Offset.make(Option.match(position, { onNone: () => 0, onSome: ({ offset }) => offset + 1 }))

export const judge = Effect.fnUntraced(function* (
  { position, savedBy }: Stored,
  bounds: Bounds
): Effect.fn.Return<Judgement, FluvioError, FluvioConsumer | OffsetStore> {
  const consumer = yield* FluvioConsumer
  const { partition, topic } = consumer
  const place = { topic, partition }
  const needed = nextOf(position)
  const refused = refusalAt(place, needed, bounds)
  if (refused !== undefined) {
    const { message, remedy } =
      refused._tag === "OffsetEvicted" ? new RetentionGap({ ...place, needed, available: bounds.start }) : refused
    return { ...unproved(message, remedy, false), isElsewhere: refused._tag === "OffsetBeyondEnd" }
  }
  if (Option.isNone(position)) {
    return proved("nothing is applied yet: the connector begins at offset 0")
  }
  const { checksum, offset } = position.value
  if (savedBy !== "connector") {
    return unproved(
      savedBy === "original"
        ? "the original connector saved the position: it may lie inside a transaction, and nothing proves it"
        : "the position was set by hand: nothing proves that what lies before it is applied",
      `start the connector, which reads the log up to offset ${offset} first and saves the position itself with the first transaction behind it`,
      true
    )
  }
  if (offset < bounds.start) {
    return unproved(
      `retention has removed the record at offset ${offset} that would prove the place, and nothing behind it`,
      "start the connector before retention removes more: it goes on with a warning",
      true
    )
  }
  const [record] = yield* consumer.records(offset).pipe(Stream.runHead, Effect.map(Option.getOrThrow))
  if (consumer.checksum(record.value) === checksum) {
    return proved(`the record at offset ${offset} is the one that was applied`)
  }
  const { message, remedy } = new PlaceNotProved({ ...place, offset })
  return { ...unproved(message, remedy, false), isElsewhere: true }
})

const savedByText = { connector: "the connector", original: "the original connector", operator: "hand" } as const

const timeOf = (time: bigint | undefined): string | null => (time === undefined ? null : formatTime(time))

const storedJson = (position: Position, { described, savedBy }: Stored) => ({
  offset: position.offset,
  savedBy,
  hasChecksum: position.checksum !== undefined,
  commitLsn: position.commitLsn === undefined ? null : formatLsn(position.commitLsn),
  commitTime: timeOf(position.commitTime),
  latestTime: timeOf(position.latestTime),
  epoch: position.epoch,
  relations: described.relations.length,
  types: described.types.length
})

const lines = (stored: ReturnType<typeof storedJson> | null): ReadonlyArray<string> =>
  stored === null
    ? [row("position", "none: nothing is applied yet")]
    : [
        row(
          "position",
          `offset ${stored.offset}, saved by ${savedByText[stored.savedBy]}${stored.hasChecksum ? "" : ", without a checksum"}`
        ),
        row(
          "transaction",
          stored.commitLsn === null ? "not known" : `${stored.commitLsn} of ${stored.commitTime ?? "?"}`
        ),
        row("epoch", String(stored.epoch)),
        row("described", `${number.format(stored.relations)} tables, ${number.format(stored.types)} types`)
      ]

const show = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "show",
    {
      short: "Show the position, and whether the topic proves it",
      description:
        "Show the stored position and what the topic holds, and whether the record at the position is the one that was " +
        "applied. It writes nothing, and exits with 3 where the place is not proved.",
      examples: [{ command: "position show --config connector.yaml", description: "Where it is" }]
    },
    {},
    Effect.fnUntraced(function* (_, json) {
      const { inspect } = yield* OffsetStore
      const consumer = yield* FluvioConsumer
      const stored = yield* inspect
      const bounds = yield* consumer.bounds
      const position = Option.getOrUndefined(stored.position)
      const lag = Math.max(0, bounds.end - Math.max(bounds.start, (position?.offset ?? -1) + 1))
      const judgement = yield* judge(stored, bounds)
      const known = position === undefined ? null : storedJson(position, stored)
      yield* Operation.print(json, {
        json: {
          topic: consumer.topic,
          partition: consumer.partition,
          position: known,
          log: { start: bounds.start, end: bounds.end },
          lagRecords: lag,
          isProved: judgement.isProved,
          finding: judgement.finding,
          remedy: judgement.remedy ?? null
        },
        text: [
          ...lines(known),
          row(
            "topic",
            `${consumer.topic}-${consumer.partition} starts at offset ${bounds.start} and ends at offset ${bounds.end}`
          ),
          row("lag", `${number.format(lag)} records`),
          row("place", `${judgement.isProved ? "proved" : "not proved"}: ${judgement.finding}`)
        ].join("\n")
      })
      if (judgement.remedy !== undefined) {
        return yield* new Operation.NotReady({ message: judgement.finding, remedy: judgement.remedy })
      }
    })
  )

/** How often a long reading says how far it is. */
const tellingInterval = 5000

const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

/** Reads from `from` to before `end`, until `take` says that it is enough. */
export const scan = Effect.fnUntraced(function* (
  from: Offset,
  end: Offset,
  take: (records: ReadonlyArray<FluvioRecord>) => boolean
) {
  if (from >= end) return
  const { partition, records, topic } = yield* FluvioConsumer
  let toldAt = yield* now
  const isDone = Effect.fnUntraced(function* (chunk: ReadonlyArray<FluvioRecord>) {
    const { offset } = chunk[chunk.length - 1]
    if (take(offset < end ? chunk : chunk.filter((record) => record.offset < end)) || offset >= end - 1) return true
    const at = yield* now
    if (at - toldAt < tellingInterval) return false
    toldAt = at
    yield* Effect.logInfo(`Reading ${topic}-${partition}: offset ${number.format(offset)} of ${number.format(end)}`)
    return false
  })
  yield* records(from).pipe(
    Stream.mapEffect(isDone),
    Stream.takeUntil((isDone) => isDone),
    Stream.runDrain
  )
})

interface Learned {
  readonly described: Described
  readonly last: Pick<Position, "commitLsn" | "commitTime" | "latestTime">
  readonly checksum: number | undefined
}

const unknown: Learned["last"] = { commitLsn: undefined, commitTime: undefined, latestTime: undefined }

/** What the log from `from` to before `next` says of tables, types and the last transaction, on top of `before`. */
const learn = Effect.fnUntraced(function* (from: Offset, next: Offset, before: Stored) {
  const { checksum } = yield* FluvioConsumer
  const assembler = new Assembler({
    position: before.position,
    described: before.described,
    appliedThrough: Offset.make(next - 1),
    maxBytes: Infinity,
    floatNull: "null",
    onUnreadable: "quarantine",
    skips: [],
    acceptEpoch: undefined,
    hasTransactions: false
  })
  let last: FluvioRecord | undefined
  yield* scan(from, next, (records) => {
    if (Array.isReadonlyArrayNonEmpty(records)) assembler.push(records)
    last = records.at(-1)
    return false
  })
  return {
    described: assembler.learned,
    last: assembler.last,
    checksum: last === undefined ? undefined : checksum(last.value)
  } satisfies Learned
})

/** What lies between the stored position and a wanted place. */
interface Range {
  readonly records: number
  readonly transactions: number
  readonly firstOffset: number
  readonly lastOffset: number
  readonly firstLsn: string | null
  readonly lastLsn: string | null
  readonly firstTime: string | null
  readonly lastTime: string | null
}

export const lsnOf = (lsn: bigint | undefined): string | null => (lsn === undefined ? null : formatLsn(lsn))

const rangeOf = (lower: Place, upper: Place, { start }: Bounds): Range | null => {
  const firstOffset = Math.max(lower.next, start)
  if (firstOffset >= upper.next) return null
  const transactions = upper.transactions - lower.transactions
  const [first, last] = transactions === 0 ? [] : [lower.after, upper.before]
  return {
    records: upper.next - firstOffset,
    transactions,
    firstOffset,
    lastOffset: upper.next - 1,
    firstLsn: lsnOf(first?.commitLsn),
    lastLsn: lsnOf(last?.commitLsn),
    firstTime: timeOf(first?.commitTime),
    lastTime: timeOf(last?.commitTime)
  }
}

const rangeText = (range: Range | null): string => {
  if (range === null) return "none"
  const { firstLsn, firstOffset, firstTime, lastLsn, lastOffset, lastTime, records, transactions } = range
  const what =
    firstLsn === null
      ? ""
      : transactions === 1
        ? `: ${lastLsn} of ${lastTime}`
        : `: ${firstLsn} of ${firstTime} to ${lastLsn} of ${lastTime}`
  return (
    `${number.format(records)} record${records === 1 ? "" : "s"} at offsets ${firstOffset} to ${lastOffset}, ` +
    `${number.format(transactions)} transaction${transactions === 1 ? "" : "s"}${what}`
  )
}

/** What `position set` would do. */
interface Plan {
  readonly current: Place
  readonly wanted: Place
  /** Records between both that retention has removed. */
  readonly removed: number
  readonly skipped: Range | null
  readonly repeated: Range | null
  readonly epoch: number
  readonly notes: ReadonlyArray<string>
  /** `undefined` before the topic's first record: then nothing is stored. */
  readonly next: Position | undefined
  readonly described: Described
}

const refusal = (target: Wanted, found: Found, current: Offset, { end, start }: Bounds, place: string) => {
  const { last, nearest } = found
  switch (target.type) {
    case "offset": {
      const { offset } = target
      const isInside = offset >= start && offset <= end
      const to = (near: Offset, where: string) => {
        const allow = near < current ? " --allow-repeat" : near > current ? " --allow-loss" : ""
        return `${positionSet(`--offset ${near}${allow}`)} for the place ${where} it`
      }
      const commands = [
        ...(nearest.before === undefined ? [] : [to(nearest.before, "before")]),
        ...(nearest.after === undefined ? [] : [to(nearest.after, "behind")])
      ]
      return new PositionRefused({
        message: isInside
          ? `offset ${offset} of ${place} lies inside a transaction, which is applied whole or not at all`
          : `offset ${offset} lies outside of ${place}, which starts at offset ${start} and ends at offset ${end}`,
        remedy:
          commands.length === 0
            ? "the topic holds no place between two transactions: wait until the inbound connector has sent one"
            : `run ${commands.join(", or ")}`
      })
    }
    case "lsn":
      return new PositionRefused({
        message: `${place} holds no transaction with a commit LSN of at most ${formatLsn(target.lsn)}`,
        remedy:
          last === undefined
            ? "wait until the inbound connector has sent one"
            : `the last one that it holds is ${formatLsn(last.commitLsn)}; \`--first-whole-transaction\` names the first place`
      })
    case "time":
      return new PositionRefused({
        message: `${place} ends inside a transaction that committed before ${formatTime(target.time)}`,
        remedy: "wait until the inbound connector has sent the rest of it"
      })
    case "first":
      return new PositionRefused({
        message: `${place} holds no Begin, so all of it may be the rest of a transaction`,
        remedy: "wait until the inbound connector has sent the next transaction"
      })
  }
}

const planOf = Effect.fnUntraced(function* (stored: Stored, target: Wanted, isNewEpoch: boolean) {
  const consumer = yield* FluvioConsumer
  const name = `${consumer.topic}-${consumer.partition}`
  const bounds = yield* consumer.bounds
  const { end, start } = bounds
  const judgement = yield* judge(stored, bounds)
  const { isElsewhere } = judgement
  const isFromZero = target.type === "offset" && target.offset === 0
  if (isElsewhere && !isNewEpoch && !isFromZero) {
    return yield* new PositionRefused({
      message: judgement.finding,
      remedy: `${judgement.remedy ?? ""}; if this topic is meant, add \`--new-epoch\`: what was described of the other one is forgotten`
    })
  }
  const position = Option.getOrUndefined(stored.position)
  const isOurs = !isElsewhere && stored.savedBy === "connector"
  // Of another log's position only the topic tells: nothing of it is applied.
  const from = isElsewhere ? start : nextOf(stored.position)
  const survey = new Survey(target, start, from, isOurs ? position : undefined)
  yield* scan(start, end, (records) => {
    survey.push(records)
    return survey.isDone
  })
  const { found } = survey
  const { current, last, wanted } = found
  if (wanted === undefined) return yield* refusal(target, found, from, bounds, name)

  const offset = Offset.make(Math.max(wanted.next - 1, 0))
  const isKept = isOurs && wanted.next === from
  const isForward = isOurs && wanted.next >= from
  const learned: Learned =
    wanted.next === 0
      ? { described: nothingStored.described, last: unknown, checksum: undefined }
      : isNewEpoch
        ? { ...(yield* learn(offset, wanted.next, nothingStored)), described: nothingStored.described, last: unknown }
        : yield* learn(
            isForward && from >= start ? from : start,
            wanted.next,
            isForward ? stored : { ...stored, position: Option.none() }
          )
  const checksum = learned.checksum ?? (isKept ? position?.checksum : undefined)
  const epoch = (position?.epoch ?? 0) + (isNewEpoch ? 1 : 0)
  const notes = [
    ...(target.type === "lsn" && last !== undefined && last.commitLsn < target.lsn
      ? [
          `the topic ends with transaction ${formatLsn(last.commitLsn)}, before ${formatLsn(target.lsn)}: what comes up to there will be applied`
        ]
      : []),
    ...(target.type === "time" && wanted.next === end && (last === undefined || last.commitTime < target.time)
      ? [`the topic holds nothing that committed at ${formatTime(target.time)} or later`]
      : []),
    ...(wanted.rewinds !== current.rewinds && !isNewEpoch
      ? ["the source was rewound in between: add --new-epoch if the target holds its new history"]
      : []),
    ...(wanted.next > 0 && checksum === undefined
      ? [
          "the record before this place is no longer in the topic: the connector goes on there without proof, with a warning"
        ]
      : [])
  ]
  const plan: Plan = {
    current,
    wanted,
    removed: wanted.next > from ? Math.max(0, Math.min(start, wanted.next) - from) : 0,
    skipped: wanted.next > from ? rangeOf(current, wanted, bounds) : null,
    repeated: wanted.next < from ? rangeOf(wanted, current, bounds) : null,
    epoch: wanted.next === 0 ? 0 : epoch,
    notes,
    next:
      wanted.next === 0 ? undefined : { offset, checksum, epoch, ...(checksum === undefined ? unknown : learned.last) },
    described: learned.described
  }
  return plan
})

/** Makes sure that no connector applies the topic until the ambient transaction ends. */
const keepOut = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { partition, topic } = yield* ConnectorConfig
  const [row] = yield* sql<{ readonly is_free: boolean }>`
    SELECT pg_try_advisory_xact_lock(hashtextextended(${lockName(topic, partition)}, 0)) AS is_free
  `
  if (row.is_free) return
  return yield* new PositionRefused({
    message: `a connector applies ${topic}-${partition}, and would go on from where it is`,
    remedy: "stop it, and those that stand by; then run the command again"
  })
})

/** Replaces the stored position, if it is still the one that was looked at. */
const write = (stored: Stored, next: Position | undefined, described: Described, done: Action.Done) =>
  Action.doing(
    Effect.gen(function* () {
      const { forget, save } = yield* OffsetStore
      yield* keepOut
      if (next !== undefined) yield* save(stored.position, next, described)
      else if (Option.isSome(stored.position)) yield* forget(stored.position.value)
      yield* Action.record(done)
    })
  )

const behind = ({ before, next }: Place): string =>
  `offset ${next}${before === undefined ? "" : `, behind ${formatLsn(before.commitLsn)} of ${formatTime(before.commitTime)}`}`

const placeJson = ({ before, next }: Place) => ({
  offset: next,
  commitLsn: lsnOf(before?.commitLsn),
  commitTime: timeOf(before?.commitTime)
})

const yes = Flag.Boolean("yes").pipe(
  Flag.withDescription("Do it; otherwise it is only shown what would be done"),
  Flag.withDefault(false)
)

export const lsnFlag = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(description),
    Flag.withMetavar("X/Y"),
    Flag.filterMap(
      (text) => Option.fromUndefinedOr(parseLsn(text)),
      () => "expected an LSN such as 16/B374D848"
    )
  )

const setFlags = {
  offset: Flag.Int("offset").pipe(
    Flag.withDescription("Go on reading at this offset, which must be between two transactions"),
    Flag.withMetavar("n"),
    Flag.filter(
      (offset) => offset >= 0,
      () => "expected a whole number from 0 on"
    ),
    Flag.optional
  ),
  atLsn: lsnFlag("at-lsn", "Behind the transaction with this commit LSN, or the last before it").pipe(Flag.optional),
  atTime: Flag.String("at-time").pipe(
    Flag.withDescription("Before the first transaction that committed at this time or later"),
    Flag.withMetavar("time"),
    Flag.filterMap(
      (text) => Option.fromUndefinedOr(parseTime(text)),
      () => "expected a time with its zone, such as 2026-11-30T20:15:00Z"
    ),
    Flag.optional
  ),
  first: Flag.Boolean("first-whole-transaction").pipe(
    Flag.withDescription("Before the first Begin that the topic still holds"),
    Flag.withDefault(false)
  ),
  newEpoch: Flag.Boolean("new-epoch").pipe(
    Flag.withDescription("A new history of the source begins there: what was described before is forgotten"),
    Flag.withDefault(false)
  ),
  allowLoss: Flag.Boolean("allow-loss").pipe(
    Flag.withDescription("Pass over transactions that were never applied"),
    Flag.withDefault(false)
  ),
  allowRepeat: Flag.Boolean("allow-repeat").pipe(
    Flag.withDescription("Apply transactions again that are applied"),
    Flag.withDefault(false)
  ),
  yes,
  reason: Action.reason
}

const set = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "set",
    {
      short: "Have the connector go on at another place",
      description:
        "Have the connector go on at another place of the topic: exactly one of --offset, --at-lsn, --at-time and " +
        "--first-whole-transaction says which. It shows what would be skipped or applied again, and does it with --yes, " +
        "while no connector applies the topic.",
      examples: [
        {
          command: "position set --at-lsn 16/B374D848 --reason copied --config connector.yaml",
          description: "What going on behind a copy would skip"
        },
        {
          command:
            "position set --first-whole-transaction --allow-loss --reason retention --yes --config connector.yaml",
          description: "Go on with what retention has left"
        }
      ]
    },
    setFlags,
    Effect.fnUntraced(function* (
      { allowLoss, allowRepeat, atLsn, atTime, first, newEpoch, offset, reason, yes },
      json
    ) {
      const targets: ReadonlyArray<Wanted> = [
        ...Option.toArray(Option.map(offset, (offset) => ({ type: "offset", offset: Offset.make(offset) }) as const)),
        ...Option.toArray(Option.map(atLsn, (lsn) => ({ type: "lsn", lsn }) as const)),
        ...Option.toArray(Option.map(atTime, (time) => ({ type: "time", time }) as const)),
        ...(first ? [{ type: "first" } as const] : [])
      ]
      if (targets.length !== 1) {
        return yield* new CliError.ValidationError({
          message: "give exactly one of --offset, --at-lsn, --at-time and --first-whole-transaction"
        })
      }
      const { inspect } = yield* OffsetStore
      const { partition, topic } = yield* FluvioConsumer
      const stored = yield* inspect
      const { current, described, epoch, next, notes, removed, repeated, skipped, wanted } = yield* planOf(
        stored,
        targets[0],
        newEpoch
      )
      const isLoss = removed > 0 || (skipped !== null && skipped.transactions > 0)
      const isRepeat = repeated !== null && repeated.transactions > 0
      const needs = [
        ...(isLoss && !allowLoss ? ["--allow-loss"] : []),
        ...(isRepeat && !allowRepeat ? ["--allow-repeat"] : [])
      ]
      const isDone = yes && needs.length === 0
      const facts = {
        from: placeJson(current),
        to: placeJson(wanted),
        removedRecords: removed,
        skipped,
        repeated,
        epoch
      }
      if (isDone) yield* write(stored, next, described, { action: "position set", detail: facts, reason })
      yield* Operation.print(json, {
        json: { topic, partition, isDone, ...facts, needs, notes },
        text: [
          row("now", behind(current)),
          row("to", behind(wanted)),
          ...(removed === 0 ? [] : [row("removed", `${number.format(removed)} records, by retention`)]),
          row("skipped", rangeText(skipped)),
          row("repeated", rangeText(repeated)),
          row("epoch", String(epoch)),
          ...notes.map((note) => row("note", note)),
          isDone
            ? `done: the connector goes on at offset ${wanted.next} when it is started`
            : `nothing was changed: add ${[...needs, ...(yes ? [] : ["--yes"])].join(" ")} to do it`
        ].join("\n")
      })
      if (yes && !isDone) {
        return yield* new PositionRefused({
          message: isLoss
            ? "transactions that were never applied would be passed over"
            : "transactions that are applied would be applied again",
          remedy: `add ${needs.join(" ")} if that is meant`
        })
      }
    })
  )

const reset = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "reset",
    {
      short: "Forget the position, so that the topic is applied from its start",
      description:
        "Forget the position, and the tables and types that the topic has described: the next start begins at the topic's " +
        "start. It shows what is forgotten, and does it with --yes, while no connector applies the topic.",
      examples: [
        { command: "position reset --reason rehearsal --yes --config connector.yaml", description: "From the start" }
      ]
    },
    { yes, reason: Action.reason },
    Effect.fnUntraced(function* ({ reason, yes }, json) {
      const { inspect } = yield* OffsetStore
      const { partition, topic } = yield* ConnectorConfig
      const stored = yield* inspect
      const position = Option.getOrUndefined(stored.position)
      const known = position === undefined ? null : storedJson(position, stored)
      const isDone = yes && position !== undefined
      if (isDone) {
        yield* write(stored, undefined, nothingStored.described, {
          action: "position reset",
          detail: { position: known },
          reason
        })
      }
      yield* Operation.print(json, {
        json: { topic, partition, isDone, position: known },
        text: [
          ...lines(known),
          isDone
            ? "forgotten: the connector begins at the topic's start when it is started"
            : position === undefined
              ? "there is nothing to forget"
              : "nothing was changed: add --yes to forget it, and apply the topic from its start"
        ].join("\n")
      })
    })
  )

export const command = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Command.make("position").pipe(
    Command.withShortDescription("Show or set where the connector is in its topic"),
    Command.withDescription("Show or set where the connector is in its topic"),
    Command.withSubcommands([show(parts), set(parts), reset(parts)])
  )
