import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { quote } from "../../src/target/Identifier.ts"
import { ApplyFailed } from "../../src/SinkError.ts"
import { real, Replica } from "./Replica.ts"

const literal = (value: string): string => `'${value.replaceAll("'", "''")}'`

const quotes = `it's "quoted" \\ back\\\\slash {a,b} NULL $1 %s`
const emoji = "Grüße 😀👩‍👩‍👧 \u2028 \t\r\n \u0001\u007f \ufeff"

/** Values of each built-in type as its input function takes them; the first three are distinct. */
const samples: ReadonlyArray<readonly [type: string, ...values: ReadonlyArray<string>]> = [
  ["boolean", "t", "f"],
  ["smallint", "-32768", "32767", "0"],
  ["integer", "-2147483648", "2147483647", "0"],
  ["bigint", "-9223372036854775808", "9223372036854775807", "9007199254740993", "-1"],
  [
    "numeric",
    "NaN",
    "Infinity",
    "-Infinity",
    "0.000",
    "-0.10",
    "1e-16383",
    `${"9".repeat(200)}.${"1".repeat(200)}`,
    "12345678901234567890.12345678901234567890"
  ],
  ["real", "NaN", "Infinity", "-Infinity", "-0", "3.4028235e38", "1e-45", "0.1", "1e12", "16777217"],
  [
    "double precision",
    "NaN",
    "Infinity",
    "-Infinity",
    "-0",
    "1.7976931348623157e308",
    "5e-324",
    "0.1",
    "123456789012345680",
    "-1e-7"
  ],
  ["money", "-92233720368547758.08", "92233720368547758.07", "0", "-0.01"],
  ["text", "", quotes, emoji, "NULL", "null", "{}", '""', " ", "\\N", "\\."],
  ["character varying", "", quotes, emoji, "trailing   "],
  ["bpchar", "x", quotes, emoji, "trailing   "],
  ["name", "", `q'"\\`, "n".repeat(63)],
  ['"char"', "x", "", "7", "\\377", "\\"],
  ["bytea", "\\x", "\\x00ff5c22270a7b7d2c", "abc"],
  ["date", "infinity", "-infinity", "0044-03-15 BC", "4713-01-01 BC", "5874897-12-31", "2024-02-29"],
  ["time without time zone", "00:00", "24:00", "12:34:56.789012"],
  ["time with time zone", "00:00+15:59:59", "24:00-15:59:59", "12:34:56.789+05:30"],
  [
    "timestamp without time zone",
    "infinity",
    "-infinity",
    "4713-01-01 00:00:00 BC",
    "294276-12-31 23:59:59.999999",
    "2024-02-29 12:34:56.789012"
  ],
  [
    "timestamp with time zone",
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00+01:34:52 BC",
    "294276-12-31 23:59:59.999999+00",
    "2024-10-27 02:30:00 Europe/Berlin",
    "2024-07-01 12:00:00.000001+05:45"
  ],
  [
    "interval",
    "infinity",
    "-infinity",
    "-1 year 2 mons -3 days 04:05:06.789",
    "178000000 years",
    "-1 mon +1 day -00:00:00.000001",
    "0"
  ],
  [
    "uuid",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
  ],
  [
    "json",
    ` {"a" : 1.0, "a":[ null ],"b":1${"0".repeat(400)}.10}`,
    '"\\u0000"',
    "null",
    `"${quotes.replaceAll(/["\\]/g, "\\$&")}"`,
    "-0.0e-3"
  ],
  [
    "jsonb",
    `{"b": 1${"0".repeat(400)}.10, "a": "\\u00e9", "c": -0.0}`,
    "null",
    "[]",
    `"${quotes.replaceAll(/["\\]/g, "\\$&")}"`,
    "12345678901234567890"
  ],
  ["jsonpath", '$."a"[*]?(@ > 1 && @.b like_regex "^\\\\d")', "strict $", "$.x"],
  ["xml", '<a b="c&amp;">d\\</a>', "text only", "<!-- c --><x/><y/>", ""],
  ["inet", "192.168.0.1/24", "::1", "::ffff:1.2.3.4/128", "0.0.0.0/0"],
  ["cidr", "10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"],
  ["macaddr", "08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"],
  ["macaddr8", "08:00:2b:01:02:03:04:05", "ff:ff:ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00:00:00"],
  ["bit(3)", "101", "000", "111"],
  ["bit varying", "", "1011", `${"10".repeat(100)}`],
  ["point", "(1.5,-2)", "(NaN,Infinity)", "(-0,1e-300)"],
  ["line", "{1,2,3}", "{0,-1,0.1}", "{-1,0,1e300}"],
  ["lseg", "[(0,0),(1,1)]", "[(-1,0.1),(1e10,2)]", "[(0,0),(0,0)]"],
  ["box", "(1,1),(0,0)", "(Infinity,2),(-Infinity,0.1)", "(0,0),(0,0)"],
  ["path", "((0,0),(1,1))", "[(0,0),(1,1),(2,0.1)]", "[(0,0)]"],
  ["polygon", "((0,0),(1,1),(1,0))", "((0,0))", "((0.1,0),(1e10,1))"],
  ["circle", "<(0,0),1>", "<(0.1,-5),0>", "<(1,1),Infinity>"],
  ["tsvector", "'fat':2,4 'cat':3A", "", `'it''s' 'back\\\\slash' '"'`],
  ["tsquery", "'fat' & ( 'rat':*A | !'cat' )", "'a' <2> 'b'", `'it''s' | '\\\\'`],
  ["int4range", "[1,10)", "empty", "(,)", "[-2147483648,)"],
  ["int8range", "[1,10)", "empty", "(,9223372036854775807)"],
  ["numrange", "(,5.50]", "empty", "(-Infinity,NaN]", "[1.0,1.00]"],
  ["daterange", "[2020-01-01,infinity)", "empty", "(,0044-03-15 BC)"],
  ["tsrange", '["2020-01-01 00:00:00","2020-01-02 00:00:00.000001")', "empty", "(,)"],
  ["tstzrange", "[2020-01-01 00:00+00,infinity)", "empty", "(,2020-01-01 00:00+00]"],
  ["int4multirange", "{[1,2),[5,9)}", "{}", "{(,)}"],
  ["int8multirange", "{[1,2),[5,9)}", "{}", "{(,1)}"],
  ["nummultirange", "{[1.0,2.50),[5,9]}", "{}", "{(,)}"],
  ["datemultirange", "{[2020-01-01,2020-02-01)}", "{}", "{(,infinity)}"],
  ["tsmultirange", "{[2020-01-01,2020-02-01)}", "{}", "{(,infinity)}"],
  ["tstzmultirange", "{[2020-01-01,2020-02-01)}", "{}", "{(,infinity)}"],
  ["oid", "0", "4294967295", "1259"],
  ["regclass", "pg_catalog.pg_class", "-", "4294967295"],
  ["regtype", "integer[]", "pg_catalog.pg_class", "-"],
  ["regproc", "pg_catalog.now", "-", "4294967295"],
  ["regprocedure", "pg_catalog.abs(integer)", "-", "pg_catalog.now()"],
  ["regoper", "pg_catalog.||/", "0", "4294967295"],
  ["regoperator", "pg_catalog.+(integer,integer)", "0", "pg_catalog.-(NONE,integer)"],
  ["regrole", "postgres", "-", "pg_monitor"],
  ["regnamespace", "public", "-", "pg_catalog"],
  ["regcollation", '"C"', "-", "unicode"],
  ["regconfig", "english", "-", "simple"],
  ["regdictionary", "english_stem", "-", "simple"],
  ["xid", "0", "4294967295", "3"],
  ["xid8", "0", "18446744073709551615", "3"],
  ["cid", "0", "4294967295", "3"],
  ["tid", "(0,1)", "(4294967295,65535)", "(7,7)"],
  ["pg_lsn", "0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"],
  ["pg_snapshot", "10:20:10,14,15", "1:1:", "3:9:5"],
  ["txid_snapshot", "10:20:10,14,15", "1:1:", "3:9:5"],
  ["int2vector", "", "1 -2 3", "0"],
  ["oidvector", "", "1 4294967295", "0"],
  ["refcursor", "", quotes, "cursor"],
  ["aclitem", "postgres=arwd/postgres", "=r*/postgres", "postgres=/postgres"],
  ["integer[]", "{1,NULL,3}", "{}", "{{1,2},{NULL,4}}", "[-2:0]={7,8,9}", "[0:0][3:4]={{1,2}}"],
  [
    "text[]",
    `{"a,b","it's \\"q\\" \\\\","",NULL,"NULL","{}"}`,
    "{}",
    '{{{"x y"},{" "}},{{NULL},{"\n😀"}}}',
    '[5:5]={"null"}'
  ],
  ["timestamp with time zone[]", '{"2024-02-29 12:00:00+00",infinity,NULL}', "{}", '{{"0044-03-15 12:00:00+00 BC"}}'],
  ["numeric[]", "{NaN,1.50,-Infinity}", "{}", "{{0.000}}"],
  ["bytea[]", `{"\\\\x00ff","\\\\x",NULL}`, "{}", '{"\\\\x5c"}'],
  ["jsonb[]", `{"{\\"a\\": \\"b,\\\\\\\\c\\"}",NULL,"null"}`, "{}", '{"[1]"}'],
  ["box[]", "{(1,1),(0,0);(2,2),(1,1)}", "{}", "{(3,3),(2,2)}"],
  ["int4range[]", '{"[1,2)",empty,NULL}', "{}", '{"(,)"}'],
  ["name[]", "{a,NULL}", "{}", '{"it\'s"}'],
  ["xml[]", '{"<a>\\"</a>",NULL}', "{}", "{<b/>}"],
  ["point[]", '{"(1,2)",NULL}', "{}", '{"(0.1,-0)"}'],
  ["bit varying[]", "{101,NULL}", "{}", '{""}'],
  ['"char"[]', "{x,NULL}", "{}", '{"\\""}']
]

