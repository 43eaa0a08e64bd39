/**
 * Where the cluster is: a setting, the environment, or the profile file that the `fluvio` command line keeps.
 */
import { Effect, Redacted, Result, Schema } from "effect"
import { readFile } from "node:fs/promises"
import { homedir } from "node:os"
import { join } from "node:path"
import { parse, TomlError } from "smol-toml"
import { FluvioProfileError } from "../../src/stream/FluvioConsumer.ts"

/** How a connection is encrypted. `anonymous` encrypts without checking who answers. */
export type Tls =
  | { readonly policy: "anonymous" }
  | {
      readonly policy: "verified"
      /** The name that the controller's certificate carries; an SPU's carries `<spu>.<domain>` or the same name. */
      readonly domain: string
      /** PEM of the certificate authority. */
      readonly authority: string
      /** PEM of the certificate and the key by which this client shows who it is. */
      readonly identity: { readonly certificate: string; readonly key: Redacted.Redacted } | undefined
    }

export interface Address {
  readonly host: string
  readonly port: number
}

/** The address of a cluster's controller (SC), and how to talk to it and to its SPUs. */
export interface Cluster {
  readonly controller: Address
  readonly tls: Tls | undefined
  /** Dial the address that an SPU gives out for its own network instead of its public one. */
  readonly preferLocalAddress: boolean
}

export interface ClusterOptions {
  /** `host:port` of the controller; the port may be left out. No profile is read if it is given. */
  readonly endpoint?: string | undefined
  /** Encryption towards `endpoint`; without `endpoint` the profile decides. */
  readonly tls?: Tls | undefined
  /** The profile file; otherwise `FLV_PROFILE_PATH`, otherwise `~/.fluvio/config`. */
  readonly profilePath?: string | undefined
  /** The profile in that file; otherwise its current one. */
  readonly profile?: string | undefined
}

const defaultPort = 9003

const fail = (path: string) => (reason: string) => new FluvioProfileError({ path, reason })

/** Parses `host`, `host:port` or `[ipv6]:port`; `undefined` if it is none of these. */
export const parseAddress = (text: string): Address | undefined => {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/?#@=[\]]+))(?::(\d{1,5}))?$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = match?.[3] === undefined ? defaultPort : Number(match[3])
  return host === undefined || port < 1 || port > 65_535 ? undefined : { host, port }
}

