/** A group of changes as one target transaction: statements, schema changes and position, or nothing at all. */
import { Clock, Effect, Option } from "effect"
import { SqlClient } from "effect/sql"
import {
  likeImage,
  missedBy,
  NoStatement,
  type Planned,
  type Statement,
  statementOf,
  TakesCopy
} from "./plan/Statement.ts"
import { ConnectorConfig } from "./ConnectorConfig.ts"
import { FluvioConsumer } from "./stream/FluvioConsumer.ts"
import { type Applied, ChangeCount, Tally } from "./Applied.ts"
import {
  ApplyFailed,
  arbiterMissing,
  FoldGivenUp,
  identityFixed,
  IdentityMissing,
  InTransactionFailed,
  isFoldsOwn,
  isTooMuch,
  refusedAt,
  refusedTruncate,
  RowConflict,
  type SinkError,
  tableOf
} from "./SinkError.ts"
import * as Failpoint from "./Failpoint.ts"
import { InTransaction } from "./InTransaction.ts"
import { type PlannedChange, fold, inOrder } from "./plan/Fold.ts"
import type { Group } from "./stream/Group.ts"
import * as Mapping from "./target/Mapping.ts"
import {
  type Described,
  formatLsn,
  Lsn,
  OffsetStore,
  type OffsetStoreError,
  type Position,
  PositionConflict,
  type Stored,
  type StoredRelation,
  type StoredType
} from "./stream/OffsetStore.ts"
import type { Relation } from "./stream/Relation.ts"
import * as Filters from "./schema/Filters.ts"
import * as Router from "./schema/Router.ts"
import type * as SourceType from "./schema/SourceType.ts"
import * as Decision from "./schema/Decision.ts"
import * as IdentityKey from "./schema/IdentityKey.ts"
import { bystanders, Owners, truncated } from "./schema/Owners.ts"
import * as SchemaChange from "./schema/SchemaChange.ts"
import * as Unfilled from "./schema/Unfilled.ts"
import { qualified } from "./target/Identifier.ts"
import { type Route, route } from "./target/Route.ts"
import type { TargetTable } from "./target/TargetTable.ts"
import * as Session from "./target/Session.ts"
import * as SqlFailure from "./target/SqlFailure.ts"
import type { Change, End, Piece, RelationChange, RowChange, TruncateChange } from "./stream/Change.ts"
import type { Tuple } from "./stream/Tuple.ts"

/** The source broke a streamed transaction off and began again; what was applied of it is rolled back. */
export class BrokenOff {
  readonly _tag = "BrokenOff"
}

/** What was found out in a transaction that is rolled back. */
class Found {
  readonly _tag = "Found"
  readonly statements: ReadonlyArray<string>

  constructor(statements: ReadonlyArray<string>) {
    this.statements = statements
  }
}

export type Mode = "folded" | "in-order"

/** What the stream taught with these changes, to be kept with the position. */
const describedBy = (changes: ReadonlyArray<Change>): Described => ({
  relations: changes.flatMap((change) =>
    change.type === "relation" ? [{ relation: change.relation, offset: change.offset }] : []
  ),
  types: changes.flatMap((change) =>
    change.type === "type"
      ? [{ id: change.id, namespace: change.namespace, name: change.name, offset: change.offset }]
      : []
  )
})

const inOrderOf = (relations: ReadonlyArray<StoredRelation>): ReadonlyArray<Relation> =>
  relations.toSorted((a, b) => a.offset - b.offset).map(({ relation }) => relation)

const rowsTouched = (result: unknown): number => (result as { readonly rowCount: number }).rowCount

const placeOf = ({ offset, route }: Statement | NoStatement, commitLsn: Lsn | undefined) => ({
  table: tableOf(route.relation),
  offset,
  commitLsn
})

/** A statement, and the change that it is alone for; without one it is judged as a set. */
export interface PlannedStatement {
  readonly change: RowChange | undefined
  readonly statement: Planned
}

/** What a group will run, made before its turn comes; of use as long as the router knows what it knew then. */
export interface Plan {
  readonly version: number
  readonly statements: ReadonlyArray<PlannedStatement>
  readonly changes: number
  readonly counted: ChangeCount
  readonly millis: number
}

/** What applying would come to, in the order in which it would be done. */
export type Previewed =
  | { readonly type: "schema"; readonly statements: ReadonlyArray<string> }
  | (PlannedStatement & { readonly type: "rows" })
  /** Statements that cannot be known before a schema change is made, or a decision taken. */
  | { readonly type: "unknown"; readonly table: string; readonly changes: number }

export type Run<A, E, R = never> = Effect.Effect<A, E, R | SqlClient.SqlClient | OffsetStore>

