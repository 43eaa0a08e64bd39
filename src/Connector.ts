/** The pipeline: records to events to transactions to groups to committed groups, and the retry around it. */
import {
  Array,
  Cause,
  Clock,
  Duration,
  Effect,
  Exit,
  Fiber,
  Latch,
  Option,
  Queue,
  Schedule,
  Schema,
  Stream
} from "effect"
import { SqlClient } from "effect/sql"
import * as Apply from "./FaultIsolation.ts"
import { ConnectorConfig } from "./ConnectorConfig.ts"
import * as Connections from "./Connections.ts"
import { type Bounds, FluvioConsumer, LeaderMoved, Offset, type Records, refusalAt } from "./stream/FluvioConsumer.ts"
import * as Failpoint from "./Failpoint.ts"
import * as Group from "./stream/Group.ts"
import { OffsetStore, type OffsetStoreError, type Position, type Stored } from "./stream/OffsetStore.ts"
import * as Sink from "./Sink.ts"
import type { Applied } from "./Applied.ts"
import { Metrics } from "./Metrics.ts"
import { Pace } from "./Pace.ts"
import * as Reporting from "./Reporting.ts"
import * as Telemetry from "./Telemetry.ts"
import * as Standby from "./Standby.ts"
import { Assembler, boundaryOf, isReadable } from "./stream/Assembler.ts"
import { type Piece } from "./stream/Change.ts"
import { BeginMissing, type TransactionError } from "./stream/TransactionError.ts"
import { isRetryable, otherTopic, positionSet, untilCaughtUp } from "./stream/Outcome.ts"

const place = { topic: Schema.String, partition: Schema.Natural }

/** Retention removed records that were not applied yet. */
export class RetentionGap extends Schema.TaggedError<RetentionGap>()("RetentionGap", {
  ...place,
  needed: Offset,
  available: Offset
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    return `nothing was skipped, and nothing proves what the removed records held: run ${positionSet("--first-whole-transaction --allow-loss")}, with the same settings; only then copy the tables from the source again, so that retention removes nothing between the two, and ${untilCaughtUp}; of tables that were altered in the source meanwhile, delete the rows in fluvio.relation, and restart the inbound connector, which then describes them again`
  }
  override get message() {
    return `${this.topic}-${this.partition} was trimmed by retention: offset ${this.needed} is needed, the first available is ${this.available}`
  }
}

