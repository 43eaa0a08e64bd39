import { assert, layer } from "@effect/vitest"
import { PgClient } from "@effect/sql-pg"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { load, NotATable, type TargetTable } from "../../../src/target/TargetTable.ts"
import { type TestDatabase, TestPostgres } from "../../postgres.ts"

const names = (name: string, schema = "public") => [{ schema, name }]

/** Loads as the applying session does, which looks nothing up outside `pg_catalog`, unless other settings are given. */
const loadFrom = (
  database: TestDatabase,
  tables: Parameters<typeof load>[0],
  settings: Readonly<Record<string, string>> = { search_path: "" }
) =>
  load(tables).pipe(
    Effect.provide(PgClient.layer({ url: database.url, maxConnections: 1, startupParameters: settings }))
  )

const one = (database: TestDatabase, name: string, settings?: Readonly<Record<string, string>>) =>
  Effect.map(loadFrom(database, names(name), settings), (tables): TargetTable => {
    const table = tables.get(`"public"."${name}"`)
    assert.isDefined(table)
    return table
  })

layer(TestPostgres.layer())("TargetTable", (it) => {
  it.effect("tells of each type how it is cast, compared and named, whatever the search path", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`
        CREATE SCHEMA "Other.One";
        CREATE EXTENSION citext SCHEMA "Other.One"; CREATE EXTENSION hstore SCHEMA public;
        CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE "Other.One"."Mood ""x""" AS ENUM ('sad');
        CREATE DOMAIN short AS varchar(3); CREATE DOMAIN shorter AS short NOT NULL DEFAULT '';
        CREATE DOMAIN list AS integer[];
        CREATE TYPE pair AS (a int, b text); CREATE TYPE document AS (a int, b json[]);
        CREATE DOMAIN written AS document;
        CREATE TYPE moods AS RANGE (subtype = mood);
        CREATE TABLE zoo (
          b boolean, c "char", n name, i2 int2, i8 int8, o oid, t text, v varchar(10), va varchar, ch char(3),
          bp bpchar, bi bit(4), bit bit, vb varbit(5), num numeric(10,2), ts timestamp(3), tz timestamptz,
          iv interval day to second(2), j json, jb jsonb, x xml, p point, bx box, ad inet, cd cidr, ma macaddr,
          u uuid, by bytea, tv tsvector, mo money, r int4range, mr int4multirange, xi xid, rc regclass,
          a int[], ja json[], vaa varchar(7)[], tsa timestamp(2)[], na numeric(5,1)[],
          m mood, ma_ mood[], mo_ "Other.One"."Mood ""x""", moa "Other.One"."Mood ""x"""[],
          s short, ss shorter, l list, la list[], pr pair, d document, w written, mr_ moods,
          ci "Other.One".citext, cia "Other.One".citext[], h hstore
        )`)
      const table = yield* one(database, "zoo")
      const facts = table.columns.map((c) =>
        [
          c.name,
          c.type,
          c.fullType === c.type ? "" : c.fullType,
          c.isArray ? "array" : "",
          c.hasEquality ? (c.equality ?? "=") : "text"
        ].join("|")
      )
      assert.deepStrictEqual(facts, [
        "b|boolean|||=",
        'c|"char"|||=',
        "n|name|||=",
        "i2|smallint|||=",
        "i8|bigint|||=",
        "o|oid|||=",
        "t|text|||=",
        "v|character varying|character varying(10)||=",
        "va|character varying|||=",
        "ch|bpchar|character(3)||=",
        "bp|bpchar|||=",
        'bi|"bit"|bit(4)||=',
        'bit|"bit"|bit(1)||=',
        "vb|bit varying|bit varying(5)||=",
        "num|numeric|numeric(10,2)||=",
        "ts|timestamp without time zone|timestamp(3) without time zone||=",
        "tz|timestamp with time zone|||=",
        "iv|interval|interval day to second(2)||=",
        "j|json|||text",
        "jb|jsonb|||=",
        "x|xml|||text",
        "p|point|||text",
        "bx|box|||text",
        "ad|inet|||=",
        "cd|cidr|||=",
        "ma|macaddr|||=",
        "u|uuid|||=",
        "by|bytea|||=",
        "tv|tsvector|||=",
        "mo|money|||=",
        "r|int4range|||=",
        "mr|int4multirange|||=",
        "xi|xid|||=",
        "rc|regclass|||=",
        "a|integer[]||array|=",
        "ja|json[]||array|text",
        "vaa|character varying[]|character varying(7)[]|array|=",
        "tsa|timestamp without time zone[]|timestamp(2) without time zone[]|array|=",
        "na|numeric[]|numeric(5,1)[]|array|=",
        "m|public.mood|||=",
        "ma_|public.mood[]||array|=",
        'mo_|"Other.One"."Mood ""x"""|||=',
        'moa|"Other.One"."Mood ""x"""[]||array|=',
        "s|character varying|public.short||=",
        "ss|character varying|public.shorter||=",
        "l|integer[]|public.list|array|=",
        "la|public.list[]||array|=",
        "pr|public.pair|||=",
        "d|public.document|||text",
        "w|public.document|public.written||text",
        "mr_|public.moods|||=",
        'ci|"Other.One".citext|||OPERATOR("Other.One".=)',
        'cia|"Other.One".citext[]||array|=',
        "h|public.hstore|||OPERATOR(public.=)"
      ])
      assert.deepStrictEqual(yield* one(database, "zoo", { search_path: `"Other.One", public` }), table)

      const casts = table.columns.map((c) => `NULL::text::${c.type}`)
      const compared = table.columns.map((c) =>
        c.hasEquality
          ? `t."${c.name}" ${c.equality ?? "="} NULL::text::${c.type}`
          : `t."${c.name}"::text = NULL::text::${c.type}::text`
      )
      yield* database.query(`
        SET search_path = ''; ALTER DOMAIN public.shorter DROP NOT NULL;
        INSERT INTO public.zoo SELECT ${casts.join(", ")};
        SELECT ${compared.join(", ")} FROM public.zoo AS t`)
      const truncated = yield* database
        .query("INSERT INTO public.zoo (s) SELECT 'abcd'::text::character varying")
        .pipe(Effect.flip)
      assert.strictEqual(truncated.sqlState, "22001")
    })
  )

  it.effect("tells what may be written, and what a row must have", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`
        CREATE DOMAIN filled AS text NOT NULL DEFAULT 'x';
        CREATE TABLE t (
          plain int, required int NOT NULL, defaulted int NOT NULL DEFAULT 1, gone int,
          always int GENERATED ALWAYS AS IDENTITY, "by default" int GENERATED BY DEFAULT AS IDENTITY,
          stored int GENERATED ALWAYS AS (plain + 1) STORED, virtual int GENERATED ALWAYS AS (plain + 1) VIRTUAL,
          domain filled, serial serial
        );
        ALTER TABLE t DROP COLUMN gone`)
      const { columns } = yield* one(database, "t")
      assert.deepStrictEqual(
        columns.map((c) => [c.name, c.isNullable, c.hasDefault, c.isGenerated, c.identity]),
        [
          ["plain", true, false, false, undefined],
          ["required", false, false, false, undefined],
          ["defaulted", false, true, false, undefined],
          ["always", false, false, false, "always"],
          ["by default", false, false, false, "default"],
          ["stored", true, false, true, undefined],
          ["virtual", true, false, true, undefined],
          ["domain", false, true, false, undefined],
          ["serial", false, true, false, undefined]
        ]
      )
    })
  )

  it.effect("takes as keys only what is unique at every moment and for every row", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`
        CREATE TABLE t (a int, b int, c int, d text, PRIMARY KEY (b, a) INCLUDE (c));
        CREATE UNIQUE INDEX ON t (d, c); CREATE UNIQUE INDEX ON t (c) WHERE a > 0; CREATE UNIQUE INDEX ON t (lower(d), a);
        ALTER TABLE t ADD UNIQUE (c, a) DEFERRABLE; ALTER TABLE t ADD UNIQUE NULLS NOT DISTINCT (c); CREATE INDEX ON t (d);
        INSERT INTO t VALUES (1, 1, 1, 'x'), (2, 2, 2, 'x');
        CREATE TABLE late (id int PRIMARY KEY DEFERRABLE, span int4range, EXCLUDE USING gist (span WITH &&));
        CREATE TABLE bare ()`)
      yield* database.query("CREATE UNIQUE INDEX CONCURRENTLY ON t (d)").pipe(Effect.flip)
      const t = yield* one(database, "t")
      assert.deepStrictEqual(t.primaryKey, ["b", "a"])
      assert.strictEqual(t.isPrimaryKeyDeferrable, false)
      assert.deepStrictEqual(t.uniqueKeys, [["d", "c"], ["c"]])
      assert.strictEqual(t.uniqueIndexes, 7)
      const late = yield* one(database, "late")
      assert.deepStrictEqual([late.primaryKey, late.isPrimaryKeyDeferrable, late.firesTriggers], [["id"], true, false])
      assert.isFalse(late.hasUncheckedKey)
      assert.strictEqual(late.uniqueIndexes, 2)
      assert.deepStrictEqual(yield* one(database, "bare"), {
        schema: "public",
        name: "bare",
        isPartitioned: false,
        columns: [],
        primaryKey: undefined,
        isPrimaryKeyDeferrable: false,
        isPrimaryKeyTemporal: false,
        deferrableKeys: [],
        uniqueKeys: [],
        uniqueIndexes: 0,
        firesTriggers: false,
        checksForeignKeys: false,
        references: [],
        hasUncheckedKey: false,
        hasRowSecurity: false
      })
    })
  )

  it.effect("knows which triggers and rules fire under the session's replication role, in partitions too", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TABLE free (id int);
        CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int REFERENCES parent);
        CREATE TABLE disabled (id int); CREATE TRIGGER t BEFORE INSERT ON disabled FOR EACH ROW EXECUTE FUNCTION f();
        ALTER TABLE disabled DISABLE TRIGGER t;
        CREATE TABLE replica (id int); CREATE TRIGGER t AFTER INSERT ON replica EXECUTE FUNCTION f();
        ALTER TABLE replica ENABLE REPLICA TRIGGER t;
        CREATE TABLE always (id int); CREATE TRIGGER t BEFORE UPDATE ON always FOR EACH ROW EXECUTE FUNCTION f();
        ALTER TABLE always ENABLE ALWAYS TRIGGER t;
        CREATE TABLE ruled (id int); CREATE RULE r AS ON DELETE TO ruled DO INSTEAD NOTHING;
        CREATE TABLE whole (id int PRIMARY KEY, d text) PARTITION BY RANGE (id);
        CREATE TABLE middle PARTITION OF whole FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id);
        CREATE TABLE leaf PARTITION OF middle FOR VALUES FROM (0) TO (9);
        CREATE TRIGGER t BEFORE INSERT ON leaf FOR EACH ROW EXECUTE FUNCTION f()`)
      const tables = ["free", "parent", "child", "disabled", "replica", "always", "ruled", "whole"]
      const firing = (role: string) =>
        Effect.map(
          loadFrom(
            database,
            tables.flatMap((name) => names(name)),
            { search_path: "", session_replication_role: role }
          ),
          (found) => {
            const all = [...found.values()]
            return {
              triggers: all.filter((table) => table.firesTriggers).map((table) => table.name),
              foreignKeys: all.filter((table) => table.checksForeignKeys).map((table) => table.name),
              references: all.flatMap((table) => table.references)
            }
          }
        )
      const ordinary = {
        triggers: ["always", "ruled", "whole"],
        foreignKeys: ["parent", "child"],
        references: [{ schema: "public", name: "parent", cascades: false }]
      }
      assert.deepStrictEqual(yield* firing("origin"), ordinary)
      assert.deepStrictEqual(yield* firing("local"), ordinary)
      assert.deepStrictEqual(yield* firing("replica"), {
        triggers: ["replica", "always"],
        foreignKeys: [],
        references: []
      })
      const whole = yield* one(database, "whole")
      assert.deepStrictEqual([whole.isPartitioned, whole.primaryKey], [true, ["id"]])
    })
  )

  it.effect("knows whether row security filters the role that asks", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      yield* database.query(`
        CREATE ROLE owner; CREATE ROLE stranger; GRANT CREATE ON SCHEMA public TO owner; SET ROLE owner;
        CREATE TABLE secured (id int); CREATE TABLE forced (id int); CREATE TABLE open (id int);
        ALTER TABLE secured ENABLE ROW LEVEL SECURITY; ALTER TABLE forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        RESET ROLE`)
      const secured = (role: string) =>
        Effect.map(
          loadFrom(
            database,
            ["secured", "forced", "open"].flatMap((name) => names(name)),
            { role, row_security: "off" }
          ),
          (found) => [...found.values()].filter((table) => table.hasRowSecurity).map((table) => table.name)
        )
      assert.deepStrictEqual(yield* secured("postgres"), [])
      assert.deepStrictEqual(yield* secured("owner"), ["forced"])
      assert.deepStrictEqual(yield* secured("stranger"), ["secured", "forced"])
    })
  )

  it.effect("finds tables by their exact names, leaves out those that do not exist, and refuses what is none", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const long = "ü".repeat(31) + "x"
      const nasty = { schema: `s."x".y`, name: `Select "a".b'\\ ${"é"}` }
      yield* database.query(`
        CREATE SCHEMA "s.""x"".y"; CREATE TABLE "s.""x"".y"."Select ""a"".b'\\ é" ("ta.b""le" int PRIMARY KEY);
        CREATE TABLE "${long}" ("user" int); CREATE TABLE public."b" (); CREATE UNLOGGED TABLE "B" ();
        CREATE VIEW v AS SELECT 1; CREATE SEQUENCE s`)
      const found = yield* loadFrom(database, [
        nasty,
        { schema: "public", name: long },
        { schema: "public", name: "B" },
        { schema: "public", name: "absent" },
        { schema: "absent", name: "b" }
      ])
      assert.deepStrictEqual(
        [...found.keys()],
        [`"s.""x"".y"."Select ""a"".b'\\ é"`, `"public"."${long}"`, `"public"."B"`]
      )
      assert.deepStrictEqual(
        [...found.values()].map((table) => [table.name, table.primaryKey]),
        [
          [nasty.name, ['ta.b"le']],
          [long, undefined],
          ["B", undefined]
        ]
      )
      assert.strictEqual((yield* loadFrom(database, [])).size, 0)
      for (const [name, kind] of [
        ["v", "view"],
        ["s", "sequence"]
      ] as const) {
        const refused = yield* loadFrom(database, names(name)).pipe(Effect.flip)
        assert.instanceOf(refused, NotATable)
        assert.strictEqual(refused.message, `"public"."${name}" is a ${kind} in the target, not a table`)
      }
    })
  )

  it.effect("sees what the ambient transaction has changed", () =>
    Effect.gen(function* () {
      const database = yield* TestPostgres.database
      const found = yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        return yield* sql.withTransaction(
          Effect.andThen(sql.unsafe("CREATE TABLE public.fresh (id int)"), load(names("fresh")))
        )
      }).pipe(Effect.provide(PgClient.layer({ url: database.url, maxConnections: 2 })))
      assert.strictEqual(found.size, 1)
    })
  )
})
