import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { ApplyFailed, RowConflict } from "../../src/SinkError.ts"
import { real, Replica, type Replication } from "./Replica.ts"

const tables = `
  CREATE TABLE t (id int PRIMARY KEY, v text, big text);
  ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
  CREATE TABLE whole (id int, v text); ALTER TABLE whole REPLICA IDENTITY FULL`

const filled = `
  INSERT INTO t SELECT n, 'v', repeat('big', 1000) FROM generate_series(1, 6) AS n;
  INSERT INTO whole SELECT n, 'v' FROM generate_series(1, 6) AS n`

const sum = (replica: Replication, count: "missingRows" | "existingRows") =>
  replica.applied.reduce((all, applied) => all + applied[count], 0)

layer(Replica.layer, real)("Conflicts", (it) => {
  it.effect("rows that the target lacks are skipped, counted and told of", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({ source: tables, native: tables })
      yield* replica.replicate(filled)
      yield* replica.onBoth("DELETE FROM t WHERE id < 4; DELETE FROM whole WHERE id < 3")
      yield* replica.replicate(
        "UPDATE t SET v = 'changed'; DELETE FROM t WHERE id IN (1, 6); UPDATE t SET id = 12 WHERE id = 2",
        "UPDATE whole SET v = 'changed' WHERE id IN (1, 5); DELETE FROM whole WHERE id = 2"
      )
      assert.deepStrictEqual(yield* replica.rows("SELECT id, v FROM t ORDER BY id"), [
        ["4", "changed"],
        ["5", "changed"]
      ])
      assert.deepStrictEqual(yield* replica.rows("SELECT id, v FROM whole ORDER BY id"), [
        ["3", "v"],
        ["4", "v"],
        ["5", "changed"],
        ["6", "v"]
      ])
      yield* replica.judged
      assert.isAtLeast(sum(replica, "missingRows"), 5)
      for (const table of ["public.t", "public.whole"]) {
        assert.include(
          replica.warnings.join("\n"),
          `${table}: updates and deletes skipped, because the target does not have their row`
        )
      }
    })
  )

  it.effect("rows that the target lacks are inserted, where they are known in full", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({ source: tables, settings: { "missing-row": "insert" } })
      yield* replica.replicate(filled)
      yield* replica.target.query("DELETE FROM t WHERE id < 5; DELETE FROM whole WHERE id < 3")
      yield* replica.replicate(
        "UPDATE t SET big = 'short', v = 'changed' WHERE id IN (1, 5); UPDATE t SET id = 12, big = 'short' WHERE id = 2; DELETE FROM t WHERE id = 3",
        "UPDATE whole SET v = 'changed' WHERE id = 1; DELETE FROM whole WHERE id = 2"
      )
      yield* replica.same("SELECT * FROM t WHERE id <> 4 ORDER BY id")
      yield* replica.same("SELECT * FROM whole ORDER BY id")
      // The source does not send what it has not changed: such a row cannot be made.
      const error = yield* replica.halt("UPDATE t SET v = 'changed' WHERE id = 4")
      assert.instanceOf(error, RowConflict)
      assert.deepStrictEqual([error.kind, error.table, error.rows], ["update_missing", "public.t", 0])
    })
  )

  it.effect("rows that the target lacks stop the connector, with nothing of their transaction applied", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({ source: tables, settings: { "missing-row": "halt" } })
      yield* replica.replicate(filled)
      yield* replica.target.query("DELETE FROM t WHERE id = 1")
      const update = yield* replica.halt(
        "INSERT INTO t VALUES (7); UPDATE t SET v = 'changed' WHERE id = 1; UPDATE t SET v = 'other'"
      )
      assert.instanceOf(update, RowConflict)
      assert.strictEqual(update.kind, "update_missing")
      assert.match(update.message, /^public\.t, offset \d+, transaction [0-9A-F/]+: conflict update_missing, 0 rows/)
      assert.deepStrictEqual(yield* replica.rows("SELECT count(*) FROM t WHERE id = 7 OR v <> 'v'"), [["0"]])
      yield* replica.target.query("INSERT INTO t VALUES (1, 'v', repeat('big', 1000))")
      yield* replica.restart()
      yield* replica.caughtUp
      yield* replica.equal
      yield* replica.target.query("DELETE FROM whole WHERE id = 1")
      const remove = yield* replica.halt("DELETE FROM whole WHERE id = 1")
      assert.instanceOf(remove, RowConflict)
      assert.strictEqual(remove.kind, "delete_missing")
    })
  )

  it.effect("rows that are there already stop the connector, are overwritten, or are left", () =>
    Effect.gen(function* () {
      const source = `${tables}; CREATE TABLE coded (id int PRIMARY KEY, code text UNIQUE)`
      const replica = yield* Replica.start({
        source,
        target: "CREATE TABLE coded (id int PRIMARY KEY, code text UNIQUE)"
      })
      yield* replica.replicate(`${filled}; INSERT INTO coded VALUES (1, 'a')`)
      yield* replica.target.query("INSERT INTO t VALUES (7, 'mine'), (8, 'mine'), (9, 'mine'), (10, 'mine')")
      const halted = yield* replica.halt("INSERT INTO t VALUES (7, 'theirs'), (20, 'theirs')")
      assert.instanceOf(halted, ApplyFailed)
      assert.deepStrictEqual([halted.failure.sqlState, halted.failure.constraint], ["23505", "t_pkey"])
      assert.notInclude(halted.message, "(7)")
      yield* replica.restart({ "existing-row": "update" })
      yield* replica.replicate("INSERT INTO t VALUES (8, 'theirs', 'big'), (21, 'theirs', NULL)")
      yield* replica.same("SELECT * FROM t WHERE id IN (7, 8, 20, 21) ORDER BY id")
      yield* replica.restart({ "existing-row": "skip" })
      yield* replica.replicate(
        "INSERT INTO t VALUES (9, 'theirs'), (22, 'theirs')",
        "UPDATE t SET v = 'later' WHERE id = 9"
      )
      assert.deepStrictEqual(yield* replica.rows("SELECT id, v FROM t WHERE id IN (9, 22) ORDER BY id"), [
        ["9", "later"],
        ["22", "theirs"]
      ])
      assert.isAtLeast(sum(replica, "existingRows"), 1)
      assert.include(
        replica.warnings.join("\n"),
        "public.t: inserts skipped, because the target has their row already: 1"
      )
      // An update that meets another row's key has no policy: the two sides disagree.
      yield* replica.restart({ "existing-row": "update" })
      const taken = yield* replica.halt("UPDATE t SET id = 10 WHERE id = 1")
      assert.instanceOf(taken, ApplyFailed)
      yield* replica.target.query("DELETE FROM t WHERE id = 10; INSERT INTO coded VALUES (5, 'b')")
      yield* replica.restart({ "existing-row": "update" })
      // The same code under another key is another row.
      const other = yield* replica.halt("INSERT INTO coded VALUES (2, 'b')")
      assert.instanceOf(other, ApplyFailed)
      assert.strictEqual(other.failure.constraint, "coded_code_key")
    })
  )

  it.effect("never more rows than the source meant", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source: tables,
        target: "CREATE TABLE t (id int, v text, big text); CREATE TABLE whole (id int, v text)",
        settings: { "schema-changes": "validate" }
      })
      yield* replica.replicate(filled, "INSERT INTO whole TABLE whole")
      yield* replica.target.query("INSERT INTO t VALUES (1, 'twin')")
      yield* replica.replicate(
        "UPDATE whole SET v = 'one of two' WHERE ctid = '(0,1)'",
        "DELETE FROM whole WHERE ctid = '(0,2)'"
      )
      yield* replica.same("SELECT * FROM whole ORDER BY id, v")
      for (const change of ["UPDATE t SET v = 'changed' WHERE id = 1", "DELETE FROM t WHERE id = 1"]) {
        const error = yield* replica.halt(`INSERT INTO t VALUES (100); ${change}`)
        assert.instanceOf(error, RowConflict)
        assert.deepStrictEqual([error.kind, error.rows], ["several_rows", 2])
        assert.include(error.remedy, "unique index")
        assert.deepStrictEqual(yield* replica.rows("SELECT count(*) FROM t WHERE id = 1"), [["2"]])
        yield* replica.target.query("DELETE FROM t WHERE v = 'twin'")
        yield* replica.restart()
        yield* replica.caughtUp
        yield* replica.replicate(
          "DELETE FROM t WHERE id = 100",
          "DELETE FROM t WHERE id = 1",
          "INSERT INTO t VALUES (1, 'v')"
        )
        yield* replica.same("SELECT * FROM t ORDER BY id")
        yield* replica.target.query("INSERT INTO t VALUES (1, 'twin')")
      }
    })
  )
})
