import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Mock from "../../layers/Mock.ts"
import { FluvioRecord } from "../../src/stream/FluvioConsumer.ts"
import * as Sink from "../../src/Sink.ts"
import type { Piece } from "../../src/stream/Change.ts"
import {
  begin,
  commit,
  insert,
  int4,
  lsn,
  offset,
  raw,
  relation,
  relationOf,
  remove,
  sqlNull,
  text,
  truncate,
  type,
  unchangedToast,
  update
} from "../events.ts"
import * as Pipeline from "../pipeline.ts"
import { targetColumn, targetTable } from "../tables.ts"

const pet = relationOf()
const known = Pipeline.knowing(pet)
const row = (id: number, name = `n${id}`) => [int4(id), text(name)]
const added = (id: number, name?: string) => insert(pet.id, row(id, name))
const renamed = (id: number, name: string) => update(pet.id, row(id, name))
const removed = (id: number) => remove(pet.id, { key: [int4(id), sqlNull] })

const insertSet = `INSERT INTO "public"."pets" ("id", "name") SELECT unnest($1::integer[]), unnest($2::text[])`
const updateSet =
  `UPDATE ONLY "public"."pets" AS t SET "name" = v.c0 FROM ` +
  `(SELECT unnest($1::integer[]) AS k0, unnest($2::text[]) AS c0) AS v WHERE t."id" = v.k0 AND t."id" = ANY($1::integer[])`
const deleteSet = `DELETE FROM ONLY "public"."pets" AS t WHERE t."id" = ANY($1::integer[])`
/** Rows that the plan leaves alone, because they come and go in it, must not be there. */
const absentSet = `SELECT FROM ONLY "public"."pets" AS t WHERE t."id" = ANY($1::integer[])`
const insertRow = `INSERT INTO "public"."pets" ("id", "name") VALUES ($1::integer, $2::text)`
const updateRow = `UPDATE ONLY "public"."pets" AS t SET "id" = $1::integer, "name" = $2::text WHERE t."id" = $3::integer`
const deleteRow = `DELETE FROM ONLY "public"."pets" AS t WHERE t."id" = $1::integer`

/** Fails each statement whose text and parameters match. */
const refusing =
  (pattern: RegExp, sqlState: string) =>
  ({ params, text }: Mock.Recorded) =>
    pattern.test(`${text} -- ${params.join(" | ")}`) ? { sqlState } : undefined

/** Lets a statement that begins so touch so many rows. */
const touching = (start: string, rowCount: number) => (statement: Mock.Recorded) =>
  statement.text.startsWith(start) ? { rowCount } : undefined

