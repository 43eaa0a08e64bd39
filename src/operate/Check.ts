/** Whether a connector that starts here, now, as this role, would go on for long: asked before it is started. */
import { Effect, Option, Stream } from "effect"
import { Flag } from "effect/cli"
import { SqlClient } from "effect/sql"
import { ConnectorConfig, ConnectorConfigError } from "../ConnectorConfig.ts"
import * as IdentityKey from "../schema/IdentityKey.ts"
import { fits } from "../schema/SchemaChange.ts"
import { resolve, type TypeName } from "../schema/SourceType.ts"
import * as Standby from "../Standby.ts"
import { type Bounds, FluvioConsumer, type FluvioRecord, Offset } from "../stream/FluvioConsumer.ts"
import { nothingStored, OffsetStore, type Stored, type StoredRelation } from "../stream/OffsetStore.ts"
import type { Relation } from "../stream/Relation.ts"
import { decode } from "../stream/ReplicationEvent.ts"
import { qualified, quote } from "../target/Identifier.ts"
import * as Mapping from "../target/Mapping.ts"
import { route } from "../target/Route.ts"
import * as Session from "../target/Session.ts"
import * as SqlFailure from "../target/SqlFailure.ts"
import { fires, load, type TableName, type TargetTable } from "../target/TargetTable.ts"
import * as Grants from "./Grants.ts"
import * as Operation from "./Operation.ts"
import { judge } from "./Position.ts"
import { sessionOf } from "./Status.ts"

/** `wrong` keeps a connector from working; a `note` is to be known. */
interface Item {
  readonly name: string
  readonly state: "ok" | "wrong" | "note"
  readonly finding: string
  /** What resolves it; SQL has a line for each statement. */
  readonly remedy?: string
}

const make =
  (state: Item["state"]) =>
  (name: string, finding: string, remedy?: string): Item => ({
    name,
    state,
    finding,
    ...(remedy === undefined ? {} : { remedy })
  })
const ok = make("ok")
const wrong = make("wrong")
const note = make("note")

const sqlText = (statements: ReadonlyArray<string>): string => statements.map((text) => `${text};`).join("\n")

const number = new Intl.NumberFormat("en")

/** What cannot be asked is wrong, and says itself why. */
const asked = <E extends { readonly message: string; readonly remedy: string }, R>(
  name: string,
  items: Effect.Effect<ReadonlyArray<Item>, E, R>
): Effect.Effect<ReadonlyArray<Item>, never, R> =>
  Effect.catch(items, ({ message, remedy }) => Effect.succeed([wrong(name, message, remedy)]))

/** In one transaction that cannot write, under the settings of those that apply. */
const reading = <A, E, R>(session: Session.Session, body: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    return yield* sql.withTransaction(
      Effect.andThen(Effect.andThen(sql`SET TRANSACTION READ ONLY`, session.begin), body)
    )
  }).pipe(SqlFailure.typed)

// The topic

