/**
 * What becomes of a group: applied together, in smaller groups, in the source's order, or set aside.
 *
 * A group whose folded plan is given up is halved until the rest is small enough to be replayed change by change, and a
 * group that fails is halved until the transaction at fault is alone. So one odd transaction costs the others little.
 */
import { Effect, Predicate } from "effect"
import { ConnectorConfig } from "./ConnectorConfig.ts"
import type { FluvioError } from "./stream/FluvioConsumer.ts"
import type { Group } from "./stream/Group.ts"
import { formatLsn, type Skip } from "./stream/OffsetStore.ts"
import * as Quarantine from "./Quarantine.ts"
import { type Applied, together } from "./Applied.ts"
import * as Sink from "./Sink.ts"
import type { Pace } from "./Pace.ts"
import { FoldGivenUp, isFoldsOwn, isTooMuch, type SinkError } from "./SinkError.ts"
import type { Change, End, Piece } from "./stream/Change.ts"
import type { Relation } from "./stream/Relation.ts"

export type ApplyError =
  SinkError | FluvioError | Quarantine.QuarantineLimit | Quarantine.QuarantineResolved | Quarantine.SkipCancelled

export interface Apply {
  /**
   * Applies a group, in one target transaction or several; `plan` is what the sink has planned for it. A group that is
   * the first part of a large transaction takes the other parts from `more`; after a {@link Sink.BrokenOff} the piece
   * with which the source began again is still to come.
   */
  readonly apply: <E, R>(
    group: Group,
    plan: Sink.Plan | undefined,
    more: Effect.Effect<Piece, E, R>
  ) => Sink.Run<Applied | Sink.BrokenOff, ApplyError | E, R>
}

/** Up to so many changes are replayed in order at once, rather than in halves. */
const mostInOrder = 200

const followsMessage = "it touches rows of a transaction that is held"

/** A part of a large transaction touches what is held: what was applied of it is rolled back. */
class Follows {
  readonly _tag = "Follows"
}

const changesOf = (group: Group): number => group.reduce((sum, piece) => sum + piece.changes.length, 0)

/** Which policy speaks of the error; `undefined` for what is never one transaction's fault. */
const reasonOf = (error: SinkError): Exclude<Quarantine.Reason, "follows" | "skipped"> | undefined => {
  switch (error._tag) {
    case "ApplyFailed": {
      const { class: failureClass } = error.failure
      return failureClass === "data" || failureClass === "constraint" || failureClass === "schema"
        ? failureClass
        : undefined
    }
    case "RowConflict":
    case "RowsUnfilled":
      return "constraint"
    case "IdentityMissing":
    case "IdentityFixed":
    case "SchemaRefused":
    case "TableMissing":
    case "NotATable":
      return "schema"
    case "EventDecodeError":
    case "FloatNull":
    case "UnknownRelation":
    case "WrongArity":
      return "decode"
    default:
      return undefined
  }
}

/** The target may have been altered since it was looked at. */
const isOfShape = (error: SinkError | FoldGivenUp): boolean =>
  error._tag === "SchemaRefused" || error._tag === "TableMissing" || error._tag === "NotATable"

const isFinal = (error: unknown): boolean => Predicate.hasProperty(error, "isRetryable") && error.isRetryable === false

