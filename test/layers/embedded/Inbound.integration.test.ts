import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Redacted } from "effect"
import { setTimeout as sleep } from "node:timers/promises"
import * as Inbound from "../../../layers/embedded/Inbound.ts"
import { FluvioRecord, Offset } from "../../../src/stream/FluvioConsumer.ts"
import { decode, type ReplicationEvent } from "../../../src/stream/ReplicationEvent.ts"
import { plain } from "../../events.ts"
import { connect, type TestDatabase, TestPostgres } from "../../postgres.ts"

/** Takes everything at once, as an acknowledging topic would. */
class Topic {
  readonly values: Array<Uint8Array> = []

  readonly send = (values: ReadonlyArray<Uint8Array>) => Effect.sync(() => void this.values.push(...values))

  get texts(): ReadonlyArray<string> {
    return this.values.map((value) => Buffer.from(value).toString())
  }

  /** The events as the connector reads them. */
  get events(): ReadonlyArray<ReplicationEvent> {
    return this.values.map((value, index) => decode(FluvioRecord.of(Offset.make(index), value), { floatNull: "halt" }))
  }

  get types(): ReadonlyArray<string> {
    return this.events.map((event) => event.type)
  }

  /** The messages as the records hold them, without the place of each. */
  get messages(): ReadonlyArray<string> {
    return this.texts.map(
      (text) => /^\{"wal_start":\d+,"wal_end":\d+,"timestamp":\d+,"message":(.*)\}$/s.exec(text)![1]!
    )
  }
}

const rowsOf = (topic: Topic) =>
  topic.events.flatMap((event) => (event.type === "insert" ? [event.tuple.cells.join(" ")] : []))

const scalar = (database: TestDatabase, text: string) =>
  Effect.map(database.query(text), (rows) => String(Object.values(rows[0]!)[0]))

/** Waits until a query says `t`. Other processes bring it about, so there is no event to wait for. */
const until = (database: TestDatabase, text: string) =>
  scalar(database, text).pipe(
    Effect.tap((value) => (value === "t" ? Effect.void : Effect.promise(() => sleep(10)))),
    Effect.repeat({ while: (value) => value !== "t" })
  )

const source = Effect.gen(function* () {
  const database = yield* TestPostgres.database
  const slot = `slot_${database.name}`
  const options = { url: database.url, publication: `Publication of ${database.name}'s "tables"`, slot }
  const inbound = yield* Inbound.make(options)
  /** What has been committed up to now is confirmed by the connector. */
  const confirmed = Effect.gen(function* () {
    const lsn = yield* scalar(database, "SELECT pg_current_wal_flush_lsn()")
    yield* until(
      database,
      `SELECT confirmed_flush_lsn >= '${lsn}'::pg_lsn FROM pg_replication_slots WHERE slot_name = '${slot}'`
    )
  })
  /** Runs the connector until all that has been committed is in the topic. */
  const drain = (topic: Topic) =>
    Effect.raceFirst(inbound.run(topic.send), confirmed).pipe(
      // The server may not have seen yet that the run before has left.
      Effect.tapError(() => Effect.promise(() => sleep(10))),
      Effect.retry({ while: (error) => "sqlState" in error && error.sqlState === "55006" })
    )
  return { database, inbound, options, slot, confirmed, drain }
})

