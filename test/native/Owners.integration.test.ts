import { ddl, scenarios, stops } from "./Scenario.ts"

const full = { "schema-changes": "full" }
const t = "CREATE TABLE t (id int PRIMARY KEY, v text)"

/** The reading is not what happened: the rows of the old table are gone when it is described again. */
const oldRowsGone = stops("SchemaRefused", {
  facts: { table: '"public"."t_old"', reason: /rows were applied to it before/ },
  offers: ["goes on"]
})

const nameTaken = /is called public\.t now, and the target's table has the rows of relation \d+, .* dropped or renamed/

scenarios("A name that another table has come to have", {
  "of a table that was renamed, and is written to later": {
    both: t,
    changes: [
      "INSERT INTO t VALUES (1, 'old'), (2, 'old')",
      "ALTER TABLE t RENAME TO t_old; CREATE TABLE t (id int PRIMARY KEY, w int); INSERT INTO t VALUES (1, 10)",
      "UPDATE t_old SET v = 'older' WHERE id = 1; INSERT INTO t VALUES (2, 20)",
      "DELETE FROM t_old WHERE id = 2"
    ],
    settings: full,
    ends: stops("SchemaRefused", {
      facts: { table: '"public"."t"', reason: nameTaken, remedy: /SELECT \d+::regclass/ },
      offers: [oldRowsGone, "source"]
    })
  },
  "of a table that was renamed, where nothing is altered by itself": {
    both: t,
    changes: [
      "INSERT INTO t VALUES (1, 'old')",
      "ALTER TABLE t RENAME TO t_old; CREATE TABLE t (id int PRIMARY KEY, w int); INSERT INTO t VALUES (1, 10)",
      "UPDATE t_old SET v = 'older'"
    ],
    ends: stops("SchemaRefused", {
      offers: [
        stops("SchemaRefused", { facts: { reason: /rows were applied/ }, offers: ["goes on"] }),
        stops("SchemaRefused", { facts: { table: '"public"."t_old"' }, offers: ["source"] })
      ]
    })
  },
  "of a table that was moved to another schema": {
    both: t,
    changes: [
      "INSERT INTO t VALUES (1, 'old')",
      `CREATE SCHEMA attic; ALTER TABLE t SET SCHEMA attic; ${t}; INSERT INTO t VALUES (1, 'new')`,
      "DELETE FROM attic.t; INSERT INTO attic.t VALUES (5, 'old')"
    ],
    settings: full,
    ends: stops("SchemaRefused", {
      facts: { reason: nameTaken },
      offers: [stops("SchemaRefused", { facts: { reason: /rows were applied/ }, offers: ["goes on"] }), "source"]
    })
  },
  "of a table that was dropped": {
    both: t,
    changes: [
      "INSERT INTO t VALUES (1, 'old')",
      "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, w int); INSERT INTO t VALUES (1, 10)",
      "UPDATE t SET w = 11"
    ],
    ends: stops("SchemaRefused", { facts: { reason: nameTaken }, offers: ["source", "source"] })
  },
  "of a table that was made and dropped in the same transaction": {
    both: "CREATE TABLE other (id int PRIMARY KEY)",
    changes: [
      "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (2, 'v')"
    ],
    ends: stops("SchemaRefused", { facts: { reason: nameTaken }, offers: ["source", "source"] })
  },
  "in the transaction that writes to both": {
    both: t,
    changes: [
      "INSERT INTO t VALUES (1, 'old')",
      `INSERT INTO t VALUES (2, 'old'); ALTER TABLE t RENAME TO t_old; ${t}; INSERT INTO t VALUES (3, 'new'); DELETE FROM t_old WHERE id = 1`
    ],
    settings: full,
    ends: stops("SchemaRefused", { facts: { reason: nameTaken }, offers: [oldRowsGone, "source"] })
  },
  "by a table that replaces it, which is dropped": {
    both: `${t}; CREATE TABLE t_new (id bigint PRIMARY KEY, v text)`,
    changes: [
      "INSERT INTO t VALUES (1, 'x'), (2, 'x'); INSERT INTO t_new SELECT * FROM t",
      "ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t; DROP TABLE t_old; INSERT INTO t VALUES (3, 'x')"
    ],
    settings: full,
    ends: stops("SchemaRefused", { facts: { reason: nameTaken }, offers: ["source", "source"] })
  },
  "by a swap of two tables": {
    both: `${t}; CREATE TABLE u (id int PRIMARY KEY, v text)`,
    changes: [
      "INSERT INTO t VALUES (1, 't'); INSERT INTO u VALUES (2, 'u')",
      "ALTER TABLE t RENAME TO swap; ALTER TABLE u RENAME TO t; ALTER TABLE swap RENAME TO u",
      "INSERT INTO t VALUES (3, 'was u'); INSERT INTO u VALUES (4, 'was t')",
      "ALTER TABLE t RENAME TO swap; ALTER TABLE u RENAME TO t; ALTER TABLE swap RENAME TO u; DELETE FROM t WHERE id = 1; INSERT INTO u VALUES (5, 'u')"
    ],
    settings: full,
    ways: [{}, { group: { transactions: 1 } }],
    ends: stops("SchemaRefused", {
      facts: { reason: nameTaken },
      offers: [
        stops("SchemaRefused", { facts: { reason: /rows were applied/ }, remedies: [] }),
        stops("SchemaRefused", {
          facts: { reason: nameTaken },
          offers: [stops("SchemaRefused", { facts: { reason: /rows were applied/ }, remedies: [] }), "source"]
        })
      ]
    })
  },
  "which only one of them has at a time, as a subscriber sees it": {
    both: t,
    changes: [
      "INSERT INTO t VALUES (1, 'old')",
      `ALTER TABLE t RENAME TO t_old; ${t}; INSERT INTO t VALUES (2, 'new')`,
      "UPDATE t SET v = 'newer'"
    ],
    settings: { "unclear-changes": "keep" },
    warns: [nameTaken]
  },
  "and nothing is changed here, as a subscriber sees it": {
    both: t,
    changes: ["INSERT INTO t VALUES (1, 'old')", `DROP TABLE t; ${t}; INSERT INTO t VALUES (2, 'new')`],
    settings: { "schema-changes": "none" },
    warns: [nameTaken]
  }
})

