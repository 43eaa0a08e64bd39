/**
 * Metrics, spans and logs to an OpenTelemetry collector, as the standard `OTEL_*` variables ask for it; nothing without
 * them. Spans and logs name tables, offsets and LSNs, and never a row's value.
 */
import { NodeHttpClient } from "@effect/platform-node"
import { Config, ConfigProvider, Effect, Layer, Option } from "effect"
import { Otlp, OtlpSerialization } from "effect/observability"

const protocol = Config.Literals(["http/protobuf", "http/json"], "OTEL_EXPORTER_OTLP_PROTOCOL").pipe(
  Config.withDefault("http/protobuf" as const)
)

/** By the specification they are exported unless somebody says otherwise; effect's own default is none. */
const defaults = ConfigProvider.layerAdd(
  ConfigProvider.fromUnknown({
    OTEL_LOGS_EXPORTER: ["otlp"],
    OTEL_METRICS_EXPORTER: ["otlp"],
    OTEL_TRACES_EXPORTER: ["otlp"]
  })
)

/** `OTEL_SERVICE_NAME` prevails over `serviceName`. */
export const layer = (about: { readonly serviceName: string; readonly serviceVersion: string }) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const named = yield* Config.option(Config.String("OTEL_SERVICE_NAME"))
      const { serviceName, serviceVersion } = about
      return Otlp.layerFromConfig({
        resource: Option.isSome(named) ? { serviceVersion } : { serviceName, serviceVersion }
      }).pipe(
        Layer.provide((yield* protocol) === "http/json" ? OtlpSerialization.layerJson : OtlpSerialization.layerProtobuf)
      )
    })
  ).pipe(Layer.provide([NodeHttpClient.layerUndici, defaults]), Layer.orDie)