/** The record at the stored position is not the one that was applied. */
export class PlaceNotProved extends Schema.TaggedError<PlaceNotProved>()("PlaceNotProved", {
  ...place,
  offset: Offset
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = `the topic was re-created or this is another cluster: ${otherTopic}`
  override get message() {
    return `the record at offset ${this.offset} of ${this.topic}-${this.partition} is not the one that was applied there`
  }
}

/** A position that was set by hand does not stand between two transactions. */
export class PlaceInsideTransaction extends Schema.TaggedError<PlaceInsideTransaction>()("PlaceInsideTransaction", {
  ...place,
  offset: Offset,
  /** Where the nearest transaction begins that is known. */
  next: Offset
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    const allow = this.next > this.offset ? "--allow-loss" : "--allow-repeat"
    return `a transaction is applied whole or not at all: run ${positionSet(`--offset ${this.next} ${allow}`)}, with the same settings, and start again`
  }
  override get message() {
    return `the position of ${this.topic}-${this.partition} was set to offset ${this.offset}, which lies inside a transaction`
  }
}

/** The rest of a transaction that is being streamed into the target does not come. */
export class RestMissing extends Schema.TaggedError<RestMissing>()("RestMissing", {
  ...place,
  /** Where the records end that have come. */
  end: Offset,
  seconds: Schema.Finite
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "check that the inbound connector of this topic runs: it sends an unfinished transaction again"
  override get message() {
    return `${this.topic}-${this.partition} ends at offset ${this.end} inside of a transaction, and for ${this.seconds} s nothing has followed`
  }
}

export type ConnectorError =
  | Apply.ApplyError
  | OffsetStoreError
  | TransactionError
  | RetentionGap
  | PlaceNotProved
  | PlaceInsideTransaction
  | Connections.TooFewConnections
  | RestMissing
  | Standby.LockLost
  | Standby.SessionsPooled

export const push = (assembler: Assembler, records: Records): Effect.Effect<ReadonlyArray<Piece>, TransactionError> =>
  Effect.try({ try: () => assembler.push(records), catch: (error) => error as TransactionError })

/** How often, and how many times, a log that seems to end before the position is looked at again. */
const settling = { interval: "250 millis", times: 20 } as const

/** How long the position of empty transactions may wait for company. */
const idlePosition = Duration.seconds(1)

/** How long it may take until a connector that runs notices that it is paused, or goes on. */
const pauseInterval = Duration.seconds(1)

/** Milliseconds that no change of the machine's clock disturbs. */
const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

/**
 * Records from behind the position on, once the record *at* it has proved that this is the log that was applied. Only
 * when retention has removed exactly that record and nothing behind it, the proof is waived with a warning.
 */
const provedRecords = (position: Position): Stream.Stream<Records, ConnectorError, FluvioConsumer> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const consumer = yield* FluvioConsumer
      const { partition, topic } = consumer
      const next = Offset.make(position.offset + 1)
      let isProved = false
      return consumer.records(position.offset).pipe(
        Stream.mapEffect((records): Effect.Effect<ReadonlyArray<Records[number]>, PlaceNotProved> => {
          if (isProved) return Effect.succeed(records)
          isProved = true
          return consumer.checksum(records[0].value) === position.checksum
            ? Effect.succeed(records.slice(1))
            : Effect.fail(new PlaceNotProved({ topic, partition, offset: position.offset }))
        }),
        Stream.filter(Array.isReadonlyArrayNonEmpty),
        Stream.catchTag("OffsetEvicted", (evicted) =>
          isProved || evicted.available !== next
            ? Stream.fail(evicted)
            : Stream.fromEffect(
                Effect.logWarning(
                  `Retention has removed the record at offset ${position.offset}: going on at ${next} without proof of place`
                )
              ).pipe(Stream.flatMap(() => consumer.records(next)))
        )
      )
    })
  )

/** Where reading starts, once it is clear that nothing between the position and the log was lost. */
export const start = Effect.fn("Connector.start")(function* ({ position, savedBy }: Stored) {
  const consumer = yield* FluvioConsumer
  const { partition, topic } = consumer
  const needed = Offset.make(Option.match(position, { onNone: () => 0, onSome: ({ offset }) => offset + 1 }))
  const gap = (needed: Offset, available: Offset) => new RetentionGap({ topic, partition, needed, available })
  // Right after a change of leaders the end may be behind for a moment.
  const bounds = yield* Effect.repeat(consumer.bounds, {
    until: ({ end }) => needed <= end,
    schedule: Schedule.spaced(settling.interval),
    times: settling.times
  })
  // Reading from beyond the end would wait for records that belong to another history.
  const refused = refusalAt({ topic, partition }, needed, bounds)
  if (refused !== undefined) {
    return yield* refused._tag === "OffsetEvicted" ? gap(needed, bounds.start) : refused
  }
  yield* Effect.logInfo(
    Option.isNone(position)
      ? `Starting at the beginning of ${topic}-${partition}, which ends at offset ${bounds.end}`
      : `Going on at offset ${needed} of ${topic}-${partition}, which ends at offset ${bounds.end}`
  )
  const isOurs = Option.isSome(position) && savedBy === "connector"
  return {
    bounds,
    needed,
    records: (isOurs ? provedRecords(position.value) : consumer.records(needed)).pipe(
      Stream.catchTag("OffsetEvicted", ({ available, requested }) =>
        // The record at the position is read only as proof.
        Stream.fail(gap(Offset.make(Math.max(requested, needed)), Offset.make(available)))
      ),
      // A moment ago it reached further: whether it still does is looked at anew.
      Stream.catchTag("OffsetBeyondEnd", ({ message }) =>
        Stream.fail(new LeaderMoved({ topic, partition, reason: message }))
      )
    )
  }
})

