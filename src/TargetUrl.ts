/** The target's URL: which parameters of libpq's are honoured, and why the others are refused. None is ignored. */
import { Option } from "effect"
import { nearest } from "./Nearest.ts"

const sslModes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] as const
export type SslMode = (typeof sslModes)[number]

const honoured = [
  "host",
  "port",
  "dbname",
  "user",
  "password",
  "application_name",
  "connect_timeout",
  "options",
  "sslmode",
  "sslrootcert",
  "sslcert",
  "sslkey",
  "sslpassword"
] as const

interface Refused {
  /** Values that name what happens anyway. */
  readonly isSo?: ReadonlyArray<string>
  readonly reason: string
  readonly remedy: string
}

const oneHost: Refused = {
  isSo: ["any", "disable"],
  reason: "one host is connected to, whatever it is",
  remedy: "remove it, and name the primary"
}
const noFile: Refused = {
  reason: "no file with connection parameters or passwords is read",
  remedy: "remove it, and give the whole URL by FLUVIO_PG_DATABASE_URL"
}
const noGss: Refused = {
  isSo: ["disable", "prefer", "0"],
  reason: "Kerberos is not supported",
  remedy: "remove it, and log in with a password or a client certificate"
}
const alwaysAlive: Refused = {
  isSo: ["1"],
  reason: "keep-alive is always on, with the times of this connector",
  remedy: "remove it"
}
const noRevocation: Refused = {
  reason: "lists of revoked certificates are not read",
  remedy: "remove it, and have the authority in sslrootcert sign no revoked certificate"
}
const nodesTls: Refused = {
  reason: "the versions of TLS are Node's, which begin with 1.2",
  remedy: "remove it, or set node's --tls-min-v1.3"
}
const noOauth: Refused = {
  reason: "OAuth is not supported",
  remedy: "remove it, and log in with a password or a client certificate"
}
const sslMode: Refused = { reason: "belongs to another driver", remedy: "write sslmode=require instead" }
const aSetting = (key: string): Refused => ({
  reason: "is no parameter of a connection",
  remedy: `remove it, and set ${key}`
})
const qualified: Refused = {
  reason: "has no effect, because every table is named with its schema",
  remedy: "remove it; tables.map gives tables another schema"
}