/** PostgreSQL cannot read back what it prints of these, or it keeps them to its own catalogs. */
const internal = [
  "gtsvector",
  "pg_brin_bloom_summary",
  "pg_brin_minmax_multi_summary",
  "pg_dependencies",
  "pg_mcv_list",
  "pg_ndistinct",
  "pg_node_tree"
]

/** Types that no B-tree can sort, so that they cannot be a key. */
const unsortable = [
  "aclitem",
  "box",
  "cid",
  "circle",
  "json",
  "jsonpath",
  "line",
  "lseg",
  "path",
  "pg_snapshot",
  "point",
  "polygon",
  "refcursor",
  "txid_snapshot",
  "xid",
  "xml"
]

/** PostgreSQL takes their arrays for a key, and then refuses the second row. */
const arraysOfUnsortable = ["box[]", "point[]", "xml[]"]

type Sample = (typeof samples)[number]

/** A table with the type as a column, one with it as the key, and one without a key, of which rows are found by all they hold. */
const tablesOf = (schema: string, [type]: Sample): string => {
  const table = `${schema}.${quote(type)}`
  const keyed = `${schema}.${quote(`${type} key`)}`
  const full = `${schema}.${quote(`${type} full`)}`
  return `
    CREATE TABLE ${table} (id int PRIMARY KEY, v ${type});
    CREATE TABLE ${full} (n int, v ${type});
    ALTER TABLE ${full} REPLICA IDENTITY FULL;
    DO $$ BEGIN CREATE TABLE ${keyed} (k ${type} PRIMARY KEY, n int);
    EXCEPTION WHEN undefined_object THEN NULL; END $$;`
}