const duration = (millis: number): string => {
  const minutes = Math.floor(millis / 60_000)
  if (minutes < 1) return `${Math.floor(millis / 1000)} s`
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`
}

const firstAt = Effect.fnUntraced(function* (offset: Offset) {
  const consumer = yield* FluvioConsumer
  const records = yield* Stream.runHead(consumer.records(offset))
  return Option.getOrUndefined(records)?.[0]
})

/** How much of what is applied the topic still has: so much may go before something is lost. */
const headRoom = Effect.fnUntraced(function* (next: Offset, { end, start }: Bounds) {
  if (next >= end) return [ok("retention", "all that the topic has is applied")]
  if (start === 0) return [ok("retention", "it has removed nothing from the topic yet")]
  if (next <= start) {
    return [
      note(
        "retention",
        "the next record to apply is the first that the topic has: retention may remove it before it is applied",
        "start the connector, or raise the topic's retention time"
      )
    ]
  }
  const [first, wanted] = yield* Effect.all([firstAt(start), firstAt(next)])
  const records = `${number.format(next - start)} records`
  const isTimed = first?.timestamp !== undefined && wanted?.timestamp !== undefined
  const age = isTimed ? `${duration(Math.max(0, wanted.timestamp! - first.timestamp!))}, ${records}` : records
  return [ok("retention", `the topic goes back ${age} before the next record to apply`)]
})

// The target

interface Server {
  readonly version: string
  readonly number: number
  readonly isReadOnly: boolean
  readonly tls: string | null
  readonly role: string
  readonly database: string
}

const server = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<Server>`
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS number,
      pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS "isReadOnly",
      (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl) AS tls,
      current_user::text AS role, current_database()::text AS database
  `
).pipe(
  Effect.map(([server]) => server),
  SqlFailure.typed
)

const ofServer = ({ database, isReadOnly, number, role, tls, version }: Server): ReadonlyArray<Item> => [
  number >= 130_000
    ? ok("target", `PostgreSQL ${version}, database ${database}, as ${role}`)
    : wrong("target", `PostgreSQL ${version} is too old`, "use PostgreSQL 13 or newer"),
  ...(isReadOnly
    ? [wrong("target", "the target is read-only", "connect to the primary, and check default_transaction_read_only")]
    : []),
  tls === null
    ? note("encryption", "the connection is not encrypted", "add sslmode=verify-full to the URL")
    : ok("encryption", tls)
]

/** Asked before anything else: such a pooler may lose the statements of whatever is asked after it. */
const pooled = Effect.gen(function* () {
  const { target } = yield* ConnectorConfig
  if (target.lock === "none" || (yield* Effect.scoped(Standby.hasOwnSessions))) return []
  const { message, remedy } = new Standby.SessionsPooled()
  return [wrong("pooler", message, remedy)]
}).pipe(
  // A target that cannot be reached is told of once.
  Effect.orElseSucceed(() => [])
)

const ofLock = Effect.fnUntraced(function* (session: Session.Session) {
  const { partition, target, topic } = yield* ConnectorConfig
  if (target.lock === "none") {
    return [note("lock", "target.lock is none: nothing keeps a second instance from running beside the first")]
  }
  const holder = yield* reading(session, sessionOf(topic, partition))
  if (holder === null) return [ok("lock", "no connector applies this topic here")]
  const { address, applicationName, pid } = holder
  return [
    ok("lock", `${applicationName ?? "a connector"} applies this topic here, from ${address ?? "local"} (pid ${pid})`)
  ]
})

/** Enough records to know the tables of what comes next, and not more than a moment can read. */
const most = { records: 100_000, bytes: 64 * 1024 * 1024 }

/** The relations and types that were applied, and those that the records to come describe. */
interface Known {
  readonly relations: ReadonlyArray<StoredRelation>
  readonly types: ReadonlyMap<number, TypeName>
  /** Of which relations the rows were applied. */
  readonly isApplied: (relation: Relation) => boolean
}

const eventOf = (record: FluvioRecord) => {
  try {
    return decode(record, { floatNull: "null" })
  } catch {
    // Whoever applies it says what is wrong with it.
    return undefined
  }
}

const known = Effect.fnUntraced(function* (stored: Stored, bounds: Bounds | undefined) {
  const { described, position } = stored
  const relations = new Map(described.relations.map((one) => [one.relation.id, one]))
  const types = new Map<number, TypeName>(described.types.map((type) => [type.id, type]))
  const applied = new Set(described.relations.map(({ relation }) => relation))
  const next = Option.match(position, { onNone: () => 0, onSome: ({ offset }) => offset + 1 })
  const from = bounds && Offset.make(described.relations.length === 0 ? bounds.start : Math.max(bounds.start, next))
  if (bounds !== undefined && from !== undefined && from < bounds.end) {
    const { records } = yield* FluvioConsumer
    const last = Math.min(bounds.end, from + most.records) - 1
    let bytes = 0
    yield* records(from).pipe(
      Stream.takeUntil((chunk) => {
        for (const record of chunk) bytes += record.size
        return chunk[chunk.length - 1].offset >= last || bytes > most.bytes
      }),
      Stream.runForEach((chunk) =>
        Effect.sync(() => {
          for (const record of chunk) {
            const event = eventOf(record)
            if (event?.type === "relation") {
              relations.set(event.relation.id, { relation: event.relation, offset: record.offset })
            } else if (event?.type === "type") types.set(event.id, event)
          }
        })
      )
    )
  }
  return {
    relations: [...relations.values()],
    types,
    isApplied: (relation) => applied.has(relation)
  } satisfies Known
})

const nameOf = ({ name, schema }: TableName): string => qualified(schema, name)

/** A relation that is applied, and where. */
interface Applied extends StoredRelation {
  readonly table: TableName
}

const appliedOf = (mapping: Mapping.Mapping, { relations }: Known): ReadonlyArray<Applied> =>
  relations.flatMap((one) => {
    const table = mapping.table(one.relation)
    return table === undefined ? [] : [{ ...one, table }]
  })

/** A table against its relation: what is missing, what differs, and how rows are found. */
const ofTable = Effect.fnUntraced(function* (
  one: Applied,
  target: TargetTable | undefined,
  { isApplied, types }: Known
) {
  const config = yield* ConnectorConfig
  const mapping = Mapping.make(config.tables)
  const { offset, relation, table } = one
  const name = nameOf(table)
  const follows = config.schemaChanges === "additive" || config.schemaChanges === "full"
  const columnName = mapping.column(relation)
  const { typeOf } = yield* resolve(relation.columns, {
    types,
    settings: config.types,
    schema: table.schema,
    schemaOf: mapping.schema
  }).pipe(SqlFailure.typed)
  const items: Array<Item> = []
  const mayFollow = follows && !isApplied(relation)
  const existing = new Map((target?.columns ?? []).map((column) => [column.name, column]))
  const missing: Array<string> = []
  for (const column of relation.columns) {
    const own = columnName(column.name)
    if (own === undefined) continue
    const type = typeOf(column)
    const found = existing.get(own)
    if (found === undefined) {
      missing.push(quote(own))
      if (mayFollow && typeof type !== "string") {
        items.push(wrong("types", `${name} cannot have the column ${quote(own)}: ${type.reason}`, type.remedy))
      }
    } else if (typeof type !== "string") {
      items.push(note("types", `${name}, ${quote(own)} is ${found.fullType} here, and ${type.reason}`))
    } else if (type !== found.fullType) {
      items.push(note("types", `${name}, ${quote(own)} is ${found.fullType} here and ${type} in the source`))
    }
  }
  if (target === undefined) {
    return [
      ...items,
      mayFollow
        ? note("tables", `${name} is not here; the connector creates it`)
        : wrong(
            "tables",
            `${name} is not here`,
            "create the table in the target with the rows that it should have by now, or leave it out with `tables.exclude`"
          )
    ]
  }
  if (target.hasRowSecurity) {
    items.push(
      wrong(
        "row security",
        `${name} hides rows from this role`,
        "ALTER ROLE … BYPASSRLS, or let the role own the table"
      )
    )
  }
  if (missing.length > 0 && mayFollow) {
    return [...items, note("tables", `${name} lacks ${missing.join(", ")}; the connector adds it`)]
  }
  const fitting = fits(relation, target, columnName, { offset, commitLsn: undefined })
  if (fitting._tag === "Failure") {
    const { message, remedy } = fitting.failure
    return [...items, wrong("tables", message, remedy)]
  }
  const its = route(relation, target, columnName)
  const makeKey = IdentityKey.statementOf(its)
  if (its.lookup === "none") {
    items.push(
      note(
        "keys",
        `${name}: the stream does not say which row an update or delete means, and the first of them stops the connector`,
        "give the source table a primary key or REPLICA IDENTITY FULL, and the target the columns of its key"
      )
    )
  } else if (its.lookup === "image") {
    items.push(
      note("keys", `${name}: each update and delete reads the table, because rows are found by all of their values`)
    )
  } else if (makeKey !== undefined) {
    items.push(note("keys", `${name}: each update and delete reads the table`, sqlText([makeKey])))
  }
  if (target.hasUncheckedKey) {
    items.push(
      note("keys", `${name} has a deferrable key, which PostgreSQL does not check while the connector applies`)
    )
  }
  return items
})

/** The rules and triggers of tables that fire while the connector applies. */
const firing = Effect.fnUntraced(function* (tables: ReadonlyArray<TableName>) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql
    .unsafe<{ readonly schema: string; readonly table: string; readonly name: string; readonly kind: string }>(
      `WITH class AS (
         SELECT class.oid, wanted.item->>'schema' AS schema, wanted.item->>'name' AS name
         FROM json_array_elements($1::json) AS wanted(item)
         JOIN pg_namespace AS namespace ON namespace.nspname = (wanted.item->>'schema')::name
         JOIN pg_class AS class ON class.relnamespace = namespace.oid AND class.relname = (wanted.item->>'name')::name
       )
       SELECT schema, class.name AS table, tgname AS name, 'trigger' AS kind
       FROM class JOIN pg_trigger AS trigger ON tgrelid = class.oid AND NOT tgisinternal AND ${fires("tgenabled")}
       UNION ALL
       SELECT schema, class.name, rulename, 'rule'
       FROM class JOIN pg_rewrite AS rule ON ev_class = class.oid AND ev_type <> '1' AND ${fires("ev_enabled")}
       ORDER BY 1, 2, 3`,
      [JSON.stringify(tables)]
    )
    .pipe(SqlFailure.typed)
  return rows.map(({ kind, name, schema, table }) =>
    note("triggers", `${qualified(schema, table)}: the ${kind} ${quote(name)} fires while the connector applies`)
  )
})

/** Nothing moves them here: the source's sequences are not part of the stream. Only what an index answers is asked. */
const behind = Effect.fnUntraced(function* (tables: ReadonlyArray<TableName>) {
  const sql = yield* SqlClient.SqlClient
  const owned = yield* sql
    .unsafe<{ readonly [part in "schema" | "table" | "column" | "sequenceSchema" | "sequence"]: string }>(
      `SELECT namespace.nspname AS schema, class.relname AS table, attname AS column,
         own.nspname AS "sequenceSchema", sequence.relname AS sequence
       FROM json_array_elements($1::json) AS wanted(item)
       JOIN pg_namespace AS namespace ON namespace.nspname = (wanted.item->>'schema')::name
       JOIN pg_class AS class ON class.relnamespace = namespace.oid AND class.relname = (wanted.item->>'name')::name
       JOIN pg_depend AS depend ON depend.refobjid = class.oid AND depend.refclassid = 'pg_class'::regclass
         AND depend.classid = 'pg_class'::regclass AND depend.deptype IN ('a', 'i')
       JOIN pg_class AS sequence ON sequence.oid = depend.objid AND sequence.relkind = 'S'
       JOIN pg_namespace AS own ON own.oid = sequence.relnamespace
       JOIN pg_attribute ON attrelid = class.oid AND attnum = depend.refobjsubid
       WHERE EXISTS (SELECT FROM pg_index WHERE indrelid = class.oid AND indkey[0] = attnum AND indpred IS NULL)
         AND has_table_privilege(class.oid, 'SELECT') AND has_table_privilege(sequence.oid, 'SELECT')
       ORDER BY 1, 2, 3`,
      [JSON.stringify(tables)]
    )
    .pipe(SqlFailure.typed)
  const items: Array<Item> = []
  for (const { column, schema, sequence, sequenceSchema, table } of owned) {
    const counter = qualified(sequenceSchema, sequence)
    const highest = `(SELECT max(${quote(column)}) FROM ${qualified(schema, table)})`
    const [{ isBehind }] = yield* sql
      .unsafe<{ readonly isBehind: boolean | null }>(
        `SELECT ${highest} > (SELECT last_value FROM ${counter}) AS "isBehind"`
      )
      .pipe(SqlFailure.typed)
    if (isBehind !== true) continue
    items.push(
      note(
        "sequences",
        `${counter} is behind the rows of ${qualified(schema, table)}, as no sequence is part of the stream`,
        `before others write here: SELECT pg_catalog.setval('${counter.replaceAll("'", "''")}', ${highest});`
      )
    )
  }
  return items
})

