/** Has every connector of a topic wait, and go on: asked through the target, so from anywhere, and kept over restarts. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import { OffsetStore } from "../stream/OffsetStore.ts"
import * as Action from "./Action.ts"
import * as Operation from "./Operation.ts"

const name = Effect.map(ConnectorConfig, ({ partition, topic }) => `${topic}-${partition}`)

export const pause = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "pause",
    {
      short: "Stop applying a topic, until resume",
      description:
        "Stop applying a topic, until resume. The connector finishes the group in hand and keeps its lock; it is asked " +
        "through the target database, and stays paused over restarts. Mind the topic's retention.",
      examples: [
        { command: 'pause --config connector.yaml --reason "index build"', description: "While an index is built" }
      ]
    },
    { reason: Action.reason },
    Effect.fnUntraced(function* ({ reason }, json) {
      const { pause } = yield* OffsetStore
      const { partition, topic } = yield* ConnectorConfig
      const sql = yield* SqlClient.SqlClient
      const before = yield* Action.doing(
        Effect.gen(function* () {
          const before = yield* pause
          if (before !== undefined) return before
          yield* sql`
            INSERT INTO fluvio.pause (topic, partition, reason, paused_by)
            VALUES (${topic}, ${partition}::int4, ${reason}, ${sql.literal(Action.asker)})
          `
          yield* Action.record({ action: "pause", detail: {}, reason })
          return undefined
        })
      )
      const what = yield* name
      yield* Operation.print(json, {
        json: { paused: true, before: before ?? null },
        text:
          before === undefined
            ? `${what} is paused: a connector that runs stops within seconds, behind the group in hand`
            : `${what} was paused already, by ${before.by} at ${before.at}: ${before.reason}`
      })
    })
  )

export const resume = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "resume",
    {
      short: "Go on applying a topic that was paused",
      examples: [{ command: "resume --config connector.yaml", description: "Go on" }]
    },
    {},
    Effect.fnUntraced(function* (_, json) {
      const { pause } = yield* OffsetStore
      const { partition, topic } = yield* ConnectorConfig
      const sql = yield* SqlClient.SqlClient
      const before = yield* Action.doing(
        Effect.gen(function* () {
          const before = yield* pause
          if (before === undefined) return undefined
          yield* sql`DELETE FROM fluvio.pause WHERE topic = ${topic} AND partition = ${partition}::int4`
          yield* Action.record({ action: "resume", detail: {}, reason: undefined })
          return before
        })
      )
      const what = yield* name
      yield* Operation.print(json, {
        json: { paused: false, before: before ?? null },
        text: before === undefined ? `${what} was not paused` : `${what} goes on within seconds`
      })
    })
  )
