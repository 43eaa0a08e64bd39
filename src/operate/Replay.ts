/**
 * Applies what was set aside, as the connector would have: through the same assembler and the same sink, from the records
 * and the shapes that were stored with it, each source transaction in a target transaction of its own, in which it is
 * resolved. The position is not touched: it lies behind it already.
 *
 * A connector may run beside it. Whatever is not resolved yet holds back what comes later, and `Quarantine.resolving`
 * says why nothing is held behind what is.
 */
import { Effect, Option, References, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import { HeldKeys } from "../HeldKeys.ts"
import { resolving } from "../Quarantine.ts"
import * as Sink from "../Sink.ts"
import { Assembler } from "../stream/Assembler.ts"
import type { Piece } from "../stream/Change.ts"
import { Offset, type Records } from "../stream/FluvioConsumer.ts"
import { type Described, OffsetStore, type Position, type Stored, type StoredRelation } from "../stream/OffsetStore.ts"
import { isRetryable } from "../stream/Outcome.ts"
import { FloatNull } from "../stream/ReplicationEvent.ts"
import type { TransactionError } from "../stream/TransactionError.ts"
import * as SqlFailure from "../target/SqlFailure.ts"
import * as Action from "./Action.ts"
import * as Held from "./Held.ts"

/** The transaction must not be replayed now, or cannot be at all. */
export class ReplayRefused extends Schema.TaggedError<ReplayRefused>()("ReplayRefused", {
  id: Schema.Natural,
  reason: Schema.String,
  remedy: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  override get message() {
    return `transaction ${this.id} cannot be replayed: ${this.reason}`
  }
}

const incomplete = "its records do not make a whole transaction"

const never = (id: number, reason: string): ReplayRefused =>
  new ReplayRefused({
    id,
    reason,
    remedy: `apply by hand what \`fluvio-postgres-sink quarantine show ${id} --values\` shows of it, then \`quarantine discard ${id}\``
  })

/** What is replayed, in order, and what would follow it but waits for others. */
export interface Chain {
  readonly members: ReadonlyArray<Held.Held>
  readonly waiting: ReadonlyArray<Held.Held>
}

/**
 * These and what follows them or, by the rows that it has `touched`, what was replayed before. It fails where one of them
 * follows another one that is held.
 */
export const chainOf = Effect.fnUntraced(function* (
  held: ReadonlyArray<Held.Held>,
  ids: ReadonlySet<number>,
  touched: HeldKeys
) {
  const members: Array<Held.Held> = []
  const waiting: Array<Held.Held> = []
  const others = new HeldKeys(Infinity)
  for (const one of held) {
    const keys = Held.keysOf(one)
    const isNamed = ids.has(one.id)
    if (!isNamed && !keys.meets(touched)) {
      others.addAll(keys)
    } else if (!keys.meets(others)) {
      members.push(one)
      touched.addAll(keys)
    } else if (isNamed) {
      const first = Held.leadersOf(one, held).filter(({ id }) => !members.some((member) => member.id === id))
      const names = first.map(({ id }) => id)
      return yield* new ReplayRefused({
        id: one.id,
        reason: `it touches rows of what was held before it and comes first: ${names.join(", ")}`,
        remedy: `replay that, and it follows: \`fluvio-postgres-sink quarantine replay ${names.join(" ")}\`; or all that is held, with \`--all\``
      })
    } else {
      waiting.push(one)
      others.addAll(keys)
    }
  }
  return { members, waiting } satisfies Chain
})

/**
 * The source's tables as the target has them before the transaction: as they were described last, but for the changes of
 * those that are still held.
 */
const describedBefore = (
  { epoch, id, shapes }: Held.Held,
  held: ReadonlyArray<Held.Held>,
  { described, position }: Stored
): Described => {
  const isCurrent = Option.match(position, { onNone: () => 0, onSome: (at): number => at.epoch }) === epoch
  const relations = new Map<number, StoredRelation>()
  const types = new Map(isCurrent ? described.types.map((type) => [type.id, type]) : [])
  if (isCurrent) for (const one of described.relations) relations.set(one.relation.id, one)
  const settled = new Set<number>()
  const changed = held.filter((other) => other.epoch === epoch && other.id !== id)
  const entries = [
    ...(shapes?.relations ?? []),
    ...changed.flatMap((other) => (other.shapes?.relations ?? []).filter(({ read }) => read !== undefined))
  ]
  for (const { applied, offset, read } of entries) {
    const relationId = (applied ?? read)?.id
    if (relationId === undefined || settled.has(relationId)) continue
    settled.add(relationId)
    if (applied === undefined) relations.delete(relationId)
    else relations.set(relationId, { relation: applied, offset: offset ?? Offset.make(0) })
  }
  for (const { namespace, ...type } of shapes?.types ?? []) {
    types.set(type.id, { ...type, namespace: namespace ?? undefined })
  }
  return { relations: [...relations.values()], types: [...types.values()] }
}

/** Its pieces, read from the target part by part. */
const piecesOf = (one: Held.Held, assembler: Assembler) => {
  const waiting: Array<Piece> = []
  let from: number = one.firstOffset
  return Effect.gen(function* () {
    while (waiting.length === 0) {
      const records = yield* Held.recordsOf(one.id, from)
      if (records.length === 0) return yield* never(one.id, incomplete)
      from = records[records.length - 1].offset + 1
      const pieces = yield* Effect.try({
        try: () => assembler.push(records as unknown as Records),
        catch: (error) => (error instanceof FloatNull ? error : never(one.id, (error as TransactionError).message))
      })
      waiting.push(...pieces)
    }
    return waiting.shift()!
  })
}

const lockOf = ({ partition, topic }: { readonly topic: string; readonly partition: number }): string =>
  `fluvio-postgres-sink/${topic}/${partition}/replay`

/** Of two commands that replay the same, one would fail on the rows of the other. */
const alone = Effect.fnUntraced(function* (one: Held.Held) {
  const sql = yield* SqlClient.SqlClient
  const lock = lockOf(yield* ConnectorConfig)
  const wait = SqlFailure.typed(sql`SELECT pg_advisory_xact_lock(hashtextextended(${lock}, 0))`)
  yield* Action.looking(Effect.andThen(wait, Held.checkHeld(one)))
})

/** Applies one in the ambient transaction, if there is one; gives what is to be told when it is committed. */
const applyOne = Effect.fnUntraced(function* (
  one: Held.Held,
  held: ReadonlyArray<Held.Held>,
  stored: Stored,
  finish: Sink.Run<void, SqlFailure.SqlFailure | Held.NotHeld, ConnectorConfig>
) {
  if (one.shapes === null) {
    return yield* never(one.id, "it was set aside by an earlier version, which did not keep the shapes of its tables")
  }
  const { floatNull, group } = yield* ConnectorConfig
  const described = describedBefore(one, held, stored)
  const before: Position = {
    offset: Offset.make(Math.max(one.firstOffset - 1, 0)),
    checksum: undefined,
    epoch: one.epoch,
    commitLsn: undefined,
    commitTime: undefined,
    latestTime: undefined
  }
  const position = one.firstOffset === 0 ? Option.none() : Option.some(before)
  const assembler = new Assembler({
    position,
    described,
    shapes: one.shapes.relations.flatMap(({ read }) => read ?? []),
    appliedThrough: undefined,
    maxBytes: group.bytes,
    floatNull,
    onUnreadable: "halt",
    skips: [],
    acceptEpoch: undefined,
    hasTransactions: false
  })
  // What the settings leave out is told by the connector.
  const sink = yield* Sink.make({ position, described, savedBy: "connector" }, { relations: [], types: [] }).pipe(
    Effect.provideService(References.MinimumLogLevel, "Warn")
  )
  const sql = yield* SqlClient.SqlClient
  return yield* Effect.andThen(alone(one), sink.again(piecesOf(one, assembler), finish)).pipe(
    Effect.catchTag("BrokenOff", () => Effect.fail(never(one.id, incomplete))),
    sql.withTransaction,
    SqlFailure.typed
  )
})

/** What came of it. */
export interface Replayed {
  readonly replayed: ReadonlyArray<Held.Held>
  /** The first that could not be applied, and why. */
  readonly failed: { readonly held: Held.Held; readonly error: ReplayError } | undefined
  /** Held as before: what comes behind the failed one, and what waits for others. */
  readonly left: ReadonlyArray<Held.Held>
}

type ReplayError = Effect.Error<ReturnType<typeof applyOne>>

interface Choice {
  readonly all: boolean
  readonly ids: ReadonlyArray<number>
}

const read = Effect.gen(function* () {
  const { inspect } = yield* OffsetStore
  return { held: yield* Held.read("held"), stored: yield* inspect }
})

/** Replays a chain until one fails. */
const each = Effect.fnUntraced(function* <R>(
  { members, waiting }: Chain,
  apply: (one: Held.Held) => Effect.Effect<void, ReplayError, R>
) {
  const replayed: Array<Held.Held> = []
  for (const held of members) {
    const error = yield* Effect.match(apply(held), { onFailure: (error) => error, onSuccess: () => undefined })
    if (error !== undefined) {
      const left = [...members.slice(replayed.length), ...waiting]
      return { replayed, failed: { held, error }, left } satisfies Replayed
    }
    replayed.push(held)
  }
  return { replayed, failed: undefined, left: waiting } satisfies Replayed
})

/** Replays these, and what follows them; also what has come to follow them meanwhile. `by` is whoever the session is of. */
export const replay = Effect.fn("Replay.replay")(function* (choice: Choice, reason: string | undefined, by?: string) {
  const touched = new HeldKeys(Infinity)
  const replayed: Array<Held.Held> = []
  let ids: ReadonlySet<number> | undefined
  for (;;) {
    const { held, stored } = yield* Action.doing(read)
    ids ??= new Set((yield* Held.choose(held, choice)).map(({ id }) => id))
    const chain = yield* chainOf(held, ids, touched)
    const done = yield* each(
      chain,
      Effect.fnUntraced(function* (one) {
        const finish = Effect.andThen(resolving, Held.resolve(one, "replayed", reason, by))
        const still = held.filter(({ id }) => !replayed.some((other) => other.id === id))
        const { told } = yield* applyOne(one, still, stored, finish)
        replayed.push(one)
        yield* told
      })
    )
    if (done.failed !== undefined || done.replayed.length === 0) return { ...done, replayed } satisfies Replayed
  }
})

/** Takes everything back that was done in the ambient transaction. */
class TakenBack {
  readonly _tag = "TakenBack"
  readonly outcome: Replayed

  constructor(outcome: Replayed) {
    this.outcome = outcome
  }
}

/** Does the same in one transaction that is rolled back. */
export const rehearse = Effect.fn("Replay.rehearse")(function* (choice: Choice) {
  const sql = yield* SqlClient.SqlClient
  const { held, stored } = yield* Action.doing(read)
  const ids = new Set((yield* Held.choose(held, choice)).map(({ id }) => id))
  const chain = yield* chainOf(held, ids, new HeldKeys(Infinity))
  const done = new Set<number>()
  return yield* each(
    chain,
    Effect.fnUntraced(function* (one) {
      const still = held.filter(({ id }) => !done.has(id))
      yield* applyOne(one, still, stored, Effect.void)
      done.add(one.id)
    })
  ).pipe(
    Effect.flatMap((outcome) => Effect.fail(new TakenBack(outcome))),
    sql.withTransaction,
    SqlFailure.typed,
    Effect.catchTag("TakenBack", ({ outcome }) => Effect.succeed(outcome))
  )
})
