import { oneByOne, owner, scenarios, stops, streamed, together } from "./Scenario.ts"

const family = (actions: string) => `
  CREATE TABLE parents (id int PRIMARY KEY, v text);
  CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ${actions}, v text)`

const filled = `
  INSERT INTO parents VALUES (1, 'a'), (2, 'b'), (3, 'c');
  INSERT INTO children VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'z')`

/** A trigger of the target's own, so that every change is a statement. */
const watched = (table: string) => `
  CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
  CREATE TRIGGER watch AFTER INSERT OR UPDATE OR DELETE ON ${table} FOR EACH ROW EXECUTE FUNCTION watch()`

const strict = { "missing-row": "halt" }

scenarios("With foreign keys at work, what the source's allowed goes through:", {
  "a deferrable key that the source deferred": {
    both: family("DEFERRABLE"),
    role: owner,
    settings: strict,
    changes: [
      `BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO children VALUES (1, 1, 'x'); INSERT INTO parents VALUES (1, 'a'); COMMIT`,
      `BEGIN; SET CONSTRAINTS ALL DEFERRED; DELETE FROM parents; UPDATE children SET v = 'y'; DELETE FROM children; COMMIT`
    ]
  },
  "rows of one statement that refer to each other": {
    both: "CREATE TABLE people (id int PRIMARY KEY, boss int REFERENCES people, v text)",
    role: owner,
    settings: strict,
    ways: [together, oneByOne],
    changes: [
      "INSERT INTO people VALUES (1, 3, 'a'), (2, 1, 'b'), (3, NULL, 'c'), (4, 4, 'd')",
      "UPDATE people SET v = 'e' WHERE id = 1; INSERT INTO people VALUES (5, 6), (6, 5)",
      "UPDATE people SET id = id + 10, boss = boss + 10",
      "DELETE FROM people"
    ]
  },
  "the same where a trigger sees every row": {
    both: "CREATE TABLE people (id int PRIMARY KEY, boss int REFERENCES people)",
    target: watched("people"),
    role: owner,
    ways: [together, oneByOne],
    changes: ["INSERT INTO people VALUES (1, 3), (2, 1), (3, NULL)", "INSERT INTO people VALUES (4, 5), (5, 4)"]
  },
  "tables that one statement fills, the child first": {
    both: family(""),
    role: owner,
    ways: [together, oneByOne],
    changes: [filled, "WITH p AS (INSERT INTO parents VALUES (4, 'd')) INSERT INTO children VALUES (4, 4, 'x')"]
  },
  "ON DELETE CASCADE on both sides": {
    both: `${family("ON DELETE CASCADE")}; CREATE TABLE toys (id int PRIMARY KEY, child int REFERENCES children ON DELETE CASCADE)`,
    role: owner,
    settings: strict,
    changes: [
      filled,
      "INSERT INTO toys VALUES (1, 1), (2, 3)",
      "DELETE FROM parents WHERE id = 1",
      "UPDATE parents SET v = 'd' WHERE id = 2; DELETE FROM parents"
    ]
  },
  "ON DELETE CASCADE where a trigger sees every row": {
    both: family("ON DELETE CASCADE"),
    target: watched("children"),
    role: owner,
    settings: strict,
    changes: [filled, "DELETE FROM parents WHERE id = 1", "DELETE FROM parents"]
  },
  "ON DELETE SET NULL on both sides": {
    both: family("ON DELETE SET NULL"),
    role: owner,
    settings: strict,
    changes: [filled, "DELETE FROM parents WHERE id = 1", "DELETE FROM parents; DELETE FROM children WHERE id = 2"]
  },
  "ON UPDATE CASCADE of a key that is part of another": {
    both: `CREATE TABLE orders (id int PRIMARY KEY);
      CREATE TABLE lines (id int REFERENCES orders ON UPDATE CASCADE ON DELETE CASCADE, line int, v text, PRIMARY KEY (id, line))`,
    role: owner,
    settings: strict,
    changes: [
      "INSERT INTO orders VALUES (1), (2); INSERT INTO lines VALUES (1, 1, 'a'), (1, 2, 'b'), (2, 1, 'c')",
      "UPDATE orders SET id = id + 10; UPDATE lines SET v = 'd' WHERE line = 1",
      "DELETE FROM orders WHERE id = 11"
    ]
  },
  "a key that cannot be deferred, in the order of the source": {
    both: family(""),
    role: owner,
    settings: strict,
    ways: [together, oneByOne, streamed],
    changes: [
      filled,
      "INSERT INTO parents VALUES (4, 'd'); UPDATE children SET parent = 4 WHERE parent = 1; DELETE FROM parents WHERE id = 1",
      "DELETE FROM children WHERE parent = 2; DELETE FROM parents WHERE id = 2; INSERT INTO parents VALUES (2, 'again')"
    ]
  },
  "and what no source's could have is refused": {
    both: family("DEFERRABLE"),
    target: "INSERT INTO parents VALUES (9, 'mine')",
    role: owner,
    settings: strict,
    changes: [
      "INSERT INTO parents VALUES (1, 'a'); INSERT INTO children VALUES (1, 1, 'x')",
      { target: "DELETE FROM children; DELETE FROM parents WHERE id = 1" },
      "INSERT INTO children VALUES (2, 1, 'y')"
    ],
    ends: stops("ApplyFailed", {
      facts: { message: /children_parent_fkey/ },
      remedies: [{ target: "INSERT INTO parents VALUES (1, 'a')", leads: "goes on" }]
    })
  }
})

