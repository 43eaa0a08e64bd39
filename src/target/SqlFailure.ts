/**
 * What went wrong in PostgreSQL, as facts that can be acted upon and shown.
 *
 * PostgreSQL's own message and detail may quote row values (`Key (id)=(42) already exists`), so they stay behind here;
 * names of constraints, tables and columns, and the SQLSTATE with its condition in English, go on.
 */
import { Cause, Context, Effect, Option, Predicate, Schema } from "effect"
import { isSqlError, type SqlError } from "effect/sql/SqlError"

export const SqlFailureClass = Schema.Literals([
  "connection",
  "authentication",
  "tls",
  "serialization",
  "lock",
  "timeout",
  "resource",
  "data",
  "constraint",
  "privilege",
  "schema",
  "unknown"
])
export type SqlFailureClass = typeof SqlFailureClass.Type

interface Condition {
  readonly name: string
  readonly class: SqlFailureClass
  /** Where it differs from its class. */
  readonly isRetryable?: boolean
  readonly remedy?: string
}

const retryable: ReadonlySet<SqlFailureClass> = new Set([
  "connection",
  "serialization",
  "lock",
  "timeout",
  "resource"
] as const)

const remedies: { readonly [Class in SqlFailureClass]: string } = {
  connection: "check that the target runs and can be reached",
  authentication:
    "check user, password and database of the target's URL, and the server's pg_hba.conf; a server that demands encryption needs sslmode=require",
  tls: "check sslmode, the files given for it (sslrootcert, sslcert, sslkey or target.ca-file and its like), and the server's certificate",
  serialization: "look for sessions in the target that write to the same rows, and let them write less at a time",
  lock: "another session holds a lock on the table: see pg_locks in the target",
  timeout: "raise the time-out, or find out what holds the target up",
  resource: "give the target the resource that it lacks",
  data: "correct the column's type in the target, or set the transaction aside with `on-error.data: quarantine`",
  constraint:
    "correct the row or the constraint in the target, or set the transaction aside with `on-error.constraint: quarantine`",
  privilege:
    "grant the connector's role what it lacks: `fluvio-postgres-sink check --grants`, with the same settings, prints the SQL for it",
  schema: "make the target's schema fit, or set the transaction aside with `on-error.schema: quarantine`",
  unknown: "see the target's log for this SQLSTATE"
}