/** The first Begin or Commit from `from` on, in what the log holds now. */
const firstBoundary = Effect.fnUntraced(function* (from: Offset, { end }: Bounds) {
  if (from >= end) return undefined
  const consumer = yield* FluvioConsumer
  const found = yield* consumer.records(from).pipe(
    Stream.flattenArray,
    Stream.takeUntil(({ offset }) => offset >= end - 1),
    Stream.map((record) => ({ offset: record.offset, type: boundaryOf(record) })),
    Stream.filter(({ type }) => type !== undefined),
    Stream.runHead
  )
  return Option.getOrUndefined(found)
})

/** A log's first record that cannot be read may have been the Begin of what follows: whether a Begin or Commit does. */
const startsUnreadable = Effect.fnUntraced(function* (from: Offset, bounds: Bounds) {
  if (from >= bounds.end) return false
  const consumer = yield* FluvioConsumer
  const first = yield* Stream.runHead(consumer.records(from))
  if (Option.isNone(first) || isReadable(first.value[0])) return false
  return (yield* firstBoundary(from, bounds)) !== undefined
})

/**
 * A position that this connector did not save: the log before it is read once, without applying anything of it, to learn
 * the relations, the last transaction, and whether one is open there.
 */
const takeOver = Effect.fn("Connector.takeOver")(function* (
  assembler: Assembler,
  savedBy: "original" | "operator",
  bounds: Bounds,
  through: Offset
) {
  const consumer = yield* FluvioConsumer
  const { partition, topic } = consumer
  yield* savedBy === "original"
    ? Effect.logInfo(`Taking over from the original connector: learning the relations up to offset ${through}`)
    : Effect.logWarning(
        `The position was set by hand: going on behind offset ${through}. Nothing proves that what lies before it is applied; learning the relations up to there`
      )
  if (bounds.start <= through) {
    yield* consumer.records(bounds.start).pipe(
      Stream.takeUntil((records) => records[records.length - 1].offset >= through),
      Stream.runForEach((records) => {
        const applied = records.filter((record) => record.offset <= through)
        return Array.isReadonlyArrayNonEmpty(applied) ? push(assembler, applied) : Effect.void
      })
    )
  }
  const inside = (next: Offset) => new PlaceInsideTransaction({ topic, partition, offset: through, next })
  if (assembler.place === "inside" && savedBy === "operator") return yield* inside(assembler.began!)
  if (assembler.place !== "unknown") return
  // Nothing before it tells: what comes behind it does.
  const next = Offset.make(through + 1)
  const boundary = yield* firstBoundary(next, bounds)
  if (boundary === undefined) {
    if (next < bounds.end) assembler.orient()
  } else if (boundary.offset > next || boundary.type === "commit") {
    if (savedBy === "original") return yield* new BeginMissing({ offset: next })
    return yield* inside(Offset.make(boundary.type === "commit" ? boundary.offset + 1 : boundary.offset))
  }
})

/** What makes transactions of the records from the start on, as of what is stored and of what the log before it tells. */
export const assembling = Effect.fnUntraced(function* (
  stored: Stored,
  { bounds, needed }: { readonly bounds: Bounds; readonly needed: Offset }
) {
  const config = yield* ConnectorConfig
  const { skips } = yield* OffsetStore
  const { savedBy } = stored
  const through = savedBy === "connector" ? undefined : Option.getOrUndefined(stored.position)?.offset
  // A log's first record that cannot be read may have been a Begin: that shows further on.
  const isFirst = Option.isNone(stored.position) && config.onError.decode === "quarantine"
  const assembler = new Assembler({
    position: stored.position,
    described: stored.described,
    appliedThrough: through,
    maxBytes: config.group.bytes,
    floatNull: config.floatNull,
    onUnreadable: config.onError.decode,
    skips: yield* skips,
    acceptEpoch: config.acceptEpoch,
    hasTransactions: isFirst && (yield* startsUnreadable(needed, bounds))
  })
  if (through !== undefined && savedBy !== "connector") yield* takeOver(assembler, savedBy, bounds, through)
  return assembler
})