/** The opposite of {@link parseAddress}, for messages. */
export const formatAddress = ({ host, port }: Address): string =>
  host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`

const Certificates = Schema.Struct({
  domain: Schema.NonEmptyString,
  ca_cert: Schema.NonEmptyString,
  cert: Schema.optionalKey(Schema.NonEmptyString),
  key: Schema.optionalKey(Schema.NonEmptyString)
})

// A flat structure instead of a union of policies: its decoding errors name the one entry that is wrong.
const TlsSection = Schema.Struct({
  tls_policy: Schema.Literals(["disabled", "disable", "anonymous", "verified", "verify"]),
  tls_source: Schema.optionalKey(Schema.Literals(["inline", "files", "file"])),
  certs: Schema.optionalKey(Certificates)
})

const ClusterSection = Schema.Struct({
  endpoint: Schema.optionalKey(Schema.NonEmptyString),
  // The name that `endpoint` had in older files.
  addr: Schema.optionalKey(Schema.NonEmptyString),
  use_spu_local_address: Schema.optionalKey(Schema.Boolean),
  tls: Schema.optionalKey(TlsSection)
})

// Clusters stay undecoded until one is chosen: a broken entry must not keep the others from being used.
const ProfileFile = Schema.Struct({
  current_profile: Schema.optionalKey(Schema.String),
  profile: Schema.optionalKey(Schema.Record(Schema.String, Schema.Struct({ cluster: Schema.String }))),
  cluster: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown))
})

const reasonOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const read = (path: string) =>
  Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: (cause) => fail(path)(`cannot be read: ${reasonOf(cause)}`)
  })

/** Parses TOML. The parser's own message quotes the lines around the mistake, which may be those of a key: they stay out. */
const parseToml = (text: string) =>
  Result.try({
    try: (): unknown => parse(text),
    catch: (cause) =>
      cause instanceof TomlError
        ? `line ${cause.line}, column ${cause.column}: ${cause.message.split("\n", 1)[0]}`
        : "it is not TOML"
  })

const decode = <A>(schema: Schema.Codec<A, unknown>, input: unknown, where: string) =>
  Result.mapError(Schema.decodeUnknownResult(schema)(input), (error) =>
    `${where} is malformed: ${error.message}`.replaceAll(/\s*\n\s*/g, " ")
  )

const choose = (file: typeof ProfileFile.Type, wanted: string | undefined) =>
  Result.gen(function* () {
    const name = wanted ?? file.current_profile
    if (name === undefined) return yield* Result.fail("it has no current profile")
    const profile = file.profile?.[name]
    if (profile === undefined) return yield* Result.fail(`it has no profile "${name}"`)
    const section = file.cluster?.[profile.cluster]
    if (section === undefined) {
      return yield* Result.fail(
        `its profile "${name}" names the cluster "${profile.cluster}", which it does not define`
      )
    }
    const where = `cluster "${profile.cluster}"`
    const cluster = yield* decode(ClusterSection, section, where)
    const endpoint = cluster.endpoint ?? cluster.addr
    if (endpoint === undefined) return yield* Result.fail(`${where} has no endpoint`)
    const controller = parseAddress(endpoint)
    if (controller === undefined) return yield* Result.fail(`the endpoint of ${where} is not host:port`)
    return { controller, preferLocalAddress: cluster.use_spu_local_address ?? false, tls: cluster.tls, where }
  })

const loadTls = Effect.fnUntraced(function* (path: string, where: string, section: typeof TlsSection.Type) {
  const { certs, tls_policy, tls_source } = section
  if (tls_policy === "disabled" || tls_policy === "disable") return undefined
  if (tls_policy === "anonymous") return { policy: "anonymous" } as const
  if (certs === undefined || tls_source === undefined) {
    return yield* fail(path)(`the verified TLS of ${where} needs tls_source and certs`)
  }
  if ((certs.cert === undefined) !== (certs.key === undefined)) {
    return yield* fail(path)(`the TLS of ${where} needs both cert and key, or neither`)
  }
  const pem = (source: string) => (tls_source === "inline" ? Effect.succeed(source) : read(source))
  const authority = yield* pem(certs.ca_cert)
  const identity =
    certs.cert === undefined || certs.key === undefined
      ? undefined
      : { certificate: yield* pem(certs.cert), key: Redacted.make(yield* pem(certs.key)) }
  return { policy: "verified", domain: certs.domain, authority, identity } as const
})

const fromFile = Effect.fnUntraced(function* (path: string, wanted: string | undefined) {
  const text = yield* read(path)
  const { tls, where, ...rest } = yield* Effect.fromResult(
    parseToml(text).pipe(
      Result.flatMap((value) => decode(ProfileFile, value, "the file")),
      Result.flatMap((file) => choose(file, wanted))
    )
  ).pipe(Effect.mapError(fail(path)))
  return { ...rest, tls: tls === undefined ? undefined : yield* loadTls(path, where, tls) }
})

const fromEndpoint = (endpoint: string, source: string, tls: Tls | undefined) => {
  const controller = parseAddress(endpoint)
  return controller === undefined
    ? Effect.fail(fail(source)("not host:port"))
    : Effect.succeed({ controller, tls, preferLocalAddress: false })
}

/**
 * Finds the cluster. In order: `endpoint`; the profile named by `profilePath` or `profile`; `FLUVIO_ENDPOINT` in the
 * environment; the current profile of the file that `FLV_PROFILE_PATH` names, else of `~/.fluvio/config`.
 */
export const resolve = Effect.fn("Profile.resolve")(function* (
  options: ClusterOptions,
  environment: Readonly<Record<string, string | undefined>> = process.env
): Effect.fn.Return<Cluster, FluvioProfileError> {
  if (options.endpoint !== undefined) return yield* fromEndpoint(options.endpoint, "consumer.endpoint", options.tls)
  const named = options.profilePath !== undefined || options.profile !== undefined
  const endpoint = environment["FLUVIO_ENDPOINT"]
  if (!named && endpoint !== undefined && endpoint !== "") {
    return yield* fromEndpoint(endpoint, "FLUVIO_ENDPOINT", options.tls)
  }
  const path = options.profilePath ?? environment["FLV_PROFILE_PATH"] ?? join(homedir(), ".fluvio", "config")
  return yield* fromFile(path, options.profile)
})
