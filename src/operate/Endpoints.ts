/** What a connector answers over HTTP: the status page, health, status, events, metrics, and what may be asked of it. */
import { ByteSize, Cause, type Duration, Effect, Layer, Predicate, Redacted, Schedule, Schema, Stream } from "effect"
import {
  HttpIncomingMessage,
  HttpRouter,
  HttpServer,
  type HttpServerError,
  HttpServerRequest,
  HttpServerResponse
} from "effect/http"
import { PrometheusMetrics } from "effect/observability"
import { ConnectorConfig } from "../ConnectorConfig.ts"
import type { Telemetry } from "../Telemetry.ts"
import type { Answer, Services } from "./Operation.ts"
import * as Pause from "./Pause.ts"
import * as Quarantine from "./Quarantine.ts"
import * as Watch from "./Watch.ts"

/** A document that needs nothing else. */
export interface Page {
  readonly html: string
  /** Its content security policy, which allows what the document itself holds. */
  readonly policy: string
}

/** What is answered is for whoever asks now: it is not kept, not framed, and nothing else is loaded with it. */
const headers = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff"
}

const read = "GET, HEAD"
const methods: { readonly [path: string]: string } = {
  "/": read,
  "/health/live": read,
  "/health/ready": read,
  "/status": read,
  "/events": read,
  "/metrics": read,
  "/quarantine": read,
  "/pause": "POST",
  "/resume": "POST",
  "/quarantine/:id/replay": "POST"
}

/** The path as the table of methods has it. */
const patternOf = (url: string): string => url.split("?", 1)[0].replace(/^(\/quarantine\/)[^/]+(\/replay)$/, "$1:id$2")

/** How often what the target tells is asked for while somebody listens. */
const refreshEvery = "2 seconds"
/** How often it is looked whether there is something to tell, and after how many looks there is in any case. */
const look = "200 millis"
const looks = 5
/** Nobody who asks for something waits for longer; what is replayed may be large. */
const patience = "5 seconds"
const replayPatience = "1 minute"

/** One `status` event a second, and one at each change of state; the first one has the history. The last one is "stopped". */
const eventsOf = (watch: Watch.Watch, takesActions: boolean) =>
  Stream.unwrap(
    Effect.gen(function* () {
      yield* watch.refresh.pipe(Effect.repeat(Schedule.spaced(refreshEvery)), Effect.forkScoped)
      let told: string | undefined
      const next = Effect.gen(function* () {
        const isFirst = told === undefined
        let { id, state } = yield* watch.own
        for (let n = 0; state === told && n < looks; n++) {
          yield* Effect.sleep(look)
          ;({ state } = yield* watch.own)
        }
        told = state
        const history = watch.history()
        return {
          state,
          event: {
            id,
            takesActions,
            status: yield* watch.status,
            point: history.at(-1),
            ...(isFirst ? { history } : {})
          }
        }
      })
      return Stream.fromEffectRepeat(next).pipe(
        Stream.takeUntil(({ state }) => state === "stopped"),
        Stream.map(({ event }) => `event: status\ndata: ${JSON.stringify(event)}\n\n`)
      )
    })
  )

/** Whether two texts are the same; how long that takes tells nothing of where they differ. */
const isSame = (given: string, expected: string): boolean => {
  let difference = given.length ^ expected.length
  for (let n = 0; n < expected.length; n++) difference |= given.charCodeAt(n) ^ expected.charCodeAt(n)
  return difference === 0
}

const failed = (status: number, error: string) => HttpServerResponse.jsonUnsafe({ error }, { status })

/** What was done, and why not all of it. */
interface Done {
  readonly answer: Answer
  readonly error?: { readonly message: string } | undefined
}

