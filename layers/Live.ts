/** The real composition: which parts the connector runs on. */
import { Effect, Layer } from "effect"
import { ConnectorConfig } from "../src/ConnectorConfig.ts"
import type { FluvioConsumer } from "../src/stream/FluvioConsumer.ts"
import * as ClientConsumer from "./fluvio/ClientConsumer.ts"
import * as WireConsumer from "./fluvio/WireConsumer.ts"
import * as PgOffsetStore from "./postgres/PgOffsetStore.ts"
import * as Target from "./postgres/Target.ts"

/** Reads Fluvio through the driver that `consumer.driver` names. */
export const layerConsumer: Layer.Layer<FluvioConsumer, never, ConnectorConfig> = Layer.unwrap(
  Effect.gen(function* () {
    const { consumer, partition, topic } = yield* ConnectorConfig
    const options = {
      topic,
      partition,
      endpoint: consumer.endpoint,
      profile: consumer.profile,
      profilePath: consumer.profilePath,
      maxBytes: consumer.maxBytes,
      probeInterval: consumer.probeInterval,
      timeout: consumer.timeout
    }
    return consumer.driver === "wire" ? WireConsumer.layer(options) : ClientConsumer.layer(options)
  })
)

/**
 * For a program that brings its own `SqlClient`: rows and position commit through that very instance, because a
 * transaction is bound to the instance it was opened on.
 */
export const layerFromSqlClient = Layer.mergeAll(layerConsumer, PgOffsetStore.layer)

/** Everything but the configuration. */
export const layer = layerFromSqlClient.pipe(Layer.provideMerge(Target.layer))
