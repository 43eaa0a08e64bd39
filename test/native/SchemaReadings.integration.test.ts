import { type End, scenarios, stops } from "./Scenario.ts"

const full = { "schema-changes": "full" }

/** Stops with every reading; the end of each is given. */
const unclear = (...offers: ReadonlyArray<End>): End =>
  stops("SchemaRefused", {
    facts: { table: '"public"."t"', reason: /the stream does not tell what was done/, hint: /start again/ },
    offers
  })

const two = "CREATE TABLE t (id int PRIMARY KEY, a text)"
const contacts = "CREATE TABLE t (id date PRIMARY KEY, email text, name text)"
const people = "INSERT INTO t VALUES ('2026-01-01', 'e1', 'n1'), ('2026-01-02', 'e2', 'n2')"
const online = `ALTER TABLE t ADD email_new text; UPDATE t SET email_new = 'new ' || email;
  ALTER TABLE t DROP email; ALTER TABLE t RENAME email_new TO email; INSERT INTO t VALUES ('2026-01-03', 'n3', 'e3')`

scenarios("Changes that can be read in several ways", {
  "a rename and an added column in front of a kept one": {
    both: two,
    changes: [
      "INSERT INTO t VALUES (1, 'x')",
      "ALTER TABLE t RENAME a TO b; ALTER TABLE t ADD a text; INSERT INTO t VALUES (2, 'y', 'z')"
    ],
    ends: unclear("source", "goes on"),
    settings: full
  },
  "the same under additive, the default": {
    both: two,
    changes: [
      "INSERT INTO t VALUES (1, 'x')",
      "INSERT INTO t VALUES (3, 'before'); ALTER TABLE t RENAME a TO b; ALTER TABLE t ADD a text; INSERT INTO t VALUES (2, 'y', 'z')"
    ],
    ends: unclear("source", "goes on")
  },
  "a rename of the last column, with rows of either name in one transaction": {
    both: two,
    changes: [
      "INSERT INTO t VALUES (1, 'x'); ALTER TABLE t RENAME a TO b; UPDATE t SET b = 'y'; INSERT INTO t VALUES (2, 'z')"
    ],
    ends: unclear("source", "goes on")
  },
  "a column that was replaced online, in one transaction": {
    both: contacts,
    changes: [people, online],
    ends: unclear("source", "goes on", "goes on", "goes on", "goes on", "goes on")
  },
  "a column that was replaced online, in several transactions, and with another type": {
    both: "CREATE TABLE t (id date PRIMARY KEY, code int, name text)",
    changes: [
      "INSERT INTO t VALUES ('2026-01-01', 1, 'n1')",
      "ALTER TABLE t ADD code_new text; UPDATE t SET code_new = 'c' || code",
      "ALTER TABLE t DROP code",
      "ALTER TABLE t RENAME code_new TO code; INSERT INTO t VALUES ('2026-01-02', 'n2', 'c2')"
    ],
    settings: full,
    ends: stops("SchemaRefused", {
      facts: { reason: /"code" was integer and is text/ },
      offers: ["source", "goes on", "goes on", "goes on", "goes on"]
    })
  },
  "the last column, replaced online": {
    both: "CREATE TABLE t (id date PRIMARY KEY, name text, email text)",
    changes: [
      people.replaceAll("'e", "'x"),
      "ALTER TABLE t ADD email_new text; UPDATE t SET email_new = 'new'",
      "ALTER TABLE t DROP email; ALTER TABLE t RENAME email_new TO email; UPDATE t SET name = name || '!'"
    ],
    ends: unclear("goes on", "source", "goes on", "goes on")
  },
  "names that are handed on": {
    both: "CREATE TABLE t (id date PRIMARY KEY, a text, a_new text)",
    changes: [
      "INSERT INTO t VALUES ('2026-01-01', 'a', 'new')",
      "ALTER TABLE t RENAME a TO a_old; ALTER TABLE t RENAME a_new TO a; INSERT INTO t VALUES ('2026-01-02', 'b', 'c')"
    ],
    settings: full,
    ends: unclear("source", "goes on", "goes on", "goes on")
  },
  "a type of the last column, or another column of its name": {
    both: two,
    changes: [
      "INSERT INTO t VALUES (1, '7')",
      "ALTER TABLE t ALTER a TYPE int USING a::int; INSERT INTO t VALUES (2, 8)"
    ],
    ends: unclear("source", "goes on")
  },
  "statements run by hand that show what was done": {
    both: two,
    changes: ["INSERT INTO t VALUES (1, 'x')", "ALTER TABLE t RENAME a TO b; INSERT INTO t VALUES (2, 'y')"],
    ends: stops("SchemaRefused", { remedies: [{ target: "ALTER TABLE t RENAME a TO b" }] })
  },
  "columns that are kept, as a native subscriber does": {
    both: contacts,
    changes: [
      people,
      online.replace(
        "ALTER TABLE t ADD email_new text; UPDATE t SET email_new = 'new ' || email;",
        "ALTER TABLE t ADD email_new text;"
      )
    ],
    settings: { "unclear-changes": "keep" },
    warns: [/the columns stay as they are, although its columns were .* The readings: .* OR /]
  },
  "a table without rows, which has nothing to lose": {
    both: two,
    changes: [
      "INSERT INTO t VALUES (1, 'x')",
      "DELETE FROM t",
      "ALTER TABLE t RENAME a TO b; INSERT INTO t VALUES (2, 'y')"
    ],
    settings: full,
    ends: "source"
  }
})