describe("Sink", () => {
  it.effect("applies the net change of each row, deletes first and inserts last", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(
          begin(1),
          added(1),
          renamed(1, "Ada"),
          added(2),
          removed(2),
          renamed(3, "Bo"),
          removed(4),
          commit(1),
          begin(2),
          renamed(3, "Cy"),
          renamed(5, "Di"),
          commit(2)
        )
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [
        [
          "catalog",
          `${deleteSet} -- {"4"}`,
          `${absentSet} -- {"2"}`,
          `${updateSet} -- {"3","5"} | {"Cy","Di"}`,
          `${insertSet} -- {"1"} | {"Ada"}`,
          "COMMIT"
        ]
      ])
      assert.deepInclude(pipeline.applied[0], { transactions: 2, changes: 8, statements: 4, replays: 0 })
    })
  )

  it.effect("gives a plan that a constraint refuses up, and replays the group in the source's order", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(begin(1), added(1), renamed(2, "Bo"), removed(3), commit(1), begin(2), added(3), commit(2)),
        answer: refusing(/^INSERT.* SELECT /, "23505")
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [
        [
          "catalog",
          `${deleteSet} -- {"3"}`,
          `${updateSet} -- {"2"} | {"Bo"}`,
          `${insertSet} -- {"1","3"} | {"n1","n3"}`,
          "ROLLBACK"
        ],
        [
          "catalog",
          `${insertRow} -- 1 | n1`,
          `${updateRow} -- 2 | Bo | 2`,
          `${deleteRow} -- 3`,
          `${insertRow} -- 3 | n3`,
          "COMMIT"
        ]
      ])
      assert.deepInclude(pipeline.applied[0], { transactions: 2, changes: 4, statements: 4, replays: 1 })
    })
  )

  it.effect("commits what comes before a transaction that fails for good, names its place, and leaves the rest", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(
          begin(1),
          added(1),
          commit(1),
          begin(2),
          added(2),
          added(9, "bad"),
          commit(2),
          begin(3),
          added(3),
          commit(3)
        ),
        answer: refusing(/bad/, "23514")
      })
      const error = yield* pipeline.stopped({
        _tag: "ApplyFailed",
        table: "public.pets",
        offset: offset(5),
        commitLsn: lsn(2),
        isRetryable: false
      })
      assert.strictEqual(error.message, "public.pets, offset 5, transaction 0/2: check violation (SQLSTATE 23514)")
      const transactions = pipeline.transactions()
      assert.deepStrictEqual(
        transactions.filter((statements) => statements.at(-1) === "COMMIT"),
        [["catalog", `${insertSet} -- {"1"} | {"n1"}`, "COMMIT"]]
      )
      assert.deepStrictEqual(transactions.at(-1), [
        "catalog",
        `${insertRow} -- 2 | n2`,
        `${insertRow} -- 9 | bad`,
        "ROLLBACK"
      ])
      assert.strictEqual((yield* pipeline.position)?.offset, 2)
    })
  )

  it.effect("reads the catalog again when a statement fails, because the table may have been altered", () =>
    Effect.gen(function* () {
      for (const sqlState of ["23502", "42883", "22P02"]) {
        let isRefused = true
        const pipeline = yield* Pipeline.start({
          stored: known,
          log: Pipeline.log(begin(1), added(1), commit(1)),
          answer: ({ text }) => {
            if (!text.startsWith("INSERT") || !isRefused) return undefined
            isRefused = false
            return { sqlState }
          }
        })
        yield* pipeline.until(() => pipeline.applied.length === 1)
        assert.deepStrictEqual(
          pipeline.transactions().map(([first]) => first),
          ["catalog", "catalog"]
        )
      }
    })
  )

  it.effect("finds the transaction that a constraint refuses only at its end", () =>
    Effect.gen(function* () {
      let isDoubtful = false
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(begin(1), added(1), commit(1), begin(2), added(2), commit(2), begin(3), added(3), commit(3)),
        answer: ({ params, text }) => {
          if (text === "BEGIN") isDoubtful = false
          if (text.startsWith("INSERT")) isDoubtful ||= params.join().includes("n2")
          return text === "COMMIT" && isDoubtful ? { sqlState: "23503" } : undefined
        }
      })
      const error = yield* pipeline.stopped({ _tag: "ApplyFailed", offset: offset(5), commitLsn: lsn(2) })
      assert.strictEqual(
        error.message,
        "the whole transaction, offset 5, transaction 0/2: foreign key violation (SQLSTATE 23503)"
      )
      assert.strictEqual((yield* pipeline.position)?.offset, 2)
    })
  )

  it.effect("plans a group of however many transactions", () =>
    Effect.gen(function* () {
      const sink = yield* Sink.make(known, { relations: [], types: [] })
      const record = FluvioRecord.of(offset(0), new Uint8Array())
      const empty: Piece = {
        isFirst: true,
        first: offset(0),
        xid: 1,
        changes: [],
        bytes: 1,
        records: 2,
        end: { record, commitLsn: lsn(1), commitTime: undefined, latestTime: undefined },
        epoch: 0,
        repeated: undefined,
        skip: undefined,
        refusal: undefined
      }
      const plan = yield* sink.plan([empty, ...Array.from({ length: 300_000 }, () => empty)])
      assert.deepInclude(plan, { statements: [], changes: 0 })
    }).pipe(Effect.provide(Mock.layer()))
  )

  it.effect("says once that the target's triggers are at work where the role may not be a replica", () =>
    Effect.gen(function* () {
      const settings: Array<unknown> = []
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(begin(1), added(1), commit(1)),
        answer: (statement) => {
          if (statement.text.startsWith("SELECT set_config($1")) settings.push(...statement.params)
          return refusing(/^SELECT set_config\('session_replication_role'/, "42501")(statement)
        }
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.notInclude(settings, "session_replication_role")
      assert.lengthOf(
        pipeline.logged.filter((message) => message.startsWith("Warn: The target's role may not set")),
        1
      )
    })
  )

  it.effect("replays in order where triggers would see another order", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        tables: [targetTable({ firesTriggers: true })],
        log: Pipeline.log(begin(1), added(1), renamed(1, "Ada"), commit(1))
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions().at(-1), [
        "catalog",
        `${insertRow} -- 1 | n1`,
        `${updateRow} -- 1 | Ada | 1`,
        "COMMIT"
      ])
    })
  )

  it.effect("passes a truncate on, in its place", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(
          begin(1),
          added(1),
          truncate([pet.id], { cascade: true, restartIdentity: true }),
          added(2),
          commit(1)
        )
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [
        [
          "catalog",
          `${insertSet} -- {"1"} | {"n1"}`,
          `TRUNCATE ONLY "public"."pets" RESTART IDENTITY`,
          `${insertSet} -- {"2"} | {"n2"}`,
          "COMMIT"
        ]
      ])
    })
  )
})