const ofTables = Effect.fnUntraced(function* (all: Known) {
  const config = yield* ConnectorConfig
  const applied = appliedOf(Mapping.make(config.tables), all)
  const names = applied.map(({ table }) => table)
  const targets = yield* load(names).pipe(SqlFailure.typed)
  const each = yield* Effect.forEach(applied, (one) => ofTable(one, targets.get(nameOf(one.table)), all))
  const items = each.flat()
  const missing = each.filter((own) => own.some(({ name }) => name === "tables")).length
  return [
    missing === 0
      ? ok("tables", `${number.format(applied.length)} of the topic are here, with all columns`)
      : ok(
          "tables",
          `${number.format(applied.length - missing)} of ${number.format(applied.length)} are here, with all columns`
        ),
    ...items,
    ...(yield* firing(names)),
    ...(yield* behind(names))
  ]
})

const ofPrivileges = (
  { grants }: { readonly grants: ReadonlyArray<Grants.Grant> },
  role: string
): ReadonlyArray<Item> => {
  const missing = grants.filter(({ isHeld, isOptional }) => !isHeld && isOptional !== true)
  return [
    missing.length === 0
      ? ok("privileges", `${role} has all that it needs`)
      : wrong(
          "privileges",
          `${role} lacks ${number.format(missing.length)} of ${number.format(grants.length)}`,
          sqlText(missing.map(({ statement }) => statement))
        )
  ]
}