const valueOf = ([type]: Sample, value: string | undefined): string =>
  value === undefined ? "NULL" : `${literal(value)}::${type}`

const insertsOf = (schema: string, sample: Sample): string => {
  const [type, ...values] = sample
  const rows = [...values, undefined].map((value, id) => `(${id}, ${valueOf(sample, value)})`).join(", ")
  return `
    INSERT INTO ${schema}.${quote(type)} VALUES ${rows};
    INSERT INTO ${schema}.${quote(`${type} full`)} VALUES ${rows}, ${rows};`
}

/** Every value comes to stand in the place of another, NULL too, and a row goes; of two equal rows, one changes and one goes. */
const changesOf = (schema: string, sample: Sample): string => {
  const [type, ...values] = sample
  const rotated = [...values, undefined].map(
    (_, id) =>
      `UPDATE ${schema}.${quote(type)} SET v = ${valueOf(sample, values[(id + 1) % (values.length + 1)])} WHERE id = ${id};`
  )
  const full = `${schema}.${quote(`${type} full`)}`
  return `
    ${rotated.join("\n")}
    DELETE FROM ${schema}.${quote(type)} WHERE id = 0;
    UPDATE ${full} SET n = n + 100, v = ${valueOf(sample, values[0])} WHERE ctid IN (SELECT min(ctid) FROM ${full} WHERE n > 0 GROUP BY n);
    DELETE FROM ${full} WHERE ctid IN (SELECT min(ctid) FROM ${full} WHERE n < 100 GROUP BY n);`
}

