/** Where the endpoints are served: a port of this machine, while the scope is open. */
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer, Predicate } from "effect"
import { HttpServer, type HttpServerError } from "effect/http"
import { createServer } from "node:http"
import { ConnectorConfigError } from "../src/ConnectorConfig.ts"
import * as Endpoints from "../src/operate/Endpoints.ts"
import type { ListenAddress } from "../src/SettingKind.ts"
import type { Telemetry } from "../src/Telemetry.ts"
import * as Page from "./Page.ts"

/** Whoever still reads when the connector ends is cut off after this time. */
const gracefulShutdownTimeout = "1 second"

const remedies: { readonly [code: string]: readonly [reason: string, remedy: string] } = {
  EADDRINUSE: ["something else listens there already", "stop it, or set http.listen to another port"],
  EACCES: ["this user may not listen there", "set http.listen to a port from 1024 on"],
  EADDRNOTAVAIL: ["this machine does not have that address", "correct the address in http.listen"],
  ENOTFOUND: ["the name of that host is not known", "correct the address in http.listen"]
}

const refused = ({ cause }: HttpServerError.ServeError) => {
  const code = Predicate.hasProperty(cause, "code") ? String(cause.code) : "unknown"
  const [reason, remedy] = remedies[code] ?? [`cannot listen there (${code})`, "correct http.listen"]
  return new ConnectorConfigError({ key: "http.listen", reason, remedy })
}

/** It answers from then on until the scope closes. */
export const serve = Effect.fnUntraced(function* (telemetry: Telemetry, listen: ListenAddress) {
  const context = yield* Layer.build(
    NodeHttpServer.layerServer(createServer, { ...listen, gracefulShutdownTimeout })
  ).pipe(Effect.mapError(refused))
  yield* Endpoints.serve(telemetry, yield* Page.load).pipe(Effect.provideContext(context))
  yield* HttpServer.addressFormattedWith((address) =>
    Effect.logInfo(`Status page, health and metrics at ${address}`)
  ).pipe(Effect.provideContext(context))
})
