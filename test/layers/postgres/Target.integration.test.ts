import { NodeFileSystem } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, FileSystem, Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { generate } from "selfsigned"
import * as Target from "../../../layers/postgres/Target.ts"
import { ConnectorConfig, fromObject } from "../../../src/ConnectorConfig.ts"
import * as SqlFailure from "../../../src/target/SqlFailure.ts"
import { TestPostgres } from "../../postgres.ts"

interface Pair {
  readonly key: string
  readonly cert: string
}

const certificate = (name: string, authority?: Pair, notAfterDate?: Date) =>
  Effect.promise(() =>
    generate([{ name: "commonName", value: name }], {
      keyType: "ec",
      algorithm: "sha256",
      ...(notAfterDate === undefined ? {} : { notBeforeDate: new Date(0), notAfterDate }),
      ...(authority === undefined
        ? { extensions: [{ name: "basicConstraints", cA: true, critical: true }] }
        : {
            ca: authority,
            extensions: [
              {
                name: "subjectAltName",
                altNames: name === "127.0.0.1" ? [{ type: 7, ip: name }] : [{ type: 2, value: name }]
              }
            ]
          })
    })
  ).pipe(Effect.map((pems): Pair => ({ key: pems.private, cert: pems.cert })))

/** The server writes the file itself, so that it owns the key and no one else may read it. */
const install = Effect.fnUntraced(function* (files: { readonly [name: string]: string }) {
  const database = yield* TestPostgres.database
  for (const [name, text] of Object.entries(files)) {
    yield* database.query(
      `COPY (SELECT unnest(string_to_array('${text.trim()}', E'\n'))) TO PROGRAM 'umask 077; cat > ${name}'`
    )
  }
  for (const [setting, name] of [
    ["ssl_cert_file", "server.crt"],
    ["ssl_key_file", "server.key"],
    ["ssl_ca_file", "clients.crt"]
  ]) {
    yield* database.query(`ALTER SYSTEM SET ${setting} = '${name}'`)
  }
  yield* database.query("ALTER SYSTEM SET ssl = on")
  // A restart, because a reload reaches new sessions only some time later.
  const { server } = yield* TestPostgres
  yield* server.stop("fast")
  yield* server.start
})

const session = (parameters: { readonly [name: string]: string }, target: { readonly [name: string]: string } = {}) =>
  Effect.gen(function* () {
    const { server } = yield* TestPostgres
    const url = new URL(Redacted.value(server.url()))
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value)
    const context = yield* Layer.build(
      Target.layer.pipe(Layer.provide(ConnectorConfig.layerFrom([fromObject({ topic: "t", url: url.href, target })])))
    )
    const sql = Context.get(context, SqlClient.SqlClient)
    const [row] = yield* sql<{ ssl: boolean; client: string | null; name: string }>`
      SELECT ssl, client_dn AS client, current_setting('application_name') AS name
      FROM pg_stat_ssl WHERE pid = pg_backend_pid()
    `
    const copied = Effect.andThen(
      sql`CREATE TEMPORARY TABLE copied (id integer) ON COMMIT DROP`,
      sql.unsafe("COPY copied FROM STDIN", [Buffer.from("1\n2\n")]).raw
    )
    assert.deepInclude<object>((yield* sql.withTransaction(copied)) as object, { rowCount: 2 })
    return row
  }).pipe(Effect.scoped, SqlFailure.typed)

const refusal = (parameters: { readonly [name: string]: string }, target?: { readonly [name: string]: string }) =>
  session(parameters, target).pipe(
    Effect.flip,
    // What could not be connected to is shown below.
    Effect.map((error) => ({
      message: error.message.replace(/ \(127\.0\.0\.1:.*\)$/, ""),
      isRetryable: error.isRetryable
    }))
  )

