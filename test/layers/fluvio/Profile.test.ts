import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { formatAddress, parseAddress, resolve } from "../../../layers/fluvio/Profile.ts"

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "fluvio-profile-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)

const write = (path: string, text: string) => Effect.promise(() => writeFile(path, text))

const profileFile = (text: string) =>
  Effect.gen(function* () {
    const path = join(yield* folder, "config")
    yield* write(path, text)
    return path
  })

const clusters = `
version = "2.0"
current_profile = "local"

[profile.local]
cluster = "local"

[profile.old]
cluster = "old"

[profile.dangling]
cluster = "nowhere"

[profile.broken]
cluster = "broken"

[cluster.local]
endpoint = "127.0.0.1:9103"
use_spu_local_address = true

[cluster.local.tls]
tls_policy = "disabled"

[cluster.local.metadata.installation]
type = "local"

[cluster.old]
addr = "fluvio.example"

[cluster.broken]
endpoint = 5
`

const failure = (path: string, profile?: string) =>
  resolve({ profilePath: path, ...(profile === undefined ? {} : { profile }) }, {}).pipe(Effect.flip)

describe("an address", () => {
  it("is a host with an optional port", () => {
    assert.deepStrictEqual(parseAddress("fluvio.example:9003"), { host: "fluvio.example", port: 9003 })
    assert.deepStrictEqual(parseAddress("fluvio.example"), { host: "fluvio.example", port: 9003 })
    assert.deepStrictEqual(parseAddress("[::1]:9103"), { host: "::1", port: 9103 })
  })

  it("is nothing else", () => {
    for (const text of ["", ":9003", "host:", "host:0", "host:65536", "https://host", "host:1:2", "a b", "[::1"]) {
      assert.strictEqual(parseAddress(text), undefined, text)
    }
  })

  it("reads back as it is written", () => {
    for (const text of ["fluvio.example:9003", "[::1]:9103"]) {
      const address = parseAddress(text)
      assert.strictEqual(address && formatAddress(address), text)
    }
  })
})

describe("the order of the sources", () => {
  it.effect("a setting wins over everything", () =>
    Effect.gen(function* () {
      const cluster = yield* resolve({ endpoint: "a:1" }, { FLUVIO_ENDPOINT: "b:2", FLV_PROFILE_PATH: "/nowhere" })
      assert.deepStrictEqual(cluster, {
        controller: { host: "a", port: 1 },
        tls: undefined,
        preferLocalAddress: false
      })
    })
  )

  it.effect("a profile that a setting names wins over the environment", () =>
    Effect.gen(function* () {
      const path = yield* profileFile(clusters)
      const environment = { FLUVIO_ENDPOINT: "b:2", FLV_PROFILE_PATH: path }
      assert.strictEqual((yield* resolve({ profilePath: path }, environment)).controller.port, 9103)
      const old = yield* resolve({ profile: "old" }, environment)
      assert.deepStrictEqual(old.controller, { host: "fluvio.example", port: 9003 })
    })
  )

  it.effect("an endpoint in the environment wins over the current profile", () =>
    Effect.gen(function* () {
      const path = yield* profileFile(clusters)
      const cluster = yield* resolve({}, { FLUVIO_ENDPOINT: "b:2", FLV_PROFILE_PATH: path })
      assert.deepStrictEqual(cluster.controller, { host: "b", port: 2 })
    })
  )

  it.effect("the current profile is the last resort", () =>
    Effect.gen(function* () {
      const path = yield* profileFile(clusters)
      assert.deepStrictEqual(yield* resolve({}, { FLV_PROFILE_PATH: path, FLUVIO_ENDPOINT: "" }), {
        controller: { host: "127.0.0.1", port: 9103 },
        tls: undefined,
        preferLocalAddress: true
      })
    })
  )
})

const tls = (section: string) => `
current_profile = "p"
[profile.p]
cluster = "c"
[cluster.c]
endpoint = "127.0.0.1:9003"
[cluster.c.tls]
${section}`

