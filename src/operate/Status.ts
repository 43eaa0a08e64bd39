/** How a topic's connectors are, asked through the target database, so from anywhere. */
import { Clock, Duration, Effect, Option, Schema } from "effect"
import { Flag } from "effect/cli"
import { SqlClient } from "effect/sql"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import { FluvioConsumer } from "../stream/FluvioConsumer.ts"
import { formatLsn, OffsetStore } from "../stream/OffsetStore.ts"
import { lockName } from "../Standby.ts"
import * as Action from "./Action.ts"
import { Instance } from "./Instance.ts"
import * as Operation from "./Operation.ts"

/** A session of the target's, as pg_stat_activity shows it. */
interface Session {
  readonly pid: number
  readonly role: string
  readonly applicationName: string
  readonly address: string | null
  readonly since: string
}

export interface Quarantined {
  readonly held: number
  readonly oldest: string | null
  readonly byClass: ReadonlyArray<{ readonly class: string; readonly held: number }>
}

/** The one object that the command, `/status` and the page show. */
export interface Status {
  readonly topic: string
  readonly partition: number
  /** Why the target cannot be asked; what follows is then as it was known last. `null` where it was asked just now. */
  readonly targetError: string | null
  /** The stored position: what the target holds, whoever applied it. */
  readonly position: {
    readonly offset: number
    readonly commitLsn: string | null
    readonly epoch: number
    readonly savedBy: string
  } | null
  /** What the topic holds, asked just now; `null` where it cannot be reached from here. */
  readonly log: { readonly start: number; readonly end: number } | null
  /** Records behind the position, by {@link Status.log}. */
  readonly lagRecords: number | null
  readonly pause: { readonly reason: string; readonly by: string; readonly at: string } | null
  readonly quarantine: Quarantined
  /** Whoever holds the advisory lock. */
  readonly lock: Session | null
  /** Those that report, and those that have lately stopped; the one that applies first. */
  readonly instances: ReadonlyArray<Instance & { readonly seenAt: string; readonly isAlive: boolean }>
}

/** An instance that has been silent for longer is taken for gone. */
const silence = Duration.seconds(20)

const InstanceRow = Schema.Struct({
  status: Schema.fromJsonString(Instance),
  seen_at: Schema.String,
  silent: Schema.NumberFromString
})

/** Whose advisory lock says that it applies this topic; asked where PostgreSQL's own names mean what they say. */
export const sessionOf = Effect.fnUntraced(function* (topic: string, partition: number) {
  const sql = yield* SqlClient.SqlClient
  const [session] = yield* sql<Session>`
    SELECT pid, usename AS role, application_name AS "applicationName", host(client_addr) AS address,
      to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (classid::int8 << 32 | objid::int8) = hashtextextended(${lockName(topic, partition)}, 0)
  `
  return session ?? null
})

const quarantined = Effect.fnUntraced(function* (topic: string, partition: number) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ readonly class: string; readonly held: number; readonly oldest: string }>`
    SELECT class, count(*)::int4 AS held, to_char(min(created_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS oldest
    FROM fluvio.quarantine WHERE topic = ${topic} AND partition = ${partition}::int4 AND status = 'held'
    GROUP BY class ORDER BY class
  `
  return {
    held: rows.reduce((sum, { held }) => sum + held, 0),
    oldest: rows.map(({ oldest }) => oldest).sort()[0] ?? null,
    byClass: rows.map(({ class: name, held }) => ({ class: name, held }))
  } satisfies Quarantined
})

const instances = Effect.fnUntraced(function* (topic: string, partition: number) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql`
    SELECT status::text AS status, to_char(seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS seen_at,
      extract(epoch FROM clock_timestamp() - seen_at)::int8::text AS silent
    FROM fluvio.instance WHERE topic = ${topic} AND partition = ${partition}::int4 ORDER BY seen_at DESC
  `
  const read = yield* Schema.decodeUnknownEffect(Schema.Array(InstanceRow))(rows).pipe(Effect.orElseSucceed(() => []))
  const all = read.map(({ seen_at, silent, status }) => ({
    ...status,
    seenAt: seen_at,
    isAlive: status.state !== "stopped" && silent * 1000 < Duration.toMillis(silence)
  }))
  const alive = all.filter(({ isAlive }) => isAlive)
  // Of those that are gone, the last one tells why.
  return [
    ...alive.toSorted((a, b) => Number(a.state === "standing by") - Number(b.state === "standing by")),
    ...all.filter(({ isAlive }) => !isAlive).slice(0, 1)
  ]
})