export interface Sink {
  /** Triggers and foreign keys of the target are off while applying. */
  readonly isReplica: boolean
  /**
   * Folds a group of whole transactions while the one before it is being applied; `undefined` when its statements cannot
   * be known yet, because the target has to be asked or altered first.
   */
  readonly plan: (group: Group) => Effect.Effect<Plan | undefined>
  /** Applies whole transactions, all in one; folded as planned, if there is a plan. */
  readonly whole: (group: Group, mode: Mode, plan?: Plan) => Run<Applied, SinkError | FoldGivenUp>
  /**
   * Applies one transaction in parts, the first of them at hand and the others from `more`; each under a savepoint, so
   * that a part whose fold is given up is replayed alone.
   */
  readonly parts: <E, R>(first: Piece, more: Effect.Effect<Piece, E, R>) => Run<Applied, SinkError | BrokenOff | E, R>
  /**
   * Applies one transaction that was set aside, in the same way, and saves no position; `finish` is part of it. What is
   * `told` holds once the ambient transaction is committed.
   */
  readonly again: <E, R, E2, R2>(
    more: Effect.Effect<Piece, E, R>,
    finish: Run<void, E2, R2>
  ) => Run<{ readonly told: Effect.Effect<void> }, SinkError | BrokenOff | E | E2, R | R2>
  /** What the settings name and the stream has not shown, in sentences; `undefined` before it has described any table. */
  readonly unmatched: () => ReadonlyArray<string> | undefined
  /** Fails when another instance has moved the position since: then a failure of ours may have no other reason. */
  readonly stillOurs: Run<void, PositionConflict | OffsetStoreError>
  /** What would bring the target's schema to where these changes do: statements, or what else to do. Runs none of them. */
  readonly schemaChanges: (
    changes: ReadonlyArray<Change>,
    commitLsn: Lsn | undefined
  ) => Run<ReadonlyArray<string>, SinkError>
  /**
   * What a folded plan of a piece would run, and the schema changes before it. It runs none but those that create tables, or
   * with `alters` all schema changes, because what follows is planned against them: so the ambient transaction must be
   * rolled back. The next call goes on as if all had been applied, and this sink must not apply anything itself.
   */
  readonly preview: (piece: Piece, alters: boolean) => Run<ReadonlyArray<Previewed>, SinkError>
  /**
   * Moves past a transaction that `hold` sets aside, in one target transaction with it; what was described before it and
   * is not stored yet is given to that.
   */
  readonly past: <E, R>(
    piece: Piece,
    end: End,
    hold: (unsaved: Described) => Run<void, E, R>
  ) => Run<Applied, SinkError | E, R>
}