const users = "CREATE TABLE users (id int PRIMARY KEY, name text, ssn text)"
const tables = (settings: object) => ({ ...full, tables: settings })

scenarios("A table that the source renames while a setting names it", {
  "in tables.include": {
    both: t,
    changes: ["INSERT INTO t VALUES (1, 'x')", "ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (2, 'x')"],
    settings: tables({ include: ["public.t"] }),
    ends: stops("SchemaRefused", {
      facts: { reason: /renamed public\.t, which is applied, to public\.u, which `tables\.include` leaves out/ },
      offers: ["goes on"],
      remedies: [{ settings: tables({ include: ["public.t", "public.u"] }), leads: "source" }]
    })
  },
  "in tables.exclude, which it no longer is": {
    both: t,
    changes: ["INSERT INTO t VALUES (1, 'x')", "ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (2, 'x')"],
    settings: tables({ exclude: ["public.t"] }),
    ends: stops("SchemaRefused", {
      facts: { reason: /public\.t, which `tables\.exclude` leaves out, to public\.u, which is applied/ },
      remedies: [{ settings: tables({ exclude: ["public.t", "public.u"] }), leads: "goes on" }]
    }),
    rows: { "SELECT to_regclass('u')": [[null]] }
  },
  "in tables.map": {
    both: `${t}; CREATE SCHEMA copy`,
    target: "ALTER TABLE t SET SCHEMA copy",
    native: "ALTER TABLE copy.t SET SCHEMA public",
    changes: [
      "INSERT INTO t VALUES (1, 'x')",
      "ALTER TABLE t RENAME TO u; ALTER TABLE u ADD w int; INSERT INTO u VALUES (2, 'x', 3)"
    ],
    settings: tables({ map: { "public.t": "copy.t" } }),
    ends: stops("SchemaRefused", {
      facts: { reason: /`tables\.map` names public\.t: the rows would go from copy\.t to public\.u/ },
      offers: ["source"],
      remedies: [{ settings: tables({ map: { "public.t": "copy.t", "public.u": "copy.t" } }), leads: "goes on" }]
    })
  },
  "by the schema that it leaves": {
    both: `CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY)`,
    target: "ALTER SCHEMA app RENAME TO copy",
    changes: ["INSERT INTO app.t VALUES (1)", "ALTER TABLE app.t SET SCHEMA public; INSERT INTO t VALUES (2)"],
    settings: tables({ map: { app: "copy" } }),
    ends: stops("SchemaRefused", { facts: { reason: /`tables\.map` names app/ }, offers: ["source"] })
  },
  "in tables.columns": {
    source: users,
    target: "CREATE TABLE users (id int PRIMARY KEY, name text)",
    changes: [
      "INSERT INTO users VALUES (1, 'n', '078-05-1120')",
      "ALTER TABLE users RENAME TO accounts; INSERT INTO accounts VALUES (2, 'n', '078-05-1120')"
    ],
    settings: tables({ columns: { "public.users": { exclude: ["ssn"] } } }),
    ends: stops("SchemaRefused", {
      facts: { reason: /`tables\.columns` says something else of "ssn"/ },
      remedies: [
        {
          settings: tables({
            columns: { "public.users": { exclude: ["ssn"] }, "public.accounts": { exclude: ["ssn"] } }
          }),
          leads: "goes on"
        }
      ]
    }),
    rows: {
      "SELECT * FROM accounts ORDER BY id": [
        ["1", "n"],
        ["2", "n"]
      ]
    }
  },
  "and nothing is asked where the operator has changed the settings": {
    both: t,
    changes: ["INSERT INTO t VALUES (1, 'x')", ddl("ALTER TABLE t ADD w int"), "INSERT INTO t VALUES (2, 'x', 3)"],
    settings: tables({ include: ["public.*"] }),
    ends: "native"
  }
})

