import { ddl, scenarios, stops } from "./Scenario.ts"

const key = `SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 't'::regclass ORDER BY 1`

scenarios("The key of the source's rows", {
  "is made when the source makes it, behind the rows": {
    both: "CREATE TABLE other (id int PRIMARY KEY)",
    changes: [
      { source: "CREATE TABLE t (id int, v text)", native: "CREATE TABLE t (id int, v text)" },
      "INSERT INTO t SELECT n, 'v' FROM generate_series(1, 50) AS n",
      { source: "ALTER TABLE t ADD PRIMARY KEY (id)", native: "ALTER TABLE t ADD PRIMARY KEY (id)" },
      "UPDATE t SET v = 'w' WHERE id % 2 = 0; DELETE FROM t WHERE id = 1"
    ],
    rows: { [key]: [["CREATE UNIQUE INDEX t_pkey ON public.t USING btree (id)"]] }
  },
  "is a unique index where the identity is one, and where the target has another key": {
    both: "CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, v text)",
    changes: [
      "INSERT INTO t SELECT n, n, 'v' FROM generate_series(1, 5) AS n",
      "CREATE UNIQUE INDEX by_code ON t (code); ALTER TABLE t REPLICA IDENTITY USING INDEX by_code; UPDATE t SET v = 'w' WHERE id = 2",
      "DELETE FROM t WHERE code = '3'"
    ],
    rows: {
      [key]: [
        ["CREATE UNIQUE INDEX t_code_idx ON public.t USING btree (code)"],
        ["CREATE UNIQUE INDEX t_pkey ON public.t USING btree (id)"]
      ]
    },
    ends: "source"
  },
  "stops where rows of the target have it twice": {
    both: "CREATE TABLE other (id int PRIMARY KEY)",
    source: "CREATE TABLE t (id int PRIMARY KEY, v text)",
    target: "CREATE TABLE t (id int, v text); INSERT INTO t VALUES (7, 'x'), (7, 'y')",
    changes: ["INSERT INTO t VALUES (1, 'v')"],
    ends: stops("SchemaRefused", {
      facts: { reason: /several rows that are here have the same "id"/, hint: /HAVING count\(\*\) > 1/ },
      remedies: [{ target: "DELETE FROM t", leads: "source" }]
    })
  },
  "is left to the operator under validate, with the statement": {
    both: "CREATE TABLE other (id int PRIMARY KEY)",
    source: "CREATE TABLE t (id int PRIMARY KEY, v text)",
    target: "CREATE TABLE t (id int, v text)",
    changes: ["INSERT INTO t VALUES (1, 'v')", "UPDATE t SET v = 'w'"],
    settings: { "schema-changes": "validate" },
    ends: "source",
    rows: { [key]: [] },
    warns: [/no unique index for the key of the source.*ALTER TABLE "public"."t" ADD PRIMARY KEY \("id"\)/]
  },
  "cannot be made on a partitioned table that is partitioned otherwise": {
    both: "CREATE TABLE other (id int PRIMARY KEY)",
    source: "CREATE TABLE t (id int PRIMARY KEY, v int)",
    target: "CREATE TABLE t (id int, v int) PARTITION BY LIST (v); CREATE TABLE rest PARTITION OF t DEFAULT",
    changes: ["INSERT INTO t VALUES (1, 1)", "UPDATE t SET v = 2"],
    ends: "goes on",
    rows: { "SELECT * FROM t": [["1", "2"]] },
    warns: [/The key of "public"."t" could not be made: feature not supported/]
  },
  "is not made of a new column in a table with rows": {
    both: "CREATE TABLE t (v text, n date)",
    source: "ALTER TABLE t REPLICA IDENTITY FULL",
    changes: [
      "INSERT INTO t VALUES ('x', NULL), ('y', NULL)",
      "ALTER TABLE t ADD uid uuid DEFAULT gen_random_uuid() PRIMARY KEY; ALTER TABLE t REPLICA IDENTITY DEFAULT; UPDATE t SET v = 'z' WHERE v = 'x'"
    ],
    ends: stops("SchemaRefused", { facts: { reason: /rows that are here need values in "uid"/ }, remedies: [] })
  },
  "is not made of a column that was added before without the source's values": {
    both: "CREATE TABLE t (v text, n date)",
    source: "ALTER TABLE t REPLICA IDENTITY FULL",
    changes: [
      "INSERT INTO t VALUES ('x', NULL), ('y', NULL)",
      "ALTER TABLE t ADD uid int; INSERT INTO t VALUES ('z', NULL, 3)",
      "CREATE SEQUENCE s; ALTER TABLE t ALTER uid TYPE int USING coalesce(uid, 7)",
      "DELETE FROM t WHERE v = 'y'; ALTER TABLE t ADD PRIMARY KEY (uid); ALTER TABLE t REPLICA IDENTITY DEFAULT; UPDATE t SET v = 'w' WHERE uid = 3"
    ],
    ends: stops("RowsUnfilled", { facts: { columns: ["uid"] }, remedies: [] })
  }
})

scenarios("Rows that are found by all their values", {
  "where a column was added with a default in the source": {
    both: "CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY FULL",
    changes: [
      "INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, NULL)",
      "ALTER TABLE t ADD c int DEFAULT 5; INSERT INTO t VALUES (4, 'z')",
      "DELETE FROM t WHERE a = 1",
      "UPDATE t SET b = 'w' WHERE a = 3"
    ],
    ends: stops("RowsUnfilled", {
      facts: { table: '"public"."t"', columns: ["c"], remedy: /UPDATE "public"."t" SET "c" = … WHERE "c" IS NULL/ },
      remedies: [{ target: "UPDATE t SET c = 5 WHERE c IS NULL" }]
    }),
    ways: [{ group: { transactions: 1 } }]
  },
  "in the transaction that adds it": {
    both: "CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY FULL",
    changes: [
      "INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, NULL)",
      "ALTER TABLE t ADD c int DEFAULT 5; DELETE FROM t WHERE a = 1"
    ],
    ends: stops("RowsUnfilled", {
      facts: { remedy: /INSERT INTO fluvio.decision .*ADD COLUMN "c" integer DEFAULT …/ },
      remedies: [
        {
          target: `INSERT INTO fluvio.decision SELECT topic, partition, record_offset, ARRAY['ALTER TABLE public.t ADD c int DEFAULT 5']
            FROM (SELECT topic, 0 AS partition, generate_series(0, 200) AS record_offset FROM fluvio.offset) AS every`
        }
      ]
    })
  },
  "which are missing for another reason": {
    both: "CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY FULL",
    changes: [
      "INSERT INTO t VALUES (1, 'x'), (2, 'y')",
      ddl("ALTER TABLE t ADD c int"),
      "INSERT INTO t VALUES (4, 'z', 4)",
      { target: "DELETE FROM t WHERE a = 4", native: "DELETE FROM t WHERE a = 4" },
      "DELETE FROM t WHERE a = 4; DELETE FROM t WHERE a = 1"
    ],
    warns: [/skipped/]
  }
})
