import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit } from "effect"
import { ConnectionError, SqlError, UniqueViolation, UnknownError } from "effect/sql/SqlError"
import * as SqlFailure from "../../../src/target/SqlFailure.ts"

const withCode = (code: string, message = "the server's own words about 4711") =>
  new SqlError({ reason: new UnknownError({ cause: Object.assign(new Error(message), { code }), message }) })

const classify = (code: string) => {
  const { class: kind, isRetryable, sqlState } = SqlFailure.fromSqlError(withCode(code))
  return { class: kind, isRetryable, sqlState }
}

describe("SqlFailure", () => {
  it("knows what trying again may help against, and treats the unknown as final", () => {
    for (const [code, kind, isRetryable] of [
      ["57P01", "connection", true],
      ["57P02", "connection", true],
      ["57P03", "connection", true],
      ["57P04", "connection", false],
      ["08006", "connection", true],
      ["40001", "serialization", true],
      ["40P01", "serialization", true],
      ["55P03", "lock", true],
      ["57014", "timeout", true],
      ["25P03", "timeout", true],
      ["53100", "resource", true],
      ["53200", "resource", true],
      ["53300", "resource", true],
      ["25006", "resource", true],
      ["22P02", "data", false],
      ["22999", "data", false],
      ["54000", "data", false],
      ["23505", "constraint", false],
      ["P0001", "constraint", false],
      ["42501", "privilege", false],
      ["42P01", "schema", false],
      ["42P05", "unknown", false],
      ["42999", "schema", false],
      ["0A000", "schema", false],
      ["28P01", "authentication", false],
      ["3D000", "authentication", false],
      ["XX001", "unknown", false],
      ["ZZ999", "unknown", false]
    ] as const) {
      assert.deepStrictEqual(classify(code), { class: kind, isRetryable, sqlState: code })
    }
    for (const [code, kind, isRetryable] of [
      ["ECONNREFUSED", "connection", true],
      ["EMFILE", "resource", true],
      ["EPIPE", "connection", true],
      ["ENOTFOUND", "connection", true],
      ["CERT_HAS_EXPIRED", "tls", false],
      ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "tls", false],
      ["SELF_SIGNED_CERT_IN_CHAIN", "tls", false],
      ["ERR_SSL_WRONG_VERSION_NUMBER", "tls", false]
    ] as const) {
      const isBare = new SqlError({
        reason: new ConnectionError({ cause: Object.assign(new Error("x"), { code }), message: "x" })
      })
      const failure = SqlFailure.fromSqlError(isBare)
      assert.deepStrictEqual(
        [failure.class, failure.isRetryable, failure.sqlState],
        [kind, isRetryable, undefined],
        code
      )
    }
  })

  it("carries names and never a value", () => {
    const cause = Object.assign(new Error("duplicate key value violates unique constraint"), {
      code: "23505",
      detail: "Key (email)=(someone@example.org) already exists.",
      where: "someone@example.org",
      schema: "public",
      table: "people",
      constraint: "people_email_key"
    })
    const failure = SqlFailure.fromSqlError(
      new SqlError({ reason: new UniqueViolation({ cause, constraint: "people_email_key" }) })
    )
    assert.strictEqual(
      failure.message,
      "unique violation (SQLSTATE 23505, table public.people, constraint people_email_key)"
    )
    assert.notInclude(JSON.stringify(failure) + String(failure) + (failure.stack ?? ""), "someone")
  })

  it.effect("finds the failure behind the defect of a lost ROLLBACK", () =>
    Effect.gen(function* () {
      const failure = yield* Effect.flip(SqlFailure.typed(Effect.die(withCode("57P01"))))
      assert.strictEqual(failure.sqlState, "57P01")
      const both = yield* Effect.flip(
        SqlFailure.typed(Effect.failCause(Cause.combine(Cause.die("the body's own"), Cause.die(withCode("57P01")))))
      )
      assert.strictEqual(both.sqlState, "57P01")
      const mapped = yield* Effect.flip(SqlFailure.typed(Effect.fail(withCode("23505"))))
      assert.strictEqual(mapped.class, "constraint")
    })
  )

  it.effect("leaves interruptions and other defects alone", () =>
    Effect.gen(function* () {
      const interrupted = yield* Effect.exit(
        SqlFailure.typed(Effect.failCause(Cause.combine(Cause.interrupt(), Cause.die(withCode("57P01")))))
      )
      assert.isTrue(Exit.hasInterrupts(interrupted))
      assert.isFalse(Exit.hasDies(interrupted))
      const bug = yield* Effect.exit(SqlFailure.typed(Effect.die(new Error("a bug"))))
      assert.isTrue(Exit.hasDies(bug))
    })
  )
})