/** Writes nothing. A topic that nothing was ever applied of has no position and no instances. */
export const gather = Effect.fn("Status.gather")(function* () {
  const { partition, topic } = yield* ConnectorConfig
  const { bounds } = yield* FluvioConsumer
  const { inspect, pause } = yield* OffsetStore
  const stored = yield* inspect
  const log = yield* bounds.pipe(
    Effect.timeout("3 seconds"),
    Effect.map(({ end, start }) => ({ start, end })),
    Effect.orElseSucceed(() => null)
  )
  const position = Option.getOrNull(stored.position)
  const isNew = position === null && !(yield* hasTables)
  const rest = isNew
    ? { pause: null, quarantine: { held: 0, oldest: null, byClass: [] }, lock: null, instances: [] }
    : {
        pause: (yield* pause) ?? null,
        ...(yield* Action.looking(
          Effect.all({
            quarantine: quarantined(topic, partition),
            lock: sessionOf(topic, partition),
            instances: instances(topic, partition)
          })
        ))
      }
  const next = position === null ? 0 : position.offset + 1
  return {
    topic,
    partition,
    targetError: null,
    position:
      position === null
        ? null
        : {
            offset: position.offset,
            commitLsn: position.commitLsn === undefined ? null : formatLsn(position.commitLsn),
            epoch: position.epoch,
            savedBy: stored.savedBy
          },
    log,
    lagRecords: log === null ? null : Math.max(0, log.end - next),
    ...rest
  } satisfies Status
})

/** Whether a connector has ever run on this target. */
const hasTables = Effect.map(
  Action.looking(
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql<{ readonly exists: boolean }>`SELECT to_regclass('fluvio.instance') IS NOT NULL AS exists`
    )
  ),
  ([row]) => row?.exists === true
)

const number = new Intl.NumberFormat("en")
const span = (seconds: number) => Duration.format(Duration.seconds(Math.round(seconds)))

const cells = (...texts: ReadonlyArray<string>) => texts.map((text) => text.padStart(12)).join("")

const row = (name: string, text: string) => `${name.padEnd(12)}${text}`