describe("TLS in a profile", () => {
  it.effect("may be anonymous", () =>
    Effect.gen(function* () {
      const path = yield* profileFile(tls(`tls_policy = "anonymous"`))
      assert.deepStrictEqual((yield* resolve({ profilePath: path }, {})).tls, { policy: "anonymous" })
    })
  )

  it.effect("may be verified by PEM in the file", () =>
    Effect.gen(function* () {
      const path = yield* profileFile(
        tls(`tls_policy = "verified"
tls_source = "inline"
[cluster.c.tls.certs]
domain = "fluvio.local"
ca_cert = "CA"
cert = "CERT"
key = "KEY"`)
      )
      const found = (yield* resolve({ profilePath: path }, {})).tls
      assert(found?.policy === "verified")
      assert.strictEqual(found.domain, "fluvio.local")
      assert.strictEqual(found.authority, "CA")
      assert.strictEqual(found.identity?.certificate, "CERT")
      assert.strictEqual(found.identity && Redacted.value(found.identity.key), "KEY")
    })
  )

  it.effect("may be verified by PEM files, without a client certificate", () =>
    Effect.gen(function* () {
      const authority = join(yield* folder, "ca.crt")
      yield* write(authority, "CA from a file")
      const path = yield* profileFile(
        tls(`tls_policy = "verify"
tls_source = "file"
[cluster.c.tls.certs]
domain = "fluvio.local"
ca_cert = "${authority}"`)
      )
      assert.deepStrictEqual((yield* resolve({ profilePath: path }, {})).tls, {
        policy: "verified",
        domain: "fluvio.local",
        authority: "CA from a file",
        identity: undefined
      })
    })
  )

  it.effect("names the file that is missing", () =>
    Effect.gen(function* () {
      const path = yield* profileFile(
        tls(`tls_policy = "verified"
tls_source = "files"
[cluster.c.tls.certs]
domain = "fluvio.local"
ca_cert = "/nowhere/ca.crt"`)
      )
      assert.strictEqual((yield* failure(path)).path, "/nowhere/ca.crt")
    })
  )

  it.effect("needs what verification needs", () =>
    Effect.gen(function* () {
      const bare = yield* profileFile(tls(`tls_policy = "verified"`))
      assert.match((yield* failure(bare)).reason, /needs tls_source and certs/)
      const half = yield* profileFile(
        tls(`tls_policy = "verified"
tls_source = "inline"
[cluster.c.tls.certs]
domain = "fluvio.local"
ca_cert = "CA"
key = "KEY"`)
      )
      assert.match((yield* failure(half)).reason, /both cert and key/)
    })
  )

  it.effect("never shows a key in an error", () =>
    Effect.gen(function* () {
      const section = `tls_policy = "verified"
tls_source = "inline"
[cluster.c.tls.certs]
domain = 5
ca_cert = "CA"
cert = "CERT"
key = "SECRET"`
      const malformed = yield* failure(yield* profileFile(tls(section)))
      assert.match(malformed.reason, /\["tls"\]\["certs"\]\["domain"\]/)
      assert.notInclude(malformed.message, "SECRET")
      const unclosed = yield* failure(yield* profileFile(tls(section.replace(`SECRET"`, "SECRET"))))
      assert.match(unclosed.reason, /^line 14, column \d+/)
      assert.notInclude(unclosed.message, "SECRET")
    })
  )
})

describe("an unusable profile says what is wrong", () => {
  it.effect("no file", () =>
    Effect.gen(function* () {
      const error = yield* failure("/nowhere/config")
      assert.strictEqual(error.path, "/nowhere/config")
      assert.match(error.reason, /cannot be read/)
    })
  )

  it.effect("no such profile, no such cluster, a malformed cluster", () =>
    Effect.gen(function* () {
      const path = yield* profileFile(clusters)
      assert.match((yield* failure(path, "missing")).reason, /no profile "missing"/)
      assert.match((yield* failure(path, "dangling")).reason, /cluster "nowhere", which it does not define/)
      assert.match((yield* failure(path, "broken")).reason, /cluster "broken" is malformed: .*endpoint/)
    })
  )

  it.effect("no current profile, no endpoint, an endpoint that is none", () =>
    Effect.gen(function* () {
      assert.match((yield* failure(yield* profileFile(`version = "2.0"`))).reason, /no current profile/)
      const bare = `current_profile = "p"\n[profile.p]\ncluster = "c"\n[cluster.c]\n`
      assert.match((yield* failure(yield* profileFile(bare))).reason, /has no endpoint/)
      const url = yield* profileFile(`${bare}endpoint = "https://fluvio.example"`)
      assert.match((yield* failure(url)).reason, /not host:port/)
      const setting = yield* Effect.flip(resolve({ endpoint: "https://fluvio.example" }, {}))
      assert.strictEqual(setting.path, "consumer.endpoint")
    })
  )
})