const conditions: { readonly [sqlState: string]: Condition } = {
  "08P01": { name: "protocol violation", class: "connection" },
  "0A000": { name: "feature not supported", class: "schema" },
  "21000": { name: "two rows of a set have one key in the target", class: "constraint" },
  "22001": { name: "value too long for its column", class: "data" },
  "22003": { name: "numeric value out of range", class: "data" },
  "22007": { name: "invalid date or time format", class: "data" },
  "22008": { name: "date or time out of range", class: "data" },
  "22021": { name: "character not in the target's encoding", class: "data" },
  "22P02": { name: "invalid text for the column's type", class: "data" },
  "22P05": { name: "character not translatable to the target's encoding", class: "data" },
  "23502": { name: "not-null violation", class: "constraint" },
  "23503": { name: "foreign key violation", class: "constraint" },
  "23505": {
    name: "unique violation",
    class: "constraint",
    remedy:
      "if the tables were filled before the connector first started, as by a copy, set `existing-row: update` until it has caught up; else correct the row or the index in the target, or set the transaction aside with `on-error.constraint: quarantine`"
  },
  "23514": { name: "check violation", class: "constraint" },
  "23P01": { name: "exclusion violation", class: "constraint" },
  "25006": {
    name: "the target is read-only",
    class: "resource",
    remedy: "connect to the primary, not to a standby, and check default_transaction_read_only"
  },
  // The driver asks again when a prepared statement is gone, which hides that behind this in a transaction.
  "25P02": {
    name: "the transaction had failed before",
    class: "unknown",
    remedy: "see the target's log for what came before; behind a pooler in transaction mode set `target.prepare: false`"
  },
  "25P03": {
    name: "idle-in-transaction time-out",
    class: "timeout",
    remedy: "raise idle_in_transaction_session_timeout for the connector's role"
  },
  "25P04": {
    name: "transaction time-out",
    class: "timeout",
    remedy: "raise transaction_timeout for the connector's role, or lower group.rows"
  },
  "26000": {
    name: "unknown prepared statement",
    class: "unknown",
    remedy: "behind a pooler in transaction mode set `target.prepare: false`"
  },
  "28000": { name: "the target does not admit this connection", class: "authentication" },
  "28P01": { name: "the target refused user or password", class: "authentication" },
  "2BP01": { name: "other objects depend on it", class: "schema" },
  "3D000": {
    name: "the target's database does not exist",
    class: "authentication",
    remedy: "create the target's database"
  },
  "3F000": { name: "schema does not exist", class: "schema" },
  "40001": { name: "serialization failure", class: "serialization" },
  "40002": { name: "constraint violation at commit", class: "constraint" },
  "40003": { name: "unknown whether the statement completed", class: "connection" },
  "40P01": { name: "deadlock detected", class: "serialization" },
  "42501": { name: "insufficient privilege", class: "privilege" },
  "42601": { name: "syntax error", class: "schema" },
  "42701": { name: "duplicate column", class: "schema" },
  "42703": { name: "column does not exist", class: "schema" },
  "42704": { name: "type or object does not exist", class: "schema" },
  "42804": { name: "datatype mismatch", class: "schema" },
  "42846": { name: "types cannot be cast", class: "schema" },
  "42883": { name: "function or operator does not exist", class: "schema" },
  "428C9": { name: "generated column cannot be written", class: "schema" },
  "42P01": { name: "table does not exist", class: "schema" },
  "42P05": {
    name: "prepared statement exists already",
    class: "unknown",
    remedy: "behind a pooler in transaction mode set `target.prepare: false`"
  },
  "42P07": { name: "table exists already", class: "schema" },
  "42P10": { name: "no unique index fits", class: "schema" },
  "44000": { name: "view's check option violation", class: "constraint" },
  "53100": {
    name: "the target's disk is full",
    class: "resource",
    remedy: "free disk space on the target"
  },
  "53200": { name: "the target is out of memory", class: "resource" },
  "53300": {
    name: "the target has too many connections",
    class: "resource",
    remedy: "raise max_connections or the role's connection limit in the target"
  },
  "55000": { name: "object not in the needed state", class: "schema" },
  "55006": { name: "object in use", class: "lock" },
  "55P03": { name: "lock not available in time", class: "lock" },
  "55P04": { name: "new enum value used before it was committed", class: "schema" },
  "57014": { name: "statement cancelled or timed out", class: "timeout" },
  "57P01": { name: "an administrator of the target ended the session", class: "connection" },
  "57P02": { name: "the target crashed", class: "connection" },
  "57P03": { name: "the target is starting or stopping", class: "connection" },
  "57P04": { name: "the target's database was dropped", class: "connection", isRetryable: false },
  "57P05": { name: "idle-session time-out", class: "timeout" },
  P0001: { name: "exception raised by a function or trigger", class: "constraint" }
}

/** By the first two characters, where the table above does not know the whole. */
const families: { readonly [family: string]: Condition } = {
  "08": { name: "the connection to the target failed", class: "connection" },
  "22": { name: "data exception", class: "data" },
  "23": { name: "constraint violation", class: "constraint" },
  "25": { name: "invalid transaction state", class: "unknown" },
  "28": { name: "the target does not admit this connection", class: "authentication" },
  "40": { name: "transaction rolled back", class: "serialization" },
  "42": { name: "statement does not fit the target's schema", class: "schema" },
  "53": { name: "insufficient resources", class: "resource" },
  "54": { name: "a limit of PostgreSQL exceeded", class: "data" },
  "57": { name: "operator intervention", class: "connection" },
  "58": { name: "system error on the target's machine", class: "unknown" },
  P0: { name: "error in a function or trigger", class: "constraint" },
  XX: { name: "internal error of the server", class: "unknown" }
}

