/**
 * The whole pipeline in memory, for tests of this package and of programs that embed it: a partition whose records are
 * scripted, a position that is kept in memory, and a SqlClient that records statements instead of running them.
 *
 * ```ts
 * const test = Effect.gen(function* () {
 *   const applied = yield* Connector.groups.pipe(Stream.take(1), Stream.runCollect)
 *   const sent = yield* Mock.Recording
 * }).pipe(Effect.provide(Mock.layer({ log: [begin, insert, commit], tables: [orders] })))
 * ```
 *
 * Gotcha: no statement has an effect. What the target would refuse, or which rows it has, is for the test to say, with
 * `answer`; without it every statement does what it should.
 */
import { PgClient } from "@effect/sql-pg"
import { Context, Deferred, type Duration, Effect, Layer, Option, Ref, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, type SqlConnection, SqlError } from "effect/sql"
import { ConnectorConfig, type ConnectorConfigError, fromObject } from "../src/ConnectorConfig.ts"
import {
  type Bounds,
  FluvioConsumer,
  type FluvioError,
  FluvioRecord,
  Offset,
  type Records,
  refusalAt
} from "../src/stream/FluvioConsumer.ts"
import { qualified } from "../src/target/Identifier.ts"
import { nothingStored, OffsetStore, type Position, PositionConflict, type Stored } from "../src/stream/OffsetStore.ts"
import * as SourceType from "../src/schema/SourceType.ts"
import * as TargetTable from "../src/target/TargetTable.ts"
import { crc32c } from "./fluvio/Natives.ts"

const utf8 = new TextEncoder()

/** The partition that is read. */
export class Log extends Context.Service<
  Log,
  {
    /** Records with these values, at the next offsets. */
    append(values: ReadonlyArray<string | Uint8Array>): Effect.Effect<Bounds>
    /** Raises the log's start to `offset`, as retention does. Readers that have begun go on. */
    trim(offset: number): Effect.Effect<Bounds>
    /** From now on the records before `offset` are committed, and no others are, as after a change of leaders. */
    commit(offset: number): Effect.Effect<Bounds>
    /** Readers that have read everything fail with this error, those that begin later do not. */
    fail(error: FluvioError): Effect.Effect<void>
  }
>()("fluvio-postgres-sink/Mock/Log") {}

export interface LogOptions {
  /** Values of the records that are there at the start. */
  readonly log?: ReadonlyArray<string | Uint8Array>
  /** Offset of the first of them, 0 by default. */
  readonly firstOffset?: number
  /** Most records in a chunk, 100 by default. */
  readonly chunkSize?: number
}

/** A partition in memory. At its end it waits, as a real one does. */
export const layerConsumer = ({ chunkSize = 100, firstOffset = 0, log = [] }: LogOptions = {}): Layer.Layer<
  FluvioConsumer | Log,
  never,
  ConnectorConfig
> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const { partition, topic } = yield* ConnectorConfig
      const values: Array<Uint8Array> = []
      let start = firstOffset
      let committed = Infinity
      let changed = Deferred.makeUnsafe<void>()
      let readers = Deferred.makeUnsafe<never, FluvioError>()
      const bounds = Effect.sync(() => {
        const written = Offset.make(firstOffset + values.length)
        return { start: Offset.make(start), end: Offset.make(Math.min(committed, written)), written }
      })
      const append = (added: ReadonlyArray<string | Uint8Array>) =>
        Effect.suspend(() => {
          for (const value of added) values.push(typeof value === "string" ? utf8.encode(value) : value)
          const waiting = changed
          changed = Deferred.makeUnsafe()
          return Effect.andThen(Deferred.succeed(waiting, undefined), bounds)
        })

      const consumer = FluvioConsumer.of({
        topic,
        partition,
        bounds,
        checksum: (value) => crc32c(value),
        records: (from) =>
          Stream.suspend(() => {
            const refused = refusalAt({ topic, partition }, from, Effect.runSync(bounds))
            if (refused !== undefined) return Stream.fail(refused)
            const broken = readers
            let next: number = from
            const take: Effect.Effect<Records, FluvioError> = Effect.suspend(() => {
              const [first, ...others] = values
                .slice(next - firstOffset, Math.min(next + chunkSize, committed) - firstOffset)
                .map((value, n) => FluvioRecord.of(Offset.make(next + n), value))
              if (first === undefined) {
                return Effect.andThen(Effect.raceFirst(Deferred.await(changed), Deferred.await(broken)), take)
              }
              next += others.length + 1
              return Effect.succeed([first, ...others])
            })
            return Stream.fromEffectRepeat(take)
          })
      })

      yield* append(log)
      return Context.make(FluvioConsumer, consumer).pipe(
        Context.add(
          Log,
          Log.of({
            append,
            trim: (offset) =>
              Effect.suspend(() => {
                start = offset
                return bounds
              }),
            commit: (offset) =>
              Effect.suspend(() => {
                committed = offset
                const waiting = changed
                changed = Deferred.makeUnsafe()
                return Effect.andThen(Deferred.succeed(waiting, undefined), bounds)
              }),
            fail: (error) =>
              Effect.suspend(() => {
                const waiting = readers
                readers = Deferred.makeUnsafe()
                return Effect.asVoid(Deferred.fail(waiting, error))
              })
          })
        )
      )
    })
  )

/** What the store in memory holds; set it to script a start, read it to see what was saved. */
export class StoredRef extends Context.Service<StoredRef, Ref.Ref<Stored>>()("fluvio-postgres-sink/Mock/StoredRef") {}

const isSame = (left: Option.Option<Position>, right: Option.Option<Position>): boolean =>
  Option.isNone(left) || Option.isNone(right)
    ? Option.isNone(left) && Option.isNone(right)
    : left.value.offset === right.value.offset && left.value.checksum === right.value.checksum

/** What comes later replaces what has the same key, and takes its place in the order of offsets. */
const merged = <A extends { readonly offset: number }>(
  before: ReadonlyArray<A>,
  changed: ReadonlyArray<A>,
  key: (item: A) => number
): ReadonlyArray<A> =>
  [...new Map([...before, ...changed].map((item) => [key(item), item])).values()].sort((a, b) => a.offset - b.offset)

/** A position in memory, in the {@link StoredRef}. As in a real store, what is rolled back is not saved. */
export const layerOffsetStore: Layer.Layer<OffsetStore, never, StoredRef | SqlClient.SqlClient | ConnectorConfig> =
  Layer.effect(
    OffsetStore,
    Effect.gen(function* () {
      const ref = yield* StoredRef
      const sql = yield* SqlClient.SqlClient
      const { partition, topic } = yield* ConnectorConfig
      return OffsetStore.of({
        load: Ref.get(ref),
        inspect: Ref.get(ref),
        pause: Effect.sync(() => undefined),
        skips: Effect.succeed([]),
        report: () => Effect.succeed(0),
        save: Effect.fnUntraced(function* (previous, next, changed) {
          const { described, position } = yield* Ref.get(ref)
          if (!isSame(previous, position)) {
            const expected = Option.map(previous, (p) => p.offset)
            return yield* new PositionConflict({ topic, partition, expected })
          }
          const epoch = Option.match(position, { onNone: () => 0, onSome: (known) => known.epoch })
          const known = next.epoch === epoch ? described : nothingStored.described
          const stored: Stored = {
            position: Option.some(next),
            described: {
              relations: merged(known.relations, changed.relations, (entry) => entry.relation.id),
              types: merged(known.types, changed.types, (entry) => entry.id)
            },
            savedBy: "connector"
          }
          yield* sql.afterCommit(Ref.set(ref, stored))
        }),
        forget: Effect.fnUntraced(function* (previous) {
          const { position } = yield* Ref.get(ref)
          if (!isSame(Option.some(previous), position)) {
            return yield* new PositionConflict({ topic, partition, expected: Option.some(previous.offset) })
          }
          yield* sql.afterCommit(Ref.set(ref, nothingStored))
        })
      })
    })
  )

