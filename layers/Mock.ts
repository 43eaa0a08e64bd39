/**
 * The whole pipeline in memory, for tests of this package and of programs that embed it: scripted records, a position
 * that is kept in memory, and a SqlClient that records statements instead of running them.
 */
import { crc32c } from "@node-rs/crc32"
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Layer, Option, Ref, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, type SqlConnection, SqlError } from "effect/sql"
import {
  FluvioConsumer,
  type FluvioRecord,
  Offset,
  OffsetBeyondEnd,
  OffsetEvicted,
  type Records
} from "../src/FluvioConsumer.ts"
import { OffsetStore, type Position, PositionConflict, type Stored } from "../src/OffsetStore.ts"

/** A consumer whose log holds exactly these records, in chunks of `chunkSize`; it waits behind the last one for ever. */
export const layerConsumer = (
  log: ReadonlyArray<FluvioRecord>,
  options: { readonly topic?: string; readonly chunkSize?: number } = {}
): Layer.Layer<FluvioConsumer> => {
  const topic = options.topic ?? "mock"
  const chunkSize = options.chunkSize ?? 100
  const start = log.length === 0 ? Offset.make(0) : log[0].offset
  const end = Offset.make(start + log.length)
  const chunks = (from: number): ReadonlyArray<Records> => {
    const rest = log.slice(from - start)
    const found: Array<Records> = []
    for (let at = 0; at < rest.length; at += chunkSize) {
      const [first, ...others] = rest.slice(at, at + chunkSize)
      found.push([first, ...others])
    }
    return found
  }
  return Layer.succeed(
    FluvioConsumer,
    FluvioConsumer.of({
      topic,
      partition: 0,
      bounds: Effect.succeed({ start, end }),
      checksum: (value) => crc32c(value),
      records: (from) =>
        from < start
          ? Stream.fail(new OffsetEvicted({ topic, partition: 0, requested: from, available: start }))
          : from > end
            ? Stream.fail(new OffsetBeyondEnd({ topic, partition: 0, requested: from, end }))
            : Stream.concat(Stream.fromIterable(chunks(from)), Stream.never)
    })
  )
}

/** What the store in memory holds; set it to script a start, read it to see what was saved. */
export class StoredRef extends Context.Service<StoredRef, Ref.Ref<Stored>>()("fluvio-postgres-sink/Mock/StoredRef") {}

export const nothingStored: Stored = {
  position: Option.none(),
  catalogue: { relations: [], types: [] },
  isLegacy: false
}

const isSame = (left: Option.Option<Position>, right: Option.Option<Position>): boolean =>
  Option.isNone(left) || Option.isNone(right)
    ? Option.isNone(left) && Option.isNone(right)
    : left.value.offset === right.value.offset && left.value.checksum === right.value.checksum

/** A position in memory. It takes no part in transactions: what is rolled back stays saved. */
export const layerOffsetStore = (stored: Stored = nothingStored): Layer.Layer<OffsetStore | StoredRef> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const ref = yield* Ref.make(stored)
      const store = OffsetStore.of({
        load: Ref.get(ref),
        save: Effect.fnUntraced(function* (previous, next, changed) {
          const { catalogue, position } = yield* Ref.get(ref)
          if (!isSame(previous, position)) {
            const expected = Option.map(previous, (p) => p.offset)
            return yield* new PositionConflict({ topic: "mock", partition: 0, expected })
          }
          const relations = new Map(catalogue.relations.map((entry) => [entry.relation.id, entry]))
          const types = new Map(catalogue.types.map((entry) => [entry.id, entry]))
          changed.relations.forEach((entry) => relations.set(entry.relation.id, entry))
          changed.types.forEach((entry) => types.set(entry.id, entry))
          yield* Ref.set(ref, {
            position: Option.some(next),
            catalogue: { relations: [...relations.values()], types: [...types.values()] },
            isLegacy: false
          })
        })
      })
      return Context.make(OffsetStore, store).pipe(Context.add(StoredRef, ref))
    })
  )

/** A statement as it would have been sent. */
export interface Recorded {
  readonly text: string
  readonly params: ReadonlyArray<unknown>
}

export interface Answer {
  readonly rows?: ReadonlyArray<object>
  readonly rowCount?: number
  /** The statement fails with this SQLSTATE. */
  readonly sqlState?: string
}

/** Everything that was sent to the target, transaction control included, in order. */
export class Recording extends Context.Service<Recording, Array<Recorded>>()("fluvio-postgres-sink/Mock/Recording") {}

const failed = (sqlState: string) =>
  new SqlError.SqlError({
    reason: new SqlError.UnknownError({ cause: { code: sqlState }, message: "mock", operation: "execute" })
  })

/** A SqlClient that records and answers with what `answer` says; without an answer a statement touches one row. */
export const layerSqlClient = (
  answer: (statement: Recorded) => Answer | undefined
): Layer.Layer<SqlClient.SqlClient | Recording> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const recording: Array<Recorded> = []
      const send = (
        text: string,
        params: ReadonlyArray<unknown>
      ): Effect.Effect<Required<Omit<Answer, "sqlState">>, SqlError.SqlError> =>
        Effect.suspend(() => {
          recording.push({ text, params })
          const { rowCount = 1, rows = [], sqlState } = answer({ text, params }) ?? {}
          return sqlState === undefined ? Effect.succeed({ rows, rowCount }) : Effect.fail(failed(sqlState))
        })
      const rowsOf = (text: string, params: ReadonlyArray<unknown>) =>
        Effect.map(send(text, params), ({ rows }) => rows)
      const valuesOf = (text: string, params: ReadonlyArray<unknown>) =>
        Effect.map(rowsOf(text, params), (rows) => rows.map((row) => Object.values(row) as ReadonlyArray<unknown>))
      const connection: SqlConnection.Connection = {
        execute: rowsOf,
        executeRaw: send,
        executeStream: (text, params) => Stream.fromIterableEffect(rowsOf(text, params)),
        executeValues: valuesOf,
        executeValuesUnprepared: valuesOf,
        executeUnprepared: rowsOf
      }
      const client = yield* SqlClient.make({
        acquirer: Effect.succeed(connection),
        compiler: PgClient.makeCompiler(),
        driver: "mock",
        spanAttributes: []
      })
      return Context.make(SqlClient.SqlClient, client).pipe(Context.add(Recording, recording))
    })
  ).pipe(Layer.provide(Reactivity.layer))