const columnTypes: ReadonlyArray<readonly [type: string, ...values: ReadonlyArray<string>]> = [
  ["bool", "true", "false"],
  [`"char"`, "'7'", "'x'", "'\\377'"],
  ["name", "'a name'"],
  ["int2", "-32768", "32767"],
  ["int4", "-2147483648", "2147483647"],
  ["int8", "-9223372036854775808", "9223372036854775807", "9007199254740993"],
  ["oid", "4294967295"],
  ["float4", "3.4028235e38", "1e-45", "0.1", "'-0'", "'NaN'", "'Infinity'", "1e12", "1e13"],
  ["float8", "1.7976931348623157e308", "5e-324", "0.1", "'-0'", "'NaN'", "'-Infinity'", "123456789012345680", "42"],
  ["numeric", "123456789012345678901234567890.123456789", "'NaN'", "'-Infinity'", "0.000"],
  ["numeric(10,4)", "1.5"],
  ["money", "'-1234.56'"],
  ["text", "''", "'it''s \"quoted\" \\ Grüße 🙂'", "E'\\u2028\\t\\r\\n\\x01\\x7f'"],
  ["varchar(20)", "'O''Hara'"],
  ["char(5)", "'ab'"],
  ["bytea", "'\\x00ff10'"],
  ["date", "'2020-02-29'", "'infinity'", "'0044-03-15 BC'", "'99999-01-01'"],
  ["time", "'24:00'", "'12:34:56.789012'"],
  ["timetz", "'12:34:56.789+05:30'"],
  ["timestamp", "'2020-02-29 12:34:56.789012'", "'-infinity'"],
  ["timestamptz", "'2020-07-01 12:00+02'", "'infinity'"],
  ["interval", "'-1 year 2 mons -3 days 04:05:06.789'", "'infinity'"],
  ["uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"],
  ["json", `'{"a": 1.0, "b" :[null]}'`],
  ["jsonb", `'{"b": 1e3, "a": "\\u00e9"}'`],
  ["jsonpath", "'$.a[*] ? (@ > 1)'"],
  ["xml", "'<a b=\"c\">d</a>'"],
  ["bit(3)", "B'101'"],
  ["varbit", "B'1011'"],
  ["inet", "'192.168.0.1/24'", "'::1'"],
  ["cidr", "'10.0.0.0/8'"],
  ["macaddr", "'08:00:2b:01:02:03'"],
  ["macaddr8", "'08:00:2b:01:02:03:04:05'"],
  ["point", "'(1.5,-2)'"],
  ["line", "'{1,2,3}'"],
  ["lseg", "'[(0,0),(1,1)]'"],
  ["box", "'(1,1),(0,0)'"],
  ["path", "'((0,0),(1,1))'"],
  ["polygon", "'((0,0),(1,1),(1,0))'"],
  ["circle", "'<(0,0),1>'"],
  ["tsvector", "'fat:2,4 cat:3A'"],
  ["tsquery", "'fat & (rat | !cat)'"],
  ["int4range", "'[1,10)'", "'empty'"],
  ["numrange", "'(,5.5]'"],
  ["tstzrange", "'[2020-01-01 00:00+00,infinity)'"],
  ["int8multirange", "'{[1,2),[5,9)}'"],
  ["pg_lsn", "'16/B374D848'"],
  ["pg_snapshot", "'10:20:10,14,15'"],
  ["xid8", "'18446744073709551615'"],
  ["tid", "'(42,7)'"],
  ["regclass", "'public.elsewhere'"],
  ["oidvector", "'1 2 3'"],
  ["bool[]", "'{t,f,NULL}'"],
  ["int8[]", "'{9223372036854775807,NULL}'", "'[0:1]={1,2}'", "'{{1,2},{3,4}}'"],
  ["float8[]", "'{0.1,NaN,-0}'"],
  ["text[]", `'{"a,b","c\\"d",NULL,"NULL",""}'`],
  ["timestamptz[]", "'{2020-07-01 12:00+02}'"],
  ["jsonb[]", `ARRAY['{"a":1}'::jsonb]`],
  ["mood", "'happy'"],
  ["mood[]", "'{happy,\"very sad\"}'"],
  ["positive", "5"],
  ["pair", `'(1,"a,""b""")'`],
  ["pair[]", `ARRAY[ROW(1,'x')::pair]`],
  [`other."Odd type"`, "'a'"]
]

/** JSON has a notation of its own for truth values and floating-point numbers (minus zero included); the rest is text. */
const meaning = (cell: string | null | undefined, index: number) => {
  const type = columnTypes[index - 1]?.[0]
  if (typeof cell !== "string") return cell
  if (type === "bool") return cell.slice(0, 1)
  return type === "float4" || type === "float8" ? Number(cell) : cell
}