const shards = "CREATE TABLE low (id int PRIMARY KEY, v text); CREATE TABLE high (id int PRIMARY KEY, v text)"
const intoOne = (more: object = {}) => ({
  ...full,
  tables: { map: { "public.low": "public.shards", "public.high": "public.shards" } },
  ...more
})
const filled = "INSERT INTO low VALUES (1, 'low'), (2, 'low'); INSERT INTO high VALUES (10, 'high')"

scenarios("A table that is several of the source's", {
  "takes the rows of each, and their new columns": {
    source: shards,
    changes: [
      filled,
      "UPDATE low SET v = 'x' WHERE id = 1; DELETE FROM low WHERE id = 2",
      "ALTER TABLE high ADD w int; INSERT INTO high VALUES (11, 'high', 1); INSERT INTO low VALUES (3, 'low')"
    ],
    settings: intoOne(),
    ends: "goes on",
    rows: {
      "SELECT * FROM shards ORDER BY id": [
        ["1", "x", null],
        ["3", "low", null],
        ["10", "high", null],
        ["11", "high", "1"]
      ]
    }
  },
  "is emptied when all of them are": {
    source: shards,
    changes: [filled, "TRUNCATE low, high; INSERT INTO low VALUES (5, 'low')"],
    settings: intoOne(),
    ends: "goes on",
    rows: { "SELECT * FROM shards": [["5", "low"]] }
  },
  "is not emptied for one of them": {
    source: `${shards}; CREATE TABLE alone (id int PRIMARY KEY)`,
    changes: [
      `${filled}; INSERT INTO alone VALUES (1)`,
      "INSERT INTO low VALUES (3, 'low'); TRUNCATE low, alone; INSERT INTO low VALUES (4, 'low')"
    ],
    settings: intoOne(),
    ends: stops("SchemaRefused", {
      facts: { table: "public.low", reason: /emptied public\.low, and the rows of public\.high are in the same table/ },
      offers: ["goes on", "goes on"]
    }),
    rows: { "SELECT * FROM alone": [], "SELECT id FROM shards WHERE id = 4": [["4"]] }
  },
  "keeps a column that one of them has dropped": {
    source: shards,
    changes: [filled, "ALTER TABLE low DROP v; INSERT INTO low VALUES (3)", "UPDATE high SET v = 'x'"],
    settings: intoOne(),
    ends: stops("SchemaRefused", {
      facts: { table: '"public"."shards"', reason: /altered public\.low, and .* the rows of public\.high too/ },
      offers: [stops("SchemaRefused", { facts: { reason: /lacks "v"/ }, remedies: [] }), "goes on"]
    })
  },
  "loses a column that all of them have dropped": {
    source: shards,
    changes: [
      filled,
      "ALTER TABLE low DROP v; ALTER TABLE high DROP v; INSERT INTO low VALUES (3); INSERT INTO high VALUES (11)"
    ],
    settings: intoOne(),
    ends: stops("SchemaRefused", {
      offers: ["goes on", stops("SchemaRefused", { offers: ["goes on", "goes on"] })]
    })
  },
  "is not renamed with a schema of one of them": {
    both: "CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.t (id int PRIMARY KEY, v int); CREATE TABLE two.t (id int PRIMARY KEY, v int)",
    changes: [
      "INSERT INTO one.t VALUES (1, 1); INSERT INTO two.t VALUES (2, 2)",
      "ALTER TABLE one.t RENAME TO u; INSERT INTO one.u VALUES (3, 3)"
    ],
    settings: { ...full, tables: { map: { one: "both", two: "both" } } },
    ends: stops("SchemaRefused", { facts: { reason: /altered one\.u, and .* of two\.t too/ }, remedies: [] })
  },
  "keeps a column's name and type when one of them changes it": {
    source:
      "CREATE TABLE low (id int PRIMARY KEY, v text, n int, z int); CREATE TABLE high (id int PRIMARY KEY, v text, n int, z int)",
    changes: [
      "INSERT INTO low VALUES (1, 'low', 1, 1); INSERT INTO high VALUES (10, 'high', 1, 1)",
      "ALTER TABLE low ALTER n TYPE bigint; INSERT INTO low VALUES (2, 'low', 2, 2)"
    ],
    settings: intoOne(),
    ends: stops("SchemaRefused", { facts: { reason: /altered public\.low/ }, offers: ["goes on", "goes on"] })
  }
})

