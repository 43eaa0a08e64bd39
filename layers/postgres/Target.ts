/** The connection to the target database: one `SqlClient` for rows and position. */
import { PgClient } from "@effect/sql-pg"
import { Duration, Effect, Layer, Redacted } from "effect"
import type { SqlClient } from "effect/sql"
import { readFile } from "node:fs/promises"
import { userInfo } from "node:os"
import { TakesCopy } from "../../src/plan/Statement.ts"
import { Disconnect } from "../../src/Connections.ts"
import { ConnectorConfig, ConnectorConfigError } from "../../src/ConnectorConfig.ts"
import * as SqlFailure from "../../src/target/SqlFailure.ts"
import type { SslMode } from "../../src/TargetUrl.ts"
import * as Silence from "./Silence.ts"
import { type Address, TargetSocket, type Tls } from "./TargetSocket.ts"

interface Files {
  readonly caFile: string | undefined
  readonly certFile: string | undefined
  readonly keyFile: string | undefined
}

/** The settings that name a file, and the parameters of the URL that do the same. */
const fileNames = {
  caFile: ["target.ca-file", "sslrootcert"],
  certFile: ["target.cert-file", "sslcert"],
  keyFile: ["target.key-file", "sslkey"]
} as const

const refuse = (key: string, reason: string, remedy: string) => new ConnectorConfigError({ key, reason, remedy })

/** A file that either a setting or a parameter of the URL names. */
const readPem = Effect.fnUntraced(function* (files: Files, which: keyof Files, url: URL) {
  const [key, parameter] = fileNames[which]
  const setting = files[which]
  const inUrl = url.searchParams.get(parameter) ?? undefined
  if (setting !== undefined && inUrl !== undefined) {
    return yield* refuse(key, `is given as ${parameter} in the URL too`, "give one of them")
  }
  const path = setting ?? inUrl
  const name = setting === undefined ? `url (${parameter})` : key
  if (path === undefined || (path === "system" && which === "caFile")) return undefined
  return yield* Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: () =>
      refuse(name, `the file ${path} cannot be read`, `correct ${name}, or let the connector's user read the file`)
  })
})

/**
 * What libpq would do for the URL's `sslmode`: `require` encrypts and proves nothing, unless an authority is given;
 * `verify-ca` proves the certificate, `verify-full` its host name too. An authority without a mode means `verify-full`.
 * Without an authority, or with `sslrootcert=system`, Node's own list of public authorities decides. Without either
 * mode or authority the connection is plain.
 *
 * `prefer` and `allow` encrypt when the server offers it, and then, unlike in libpq, the certificate is also proved.
 */
const tlsOf = Effect.fn("Target.tlsOf")(function* (
  url: URL,
  files: Files
): Effect.fn.Return<Tls | undefined, ConnectorConfigError> {
  const ca = yield* readPem(files, "caFile", url)
  const cert = yield* readPem(files, "certFile", url)
  const key = yield* readPem(files, "keyFile", url)
  const passphrase = url.searchParams.get("sslpassword") ?? undefined
  const isSystem = files.caFile === "system" || url.searchParams.get("sslrootcert") === "system"
  const hasAuthority = ca !== undefined || isSystem
  const mode = (url.searchParams.get("sslmode") ?? (hasAuthority ? "verify-full" : "disable")) as SslMode
  if ((cert === undefined) !== (key === undefined)) {
    return yield* refuse(
      "url (sslcert, sslkey)",
      "a client certificate needs its key, and a key its certificate",
      "give both sslcert and sslkey, or neither; or target.cert-file and target.key-file"
    )
  }
  if (passphrase !== undefined && key === undefined) {
    return yield* refuse("url (sslpassword)", "there is no key that it opens", "give sslkey too, or remove sslpassword")
  }
  if (mode === "disable") {
    if (!hasAuthority && cert === undefined) return undefined
    return yield* refuse(
      "url (sslmode)",
      "without TLS no certificate is used",
      "add sslmode=verify-full to the URL, or remove the certificates"
    )
  }
  const certificates = {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(passphrase === undefined ? {} : { passphrase })
  }
  if (mode === "prefer" || mode === "allow") return { isRequired: false, options: certificates }
  const options = {
    ...certificates,
    rejectUnauthorized: mode !== "require" || hasAuthority,
    ...(mode === "verify-full" ? {} : { checkServerIdentity: () => undefined })
  }
  return { isRequired: true, options }
})

/** What the URL leaves out, as libpq fills it in. The driver would do the same, but neither for spans nor for a stream. */
export const addressOf = ({ hostname, port, searchParams }: URL): Address => ({
  host: searchParams.getAll("host").at(-1) ?? (decodeURIComponent(hostname.replace(/^\[(.*)\]$/, "$1")) || "localhost"),
  port: Number(searchParams.getAll("port").at(-1) ?? (port || 5432))
})

const nameOf = (url: URL): string => {
  const { host, port } = addressOf(url)
  const database = url.searchParams.get("dbname") ?? decodeURIComponent(url.pathname.slice(1))
  return `${host.includes(":") ? `[${host}]` : host}:${port}, ${database === "" ? "the role's own database" : `database ${database}`}`
}

/**
 * A pool of three: the one that applies, the one that holds the advisory lock, and one for status and operators.
 *
 * It opens connections when they are needed, so a target that is down fails the first statement, which is retried,
 * and not the start. Session settings are not sent at start-up: poolers refuse those they do not know, and the sink
 * pins its own for each transaction.
 */
export const layer: Layer.Layer<
  PgClient.PgClient | SqlClient.SqlClient,
  ConnectorConfigError | SqlFailure.SqlFailure,
  ConnectorConfig
> = Layer.suspend(() => {
  /** Those that are open, so that they can be broken all at once. */
  const sockets = new Set<TargetSocket>()
  const tracked = (socket: TargetSocket) => {
    sockets.add(socket)
    return socket.once("close", () => sockets.delete(socket))
  }
  return Layer.mergeAll(
    Layer.effect(
      SqlFailure.TargetName,
      Effect.map(ConnectorConfig, ({ url }) => nameOf(new URL(Redacted.value(url))))
    ),
    // A setting for poolers; some lose the count of what answers a COPY that fails.
    Layer.effect(
      TakesCopy,
      Effect.map(ConnectorConfig, ({ target }) => target.prepare)
    ),
    Layer.succeed(
      Disconnect,
      Effect.sync(() => sockets.forEach((socket) => socket.destroy()))
    ),
    PgClient.layerFrom(
      Effect.gen(function* () {
        const config = yield* ConnectorConfig
        const url = new URL(Redacted.value(config.url))
        const tls = yield* tlsOf(url, config.target)
        const address = addressOf(url)
        const { searchParams } = url
        const common = {
          url: config.url,
          ...address,
          ...(url.username !== "" || searchParams.has("user") ? {} : { username: userInfo().username }),
          ssl: false,
          ...(searchParams.has("application_name") ? {} : { applicationName: config.name }),
          ...(searchParams.has("connect_timeout") ? {} : { connectTimeout: Duration.seconds(10) })
        }
        const unwatched = { ...common, stream: () => tracked(new TargetSocket(address, tls)) }
        const watch = yield* Silence.watch(unwatched, config.target.timeout)
        return yield* PgClient.make({
          ...common,
          stream: () => tracked(new TargetSocket(address, tls, watch)),
          maxConnections: 3,
          prepare: config.target.prepare,
          // PostgreSQL's own limit of a message: what a target may hold, the connector can read back.
          maxMessageSize: 0x3fff_ffff
        })
      }).pipe(SqlFailure.typed)
    )
  )
})