/** A key that its type holds equal to one before (0 and -0) is left out by the source. */
const keyInsertsOf = (schema: string, sample: Sample): string => {
  const [type, ...values] = sample
  const rows = values.map((value, n) => `(${valueOf(sample, value)}, ${n})`).join(", ")
  return `INSERT INTO ${schema}.${quote(`${type} key`)} VALUES ${rows} ON CONFLICT DO NOTHING;`
}

/** Rows are updated and deleted by the key, and a key changes to one that has just become free. */
const keyChangesOf = (schema: string, sample: Sample): string => {
  const [type, ...values] = sample
  const table = `${schema}.${quote(`${type} key`)}`
  return `
    UPDATE ${table} SET n = n + 100 WHERE n <> 1;
    DELETE FROM ${table} WHERE n = 1;
    UPDATE ${table} SET k = ${valueOf(sample, values[1])} WHERE n = 100;`
}

const isSortable = ([type]: Sample) => ![...unsortable, ...arraysOfUnsortable].includes(type)

const all = (schema: string, of: (schema: string, sample: Sample) => string, which = samples) =>
  which.map((sample) => of(schema, sample)).join("\n")

const select = (schema: string, name: string, columns: string): string =>
  `SELECT ${literal(name)} AS name, ${columns} FROM ${schema}.${quote(name)}`

/** The tables' contents as text, each row with the table it is from. */
const contents = (schema: string): string =>
  samples
    .flatMap((sample) => {
      const [type] = sample
      return [
        select(schema, type, "id::text AS id, v::text"),
        select(schema, `${type} full`, "n::text, v::text"),
        ...(isSortable(sample) ? [select(schema, `${type} key`, "n::text, k::text")] : [])
      ]
    })
    .join(" UNION ALL ")
    .concat(" ORDER BY 1, 2, 3")

/** Of random digits, so that compression does not keep it in the row; a mebibyte in the row with the id 2. */
const large = (of: string): string =>
  `(SELECT string_agg(${of}, '') FROM generate_series(1, CASE id WHEN 2 THEN 30000 ELSE 500 END) AS n)`