const unknown: Condition = { name: "unclassified failure", class: "unknown" }

/** What Node says of sockets, which has no SQLSTATE. */
const system: { readonly [code: string]: Condition } = {
  ECONNREFUSED: { name: "the target refused the connection", class: "connection" },
  ECONNRESET: { name: "the target reset the connection", class: "connection" },
  EPIPE: { name: "the connection to the target was lost", class: "connection" },
  ETIMEDOUT: { name: "the target did not answer", class: "connection" },
  ENOTFOUND: { name: "the target's host name is not known", class: "connection" },
  EAI_AGAIN: { name: "the target's host name cannot be resolved now", class: "connection" },
  EHOSTUNREACH: { name: "the target's host cannot be reached", class: "connection" },
  ENETUNREACH: { name: "the target's network cannot be reached", class: "connection" },
  ENOENT: { name: "the target's socket does not exist", class: "connection" },
  EMFILE: {
    name: "this process may open no more files",
    class: "resource",
    remedy: "raise the connector's limit of open files (ulimit -n)"
  },
  ERR_TLS_REFUSED: { name: "the target does not offer TLS", class: "tls" },
  CERT_HAS_EXPIRED: { name: "the target's certificate has expired", class: "tls" },
  CERT_NOT_YET_VALID: { name: "the target's certificate is not valid yet", class: "tls" },
  ERR_TLS_CERT_ALTNAME_INVALID: { name: "the target's certificate is for another host", class: "tls" }
}

/** Names that OpenSSL and Node give to what is wrong with a certificate or a handshake. */
const isUntrusted = (code: string) => /^UNABLE_TO_(?:GET_ISSUER|VERIFY)|SELF_SIGNED/.test(code)
const isTlsCode = (code: string) => /CERT|^UNABLE_TO_|^ERR_(?:SSL|TLS|OSSL)|^EPROTO$|^HOSTNAME_MISMATCH$/.test(code)

/** A SQLSTATE always has a digit; `EPIPE` has its length but none. */
const isSqlState = (code: string) => /^(?=.*\d)[0-9A-Z]{5}$/.test(code)

/** The error fields of PostgreSQL's protocol that carry no row values, as the driver leaves them on the cause. */
const Fields = Schema.Struct({
  code: Schema.optional(Schema.String),
  constraint: Schema.optional(Schema.String),
  schema: Schema.optional(Schema.String),
  table: Schema.optional(Schema.String),
  column: Schema.optional(Schema.String)
})
const readFields = Schema.decodeUnknownOption(Fields)

/** A statement or the connection failed. It holds no message of PostgreSQL and no row value. */
export class SqlFailure extends Schema.TaggedError<SqlFailure>()("SqlFailure", {
  /** PostgreSQL's SQLSTATE; `undefined` when the server could not answer. */
  sqlState: Schema.UndefinedOr(Schema.String),
  /** The SQLSTATE's condition, or the system's, in English. */
  condition: Schema.String,
  class: SqlFailureClass,
  constraint: Schema.UndefinedOr(Schema.String),
  schema: Schema.UndefinedOr(Schema.String),
  table: Schema.UndefinedOr(Schema.String),
  column: Schema.UndefinedOr(Schema.String),
  /** What could not be connected to. */
  target: Schema.optionalKey(Schema.String),
  isRetryable: Schema.Boolean,
  remedy: Schema.String
}) {
  override get message() {
    const names = [
      this.table === undefined ? [] : `table ${[this.schema ?? [], this.table].flat().join(".")}`,
      this.column === undefined ? [] : `column ${this.column}`,
      this.constraint === undefined ? [] : `constraint ${this.constraint}`
    ].flat()
    const state = this.sqlState === undefined ? [] : `SQLSTATE ${this.sqlState}`
    const facts = [state, names, this.target ?? []].flat().join(", ")
    return facts === "" ? this.condition : `${this.condition} (${facts})`
  }
}