const identities = (extra = "") => `
  CREATE TABLE parents (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v text)${extra}`

const cascading = "; CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE)"

const numbered = [
  "INSERT INTO parents (id, v) VALUES (1, 'a'), (2, 'b'), (3, NULL)",
  "UPDATE parents SET v = 'c' WHERE id < 3; UPDATE parents SET id = 4 WHERE id = 2",
  "UPDATE parents SET v = v; UPDATE parents SET v = 'd' WHERE id = 1"
]

/** What a trigger in the target saw, a native subscriber's as well. */
const audited = `
  CREATE TABLE audit (what text);
  CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
    AS $$BEGIN INSERT INTO public.audit VALUES (TG_OP || coalesce(NEW.id, OLD.id)); RETURN NULL; END$$;
  CREATE TRIGGER note AFTER INSERT OR DELETE OR UPDATE OF id ON parents FOR EACH ROW EXECUTE FUNCTION note();
  ALTER TABLE parents ENABLE ALWAYS TRIGGER note`

scenarios("An update of a table with an ALWAYS identity", {
  "is one": { both: identities(), changes: numbered },
  "leaves the rows alone that refer to it": {
    both: identities(cascading),
    role: owner,
    changes: [
      ...numbered.slice(0, 1),
      "INSERT INTO children VALUES (1, 1), (2, 2)",
      numbered[1].split(";")[0]!,
      numbered[2]!
    ]
  },
  "is one for triggers": { both: identities(), target: audited, changes: numbered },
  "that changes the identity puts the row in anew": {
    both: identities("; CREATE TABLE keyed (n int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)"),
    changes: [
      "INSERT INTO parents (id, v) VALUES (1, 'a'), (2, 'b'); INSERT INTO keyed (v) VALUES ('a'), ('b')",
      "UPDATE parents SET n = DEFAULT, v = 'c' WHERE id = 1; UPDATE keyed SET n = DEFAULT WHERE v = 'a'"
    ]
  },
  "that changes the identity stops where a trigger would see that": {
    both: identities(),
    target: audited,
    changes: [numbered[0]!, "UPDATE parents SET n = DEFAULT WHERE id = 1"],
    ends: stops("IdentityFixed", {
      facts: {
        table: "public.parents",
        remedy: /ALTER TABLE "public"."parents" ALTER COLUMN "n" SET GENERATED BY DEFAULT/
      },
      remedies: [
        { target: `ALTER TABLE "public"."parents" ALTER COLUMN "n" SET GENERATED BY DEFAULT`, leads: "native" }
      ]
    })
  },
  "that changes the identity stops where a foreign key would see that": {
    both: `${identities()}; CREATE TABLE keyed (n int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
      CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES keyed ON DELETE CASCADE ON UPDATE CASCADE)`,
    role: owner,
    changes: ["INSERT INTO keyed DEFAULT VALUES; INSERT INTO children VALUES (1, 1)", "UPDATE keyed SET n = DEFAULT"],
    ends: stops("IdentityFixed", {
      facts: { table: "public.keyed" },
      remedies: [{ target: `ALTER TABLE "public"."keyed" ALTER COLUMN "n" SET GENERATED BY DEFAULT`, leads: "native" }]
    })
  },
  "is one for a trigger on a column that it sets to what it was": {
    both: "CREATE TABLE parents (id int PRIMARY KEY)",
    target: audited,
    changes: ["INSERT INTO parents VALUES (1), (2)", "UPDATE parents SET id = id", "DELETE FROM parents WHERE id = 2"]
  }
})

const coded = "CREATE TABLE t (id int PRIMARY KEY, code text UNIQUE, v text)"

const policies = ["update", "skip"] as const