scenarios("A truncate", {
  "of tables that refer to each other, with its sequences": {
    both: "CREATE TABLE parent (id serial PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)",
    changes: [
      "INSERT INTO parent VALUES (DEFAULT); INSERT INTO child VALUES (1, 1)",
      "TRUNCATE parent RESTART IDENTITY CASCADE; INSERT INTO parent VALUES (DEFAULT)"
    ]
  },
  "of a table to which one of the target's refers, as a subscription stops": {
    both: "CREATE TABLE parent (id int PRIMARY KEY)",
    target:
      "CREATE TABLE beyond (id int PRIMARY KEY, parent int REFERENCES parent); INSERT INTO beyond VALUES (1, NULL)",
    changes: ["INSERT INTO parent VALUES (1)", "TRUNCATE parent CASCADE"],
    ends: stops("ApplyFailed", {
      facts: { message: /a table that is not emptied with it refers to it/, remedy: /pg_constraint/ },
      remedies: [
        { target: "ALTER TABLE beyond DROP CONSTRAINT beyond_parent_fkey", leads: "source" },
        { settings: { "truncate-cascade": "as-source" }, leads: "source" }
      ]
    })
  },
  "of partitions and of the whole": {
    both: `CREATE TABLE log (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
      CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (10) TO (20)`,
    changes: [
      "INSERT INTO log VALUES (1), (11)",
      "TRUNCATE log_1",
      "INSERT INTO log VALUES (2)",
      "TRUNCATE log; INSERT INTO log VALUES (12)"
    ]
  },
  "of partitions that are one table here": {
    source: `CREATE TABLE log (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
      CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (10) TO (20)`,
    target: "CREATE TABLE log (id int PRIMARY KEY)",
    native: "",
    changes: ["INSERT INTO log VALUES (1), (11)", "TRUNCATE log; INSERT INTO log VALUES (2), (12)"],
    settings: { tables: { map: { "public.log_1": "public.log", "public.log_2": "public.log" } } },
    ends: "goes on",
    rows: { "SELECT * FROM log ORDER BY id": [["2"], ["12"]] }
  }
})