/**
 * Decodes and assembles in a fiber of its own, so that PostgreSQL and this process work at the same time. It waits when
 * pieces of `maxBytes` have not been taken yet.
 */
const readAhead = Effect.fnUntraced(function* <E, R>(
  records: Stream.Stream<Records, E, R>,
  assembler: Assembler,
  maxBytes: number,
  telemetry: Telemetry.Telemetry
) {
  const queue = yield* Queue.unbounded<ReadonlyArray<Piece>, E | TransactionError>()
  const room = yield* Latch.make(true)
  let bytes = 0
  /** When the last records came, and where they ended. */
  let heard = { at: yield* now, end: Offset.make(0) }
  let unproved: Offset | undefined
  const tellUnproved = Effect.suspend(() => {
    if (assembler.unproved === unproved) return Effect.void
    unproved = assembler.unproved
    if (unproved === undefined) return Effect.void
    return Effect.logInfo(
      `From offset ${unproved} on the source seems to send again what was applied: skipping it as soon as the transaction applied last is among it`
    )
  })
  const offer = Effect.fnUntraced(function* (pieces: ReadonlyArray<Piece>) {
    for (const piece of pieces) bytes += piece.bytes
    if (bytes >= maxBytes) yield* room.close
    yield* Queue.offer(queue, pieces)
    yield* room.await
  })
  yield* records.pipe(
    Stream.tap((chunk) =>
      Effect.map(now, (at) => {
        heard = { at, end: Offset.make(chunk[chunk.length - 1].offset + 1) }
      })
    ),
    Stream.tap(() => Failpoint.at("after fetch")),
    Stream.mapEffect((chunk) =>
      Effect.gen(function* () {
        const started = yield* now
        const pieces = yield* push(assembler, chunk)
        telemetry.heard(heard.end, (yield* now) - started)
        return pieces
        // What stands before a record that cannot be read is applied before the connector stops at it.
      }).pipe(Effect.tapError(() => (assembler.completed.length === 0 ? Effect.void : offer(assembler.completed))))
    ),
    Stream.tap(() => tellUnproved),
    Stream.tap(() => Failpoint.at("after decode")),
    // What PostgreSQL answers meanwhile is heard between two chunks: it shall not wait for this.
    Stream.tap(() => Effect.yieldNow),
    Stream.filter(Array.isReadonlyArrayNonEmpty),
    Stream.runForEach(offer),
    Effect.onExit((exit) => (Exit.isFailure(exit) ? Queue.failCause(queue, exit.cause) : Effect.void)),
    Effect.ignore,
    Effect.forkScoped
  )
  const take = Effect.gen(function* () {
    const taken = yield* Queue.takeAll(queue)
    bytes = 0
    yield* room.open
    return taken.flat()
  })
  return { queue, take, heard: () => heard }
})

/**
 * The committed groups, one after the other, from the stored position on and without end. Running it again after a
 * failure is the recovery: everything is found out anew.
 */
export const groups = Stream.unwrap(Effect.map(Telemetry.make, (telemetry) => paced(new Pace(), new Set(), telemetry)))