describe("Sink's policies", () => {
  const changed = Pipeline.log(begin(1), renamed(1, "Ada"), renamed(2, "Bo"), removed(3), commit(1))

  it.effect("missing-row: skip goes on and counts", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: known, log: changed, answer: touching("UPDATE", 1) })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.lengthOf(pipeline.transactions(), 1)
      assert.deepInclude(pipeline.applied[0], { missingRows: 1, replays: 0 })
    })
  )

  it.effect("missing-row: insert puts the row in whose update finds none", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: changed,
        config: { "missing-row": "insert" },
        answer: ({ params, text }) =>
          text.startsWith("DELETE") || (text.startsWith("UPDATE") && String(params.at(-1)).includes("2"))
            ? { rowCount: 0 }
            : undefined
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions().at(-1), [
        "catalog",
        `${updateRow} -- 1 | Ada | 1`,
        `${updateRow} -- 2 | Bo | 2`,
        `${insertRow} -- 2 | Bo`,
        `${deleteRow} -- 3`,
        "COMMIT"
      ])
      assert.deepInclude(pipeline.applied[0], { missingRows: 1, replays: 1 })
    })
  )

  it.effect("missing-row: insert stops where the source did not send the whole row", () =>
    Effect.gen(function* () {
      const wide = relationOf({
        columns: [...pet.columns, { name: "photo", isKey: false, typeId: 17, typeModifier: -1 }]
      })
      const pipeline = yield* Pipeline.start({
        stored: Pipeline.knowing(wide),
        tables: [targetTable({ columns: [...targetTable().columns, targetColumn({ name: "photo", type: "bytea" })] })],
        log: Pipeline.log(begin(1), update(pet.id, [...row(1), unchangedToast]), commit(1)),
        config: { "missing-row": "insert" },
        answer: touching("UPDATE", 0)
      })
      yield* pipeline.stopped({ _tag: "RowConflict", kind: "update_missing", offset: offset(1), rows: 0 })
    })
  )

  it.effect("missing-row: halt stops at the first row that is missing, and nothing is applied", () =>
    Effect.gen(function* () {
      const config = { "missing-row": "halt" }
      const first = yield* Pipeline.start({ stored: known, log: changed, config, answer: touching("UPDATE", 0) })
      const update = yield* first.stopped({ _tag: "RowConflict", kind: "update_missing", offset: offset(1) })
      assert.strictEqual(
        update.message,
        "public.pets, offset 1, transaction 0/1: conflict update_missing, 0 rows touched instead of 1"
      )
      const second = yield* Pipeline.start({ stored: known, log: changed, config, answer: touching("DELETE", 0) })
      yield* second.stopped({ _tag: "RowConflict", kind: "delete_missing", offset: offset(3) })
      for (const pipeline of [first, second]) {
        assert.isTrue(pipeline.transactions().every((statements) => statements.at(-1) === "ROLLBACK"))
        assert.isUndefined(yield* pipeline.position)
      }
    })
  )

  it.effect("stops when a change touches several rows, whatever the policies", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: known, log: changed, answer: touching("UPDATE", 3) })
      const error = yield* pipeline.stopped({ _tag: "RowConflict", kind: "several_rows", offset: offset(1), rows: 3 })
      assert.strictEqual(error.remedy, "the key is not unique in the target: add the unique index that the source has")
    })
  )

  it.effect("existing-row: skip leaves the row that is there, update overwrites it, and halt stops", () =>
    Effect.gen(function* () {
      const log = Pipeline.log(begin(1), added(1), added(2), commit(1))
      const skipping = yield* Pipeline.start({
        stored: known,
        log,
        config: { "existing-row": "skip" },
        answer: touching("INSERT", 1)
      })
      yield* skipping.until(() => skipping.applied.length === 1)
      assert.deepStrictEqual(skipping.transactions(), [
        ["catalog", `${insertSet} ON CONFLICT ("id") DO NOTHING -- {"1","2"} | {"n1","n2"}`, "COMMIT"]
      ])
      assert.deepInclude(skipping.applied[0], { existingRows: 1, replays: 0 })

      const updating = yield* Pipeline.start({ stored: known, log, config: { "existing-row": "update" } })
      yield* updating.until(() => updating.applied.length === 1)
      assert.deepStrictEqual(updating.transactions(), [
        [
          "catalog",
          `${insertSet} ON CONFLICT ("id") DO UPDATE SET "id" = EXCLUDED."id", "name" = EXCLUDED."name" -- {"1","2"} | {"n1","n2"}`,
          "COMMIT"
        ]
      ])
      assert.deepInclude(updating.applied[0], { existingRows: 0 })

      const halting = yield* Pipeline.start({ stored: known, log, answer: refusing(/^INSERT.*2/, "23505") })
      const error = yield* halting.stopped({ _tag: "ApplyFailed", offset: offset(1) })
      assert.strictEqual(error.message, "public.pets, offset 1, transaction 0/1: unique violation (SQLSTATE 23505)")
    })
  )

  it.effect("replays in order when an insert that was updated afterwards finds its row there already", () =>
    Effect.gen(function* () {
      const conflict = ' ON CONFLICT ("id") DO NOTHING'
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(begin(1), added(1), renamed(1, "Ada"), commit(1)),
        config: { "existing-row": "skip" },
        answer: touching("INSERT", 0)
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      // Skipping the folded insert would skip the update with it, which in order meets the row that is there.
      assert.deepStrictEqual(pipeline.transactions(), [
        ["catalog", `${insertSet}${conflict} -- {"1"} | {"Ada"}`, "ROLLBACK"],
        ["catalog", `${insertRow}${conflict} -- 1 | n1`, `${updateRow} -- 1 | Ada | 1`, "COMMIT"]
      ])
      assert.deepInclude(pipeline.applied[0], { existingRows: 1, replays: 1 })
    })
  )

  it.effect("stops at a change that does not say which row it means", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: Pipeline.knowing(
          relationOf({
            replicaIdentity: "Nothing",
            columns: pet.columns.map((column) => ({ ...column, isKey: false }))
          })
        ),
        log: Pipeline.log(begin(1), added(1), renamed(1, "Ada"), commit(1))
      })
      yield* pipeline.stopped({ _tag: "IdentityMissing", offset: offset(2), commitLsn: lsn(1) })
      assert.isUndefined(yield* pipeline.position)
    })
  )
})