/** Does what whoever bears the token asks for; a token that is not set is borne by nobody. */
const forBearer = <E extends { readonly message: string }, R>(
  token: Redacted.Redacted<string> | undefined,
  run: Effect.Effect<Done, E | Schema.SchemaError | HttpServerError.HttpServerError, R>,
  waits: Duration.Input = patience
) =>
  Effect.gen(function* () {
    if (token === undefined) return HttpServerResponse.empty({ status: 404 })
    const { headers } = yield* HttpServerRequest.HttpServerRequest
    if (!isSame(headers["authorization"] ?? "", `Bearer ${Redacted.value(token)}`)) {
      return HttpServerResponse.empty({ status: 401, headers: { "www-authenticate": "Bearer" } })
    }
    const { answer, error } = yield* run
    return HttpServerResponse.jsonUnsafe(
      { ...Object(answer.json), text: answer.text, ...(error === undefined ? {} : { error: error.message }) },
      { status: error === undefined ? 200 : 409 }
    )
  }).pipe(
    Effect.timeout(waits),
    Effect.catch((error) =>
      Effect.succeed(
        Schema.isSchemaError(error) || Predicate.isTagged(error, "HttpServerError")
          ? failed(400, `expected {"reason": "…"}, of at most ${mostReason} characters`)
          : Predicate.isTagged(error, "NotHeld")
            ? failed(404, error.message)
            : Predicate.isTagged(error, "ReplayRefused")
              ? failed(409, error.message)
              : failed(503, Cause.isTimeoutError(error) ? "it took too long, and was rolled back" : error.message)
      )
    )
  )

const mostReason = 200
const WithReason = Schema.Struct({
  reason: Schema.String.check(Schema.isPattern(/\S/), Schema.isMaxLength(mostReason))
})

const MayHaveReason = Schema.Struct({ reason: Schema.optionalKey(WithReason.fields.reason) })
const WithId = Schema.Struct({ id: Schema.FiniteFromString.pipe(Schema.decodeTo(Schema.Natural)) })

const replay = Effect.gen(function* () {
  const { id } = yield* HttpRouter.schemaPathParams(WithId)
  const { reason } = yield* HttpServerRequest.schemaBodyJson(MayHaveReason)
  return yield* Quarantine.replayOne(id, reason, "http")
})

const routes = (telemetry: Telemetry, page: Page) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const router = yield* HttpRouter.HttpRouter
      const context = yield* Effect.context<Services>()
      const { http } = yield* ConnectorConfig
      const watch = yield* Watch.make(telemetry)

      yield* router.add(
        "GET",
        "/",
        HttpServerResponse.text(page.html, {
          contentType: "text/html; charset=utf-8",
          headers: { "content-security-policy": page.policy }
        })
      )
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
      yield* router.add(
        "GET",
        "/quarantine",
        Quarantine.listed.pipe(
          Effect.map((listed) => HttpServerResponse.jsonUnsafe(listed)),
          Effect.timeout(patience),
          Effect.catch((error) => Effect.succeed(failed(503, error.message))),
          Effect.provideContext(context)
        )
      )
      yield* router.add(
        "GET",
        "/events",
        HttpServerResponse.stream(Stream.encodeText(eventsOf(watch, http.token !== undefined)), {
          contentType: "text/event-stream"
        })
      )

      const pause = Effect.flatMap(HttpServerRequest.schemaBodyJson(WithReason), ({ reason }) =>
        Effect.map(Pause.begin(reason, "http"), (answer) => ({ answer }))
      )
      const resume = Effect.map(Pause.end("http"), (answer) => ({ answer }))
      for (const [path, run] of [
        ["/pause", forBearer(http.token, pause)],
        ["/resume", forBearer(http.token, resume)],
        ["/quarantine/:id/replay", forBearer(http.token, replay, replayPatience)]
      ] as const) {
        yield* router.add(
          "POST",
          path,
          Effect.ensuring(run, watch.forget).pipe(
            Effect.provideContext(context),
            Effect.provideService(HttpIncomingMessage.MaxBodySize, ByteSize.kibibytes(4))
          )
        )
      }
    })
  ).pipe(Layer.merge(PrometheusMetrics.layerHttp()))

/** A path that is none, or that takes another method. */
const refuse = ({ reason }: HttpServerError.HttpServerError) => {
  if (reason._tag !== "RouteNotFound") return HttpServerResponse.empty({ status: 400 })
  const allow = methods[patternOf(reason.request.url)]
  return allow === undefined
    ? HttpServerResponse.empty({ status: 404 })
    : HttpServerResponse.empty({ status: 405, headers: { allow } })
}

/** Answers until the scope closes. */
export const serve = Effect.fn("Endpoints.serve")(function* (telemetry: Telemetry, page: Page) {
  const app = yield* HttpRouter.toHttpEffect(routes(telemetry, page))
  yield* HttpServer.serveEffect(
    app.pipe(
      Effect.catch((error) => Effect.succeed(refuse(error))),
      Effect.map((response) => HttpServerResponse.setHeaders(response, { ...headers, ...response.headers }))
    )
  )
})