/** A statement as it would have been sent. */
export interface Recorded {
  readonly text: string
  readonly params: ReadonlyArray<unknown>
}

export interface Answer {
  readonly rows?: ReadonlyArray<object>
  /** How many rows the statement touched: by default as many as it should, and for a query as many as it gave. */
  readonly rowCount?: number
  /** The statement fails with this SQLSTATE. */
  readonly sqlState?: string
  /** It takes this long, on the clock of the test. */
  readonly delay?: Duration.Input
}

/** Everything that was sent to the target, transaction control included, in order. */
export class Recording extends Context.Service<Recording, ReadonlyArray<Recorded>>()(
  "fluvio-postgres-sink/Mock/Recording"
) {}

const failed = (sqlState: string) =>
  new SqlError.SqlError({
    reason: new SqlError.UnknownError({ cause: { code: sqlState }, message: "mock", operation: "execute" })
  })

/** The elements of a PostgreSQL array of one dimension. */
const elements = (array: string): number =>
  array === "{}" ? 0 : (array.match(/"(?:[^"\\]|\\.)*"|[^",{}]+/gs)?.length ?? 0)

/** How many rows a statement touches when source and target agree. */
const rowsMeant = ({ params, text }: Recorded): number => {
  if (!/^(INSERT|UPDATE|DELETE|WITH old AS)/.test(text)) return 0
  if (text.includes("generate_series(1, $1")) return Number(params[0])
  return /(unnest|ANY)\(\$1::/.test(text) ? elements(String(params[0])) : 1
}

const catalogRow = (table: TargetTable.TargetTable): TargetTable.CatalogRow => ({
  ...table,
  kind: "table",
  columns: table.columns.map((column) => ({
    ...column,
    equality: column.equality ?? null,
    identity: column.identity ?? null
  })),
  keys: [
    ...(table.primaryKey === undefined
      ? []
      : [
          {
            name: `${table.name}_pkey`,
            columns: table.primaryKey,
            isPrimary: true,
            isImmediate: !table.isPrimaryKeyDeferrable,
            isTemporal: table.isPrimaryKeyTemporal
          }
        ]),
    ...table.uniqueKeys.map((columns, n) => ({
      name: `${table.name}_key${n}`,
      columns,
      isPrimary: false,
      isImmediate: true,
      isTemporal: false
    }))
  ]
})

const builtIn: { readonly [oid: number]: string } = {
  16: "boolean",
  17: "bytea",
  20: "bigint",
  21: "smallint",
  23: "integer",
  25: "text",
  700: "real",
  701: "double precision",
  1042: "bpchar",
  1043: "character varying",
  1082: "date",
  1114: "timestamp without time zone",
  1184: "timestamp with time zone",
  1700: "numeric",
  2950: "uuid",
  3802: "jsonb"
}

interface WantedType {
  readonly id: number
  readonly name?: string
  readonly setting?: string
}

const foundType = ({ id, name, setting }: WantedType) => ({
  text: setting ?? builtIn[id] ?? null,
  named: name === undefined ? null : [{ text: `public.${name}`, schema: "public" }]
})

type Tables =
  ReadonlyArray<TargetTable.TargetTable> | ((sent: ReadonlyArray<Recorded>) => ReadonlyArray<TargetTable.TargetTable>)

const parsed = (param: unknown): ReadonlyArray<unknown> => JSON.parse(String(param)) as ReadonlyArray<unknown>

/** What the connector asks of the catalog before it can write. */
const catalog = ({ params, text }: Recorded, sent: ReadonlyArray<Recorded>, given: Tables): Answer | undefined => {
  if (text === TargetTable.query) {
    const tables = typeof given === "function" ? given(sent) : given
    const byName = new Map(tables.map((table) => [qualified(table.schema, table.name), table]))
    const names = parsed(params[0]) as ReadonlyArray<TargetTable.TableName>
    const found = names.map(({ name, schema }) => byName.get(qualified(schema, name)))
    return { rows: found.filter((table) => table !== undefined).map(catalogRow) }
  }
  if (text === SourceType.query) {
    return { rows: [{ hasSchema: true, types: (parsed(params[0]) as ReadonlyArray<WantedType>).map(foundType) }] }
  }
  if (text.startsWith("SELECT EXISTS (SELECT FROM ")) return { rows: [{ hasRows: true, hasNull: false }] }
  return text.startsWith("SELECT pg_try_advisory_lock") ? { rows: [{ pg_try_advisory_lock: true }] } : undefined
}

export interface SqlOptions {
  /**
   * The tables of the target; as a function, those that it has after these statements. Built-in types are known without
   * their modifiers, and every user-defined type by its name, in the schema `public`.
   */
  readonly tables?: Tables
  /** What a statement is answered; where it says nothing, the statement does what it should. */
  readonly answer?: (statement: Recorded, sent: ReadonlyArray<Recorded>) => Answer | undefined
}

/** A SqlClient that records. It compiles statements as that of PostgreSQL does. */
export const layerSqlClient = ({ answer, tables = [] }: SqlOptions = {}): Layer.Layer<
  SqlClient.SqlClient | Recording
> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const sent: Array<Recorded> = []
      let sessions = 0
      const send = Effect.fnUntraced(function* (session: number, text: string, params: ReadonlyArray<unknown>) {
        const statement = { text, params }
        const known: Answer | undefined = text === "SELECT pg_backend_pid()" ? { rows: [{ pid: session }] } : undefined
        const said = answer?.(statement, sent) ?? known ?? catalog(statement, sent, tables) ?? {}
        sent.push(statement)
        const { delay, rows = [], rowCount = rows.length + rowsMeant(statement), sqlState } = said
        if (delay !== undefined) yield* Effect.sleep(delay)
        return sqlState === undefined ? { rows, rowCount } : yield* failed(sqlState)
      })
      const connection = Effect.sync((): SqlConnection.Connection => {
        const session = ++sessions
        const sendHere = (text: string, params: ReadonlyArray<unknown>) => send(session, text, params)
        const rowsOf = (text: string, params: ReadonlyArray<unknown>) =>
          Effect.map(sendHere(text, params), ({ rows }) => rows)
        const valuesOf = (text: string, params: ReadonlyArray<unknown>) =>
          Effect.map(rowsOf(text, params), (rows) => rows.map((row) => Object.values(row) as ReadonlyArray<unknown>))
        return {
          execute: rowsOf,
          executeRaw: sendHere,
          executeStream: (text, params) => Stream.fromIterableEffect(rowsOf(text, params)),
          executeValues: valuesOf,
          executeValuesUnprepared: valuesOf,
          executeUnprepared: rowsOf
        }
      })
      const client = yield* SqlClient.make({
        acquirer: connection,
        compiler: PgClient.makeCompiler(),
        driver: "mock",
        releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
        spanAttributes: []
      })
      return Context.make(SqlClient.SqlClient, client).pipe(Context.add(Recording, sent))
    })
  ).pipe(Layer.provide(Reactivity.layer))

export interface MockOptions extends LogOptions, SqlOptions {
  /** What the store holds at the start; nothing by default. */
  readonly stored?: Stored
  /** Settings as in a configuration file, over those of a topic `mock`. */
  readonly config?: object
}

/** Everything that `Connector.run` requires, and what a test scripts and reads. */
export const layer = ({ config = {}, stored = nothingStored, ...options }: MockOptions = {}): Layer.Layer<
  ConnectorConfig | FluvioConsumer | Log | OffsetStore | StoredRef | SqlClient.SqlClient | Recording,
  ConnectorConfigError
> =>
  Layer.mergeAll(layerConsumer(options), layerOffsetStore).pipe(
    Layer.provideMerge(layerSqlClient(options)),
    Layer.provideMerge(Layer.effect(StoredRef, Ref.make(stored))),
    Layer.provideMerge(
      ConnectorConfig.layerFrom([fromObject(config), fromObject({ topic: "mock", url: "postgres://mock/mock" })])
    )
  )