/** Settings of the source database that change how values print; the topic must not depend on them. */
const unusual = {
  datestyle: "German, DMY",
  intervalstyle: "iso_8601",
  extra_float_digits: "-3",
  bytea_output: "escape",
  timezone: "'Asia/Kathmandu'",
  search_path: "public, other"
}
const usual = {
  datestyle: "ISO",
  intervalstyle: "postgres",
  extra_float_digits: "3",
  bytea_output: "hex",
  timezone: "UTC",
  search_path: ""
}

layer(TestPostgres.layer())("Inbound", (it) => {
  it.effect("delivers every type as the source prints it, whatever the source's settings are", () =>
    Effect.gen(function* () {
      const { database, drain } = yield* source
      for (const [name, value] of Object.entries(unusual)) {
        yield* database.query(`ALTER DATABASE ${database.name} SET ${name} = ${value}`)
      }
      const columns = columnTypes.map(([type], index) => `c${index} ${type}`)
      yield* database.query(`
        CREATE SCHEMA other;
        CREATE TYPE mood AS ENUM ('happy', 'very sad');
        CREATE TYPE other."Odd type" AS ENUM ('a');
        CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE TYPE pair AS (a int, b text);
        CREATE TABLE elsewhere ();
        CREATE TABLE matrix (id int PRIMARY KEY, ${columns.join(", ")})
      `)
      const depth = Math.max(...columnTypes.map(([, ...values]) => values.length))
      for (let row = 0; row <= depth; row++) {
        const values = columnTypes.map(([type, ...values]) =>
          row < values.length ? `CAST(${values[row]} AS ${type})` : "NULL"
        )
        yield* database.query(`INSERT INTO matrix VALUES (${row}, ${values.join(", ")})`)
      }
      const topic = new Topic()
      yield* drain(topic)

      const reader = yield* connect(database.name, database.url)
      for (const [name, value] of Object.entries(usual)) yield* reader.query(`SET ${name} = '${value}'`)
      const rows = yield* reader.query("TABLE public.matrix ORDER BY id")
      const inserts = topic.events.filter((event) => event.type === "insert")
      assert.deepStrictEqual(
        inserts.map((insert) => insert.tuple.cells.map(meaning)),
        rows.map((row) => Object.values(row).map(meaning))
      )

      const types = topic.events.filter((event) => event.type === "type")
      assert.includeDeepMembers(
        types.map(({ namespace, name }) => ({ namespace, name })),
        [
          { namespace: "public", name: "mood" },
          { namespace: "other", name: "Odd type" }
        ]
      )
    })
  )

  it.effect("writes the original's records: places, order, cells", () =>
    Effect.gen(function* () {
      const { database, drain } = yield* source
      yield* database.query(`CREATE TABLE "T" (id int8 PRIMARY KEY, b bool, t text, d date, f float8)`)
      yield* database.query(`INSERT INTO "T" VALUES (9007199254740993, true, 'x', '2020-01-02', 1)`)
      const topic = new Topic()
      yield* drain(topic)
      const [begin, relation, insert, commit, ...more] = topic.messages
      assert.deepStrictEqual(more, [])
      const relId = yield* scalar(database, `SELECT '"T"'::regclass::oid`)
      const head = /^\{"type":"begin","final_lsn":(\d+),"timestamp":(\d+),"xid":\d+\}$/.exec(begin!)
      assert.isNotNull(head)
      const [, finalLsn, time] = head
      assert.strictEqual(
        relation,
        `{"type":"relation","rel_id":${relId},"namespace":"public","name":"T","replica_identity":"Default","columns":[` +
          `{"flags":1,"name":"id","type_id":20,"type_modifier":-1},{"flags":0,"name":"b","type_id":16,"type_modifier":-1},` +
          `{"flags":0,"name":"t","type_id":25,"type_modifier":-1},{"flags":0,"name":"d","type_id":1082,"type_modifier":-1},` +
          `{"flags":0,"name":"f","type_id":701,"type_modifier":-1}]}`
      )
      assert.strictEqual(
        insert,
        `{"type":"insert","rel_id":${relId},"tuple":[{"Int8":9007199254740993},{"Bool":true},{"String":"x"},` +
          `{"RawText":[50,48,50,48,45,48,49,45,48,50]},{"Float8":1.0}]}`
      )
      const tail = /^\{"type":"commit","flags":0,"commit_lsn":(\d+),"end_lsn":(\d+),"timestamp":(\d+)\}$/.exec(commit!)
      assert.isNotNull(tail)
      const [, commitLsn, endLsn, commitTime] = tail
      assert.deepStrictEqual([commitLsn, commitTime], [finalLsn, time])
      assert.isTrue(BigInt(endLsn!) > BigInt(commitLsn!))
      // A relation has no place of its own; a commit's is the end of its transaction.
      const places = topic.texts.map((text) => /"wal_start":(\d+),"wal_end":(\d+)/.exec(text)!.slice(1))
      for (const [start, end] of places) assert.strictEqual(start, end)
      assert.strictEqual(places[1]![0], "0")
      assert.strictEqual(places[3]![0], endLsn)
    })
  )

  it.effect("tells the old row, the old key or neither, and leaves unchanged TOAST out", () =>
    Effect.gen(function* () {
      const { database, drain } = yield* source
      yield* database.query(`
        CREATE TABLE by_key (id int PRIMARY KEY, note text, long text);
        ALTER TABLE by_key ALTER long SET STORAGE EXTERNAL;
        CREATE TABLE by_row (a int, b text);
        ALTER TABLE by_row REPLICA IDENTITY FULL;
        CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL UNIQUE);
        ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
        INSERT INTO by_key VALUES (1, 'a', repeat('x', 10000));
        INSERT INTO by_row VALUES (1, NULL);
        INSERT INTO by_index VALUES (1, 'one')
      `)
      yield* drain(new Topic())
      yield* database.query("UPDATE by_key SET note = NULL")
      yield* database.query("UPDATE by_key SET id = 2")
      yield* database.query("DELETE FROM by_key")
      yield* database.query("UPDATE by_row SET b = 'b'")
      yield* database.query("DELETE FROM by_row")
      yield* database.query("UPDATE by_index SET id = 2")
      yield* database.query("UPDATE by_index SET code = 'two'")
      yield* database.query("DELETE FROM by_index")
      const topic = new Topic()
      yield* drain(topic)
      const changes = topic.events.flatMap((event) => {
        if (event.type === "update") return [[event.oldTuple, event.keyTuple, event.newTuple]]
        return event.type === "delete" ? [[event.oldTuple, event.keyTuple]] : []
      })
      assert.deepStrictEqual(plain(changes), [
        [null, null, ["1", null, undefined]],
        [null, ["1", null, null], ["2", null, undefined]],
        [null, ["2", null, null]],
        [["1", null], null, ["1", "b"]],
        [["1", "b"], null],
        [null, null, ["2", "one"]],
        [null, [null, "one"], ["2", "two"]],
        [null, [null, "two"]]
      ])
      const identities = topic.events.flatMap((event) =>
        event.type === "relation" ? [event.relation.replicaIdentity] : []
      )
      assert.deepStrictEqual(identities, ["Default", "Full", "Index"])
    })
  )

  it.effect("keeps truncates, schema changes and large transactions in commit order", () =>
    Effect.gen(function* () {
      const { database, drain } = yield* source
      yield* database.query("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a)")
      yield* database.query("INSERT INTO a SELECT generate_series(1, 10000)")
      yield* database.query("TRUNCATE a, b RESTART IDENTITY CASCADE")
      yield* database.query("BEGIN; ALTER TABLE a ADD note text; INSERT INTO a VALUES (1, 'x'); COMMIT")
      yield* database.query("ALTER TABLE a RENAME TO renamed")
      yield* database.query("INSERT INTO renamed VALUES (2, 'y')")
      yield* database.query("TRUNCATE renamed CASCADE")
      const topic = new Topic()
      yield* drain(topic)
      const events = topic.events.filter((event) => event.type !== "begin" && event.type !== "commit")
      const summary = events.map((event) => {
        if (event.type === "relation") {
          return [event.relation.name, ...event.relation.columns.map((column) => column.name)].join(" ")
        }
        if (event.type === "insert") return event.tuple.cells.join(" ")
        return event.type === "truncate"
          ? `${event.relIds.length} ${event.cascade} ${event.restartIdentity}`
          : event.type
      })
      const rows = Array.from({ length: 10_000 }, (_, index) => String(index + 1))
      assert.deepStrictEqual(summary, [
        "a id",
        ...rows,
        "a id",
        "b id",
        "2 true true",
        "a id note",
        "1 x",
        "renamed id note",
        "2 y",
        "renamed id note",
        "b id",
        "2 true false"
      ])
      const [begins, commits] = ["begin", "commit"].map((type) => topic.types.filter((other) => other === type).length)
      assert.strictEqual(begins, commits)
    })
  )

  it.effect("goes on where the topic was, and repeats the transactions that it did not take", () =>
    Effect.gen(function* () {
      const { database, inbound, drain } = yield* source
      yield* database.query("CREATE TABLE t (id int)")
      yield* database.query("INSERT INTO t VALUES (1)")
      yield* drain(new Topic())
      yield* database.query("INSERT INTO t VALUES (2)")
      yield* database.query("INSERT INTO t VALUES (3)")
      const error = yield* inbound.run(() => Effect.fail("the topic is full")).pipe(Effect.flip)
      assert.strictEqual(error, "the topic is full")
      const topic = new Topic()
      yield* drain(topic)
      assert.deepStrictEqual(topic.types, ["begin", "relation", "insert", "commit", "begin", "insert", "commit"])
      assert.deepStrictEqual(rowsOf(topic), ["2", "3"])
      const nothing = new Topic()
      yield* drain(nothing)
      assert.deepStrictEqual(nothing.types, [])
    })
  )

  it.effect("tells PostgreSQL of a transaction only after the topic has taken it", () =>
    Effect.gen(function* () {
      const { database, inbound, slot, confirmed } = yield* source
      // The server asks how far we are after half of this time without an answer.
      yield* database.query(`ALTER DATABASE ${database.name} SET wal_sender_timeout = '2s'`)
      yield* database.query("CREATE TABLE t (id int)")
      const arrived = yield* Deferred.make<void>()
      const mayPass = yield* Deferred.make<void>()
      yield* inbound
        .run(() => Effect.andThen(Deferred.succeed(arrived, undefined), Deferred.await(mayPass)))
        .pipe(Effect.forkScoped)
      const before = yield* scalar(database, "SELECT pg_current_wal_flush_lsn()")
      yield* database.query("INSERT INTO t VALUES (1)")
      yield* Deferred.await(arrived)
      const since = yield* scalar(database, "SELECT clock_timestamp()")
      yield* until(
        database,
        `SELECT reply_time > '${since}' FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid WHERE slot_name = '${slot}'`
      )
      const isEarly = `SELECT confirmed_flush_lsn > '${before}' FROM pg_replication_slots WHERE slot_name = '${slot}'`
      assert.strictEqual(yield* scalar(database, isEarly), "f")
      yield* Deferred.succeed(mayPass, undefined)
      yield* confirmed
    })
  )

  it.effect("tells PostgreSQL of a transaction while a larger one is under way", () =>
    Effect.gen(function* () {
      const { database, inbound, slot } = yield* source
      yield* database.query("CREATE TABLE t (id int, note text)")
      yield* database.query("INSERT INTO t VALUES (0)")
      const small = yield* scalar(database, "SELECT pg_current_wal_flush_lsn()")
      yield* database.query("INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 30000) AS i")
      let hasCommit = false
      const send: Inbound.Send<never, never> = (values) =>
        Effect.suspend(() => {
          if (hasCommit) return Effect.never
          hasCommit = values.some((value) => Buffer.from(value).includes('"type":"commit"'))
          return Effect.void
        })
      const isConfirmed = `SELECT confirmed_flush_lsn >= '${small}' FROM pg_replication_slots WHERE slot_name = '${slot}'`
      yield* Effect.raceFirst(inbound.run(send), until(database, isConfirmed))
    })
  )

  it.effect("lets PostgreSQL forget the WAL of other databases while its own tables rest", () =>
    Effect.gen(function* () {
      const { drain } = yield* source
      const other = yield* TestPostgres.database
      yield* other.query("CREATE TABLE t AS SELECT generate_series(1, 1000)")
      const topic = new Topic()
      yield* drain(topic)
      assert.deepStrictEqual(topic.types, [])
    })
  )

  it.effect("leaves the socket unread while the topic is slow", () =>
    Effect.gen(function* () {
      const { database, inbound, slot, confirmed } = yield* source
      yield* database.query("CREATE TABLE t (id int, note text)")
      yield* database.query("INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 100000) AS i")
      const isBlocked = `
        SELECT coalesce(bool_or(wait_event = 'WalSenderWriteData'), false)
        FROM pg_stat_activity JOIN pg_replication_slots ON active_pid = pid WHERE slot_name = '${slot}'
      `
      const sizes: Array<number> = []
      const send: Inbound.Send<never, never> = (values) =>
        Effect.andThen(
          sizes.length === 0 ? Effect.orDie(until(database, isBlocked)) : Effect.void,
          Effect.sync(() => void sizes.push(values.reduce((sum, value) => sum + value.length, 0)))
        )
      yield* Effect.raceFirst(inbound.run(send), confirmed)
      const total = sizes.reduce((sum, size) => sum + size, 0)
      assert.isAbove(total, 25 * 1024 * 1024)
      assert.isBelow(Math.max(...sizes), 5 * 1024 * 1024)
    })
  )

  it.effect("says what is wrong, and whether it passes", () =>
    Effect.gen(function* () {
      const { database, inbound, options, slot } = yield* source
      yield* inbound.run(() => Effect.void).pipe(Effect.forkScoped)
      yield* until(database, `SELECT active FROM pg_replication_slots WHERE slot_name = '${slot}'`)
      const busy = yield* inbound.run(() => Effect.void).pipe(Effect.flip)
      assert.deepInclude(busy, { _tag: "InboundError", operation: "replicate", sqlState: "55006", isRetryable: true })

      const wrong = Redacted.make(Redacted.value(options.url).replace(/:[^:@]+@/, ":secret@"))
      const denied = yield* Inbound.make({ ...options, url: wrong }).pipe(Effect.flip)
      assert.deepInclude(denied, { _tag: "InboundError", operation: "connect", sqlState: "28P01", isRetryable: false })
      assert.notInclude(denied.message, "secret")

      const nobody = Redacted.make("postgresql://postgres@127.0.0.1:1/postgres")
      const absent = yield* Inbound.make({ ...options, url: nobody }).pipe(Effect.flip)
      assert.deepInclude(absent, { _tag: "InboundError", operation: "connect", sqlState: undefined, isRetryable: true })

      const misnamed = yield* Inbound.make({ ...options, slot: "Not a slot" }).pipe(Effect.flip)
      assert.deepInclude(misnamed, { _tag: "InboundError", operation: "set up", sqlState: "42602", isRetryable: false })
    })
  )

  for (const how of ["fast", "immediate", "kill"] as const) {
    it.effect(`fails retryably when the server ends (${how}), and loses nothing`, () =>
      Effect.gen(function* () {
        const { server } = yield* TestPostgres
        const { database, inbound, drain } = yield* source
        yield* database.query("CREATE TABLE t (id int)")
        yield* database.query("INSERT INTO t VALUES (1)")
        const arrived = yield* Deferred.make<void>()
        const fiber = yield* (
          inbound
            // A fast stop waits for the replication clients, so there the topic must take what it is sent.
            .run(() =>
              Effect.andThen(Deferred.succeed(arrived, undefined), how === "fast" ? Effect.void : Effect.never)
            )
            .pipe(Effect.flip, Effect.forkScoped)
        )
        yield* Deferred.await(arrived)
        yield* how === "kill" ? server.kill : server.stop(how)
        assert.deepInclude(yield* Fiber.join(fiber), {
          _tag: "InboundError",
          operation: "replicate",
          isRetryable: true
        })
        yield* server.start
        yield* Effect.ignore(database.query("SELECT 1"))
        yield* database.query("INSERT INTO t VALUES (2)")
        const topic = new Topic()
        yield* drain(topic)
        assert.deepStrictEqual(rowsOf(topic), how === "fast" ? ["2"] : ["1", "2"])
      })
    )
  }
})
