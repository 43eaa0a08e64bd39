/**
 * A development inbound connector: it reads a logical replication slot and sends what the original inbound connector
 * would have written into the topic (see `EventJson` for the four deliberate differences).
 *
 * Delivery is at least once, like the original's: PostgreSQL is told of a transaction only after the sink has taken
 * its Commit, so a connector that ends in between sends that transaction again, from its Begin, and a transaction may
 * also stand half sent in front of its repetition. Unlike the original, it never tells PostgreSQL too early.
 */
import { type Duration, Effect, Latch, Redacted, Schema, type Scope } from "effect"
import type { Client } from "pg"
import { quote } from "../../src/target/Identifier.ts"
import { formatLsn } from "../../src/stream/OffsetStore.ts"
import { encode } from "./EventJson.ts"
import { load, type PackageMissing } from "./OptionalPackage.ts"
import { decode, type Relation } from "./Pgoutput.ts"

/** The source refused a statement, ended the replication or sent something that cannot be understood. */
export class InboundError extends Schema.TaggedError<InboundError>()("InboundError", {
  operation: Schema.Literals(["connect", "set up", "replicate"]),
  /** PostgreSQL's SQLSTATE, when the server gave one. */
  sqlState: Schema.UndefinedOr(Schema.String),
  reason: Schema.String,
  isRetryable: Schema.Boolean
}) {
  readonly remedy =
    "check that the source runs with wal_level = logical and that the role has the attribute REPLICATION and may create a publication"
  override get message() {
    return `the inbound connector could not ${this.operation}${this.sqlState === undefined ? "" : ` (SQLSTATE ${this.sqlState})`}: ${this.reason}`
  }
}

export interface InboundOptions {
  /** The source database. */
  readonly url: Redacted.Redacted<string>
  /** Created `FOR ALL TABLES` when it does not exist. */
  readonly publication: string
  /** Created when it does not exist: lower-case letters, digits and underscores. */
  readonly slot: string
}

/**
 * Takes the values of consecutive records, and succeeds when they are safe: only then PostgreSQL may forget them. It is
 * never called while a call is under way.
 */
export type Send<E, R> = (values: ReadonlyArray<Uint8Array>) => Effect.Effect<void, E, R>

export interface Inbound {
  /**
   * Sends from the last confirmed transaction on, without end, in commit order. Run again after a failure, it goes on
   * where PostgreSQL was told; runs exclude each other, by the slot.
   */
  run<E, R>(send: Send<E, R>): Effect.Effect<never, InboundError | PackageMissing | E, R>
}

/**
 * What the walsender prints must not depend on the source's settings. `search_path` is empty so that names in `regclass`
 * and its like are qualified.
 */
const session = [
  "client_encoding=UTF8",
  "datestyle=ISO",
  "intervalstyle=postgres",
  "extra_float_digits=3",
  "bytea_output=hex",
  "timezone=UTC",
  "lc_monetary=C",
  "search_path="
]

const replicationEnded = "the server ended the replication"

/** The slot is still held by the walsender of an earlier connection, or the server goes down or comes up. */
const passingStates = new Set(["55006", "57P01", "57P02", "57P03", "53300"])

/** Only what passes by itself is retried; bytes that cannot be understood would be the same again. */
const failure = (operation: InboundError["operation"], cause: unknown) => {
  const { code, message, severity, syscall } = cause as Partial<
    Record<"code" | "message" | "severity" | "syscall", string>
  >
  const reason = message ?? String(cause)
  // Of the errors with a code, only the server's have a severity.
  const sqlState = severity === undefined ? undefined : code
  const isLost = syscall !== undefined || reason.startsWith("Connection terminated") || reason === replicationEnded
  const isRetryable = sqlState === undefined ? isLost : passingStates.has(sqlState)
  return new InboundError({ operation, sqlState, reason, isRetryable })
}

const attempt = <A>(operation: InboundError["operation"], run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: (cause) => failure(operation, cause) })

const connection = (
  url: Redacted.Redacted<string>,
  isReplication: boolean
): Effect.Effect<Client, InboundError | PackageMissing, Scope.Scope> =>
  Effect.flatMap(
    load("pg", () => import("pg")),
    (pg) =>
      Effect.acquireRelease(
        attempt("connect", async () => {
          const client = new pg.Client({
            connectionString: Redacted.value(url),
            application_name: "fluvio-postgres-sink inbound",
            options: session.map((setting) => `-c ${setting}`).join(" "),
            ...(isReplication ? { replication: "database" } : {})
          })
          // Whoever runs a statement learns of a lost connection from the statement.
          client.on("error", () => {})
          await client.connect()
          return client
        }),
        (client) => Effect.promise(() => client.end().catch(() => {}))
      )
  )

/** Both are needed before the first change, or it is not in the slot. */
const setUp = (client: Client, { publication, slot }: InboundOptions) =>
  attempt("set up", async () => {
    const publications = await client.query("SELECT FROM pg_catalog.pg_publication WHERE pubname = $1", [publication])
    if (publications.rowCount === 0) await client.query(`CREATE PUBLICATION ${quote(publication)} FOR ALL TABLES`)
    const slots = await client.query("SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1", [slot])
    if (slots.rowCount === 0) {
      await client.query("SELECT pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')", [slot])
    }
  })