const refused: { readonly [parameter: string]: Refused } = {
  hostaddr: { reason: "the host alone says where to connect", remedy: "write the address as the host" },
  passfile: noFile,
  service: noFile,
  servicefile: noFile,
  target_session_attrs: oneHost,
  load_balance_hosts: oneHost,
  require_auth: { reason: "the server chooses how it is logged in to", remedy: "remove it, and set pg_hba.conf" },
  channel_binding: {
    isSo: ["disable", "prefer"],
    reason: "channel binding is not supported",
    remedy: "remove it; sslmode=verify-full proves the server"
  },
  client_encoding: { isSo: ["UTF8", "utf8", "UTF-8", "utf-8"], reason: "is always UTF8", remedy: "remove it" },
  fallback_application_name: { reason: "application_name says it", remedy: "write application_name instead" },
  keepalives: alwaysAlive,
  keepalives_idle: alwaysAlive,
  keepalives_interval: alwaysAlive,
  keepalives_count: alwaysAlive,
  tcp_user_timeout: alwaysAlive,
  replication: {
    isSo: ["false", "off", "no", "0"],
    reason: "the target is written to by ordinary sessions",
    remedy: "remove it"
  },
  gssencmode: noGss,
  krbsrvname: noGss,
  gsslib: noGss,
  gssdelegation: noGss,
  requirepeer: { reason: "the server's user is not looked at", remedy: "remove it" },
  requiressl: sslMode,
  sslnegotiation: {
    isSo: ["postgres"],
    reason: "TLS is always asked for in PostgreSQL's own way",
    remedy: "remove it"
  },
  sslcompression: { isSo: ["0"], reason: "TLS is never compressed", remedy: "remove it" },
  sslcertmode: { isSo: ["allow"], reason: "sslcert and sslkey say it", remedy: "remove it" },
  sslsni: { isSo: ["1"], reason: "the server's name is always sent", remedy: "remove it" },
  sslcrl: noRevocation,
  sslcrldir: noRevocation,
  sslkeylogfile: { reason: "keys of sessions are not written down", remedy: "remove it" },
  ssl_min_protocol_version: { ...nodesTls, isSo: ["TLSv1.2"] },
  ssl_max_protocol_version: nodesTls,
  min_protocol_version: { isSo: ["3.0"], reason: "the protocol is 3.0", remedy: "remove it" },
  max_protocol_version: { isSo: ["3.0"], reason: "the protocol is 3.0", remedy: "remove it" },
  scram_client_key: { reason: "only a password is logged in with", remedy: "remove it, and give the password" },
  scram_server_key: { reason: "only a password is logged in with", remedy: "remove it, and give the password" },
  oauth_issuer: noOauth,
  oauth_client_id: noOauth,
  oauth_client_secret: noOauth,
  oauth_scope: noOauth,
  // Of other drivers.
  ssl: sslMode,
  sslaccept: sslMode,
  uselibpqcompat: sslMode,
  encrypt: sslMode,
  username: { reason: "belongs to another driver", remedy: "write user instead" },
  database: { reason: "belongs to another driver", remedy: "write dbname instead" },
  ApplicationName: { reason: "belongs to another driver", remedy: "write application_name instead" },
  schema: qualified,
  currentSchema: qualified,
  search_path: qualified,
  pgbouncer: aSetting("target.prepare: false and target.lock: none"),
  statement_timeout: aSetting("target.statement-timeout"),
  lock_timeout: aSetting("target.lock-timeout"),
  synchronous_commit: aSetting("target.synchronous-commit")
}

export interface Problem {
  readonly reason: string
  readonly remedy: string
}

const decode = Option.liftThrowable(decodeURIComponent)
const isDecodable = (part: string) => Option.isSome(decode(part))

const isNatural = (text: string, minimum: number, maximum: number) =>
  /^\d+$/.test(text) && Number(text) >= minimum && Number(text) <= maximum

