/** Where the connector is in its topic: looking at it, and setting it by hand. */
import { Effect, Option, Stream } from "effect"
import { Command } from "effect/cli"
import { PlaceNotProved, RetentionGap } from "../Connector.ts"
import { type Bounds, FluvioConsumer, Offset, refusalAt } from "../stream/FluvioConsumer.ts"
import { formatLsn, formatTime, OffsetStore, type Position, type Stored } from "../stream/OffsetStore.ts"
import * as Operation from "./Operation.ts"

const number = new Intl.NumberFormat("en")

/** A line with a label, as the answers of all commands have them. */
const row = (label: string, text: string): string => `${label.padEnd(12)}${text}`

/** Whether the connector goes on here, and why not. */
export interface Judgement {
  readonly isProved: boolean
  /** Whether it goes on without proof. */
  readonly goesOn: boolean
  readonly finding: string
  /** What to do about it, where there is something to do. */
  readonly remedy: string | undefined
}

const unproved = (finding: string, remedy: string, goesOn: boolean): Judgement => ({
  isProved: false,
  goesOn,
  finding,
  remedy
})

const proved = (finding: string): Judgement => ({ isProved: true, goesOn: true, finding, remedy: undefined })

export const judge = Effect.fnUntraced(function* ({ position, savedBy }: Stored, bounds: Bounds) {
  const consumer = yield* FluvioConsumer
  const { setStatement } = yield* OffsetStore
  const { partition, topic } = consumer
  const place = { topic, partition }
  const needed = Offset.make(Option.match(position, { onNone: () => 0, onSome: ({ offset }) => offset + 1 }))
  const refused = refusalAt(place, needed, bounds)
  if (refused !== undefined) {
    const { message, remedy } =
      refused._tag === "OffsetEvicted"
        ? new RetentionGap({ ...place, needed, available: bounds.start, statement: setStatement(bounds.start) })
        : refused
    return unproved(message, remedy, false)
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
  return unproved(message, remedy, false)
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

export const command = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Command.make("position").pipe(
    Command.withShortDescription("Show or set where the connector is in its topic"),
    Command.withDescription("Show or set where the connector is in its topic"),
    Command.withSubcommands([show(parts)])
  )