export const make = Effect.fn("Apply.make")(function* (sink: Sink.Sink, pace: Pace) {
  const config = yield* ConnectorConfig
  const quarantine = yield* Quarantine.make()

  const setAside = Effect.fnUntraced(function* (
    piece: Piece,
    end: End,
    found: Omit<Quarantine.Held, "epoch" | "schemaChanges">
  ) {
    const inARow = yield* quarantine.refresh
    if (inARow >= config.quarantineLimit) {
      const { offset } = end.record
      return yield* new Quarantine.QuarantineLimit({ offset, limit: inARow, reason: found.message })
    }
    const schemaChanges = yield* sink.schemaChanges(piece.changes, end.commitLsn)
    const held = { ...found, epoch: piece.epoch, schemaChanges }
    const applied = yield* sink.past(piece, end, (unsaved) => quarantine.hold(held, unsaved))
    quarantine.held(held)
    const lsn = end.commitLsn === undefined ? "" : ` (${formatLsn(end.commitLsn)})`
    yield* Effect.logWarning(
      `Set aside the transaction at offsets ${held.first} to ${end.record.offset}${lsn}: ${held.message}`
    )
    if (held.schemaChanges.length > 0) {
      yield* Effect.logWarning(
        `Its change of the schema waits for its replay, and what follows of these tables is set aside too; if you resolve it in another way, run in the target before: ${held.schemaChanges.join("; ")}`
      )
    }
    return applied
  })

  /** Passes over a transaction that an operator has asked to pass over. */
  const discard = Effect.fnUntraced(function* (
    skip: Skip,
    piece: Piece,
    end: End,
    first: Piece["first"],
    changes: ReadonlyArray<Change>
  ) {
    const schemaChanges = yield* sink.schemaChanges(piece.changes, end.commitLsn)
    const { reason: message } = skip
    const facts = { epoch: piece.epoch, reason: "skipped", sqlState: undefined, message, schemaChanges } as const
    const held: Quarantine.Held = { first, end, xid: piece.xid, changes, ...facts }
    const applied = yield* sink.past(piece, end, (unsaved) => quarantine.discard(held, unsaved, skip))
    yield* Effect.logWarning(
      `Passed over the transaction at offsets ${first} to ${end.record.offset} (${formatLsn(skip.commitLsn)}), as an operator has asked: ${message}`
    )
    if (schemaChanges.length > 0) {
      yield* Effect.logWarning(
        `Its change of the schema is not made. What follows of these tables may need it; run in the target: ${schemaChanges.join("; ")}`
      )
    }
    return applied
  })

  /** What an operator has resolved meanwhile holds nothing back. */
  const follows = Effect.fnUntraced(function* (changes: ReadonlyArray<Change>) {
    if (!quarantine.follows(changes)) return false
    yield* quarantine.refresh
    return quarantine.follows(changes)
  })

  const policyOf = (error: SinkError): "halt" | "quarantine" => {
    const reason = reasonOf(error)
    return reason === undefined ? "halt" : config.onError[reason]
  }

  /** The transaction is the one at fault: the policy of the error's class decides. */
  const judge = Effect.fnUntraced(function* (
    error: SinkError,
    piece: Piece,
    end: End,
    first: Piece["first"],
    changes: ReadonlyArray<Change>
  ) {
    const reason = reasonOf(error)
    if (reason === undefined || policyOf(error) === "halt") return yield* error
    const sqlState = error._tag === "ApplyFailed" ? error.failure.sqlState : undefined
    return yield* setAside(piece, end, {
      first,
      end,
      xid: piece.xid,
      changes,
      reason,
      sqlState,
      message: error.message
    })
  })

  const applyOne = (piece: Piece, end: End, plan?: Sink.Plan): Sink.Run<Applied, ApplyError> =>
    // A plan is older than what was resolved meanwhile.
    Effect.catchTag(tryOne(piece, end, plan), "QuarantineResolved", () => applyOne(piece, end))

  const tryOne = Effect.fnUntraced(function* (piece: Piece, end: End, plan?: Sink.Plan) {
    const { changes, first, refusal, skip, xid } = piece
    if (skip !== undefined) return yield* discard(skip, piece, end, first, changes)
    if (refusal !== undefined) return yield* judge(refusal, piece, end, first, changes)
    if (yield* follows(changes)) {
      const sqlState = undefined
      return yield* setAside(piece, end, {
        first,
        end,
        xid,
        changes,
        reason: "follows",
        sqlState,
        message: followsMessage
      })
    }
    return yield* sink.whole([piece], "folded", plan).pipe(
      // In order, each statement is about one row only; and the target's tables are looked at again.
      Effect.catchIf(
        (error) => isFoldsOwn(error) || isTooMuch(error) || isOfShape(error),
        () => sink.whole([piece], "in-order")
      ),
      Effect.tap(() => (changes.length === 0 ? Effect.void : quarantine.applied)),
      Effect.catch((error) =>
        error instanceof FoldGivenUp || error.isRetryable
          ? Effect.fail(error as SinkError)
          : judge(error, piece, end, first, changes)
      )
    )
  })

  const applyGroup = (group: Group, plan?: Sink.Plan): Sink.Run<Applied, ApplyError> => {
    const [piece] = group
    if (group.length === 1 && piece.end !== undefined) return applyOne(piece, piece.end, plan)
    const isClean = group.every(
      ({ changes, refusal, skip }) => refusal === undefined && skip === undefined && !quarantine.follows(changes)
    )
    if (!isClean) return applyHalves(group)
    pace.tries(changesOf(group))
    return sink.whole(group, "folded", plan).pipe(
      Effect.catchIf(
        (error) => isFoldsOwn(error) && changesOf(group) <= mostInOrder,
        () => sink.whole(group, "in-order")
      ),
      Effect.tap(() => (changesOf(group) === 0 ? Effect.void : quarantine.applied)),
      Effect.catch((error) => {
        if (isTooMuch(error)) {
          pace.slow()
          return Effect.andThen(Effect.logInfo(`${error.message}: going on with smaller groups`), applyHalves(group))
        }
        // No smaller group makes what the program does in it succeed.
        const isGroups = !error.isRetryable && error._tag !== "InTransactionFailed"
        return isGroups ? applyHalves(group) : Effect.fail(error as SinkError)
      })
    )
  }

  const applyHalves = Effect.fnUntraced(function* (group: Group) {
    const middle = Math.ceil(group.length / 2)
    const first = yield* applyGroup(group.slice(0, middle) as unknown as Group)
    return together(first, yield* applyGroup(group.slice(middle) as unknown as Group))
  })

  const applyParts = Effect.fnUntraced(function* <E, R>(first: Piece, more: Effect.Effect<Piece, E, R>) {
    /**
     * Its tables, in order, and what it says of their shapes. Whole tables, because the keys of a transaction that cannot
     * be held in memory cannot be either.
     */
    const touched: Array<Change> = []
    const met = new Set<Relation>()
    /** What it says of shapes and types, which counts although it is set aside. */
    const learned: Array<Change> = []
    let last = first
    let records = 0
    let bytes = 0
    let isFollowing = false
    const note = Effect.fnUntraced(function* (piece: Piece) {
      last = piece
      records += piece.records
      bytes += piece.bytes
      isFollowing ||= yield* follows(piece.changes)
      for (const change of piece.changes) {
        if (change.type === "relation" || change.type === "type") {
          learned.push(change)
          touched.push(change)
          continue
        }
        for (const relation of change.type === "truncate" ? change.relations : [change.relation]) {
          if (met.has(relation)) continue
          met.add(relation)
          touched.push({ type: "relation", offset: change.offset, relation, previous: relation })
        }
      }
    })
    const whole = (end: End): Piece => ({ ...last, changes: learned, records, bytes, end })
    const drain = Effect.gen(function* () {
      while (last.end === undefined) {
        const piece = yield* more
        if (piece.isFirst) return new Sink.BrokenOff()
        yield* note(piece)
      }
      return last.end
    })
    const follow = Effect.gen(function* () {
      const end = yield* drain
      if (end instanceof Sink.BrokenOff) return end
      return yield* setAside(whole(end), end, {
        first: first.first,
        end,
        xid: last.xid,
        changes: touched,
        reason: "follows",
        sqlState: undefined,
        message: followsMessage
      })
    })
    yield* note(first)
    const { skip } = first
    if (skip !== undefined) {
      const end = yield* drain
      return end instanceof Sink.BrokenOff ? end : yield* discard(skip, whole(end), end, first.first, touched)
    }
    if (isFollowing) return yield* follow
    const noted = Effect.gen(function* () {
      const piece = yield* more
      if (!piece.isFirst) yield* note(piece)
      return isFollowing ? yield* Effect.fail(new Follows()) : piece
    })
    return yield* sink.parts(first, noted).pipe(
      Effect.tap(() => quarantine.applied),
      Effect.catch((error) => {
        if (error instanceof Sink.BrokenOff) return Effect.succeed(error)
        if (error instanceof Follows) return follow
        // Only what is set aside needs its end; it may never come, or be hours away.
        if (policyOf(error as SinkError) === "halt") return Effect.fail(error)
        return Effect.gen(function* () {
          const end = yield* drain
          if (end instanceof Sink.BrokenOff) return end
          return yield* judge(error as SinkError, whole(end), end, first.first, touched)
        })
      })
    )
  })

  const apply: Apply = {
    apply: (group, plan, more) =>
      (group[0].end === undefined ? applyParts(group[0], more) : applyGroup(group, plan)).pipe(
        // Rows that another instance has applied meanwhile are refused for reasons that would stop this one for good.
        Effect.tapError((error) => (isFinal(error) ? sink.stillOurs : Effect.void))
      )
  }
  return apply
})