/** The part between `user:password@` and the database. */
const hostsOf = (text: string) => (/^\w+:\/\/([^/?#]*)/.exec(text)?.[1] ?? "").split("@").at(-1) ?? ""

const problemOfValue = (name: string, value: string): Problem | undefined => {
  const expected = (what: string) => ({
    reason: `its parameter ${name} is not ${what}`,
    remedy: `correct ${name} in the URL`
  })
  if (value === "")
    return { reason: `its parameter ${name} has no value`, remedy: `give ${name} a value, or remove it` }
  if (name === "port") return isNatural(value, 1, 65_535) ? undefined : expected("a port, from 1 to 65535")
  if (name === "connect_timeout") {
    return isNatural(value, 0, 2_147_483) ? undefined : expected("a whole number of seconds, from 0 to 2147483")
  }
  if (name === "sslmode") {
    return sslModes.some((mode) => mode === value) ? undefined : expected(`one of ${sslModes.join(", ")}`)
  }
  if (name === "host" && value.includes(",")) {
    return { reason: "it names several hosts, and one is connected to", remedy: "name one host, the primary's" }
  }
  return undefined
}

const problemOfParameters = (url: URL): Problem | undefined => {
  const inAuthority = {
    host: url.hostname,
    port: url.port,
    user: url.username,
    password: url.password,
    dbname: url.pathname.slice(1)
  }
  const seen = new Set(Object.entries(inAuthority).flatMap(([name, value]) => (value === "" ? [] : [name])))
  for (const [name, value] of url.searchParams) {
    if (seen.has(name)) return { reason: `it gives ${name} twice`, remedy: `give ${name} once in the URL` }
    seen.add(name)
    if (honoured.some((known) => known === name)) {
      const problem = problemOfValue(name, value)
      if (problem !== undefined) return problem
      continue
    }
    const known = Object.hasOwn(refused, name) ? refused[name] : undefined
    if (known !== undefined) {
      if (known.isSo?.includes(value) === true) continue
      return { reason: `its parameter ${name} cannot be honoured: ${known.reason}`, remedy: known.remedy }
    }
    // A name that is near to none may be a part of a password that is not percent-encoded.
    const meant = nearest(name.toLowerCase(), honoured, 3)
    return meant === undefined
      ? { reason: "it has a parameter that is not known", remedy: `remove it; known are ${honoured.join(", ")}` }
      : { reason: `its parameter ${name} is not known; did you mean ${meant}?`, remedy: `write ${meant} in the URL` }
  }
  return undefined
}

/** What a URL should be that is none at all. */
export const expectedUrl =
  "a URL such as postgresql://user:password@host:5432/database, special characters in the password percent-encoded"

/** What keeps a URL from being used, in words that quote no value of it; what is wrong would else be found out late, or never. */
export const problemOf = (text: string): Problem | undefined => {
  const malformed = { reason: `expected ${expectedUrl}`, remedy: "correct the URL" }
  if (hostsOf(text).includes(",")) {
    return { reason: "it names several hosts, and one is connected to", remedy: "name one host, the primary's" }
  }
  if (!URL.canParse(text)) return malformed
  const url = new URL(text)
  const { hash, hostname, password, pathname, port, protocol, searchParams, username } = url
  if (!["postgres:", "postgresql:"].includes(protocol) || port === "0") return malformed
  if (hostname === "" && !searchParams.has("host")) return malformed
  if (![hostname, password, pathname, username].every(isDecodable)) return malformed
  if (hash !== "" || text.includes("#")) {
    return { reason: "it has a # in it", remedy: "write %23 for a # in a user, password or database" }
  }
  return problemOfParameters(url)
}

/** Whether a text in the wrong place may hold a password: a URL with a user, or parameters of a connection. */
export const isConnectionString = (text: string): boolean =>
  /:\/\/.*@|^\s*postgres(?:ql)?:\/\/|passw(?:or)?d\s*=/is.test(text)

const hidden = (secret: string) => `${/^\s*(\w+:\/\/)/.exec(secret)?.[1] ?? ""}…`

/** A text for messages, in which neither the given connection strings nor others show more than their scheme. */
export const withoutConnectionStrings = (text: string, given: ReadonlyArray<string>): string => {
  return given
    .filter(isConnectionString)
    .toSorted((a, b) => b.length - a.length)
    .flatMap((secret) => [secret, JSON.stringify(secret).slice(1, -1)].map((form) => ({ form, shown: hidden(secret) })))
    .reduce((shown, next) => shown.replaceAll(next.form, next.shown), text)
    .replaceAll(/(\w+:\/\/)[^\s"]*@[^\s"]*/g, "$1…")
    .replaceAll(/(passw(?:or)?d\s*=\s*)(?:'(?:\\.|[^'])*'|[^\s"]*)/gi, "$1…")
}

const secretParameters = ["password", "sslpassword"]

/** A valid URL to be shown: all of it but the passwords. */
export const withoutPasswords = (text: string): string => {
  const { host, password, pathname, protocol, searchParams, username } = new URL(text)
  const user = `${username}${password === "" ? "" : ":…"}`
  const parameters = [...searchParams].map(
    ([name, value]) => `${name}=${secretParameters.includes(name) ? "…" : encodeURI(value).replaceAll("&", "%26")}`
  )
  const query = parameters.length === 0 ? "" : `?${parameters.join("&")}`
  return `${protocol}//${user === "" ? "" : `${user}@`}${host}${pathname}${query}`
}