layer(Replica.layer, real)("Types", (it) => {
  it.effect("every built-in type that a column can have is among them", () =>
    Effect.gen(function* () {
      const { source } = yield* Replica.start({})
      const types = yield* source.query(`
        SELECT format_type(oid, NULL) AS type FROM pg_type
        WHERE oid < 10000 AND typtype <> 'p' AND typrelid = 0 AND typelem = 0
          AND typname NOT IN ('box', 'lseg', 'point', 'line')
        ORDER BY 1`)
      const known = samples.map(([type]) => (type === "bpchar" ? "character" : type.replace("bit(3)", "bit")))
      assert.deepStrictEqual(
        types.map(({ type }) => type).filter((type) => !known.includes(String(type))),
        internal
      )
    })
  )

  it.effect("created by the connector, applied in sets", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({ source: `CREATE SCHEMA types; ${all("types", tablesOf)}` })
      const keyed = yield* replica.source.query(
        "SELECT left(relname, -4) AS type FROM pg_class WHERE relname LIKE '% key' AND relkind = 'r'"
      )
      assert.deepStrictEqual(
        samples
          .map(([type]) => type)
          .filter((type) => keyed.every((row) => row["type"] !== type))
          .sort(),
        unsortable
      )
      const sortable = samples.filter(isSortable)
      yield* replica.replicate(all("types", insertsOf), all("types", keyInsertsOf, sortable))
      yield* replica.same(contents("types"))
      yield* replica.replicate(all("types", changesOf), all("types", keyChangesOf, sortable))
      yield* replica.same(contents("types"))
      assert.strictEqual(
        replica.applied.reduce((sum, { replays }) => sum + replays, 0),
        0
      )
      yield* replica.replicate(
        samples
          .map(([type]) => `DELETE FROM types.${quote(type)}; DELETE FROM types.${quote(`${type} full`)}`)
          .join(";")
      )
      yield* replica.same(contents("types"))
    })
  )

  it.effect("applied row by row, in tables with a trigger that fires", () =>
    Effect.gen(function* () {
      const tables = `CREATE SCHEMA types; ${all("types", tablesOf)}`
      const replica = yield* Replica.start({
        source: tables,
        target: `${tables}
          CREATE FUNCTION types.fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
          DO $$ DECLARE name regclass; BEGIN
            FOR name IN SELECT oid FROM pg_class WHERE relnamespace = 'types'::regnamespace AND relkind = 'r' LOOP
              EXECUTE format('CREATE TRIGGER fires AFTER INSERT ON %s EXECUTE FUNCTION types.fires()', name);
              EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER fires', name);
            END LOOP;
          END $$`
      })
      const sortable = samples.filter(isSortable)
      yield* replica.replicate(all("types", insertsOf), all("types", keyInsertsOf, sortable))
      yield* replica.same(contents("types"))
      yield* replica.replicate(all("types", changesOf), all("types", keyChangesOf, sortable))
      yield* replica.same(contents("types"))
      assert.isTrue(replica.applied.every(({ changes, statements }) => statements === changes))
    })
  )

  it.effect("types that the source has defined, or an extension, which the target has elsewhere", () =>
    Effect.gen(function* () {
      const types = `
        CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', 'a,b{}\\', 'Größe', '');
        CREATE DOMAIN short AS varchar(3) CHECK (VALUE <> 'no');
        CREATE DOMAIN required AS int NOT NULL DEFAULT 7;
        CREATE DOMAIN list AS int[] CHECK (cardinality(VALUE) < 4);
        CREATE DOMAIN nested AS short;
        CREATE TYPE pair AS (a text, "b c" numeric(5,2), m mood);
        CREATE TYPE tree AS (label short, pairs pair[], l list);
        CREATE TYPE span AS RANGE (subtype = float8);
        CREATE TYPE vague AS (j json, p point);`
      const columns = `
        m mood, ms mood[], s short, ss short[], n nested, l list, ls list[], p pair, ps pair[], t tree, ts tree[],
        r span, rm span_multirange, v vague, h hstore, hs hstore[], c citext, lt ltree, lq lquery, cu cube, sg seg, isbn isbn13`
      const extensions = ["hstore", "citext", "ltree", "cube", "seg", "isn"]
      const replica = yield* Replica.start({
        source: `
          ${extensions.map((name) => `CREATE EXTENSION ${name};`).join("\n")} ${types}
          CREATE TABLE plain (id int PRIMARY KEY, ${columns}, q required);
          CREATE TABLE whole (${columns});
          ALTER TABLE whole REPLICA IDENTITY FULL;
          CREATE TABLE keyed (m mood, s short, p pair, c citext, r span, lt ltree, t text, PRIMARY KEY (m, s, p, c, r, lt));`,
        target: `
          CREATE SCHEMA extensions;
          ${extensions.map((name) => `CREATE EXTENSION ${name} SCHEMA extensions;`).join("\n")} ${types}`
      })
      const values = String.raw`
        'a,b{}\', '{sad,"it''s \"ok\"",NULL,"a,b{}\\",""}', 'O''"', '{"a ",NULL,"\""}', 'x', '{1,NULL,3}', '{"{1}","{NULL,2}"}',
        ROW('q"u,o)te\', 1.5, 'Größe'), ARRAY[ROW('', NULL, NULL), NULL, ROW(NULL, -1, '')]::pair[],
        ROW('abc', ARRAY[ROW(E'tab\t', 0, 'sad')]::pair[], '[2:3]={4,5}'), ARRAY[ROW(NULL, NULL, NULL)]::tree[],
        '(-Infinity,0.1]', '{[1,2),(3,Infinity)}', ROW('{"a" : 1}', '(1,2)'), 'a=>NULL, "b\"c"=>"d,=>\\e"', ARRAY['a=>1'::hstore, NULL],
        'CaSe', 'Top.Science', '*.foo|bar.*{2}', '(1,2),(3,4)', '1.0 .. 2.50', '978-1-937343-00-2'`
      yield* replica.replicate(
        `INSERT INTO plain VALUES (1, ${values}); INSERT INTO plain VALUES (2), (3);
         INSERT INTO whole VALUES (${values}), (${values}); INSERT INTO whole VALUES (NULL), (NULL)`,
        `INSERT INTO keyed VALUES ('sad', 'abc', ROW('x"', 1, 'sad'), 'Key', '[1,2]', 'a.b', 'one'),
          ('', 'abc', ROW(',', 1, NULL), 'Key', 'empty', '', 'two'), ('', '', ROW(NULL, NULL, NULL), 'other', '(,)', 'c', 'three')`
      )
      yield* replica.equal
      yield* replica.replicate(
        `UPDATE plain SET p = ROW('changed', 2, 'sad'), c = 'cAsE', s = NULL, l = '{}' WHERE id = 1;
         UPDATE plain SET (${columns.replaceAll(/ [a-z0-9_]+(\[\])?(?=,|$)/g, "")}) = ROW(${values}) WHERE id = 2;
         DELETE FROM plain WHERE id = 3;
         UPDATE whole SET m = '' WHERE ctid = (SELECT min(ctid) FROM whole);
         DELETE FROM whole WHERE ctid = (SELECT max(ctid) FROM whole)`,
        `UPDATE keyed SET t = 'changed'; UPDATE keyed SET c = 'kEY', m = 'Größe' WHERE s = 'abc'; DELETE FROM keyed WHERE s = ''`,
        `DELETE FROM keyed WHERE t = 'changed' AND lt = 'a.b'; UPDATE keyed SET t = NULL`
      )
      yield* replica.equal
      assert.deepStrictEqual(yield* replica.rows("SELECT count(*)::int4 FROM keyed"), [["1"]])
    })
  )

  it.effect("modifiers survive, and what is too long for a narrower target is refused, not cut", () =>
    Effect.gen(function* () {
      const columns = `
        a varchar(5), b char(4), c numeric(5), d numeric(6,-2), e numeric(4,6), f time(0), g timetz(2), h timestamp(3),
        i timestamptz(1), j bit(3), k varbit(5), l interval year to month, m interval day to second(2), n interval(0),
        o varchar(2)[], p numeric(3,1)[][], q "char", r char, s bit, t timestamp(3)[]`
      const replica = yield* Replica.start({
        source: `CREATE TABLE modified (id int PRIMARY KEY, ${columns}); CREATE TABLE wide (id int PRIMARY KEY, v text, n numeric, b varbit)`,
        target: "CREATE TABLE wide (id int PRIMARY KEY, v varchar(3), n numeric(4,1), b bit(3))"
      })
      yield* replica.replicate(`INSERT INTO modified VALUES (1, 'abcde', 'ab', 99999, 123456, 0.001234, '12:00:01', '12:00:01.25+02',
        '2024-01-01 00:00:00.123', '2024-01-01 00:00:00.1+00', '101', '10101', '2 years 3 mons', '1 day 00:00:01.25', '1 sec',
        '{ab}', '{{1.5}}', 'x', 'y', '1', '{"2024-01-01 00:00:00.123"}')`)
      yield* replica.equal
      yield* replica.same(`SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = 'modified'::regclass AND attnum > 0 ORDER BY attnum`)
      // Numbers are rounded to the column's scale, as in every assignment; blanks at the end may go, as the standard says.
      yield* replica.replicate("INSERT INTO wide VALUES (1, 'abc', 123.4, '101'), (2, 'ab   ', 123.44, '111')")
      assert.deepStrictEqual(yield* replica.rows("SELECT * FROM wide ORDER BY id"), [
        ["1", "abc", "123.4", "101"],
        ["2", "ab ", "123.4", "111"]
      ])
      const refused = []
      for (const [column, value] of [
        ["v", "'abcd'"],
        ["n", "1234"],
        ["b", "'1011'"],
        ["b", "'10'"]
      ]) {
        const error = yield* replica.halt(`UPDATE wide SET ${column} = ${value} WHERE id = 1`)
        assert.instanceOf(error, ApplyFailed)
        refused.push(error.failure.sqlState)
        assert.notInclude(error.message, "1234")
        yield* replica.target.query("ALTER TABLE wide ALTER v TYPE text, ALTER n TYPE numeric, ALTER b TYPE varbit")
        yield* replica.restart()
        yield* replica.caughtUp
        yield* replica.same("SELECT * FROM wide WHERE id = 1")
        yield* replica.replicate(
          "UPDATE wide SET v = 'abc', n = 1, b = '101' WHERE id = 1",
          "DELETE FROM wide WHERE id = 2"
        )
        yield* replica.target.query(
          "ALTER TABLE wide ALTER v TYPE varchar(3), ALTER n TYPE numeric(4,1), ALTER b TYPE bit(3)"
        )
        yield* replica.restart()
      }
      assert.deepStrictEqual(refused, ["22001", "22003", "22026", "22026"])
    })
  )

  it.effect("large values, which the source leaves out where they did not change", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source: `
          CREATE TABLE large (id int PRIMARY KEY, n int, t text, b bytea, j jsonb);
          ALTER TABLE large ALTER t SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL, ALTER j SET STORAGE EXTERNAL;
          CREATE TABLE whole (n int, t text);
          ALTER TABLE whole ALTER t SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
          CREATE TABLE keyed (k text PRIMARY KEY, t text);
          ALTER TABLE keyed ALTER t SET STORAGE EXTERNAL`
      })
      const text = large("md5(n::text) || '😀\"\\'")
      yield* replica.replicate(`
        INSERT INTO large SELECT id, 1, ${text}, decode(${large("md5(n::text)")}, 'hex'), jsonb_build_object('a', ${large("md5(n::text)")})
          FROM generate_series(1, 3) AS id;
        INSERT INTO whole SELECT 1, ${text} FROM (VALUES (1), (1)) AS ids (id);
        INSERT INTO keyed SELECT 'a', ${text} FROM (VALUES (1)) AS ids (id)`)
      yield* replica.equal
      yield* replica.replicate(
        "UPDATE large SET n = 2",
        "UPDATE large SET t = 'short' WHERE id = 1; UPDATE large SET n = 3",
        "UPDATE large SET id = id + 10; UPDATE large SET j = NULL WHERE id = 12; UPDATE large SET n = 4",
        "UPDATE whole SET n = 2 WHERE ctid = (SELECT min(ctid) FROM whole)",
        "UPDATE keyed SET k = 'b'; UPDATE keyed SET k = repeat('key', 800); UPDATE keyed SET k = k || '!'",
        "DELETE FROM large WHERE id = 13; DELETE FROM whole WHERE n = 1"
      )
      yield* replica.equal
      assert.deepStrictEqual(yield* replica.rows("SELECT octet_length(t) > 1000000 FROM large WHERE id = 12"), [["t"]])
    })
  )

  it.effect("a value that its type cannot hold in the target stops with its class, and never with the value", () =>
    Effect.gen(function* () {
      const replica = yield* Replica.start({
        source: "CREATE TABLE t (id int PRIMARY KEY, v json)",
        target: "CREATE TABLE t (id int PRIMARY KEY, v jsonb)"
      })
      yield* replica.replicate(`INSERT INTO t VALUES (1, '{"a": 1.0, "a": 2}')`)
      assert.deepStrictEqual(yield* replica.rows("SELECT v FROM t"), [['{"a": 2}']])
      const error = yield* replica.halt(`INSERT INTO t VALUES (2, '"secret \\u0000"')`)
      assert.strictEqual(
        error.message.replace(/transaction [0-9A-F/]+/, "transaction …"),
        "public.t, offset 5, transaction …: character not translatable to the target's encoding (SQLSTATE 22P05)"
      )
      assert.include(error.remedy, "on-error.data: quarantine")
    })
  )
})
