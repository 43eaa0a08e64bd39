/**
 * What is done when the target does not answer: a statement may take as long as it likes, but a connection on which
 * nothing will come any more has to be given up, with what its backend still holds in the target.
 *
 * PostgreSQL itself is asked, over a connection of its own, whether the backend is at work. No limit of time alone tells
 * the two apart.
 */
import { PgConnection } from "@effect/sql-pg"
import { Clock, Duration, Effect, Option, Schedule } from "effect"
import * as SqlFailure from "../../src/target/SqlFailure.ts"
import type { Watch } from "./TargetSocket.ts"

/**
 * A backend that waits for its client waits for what never came, or for its answer to be taken. Behind a pooler in
 * transaction mode the process id is not that of a backend, and nothing can be told.
 */
const isAtWork = `
  SELECT pg_backend_pid(), (
    SELECT state IS NULL OR state NOT LIKE 'idle%' AND wait_event_type IS DISTINCT FROM 'Client'
    FROM pg_stat_activity WHERE pid = $1::int4
  )`

/** Its locks would stand in the way of the next attempt. The id may be another backend's by now, which is younger. */
const terminate = `
  SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE pid = $1::int4 AND usename = current_user
    AND backend_start < clock_timestamp() - make_interval(secs => $2::float8)`

/** How often it is tried to reach the target, once a connection was given up. */
const interval = "5 seconds"

/** `config` is for a connection that is not itself watched. */
export const watch = Effect.fnUntraced(function* (config: PgConnection.Config, timeout: Duration.Duration) {
  const scope = yield* Effect.scope
  const run = Effect.runPromiseWith(yield* Effect.context<never>())

  /** `undefined` when there is no answer here either. */
  const ask = Effect.fnUntraced(
    function* (text: string, params: ReadonlyArray<unknown>) {
      const connection = yield* PgConnection.make(config)
      const [row] = yield* connection.queryValues(text, params, false)
      return { row, processId: connection.processId }
    },
    Effect.scoped,
    SqlFailure.typed,
    Effect.timeoutOption(timeout)
  )

  const isWorking = (processId: number) =>
    ask(isAtWork, [String(processId)]).pipe(
      Effect.map((answer) => {
        if (Option.isNone(answer)) return false
        const { processId: own, row } = answer.value
        return row[0] !== own || row[1] === true
      }),
      // A server that refuses is alive.
      Effect.catch((failure) => Effect.succeed(failure.sqlState !== undefined))
    )

  const release = Effect.fnUntraced(function* (processId: number) {
    const since = yield* Clock.monotonicTimeNanos
    yield* Clock.monotonicTimeNanos.pipe(
      Effect.flatMap((now) => ask(terminate, [String(processId), String(Number(now - since) / 1e9)])),
      Effect.flatMap(Effect.fromOption),
      Effect.retry(Schedule.spaced(interval))
    )
  })

  const goOn = Effect.fnUntraced(function* (processId: number | undefined) {
    if (processId !== undefined && (yield* isWorking(processId))) {
      yield* Effect.logInfo(
        `The target has not answered for ${Duration.format(timeout)}, and is at work on what it was asked: waiting on`
      )
      return true
    }
    yield* Effect.logWarning(`The target has not answered for ${Duration.format(timeout)}: giving the connection up`)
    if (processId !== undefined) yield* Effect.forkIn(release(processId), scope)
    return false
  })

  return {
    millis: Duration.toMillis(timeout),
    goOn: (processId) => run(goOn(processId))
  } satisfies Watch
})
