import { scenarios, together, oneByOne, streamed } from "./Scenario.ts"

const t = "CREATE TABLE t (id int PRIMARY KEY, v text)"

/** Enough for sets. */
const many = [
  "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 60) AS n",
  "UPDATE t SET v = 'x' WHERE id % 2 = 0",
  "UPDATE t SET id = id + 100 WHERE id % 5 = 0; DELETE FROM t WHERE id % 3 = 0"
]

const client = { consumer: { driver: "client" } }
const drift = "UPDATE t SET v = 'mine'"

scenarios("Keys", {
  "as they are on either side, by both drivers": {
    both: t,
    changes: many,
    ways: [together, oneByOne, streamed, client]
  },
  "everything is there, and nothing may be changed": {
    both: t,
    changes: many,
    settings: { "schema-changes": "validate" }
  },
  "the target has none": { both: t, target: "ALTER TABLE t DROP CONSTRAINT t_pkey", changes: many, ends: "source" },
  "the target's has one more column": {
    source: t,
    target: "CREATE TABLE t (id int, tenant int DEFAULT 1, v text, PRIMARY KEY (id, tenant))",
    changes: many,
    ends: "source"
  },
  "the target's is another": {
    both: "CREATE TABLE t (id int PRIMARY KEY, v text, c int)",
    target: "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (c)",
    changes: [
      "INSERT INTO t VALUES (1, 'a', 11), (2, 'b', 12)",
      "UPDATE t SET c = 13 WHERE id = 1; DELETE FROM t WHERE id = 2"
    ],
    ends: "source"
  },
  "a whole row is found by the key, also when it is another here": {
    both: `${t}; ALTER TABLE t REPLICA IDENTITY FULL`,
    changes: [many[0]!, { target: drift, native: drift }, ...many.slice(1)]
  },
  "a whole row is found by a key that only the target has": {
    source: "CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL",
    target: t,
    changes: [many[0]!, { target: drift, native: drift }, ...many.slice(1)]
  },
  "of a domain": {
    both: "CREATE DOMAIN d AS text CHECK (VALUE <> ''); CREATE TABLE t (id d PRIMARY KEY, v int)",
    changes: [
      "INSERT INTO t SELECT 'k' || n, n FROM generate_series(1, 50) AS n",
      "UPDATE t SET v = v + 1 WHERE v % 2 = 0",
      "DELETE FROM t WHERE v % 3 = 0"
    ]
  },
  "the identity changes between rows": {
    both: "CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL); CREATE UNIQUE INDEX i ON t (v)",
    changes: [
      "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
      "ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET v = 'c' WHERE id = 1",
      "ALTER TABLE t REPLICA IDENTITY USING INDEX i; UPDATE t SET id = 7 WHERE id = 1",
      "ALTER TABLE t REPLICA IDENTITY DEFAULT; UPDATE t SET v = 'q' WHERE id = 7; DELETE FROM t WHERE id = 2",
      "ALTER TABLE t REPLICA IDENTITY NOTHING; INSERT INTO t VALUES (9, 'n')"
    ],
    ends: "source"
  },
  "partitions that are published as their root": {
    source: `
      CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
      CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (30); CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (30) TO (1000);
      CREATE PUBLICATION published FOR ALL TABLES WITH (publish_via_partition_root)`,
    target: t,
    changes: [...many, "TRUNCATE t1", "INSERT INTO t VALUES (5, 'z')"]
  },
  "columns that are not published keep what the target gives them": {
    source: "CREATE PUBLICATION published FOR TABLE t (id, a)",
    both: "CREATE TABLE t (id int PRIMARY KEY, a text, b text DEFAULT 'd')",
    changes: ["INSERT INTO t VALUES (1, 'x', 'y')", "UPDATE t SET a = 'z'; UPDATE t SET id = 3"]
  },
  "unique expressions change hands": {
    both: `${t}; CREATE UNIQUE INDEX e ON t (lower(v))`,
    changes: [
      "INSERT INTO t VALUES (1, 'A'), (2, 'b')",
      "UPDATE t SET v = 'tmp' WHERE id = 1; UPDATE t SET v = 'a' WHERE id = 2; UPDATE t SET v = 'B' WHERE id = 1"
    ]
  },
  "ranges that exclude each other change hands": {
    both: "CREATE EXTENSION btree_gist; CREATE TABLE t (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&))",
    changes: [
      "INSERT INTO t VALUES (1, '[1,5)'), (2, '[5,9)')",
      "DELETE FROM t WHERE id = 2; UPDATE t SET r = '[5,9)' WHERE id = 1; INSERT INTO t VALUES (2, '[1,5)')"
    ]
  },
  "rows that the target lacks are made anew, and change their key": {
    both: t,
    settings: { "missing-row": "insert" },
    changes: [
      "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
      { target: "DELETE FROM t" },
      "UPDATE t SET id = 5, v = 'x' WHERE id = 1",
      "UPDATE t SET v = 'y' WHERE id = 2; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (2, 'again')",
      "UPDATE t SET id = 6 WHERE id = 5"
    ],
    ends: "source"
  }
})
