import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { isConnectionString, problemOf, withoutConnectionStrings } from "../../src/TargetUrl.ts"

const reasonOf = (more: string) => problemOf(`postgresql://role:s3cr3t@host/db${more}`)?.reason

/** Every parameter of libpq in PostgreSQL 18. */
const libpq = [
  "host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout client_encoding",
  "options application_name fallback_application_name keepalives keepalives_idle keepalives_interval keepalives_count",
  "tcp_user_timeout replication gssencmode sslmode requiressl sslnegotiation sslcompression sslcert sslkey sslkeylogfile",
  "sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer ssl_min_protocol_version",
  "ssl_max_protocol_version min_protocol_version max_protocol_version krbsrvname gsslib gssdelegation scram_client_key",
  "scram_server_key service servicefile target_session_attrs load_balance_hosts oauth_issuer oauth_client_id",
  "oauth_client_secret oauth_scope"
]
  .join(" ")
  .split(" ")

describe("TargetUrl", () => {
  it("takes what it honours, and what says what happens anyway", () => {
    for (const more of [
      "",
      "?sslmode=verify-full&sslrootcert=/ca&sslcert=/c&sslkey=/k&sslpassword=x",
      "?application_name=a&connect_timeout=0&options=-c%20work_mem%3D1MB",
      "?target_session_attrs=any&gssencmode=prefer&client_encoding=UTF8&keepalives=1&channel_binding=prefer"
    ]) {
      assert.isUndefined(reasonOf(more))
    }
    for (const url of [
      "postgres://h",
      "postgres:///db?host=/tmp&port=5433&user=u&password=p",
      "postgres://u:a,b@[::1]/d"
    ]) {
      assert.isUndefined(problemOf(url))
    }
  })

  it("refuses every other parameter, with the nearest one or a reason", () => {
    const cases = {
      "?sslmod=require": "its parameter sslmod is not known; did you mean sslmode?",
      "?sslMode=require": "its parameter sslMode is not known; did you mean sslmode?",
      "?sslmode=require&x=1": "it has a parameter that is not known",
      "?sslmode=Require": "its parameter sslmode is not one of disable, allow, prefer, require, verify-ca, verify-full",
      "?sslmode=": "its parameter sslmode has no value",
      "?sslmode=disable&sslmode=require": "it gives sslmode twice",
      "?host=other": "it gives host twice",
      "?user=other": "it gives user twice",
      "?password=other": "it gives password twice",
      "?dbname=other": "it gives dbname twice",
      "?port=5432&port=5433": "it gives port twice",
      "?port=0": "its parameter port is not a port, from 1 to 65535",
      "?port=65536": "its parameter port is not a port, from 1 to 65535",
      "?connect_timeout=1.5": "its parameter connect_timeout is not a whole number of seconds, from 0 to 2147483",
      "?connect_timeout=2147484": "its parameter connect_timeout is not a whole number of seconds, from 0 to 2147483",
      "?connect_timeout=-1": "its parameter connect_timeout is not a whole number of seconds, from 0 to 2147483",
      "?ssl=true": "its parameter ssl cannot be honoured: belongs to another driver",
      "?channel_binding=require": "its parameter channel_binding cannot be honoured: channel binding is not supported",
      "?target_session_attrs=read-write":
        "its parameter target_session_attrs cannot be honoured: one host is connected to, whatever it is",
      "?passfile=/p":
        "its parameter passfile cannot be honoured: no file with connection parameters or passwords is read",
      "?currentSchema=s":
        "its parameter currentSchema cannot be honoured: has no effect, because every table is named with its schema",
      "#sslmode=require": "it has a # in it",
      "?constructor=1": "it has a parameter that is not known"
    }
    for (const [more, reason] of Object.entries(cases)) assert.strictEqual(reasonOf(more), reason)
    assert.strictEqual(problemOf("postgres:///d?host=a,b")?.reason, "it names several hosts, and one is connected to")
    assert.strictEqual(problemOf("postgres://u:p@a:1,b:2/d")?.reason, "it names several hosts, and one is connected to")
  })

  it("has an answer to each parameter of libpq", () => {
    for (const name of libpq) assert.notMatch(reasonOf(`?${name}=some`) ?? "", /not known/)
  })

  it("never quotes a part of a password", () => {
    for (const url of [
      "postgres://role:s3cr3t@[/db",
      "postgres://role:x#s3cr3t@host/db",
      "postgres://host/db?password=x&s3cr3t",
      "postgres://host/db?password=x&s3cr3t=y",
      "postgres://role:x?s3cr3t@host/db",
      "postgres://role:x/s3cr3t@host/db",
      "host=h password=s3cr3t"
    ]) {
      assert.notInclude(JSON.stringify(problemOf(url)) ?? "", "s3cr3t", url)
    }
  })

  it("knows a connection string in the wrong place, and shows nothing of it", () => {
    for (const text of [
      "postgresql://u:s3cr3t@h/d",
      "postgres://h/s3cr3t",
      'postgresql://u:p@s3cr3t word"@h/d',
      "postgres://h/d?password=s3cr3t&x=s3cr3t",
      "host=h password=s3cr3t dbname=d",
      "host=h password = 's3 s3cr3t' dbname=d",
      "jdbc:postgresql://h/d?user=u&password=s3cr3t"
    ]) {
      assert.isTrue(isConnectionString(text), text)
      const message = `Unexpected: ${JSON.stringify(text)} or ${text}`
      assert.notInclude(withoutConnectionStrings(message, [text]), "s3cr3t")
    }
    for (const text of ["orders", "localhost:9003", "postgres:9003", "/etc/ssl/ca.crt", "a=b", "password.yaml"]) {
      assert.isFalse(isConnectionString(text), text)
      assert.strictEqual(withoutConnectionStrings(text, [text]), text)
    }
  })

  it("gives an answer to any text", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        problemOf(text)
        problemOf(`postgres://host/?${text}`)
        withoutConnectionStrings(text, [text])
      })
    )
  })
})
