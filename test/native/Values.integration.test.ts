import { scenarios } from "./Scenario.ts"

/** A cast from text and one back that change every value: whoever takes one of them stores, or finds, another row. */
const casts = (type: string, wrong: string, name: string) => `
  CREATE FUNCTION ${name}_read(text) RETURNS ${type} IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN ${wrong}; END$$;
  CREATE CAST (text AS ${type}) WITH FUNCTION ${name}_read(text) AS ASSIGNMENT;
  CREATE FUNCTION ${name}_print(${type}) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN 'wrong'; END$$;
  CREATE CAST (${type} AS text) WITH FUNCTION ${name}_print(${type}) AS ASSIGNMENT`

/** Rows are made, changed and deleted, with the type in the key and out of it. */
const changes = (wrong: string, a: string, b: string, c: string) => [
  `INSERT INTO k VALUES (${wrong}, 0), (${a}, 1), (${b}, 2), (${c}, 3)`,
  `INSERT INTO v VALUES (1, ${a}), (2, ${b}), (3, NULL)`,
  `UPDATE v SET v = ${c} WHERE id = 1; UPDATE v SET v = ${a} WHERE id = 3`,
  "UPDATE k SET n = 4 WHERE n = 1",
  "DELETE FROM k WHERE n = 2",
  `UPDATE v SET v = NULL WHERE id = 2; UPDATE v SET v = ${b} WHERE id = 1`
]

const tables = (type: string) =>
  `CREATE TABLE k (k ${type} PRIMARY KEY, n int); CREATE TABLE v (id int PRIMARY KEY, v ${type})`

/** Rows are found by their whole image. */
const whole = (type: string) =>
  `CREATE TABLE w (n int, v ${type}); ALTER TABLE w REPLICA IDENTITY FULL; INSERT INTO w VALUES (0, NULL)`

const pair = "CREATE TYPE pair AS (a int, b text)"

scenarios("Values go through the input function of their type, whatever casts there are, for", {
  "an enum": {
    both: `CREATE TYPE mood AS ENUM ('wrong', 'sad', 'good', 'so "so'', \\'); ${tables("mood")}`,
    target: casts("mood", "'wrong'::public.mood", "mood"),
    changes: changes("'wrong'", "'sad'", `'so "so'', \\'`, "'good'")
  },
  "a composite": {
    both: `${pair}; ${tables("pair")}`,
    target: casts("pair", "ROW(0, 'wrong')::public.pair", "pair"),
    changes: changes("(0, 'wrong')", "(1, 'a,b')", `(2, '"\\')`, "(NULL, NULL)")
  },
  "a range": {
    both: tables("int4range"),
    target: casts("int4range", "'[0,1)'::int4range", "range"),
    changes: changes("'[0,1)'", "'[1,2)'", "'[3,)'", "'empty'")
  },
  "a domain": {
    both: `CREATE DOMAIN short AS numeric CHECK (VALUE < 9); ${tables("short")}`,
    target: casts("numeric", "0::numeric", "number"),
    changes: changes("0", "1", "2.50", "-3")
  },
  "a type of an extension": {
    both: `CREATE EXTENSION hstore; CREATE EXTENSION citext;
      CREATE TABLE k (k citext PRIMARY KEY, n int); CREATE TABLE v (id int PRIMARY KEY, v hstore)`,
    target: casts("hstore", "''::public.hstore", "h"),
    changes: [
      `INSERT INTO k VALUES ('Aa', 1), ('b', 2); INSERT INTO v VALUES (1, 'a=>b'), (2, 'c=>"{,}"')`,
      `UPDATE k SET n = 3 WHERE k = 'aa'; UPDATE v SET v = 'x=>NULL'; DELETE FROM k WHERE k = 'B'`
    ]
  },
  "types of PostgreSQL's own": {
    both: `CREATE TABLE k (k int, d timestamptz, PRIMARY KEY (k, d)); CREATE TABLE v (id int PRIMARY KEY, v interval, j jsonb, r regclass, b boolean)`,
    target: [
      casts("int", "0", "int"),
      casts("timestamptz", "'epoch'::timestamptz", "time"),
      casts("jsonb", "'{}'::jsonb", "jsonb"),
      casts("interval", "'0'::interval", "interval")
    ].join(";"),
    changes: [
      "INSERT INTO k VALUES (1, 'today'), (2, 'infinity'); INSERT INTO v VALUES (1, '1 day 2:00', '[1]', 'pg_class', true)",
      "UPDATE k SET k = 3 WHERE k = 1; UPDATE v SET v = '-1 mon', j = '{\"a\": 2}', b = false",
      "DELETE FROM k WHERE k = 3; INSERT INTO v VALUES (2, NULL, '1', NULL, true)"
    ]
  },
  "an array": {
    both: tables("int[]"),
    target: `${casts("int[]", "'{0}'::int[]", "ints")};
      CREATE CAST (varchar AS int[]) WITH FUNCTION ints_read(text) AS ASSIGNMENT`,
    changes: changes("'{0}'", "'{1,NULL,2}'", "'[0:1]={5,6}'", "'{{1,2},{3,4}}'")
  },
  "an array of a type with casts": {
    both: `CREATE TYPE mood AS ENUM ('wrong', 'sad'); ${tables("mood[]")}`,
    target: casts("mood", "'wrong'::public.mood", "mood"),
    changes: changes("'{wrong}'", "'{sad}'", "'{}'", "'{sad,wrong,NULL}'")
  },
  "a type whose arrays have another delimiter": {
    both: "CREATE TABLE v (id int PRIMARY KEY, v box)",
    changes: [
      "INSERT INTO v VALUES (1, '(1,2),(0,0)'), (2, '(3,4),(1,1)'), (3, NULL)",
      "UPDATE v SET v = '(9,9),(8,8)' WHERE id <> 2",
      "DELETE FROM v WHERE id = 1"
    ]
  }
})