scenarios("Columns that the stream no longer shows", {
  "stay under additive": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a text, b date)",
    changes: [
      "INSERT INTO t VALUES (1, 'x', '2026-01-01')",
      { source: "ALTER TABLE t DROP b" },
      "INSERT INTO t VALUES (2, 'y')"
    ],
    rows: {
      "SELECT id, a, b FROM t ORDER BY id": [
        ["1", "x", "2026-01-01"],
        ["2", "y", null]
      ]
    },
    warns: [/the source no longer shows "b"; it stays here/]
  },
  "stay when the publication's column list is narrowed": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a text, b date)",
    source: "CREATE PUBLICATION published FOR TABLE t",
    changes: [
      "INSERT INTO t VALUES (1, 'x', '2026-01-01')",
      "ALTER PUBLICATION published SET TABLE t (id, a)",
      "INSERT INTO t VALUES (2, 'y')"
    ]
  },
  "stop where they may not be NULL": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a text, b date NOT NULL)",
    changes: ["INSERT INTO t VALUES (1, 'x', '2026-01-01')", "ALTER TABLE t DROP b; INSERT INTO t VALUES (2, 'y')"],
    ends: stops("SchemaRefused", { facts: { reason: /a row must have a value in "b"/ }, offers: ["source", "source"] })
  },
  "stop where they are the target's key": {
    both: "CREATE TABLE t (a text, b date, id int PRIMARY KEY)",
    changes: [
      "INSERT INTO t VALUES ('x', '2026-01-01', 1)",
      "ALTER TABLE t DROP id; INSERT INTO t VALUES ('y', '2026-01-02')"
    ],
    ends: stops("SchemaRefused", { facts: { reason: /a row must have a value in "id"/ }, offers: ["source"] })
  }
})

const filled = "CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'old')"