const CopyData = 0x64
const WalData = 0x77
const KeepAlive = 0x6b
const walDataHeader = 25
const unixToPostgresEpoch = 946_684_800_000

/** Tells PostgreSQL how far we are: what is written and flushed is what the sink has taken. */
const statusUpdate = (confirmed: bigint): Buffer => {
  const frame = Buffer.alloc(39)
  frame.writeUInt8(CopyData, 0)
  frame.writeUInt32BE(38, 1)
  frame.write("r", 5)
  frame.writeBigUInt64BE(confirmed, 6)
  frame.writeBigUInt64BE(confirmed, 14)
  frame.writeBigUInt64BE(confirmed, 22)
  frame.writeBigInt64BE(BigInt(Date.now() - unixToPostgresEpoch) * 1000n, 30)
  return frame
}

/** How many bytes of records may wait for the sink; beyond, the socket is left unread and PostgreSQL waits. */
const maxWaiting = 4 * 1024 * 1024

/** Well below the server's `wal_sender_timeout`, so that a slow sink does not look like a dead connection. */
const statusInterval: Duration.Input = "10 seconds"

/**
 * What has been received and waits for the sink. Received bytes are encoded at once, in the driver's callback: the
 * driver reuses its buffer, and an Effect per event would cost more than the event.
 */
class Waiting {
  readonly relations = new Map<number, Relation>()
  readonly arrived = Latch.makeUnsafe()
  /** Every transaction that ends at or before it is safe in the sink. */
  confirmed = 0n
  private values: Array<Uint8Array> = []
  private bytes = 0
  /** The end of the last transaction among `values`. */
  private endLsn: bigint | undefined
  private isInTransaction = false
  private isSending = false

  get isFull() {
    return this.bytes >= maxWaiting
  }

  /** The payload of a WAL data message: header and one replication message. */
  add(payload: Buffer): void {
    const message = decode(payload, walDataHeader)
    if (message.type === "relation") this.relations.set(message.id, message)
    const event = {
      walStart: payload.readBigUInt64BE(1),
      walEnd: payload.readBigUInt64BE(9),
      timestamp: payload.readBigInt64BE(17),
      message
    }
    const value = Buffer.from(encode(event, this.relations))
    this.values.push(value)
    this.bytes += value.length
    this.isInTransaction = message.type !== "commit"
    if (message.type === "commit") this.endLsn = message.endLsn
    this.arrived.openUnsafe()
  }

  take() {
    const { values, endLsn } = this
    this.values = []
    this.bytes = 0
    this.endLsn = undefined
    this.isSending = true
    this.arrived.closeUnsafe()
    return { values, endLsn }
  }

  sent(endLsn: bigint | undefined): void {
    this.isSending = false
    if (endLsn !== undefined) this.confirmed = endLsn
  }

  /**
   * The server has sent everything up to `lsn`. When nothing of it is left with us, all of it is confirmed: otherwise a
   * source whose published tables rest would keep its WAL for ever.
   */
  reached(lsn: bigint): boolean {
    if (this.isInTransaction || this.isSending || this.values.length > 0 || lsn <= this.confirmed) return false
    this.confirmed = lsn
    return true
  }
}

/** Sets publication and slot up: from here on PostgreSQL keeps every change until `run` has sent it. */
export const make = Effect.fn("Inbound.make")(function* (
  options: InboundOptions
): Effect.fn.Return<Inbound, InboundError | PackageMissing> {
  yield* Effect.scoped(Effect.flatMap(connection(options.url, false), (client) => setUp(client, options)))

  const publication = quote(options.publication).replaceAll("'", "''")
  const start = `START_REPLICATION SLOT ${quote(options.slot)} LOGICAL ${formatLsn(0n)} (proto_version '1', publication_names '${publication}')`

  const run: Inbound["run"] = Effect.fn("Inbound.run")(function* (send) {
    const client = yield* connection(options.url, true)
    const { stream } = client.connection
    const waiting = new Waiting()
    const tell = () => {
      if (stream.writable) stream.write(statusUpdate(waiting.confirmed))
    }

    const receive = Effect.callback<never, InboundError>((resume) => {
      const fail = (cause: unknown) => resume(Effect.fail(failure("replicate", cause)))
      const onCopyData = ({ chunk }: { readonly chunk: Buffer }) => {
        try {
          if (chunk[0] === WalData) {
            waiting.add(chunk)
            if (waiting.isFull) stream.pause()
          } else if (chunk[0] === KeepAlive) {
            const hasMoved = waiting.reached(chunk.readBigUInt64BE(1))
            if (hasMoved || chunk[17] === 1) tell()
          }
        } catch (cause) {
          client.connection.off("copyData", onCopyData)
          fail(cause)
        }
      }
      client.connection.on("copyData", onCopyData)
      client.query(start).then(() => fail(new Error(replicationEnded)), fail)
    })

    const forward = Effect.gen(function* () {
      yield* waiting.arrived.await
      const { values, endLsn } = waiting.take()
      stream.resume()
      yield* send(values)
      waiting.sent(endLsn)
      if (endLsn !== undefined) tell()
    }).pipe(Effect.forever)

    const keepAlive = Effect.sync(tell).pipe(Effect.delay(statusInterval), Effect.forever)

    return yield* Effect.raceFirst(receive, Effect.raceFirst(forward, keepAlive))
  }, Effect.scoped)

  return { run }
})