const ofReplica = (isReplica: boolean, grants: ReadonlyArray<Grants.Grant>): ReadonlyArray<Item> => {
  if (isReplica) return [ok("replica", "triggers and foreign keys of the target are off while the connector applies")]
  const grant = grants.find(({ isOptional }) => isOptional)
  return [
    note(
      "replica",
      "the role may not set session_replication_role: triggers and foreign keys of the target are at work, and their tables are applied row by row",
      grant === undefined ? "before PostgreSQL 15 only a superuser may set it" : sqlText([grant.statement])
    )
  ]
}

/** All that there is to say of the target, as far as it may be asked. */
const ofTarget = Effect.fnUntraced(function* (bounds: Bounds | undefined) {
  const config = yield* ConnectorConfig
  const { inspect } = yield* OffsetStore
  const about = yield* server
  const session = yield* Session.make(config.target)
  const stored = yield* reading(session, inspect).pipe(Effect.result)
  const all = yield* known(stored._tag === "Success" ? stored.success : nothingStored, bounds)
  const tables = appliedOf(Mapping.make(config.tables), all).map(({ table }) => table)
  const grants = yield* reading(session, Grants.needed({ role: about.role, policy: config.schemaChanges, tables }))
  const privileges = ofPrivileges(grants, about.role)
  // A role without its rights cannot read where it is; the rights are what resolves that.
  const isDenied = stored._tag === "Failure" && privileges.some(({ state }) => state === "wrong")
  const position =
    stored._tag === "Success"
      ? []
      : [
          isDenied
            ? note("position", "it cannot be read before the role has its privileges")
            : wrong("position", stored.failure.message, stored.failure.remedy)
        ]
  return {
    stored: stored._tag === "Success" ? stored.success : undefined,
    items: [
      ...ofServer(about),
      ...privileges,
      ...ofReplica(session.isReplica, grants.grants),
      ...(yield* asked("lock", ofLock(session))),
      ...position,
      ...(yield* asked("tables", reading(session, ofTables(all))))
    ]
  }
})

