/** The connector as programs that embed it start it: see docs/embedding.md. */
import { Context, Effect, Fiber, Layer, type Scope } from "effect"
import type { SqlClient } from "effect/sql"
import type { Applied } from "./Applied.ts"
import type { ConnectorConfig } from "./ConnectorConfig.ts"
import * as Connector from "./Connector.ts"
import type { Instance } from "./operate/Instance.ts"
import type { FluvioConsumer } from "./stream/FluvioConsumer.ts"
import type { OffsetStore } from "./stream/OffsetStore.ts"
import * as Telemetry from "./Telemetry.ts"

export { type ConnectorError, groups, run } from "./Connector.ts"
export { type Applying, InTransaction } from "./InTransaction.ts"

/** A connector that runs in the background. */
export class Running extends Context.Service<
  Running,
  {
    /** What it does now: what `fluvio-postgres-sink status --json` shows of an instance. */
    readonly status: Effect.Effect<Instance>
    /** Never succeeds: fails with what ended the connector. Whoever waits for it, or races with it, misses no failure. */
    readonly ended: Effect.Effect<never, Connector.ConnectorError>
  }
>()("fluvio-postgres-sink/Running") {}

/**
 * Runs the connector in the background of the scope that the layer lives in; `onApplied` is told of each committed group.
 * When the scope closes, the group in hand is finished first, within `shutdown-timeout`.
 *
 * A failure does not end the scope. It is the last line of the connector's log, an ERROR, the state `stopped` of
 * {@link Running}'s `status`, and the failure of its `ended`.
 */
export const layer = <R = never>(
  onApplied: (applied: Applied) => Effect.Effect<void, never, R> = () => Effect.void
): Layer.Layer<
  Running,
  never,
  ConnectorConfig | FluvioConsumer | SqlClient.SqlClient | OffsetStore | Exclude<R, Scope.Scope>
> =>
  Layer.effect(
    Running,
    Effect.gen(function* () {
      const telemetry = yield* Telemetry.make
      const fiber = yield* Connector.run(onApplied).pipe(
        Effect.provideService(Telemetry.Listening, telemetry),
        Effect.forkScoped({ startImmediately: true })
      )
      return Running.of({
        status: Effect.map(Telemetry.now, (at) => telemetry.snapshot(at)),
        ended: Effect.andThen(Fiber.join(fiber), Effect.never)
      })
    })
  )