/** Two changes with such names fit into a part of the least size. */
const long = (id: number) => `n${id}${"-".repeat(250)}`
const wide = (...ids: ReadonlyArray<number>) => ids.map((id) => added(id, long(id)))
const insertSetOf = (...ids: ReadonlyArray<number>) =>
  `${insertSet} -- {${ids.map((id) => `"${id}"`).join()}} | {${ids.map((id) => `"${long(id)}"`).join()}}`
const savepoint = "SAVEPOINT effect_sql_1"
const release = "RELEASE SAVEPOINT effect_sql_1"
const back = "ROLLBACK TO SAVEPOINT effect_sql_1"

describe("Sink's large transactions", () => {
  const config = { group: { bytes: "1 KiB" } }

  it.effect("stream into one target transaction, part by part, and are committed with the position", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        config,
        log: Pipeline.log(begin(1), added(1), commit(1), begin(2), wide(2, 3, 4, 5, 6))
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.transactions(), [
        ["catalog", `${insertSet} -- {"1"} | {"n1"}`, "COMMIT"],
        [savepoint, insertSetOf(2, 3), release, savepoint, insertSetOf(4, 5), release]
      ])
      assert.strictEqual((yield* pipeline.position)?.offset, 2)

      yield* pipeline.append(commit(2), begin(3), added(7), commit(3))
      yield* pipeline.until(() => pipeline.applied.length === 3)
      assert.deepStrictEqual(pipeline.sent(), [
        savepoint,
        insertSetOf(6),
        release,
        "COMMIT",
        "BEGIN",
        "settings",
        `${insertSet} -- {"7"} | {"n7"}`,
        "COMMIT"
      ])
      assert.deepInclude(pipeline.applied[1], { transactions: 1, changes: 5, records: 7, statements: 3 })
      assert.deepInclude(pipeline.applied[1].position, { offset: offset(9), commitLsn: lsn(2) })
      assert.strictEqual((yield* pipeline.position)?.offset, 12)
    })
  )

  it.effect("keep what the stream said of shapes in any of their parts", () =>
    Effect.gen(function* () {
      const full = relationOf({ replicaIdentity: "Full" })
      const pipeline = yield* Pipeline.start({
        stored: known,
        config,
        log: Pipeline.log(begin(1), type(20_001, "mood"), wide(1, 2), relation(full), wide(3, 4, 5), commit(1))
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual((yield* pipeline.stored).described, {
        relations: [{ relation: full, offset: offset(4) }],
        types: [{ id: 20_001, namespace: "mood", name: "mood", offset: offset(1) }]
      })
    })
  )

  it.effect("replay in order only the part whose plan a constraint refuses", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        config,
        log: Pipeline.log(begin(1), wide(1, 2, 3, 4, 5), commit(1)),
        answer: refusing(/ SELECT .*"4"/, "23505")
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [
        [
          savepoint,
          "catalog",
          insertSetOf(1, 2),
          release,
          savepoint,
          insertSetOf(3, 4),
          back,
          release,
          savepoint,
          "catalog",
          `${insertRow} -- 3 | ${long(3)}`,
          `${insertRow} -- 4 | ${long(4)}`,
          release,
          savepoint,
          insertSetOf(5),
          release,
          "COMMIT"
        ]
      ])
      assert.deepInclude(pipeline.applied[0], { changes: 5, statements: 4, replays: 1 })
    })
  )

  it.effect("are rolled back when the source breaks off, and the repeat is applied", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        config,
        log: Pipeline.log(begin(1), wide(1, 2, 3), begin(1), wide(1, 2, 3), commit(1), begin(2), added(9), commit(2))
      })
      yield* pipeline.until(() => pipeline.applied.length === 2)
      assert.deepStrictEqual(pipeline.transactions(), [
        [savepoint, "catalog", insertSetOf(1, 2), release, "ROLLBACK"],
        [savepoint, "catalog", insertSetOf(1, 2), release, savepoint, insertSetOf(3), release, "COMMIT"],
        [`${insertSet} -- {"9"} | {"n9"}`, "COMMIT"]
      ])
      assert.deepStrictEqual(
        pipeline.applied.map(({ position, transactions }) => [position.offset, transactions]),
        [
          [offset(8), 1],
          [offset(11), 1]
        ]
      )
    })
  )

  it.effect("may be broken off and repeated in small", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        config,
        log: Pipeline.log(begin(1), wide(1, 2, 3), begin(1), added(9), commit(1))
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [
        [savepoint, "catalog", insertSetOf(1, 2), release, "ROLLBACK"],
        ["catalog", `${insertSet} -- {"9"} | {"n9"}`, "COMMIT"]
      ])
    })
  )

  it.effect("are rolled back whole when a part fails for good, before the source has ended them", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        config,
        log: Pipeline.log(begin(1), wide(1, 2, 3, 4, 5, 6, 7)),
        answer: refusing(/INSERT.*4-/, "22001")
      })
      const error = yield* pipeline.stopped({ _tag: "ApplyFailed", offset: offset(4), isRetryable: false })
      assert.strictEqual(error.message, "public.pets, offset 4: value too long for its column (SQLSTATE 22001)")
      const [statements] = pipeline.transactions()
      assert.deepStrictEqual(statements.slice(-4), [`${insertRow} -- 4 | ${long(4)}`, back, release, "ROLLBACK"])
      assert.isUndefined(yield* pipeline.position)
    })
  )

  it.effect("are tried again at once when the backend dies in the middle of them", () =>
    Effect.gen(function* () {
      let isDead = false
      let deaths = 0
      const pipeline = yield* Pipeline.start({
        stored: known,
        config,
        log: Pipeline.log(begin(1), wide(1, 2, 3, 4, 5)),
        answer: ({ text }) => {
          if (text.startsWith("SELECT pg_backend_pid")) isDead = false
          if (text === release && deaths === 0) {
            deaths += 1
            isDead = true
          }
          return isDead ? { sqlState: "57P01" } : undefined
        }
      })
      yield* pipeline.settle
      assert.deepStrictEqual(pipeline.transactions(), [[savepoint, "catalog", insertSetOf(1, 2), release, "ROLLBACK"]])
      yield* TestClock.adjust("250 millis")
      yield* pipeline.append(commit(1))
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.strictEqual((yield* pipeline.position)?.offset, 6)
    })
  )

  it.effect("are given up in the middle when the connector is to end", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: known, config, log: Pipeline.log(begin(1), wide(1, 2, 3)) })
      yield* pipeline.settle
      yield* pipeline.interrupt
      assert.deepStrictEqual(pipeline.sent().slice(-4), [insertSetOf(1, 2), release, "ROLLBACK", "unlock"])
      assert.isUndefined(yield* pipeline.position)
    })
  )
})

