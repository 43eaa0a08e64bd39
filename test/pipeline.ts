/** The pipeline as the tests of its files script it, run it and look at it: on the mock parts, or on a real target. */
import { Context, Effect, Fiber, Layer, Logger, Option, Random, Redacted, Ref, Schedule, type Scope } from "effect"
import { assert } from "@effect/vitest"
import { crc32c } from "@node-rs/crc32"
import { TestClock } from "effect/testing"
import * as Mock from "../layers/Mock.ts"
import * as PgOffsetStore from "../layers/postgres/PgOffsetStore.ts"
import * as Target from "../layers/postgres/Target.ts"
import * as Connector from "../src/Connector.ts"
import { ConnectorConfig, type ConnectorConfigError, fromObject } from "../src/ConnectorConfig.ts"
import * as Failpoint from "../src/Failpoint.ts"
import { FluvioConsumer, type FluvioError } from "../src/stream/FluvioConsumer.ts"
import { nothingStored, type Position, type Stored } from "../src/stream/OffsetStore.ts"
import type { Relation } from "../src/stream/Relation.ts"
import type { Applied } from "../src/Applied.ts"
import type { TargetTable } from "../src/target/TargetTable.ts"
import { eventJson, lsn, type MessageFixture, offset as at } from "./events.ts"
import { targetTable } from "./tables.ts"

/** The values of the records of these messages. */
export const log = (...messages: ReadonlyArray<MessageFixture | ReadonlyArray<MessageFixture>>): Array<string> =>
  messages.flat().map((message) => eventJson(message))

/** `public.pets`, which the builders of events speak of unless told otherwise. */
export const pets: TargetTable = targetTable()