/** The same, in groups that are as large as `pace` allows; what is in `told` is not told again. */
const paced = (
  pace: Pace,
  told: Set<string>,
  telemetry: Telemetry.Telemetry
): Stream.Stream<Applied, ConnectorError, ConnectorConfig | FluvioConsumer | SqlClient.SqlClient | OffsetStore> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const config = yield* ConnectorConfig
      const consumer = yield* FluvioConsumer
      // The lock has a session of its own.
      yield* Connections.check(config.target.lock === "session" ? 2 : 1)
      const standingBy = Effect.map(Telemetry.now, (at) => telemetry.standingBy(at))
      /** Fails when another instance may begin to apply. */
      const lost: Effect.Effect<never, Standby.LockLost> =
        config.target.lock === "session"
          ? yield* Standby.acquire(config.topic, config.partition, standingBy)
          : Effect.never
      const store = yield* OffsetStore
      const stored = yield* store.load
      const begun = yield* start(stored)
      const { bounds, needed, records } = begun
      telemetry.started(Option.getOrUndefined(stored.position), bounds, yield* Telemetry.now)
      const assembler = yield* assembling(stored, begun)
      const sink = yield* Sink.make(stored, assembler.learned)
      if (!sink.isReplica) {
        yield* Effect.logWarning(
          "The target's role may not set session_replication_role: triggers and foreign keys of the target are at work, and their tables are applied row by row"
        )
      }
      let isMatched = false
      /** Once what the log held at the start is applied: what is missing then may be a name that is written wrong. */
      const tellUnmatched = Effect.suspend(() => {
        const unmatched = isMatched ? undefined : sink.unmatched()
        if (unmatched === undefined) return Effect.void
        isMatched = true
        const news = unmatched.filter((sentence) => !told.has(sentence))
        news.forEach((sentence) => told.add(sentence))
        return Effect.forEach(news, (sentence) => Effect.logWarning(sentence), { discard: true })
      })
      if (needed === bounds.end) yield* tellUnmatched
      const applier = yield* Apply.make(sink, pace)
      const unlessPaused = yield* pausing(telemetry)
      // Besides the group in hand, the next one is held already: together they are what the memory allows.
      const ahead = yield* readAhead(records, assembler, config.group.bytes / 4, telemetry)

      const scope = yield* Effect.scope
      const waiting = new Group.Waiting()
      let committedAt = yield* now
      /** Open while no group is being applied. */
      const idle = yield* Latch.make(true)

      const take = Effect.map(ahead.take, (pieces) => waiting.add(pieces))
      /** Whether something comes before `end`. Only looking is cut short, never taking, which would lose what was taken. */
      const takeBefore = Effect.fnUntraced(function* (end: Effect.Effect<unknown>) {
        const isThere = yield* Effect.raceFirst(Effect.as(Queue.peek(ahead.queue), true), Effect.as(end, false)).pipe(
          // What ended the reading shows when there is nothing else left to take.
          Effect.orElseSucceed(() => false)
        )
        if (isThere) yield* take
        return isThere
      })
      const takeUntil = Effect.fnUntraced(function* (time: number) {
        const left = time - (yield* now)
        return left > 0 && (yield* takeBefore(Effect.sleep(left)))
      })

      /** Waits until there is something worth a transaction: a change, or a position that is idle for long enough. */
      const gather = Effect.gen(function* () {
        const limits = pace.within(config.group)
        if (waiting.count === 0) yield* take
        while (!waiting.hasWork && waiting.count < limits.rows) {
          if (!(yield* takeUntil(committedAt + Duration.toMillis(idlePosition)))) return
        }
        if (Duration.isZero(config.group.window)) {
          if (!waiting.isFull(limits) && (yield* Queue.size(ahead.queue)) > 0) yield* take
        } else {
          const until = (yield* now) + Duration.toMillis(config.group.window)
          while (!waiting.isFull(limits)) if (!(yield* takeUntil(until))) break
        }
        // It is not its turn yet, and a large group costs the target less than two small ones.
        while (!idle.isOpen() && !waiting.isFull(limits)) if (!(yield* takeBefore(idle.await))) return
      })

      const form = Effect.gen(function* () {
        yield* gather
        const group = waiting.take(pace.within(config.group))
        return { group, plan: yield* sink.plan(group) }
      })
      /** The next group: formed and planned while the one before it is being applied. */
      let next = yield* Effect.forkIn(form, scope)
      /** Fails when nothing has come of the topic for so long that it is not worth to keep the target's rows locked. */
      const restMissing = Effect.gen(function* () {
        const limit = Duration.toMillis(config.group.restTimeout)
        const since = yield* now
        for (let left = limit; left > 0; left = Math.max(ahead.heard().at, since) + limit - (yield* now)) {
          yield* Effect.sleep(left)
        }
        const { partition, topic } = consumer
        return yield* new RestMissing({ topic, partition, end: ahead.heard().end, seconds: limit / 1000 })
      })
      /** Until there is more of the topic, reading it again would end in the same way. */
      const untilMore = Effect.fnUntraced(function* ({ end, message, topic }: RestMissing) {
        yield* Effect.logWarning(`${message}: rolled back until there is more of ${topic}`)
        yield* consumer.bounds.pipe(
          Effect.repeat({ schedule: Schedule.spaced("1 second"), until: (bounds) => bounds.end > end })
        )
      })
      /** The next piece of a streamed transaction; what begins another one is a group that has its turn later. */
      const more = Effect.gen(function* () {
        const { group } = yield* Effect.raceAllFirst([Fiber.join(next), lost, restMissing])
        const [piece] = group
        if (!piece.isFirst) next = yield* Effect.forkIn(form, scope)
        return piece
      })

      /** A topic that is quiet notices a pause too. */
      const nextUnlessPaused = Effect.gen(function* () {
        const comes = Effect.raceFirst(
          Effect.as(Fiber.await(next), true),
          Effect.as(Effect.sleep(pauseInterval), false)
        )
        while (!(yield* comes)) yield* unlessPaused
        return yield* Effect.tap(Fiber.join(next), unlessPaused)
      })

      const applyNext: Effect.Effect<Applied, ConnectorError, SqlClient.SqlClient | OffsetStore> = Effect.gen(
        function* () {
          const { group, plan } = yield* Effect.raceFirst(nextUnlessPaused, lost)
          const isStreamed = group[0].end === undefined
          // A streamed transaction waits for its next part, which therefore must not wait for it.
          if (!isStreamed) yield* idle.close
          next = yield* Effect.forkIn(form, scope)
          // A group in hand is finished before a shutdown; only a streamed transaction may be given up in the middle.
          const applying = Effect.ensuring(traced(group, applier.apply(group, plan, more)), idle.open)
          const applied = yield* isStreamed
            ? Effect.tapError(applying, (error) =>
                error instanceof RestMissing ? Effect.raceFirst(untilMore(error), lost) : Effect.void
              )
            : Effect.uninterruptible(applying)
          pace.applied()
          committedAt = yield* now
          if (!(applied instanceof Sink.BrokenOff) && applied.position.offset >= bounds.end - 1) yield* tellUnmatched
          return applied instanceof Sink.BrokenOff ? yield* applyNext : applied
        }
      )
      return Stream.fromEffectRepeat(applyNext)
    })
  ).pipe(
    // A program's own client may rename the columns of its results; the connector reads them as it has asked for them.
    Stream.updateService(SqlClient.SqlClient, (sql) => sql.withoutTransforms())
  )