describe("Sink's schema changes", () => {
  const older = pet
  const newer = relationOf({
    columns: [...pet.columns, { name: "age", isKey: false, typeId: 23, typeModifier: -1 }]
  })
  const addColumn = `ALTER TABLE "public"."pets" ADD COLUMN "age" integer`
  const withAge = targetTable({ columns: [...Pipeline.pets.columns, targetColumn({ name: "age", type: "integer" })] })
  /** The target's tables once the statements have run, whatever became of their transaction. */
  const tables = (sent: ReadonlyArray<Mock.Recorded>) =>
    sent.some(({ text }) => text === addColumn) ? [withAge] : [Pipeline.pets]

  it.effect("run where they stand between the changes, in the same transaction as these and the position", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        tables,
        log: Pipeline.log(
          begin(1),
          added(1),
          relation(older),
          added(2),
          relation(newer),
          insert(pet.id, [...row(3), int4(7)]),
          commit(1)
        )
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [
        [
          "catalog",
          `${insertSet} -- {"1","2"} | {"n1","n2"}`,
          "catalog",
          "types",
          "rows",
          "decision",
          addColumn,
          "unfilled",
          "catalog",
          `INSERT INTO "public"."pets" ("id", "name", "age") SELECT unnest($1::integer[]), unnest($2::text[]), ` +
            `unnest($3::integer[]) -- {"3"} | {"n3"} | {"7"}`,
          "COMMIT"
        ]
      ])
      assert.deepInclude(pipeline.applied[0], { changes: 3, schemaChanges: 1 })
      const { described } = yield* pipeline.stored
      assert.deepStrictEqual(described.relations, [{ relation: newer, offset: offset(4) }])
      assert.include(pipeline.logged, `Info: Changed the schema at offset 4: ${addColumn}`)
    })
  )

  it.effect("create what the target lacks, and keep the names of types for the next start", () =>
    Effect.gen(function* () {
      const moody = relationOf({
        columns: [...pet.columns, { name: "mood", isKey: false, typeId: 20_001, typeModifier: -1 }]
      })
      const createTable = `CREATE TABLE "public"."pets" ("id" integer, "name" text, "mood" public.mood, PRIMARY KEY ("id"))`
      const pipeline = yield* Pipeline.start({
        tables: (sent) =>
          sent.some(({ text }) => text === createTable)
            ? [
                targetTable({
                  columns: [...Pipeline.pets.columns, targetColumn({ name: "mood", type: "public.mood" })]
                })
              ]
            : [],
        log: Pipeline.log(
          begin(1),
          type(20_001, "mood"),
          relation(moody),
          insert(pet.id, [...row(1), raw("sad")]),
          commit(1)
        )
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions()[0].slice(0, 5), [
        "catalog",
        "types",
        "decision",
        createTable,
        "catalog"
      ])
      const { described } = yield* pipeline.stored
      assert.deepStrictEqual(described.types, [{ id: 20_001, namespace: "mood", name: "mood", offset: offset(1) }])
    })
  )

  it.effect("leave nothing behind when they are refused", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({
        stored: known,
        log: Pipeline.log(begin(1), added(1), relation(newer), commit(1)),
        config: { "schema-changes": "validate" }
      })
      const error = yield* pipeline.stopped({ _tag: "SchemaRefused", offset: offset(2), commitLsn: lsn(1) })
      assert.include(error.remedy, `ARRAY['${addColumn}']`)
      assert.deepStrictEqual(pipeline.transactions().at(-1)?.at(-1), "ROLLBACK")
      assert.deepStrictEqual((yield* pipeline.stored).described, known.described)
    })
  )

  it.effect("of tables that are left out are not made, but known", () =>
    Effect.gen(function* () {
      const journal = relationOf({ id: 7, name: "log" })
      const pipeline = yield* Pipeline.start({
        stored: known,
        config: { tables: { exclude: ["public.l*"] } },
        log: Pipeline.log(begin(1), relation(journal), insert(7, row(1)), added(2), truncate([7]), commit(1))
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepStrictEqual(pipeline.transactions(), [["catalog", `${insertSet} -- {"2"} | {"n2"}`, "COMMIT"]])
      const { described } = yield* pipeline.stored
      assert.deepStrictEqual(
        described.relations.map(({ relation }) => relation.name),
        ["pets", "log"]
      )
      assert.include(pipeline.logged, "Info: public.log is left out, because of tables.exclude")
    })
  )

  it.effect("stop where a relation has a name again that another one has got meanwhile", () =>
    Effect.gen(function* () {
      const other = relationOf({ id: 7 })
      const pipeline = yield* Pipeline.start({
        stored: Pipeline.knowing(pet, other),
        log: Pipeline.log(begin(1), insert(7, row(1)), commit(1), begin(2), added(2), commit(2))
      })
      const error = yield* pipeline.stopped({ _tag: "SchemaRefused", offset: offset(4), commitLsn: lsn(2) })
      assert.include(error.message, `relation ${pet.id} of the source is called public.pets now`)
      assert.include(error.message, "the rows of relation 7")
      assert.strictEqual((yield* pipeline.position)?.offset, offset(2))
    })
  )
})