const conditionOf = (error: SqlError, code: string | undefined): Condition => {
  if (code !== undefined && isSqlState(code)) return conditions[code] ?? families[code.slice(0, 2)] ?? unknown
  if (code !== undefined && Object.hasOwn(system, code)) return system[code]
  if (code !== undefined && isUntrusted(code)) {
    return { name: "the target's certificate is not signed by a trusted authority", class: "tls" }
  }
  if (code !== undefined && isTlsCode(code))
    return { name: "TLS with the target could not be agreed upon", class: "tls" }
  // The driver's own findings come without a code.
  if (error.reason.message?.endsWith("Server refused TLS") === true) {
    return { name: "the target does not offer TLS", class: "tls" }
  }
  if (Predicate.isTagged(error.reason, "ConnectionError")) {
    const isOpen = error.reason.operation !== "connect"
    return { name: `the connection to the target ${isOpen ? "was lost" : "could not be opened"}`, class: "connection" }
  }
  if (Predicate.isTagged(error.reason, "AuthenticationError"))
    return { name: "the login to the target failed", class: "authentication" }
  return unknown
}

/** How messages name the target: its host, port and database, and never who logs in to it. */
export const TargetName = Context.Reference<string | undefined>("fluvio-postgres-sink/TargetName", {
  defaultValue: () => undefined
})

const concernsTarget: ReadonlySet<SqlFailureClass> = new Set(["connection", "authentication", "tls"] as const)

/** The facts of a driver's error: what class it is of, whether trying again may help, and what resolves it. */
export const fromSqlError = (error: SqlError, target?: string): SqlFailure => {
  const fields = Option.getOrElse(readFields(error.reason.cause), (): typeof Fields.Type => ({}))
  const condition = conditionOf(error, fields.code)
  return new SqlFailure({
    sqlState: fields.code !== undefined && isSqlState(fields.code) ? fields.code : undefined,
    condition: condition.name,
    class: condition.class,
    constraint: fields.constraint,
    schema: fields.schema,
    table: fields.table,
    column: fields.column,
    ...(target !== undefined && concernsTarget.has(condition.class) ? { target } : {}),
    isRetryable: condition.isRetryable ?? retryable.has(condition.class),
    remedy: condition.remedy ?? remedies[condition.class]
  })
}

/**
 * Gives every `SqlError` as a {@link SqlFailure}, also one that hides in a defect.
 *
 * `withTransaction` sends ROLLBACK when its body fails. On a lost connection, the most ordinary of all accidents, that
 * fails too, and both failures become defects, which no retry looks at. The lost connection is what is reported then: a
 * failure of the body's own has had no effect, and shows again when the body is run again. An interruption stays one,
 * and so does a defect on a connection that is alive.
 */
export const typed = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, Exclude<E, SqlError> | SqlFailure, R> =>
  Effect.catchCause(effect, (cause: Cause.Cause<E>) =>
    Effect.flatMap(TargetName, (target): Effect.Effect<never, Exclude<E, SqlError> | SqlFailure> => {
      const lost = cause.reasons.flatMap((reason) =>
        Cause.isDieReason(reason) && isSqlError(reason.defect) ? fromSqlError(reason.defect, target) : []
      )
      if (lost.length === 0) {
        return Effect.failCause(
          Cause.map(cause, (error) =>
            isSqlError(error) ? fromSqlError(error, target) : (error as Exclude<E, SqlError>)
          )
        )
      }
      const interrupts = cause.reasons.filter(Cause.isInterruptReason)
      if (interrupts.length > 0) return Effect.failCause(Cause.fromReasons(interrupts))
      return Effect.fail(lost.find((failure) => failure.sqlState !== undefined) ?? lost[0])
    })
  )
