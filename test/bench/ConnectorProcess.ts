/** The process of {@link start} in `Connector.ts`: the connector with its real parts, and notes of when what was done. */
import { Deferred, Effect, Layer, Option, Redacted, Stream } from "effect"
import { SqlClient } from "effect/sql"
import * as Live from "../../layers/Live.ts"
import * as Connector from "../../src/Connector.ts"
import { ConnectorConfig, fromObject, parse } from "../../src/ConnectorConfig.ts"
import { FluvioConsumer, Offset } from "../../src/stream/FluvioConsumer.ts"
import { Assembler } from "../../src/stream/Assembler.ts"
import type { ConnectorTask, CommitNote, ProcessMessage } from "./Connector.ts"
import { appliers, now, processorSeconds } from "./Lab.ts"

const tell = (message: ProcessMessage) =>
  Effect.callback<void>((resume) => {
    process.send?.(message, undefined, undefined, () => resume(Effect.void))
  })

/** The notes wait in memory until the end, so that taking them costs next to nothing. */
const commits: Array<CommitNote> = []

const apply = (until: number) =>
  Effect.gen(function* () {
    const isDone = yield* Deferred.make<void>()
    const note = ({ changes, millis, position, statements }: Parameters<Parameters<typeof Connector.run>[0]>[0]) => {
      commits.push({ at: now(), offset: position.offset, changes, statements, ...millis })
      return position.offset >= until ? Deferred.succeed(isDone, undefined) : Effect.void
    }
    yield* Effect.raceFirst(Deferred.await(isDone), Connector.run(note))
  })

/** Reads the topic from its start, and with `isDecoding` also makes transactions of it. */
const read = (until: number, isDecoding: boolean) =>
  Effect.gen(function* () {
    const { acceptEpoch, floatNull, group, onError } = yield* ConnectorConfig
    const consumer = yield* FluvioConsumer
    const assembler = new Assembler({
      position: Option.none(),
      described: { relations: [], types: [] },
      appliedThrough: undefined,
      maxBytes: group.bytes,
      floatNull,
      onUnreadable: onError.decode,
      skips: [],
      acceptEpoch,
      hasTransactions: true
    })
    yield* consumer.records(Offset.make(0)).pipe(
      Stream.takeUntil((records) => records[records.length - 1].offset >= until),
      Stream.runForEach((records) => Effect.sync(() => isDecoding && assembler.push(records)))
    )
  })

const run = ({ endpoint, stage, topic, until, url }: ConnectorTask) =>
  Effect.gen(function* () {
    const begun = now()
    const cpuBefore = process.cpuUsage()
    yield* tell({ begun })
    yield* stage === "apply" ? apply(until) : read(until, stage === "decode")
    const ended = now()
    const { system, user } = process.cpuUsage(cpuBefore)
    const { maxRSS } = process.resourceUsage()
    const sql = yield* SqlClient.SqlClient
    const targetSeconds = yield* processorSeconds(yield* sql.unsafe<{ readonly pid: number }>(appliers))
    yield* tell({
      report: { begun, ended, commits, maxRss: maxRSS * 1024, cpuSeconds: (user + system) / 1e6, targetSeconds }
    })
  }).pipe(
    Effect.provide(
      Live.layer.pipe(
        Layer.provideMerge(
          Layer.effect(
            ConnectorConfig,
            parse([fromObject({ topic, url: Redacted.value(url), consumer: { endpoint } })])
          )
        )
      )
    )
  )

process.once("disconnect", () => process.exit())
process.once("message", (task: Omit<ConnectorTask, "url"> & { readonly url: string }) => {
  Effect.runPromise(run({ ...task, url: Redacted.make(task.url) })).then(
    () => process.disconnect(),
    (cause: unknown) => {
      console.error(cause)
      process.exitCode = 1
      process.disconnect()
    }
  )
})
