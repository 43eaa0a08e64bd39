import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { QuarantineLimit } from "../../src/Quarantine.ts"
import { ApplyFailed } from "../../src/SinkError.ts"
import { EventDecodeError } from "../../src/stream/ReplicationEvent.ts"
import { begin, commit, eventJson, insert, int4, type MessageFixture, relation, relationOf, text } from "../events.ts"
import { real, Replica, type Replication } from "./Replica.ts"

const keyed = "(id int PRIMARY KEY, v text)"
const always = { "on-error": "quarantine", "quarantine-limit": 100 }

/** What is held, in order: class, SQLSTATE, and which transactions it is, by the number of the row in `v`. */
const held = (replica: Replication) =>
  Effect.map(replica.rows("SELECT class, sql_state FROM fluvio.quarantine ORDER BY first_offset"), (rows) =>
    rows.map(([reason, state]) => (state === null ? reason : `${reason} ${state}`))
  )

/** Each transaction is held with exactly the records that the topic has of it. */
const recordsAreWhole = (replica: Replication) =>
  Effect.gen(function* () {
    const rows = yield* replica.target.query(`
      SELECT first_offset, last_offset, string_agg(encode(record, 'hex'), ',' ORDER BY record_offset) AS records,
        min(record_offset) = first_offset AND max(record_offset) = last_offset AS placed
      FROM fluvio.quarantine JOIN fluvio.quarantine_record ON quarantine_id = id
      GROUP BY id ORDER BY first_offset`)
    assert.isNotEmpty(rows)
    for (const row of rows) {
      const values = replica.records.slice(Number(row["first_offset"]), Number(row["last_offset"]) + 1)
      assert.strictEqual(row["placed"], "t")
      assert.deepStrictEqual(row["records"], values.map((value) => Buffer.from(value).toString("hex")).join(","))
    }
  })

const offsetsOf = (replica: Replication) =>
  replica.rows("SELECT first_offset, last_offset FROM fluvio.quarantine ORDER BY first_offset")

/** A topic that is written by hand, of the source's table `t`. */
const pets = relationOf({
  id: 1,
  name: "t",
  columns: [
    { name: "id", isKey: true, typeId: 23, typeModifier: -1 },
    { name: "v", isKey: false, typeId: 25, typeModifier: -1 }
  ]
})
const row = (id: number, v: string) => insert(1, [int4(id), text(v)])
const transaction = (lsn: number, ...messages: ReadonlyArray<MessageFixture>) =>
  [begin(lsn, { timestamp: BigInt(lsn) }), ...messages, commit(lsn, { timestamp: BigInt(lsn) })].map((message) =>
    eventJson(message)
  )

const bad = (id: number): string => `INSERT INTO t VALUES (${id}, 'bad')`

const good = (id: number): string => `INSERT INTO t VALUES (${id}, 'good')`

const many = (from: number, table = "t"): string =>
  `INSERT INTO ${table} SELECT n, 'v' FROM generate_series(${from}, ${from + 99}) AS n`

