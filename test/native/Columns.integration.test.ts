import { ddl, scenarios, stops } from "./Scenario.ts"

scenarios("Added columns", {
  "rows before and after": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a text)",
    changes: [
      "INSERT INTO t VALUES (1, 'x'), (2, 'x')",
      ddl("ALTER TABLE t ADD b int"),
      "INSERT INTO t VALUES (3, 'x', 3); UPDATE t SET b = 1 WHERE id = 1"
    ]
  },
  "in a table without key": {
    both: "CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY FULL",
    changes: [
      "INSERT INTO t VALUES (1, 'x'), (1, 'x'), (NULL, NULL)",
      "DELETE FROM t WHERE ctid = '(0,1)'; UPDATE t SET b = 'y' WHERE a IS NULL"
    ]
  },
  "a table that is created and filled at once": {
    both: "CREATE TABLE other (id int PRIMARY KEY)",
    changes: [
      ddl("CREATE TABLE made (a int, b int, PRIMARY KEY (b, a))"),
      "INSERT INTO made VALUES (1, 2), (2, 3); DELETE FROM made WHERE a = 1"
    ]
  },
  "under validate they stop with the statement": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a text)",
    changes: ["INSERT INTO t VALUES (1, 'x')", "ALTER TABLE t ADD b int; INSERT INTO t VALUES (2, 'x', 2)"],
    settings: { "schema-changes": "validate" },
    ends: stops("SchemaRefused", {
      facts: { table: '"public"."t"', message: /ADD COLUMN|does not fit/ },
      offers: ["source"]
    })
  },
  "row by hand": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a text)",
    changes: [
      "INSERT INTO t VALUES (1, 'x'), (2, 'x')",
      { target: "DELETE FROM t WHERE id = 2", native: "DELETE FROM t WHERE id = 2" },
      "UPDATE t SET a = 'y'"
    ],
    warns: [/skipped/]
  }
})
