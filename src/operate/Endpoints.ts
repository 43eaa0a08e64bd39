/** What a connector answers over HTTP: health, status, metrics, and what may be asked of it. */
import { Effect, Layer } from "effect"
import { HttpRouter, HttpServer, type HttpServerError, HttpServerResponse } from "effect/http"
import { PrometheusMetrics } from "effect/observability"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import type { Telemetry } from "../Telemetry.ts"
import * as Watch from "./Watch.ts"

/** What is answered is for whoever asks now: it is not kept, not framed, and nothing else is loaded with it. */
const headers = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff"
}

const methods: { readonly [path: string]: string } = {
  "/health/live": "GET, HEAD",
  "/health/ready": "GET, HEAD",
  "/status": "GET, HEAD",
  "/metrics": "GET, HEAD"
}

const routes = (telemetry: Telemetry) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const router = yield* HttpRouter.HttpRouter
      const { http } = yield* ConnectorConfig
      const watch = yield* Watch.make(telemetry)

      yield* router.add("GET", "/health/live", HttpServerResponse.jsonUnsafe({ isLive: true }))
      yield* router.add(
        "GET",
        "/health/ready",
        Effect.map(watch.own, (own) => {
          const readiness = Watch.readiness(own, http.readyLag)
          return HttpServerResponse.jsonUnsafe(readiness, { status: readiness.isReady ? 200 : 503 })
        })
      )
      yield* router.add(
        "GET",
        "/status",
        Effect.andThen(
          watch.refresh,
          Effect.map(watch.status, (status) => HttpServerResponse.jsonUnsafe(status))
        )
      )
    })
  ).pipe(Layer.merge(PrometheusMetrics.layerHttp()))

/** A path that is none, or that takes another method. */
const refuse = ({ reason }: HttpServerError.HttpServerError) => {
  if (reason._tag !== "RouteNotFound") return HttpServerResponse.empty({ status: 400 })
  const allow = methods[reason.request.url.split("?", 1)[0]]
  return allow === undefined
    ? HttpServerResponse.empty({ status: 404 })
    : HttpServerResponse.empty({ status: 405, headers: { allow } })
}

/** Answers until the scope closes. */
export const serve = Effect.fn("Endpoints.serve")(function* (telemetry: Telemetry) {
  const app = yield* HttpRouter.toHttpEffect(routes(telemetry))
  yield* HttpServer.serveEffect(
    app.pipe(
      Effect.catch((error) => Effect.succeed(refuse(error))),
      Effect.map(HttpServerResponse.setHeaders(headers))
    )
  )
})
