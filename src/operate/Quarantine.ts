/** Shows what is set aside, and resolves it. */
import { Console, Effect, Option } from "effect"
import { Argument, CliError, Command, Flag } from "effect/cli"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import { resolving } from "../Quarantine.ts"
import * as Action from "./Action.ts"
import * as Events from "./Events.ts"
import * as Held from "./Held.ts"
import * as Operation from "./Operation.ts"
import * as Replay from "./Replay.ts"

/** Lines of text fit this many columns. */
const width = 100

/** Cut where words end, or where a word is too long for a line. */
const wrapped = (text: string, indent: string): string => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && indent.length + line.length + 1 + word.length > width) {
      lines.push(line)
      line = ""
    }
    line = line === "" ? word : `${line} ${word}`
    for (const room = width - indent.length; line.length > room; line = line.slice(room))
      lines.push(line.slice(0, room))
  }
  return [...lines, line].map((part) => indent + part).join("\n")
}

/** Without a fraction: fine enough for eyes. */
const second = (time: string | null): string => (time === null ? "-" : time.replace(/\.\d+/, ""))

const placeOf = ({ firstOffset, lastOffset }: Held.Held): string =>
  firstOffset === lastOffset ? String(firstOffset) : `${firstOffset}-${lastOffset}`

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`

const idsOf = (held: ReadonlyArray<Held.Held>): string => held.map(({ id }) => id).join(", ")

const becameOf = (held: Held.Held): string => {
  const { heldSince, resolvedAt, resolvedBy, resolvedReason, status } = Held.factsOf(held)
  if (status === "held") return `held since ${second(heldSince)}`
  const by = resolvedBy === null ? "" : ` by ${resolvedBy}`
  const why = resolvedReason === null ? "" : `: ${resolvedReason}`
  return `held ${second(heldSince)}, ${status} ${second(resolvedAt)}${by}${why}`
}

const heads = ["ID", "OFFSETS", "LSN", "COMMITTED", "CLASS", "RECORDS"]

const tableOf = (all: ReadonlyArray<Held.Held>): string => {
  const rows = all.map((held) => {
    const { class: kind, commitLsn, commitTime, id, records, sqlState } = Held.factsOf(held)
    const state = sqlState === null ? "" : ` ${sqlState}`
    return [String(id), placeOf(held), commitLsn ?? "-", second(commitTime), kind + state, String(records)]
  })
  const widths = heads.map((head, n) => Math.max(head.length, ...rows.map((row) => row[n].length)))
  const line = (cells: ReadonlyArray<string>) =>
    cells
      .map((cell, n) => (n === heads.length - 1 ? cell.padStart(widths[n]) : cell.padEnd(widths[n])))
      .join("  ")
      .trimEnd()
  const indent = " ".repeat(4)
  return [
    line(heads),
    ...all.flatMap((held, n) => [
      line(rows[n]),
      ...(held.tables.length === 0 ? [] : [wrapped(held.tables.join(", "), indent)]),
      wrapped(held.reason, indent),
      wrapped(becameOf(held), indent)
    ])
  ].join("\n")
}

const list = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "list",
    {
      short: "List the transactions that are held",
      description: "List the transactions that are held, in the order of the source; values of rows are never shown.",
      examples: [{ command: "quarantine list --config connector.yaml", description: "What waits for you" }]
    },
    {
      all: Flag.Boolean("all").pipe(
        Flag.withDescription("Those that were replayed or discarded, too"),
        Flag.withDefault(false)
      )
    },
    Effect.fnUntraced(function* ({ all }, json) {
      const { partition, topic } = yield* ConnectorConfig
      const held = yield* Action.looking(Held.read(all ? "all" : "held"))
      const none = all ? "was ever set aside" : "is held"
      yield* Operation.print(json, {
        json: { transactions: held.map(Held.factsOf) },
        text: held.length === 0 ? `nothing of ${topic}-${partition} ${none}` : tableOf(held)
      })
    })
  )

const cells = ({ unchanged, values }: Events.Values): string =>
  [
    ...Object.entries(values).map(([name, value]) => `${name} = ${value === null ? "NULL" : JSON.stringify(value)}`),
    ...unchanged.map((name) => `${name} (unchanged)`)
  ].join(", ")

const lineOf = ({ kind, new: after, note, offset, old, tables }: Events.Event): string =>
  [
    `${offset}  ${[kind, ...(tables.length === 0 ? [] : [tables.join(", ")]), note ?? []].flat().join(" ")}`,
    ...(old === undefined ? [] : [`    old: ${cells(old)}`]),
    ...(after === undefined ? [] : [`    new: ${cells(after)}`])
  ].join("\n")

/** What it holds back: whole tables, and how many rows of the others. */
const holdsOf = (held: Held.Held) =>
  Held.keysOf(held).counts.map(({ rows, table }) => ({ table, rows: rows ?? ("all" as const) }))

const show = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "show",
    {
      short: "Show one transaction and its events",
      description:
        "Show one transaction: why it is held, what it holds back, who follows it, and its events in order. Values of " +
        "rows are shown with --values only.",
      examples: [
        { command: "quarantine show 7 --config connector.yaml", description: "Everything but values" },
        { command: "quarantine show 7 --values --config connector.yaml", description: "With the values of its rows" }
      ]
    },
    {
      id: Argument.Int("id").pipe(Argument.withDescription("As `quarantine list` shows it")),
      values: Flag.Boolean("values").pipe(
        Flag.withDescription("Show the values of rows and keys, too"),
        Flag.withDefault(false)
      )
    },
    Effect.fnUntraced(function* ({ id, values }, json) {
      const { floatNull, partition, topic } = yield* ConnectorConfig
      yield* Action.looking(
        Effect.gen(function* () {
          const all = yield* Held.read("all")
          const held = all.find((one) => one.id === id)
          if (held === undefined) {
            return yield* new Held.NotHeld({
              message: `no transaction ${id} of ${topic}-${partition} is in quarantine`
            })
          }
          const stillHeld = all.filter((one) => one.id === id || one.status === "held")
          const follows = Held.leadersOf(held, stillHeld)
          const followers = Held.followersOf(held, all).filter((one) => one.class === "follows")
          const options = { withValues: values, floatNull }
          if (json) {
            const events: Array<Events.Event> = []
            yield* Events.forEachPart(held, options, (part) => Effect.sync(() => events.push(...part)))
            return yield* Operation.print(true, {
              json: {
                ...Held.factsOf(held),
                holds: holdsOf(held),
                ...(values ? { keys: held.keys } : {}),
                follows: follows.map(({ id }) => id),
                followers: followers.map(({ id, status }) => ({ id, status })),
                events
              },
              text: ""
            })
          }
          const holds = holdsOf(held).map(({ rows, table }) =>
            rows === "all" ? `${table} (all rows)` : `${table} (${counted(rows, "row")})`
          )
          const waiting = followers.map(({ id, status }) => (status === "held" ? String(id) : `${id} (${status})`))
          yield* Console.log(
            [
              tableOf([held]),
              ...(held.schemaChanges.length === 0
                ? []
                : [
                    "",
                    "Changes of the schema that were not made:",
                    ...held.schemaChanges.map((text) => `    ${text}`)
                  ]),
              "",
              wrapped(`${held.status === "held" ? "Holds back" : "Held back"}: ${holds.join(", ") || "nothing"}`, ""),
              ...(values ? held.keys.map((key) => `    ${key}`) : []),
              wrapped(`Follows: ${idsOf(follows) || "none that is held"}`, ""),
              wrapped(`Followers: ${waiting.join(", ") || "none"}`, ""),
              "",
              "Events:"
            ].join("\n")
          )
          yield* Events.forEachPart(held, options, (part) => Console.log(part.map(lineOf).join("\n")))
        })
      )
    })
  )

const ids = Argument.Int("id").pipe(Argument.withDescription("As `quarantine list` shows them"), Argument.variadic())

/** Either the ones that are named, or all. */
const checkIds = ({ all, ids }: { readonly all: boolean; readonly ids: ReadonlyArray<number> }) =>
  all === ids.length > 0
    ? Effect.fail(
        new CliError.ValidationError({
          message: all ? "either --all or ids are given, not both" : "the ids of transactions are missing, or --all"
        })
      )
    : Effect.void

const discard = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "discard",
    {
      short: "Give up transactions that are held",
      description:
        "Give up transactions that are held: they are never applied, and hold nothing back any more. Their records stay " +
        "in fluvio.quarantine_record.",
      examples: [
        {
          command: 'quarantine discard 7 --reason "test data" --config connector.yaml',
          description: "One; what follows it stays held"
        }
      ]
    },
    {
      ids,
      all: Flag.Boolean("all").pipe(Flag.withDescription("All that are held"), Flag.withDefault(false)),
      withFollowers: Flag.Boolean("with-followers").pipe(
        Flag.withDescription("Those that follow them, too"),
        Flag.withDefault(false)
      ),
      reason: Action.reason
    },
    Effect.fnUntraced(function* ({ all, ids, reason, withFollowers }, json) {
      const { discarded, followers } = yield* Action.doing(
        Effect.gen(function* () {
          yield* resolving
          const held = yield* Held.read("held")
          const chosen = yield* Held.choose(held, { all, ids })
          const following = new Set(chosen.flatMap((one) => Held.followersOf(one, held)))
          const discarded = held.filter((one) => chosen.includes(one) || (withFollowers && following.has(one)))
          const followers = [...following].filter((one) => !discarded.includes(one))
          for (const one of discarded) yield* Held.resolve(one, "discarded", reason)
          return { discarded, followers }
        })
      )
      const done =
        discarded.length === 0
          ? "nothing is held"
          : `discarded ${counted(discarded.length, "transaction")}: ${idsOf(discarded)}`
      const rest =
        `still held, because they touch the same rows: ${idsOf(followers)}. They were made on top of what is given up now, ` +
        "so a replay may fail, or leave rows as they never were in the source: look at each with `quarantine show`, or " +
        "discard them, too, with `--with-followers`"
      yield* Operation.print(json, {
        json: { discarded: discarded.map(({ id }) => id), followers: followers.map(({ id }) => id) },
        text: followers.length === 0 ? done : `${wrapped(done, "")}\n${wrapped(rest, "")}`
      })
    })
  ).pipe(Command.validate(({ own }) => checkIds(own)))

const answerOf = ({ failed, left, replayed }: Replay.Replayed, dryRun: boolean): Operation.Answer => {
  const done = dryRun ? "would replay" : "replayed"
  const lines = [
    replayed.length > 0
      ? `${done} ${counted(replayed.length, "transaction")}: ${idsOf(replayed)}`
      : failed === undefined
        ? "nothing is held"
        : `${done} nothing`,
    ...(failed === undefined ? [] : [`stopped at ${failed.held.id}: nothing of it is applied`]),
    ...(left.length === 0 ? [] : [`still held: ${idsOf(left)}`])
  ]
  return {
    json: {
      dryRun,
      replayed: replayed.map(({ id }) => id),
      failed:
        failed === undefined
          ? null
          : {
              id: failed.held.id,
              error: failed.error._tag,
              message: failed.error.message,
              remedy: failed.error.remedy
            },
      left: left.map(({ id }) => id)
    },
    text: lines.map((line) => wrapped(line, "")).join("\n")
  }
}

/** What is held, as `quarantine list --json` prints it. */
export const listed = Effect.map(Action.looking(Held.read("held")), (held) => ({
  transactions: held.map(Held.factsOf)
}))

/** Replays one and what follows it, for `by`; the error of the first that cannot be applied comes with the answer. */
export const replayOne = Effect.fn("Quarantine.replayOne")(function* (
  id: number,
  reason: string | undefined,
  by: string
) {
  const outcome = yield* Replay.replay({ all: false, ids: [id] }, reason, by)
  return { answer: answerOf(outcome, false), error: outcome.failed?.error }
})

const replay = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "replay",
    {
      short: "Apply transactions that are held",
      description:
        "Apply transactions that are held, and what follows them, in order and by the settings of the connector, each in a " +
        "target transaction of its own. It stops at the first that fails; those before it are applied. The connector may " +
        "run meanwhile.",
      examples: [
        { command: "quarantine replay 7 --dry-run --config connector.yaml", description: "Whether it would succeed" },
        { command: "quarantine replay --all --config connector.yaml", description: "All that is held" }
      ],
      takesAllSettings: true
    },
    {
      ids,
      all: Flag.Boolean("all").pipe(Flag.withDescription("All that are held"), Flag.withDefault(false)),
      dryRun: Flag.Boolean("dry-run").pipe(
        Flag.withDescription("Roll everything back in the end"),
        Flag.withDefault(false)
      ),
      reason: Flag.optional(Action.reason)
    },
    Effect.fnUntraced(function* ({ all, dryRun, ids, reason }, json) {
      const outcome = yield* dryRun
        ? Replay.rehearse({ all, ids })
        : Replay.replay({ all, ids }, Option.getOrUndefined(reason))
      yield* Operation.print(json, answerOf(outcome, dryRun))
      const { failed } = outcome
      if (failed !== undefined) return yield* failed.error
    })
  ).pipe(Command.validate(({ own }) => checkIds(own)))

export const command = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Command.make("quarantine").pipe(
    Command.withShortDescription("Show and resolve what was set aside"),
    Command.withDescription(
      "Show and resolve the transactions that were set aside, because `on-error` says quarantine or because they touch " +
        "rows of one that was."
    ),
    Command.withSubcommands([list(parts), show(parts), replay(parts), discard(parts)])
  )
