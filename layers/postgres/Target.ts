/** The connection to the target database: one `SqlClient` for rows and position. */
import { PgClient } from "@effect/sql-pg"
import { Duration, Effect, Layer, Redacted } from "effect"
import type { SqlClient } from "effect/sql"
import { readFile } from "node:fs/promises"
import { userInfo } from "node:os"
import type { ConnectionOptions } from "node:tls"
import { ConnectorConfig, ConnectorConfigError } from "../../src/ConnectorConfig.ts"
import * as SqlFailure from "../../src/SqlFailure.ts"

const modes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] as const
type Mode = (typeof modes)[number]

const isMode = (value: string): value is Mode => modes.some((mode) => mode === value)

/** A file that either a setting or a parameter of the URL names. */
const readPem = (setting: string | undefined, key: string, url: URL, parameter: string) => {
  const path = setting ?? url.searchParams.get(parameter) ?? undefined
  const name = setting === undefined ? `url (${parameter})` : key
  return path === undefined || path === "system"
    ? Effect.succeed(undefined)
    : Effect.tryPromise({
        try: () => readFile(path, "utf8"),
        catch: () =>
          new ConnectorConfigError({
            key: name,
            reason: `the file ${path} cannot be read`,
            remedy: `correct ${name}, or let the connector's user read the file`
          })
      })
}

/**
 * What libpq would do for the URL's `sslmode`: `require` encrypts and proves nothing, unless an authority is given;
 * `verify-ca` proves the certificate, `verify-full` its host name too. An authority without a mode means `verify-full`.
 * Without an authority, or with `sslrootcert=system`, Node's own list of public authorities decides. Without either
 * mode or authority the connection is plain.
 *
 * `undefined` leaves `prefer` and `allow` to the driver: encrypted when the server offers it, and then, unlike libpq,
 * also proved.
 */
export const tlsOptions = Effect.fn("Target.tlsOptions")(function* (
  url: URL,
  files: {
    readonly caFile: string | undefined
    readonly certFile: string | undefined
    readonly keyFile: string | undefined
  }
): Effect.fn.Return<ConnectionOptions | false | undefined, ConnectorConfigError> {
  const ca = yield* readPem(files.caFile, "target.ca-file", url, "sslrootcert")
  const cert = yield* readPem(files.certFile, "target.cert-file", url, "sslcert")
  const key = yield* readPem(files.keyFile, "target.key-file", url, "sslkey")
  const passphrase = url.searchParams.get("sslpassword") ?? undefined
  const isSystem = files.caFile === undefined && url.searchParams.get("sslrootcert") === "system"
  const hasAuthority = ca !== undefined || isSystem
  const mode = url.searchParams.get("sslmode") ?? (hasAuthority ? "verify-full" : "disable")
  if (!isMode(mode)) {
    return yield* new ConnectorConfigError({
      key: "url (sslmode)",
      reason: `expected one of ${modes.join(", ")}`,
      remedy: "correct sslmode in the target's URL"
    })
  }
  if (mode === "disable") return false
  if (mode === "prefer" || mode === "allow") return undefined
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(passphrase === undefined ? {} : { passphrase }),
    rejectUnauthorized: mode !== "require" || hasAuthority,
    ...(mode === "verify-full" ? {} : { checkServerIdentity: () => undefined })
  }
})

/**
 * What the URL leaves out, as libpq fills it in, and what spans would otherwise not know, because the driver does not
 * look into the URL for them.
 */
const address = ({ hostname, port, searchParams, username }: URL) => ({
  ...(username !== "" || searchParams.has("user") ? {} : { username: userInfo().username }),
  ...(hostname === "" || searchParams.has("host")
    ? {}
    : { host: decodeURIComponent(hostname.replace(/^\[(.*)\]$/, "$1")) }),
  ...(port === "" || searchParams.has("port") ? {} : { port: Number(port) })
})

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
> = PgClient.layerFrom(
  Effect.gen(function* () {
    const config = yield* ConnectorConfig
    const url = new URL(Redacted.value(config.url))
    const ssl = yield* tlsOptions(url, config.target)
    const { searchParams } = url
    return yield* PgClient.make({
      url: config.url,
      ...address(url),
      ...(ssl === undefined ? {} : { ssl }),
      ...(searchParams.has("application_name") ? {} : { applicationName: "fluvio-postgres-sink" }),
      ...(searchParams.has("connect_timeout") ? {} : { connectTimeout: Duration.seconds(10) }),
      keepAlive: Duration.seconds(30),
      maxConnections: 3,
      prepare: config.target.prepare,
      // PostgreSQL's own limit of a message: what a target may hold, the connector can read back.
      maxMessageSize: 0x3fff_ffff
    })
  }).pipe(SqlFailure.typed)
)