/** Gives what passes at once, or when the topic is not paused any more; it asks at most once a second. */
const pausing = Effect.fnUntraced(function* (telemetry: Telemetry.Telemetry) {
  const { pause } = yield* OffsetStore
  const { partition, topic } = yield* FluvioConsumer
  let askedAt = -Infinity
  return Effect.gen(function* () {
    if ((yield* now) - askedAt < Duration.toMillis(pauseInterval)) return
    let asked = yield* pause
    if (asked !== undefined) {
      yield* Effect.logWarning(`Paused by ${asked.by}: ${asked.reason}; \`fluvio-postgres-sink resume\` ends it`)
      telemetry.paused(asked, yield* Telemetry.now)
      for (; asked !== undefined; asked = yield* pause) yield* Effect.sleep(pauseInterval)
      telemetry.resumed(yield* Telemetry.now)
      yield* Effect.logInfo(`Resumed: going on with ${topic}-${partition}`)
    }
    askedAt = yield* now
  })
})

/** One span per group, around those of its statements. */
const traced = <E, R>(group: Group.Group, apply: Effect.Effect<Applied | Sink.BrokenOff, E, R>) =>
  apply.pipe(
    Effect.tap((applied) =>
      applied instanceof Sink.BrokenOff
        ? Effect.void
        : Effect.annotateCurrentSpan({
            offset: applied.position.offset,
            transactions: applied.transactions,
            changes: applied.changes,
            "plan.ms": applied.millis.plan,
            "execute.ms": applied.millis.execute,
            "commit.ms": applied.millis.commit
          })
    ),
    Effect.withSpan("group", { attributes: { "first.offset": group[0].first } })
  )