/** For a terminal of 80 columns. */
export const render = (status: Status, now: number): string => {
  const [first] = status.instances
  const live = first?.isAlive === true ? first : undefined
  const ago = (iso: string) => `${span(Math.max(0, (now - Date.parse(iso)) / 1000))} ago`
  const lines = [
    row("topic", `${status.topic}-${status.partition}`),
    row(
      "state",
      status.pause !== null
        ? `paused by ${status.pause.by}: ${status.pause.reason}`
        : live === undefined
          ? first === undefined
            ? "no connector has reported"
            : `not running; last seen ${ago(first.seenAt)}, ${first.state}`
          : `${live.state}, since ${live.since}`
    ),
    row(
      "position",
      status.position === null
        ? "nothing is applied yet"
        : `offset ${status.position.offset}${status.position.commitLsn === null ? "" : `, LSN ${status.position.commitLsn}`}, epoch ${status.position.epoch}`
    ),
    row(
      "topic holds",
      status.log === null ? "not reachable from here" : `offsets ${status.log.start} to before ${status.log.end}`
    )
  ]
  if (status.lagRecords !== null) {
    const seconds = live?.lag?.seconds
    const bytes = live?.lag?.bytes
    lines.push(
      row(
        "lag",
        [
          `${number.format(status.lagRecords)} records`,
          ...(status.lagRecords > 0 && typeof bytes === "number" ? [`about ${number.format(bytes)} bytes`] : []),
          ...(status.lagRecords > 0 && typeof seconds === "number" ? [span(seconds)] : [])
        ].join(", ")
      )
    )
  }
  if (live !== undefined) {
    const { catchUpSeconds, log, rate } = live
    lines.push(row("rate", `${number.format(rate.records)} records/s, ${number.format(rate.changes)} changes/s`))
    if (catchUpSeconds !== null && catchUpSeconds > 0) lines.push(row("caught up", `in about ${span(catchUpSeconds)}`))
    if (log !== null) {
      const time = log.headRoomSeconds === null ? "" : `, ${(log.headRoomSeconds / 3600).toFixed(1)} h`
      lines.push(
        row(
          "head-room",
          log.start === 0 ? "retention has removed nothing yet" : `${number.format(log.headRoomRecords)} records${time}`
        )
      )
    }
  }
  lines.push(
    row(
      "lock",
      status.lock === null
        ? "held by nobody"
        : `held by ${status.lock.applicationName || "a session"} (${status.lock.role}@${status.lock.address ?? "local"}, pid ${status.lock.pid})`
    )
  )
  for (const { host, name, pid, state, version } of status.instances.filter(({ isAlive }) => isAlive)) {
    lines.push(row("instance", `${name} ${version} on ${host || "?"}, pid ${pid}: ${state}`))
  }
  const { quarantine } = status
  lines.push(
    row(
      "quarantine",
      quarantine.held === 0
        ? "empty"
        : `${quarantine.held} held since ${quarantine.oldest} (${quarantine.byClass.map(({ class: name, held }) => `${name} ${held}`).join(", ")})`
    )
  )
  const trouble = first?.troubles[0]
  if (trouble !== undefined) {
    lines.push(row("last error", `${ago(trouble.at)}: ${trouble.error}: ${trouble.message}`))
    if (trouble.remedy !== null) lines.push(row("", trouble.remedy))
  }
  if (live !== undefined && live.tables.length > 0) {
    const width = Math.max(5, ...live.tables.map(({ table }) => table.length))
    lines.push("", `${"table".padEnd(width)}${cells("inserts", "updates", "deletes", "truncates")}  last change`)
    for (const { delete: deletes, insert, lastChange, table, truncate, update } of live.tables) {
      const counts = cells(...[insert, update, deletes, truncate].map((count) => number.format(count)))
      lines.push(`${table.padEnd(width)}${counts}  ${ago(lastChange)}`)
    }
  }
  return lines.join("\n")
}

export const command = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "status",
    {
      short: "Show how a topic's connectors are",
      description:
        "Show how a topic's connectors are: position, lag, rate, tables, quarantine, last error, who holds the lock and who " +
        "stands by. It is asked through the target database, so from anywhere, and writes nothing.",
      examples: [
        { command: "status --config connector.yaml", description: "In one look" },
        {
          command: "status --config connector.yaml --max-lag 10000",
          description: "For a monitor: exit code 3 if not well"
        }
      ]
    },
    {
      maxLag: Flag.Int("max-lag").pipe(
        Flag.withDescription("Exit with 3 unless a connector applies, or waits with, at most so many records of lag"),
        Flag.withMetavar("records"),
        Flag.optional
      )
    },
    Effect.fnUntraced(function* ({ maxLag }, json) {
      const status = yield* gather()
      yield* Operation.print(json, { json: status, text: render(status, yield* Clock.currentTimeMillis) })
      if (Option.isNone(maxLag)) return
      const isApplying = status.instances.some(
        ({ isAlive, state }) => isAlive && (state === "following" || state === "catching up")
      )
      const lag = status.lagRecords ?? status.instances[0]?.lag?.records ?? Infinity
      if (isApplying && lag <= maxLag.value) return
      return yield* new Operation.NotReady({
        message: isApplying
          ? `the lag is ${lag} records, more than ${maxLag.value}`
          : "no connector applies this topic",
        remedy: isApplying ? "wait, and see the rate above" : "start it, or see its last error above"
      })
    })
  )
