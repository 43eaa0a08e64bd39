/** Has every connector of a topic wait, and go on: asked through the target, so from anywhere, and kept over restarts. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import { OffsetStore } from "../stream/OffsetStore.ts"
import * as Action from "./Action.ts"
import * as Operation from "./Operation.ts"

const name = Effect.map(ConnectorConfig, ({ partition, topic }) => `${topic}-${partition}`)

/** What was before is given where it was paused already: then nothing is done. `by` is whoever the session is of. */
export const begin = Effect.fn("Pause.begin")(function* (reason: string, by?: string) {
  const { pause } = yield* OffsetStore
  const { partition, topic } = yield* ConnectorConfig
  const sql = yield* SqlClient.SqlClient
  const before = yield* Action.doing(
    Effect.gen(function* () {
      const before = yield* pause
      if (before !== undefined) return before
      yield* sql`
        INSERT INTO fluvio.pause (topic, partition, reason, paused_by)
        VALUES (${topic}, ${partition}::int4, ${reason}, ${by ?? sql.literal(Action.asker)})
      `
      yield* Action.record({ action: "pause", detail: {}, reason, by })
      return undefined
    })
  )
  const what = yield* name
  return {
    json: { paused: true, before: before ?? null },
    text:
      before === undefined
        ? `${what} is paused: a connector that runs stops within seconds, behind the group in hand`
        : `${what} was paused already, by ${before.by} at ${before.at}: ${before.reason}`
  } satisfies Operation.Answer
})

export const end = Effect.fn("Pause.end")(function* (by?: string) {
  const { pause } = yield* OffsetStore
  const { partition, topic } = yield* ConnectorConfig
  const sql = yield* SqlClient.SqlClient
  const before = yield* Action.doing(
    Effect.gen(function* () {
      const before = yield* pause
      if (before === undefined) return undefined
      yield* sql`DELETE FROM fluvio.pause WHERE topic = ${topic} AND partition = ${partition}::int4`
      yield* Action.record({ action: "resume", detail: {}, reason: undefined, by })
      return before
    })
  )
  const what = yield* name
  return {
    json: { paused: false, before: before ?? null },
    text: before === undefined ? `${what} was not paused` : `${what} goes on within seconds`
  } satisfies Operation.Answer
})

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
    ({ reason }, json) => Effect.flatMap(begin(reason), (answer) => Operation.print(json, answer))
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
    (_, json) => Effect.flatMap(end(), (answer) => Operation.print(json, answer))
  )