/** Fewer rows may get through where many always meet a lock, another session, or a limit of the target. */
const isAboutRows = (error: ConnectorError): boolean =>
  error._tag === "ApplyFailed" && ["serialization", "lock", "timeout", "resource"].includes(error.failure.class)

/** The same failure is told at the first, second, fourth, … try: a target that is away for a night fills no log. */
const sayTryingAgain = () => {
  let told: string | undefined
  return ({ attempt, duration, input }: Schedule.Metadata<unknown, ConnectorError>) => {
    if (input.message === told && !Number.isInteger(Math.log2(attempt))) return Effect.void
    told = input.message
    const pause = `${(Duration.toMillis(duration) / 1000).toFixed(1)} s`
    return Effect.logWarning(
      attempt < 3
        ? `${input.message}; trying again in ${pause}`
        : `${input.message}; trying again in ${pause}, after ${attempt} tries without progress: ${input.remedy}`
    )
  }
}

/** Runs the connector for ever; `onApplied` is told of each committed group. Only a committed group resets the back-off. */
export const run = <R>(onApplied: (applied: Applied) => Effect.Effect<void, never, R>) =>
  Effect.gen(function* () {
    const { retry, shutdownTimeout } = yield* ConnectorConfig
    const disconnect = yield* Connections.Disconnect
    const backOff = Schedule.min([Schedule.exponential(retry.min), Schedule.spaced(retry.max)]).pipe(
      Schedule.jittered,
      Schedule.upTo({ times: retry.times ?? Infinity }),
      Schedule.setInputType<ConnectorError>(),
      Schedule.while(({ input }) => isRetryable(input)),
      Schedule.tap(sayTryingAgain()),
      Schedule.tap(({ attempt, input }) => Effect.map(Telemetry.now, (at) => telemetry.retrying(input, attempt, at))),
      Schedule.tap(({ attempt, input }) =>
        Effect.sync(() => (isAboutRows(input) && (attempt >= 3 || pace.isSlow) ? pace.slow() : undefined))
      )
    )
    const pace = new Pace()
    const config = yield* ConnectorConfig
    const telemetry = (yield* Telemetry.Listening) ?? (yield* Telemetry.make)
    telemetry.is(yield* Telemetry.ThisProcess, config)
    const metrics = new Metrics(yield* Effect.context<never>(), config)
    const stopped = Effect.fnUntraced(function* (exit: Exit.Exit<void, ConnectorError>) {
      const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
      const at = yield* Telemetry.now
      telemetry.stopped(error, at)
      metrics.update(telemetry.snapshot(at))
      yield* Reporting.tellEnd(telemetry, error, (retry.times ?? 0) + 1)
    })
    const reporting = yield* Effect.forkChild(Reporting.run(telemetry, metrics))
    const giveUp = Effect.sleep(shutdownTimeout).pipe(
      Effect.andThen(
        Effect.logWarning(
          `The group in hand was not applied within ${Duration.format(shutdownTimeout)}: it is rolled back, and read again at the next start`
        )
      ),
      Effect.andThen(Effect.repeat(disconnect, Schedule.spaced("1 second")))
    )
    const running = yield* paced(pace, new Set(), telemetry).pipe(
      Stream.tap((applied) =>
        Effect.map(Telemetry.now, (at) => {
          telemetry.applied(applied, at)
          metrics.applied(applied, at)
        })
      ),
      Stream.tap(onApplied),
      Stream.retry(backOff),
      Stream.runDrain,
      Effect.forkChild({ startImmediately: true })
    )
    yield* Fiber.join(running).pipe(
      Effect.onInterrupt(() =>
        Effect.gen(function* () {
          const givingUp = yield* Effect.forkChild(Effect.interruptible(giveUp))
          yield* Fiber.interrupt(running)
          yield* Fiber.interrupt(givingUp)
        })
      ),
      Effect.onExit((exit) => Effect.andThen(Fiber.interrupt(reporting), stopped(exit)))
    )
  })