layer(Replica.layer, real)("Quarantine", (it) => {
  it.effect(
    "each class of error by its own policy, whole, with its records, in one transaction with the position",
    () =>
      Effect.gen(function* () {
        const tables = ["data", "checked", "twice", "unmatched", "lacking", "nameless", "fine"]
        const replica = yield* Replica.start({
          source: `${tables.map((name) => `CREATE TABLE ${name} ${keyed};`).join("\n")} ALTER TABLE nameless REPLICA IDENTITY FULL`,
          target: `
          ${tables.map((name) => `CREATE TABLE ${name} ${keyed};`).join("\n")}
          ALTER TABLE data ALTER v TYPE varchar(3);
          ALTER TABLE checked ADD CHECK (v <> 'secret');`,
          settings: { "on-error": { data: "quarantine" }, "missing-row": "halt" }
        })
        // The relations are known from here on, so that a transaction that is held says nothing of whole tables.
        yield* replica.replicate(...tables.map((name) => `INSERT INTO ${name} VALUES (0, '')`))
        yield* replica.replicate(
          "INSERT INTO fine VALUES (1, 'held'); INSERT INTO data VALUES (1, 'secret')",
          "INSERT INTO fine VALUES (2, 'applied')"
        )
        assert.deepStrictEqual(yield* held(replica), ["data 22001"])
        yield* recordsAreWhole(replica)
        assert.deepStrictEqual(yield* replica.rows("SELECT id FROM fine ORDER BY id"), [["0"], ["2"]])

        const constraint = yield* replica.halt("INSERT INTO checked VALUES (1, 'secret')")
        assert.instanceOf(constraint, ApplyFailed)
        yield* replica.restart({ "on-error": { constraint: "quarantine" }, "missing-row": "halt" })
        yield* replica.caughtUp
        yield* replica.target.query("DELETE FROM unmatched; INSERT INTO twice VALUES (7, 'mine')")
        yield* replica.replicate(
          "INSERT INTO twice VALUES (7, 'theirs')",
          "UPDATE unmatched SET v = 'secret'",
          "INSERT INTO fine VALUES (3, 'x')"
        )
        assert.deepStrictEqual((yield* held(replica)).slice(1), ["constraint 23514", "constraint 23505", "constraint"])

        yield* replica.target.query("ALTER TABLE lacking DROP v")
        const schema = yield* replica.halt("INSERT INTO lacking VALUES (1, 'secret')")
        assert.strictEqual(schema._tag, "SchemaRefused")
        yield* replica.restart({
          "on-error": { schema: "quarantine" },
          "missing-row": "halt",
          "schema-changes": "none"
        })
        yield* replica.caughtUp
        yield* replica.replicate(
          "CREATE TABLE made (id int PRIMARY KEY); INSERT INTO made VALUES (1)",
          "INSERT INTO made VALUES (2)",
          "INSERT INTO fine VALUES (4, 'x')"
        )
        assert.deepStrictEqual((yield* held(replica)).slice(4), ["schema", "schema", "follows"])
        yield* recordsAreWhole(replica)
        assert.deepStrictEqual(yield* replica.rows("SELECT id FROM fine ORDER BY id"), [["0"], ["2"], ["3"], ["4"]])

        const reasons = yield* replica.rows(
          "SELECT reason, tables, keys::text, xid > 0 AS xid, commit_lsn > '0/0' AS lsn, status FROM fluvio.quarantine ORDER BY first_offset"
        )
        assert.notInclude(JSON.stringify(reasons), "secret")
        assert.match(
          String(reasons[0]?.[0]),
          /^public\.data, offset \d+, transaction [0-9A-F/]+: value too long for its column \(SQLSTATE 22001\)$/
        )
        assert.deepStrictEqual(reasons[0]?.slice(1), [
          "{public.fine,public.data}",
          '["[\\"public.fine\\",\\"1\\"]", "[\\"public.data\\",\\"1\\"]"]',
          "t",
          "t",
          "held"
        ])
        // One transaction of the target wrote both, so that neither is there without the other.
        yield* replica.replicate("INSERT INTO made VALUES (3)")
        assert.deepStrictEqual(
          yield* replica.rows(`
          SELECT q.xmin = o.xmin AS one, q.last_offset = o.current_offset AS there
          FROM fluvio.offset AS o, (SELECT xmin, last_offset FROM fluvio.quarantine ORDER BY first_offset DESC LIMIT 1) AS q`),
          [["t", "t"]]
        )
      })
  )

  it.effect("what touches the same keys follows, in order and also after a restart; nothing else does", () =>
    Effect.gen(function* () {
      const tables = `
        CREATE TABLE t ${keyed}; CREATE TABLE other ${keyed}; CREATE TABLE pair (a int, b text, v text, PRIMARY KEY (a, b));
        CREATE TABLE whole (id int, v text); ALTER TABLE whole REPLICA IDENTITY FULL;`
      const replica = yield* Replica.start({
        source: tables,
        target: `${tables} ALTER TABLE t ADD CHECK (v NOT LIKE 'bad%'); ALTER TABLE pair ADD CHECK (v NOT LIKE 'bad%'); ALTER TABLE whole ADD CHECK (v <> 'bad')`,
        settings: always
      })
      yield* replica.replicate(`
        INSERT INTO t SELECT n, 'v' FROM generate_series(1, 9) AS n; INSERT INTO other SELECT n, 'v' FROM generate_series(1, 9) AS n;
        INSERT INTO pair SELECT n, 'x', 'v' FROM generate_series(1, 3) AS n; INSERT INTO whole VALUES (1, 'v'), (2, 'v')`)
      // Waiting together, they become one group, of which only some transactions may go.
      yield* replica.stop
      const steps = [
        "UPDATE t SET v = 'bad' WHERE id = 1", // held: constraint
        "UPDATE t SET v = 'two' WHERE id = 2",
        "UPDATE t SET v = 'bad again' WHERE id = 1", // follows
        "UPDATE other SET v = 'same id' WHERE id = 1",
        "UPDATE t SET id = 11 WHERE id = 1", // follows, and takes a second key along
        "UPDATE t SET v = 'bad eleven' WHERE id = 11; UPDATE other SET v = 'too' WHERE id = 5", // follows, with the other table's row
        "UPDATE other SET v = 'five' WHERE id = 5", // follows that
        "UPDATE other SET v = 'six' WHERE id = 6",
        "UPDATE pair SET v = 'bad' WHERE a = 1", // held
        "UPDATE pair SET v = 'ok' WHERE a = 2; UPDATE pair SET b = 'y' WHERE a = 3",
        "UPDATE pair SET v = 'bad too' WHERE a = 1" // follows
      ]
      yield* Effect.forEach(steps, (step) => replica.source.query(step))
      yield* replica.captured
      yield* replica.restart()
      yield* replica.caughtUp
      const seven = ["constraint 23514", "follows", "follows", "follows", "follows", "constraint 23514", "follows"]
      assert.deepStrictEqual(yield* held(replica), seven)
      assert.deepStrictEqual(yield* replica.rows("SELECT * FROM t WHERE v <> 'v' OR id IN (1, 11)"), [
        ["1", "v"],
        ["2", "two"]
      ])
      assert.deepStrictEqual(yield* replica.rows("SELECT * FROM other WHERE v <> 'v' ORDER BY id"), [
        ["1", "same id"],
        ["6", "six"]
      ])
      assert.deepStrictEqual(yield* replica.rows("SELECT * FROM pair ORDER BY a"), [
        ["1", "x", "v"],
        ["2", "x", "ok"],
        ["3", "y", "v"]
      ])
      yield* recordsAreWhole(replica)

      yield* replica.restart()
      yield* replica.replicate(
        "DELETE FROM t WHERE id = 11",
        "DELETE FROM t WHERE id = 3",
        "INSERT INTO t VALUES (1, 'new')"
      )
      assert.deepStrictEqual((yield* held(replica)).slice(7), ["follows", "follows"])
      assert.deepStrictEqual(yield* replica.rows("SELECT id FROM t WHERE id IN (1, 3, 11)"), [["1"]])

      // Without a key, and for what concerns all rows, it is the whole table.
      yield* replica.replicate(
        "UPDATE whole SET v = 'bad' WHERE id = 1",
        "UPDATE whole SET v = 'ok' WHERE id = 2",
        "INSERT INTO whole VALUES (3, 'v')"
      )
      yield* replica.replicate(
        "TRUNCATE other",
        "INSERT INTO other VALUES (6, 'after')",
        "ALTER TABLE pair ADD more int; INSERT INTO pair VALUES (5, 'x', 'v', 1)",
        "UPDATE pair SET v = 'late' WHERE a = 2"
      )
      assert.deepStrictEqual((yield* held(replica)).slice(9), [
        "constraint 23514",
        "follows",
        "follows",
        "follows",
        "follows",
        "follows",
        "follows"
      ])
      assert.deepStrictEqual(yield* replica.rows("SELECT * FROM whole ORDER BY id"), [
        ["1", "v"],
        ["2", "v"]
      ])
      assert.deepStrictEqual(yield* replica.rows("SELECT count(*) FROM other"), [["9"]])

      // A table that is renamed meanwhile takes what is held along.
      yield* replica.replicate(
        "ALTER TABLE t RENAME TO renamed; INSERT INTO renamed VALUES (100, 'v')",
        "UPDATE renamed SET v = 'later' WHERE id = 2"
      )
      assert.deepStrictEqual((yield* held(replica)).slice(16), ["follows", "follows"])
      assert.deepStrictEqual(yield* replica.rows("SELECT v FROM t WHERE id = 2"), [["two"]])

      // What an operator has resolved holds nothing back from then on.
      yield* replica.target.query("TRUNCATE whole")
      const ids = yield* replica.rows("SELECT id FROM fluvio.quarantine WHERE tables && '{public.whole}'")
      yield* replica.command("quarantine", "discard", ...ids.flat().map(String), "--reason", "emptied")
      yield* replica.replicate("INSERT INTO whole VALUES (4, 'v')", "UPDATE renamed SET v = 'still' WHERE id = 1")
      assert.deepStrictEqual(yield* replica.rows("SELECT id FROM whole"), [["4"]])
      assert.deepStrictEqual((yield* held(replica)).slice(18), ["follows"])
    })
  )

  it.effect("so many in a row stop the connector, and what concerns all transactions never goes there", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source: `CREATE TABLE t ${keyed}; CREATE TABLE guarded ${keyed}`,
        target: `CREATE TABLE t (id int PRIMARY KEY, v text CHECK (v <> 'bad')); CREATE TABLE guarded ${keyed}`,
        settings: { "on-error": "quarantine", "quarantine-limit": 2 },
        role: {
          attributes: "",
          grants: (role) =>
            `GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role}; GRANT SET ON PARAMETER session_replication_role TO ${role}`
        }
      })
      yield* replica.replicate(good(0), "INSERT INTO guarded VALUES (0)")
      yield* replica.replicate(bad(1), bad(2), good(3), bad(4), "UPDATE t SET v = 'x' WHERE id = 1", good(6))
      const once = "constraint 23514"
      assert.deepStrictEqual(yield* held(replica), [once, once, once, "follows"])
      const limit = yield* replica.halt(bad(7), "UPDATE t SET v = 'bad' WHERE id = 7", bad(9))
      assert.instanceOf(limit, QuarantineLimit)
      assert.strictEqual(limit.limit, 2)
      assert.strictEqual((yield* held(replica)).length, 6)
      // A start changes nothing of the count, and whoever resolves one makes room for one.
      yield* replica.restart()
      assert.instanceOf(yield* replica.stopped, QuarantineLimit)
      const [[last]] = yield* replica.rows("SELECT max(id) FROM fluvio.quarantine")
      yield* replica.command("quarantine", "discard", String(last), "--reason", "bad")
      yield* replica.restart()
      yield* replica.caughtUp
      const another = yield* replica.halt("UPDATE t SET v = 'z' WHERE id = 9")
      assert.instanceOf(another, QuarantineLimit)
      // The one that was too many waits: nothing is lost by the stop.
      yield* replica.restart({ "on-error": "quarantine", "quarantine-limit": 10 })
      yield* replica.caughtUp
      assert.strictEqual((yield* held(replica)).length, 8)

      yield* replica.target.query(`REVOKE INSERT ON guarded FROM ${replica.target.name}`)
      const privilege = yield* replica.halt("INSERT INTO guarded VALUES (1, 'x')")
      assert.instanceOf(privilege, ApplyFailed)
      assert.deepStrictEqual([privilege.failure.sqlState, privilege.isRetryable], ["42501", false])
      yield* replica.target.query(`GRANT INSERT ON guarded TO ${replica.target.name}`)
      yield* replica.target.query(`
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF (SELECT count(*) FROM public.t) < 1000 THEN RAISE EXCEPTION USING ERRCODE = NEW.v; END IF; RETURN NEW;
        END $$;
        CREATE TRIGGER fail BEFORE UPDATE ON guarded FOR EACH ROW EXECUTE FUNCTION fail();
        ALTER TABLE guarded ENABLE ALWAYS TRIGGER fail`)
      yield* replica.restart({
        "on-error": "quarantine",
        "quarantine-limit": 10,
        retry: { min: "10 millis", times: 2 }
      })
      for (const state of ["53100", "40001", "57014", "55P03", "XX000"]) {
        const systemic = yield* replica.halt(`UPDATE guarded SET v = '${state}' WHERE id = 0`)
        assert.deepStrictEqual(
          [systemic._tag, systemic instanceof ApplyFailed && systemic.failure.sqlState],
          ["ApplyFailed", state]
        )
        yield* replica.target.query("ALTER TABLE guarded DISABLE TRIGGER fail")
        yield* replica.restart({ "on-error": "quarantine" })
        yield* replica.caughtUp
        yield* replica.target.query("ALTER TABLE guarded ENABLE ALWAYS TRIGGER fail")
        yield* replica.restart({ "on-error": "quarantine", retry: { min: "10 millis", times: 2 } })
      }
      yield* replica.replicate("UPDATE guarded SET v = '22000' WHERE id = 1")
      assert.deepStrictEqual((yield* held(replica)).slice(8), ["data 22000"])
    })
  )

  it.effect("records that cannot be read: inside a transaction, as its Begin, as its Commit, and between two", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        target: `CREATE TABLE t ${keyed}; CREATE TABLE u ${keyed}`,
        settings: always
      })
      const garbage = '{"wal_start":1,"wal_end":'
      const [, ...withoutBegin] = transaction(500, row(5, "garbage is its Begin"))
      const withoutCommit = transaction(600, row(6, "garbage is its Commit")).slice(0, -1)
      yield* replica.append(
        ...transaction(100, relation(pets), relation({ ...pets, id: 2, name: "u" }), row(1, "applied")),
        ...transaction(200, row(2, "garbage inside")).toSpliced(2, 0, garbage),
        ...transaction(300, row(3, "applied")),
        garbage,
        ...transaction(400, row(4, "applied")),
        garbage,
        ...withoutBegin,
        ...withoutCommit,
        garbage,
        ...transaction(700, row(7, "applied")),
        // A row of a table that was never described, and one with too few cells.
        ...transaction(800, row(8, "x"), insert(99, [int4(1)])),
        ...transaction(900, row(9, "x"), insert(2, [int4(1)])),
        eventJson(insert(99, [int4(1)])),
        ...transaction(1000, row(10, "applied"))
      )
      yield* replica.caughtUp
      assert.deepStrictEqual(
        yield* replica.rows("SELECT id, v FROM t ORDER BY id"),
        ["1", "3", "4", "7", "10"].map((id) => [id, "applied"])
      )
      assert.deepStrictEqual(yield* offsetsOf(replica), [
        ["5", "8"],
        ["12", "12"],
        ["16", "18"],
        ["19", "21"],
        ["25", "28"],
        ["29", "32"],
        ["33", "33"]
      ])
      assert.deepStrictEqual(new Set(yield* held(replica)), new Set(["decode"]))
      yield* recordsAreWhole(replica)

      // What could be read of them holds later changes of its keys back, and of its table what could not.
      yield* replica.append(
        ...transaction(1100, row(2, "x")),
        ...transaction(1150, insert(2, [int4(7), text("x")])),
        ...transaction(1200, row(20, "applied"))
      )
      yield* replica.caughtUp
      assert.deepStrictEqual((yield* held(replica)).slice(7), ["follows", "follows"])

      // The source, restarted, sends again what was set aside: that is a repetition too, and so is what it broke off.
      yield* replica.append(
        ...transaction(1200, row(20, "applied")),
        ...transaction(1300, row(30, "broken off"), row(31, "x")).slice(0, 2),
        garbage,
        ...transaction(1200, row(20, "applied")),
        ...transaction(1300, row(30, "applied"), row(31, "applied"))
      )
      yield* replica.caughtUp
      assert.deepStrictEqual((yield* replica.rows("SELECT v FROM t WHERE id >= 30")).flat(), ["applied", "applied"])
      assert.strictEqual((yield* held(replica)).length, 9)

      yield* replica.restart({})
      yield* replica.append(...transaction(1400, row(40, "applied")), garbage)
      const error = yield* replica.stopped
      assert.instanceOf(error, EventDecodeError)
      assert.deepStrictEqual(yield* replica.rows("SELECT count(*) FROM t"), [["9"]])
    })
  )

  it.effect("a change of the schema that is set aside is named, and what follows of the table waits for it", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source: `CREATE TABLE t ${keyed}; CREATE TABLE other ${keyed}`,
        target: `CREATE TABLE t (id int PRIMARY KEY, v text CHECK (v <> 'bad')); CREATE TABLE other ${keyed}`,
        settings: always
      })
      yield* replica.replicate(good(0), "INSERT INTO other VALUES (0, 'v')")
      yield* replica.replicate(
        "ALTER TABLE t ADD w int; INSERT INTO t VALUES (1, 'bad', 1); CREATE TABLE made (id int PRIMARY KEY); INSERT INTO made VALUES (1)",
        "INSERT INTO t VALUES (2, 'good', 2)",
        "INSERT INTO made VALUES (2)",
        "INSERT INTO other VALUES (1, 'v')"
      )
      assert.deepStrictEqual(yield* held(replica), ["constraint 23514", "follows", "follows"])
      yield* replica.same("SELECT * FROM other ORDER BY id")
      const named = yield* replica.rows("SELECT unnest(schema_changes) FROM fluvio.quarantine ORDER BY id")
      const statements = named.map(([text]) => String(text))
      assert.match(
        statements.join("\n"),
        /^ALTER TABLE "public"\."t" ADD COLUMN "w" integer\nCREATE TABLE "public"\."made"/
      )
      const warning = replica.warnings.find((line) => line.includes("run in the target before: "))
      for (const statement of statements) assert.include(warning, statement)

      // While the connector runs.
      yield* replica.target.query("ALTER TABLE t DROP CONSTRAINT t_v_check")
      assert.strictEqual(yield* replica.command("quarantine", "replay", "--all"), "replayed 3 transactions: 1, 2, 3")
      yield* replica.replicate("INSERT INTO t VALUES (3, 'good', 3)", "INSERT INTO made VALUES (3)")
      assert.strictEqual((yield* held(replica)).length, 3)
      yield* replica.equal
    })
  )

  it.effect("the same place of the topic is held once for each transaction that it held", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source: `CREATE TABLE t ${keyed}`,
        target: "CREATE TABLE t (id int PRIMARY KEY, v text CHECK (v <> 'bad'))",
        settings: { ...always, "existing-row": "update" }
      })
      yield* replica.replicate(good(0))
      const [[before]] = yield* replica.rows("SELECT current_offset FROM fluvio.offset")
      yield* replica.replicate(bad(1), good(2))
      let next = 3
      const again = Effect.gen(function* () {
        yield* replica.stop
        yield* replica.target.query(`UPDATE fluvio.offset SET current_offset = ${before}`)
        yield* replica.restart()
        yield* replica.replicate(good(next++))
      })
      yield* again
      assert.deepStrictEqual(yield* held(replica), ["constraint 23514"])
      yield* recordsAreWhole(replica)
      // As if the topic had been created anew: other records at the same offsets.
      yield* replica.target.query("UPDATE fluvio.quarantine_record SET record = 'other'")
      yield* again
      assert.deepStrictEqual(yield* held(replica), ["constraint 23514", "follows"])
      assert.lengthOf(new Set((yield* offsetsOf(replica)).map(String)), 1)
    })
  )

  it.effect("a transaction that is too large to hold in memory fails, or follows", () =>
    Effect.gen(function* () {
      const tables = `CREATE TABLE t ${keyed}; CREATE TABLE other ${keyed}; CREATE SCHEMA twin; CREATE TABLE twin.t ${keyed};`
      const replica = yield* Replica.start({
        source: tables,
        target: `${tables} ALTER TABLE t ADD CHECK (v <> 'bad')`,
        settings: { ...always, group: { bytes: "4 KiB" } }
      })
      yield* replica.replicate(
        "INSERT INTO t VALUES (0, 'v'); INSERT INTO other VALUES (0, 'v'), (1, 'v'); INSERT INTO twin.t VALUES (0, 'v')"
      )
      yield* replica.replicate(
        many(100),
        // The first part fails, and the last: either way nothing of it is there.
        `INSERT INTO t VALUES (1, 'bad'); ${many(200)}; CREATE TABLE late ${keyed}; ${many(1, "late")}; ${many(1, "twin.t")}; INSERT INTO t VALUES (2, 'v')`,
        "INSERT INTO other VALUES (2, 'v')"
      )
      assert.deepStrictEqual(yield* held(replica), ["constraint 23514"])
      assert.deepStrictEqual(yield* replica.rows("SELECT count(*), max(id) FROM t"), [["101", "199"]])
      yield* recordsAreWhole(replica)
      // All its tables are held, each with its schema.
      yield* replica.replicate(
        "UPDATE t SET v = 'later' WHERE id = 100",
        "UPDATE twin.t SET v = 'later' WHERE id = 0",
        "UPDATE other SET v = 'later'"
      )
      assert.deepStrictEqual((yield* held(replica)).slice(1), ["follows", "follows"])
      yield* replica.same("SELECT * FROM other ORDER BY id")
      // A large one that touches a held table in its last part only follows too.
      yield* replica.replicate(
        `${many(300, "other")}; UPDATE t SET v = 'last' WHERE id = 100`,
        "UPDATE other SET v = 'after' WHERE id = 0"
      )
      assert.deepStrictEqual((yield* held(replica)).slice(3), ["follows", "follows"])
      assert.deepStrictEqual(yield* replica.rows("SELECT count(*), max(v) FROM other"), [["3", "later"]])
      // The shapes that it described are known after a restart.
      yield* replica.restart()
      yield* replica.replicate("INSERT INTO late VALUES (1000, 'v')")
      assert.deepStrictEqual((yield* held(replica)).slice(5), ["follows"])

      yield* replica.target.query("ALTER TABLE t DROP CONSTRAINT t_v_check")
      yield* replica.command("quarantine", "replay", "1", "--group-bytes", "4 KiB")
      assert.deepStrictEqual(yield* replica.rows("SELECT DISTINCT status FROM fluvio.quarantine"), [["replayed"]])
      yield* replica.equal
    })
  )
})