const ofPosition = Effect.fnUntraced(function* (stored: Stored, bounds: Bounds) {
  const { finding, goesOn, isProved, remedy } = yield* judge(stored, bounds)
  const next = Offset.make(Option.match(stored.position, { onNone: () => 0, onSome: ({ offset }) => offset + 1 }))
  return [
    isProved ? ok("position", finding) : (goesOn ? note : wrong)("position", finding, remedy),
    ...(isProved || goesOn ? yield* headRoom(next, bounds) : [])
  ]
})

const everything = Effect.gen(function* () {
  const consumer = yield* FluvioConsumer
  const { consumer: reader } = yield* ConnectorConfig
  const topic = yield* Effect.result(consumer.bounds)
  const bounds = topic._tag === "Success" ? topic.success : undefined
  const ofPooler = yield* pooled
  const target = yield* Effect.result(ofTarget(bounds))
  const stored = target._tag === "Success" ? target.success.stored : undefined
  const at = reader.endpoint === undefined ? "" : ` at ${reader.endpoint}`
  return [
    topic._tag === "Success"
      ? ok(
          "topic",
          `${consumer.topic}-${consumer.partition}${at} starts at offset ${topic.success.start} and ends at offset ${topic.success.end}`
        )
      : wrong("topic", topic.failure.message, topic.failure.remedy),
    ...(stored === undefined || bounds === undefined ? [] : yield* asked("position", ofPosition(stored, bounds))),
    ...ofPooler,
    ...(target._tag === "Success"
      ? target.success.items
      : [wrong("target", target.failure.message, target.failure.remedy)])
  ]
})