/** `learned` is what was described and is not stored yet; it is saved with the first group. */
export const make = Effect.fn("Sink.make")(function* (stored: Stored, learned: Described) {
  const config = yield* ConnectorConfig
  const options = { ...config, takesCopy: yield* TakesCopy }
  const { checksum } = yield* FluvioConsumer
  const clock = yield* Clock.Clock
  /** Milliseconds that no change of the machine's clock disturbs. */
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const session = yield* Session.make(config.target)
  const mapping = Mapping.make(config.tables)
  const router = Router.make(mapping)
  const types = new Map<number, SourceType.TypeName>(
    [...stored.described.types, ...learned.types].map((type) => [type.id, type])
  )
  /** By the tables as the catalog was read: the columns that were added without values. */
  const unfilled = new WeakMap<TargetTable, ReadonlyArray<Unfilled.Column>>()
  let saved = stored.position
  let unsaved = learned
  const savedEpoch = () => Option.match(saved, { onNone: () => 0, onSome: (position) => position.epoch })
  let epoch = savedEpoch()
  /** The relations as they were applied: whose the target's tables are. */
  let owners = Owners.of(mapping, inOrderOf([...stored.described.relations, ...learned.relations]))

  /** Tables of which rows were updated or deleted in the target transaction that is open, as far as foreign keys are checked. */
  const changedTables = new Set<string>()

  /** Forgets what is learned from now on, when it is called. */
  const undoing = () => {
    const before = { owners, unsaved }
    return () => {
      owners = before.owners
      unsaved = before.unsaved
      router.forget()
    }
  }

  /** Runs in a transaction of its own; whatever was learned in one that is rolled back is forgotten. */
  const transaction = <A, E, R>(body: Effect.Effect<A, E, R>) =>
    Effect.gen(function* () {
      const undo = undoing()
      const sql = yield* SqlClient.SqlClient
      changedTables.clear()
      const whole = Effect.andThen(session.begin, Failpoint.at("before first statement")).pipe(
        Effect.andThen(body),
        Effect.tap(() => Failpoint.at("before commit"))
      )
      return yield* sql.withTransaction(whole).pipe(
        SqlFailure.typed,
        Effect.tap(() => Failpoint.at("after commit")),
        Effect.onError(() => Effect.sync(undo))
      )
    })

  const execute = Effect.fnUntraced(function* (statement: Statement, commitLsn: Lsn | undefined) {
    const sql = yield* SqlClient.SqlClient
    const { kind, route } = statement
    if (route.table.checksForeignKeys && (kind === "update" || kind === "delete")) {
      changedTables.add(qualified(route.table.schema, route.table.name))
    }
    return yield* sql.unsafe(statement.text, statement.params).raw.pipe(
      SqlFailure.typed,
      Effect.map(rowsTouched),
      Effect.mapError(
        (failure) =>
          new ApplyFailed({
            table: tableOf(statement.route.relation),
            offset: statement.offset,
            commitLsn,
            failure: statement.kind === "truncate" ? refusedTruncate(statement, failure) : failure
          })
      )
    )
  })

  const refuse = (none: NoStatement, commitLsn: Lsn | undefined) => {
    const at = placeOf(none, commitLsn)
    switch (none.reason) {
      case "no identity":
        return new IdentityMissing(at)
      case "no arbiter":
        return arbiterMissing(none.route, config.existingRow === "skip" ? "skip" : "update", at)
      case "fixed identity":
        return identityFixed(none.route, at)
    }
  }

  /** A row that is looked up by all of its values is missed, if a column of it was added here without the source's. */
  const checkFilled = Effect.fnUntraced(function* (
    { offset, route }: Statement,
    image: Tuple | undefined,
    commitLsn: Lsn | undefined
  ): Effect.fn.Return<void, SqlFailure.SqlFailure | Unfilled.RowsUnfilled, SqlClient.SqlClient> {
    if (image === undefined) return
    let columns = unfilled.get(route.table)
    if (columns === undefined) unfilled.set(route.table, (columns = yield* Unfilled.columnsOf(route.table)))
    if (columns.length === 0) return
    const sql = yield* SqlClient.SqlClient
    const { params, text } = likeImage(route, image, new Set(columns.map(({ name }) => name)))
    const found = yield* SqlFailure.typed(sql.unsafe(text, params).raw)
    if (rowsTouched(found) === 0) return
    const table = qualified(route.table.schema, route.table.name)
    const lastOffset = Option.match(saved, { onNone: () => -1, onSome: (position): number => position.offset })
    return yield* new Unfilled.RowsUnfilled({
      table,
      offset,
      commitLsn,
      columns: columns.map(({ name }) => name),
      remedy: Unfilled.remedyOf(table, columns, config, (added) => added <= lastOffset)
    })
  })

  /** Its row may be gone or moved because a CASCADE of the target's own did what the source's has done. */
  const mayBeCascaded = ({ table }: Route): boolean =>
    table.references.some(({ cascades, name, schema }) => cascades && changedTables.has(qualified(schema, name)))

  /** One change: what it touches is judged by the policies. */
  const runOne = Effect.fnUntraced(function* (
    statement: Statement,
    change: RowChange,
    commitLsn: Lsn | undefined,
    tally: Tally
  ) {
    const touched = yield* execute(statement, commitLsn)
    if (touched === statement.rows) return
    const { kind, route } = statement
    const conflict = (kind: RowConflict["kind"]) =>
      new RowConflict({ ...placeOf(statement, commitLsn), kind, rows: touched })
    if (touched > 1) return yield* conflict("several_rows")
    const { differs, image, insert, moved, present, replace } = missedBy(route, change, options)
    const finds = (check: Statement | undefined) =>
      check === undefined ? Effect.succeed(false) : Effect.map(execute(check, commitLsn), (found) => found > 0)
    if (yield* finds(differs)) {
      if (replace === undefined) return yield* identityFixed(route, placeOf(statement, commitLsn))
      yield* execute(replace, commitLsn)
      return
    }
    const isThere = route.table.firesTriggers && (yield* finds(present))
    if (kind === "insert") {
      // Without a policy for existing rows an insert that meets one fails.
      const isExisting = config.existingRow !== "halt" && (isThere || !route.table.firesTriggers)
      return tally.skip(isExisting ? "existingRows" : "suppressedRows", statement, 1)
    }
    if (isThere) return tally.skip("suppressedRows", statement, 1)
    if (mayBeCascaded(route)) {
      if (kind === "delete") return
      if (moved !== undefined && (yield* execute(moved, commitLsn)) === 1) return
    }
    yield* checkFilled(statement, image, commitLsn)
    if (config.missingRow === "insert" && insert !== undefined) {
      yield* execute(insert, commitLsn)
    } else if (config.missingRow === "halt" || (config.missingRow === "insert" && kind === "update")) {
      return yield* conflict(kind === "update" ? "update_missing" : "delete_missing")
    } else tally.skip("missingRows", statement, 1)
  })

  /** A set: whatever is not as expected is left to the exact plan. */
  const runSet = Effect.fnUntraced(function* (statement: Statement, commitLsn: Lsn | undefined, tally: Tally) {
    const touched = yield* execute(statement, commitLsn)
    const lacking = (statement.rows ?? touched) - touched
    if (lacking === 0) return
    const { kind, mayMiss, route } = statement
    const isSkipped = lacking > 0 && mayMiss
    if (isSkipped && kind === "insert" && config.existingRow !== "halt") tally.skip("existingRows", statement, lacking)
    else if (isSkipped && kind === "insert" && route.table.firesTriggers) {
      tally.skip("suppressedRows", statement, lacking)
    } else if (isSkipped && kind === "delete" && mayBeCascaded(route)) return
    else if (isSkipped && kind !== "insert" && config.missingRow === "skip") {
      tally.skip("missingRows", statement, lacking)
    } else return yield* Effect.fail(new FoldGivenUp())
  })

  /** The statements of a run, each made when it is asked for, because all together they take much memory. */
  const statementsOf = function* (
    changes: ReadonlyArray<PlannedChange>,
    mode: Mode,
    spent: { plan: number }
  ): Generator<PlannedStatement> {
    let started = now()
    const steps = mode === "folded" ? fold(changes, router.routeOf) : inOrder(changes, router.routeOf)
    for (const step of steps) {
      const statement = statementOf(step, options)
      if (statement === undefined) continue
      spent.plan += now() - started
      yield { change: step.type === "row" ? step.change : undefined, statement }
      started = now()
    }
    spent.plan += now() - started
  }

  const isShared = (change: PlannedChange): change is TruncateChange =>
    change.type === "truncate" && bystanders(change, mapping, owners).sharing.length > 0

  /** The changes of a group that may be planned before its turn: whole, readable, and of known tables only. */
  const plannable = (group: Group): ReadonlyArray<PlannedChange> | undefined => {
    const changes: Array<PlannedChange> = []
    let known: Relation | undefined
    for (const piece of group) {
      if (piece.end === undefined || !piece.isFirst || piece.refusal !== undefined) return undefined
      for (let n = 0; n < piece.changes.length; n++) {
        const change = piece.changes[n]
        if (change.type === "relation" || change.type === "type") return undefined
        if (change.type === "truncate") {
          if (!change.relations.every(router.knows) || isShared(change)) return undefined
        } else if (change.relation !== known) {
          if (!router.knows(change.relation)) return undefined
          known = change.relation
        }
        changes.push(change)
      }
    }
    return changes
  }

  const plan: Sink["plan"] = Effect.fnUntraced(function* (group) {
    const changes = plannable(group)
    if (changes === undefined) return undefined
    const version = router.version()
    const spent = { plan: 0 }
    const counted = new ChangeCount()
    counted.add(changes)
    const statements: Array<PlannedStatement> = []
    for (const statement of statementsOf(changes, "folded", spent)) {
      statements.push(statement)
      // What PostgreSQL answers meanwhile is heard between two statements: it shall not wait for this.
      yield* Effect.yieldNow
    }
    return { version, statements, changes: changes.length, counted, millis: spent.plan }
  })

  const runStatements = Effect.fnUntraced(function* (
    statements: Iterable<PlannedStatement>,
    commitLsn: Lsn | undefined,
    tally: Tally
  ) {
    for (const { change, statement } of statements) {
      if (statement instanceof NoStatement) return yield* refuse(statement, commitLsn)
      tally.statements += 1
      yield* change === undefined ? runSet(statement, commitLsn, tally) : runOne(statement, change, commitLsn, tally)
      yield* Failpoint.at("after statement")
    }
  })

  const runSteps = Effect.fnUntraced(function* (
    changes: ReadonlyArray<PlannedChange>,
    mode: Mode,
    commitLsn: Lsn | undefined,
    tally: Tally
  ) {
    const started = now()
    const spent = { plan: 0 }
    yield* runStatements(statementsOf(changes, mode, spent), commitLsn, tally)
    tally.plan += spent.plan
    tally.execute += now() - started - spent.plan
    tally.changes += changes.length
    tally.counted.add(changes)
  })

  /** Applies a run between two schema changes. */
  const applyRun = Effect.fnUntraced(function* (
    changes: ReadonlyArray<PlannedChange>,
    mode: Mode,
    commitLsn: Lsn | undefined,
    tally: Tally
  ) {
    if (changes.length === 0) return
    const relations = new Set<Relation>()
    for (const change of changes) {
      if (change.type === "truncate") change.relations.forEach((relation) => relations.add(relation))
      else relations.add(change.relation)
    }
    const { offset } = changes[0]
    for (const relation of relations) {
      // It has had its name given back without a word of the stream: PostgreSQL describes it, but as it was known.
      if (!router.knows(relation) && owners.rivalOf(relation) !== undefined) {
        yield* applyRelation({ type: "relation", offset, relation, previous: relation }, commitLsn, tally)
        unsaved = { ...unsaved, relations: [...unsaved.relations, { relation, offset }] }
      }
    }
    yield* router.prepare(relations, { offset, commitLsn })
    yield* runSteps(changes, mode, commitLsn, tally)
  })

  /** Runs a statement of a schema change; when it fails, what depends on its column is asked for. */
  const alter = Effect.fnUntraced(function* (
    statement: SchemaChange.SchemaStatement,
    change: Pick<RelationChange, "offset" | "relation">,
    commitLsn: Lsn | undefined
  ) {
    const sql = yield* SqlClient.SqlClient
    const { column, kind, text } = statement
    const run = Effect.asVoid(sql.unsafe(text))
    const mayBeKept = column !== undefined && (kind === "dropColumn" || kind === "alterType")
    // Under a savepoint the catalog still answers after the failure.
    yield* SqlFailure.typed(mayBeKept ? sql.withTransaction(run) : run).pipe(
      Effect.catch((failure) =>
        Effect.gen(function* () {
          return yield* new ApplyFailed({
            table: tableOf(change.relation),
            offset: change.offset,
            commitLsn,
            failure,
            schemaChange: {
              statement: text,
              dependants:
                mayBeKept && failure.class === "schema" ? yield* SchemaChange.dependantsOf(statement, column) : [],
              instead: Decision.statementOf({ ...config, offset: change.offset }, ["…"])
            }
          })
        })
      )
    )
  })

  /** The identity becomes the key of the target's table, too, where that may be altered and does not have it. */
  const makeKey = Effect.fnUntraced(function* (change: RelationChange, commitLsn: Lsn | undefined, tally: Tally) {
    if (config.schemaChanges !== "additive" && config.schemaChanges !== "full") return
    const { offset, relation } = change
    const name = mapping.table(relation)
    const isKeyed = relation.replicaIdentity === "Default" || relation.replicaIdentity === "Index"
    if (name === undefined || !isKeyed) return
    const table = qualified(name.schema, name.name)
    const target = (yield* router.tables([name])).get(table)
    if (target === undefined) return
    const outcome = yield* IdentityKey.make(route(relation, target, mapping.column(relation))).pipe(
      Effect.mapError((failure) => new ApplyFailed({ table: tableOf(relation), offset, commitLsn, failure }))
    )
    switch (outcome.type) {
      case "obstacle":
        return yield* new SchemaChange.SchemaRefused({
          table,
          offset,
          commitLsn,
          reason: outcome.obstacle.reason,
          alternatives: [],
          readings: [],
          hint: outcome.obstacle.hint
        })
      case "failed":
        tally.tell(Effect.logWarning(`The key of ${table} could not be made: ${outcome.failure.message}`))
        return
      case "made":
        router.forget()
        tally.schemaChanges += 1
        tally.tell(
          Effect.logInfo(`Made the key of ${table} in ${outcome.seconds} s, at offset ${offset}: ${outcome.statement}`)
        )
    }
  })

  const applyRelation = Effect.fnUntraced(function* (change: RelationChange, commitLsn: Lsn | undefined, tally: Tally) {
    // The catalog is read afresh: somebody may have prepared the target for this very change.
    router.forget()
    const { tables } = router
    const {
      statements,
      unfilled: added,
      warnings
    } = yield* SchemaChange.plan(change, {
      config,
      mapping,
      owners,
      tables,
      types,
      commitLsn
    })
    for (const warning of warnings) tally.tell(Effect.logWarning(`${warning} (offset ${change.offset})`))
    for (const statement of statements) {
      yield* alter(statement, change, commitLsn)
      tally.tell(Effect.logInfo(`Changed the schema at offset ${change.offset}: ${statement.text}`))
      yield* Failpoint.at("after schema change")
    }
    if (added.length > 0) {
      const columns = statements.flatMap(({ column, kind, text }) =>
        kind === "addColumn" && column !== undefined && added.includes(column) ? [{ column, statement: text }] : []
      )
      yield* Unfilled.note(statements[0].table, columns, { ...config, offset: change.offset })
    }
    if (statements.length > 0) router.forget()
    yield* makeKey(change, commitLsn, tally)
    tally.schemaChanges += statements.length
    owners = owners.with(change.relation)
    const by = mapping.leftOutBy(change.relation)
    if (by !== undefined && change.previous === undefined) {
      tally.tell(Effect.logInfo(`${tableOf(change.relation)} is left out, because of ${by}`))
    }
  })

  /** A truncate of a table that has the rows of other relations too: the operator decides what is run instead. */
  const applyShared = Effect.fnUntraced(function* (change: TruncateChange, commitLsn: Lsn | undefined, tally: Tally) {
    const { offset, relations } = change
    yield* router.prepare(new Set(relations), { offset, commitLsn })
    const found = bystanders(change, mapping, owners)
    const truncating = (some: ReadonlyArray<Relation>) => {
      const routes = some.map(router.routeOf).filter((route) => route !== undefined)
      const statement = routes.length === 0 ? undefined : statementOf({ type: "truncate", routes, change }, options)
      return statement === undefined || statement instanceof NoStatement ? [] : [statement.text]
    }
    const [relation] = found.sharing
    const table = tableOf(relation)
    const place = { topic: config.topic, partition: config.partition, offset }
    const statements = yield* Decision.take(place)
    if (statements === undefined) {
      const all = truncating(relations)
      const own = truncating(relations.filter((one) => !found.sharing.includes(one)))
      return yield* SchemaChange.refused(truncated(found, { all, own }), { ...place, table, commitLsn })
    }
    for (const text of statements) yield* alter({ kind: "decided", text, table }, { offset, relation }, commitLsn)
    tally.tell(
      Effect.logWarning(`${table}: its truncate was carried out as decided in fluvio.decision (offset ${offset})`)
    )
    tally.changes += 1
    tally.counted.add([change])
  })

  const applyChanges = Effect.fnUntraced(function* (
    changes: ReadonlyArray<Change>,
    mode: Mode,
    commitLsn: Lsn | undefined,
    tally: Tally
  ) {
    let run: Array<PlannedChange> = []
    for (const change of changes) {
      if (change.type !== "relation" && change.type !== "type" && !isShared(change)) {
        run.push(change)
        continue
      }
      yield* applyRun(run, mode, commitLsn, tally)
      run = []
      if (change.type === "type") types.set(change.id, change)
      else if (change.type === "truncate") yield* applyShared(change, commitLsn, tally)
      else yield* applyRelation(change, commitLsn, tally)
    }
    yield* applyRun(run, mode, commitLsn, tally)
  })

  const positionAt = ({ commitLsn, commitTime, latestTime, record }: End, epoch: number): Position => ({
    offset: record.offset,
    checksum: checksum(record.value),
    epoch,
    commitLsn,
    commitTime,
    latestTime
  })

  /** Types are known by OIDs, which mean nothing in another epoch; nor do relations that are not saved yet. */
  const enter = (piece: Piece): void => {
    if (piece.epoch === epoch) return
    epoch = piece.epoch
    types.clear()
    owners = Owners.of(mapping, [])
    unsaved = { relations: [], types: [] }
  }

  /** Told once they are committed. */
  const passed = Effect.fnUntraced(function* (pieces: Group) {
    const [{ epoch, first }] = pieces
    if (epoch !== savedEpoch()) {
      yield* Effect.logInfo(
        `Epoch ${epoch} of the source has begun at offset ${first}: what was described before is forgotten`
      )
    }
    for (const { end, first, repeated } of pieces) {
      if (repeated === undefined || end === undefined) continue
      const { highest, lowest, transactions } = repeated
      yield* Effect.logInfo(
        `Skipped ${transactions} transactions that the source sent again, ${formatLsn(lowest)} to ${formatLsn(highest)}, at offsets ${first} to ${end.record.offset}`
      )
    }
  })

  const isApplied = (relation: Relation): boolean => mapping.table(relation) !== undefined

  const save = Effect.fnUntraced(function* (position: Position, changes: Described, { counted }: Tally) {
    const store = yield* OffsetStore
    const inTransaction = yield* InTransaction
    yield* inTransaction({ position, tables: counted.byTable(isApplied) }).pipe(
      SqlFailure.typed,
      Effect.mapError((failure) => new InTransactionFailed({ offset: position.offset, failure }))
    )
    yield* Failpoint.at("before position")
    yield* store.save(saved, position, {
      relations: [...unsaved.relations, ...changes.relations],
      types: [...unsaved.types, ...changes.types]
    })
  })

  const committed = (pieces: Group, position: Position, tally: Tally, commit: number): Applied => {
    saved = Option.some(position)
    unsaved = { relations: [], types: [] }
    const { counted, execute, plan, ...counts } = tally
    return {
      ...counts,
      position,
      tables: counted.byTable(isApplied),
      appendedAt: pieces[pieces.length - 1].end?.record.timestamp,
      transactions: pieces.filter((piece) => piece.end !== undefined && piece.repeated === undefined).length,
      duplicates: pieces.reduce((sum, { repeated }) => sum + (repeated?.transactions ?? 0), 0),
      records: pieces.reduce((sum, piece) => sum + piece.records, 0),
      bytes: pieces.reduce((sum, piece) => sum + piece.bytes, 0),
      millis: { plan, execute, commit }
    }
  }

  const whole: Sink["whole"] = Effect.fnUntraced(function* (group, mode, plan) {
    const tally = new Tally()
    const { end } = group[group.length - 1]
    enter(group[0])
    const position = positionAt(end!, epoch)
    const commitLsn = group.length === 1 ? end!.commitLsn : undefined
    const applyPlanned = Effect.fnUntraced(function* ({ changes, counted, millis, statements }: Plan) {
      const started = now()
      yield* runStatements(statements, commitLsn, tally)
      tally.plan = millis
      tally.execute = now() - started
      tally.changes = changes
      tally.counted.addAll(counted)
      return { relations: [], types: [] }
    })
    const applyUnplanned = Effect.gen(function* () {
      const changes = group.length === 1 ? group[0].changes : group.flatMap((piece) => piece.changes)
      yield* applyChanges(changes, mode, commitLsn, tally)
      return describedBy(changes)
    })
    let ready = 0
    yield* transaction(
      Effect.gen(function* () {
        const learned = yield* plan?.version === router.version() ? applyPlanned(plan) : applyUnplanned
        ready = now()
        yield* save(position, learned, tally)
      })
    ).pipe(Effect.mapError(refusedAt(end!)))
    if (mode === "in-order") tally.replays = 1
    yield* tally.told
    yield* passed(group)
    return committed(group, position, tally, now() - ready)
  })

  const applyPart = Effect.fnUntraced(function* (piece: Piece, mode: Mode, tally: Tally) {
    const sql = yield* SqlClient.SqlClient
    const attempt = new Tally()
    const undo = undoing()
    yield* sql.withTransaction(applyChanges(piece.changes, mode, piece.end?.commitLsn, attempt)).pipe(
      SqlFailure.typed,
      Effect.onError(() => Effect.sync(undo))
    )
    if (mode === "in-order") attempt.replays = 1
    tally.add(attempt)
  })

  /** Applies a transaction in parts up to its end, the first of them at hand. */
  const applyParts = Effect.fnUntraced(function* <E, R>(first: Piece, more: Effect.Effect<Piece, E, R>, tally: Tally) {
    const relations: Array<StoredRelation> = []
    const types: Array<StoredType> = []
    let records = 0
    let bytes = 0
    for (let piece = first; ; piece = yield* more) {
      if (piece !== first && piece.isFirst) return yield* Effect.fail(new BrokenOff())
      if (piece.refusal !== undefined) return yield* piece.refusal
      yield* applyPart(piece, "folded", tally).pipe(
        Effect.catchIf(
          (error) => isFoldsOwn(error) || isTooMuch(error),
          () => applyPart(piece, "in-order", tally)
        )
      )
      const learned = describedBy(piece.changes)
      relations.push(...learned.relations)
      types.push(...learned.types)
      records += piece.records
      bytes += piece.bytes
      const { end } = piece
      if (end !== undefined) return { piece: { ...piece, records, bytes }, end, learned: { relations, types } }
    }
  })

  const parts: Sink["parts"] = Effect.fnUntraced(function* <E, R>(first: Piece, more: Effect.Effect<Piece, E, R>) {
    const tally = new Tally()
    let ready = 0
    let end: End | undefined
    enter(first)
    const { piece, position } = yield* transaction(
      Effect.gen(function* () {
        const applied = yield* applyParts(first, more, tally)
        end = applied.end
        const position = positionAt(end, applied.piece.epoch)
        ready = now()
        yield* save(position, applied.learned, tally)
        return { position, piece: applied.piece }
      })
    ).pipe(Effect.mapError((error) => (end === undefined ? error : refusedAt(end)(error)))) as Run<
      { readonly position: Position; readonly piece: Piece },
      SinkError | BrokenOff | E,
      R
    >
    yield* tally.told
    yield* passed([{ ...piece, first: first.first }])
    return committed([piece], position, tally, now() - ready)
  })

  const again: Sink["again"] = Effect.fnUntraced(function* <E, R, E2, R2>(
    more: Effect.Effect<Piece, E, R>,
    finish: Run<void, E2, R2>
  ) {
    const tally = new Tally()
    let end: End | undefined
    yield* transaction(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const applied = yield* applyParts(yield* more, more, tally)
        end = applied.end
        // What COMMIT would check shows here, where it is known of which transaction it is; and where nothing is committed.
        yield* SqlFailure.typed(sql`SET CONSTRAINTS ALL IMMEDIATE`)
        yield* finish
      })
    ).pipe(Effect.mapError((error) => (end === undefined ? error : refusedAt(end)(error))))
    return { told: tally.told }
  }) as Sink["again"]

  const schemaChanges: Sink["schemaChanges"] = Effect.fnUntraced(function* (changes, commitLsn) {
    const relations = changes.filter((change) => change.type === "relation")
    if (relations.length === 0) return []
    const { tables } = router
    const context = { config: { ...config, schemaChanges: "full" as const }, mapping, owners, tables, types, commitLsn }
    const plans = Effect.forEach(relations, (change) =>
      SchemaChange.plan(change, context).pipe(
        Effect.map(({ statements }) => statements.map(({ text }) => text)),
        Effect.catchTag(["SchemaRefused", "NotATable"], ({ remedy }) => Effect.succeed([remedy]))
      )
    )
    // Rolled back: it may have taken a decision, which is not carried out here.
    const found = yield* transaction(Effect.flatMap(plans, (found) => Effect.fail(new Found(found.flat())))).pipe(
      Effect.catchTag("Found", ({ statements }) => Effect.succeed(statements))
    )
    return [...new Set(found)]
  })

  /** By their qualified names: tables that are not yet what a preview has them become. */
  const unmade = new Set<string>()

  const previewRelation = Effect.fnUntraced(function* (
    change: RelationChange,
    commitLsn: Lsn | undefined,
    alters: boolean
  ) {
    router.forget()
    const { tables } = router
    const { relation } = change
    const { statements } = yield* SchemaChange.plan(change, { config, mapping, owners, tables, types, commitLsn })
    const name = mapping.table(relation)
    const table = name && qualified(name.schema, name.name)
    const target = name === undefined ? undefined : (yield* tables([name])).get(qualified(name.schema, name.name))
    const makesKey = config.schemaChanges === "additive" || config.schemaChanges === "full"
    const key =
      target === undefined || statements.length > 0 || !makesKey
        ? undefined
        : IdentityKey.statementOf(route(relation, target, mapping.column(relation)))
    owners = owners.with(relation)
    for (const statement of statements) {
      if (alters || statement.kind === "createSchema" || statement.kind === "createTable") {
        yield* alter(statement, change, commitLsn)
      } else if (table !== undefined) unmade.add(table)
    }
    if (statements.length > 0) router.forget()
    return [...statements.map(({ text }) => text), ...(key === undefined ? [] : [key])]
  })

  /** The table whose next shape, or whose decision, the change waits for. */
  const unmadeBy = (change: PlannedChange): string | undefined => {
    for (const relation of change.type === "truncate" ? change.relations : [change.relation]) {
      const name = mapping.table(relation)
      if (name !== undefined && unmade.has(qualified(name.schema, name.name))) return qualified(name.schema, name.name)
    }
    return isShared(change) ? tableOf(change.relations[0]) : undefined
  }

  const preview: Sink["preview"] = Effect.fnUntraced(function* (piece, alters) {
    const { changes, end, refusal } = piece
    if (refusal !== undefined) return yield* refusal
    enter(piece)
    const commitLsn = end?.commitLsn
    const previewed: Array<Previewed> = []
    const unknown = new Map<string, number>()
    let run: Array<PlannedChange> = []
    const flush = Effect.gen(function* () {
      const [first] = run
      if (first === undefined) return
      const relations = new Set(
        run.flatMap((change) => (change.type === "truncate" ? change.relations : change.relation))
      )
      yield* router.prepare(relations, { offset: first.offset, commitLsn })
      for (const statement of statementsOf(run, "folded", { plan: 0 })) {
        if (statement.statement instanceof NoStatement) return yield* refuse(statement.statement, commitLsn)
        previewed.push({ type: "rows", ...statement })
      }
      run = []
    })
    for (const change of changes) {
      if (change.type === "type") types.set(change.id, change)
      else if (change.type === "relation") {
        yield* flush
        const statements = yield* previewRelation(change, commitLsn, alters)
        if (statements.length > 0) previewed.push({ type: "schema", statements })
      } else {
        const table = unmadeBy(change)
        if (table === undefined) run.push(change)
        else unknown.set(table, (unknown.get(table) ?? 0) + 1)
      }
    }
    yield* flush
    return [...previewed, ...[...unknown].map(([table, changes]) => ({ type: "unknown" as const, table, changes }))]
  })

  const past: Sink["past"] = Effect.fnUntraced(function* (piece, end, hold) {
    const tally = new Tally()
    enter(piece)
    const position = positionAt(end, epoch)
    const started = now()
    const written = Effect.andThen(hold(unsaved), Failpoint.at("after quarantine write"))
    yield* transaction(Effect.andThen(written, save(position, describedBy(piece.changes), tally)))
    for (const change of piece.changes) {
      if (change.type === "type") types.set(change.id, change)
      if (change.type === "relation") owners = owners.with(change.relation)
    }
    router.forget()
    tally.quarantined = 1
    yield* passed([piece])
    return committed([piece], position, tally, now() - started)
  })

  const stillOurs: Sink["stillOurs"] = Effect.gen(function* () {
    const { load } = yield* OffsetStore
    const { position } = yield* load
    const expected = Option.map(saved, ({ offset }) => offset)
    if (Option.getOrUndefined(position)?.offset === Option.getOrUndefined(expected)) return
    return yield* new PositionConflict({ topic: config.topic, partition: config.partition, expected })
  })

  const unmatched: Sink["unmatched"] = () => {
    const { relations } = owners
    return relations.length === 0 ? undefined : Filters.unmatched(config, relations, types)
  }

  const leftOut = owners.relations.filter((relation) => mapping.table(relation) === undefined).map(tableOf)
  if (leftOut.length > 0) yield* Effect.logInfo(`Left out, as the settings are: ${leftOut.toSorted().join(", ")}`)

  const sink: Sink = {
    isReplica: session.isReplica,
    unmatched,
    plan,
    whole,
    parts,
    again,
    past,
    preview,
    schemaChanges,
    stillOurs
  }
  return sink
})