scenarios("Rows are found by the output function of a type without equality, whatever casts there are, for", {
  json: {
    both: whole("json"),
    target: casts("json", "'{}'::json", "json"),
    changes: [
      `INSERT INTO w VALUES (1, '{"a": 1}'), (1, '{"b" : 1}'), (1, NULL)`,
      `UPDATE w SET n = 2 WHERE v->>'b' = '1'; DELETE FROM w WHERE v->>'a' = '1'`
    ],
    // A native subscriber cannot compare them.
    ends: "source"
  },
  point: {
    both: whole("point"),
    target: casts("point", "'(0,0)'::point", "point"),
    changes: ["INSERT INTO w VALUES (1, '(1,2)'), (1, '(3,4)')", "DELETE FROM w WHERE v ~= '(3,4)'"],
    ends: "source"
  }
})

/** Which makes an operator of equality for text as good as that for all enums, composites, … */
const implicit = (type: string) => `CREATE CAST (${type} AS text) WITH INOUT AS IMPLICIT`

scenarios("Rows are found in spite of an implicit cast to text of", {
  "an enum": {
    both: `CREATE TYPE mood AS ENUM ('wrong', 'sad', 'good', 'bad'); ${tables("mood")}; ${whole("mood")}`,
    target: implicit("mood"),
    changes: [
      ...changes("'wrong'", "'sad'", "'good'", "'bad'"),
      "INSERT INTO w VALUES (1, 'sad'), (2, 'good'); DELETE FROM w WHERE n = 2; UPDATE w SET v = 'wrong' WHERE n = 1"
    ]
  },
  "a composite, and an array": {
    both: `${pair}; ${tables("pair")}; ${whole("int[]")}`,
    target: `${implicit("pair")}; ${implicit("int[]")}`,
    changes: [
      ...changes("(0, 'wrong')", "(1, 'a,b')", `(2, '"\\')`, "(3, NULL)"),
      "INSERT INTO w VALUES (1, '{1,2}'), (2, '{}'); DELETE FROM w WHERE n = 2; UPDATE w SET v = NULL WHERE n = 1"
    ]
  }
})

scenarios("Of a composite", {
  "NULL is another value than one of which all fields are": {
    both: `${pair}; ${whole("pair")}`,
    changes: [
      "INSERT INTO w VALUES (1, ROW(NULL, NULL)), (1, NULL), (2, NULL), (2, ROW(NULL, NULL))",
      "DELETE FROM w WHERE n = 1 AND v IS NOT DISTINCT FROM NULL; UPDATE w SET n = 3 WHERE n = 2 AND v IS DISTINCT FROM NULL"
    ]
  }
})