layer(Layer.merge(TestPostgres.layer(), NodeFileSystem.layer))("Target", (it) => {
  it.effect("proves as much of the server as sslmode asks for", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* fs.makeTempDirectoryScoped()
      const save = (name: string, text: string) =>
        Effect.as(fs.writeFileString(`${folder}/${name}`, text), `${folder}/${name}`)
      const authority = yield* certificate("Authority")
      const stranger = yield* certificate("Stranger")
      const here = yield* certificate("127.0.0.1", authority)
      const client = yield* certificate("postgres", authority)
      const ca = yield* save("ca.crt", authority.cert)
      const otherCa = yield* save("other.crt", stranger.cert)
      const sslcert = yield* save("client.crt", client.cert)
      const sslkey = yield* save("client.key", client.key)

      assert.deepStrictEqual(yield* session({}), { ssl: false, client: null, name: "fluvio-postgres-sink" })
      assert.isFalse((yield* session({ sslmode: "prefer" })).ssl)
      assert.deepStrictEqual(yield* refusal({ sslmode: "require" }), {
        message: "the target does not offer TLS",
        isRetryable: false
      })

      yield* install({ "server.crt": here.cert, "server.key": here.key, "clients.crt": authority.cert })
      assert.isFalse((yield* session({ sslmode: "disable" })).ssl)
      assert.isTrue((yield* session({ sslmode: "require" })).ssl)
      assert.isTrue((yield* session({ sslmode: "verify-full", sslrootcert: ca })).ssl)
      assert.isTrue((yield* session({ sslmode: "verify-ca" }, { "ca-file": ca })).ssl)
      assert.isTrue((yield* session({}, { "ca-file": ca })).ssl)
      assert.deepStrictEqual(yield* session({ sslmode: "require", sslcert, sslkey, application_name: "mine" }), {
        ssl: true,
        client: "/CN=postgres",
        name: "mine"
      })
      const unknown = { message: "the target's certificate is not signed by a trusted authority", isRetryable: false }
      assert.deepStrictEqual(yield* refusal({ sslmode: "verify-full" }), unknown)
      assert.deepStrictEqual(yield* refusal({ sslmode: "prefer" }), unknown)
      assert.isTrue((yield* session({ sslmode: "prefer", sslrootcert: ca })).ssl)
      assert.deepStrictEqual(yield* refusal({ sslmode: "verify-ca", sslrootcert: otherCa }), unknown)
      assert.deepStrictEqual(yield* refusal({ sslmode: "require", sslrootcert: otherCa }), unknown)
      const noKey = yield* save("no.key", "this is no key")
      assert.deepStrictEqual(yield* refusal({ sslmode: "require", sslcert, sslkey: noKey }), {
        message: "TLS with the target could not be agreed upon",
        isRetryable: false
      })

      const elsewhere = yield* certificate("db.example.org", authority)
      yield* install({ "server.crt": elsewhere.cert, "server.key": elsewhere.key })
      assert.isTrue((yield* session({ sslmode: "verify-ca", sslrootcert: ca })).ssl)
      assert.deepStrictEqual(yield* refusal({ sslmode: "verify-full", sslrootcert: ca }), {
        message: "the target's certificate is for another host",
        isRetryable: false
      })

      const expired = yield* certificate("127.0.0.1", authority, new Date(86_400_000))
      yield* install({ "server.crt": expired.cert, "server.key": expired.key })
      assert.isTrue((yield* session({ sslmode: "require" })).ssl)
      assert.deepStrictEqual(yield* refusal({ sslmode: "verify-ca", sslrootcert: ca }), {
        message: "the target's certificate has expired",
        isRetryable: false
      })
    })
  )

  it.effect("says what cannot be connected to, and not who logs in", () =>
    Effect.gen(function* () {
      const { server } = yield* TestPostgres
      const attempt = (change: (url: URL) => void) => {
        const url = new URL(Redacted.value(server.url()))
        change(url)
        return Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* SqlFailure.typed(sql`SELECT 1`)
        }).pipe(
          Effect.provide(
            Target.layer.pipe(Layer.provide(ConnectorConfig.layerFrom([fromObject({ topic: "t", url: url.href })])))
          ),
          Effect.flip,
          Effect.tap((error) => Effect.sync(() => assert.notInclude(error.message, url.password))),
          Effect.map((error) => error.message)
        )
      }
      const { port } = new URL(Redacted.value(server.url()))
      assert.strictEqual(
        yield* attempt((url) => {
          url.port = "1"
          url.pathname = "/copy"
        }),
        "the target refused the connection (127.0.0.1:1, database copy)"
      )
      assert.strictEqual(
        yield* attempt((url) => {
          url.pathname = "/absent"
        }),
        `the target's database does not exist (SQLSTATE 3D000, 127.0.0.1:${port}, database absent)`
      )
      assert.strictEqual(
        yield* attempt((url) => {
          url.hostname = "absent.invalid"
          url.pathname = ""
        }),
        `the target's host name is not known (absent.invalid:${port}, the role's own database)`
      )
    }).pipe(Effect.scoped)
  )

  it.effect("gives its sessions the connector's name", () =>
    Effect.gen(function* () {
      const { server } = yield* TestPostgres
      const settings = { topic: "t", url: Redacted.value(server.url()), name: "orders-copy" }
      const name = Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        return yield* sql`SELECT current_setting('application_name') AS name`
      }).pipe(Effect.provide(Target.layer.pipe(Layer.provide(ConnectorConfig.layerFrom([fromObject(settings)])))))
      assert.deepStrictEqual(yield* name, [{ name: "orders-copy" }])
    })
  )

  it.effect("refuses what it cannot read or does not know, before it connects", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        (yield* refusal({ sslmode: "full" })).message,
        "url: its parameter sslmode is not one of disable, allow, prefer, require, verify-ca, verify-full"
      )
      assert.strictEqual(
        (yield* refusal({}, { "ca-file": "/absent/ca.crt" })).message,
        "target.ca-file: the file /absent/ca.crt cannot be read"
      )
      assert.strictEqual(
        (yield* refusal({ sslrootcert: "/absent/ca.crt" })).message,
        "url (sslrootcert): the file /absent/ca.crt cannot be read"
      )
      const folder = yield* FileSystem.FileSystem.use((fs) => fs.makeTempDirectoryScoped())
      const pem = `${folder}/some.pem`
      yield* FileSystem.FileSystem.use((fs) => fs.writeFileString(pem, "some"))
      for (const [parameters, target, message] of [
        [{ sslcert: pem, sslkey: pem }, {}, "url (sslmode): without TLS no certificate is used"],
        [{ sslmode: "disable", sslrootcert: pem }, {}, "url (sslmode): without TLS no certificate is used"],
        [{ sslmode: "disable" }, { "ca-file": pem }, "url (sslmode): without TLS no certificate is used"],
        [{ sslrootcert: pem }, { "ca-file": pem }, "target.ca-file: is given as sslrootcert in the URL too"],
        [
          { sslmode: "require", sslcert: pem },
          {},
          "url (sslcert, sslkey): a client certificate needs its key, and a key its certificate"
        ],
        [{ sslmode: "require", sslpassword: "x" }, {}, "url (sslpassword): there is no key that it opens"]
      ] as const) {
        assert.strictEqual((yield* refusal(parameters, target)).message, message)
      }
    })
  )
})
