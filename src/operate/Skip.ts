/** Has one source transaction passed over whole: asked through the target, and done by whatever connector comes to it. */
import { Effect, Option, Schema } from "effect"
import { Flag } from "effect/cli"
import { SqlClient } from "effect/sql"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import { FluvioConsumer, Offset } from "../stream/FluvioConsumer.ts"
import { formatLsn, type Lsn, OffsetStore, type Stored } from "../stream/OffsetStore.ts"
import { isRetryable } from "../stream/Outcome.ts"
import * as Action from "./Action.ts"
import { eventOf } from "./Boundaries.ts"
import * as Operation from "./Operation.ts"
import { lsnFlag, nextOf, scan } from "./Position.ts"

/** The transaction cannot be passed over, or not any more. */
export class SkipRefused extends Schema.TaggedError<SkipRefused>()("SkipRefused", {
  message: Schema.String,
  remedy: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
}

const epochOf = ({ position }: Stored): number =>
  Option.match(position, { onNone: () => 0, onSome: ({ epoch }) => epoch })

/** Only what is not applied yet can be passed over. */
const checkAhead = ({ position }: Stored, lsn: Lsn): Effect.Effect<void, SkipRefused> => {
  const applied = Option.getOrUndefined(position)?.commitLsn
  return applied === undefined || lsn > applied
    ? Effect.void
    : Effect.fail(
        new SkipRefused({
          message: `transaction ${formatLsn(lsn)} lies at or before the position, ${formatLsn(applied)}: it is applied, or was passed over`,
          remedy: "see `fluvio-postgres-sink position show`, and correct the rows in the target if it must not count"
        })
      )
}

interface Transaction {
  readonly firstOffset: Offset
  /** `null` while its Commit has not come. */
  lastOffset: Offset | null
}

/** Where the topic has the transaction, from the position on. */
const find = Effect.fnUntraced(function* (lsn: Lsn, stored: Stored) {
  const { bounds, partition, topic } = yield* FluvioConsumer
  const { end, start } = yield* bounds
  let found: Transaction | undefined
  let isOpen = false
  yield* scan(Offset.make(Math.max(start, nextOf(stored.position))), end, (records) => {
    for (const record of records) {
      const event = eventOf(record)
      if (event?.type === "begin") {
        if (found !== undefined && event.finalLsn > lsn) return true
        isOpen = event.finalLsn === lsn
        // What was broken off is sent again.
        if (isOpen) found = { firstOffset: record.offset, lastOffset: null }
      } else if (event?.type === "commit" && isOpen && found !== undefined) {
        found.lastOffset = record.offset
        return true
      }
    }
    return false
  })
  if (found !== undefined) return found
  return yield* new SkipRefused({
    message: `${topic}-${partition} holds no transaction with the commit LSN ${formatLsn(lsn)} behind the position`,
    remedy: "take the LSN from the connector's error, or from its log"
  })
})

const cancel = Effect.fnUntraced(function* (lsn: Lsn, epoch: number) {
  const sql = yield* SqlClient.SqlClient
  const { partition, topic } = yield* ConnectorConfig
  const commitLsn = formatLsn(lsn)
  const [row] = yield* sql<{ readonly is_done: boolean }>`
    SELECT skipped_at IS NOT NULL AS is_done FROM fluvio.skip
    WHERE topic = ${topic} AND partition = ${partition}::int4 AND epoch = ${epoch}::int4
      AND commit_lsn = ${commitLsn}::pg_lsn
    FOR UPDATE
  `
  if (row === undefined) return false
  if (row.is_done) {
    return yield* new SkipRefused({
      message: `transaction ${commitLsn} was passed over already`,
      remedy: "its records are in fluvio.quarantine"
    })
  }
  yield* sql`
    DELETE FROM fluvio.skip
    WHERE topic = ${topic} AND partition = ${partition}::int4 AND epoch = ${epoch}::int4
      AND commit_lsn = ${commitLsn}::pg_lsn
  `
  return true
})

const ask = Effect.fnUntraced(function* (lsn: Lsn, epoch: number, reason: string) {
  const sql = yield* SqlClient.SqlClient
  const { partition, topic } = yield* ConnectorConfig
  yield* sql`
    INSERT INTO fluvio.skip (topic, partition, epoch, commit_lsn, reason, asked_by)
    VALUES (${topic}, ${partition}::int4, ${epoch}::int4, ${formatLsn(lsn)}::pg_lsn, ${reason}, ${sql.literal(Action.asker)})
    ON CONFLICT (topic, partition, epoch, commit_lsn) DO UPDATE
    SET reason = EXCLUDED.reason, asked_by = EXCLUDED.asked_by, asked_at = EXCLUDED.asked_at, skipped_at = NULL
  `
})

export const command = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "skip",
    {
      short: "Pass over one source transaction whole",
      description:
        "Pass over one source transaction whole. The connector does so when it comes to it, in one target transaction with " +
        "the position: one that has stopped when it is started, one that runs at its next attempt. The transaction's records " +
        "are kept in fluvio.quarantine.",
      examples: [
        {
          command: 'skip --lsn 16/B374D848 --reason "row too large" --config connector.yaml',
          description: "The LSN is in the connector's error"
        },
        {
          command: 'skip --lsn 16/B374D848 --cancel --reason "repaired" --config connector.yaml',
          description: "Not yet done, and not wanted any more"
        }
      ]
    },
    {
      lsn: lsnFlag("lsn", "The transaction's commit LSN"),
      cancel: Flag.Boolean("cancel").pipe(
        Flag.withDescription("Take back what was asked and is not done yet"),
        Flag.withDefault(false)
      ),
      reason: Action.reason
    },
    Effect.fnUntraced(function* ({ cancel: isCancel, lsn, reason }, json) {
      const { inspect } = yield* OffsetStore
      const { partition, topic } = yield* ConnectorConfig
      const stored = yield* inspect
      const commitLsn = formatLsn(lsn)
      const epoch = epochOf(stored)
      if (isCancel) {
        const isCancelled = yield* Action.doing(
          Effect.gen(function* () {
            const isCancelled = yield* cancel(lsn, epoch)
            if (isCancelled) yield* Action.record({ action: "skip --cancel", detail: { commitLsn, epoch }, reason })
            return isCancelled
          })
        )
        return yield* Operation.print(json, {
          json: { topic, partition, commitLsn, epoch, isAsked: false, wasAsked: isCancelled },
          text: isCancelled
            ? `transaction ${commitLsn} of ${topic}-${partition} is not passed over any more`
            : `nobody has asked to pass over transaction ${commitLsn} of ${topic}-${partition}`
        })
      }
      yield* checkAhead(stored, lsn)
      const { firstOffset, lastOffset } = yield* find(lsn, stored)
      yield* Action.doing(
        Effect.gen(function* () {
          yield* checkAhead(yield* inspect, lsn)
          yield* ask(lsn, epoch, reason)
          yield* Action.record({ action: "skip", detail: { commitLsn, epoch, firstOffset, lastOffset }, reason })
        })
      )
      const offsets =
        lastOffset === null ? `from offset ${firstOffset} on` : `at offsets ${firstOffset} to ${lastOffset}`
      yield* Operation.print(json, {
        json: { topic, partition, commitLsn, epoch, firstOffset, lastOffset, isAsked: true },
        text: `transaction ${commitLsn} of ${topic}-${partition}, ${offsets}, is passed over: by a connector that runs at its next attempt, else when one is started`
      })
    })
  )