scenarios("Under existing-row", {
  ...Object.fromEntries(
    policies.flatMap((policy) => [
      [
        `${policy}, a collision under another index than the key stops`,
        {
          both: coded,
          target: "INSERT INTO t VALUES (5, 'b', 'mine')",
          settings: { "existing-row": policy },
          changes: ["INSERT INTO t VALUES (1, 'a', 'x')", "INSERT INTO t VALUES (2, 'b', 'y')"],
          ends: stops("ApplyFailed", {
            facts: { failure: { sqlState: "23505", constraint: "t_code_key" } },
            remedies: [{ target: "DELETE FROM t WHERE id = 5" }]
          })
        }
      ],
      ...[
        {
          how: "deferrable",
          columns: "id int PRIMARY KEY DEFERRABLE, v text",
          reason: /DEFERRABLE/,
          statement: `ALTER TABLE "public"."t" DROP CONSTRAINT "t_pkey", ADD PRIMARY KEY ("id");`
        },
        {
          how: "a deferrable constraint",
          columns: "id int NOT NULL, v text, CONSTRAINT u UNIQUE (id) DEFERRABLE, UNIQUE (id)",
          reason: /DEFERRABLE/,
          statement: `ALTER TABLE "public"."t" DROP CONSTRAINT "u", ADD UNIQUE ("id");`
        },
        {
          how: "missing",
          columns: "id int, v text",
          reason: /no unique index/,
          statement: `CREATE UNIQUE INDEX ON "public"."t" ("id");`
        }
      ].map(({ columns, how, reason, statement }) => [
        `${policy}, a key that is ${how} in the target stops`,
        {
          source: "CREATE TABLE t (id int PRIMARY KEY, v text)",
          target: `CREATE TABLE t (${columns}); INSERT INTO t VALUES (1, 'mine')`,
          // Otherwise a missing key would be made.
          settings: { "existing-row": policy, "schema-changes": "validate" },
          changes: ["INSERT INTO t VALUES (1, 'x')", "UPDATE t SET v = 'y'"],
          ends: stops("ArbiterMissing", {
            facts: {
              table: "public.t",
              policy,
              message: reason,
              remedy: `in the target run ${statement} or set \`existing-row: halt\``
            },
            remedies: [{ target: statement }]
          })
        }
      ]),
      [
        `${policy}, a temporal key stops`,
        {
          both: `CREATE EXTENSION btree_gist;
            CREATE TABLE t (id int, at int4range, v text, PRIMARY KEY (id, at WITHOUT OVERLAPS))`,
          settings: { "existing-row": policy },
          changes: ["INSERT INTO t VALUES (1, '[1,5)', 'x'), (1, '[5,9)', 'y')", "UPDATE t SET v = 'z' WHERE at @> 1"],
          ends: stops("ArbiterMissing", {
            facts: { message: /WITHOUT OVERLAPS/ },
            remedies: [{ target: `CREATE UNIQUE INDEX ON "public"."t" ("id", "at")` }]
          })
        }
      ]
    ])
  ),
  "update, a row that is there becomes the source's, its identity included": {
    both: identities(),
    target: "INSERT INTO parents OVERRIDING SYSTEM VALUE VALUES (1, 70, 'mine'), (2, 2, 'mine')",
    settings: { "existing-row": "update" },
    changes: [numbered[0]!],
    ends: "source"
  },
  "update, a table without any key takes every row": {
    both: "CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL",
    settings: { "existing-row": "update" },
    changes: ["INSERT INTO t VALUES (1, 'x'), (1, 'x')", "DELETE FROM t WHERE ctid = '(0,1)'"]
  },
  "halt, a temporal key is a key": {
    both: `CREATE EXTENSION btree_gist;
      CREATE TABLE t (id int, at int4range, v text, PRIMARY KEY (id, at WITHOUT OVERLAPS))`,
    changes: [
      "INSERT INTO t VALUES (1, '[1,5)', 'x'), (1, '[5,9)', 'y')",
      "UPDATE t SET v = 'z' WHERE at @> 1; UPDATE t SET at = '[5,7)' WHERE at @> 5",
      "DELETE FROM t WHERE at @> 2"
    ]
  }
})

const suppressing = (when: string) => `
  CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
  CREATE TRIGGER suppress BEFORE ${when} ON t FOR EACH ROW WHEN (${when === "INSERT" ? "NEW" : "OLD"}.id = 2)
    EXECUTE FUNCTION suppress();
  ALTER TABLE t ENABLE ALWAYS TRIGGER suppress`

const suppressed = [/public\.t: changes suppressed by a trigger or rule of the target: 1/]

const plain = "CREATE TABLE t (id int PRIMARY KEY, v text)"

scenarios("A trigger of the target that suppresses", {
  "an insert is told of": {
    both: plain,
    target: suppressing("INSERT"),
    changes: ["INSERT INTO t VALUES (1, 'x'), (2, 'x'), (3, 'x')"],
    warns: suppressed
  },
  "an update is told of, and its row is not missing": {
    both: plain,
    target: suppressing("UPDATE"),
    settings: strict,
    changes: ["INSERT INTO t VALUES (1, 'x'), (2, 'x')", "UPDATE t SET v = 'y'"],
    warns: suppressed
  },
  "a delete is told of, and its row is not missing": {
    both: plain,
    target: suppressing("DELETE"),
    settings: strict,
    changes: ["INSERT INTO t VALUES (1, 'x'), (2, 'x')", "DELETE FROM t"],
    warns: suppressed
  },
  "an insert, under a policy for existing rows": {
    both: plain,
    target: suppressing("INSERT"),
    settings: { "existing-row": "skip" },
    changes: ["INSERT INTO t VALUES (1, 'x'), (2, 'x')"],
    warns: suppressed
  }
})