const marks = { ok: "✓", wrong: "✗", note: "–" } as const

const lines = ({ finding, name, remedy, state }: Item): string =>
  [`${marks[state]} ${name.padEnd(13)}${finding}`, ...(remedy?.split("\n") ?? []).map((line) => `    ${line}`)].join(
    "\n"
  )

const script = Effect.fnUntraced(function* (role: string | undefined) {
  const config = yield* ConnectorConfig
  const consumer = yield* FluvioConsumer
  const { inspect } = yield* OffsetStore
  const session = yield* Session.make(config.target)
  const stored = yield* reading(session, inspect).pipe(Effect.orElseSucceed(() => nothingStored))
  const all = yield* known(stored, yield* consumer.bounds)
  const tables = appliedOf(Mapping.make(config.tables), all).map(({ table }) => table)
  const { role: own } = yield* server
  const grantee = role ?? own
  const found = yield* reading(session, Grants.needed({ role: grantee, policy: config.schemaChanges, tables }))
  const statements = found.grants.map(({ statement }) => statement)
  const comments = [
    `-- What ${quote(grantee)} needs for ${config.topic}-${config.partition} under schema-changes: ${config.schemaChanges}, to be run by a superuser.`,
    ...(found.exists ? [] : [`-- The role does not exist yet: CREATE ROLE ${quote(grantee)} LOGIN PASSWORD '…';`]),
    ...(found.mayBeReplica === null
      ? [
          "-- Before PostgreSQL 15 only a superuser may set session_replication_role: triggers and foreign keys are at work."
        ]
      : [])
  ].map((line) => line.replaceAll(/[\r\n]/g, " "))
  return { json: { role: grantee, statements }, text: [...comments, sqlText(statements)].join("\n") }
})

export const command = <LiveError, FileContext>(parts: Operation.Parts<LiveError, FileContext>) =>
  Operation.make(
    parts,
    "check",
    {
      short: "Tell whether a connector can work here, and what resolves it if not",
      description:
        "Tell whether a connector can work with this topic, this target and this role, with what resolves each thing that " +
        "is wrong (✗), and what is to be known (–). It writes nothing, and exits with 3 where something is wrong.",
      takesAllSettings: true,
      examples: [
        { command: "check --config connector.yaml", description: "Before the first start, and after every change" },
        {
          command: "check --config connector.yaml --grants --role sink | psql …",
          description: "Give a role its rights"
        }
      ]
    },
    {
      grants: Flag.Boolean("grants").pipe(
        Flag.withDescription("Print the GRANTs that the role needs as SQL, and check nothing"),
        Flag.withDefault(false)
      ),
      role: Flag.String("role").pipe(
        Flag.withDescription("With --grants: the role that the connector is to have, instead of the URL's"),
        Flag.withMetavar("name"),
        Flag.optional
      )
    },
    Effect.fnUntraced(function* ({ grants, role }, json) {
      if (grants) return yield* Operation.print(json, yield* script(Option.getOrUndefined(role)))
      if (Option.isSome(role)) {
        return yield* new ConnectorConfigError({
          key: "--role",
          reason: "belongs to --grants: a role can only be checked by logging in as it",
          remedy: "add --grants, or give the URL of the role"
        })
      }
      const items = yield* everything
      const isReady = !items.some(({ state }) => state === "wrong")
      yield* Operation.print(json, { json: { isReady, items }, text: items.map(lines).join("\n") })
      if (isReady) return
      const count = items.filter(({ state }) => state === "wrong").length
      return yield* new Operation.NotReady({
        message: `${count} of ${items.length} findings keep a connector from working here`,
        remedy: "resolve what is marked with ✗, and check again"
      })
    })
  )