describe("Sink's refusals", () => {
  const log = Pipeline.log(begin(1), added(1), commit(1))

  it.effect("name the table that the target does not have", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: known, tables: [], log })
      const error = yield* pipeline.stopped({ _tag: "TableMissing", offset: offset(1), commitLsn: lsn(1) })
      assert.strictEqual(error.message, `"public"."pets", offset 1, transaction 0/1: the target has no such table`)
    })
  )

  it.effect("name the table whose rows would be hidden from the connector", () =>
    Effect.gen(function* () {
      const pipeline = yield* Pipeline.start({ stored: known, tables: [targetTable({ hasRowSecurity: true })], log })
      yield* pipeline.stopped({ _tag: "RowSecurityActive", table: `"public"."pets"`, offset: offset(1) })
    })
  )

  it.effect("name the column that nobody fills", () =>
    Effect.gen(function* () {
      const born = targetColumn({ name: "born", type: "date", isNullable: false })
      const pipeline = yield* Pipeline.start({
        stored: known,
        tables: [targetTable({ columns: [...Pipeline.pets.columns, born] })],
        log
      })
      const error = yield* pipeline.stopped({ _tag: "SchemaRefused", offset: offset(1) })
      assert.include(error.message, `a row must have a value in "born"`)
    })
  )
})