const own: ReadonlyArray<readonly [question: RegExp, name: string]> = [
  [/^SELECT pg_backend_pid/, "session"],
  [/^SELECT pg_try_advisory_lock/, "lock"],
  [/^SELECT pg_advisory_unlock_all/, "unlock"],
  [/^SELECT set_config\('session_replication_role'/, "may be replica"],
  [/^SELECT FROM pg_settings/, "time-outs"],
  [/^SELECT set_config/, "settings"],
  [/^\s*SELECT[^;]* FROM fluvio.quarantine/, "held"],
  [/^\s*WITH RECURSIVE wanted/, "catalog"],
  [/^SELECT EXISTS \(SELECT FROM /, "rows"],
  [/^DELETE FROM fluvio.decision/, "decision"],
  [/^\s*INSERT INTO fluvio.unfilled/, "unfilled"],
  [/^\s*SELECT\s+EXISTS/, "types"]
]

/** What the holder of the lock asks once a second. */
const isLockHeld = "SELECT 1"

/** A statement on one line: what the connector asks on its own account as a word, the others with their parameters. */
export const line = ({ params, text }: Mock.Recorded): string =>
  own.find(([question]) => question.test(text))?.[1] ??
  (params.length === 0 ? text : `${text} -- ${params.map((param) => param ?? "NULL").join(" | ")}`)

/** Collects what is logged, each message with its level. */
export const logger = (lines: Array<string>) =>
  Logger.layer([
    Logger.make(({ logLevel, message }) => {
      lines.push(`${logLevel}: ${[message].flat().join(" ")}`)
    })
  ])

export interface Pipeline {
  /** The committed groups. */
  readonly applied: ReadonlyArray<Applied>
  /** The statements since the last call of it, or since the start. */
  sent(): ReadonlyArray<string>
  /** The transactions that apply, each from its first statement to COMMIT or ROLLBACK, since the last call of it. */
  transactions(): ReadonlyArray<ReadonlyArray<string>>
  readonly stored: Effect.Effect<Stored>
  readonly position: Effect.Effect<Position | undefined>
  readonly logged: ReadonlyArray<string>
  append(...messages: ReadonlyArray<MessageFixture | ReadonlyArray<MessageFixture>>): Effect.Effect<void>
  trim(offset: number): Effect.Effect<void>
  commit(offset: number): Effect.Effect<void>
  fail(error: FluvioError): Effect.Effect<void>
  /** Waits until it holds; the clock stands still meanwhile. */
  until(condition: () => boolean): Effect.Effect<void>
  /** Runs everything that can run without the clock. */
  readonly settle: Effect.Effect<void>
  /** What ended the run, once it is shown that it has these facts. */
  stopped(
    facts: { readonly _tag: Connector.ConnectorError["_tag"] } & { readonly [fact: string]: unknown }
  ): Effect.Effect<Connector.ConnectorError>
  readonly interrupt: Effect.Effect<void>
}

const settle = TestClock.adjust(0).pipe(Effect.andThen(Effect.yieldNow), Effect.repeat({ times: 20 }), Effect.asVoid)

export const until = (condition: () => boolean) =>
  Effect.gen(function* () {
    for (let turn = 0; !condition(); turn++) {
      if (turn === 10_000) return yield* Effect.die(new Error(`never: ${condition}`))
      yield* Effect.yieldNow
    }
  })

const stoppedWith =
  (fiber: Fiber.Fiber<void, Connector.ConnectorError>): Pipeline["stopped"] =>
  (facts) =>
    Effect.orDie(Effect.flip(Fiber.join(fiber))).pipe(
      Effect.tap((error) => Effect.sync(() => assert.deepInclude<object>(error, facts)))
    )

/** Starts the connector on the mock parts, in the background until the scope closes. */
export const start = Effect.fnUntraced(function* (
  options: Mock.MockOptions = {}
): Effect.fn.Return<Pipeline, ConnectorConfigError, Scope.Scope> {
  const logged: Array<string> = []
  const applied: Array<Applied> = []
  const context = yield* Layer.build(Mock.layer({ tables: [pets], ...options }))
  const recording = Context.get(context, Mock.Recording)
  const records = Context.get(context, Mock.Log)
  const stored = Ref.get(Context.get(context, Mock.StoredRef))
  const fiber = yield* Connector.run((one) => Effect.sync(() => applied.push(one))).pipe(
    Effect.provideContext(context),
    Effect.provide(logger(logged)),
    // In the middle of the range, so that pauses are what the settings say.
    Effect.provideService(Random.Random, { nextDoubleUnsafe: () => 0.5, nextIntUnsafe: () => 0 }),
    Effect.forkScoped
  )
  let seen = 0
  const sent = () => {
    const lines = recording
      .slice(seen)
      .map(line)
      .filter((text) => text !== isLockHeld)
    seen = recording.length
    return lines
  }
  return {
    applied,
    logged,
    stored,
    position: Effect.map(stored, ({ position }) => Option.getOrUndefined(position)),
    sent,
    transactions: () => {
      const lines = sent()
      return lines.flatMap((text, at) => {
        if (text !== "settings") return []
        const end = lines.findIndex((other, n) => n > at && (other === "COMMIT" || other === "ROLLBACK"))
        return [lines.slice(at + 1, end === -1 ? lines.length : end + 1)]
      })
    },
    append: (...messages) => Effect.asVoid(records.append(log(...messages))),
    trim: (offset) => Effect.asVoid(records.trim(offset)),
    commit: (offset) => Effect.asVoid(records.commit(offset)),
    fail: (error) => records.fail(error),
    until,
    settle,
    stopped: stoppedWith(fiber),
    interrupt: Fiber.interrupt(fiber)
  }
})

/** A store that has applied everything before `offset`, the last of it a Commit with this LSN, and knows these relations. */
export const applied = (
  offset: number,
  last: MessageFixture,
  commitLsn: number,
  relations: ReadonlyArray<Relation> = []
): Stored => ({
  position: Option.some({
    offset: at(offset - 1),
    checksum: crc32c(eventJson(last)),
    epoch: 0,
    commitLsn: lsn(commitLsn),
    commitTime: 690_913_417_000_000n,
    latestTime: 690_913_417_000_000n
  }),
  described: { relations: relations.map((relation) => ({ relation, offset: at(0) })), types: [] },
  savedBy: "connector"
})

/** A store that knows these relations, and has applied nothing. */
export const knowing = (...relations: ReadonlyArray<Relation>): Stored => ({
  ...nothingStored,
  described: { relations: relations.map((relation) => ({ relation, offset: at(0) })), types: [] }
})

/** A partition in memory that several connectors read. */
export const partition = Effect.fnUntraced(function* (
  options: Mock.LogOptions = {}
): Effect.fn.Return<Context.Context<FluvioConsumer | Mock.Log>, never, Scope.Scope> {
  const config = ConnectorConfig.layerFrom([fromObject({ topic: "mock", url: "postgres://unused/unused" })])
  return yield* Layer.build(Layer.provide(Mock.layerConsumer(options), config)).pipe(Effect.orDie)
})

export interface LiveOptions {
  readonly partition: Context.Context<FluvioConsumer | Mock.Log>
  readonly url: Redacted.Redacted<string>
  readonly config?: object
  /** What happens at the named places of the pipeline. */
  readonly onPass?: (name: Failpoint.Name) => Effect.Effect<void>
}

export interface Live extends Pick<Pipeline, "applied" | "logged" | "stopped" | "interrupt"> {
  /** Waits until everything that the partition holds is applied. */
  readonly caughtUp: Effect.Effect<void>
}

/** Waits, on the real clock and for at most 20 seconds, until it holds. */
export const eventually = <E, R>(condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  condition.pipe(
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced("10 millis") }),
    Effect.timeoutOrElse({ duration: "20 seconds", orElse: () => Effect.die(new Error("it never held")) }),
    Effect.asVoid
  )

/** Starts the connector on a real target, in the background until the scope closes. */
export const startLive = Effect.fnUntraced(function* ({
  config = {},
  onPass,
  partition: records,
  url
}: LiveOptions): Effect.fn.Return<Live, never, Scope.Scope> {
  const logged: Array<string> = []
  const applied: Array<Applied> = []
  const settings = ConnectorConfig.layerFrom([
    fromObject(config),
    fromObject({ topic: "mock", url: Redacted.value(url), retry: { min: "20 millis" } })
  ])
  const parts = PgOffsetStore.layer.pipe(Layer.provideMerge(Target.layer), Layer.provideMerge(settings))
  const context = yield* Layer.build(parts).pipe(Effect.provide(logger(logged)), Effect.orDie)
  const fiber = yield* Connector.run((one) => Effect.sync(() => applied.push(one))).pipe(
    Effect.provideContext(Context.merge(context, records)),
    Effect.provide(logger(logged)),
    Effect.provideService(Failpoint.Failpoint, onPass ?? (() => Effect.void)),
    Effect.forkScoped
  )
  const stopped = stoppedWith(fiber)
  return {
    applied,
    logged,
    stopped,
    interrupt: Fiber.interrupt(fiber),
    caughtUp: Effect.gen(function* () {
      const { end } = yield* Context.get(records, FluvioConsumer).bounds
      yield* eventually(
        Effect.sync(() => applied.at(-1)?.position.offset === end - 1 || fiber.pollUnsafe() !== undefined)
      )
      const ended = fiber.pollUnsafe()
      if (ended !== undefined) return yield* Effect.die(ended)
    }).pipe(Effect.orDie)
  }
})