scenarios("Columns that moved before the first description", {
  "a rename and an added column of the old name": {
    both: filled,
    changes: ["ALTER TABLE t RENAME a TO b; ALTER TABLE t ADD a text; INSERT INTO t VALUES (2, 'b', 'a')"],
    ends: stops("SchemaRefused", { facts: { reason: /first description/ }, offers: ["goes on", "source"] })
  },
  "the same in front of a column that stays": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a text, n date); INSERT INTO t VALUES (1, 'old', NULL)",
    changes: ["ALTER TABLE t RENAME a TO b; ALTER TABLE t ADD a text; INSERT INTO t VALUES (2, 'b', NULL, 'a')"],
    settings: full,
    ends: stops("SchemaRefused", { facts: { reason: /first description/ }, offers: ["goes on", "source"] })
  },
  "a rename": {
    both: filled,
    changes: ["ALTER TABLE t RENAME a TO b; INSERT INTO t VALUES (2, 'b')"],
    ends: stops("SchemaRefused", { facts: { reason: /first description/ }, offers: ["goes on", "source"] })
  },
  "an added column, which is new": {
    both: filled,
    changes: ["ALTER TABLE t ADD b text; INSERT INTO t VALUES (2, 'a', 'b')"],
    ends: "source"
  }
})

scenarios("Changes under additive that alter what exists", {
  "a rename": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a text, b date)",
    changes: [
      "INSERT INTO t VALUES (1, 'x', '2026-01-01')",
      "INSERT INTO t VALUES (2, 'y', NULL); ALTER TABLE t RENAME a TO c; INSERT INTO t VALUES (3, 'z', NULL)"
    ],
    ends: stops("SchemaRefused", {
      facts: { reason: /alters what the target has/ },
      offers: ["source"],
      remedies: [{ settings: full }]
    })
  },
  "a type": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a int, b date)",
    changes: [
      "INSERT INTO t VALUES (1, 1, NULL)",
      "ALTER TABLE t ALTER a TYPE bigint; INSERT INTO t VALUES (2, 5000000000, NULL)"
    ],
    ends: stops("SchemaRefused", { offers: ["source"] })
  },
  "a table's name": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a int)",
    changes: ["INSERT INTO t VALUES (1, 1)", "ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (2, 2)"],
    ends: stops("SchemaRefused", { offers: ["source"] })
  }
})

scenarios("Generated columns of the target", {
  "that the source has values for": {
    both: "CREATE TABLE other (id int PRIMARY KEY)",
    source: "CREATE TABLE t (id int PRIMARY KEY, a int, b int)",
    target: "CREATE TABLE t (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED)",
    changes: ["INSERT INTO t VALUES (1, 1, 5)"],
    ends: stops("SchemaRefused", {
      facts: { reason: /"b", which the target generates/ },
      remedies: [
        { settings: { tables: { columns: { "public.t": { exclude: ["b"] } } } }, leads: "goes on" },
        { target: "ALTER TABLE t ALTER b DROP EXPRESSION" }
      ]
    })
  }
})

scenarios("Statements of schema changes that fail", {
  "for what depends on the column": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a text, b date)",
    target: "CREATE VIEW seen AS SELECT a FROM t",
    changes: ["INSERT INTO t VALUES (1, 'x', NULL)", "ALTER TABLE t ALTER a TYPE varchar(9); UPDATE t SET a = 'y'"],
    settings: full,
    ends: stops("ApplyFailed", {
      facts: {
        message:
          /SQLSTATE 0A000.*in: ALTER TABLE "public"."t" ALTER COLUMN "a" TYPE character varying\(9\).*view public.seen/,
        remedy: /change or drop rule _RETURN on view public.seen/
      },
      remedies: [{ target: "DROP VIEW seen" }]
    })
  },
  "when the column is dropped": {
    both: "CREATE TABLE t (id int PRIMARY KEY, a text, b date)",
    target: "CREATE VIEW seen AS SELECT a FROM t",
    changes: ["INSERT INTO t VALUES (1, 'x', NULL)", "ALTER TABLE t DROP a; UPDATE t SET b = '2026-01-01'"],
    settings: full,
    ends: stops("ApplyFailed", {
      facts: { message: /SQLSTATE 2BP01.*view public.seen/ },
      remedies: [{ target: "DROP VIEW seen" }]
    })
  }
})
