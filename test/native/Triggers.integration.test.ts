import { oneByOne, scenarios } from "./Scenario.ts"

const t = "CREATE TABLE t (id int PRIMARY KEY, v text)"

const changes = [
  "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
  "UPDATE t SET v = 'x' WHERE id < 3",
  "UPDATE t SET id = 10 WHERE id = 1; DELETE FROM t WHERE id = 2"
]

/** What fires writes down the event and both rows; its number tells the order. */
const audit = `
  CREATE TABLE audit (n int GENERATED ALWAYS AS IDENTITY, what text);
  CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.audit (what) VALUES (
      TG_NAME || ' ' || TG_OP || CASE TG_LEVEL WHEN 'ROW' THEN ' ' || coalesce(OLD::text, '') || coalesce(NEW::text, '') ELSE '' END);
    RETURN coalesce(NEW, OLD);
  END $$;`

/** A function of the body, for a trigger that always fires. */
const always = (when: string, body: string): string => `
  CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${body} END $$;
  CREATE TRIGGER f ${when} ON t FOR EACH ROW EXECUTE FUNCTION f();
  ALTER TABLE t ENABLE ALWAYS TRIGGER f`

scenarios("Triggers", {
  "of rows, before and after, as replica and always": {
    both: t,
    target: `${audit}
      CREATE TRIGGER b BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t ENABLE REPLICA TRIGGER b;
      CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t ENABLE ALWAYS TRIGGER a;
      CREATE TRIGGER quiet AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()`,
    changes
  },
  "with a condition on the old and the new row": {
    both: t,
    target: `${audit}
      CREATE TRIGGER c AFTER UPDATE ON t FOR EACH ROW WHEN (OLD.v IS DISTINCT FROM NEW.v) EXECUTE FUNCTION note();
      ALTER TABLE t ENABLE ALWAYS TRIGGER c`,
    changes: [...changes, "UPDATE t SET v = v", "UPDATE t SET v = 'q'"]
  },
  "of TRUNCATE": {
    both: t,
    target: `${audit}
      CREATE TRIGGER s AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note(); ALTER TABLE t ENABLE ALWAYS TRIGGER s`,
    changes: [...changes, "TRUNCATE t", "INSERT INTO t VALUES (4, 'd')"]
  },
  "that are deferred to the commit": {
    both: t,
    target: `${audit}
      CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
      ALTER TABLE t ENABLE ALWAYS TRIGGER late`,
    changes,
    // Together, the commit is one.
    ways: [oneByOne]
  },
  "that change the row": {
    both: t,
    target: always("BEFORE INSERT OR UPDATE", "NEW.v := upper(NEW.v); RETURN NEW;"),
    changes
  },
  "that change the key": {
    both: t,
    target: always("BEFORE INSERT", "NEW.id := NEW.id + 1000; RETURN NEW;"),
    changes,
    warns: [/skipped/]
  },
  "that suppress the row": {
    both: t,
    target: always("BEFORE INSERT", "IF NEW.id = 2 THEN RETURN NULL; END IF; RETURN NEW;"),
    changes
  },
  "of a partitioned table and its partitions": {
    source: t,
    target: `
      CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
      CREATE TABLE t1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);
      CREATE TABLE t2 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1);
      ${audit}
      CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();
      ALTER TABLE t ENABLE ALWAYS TRIGGER a; ALTER TABLE t1 ENABLE ALWAYS TRIGGER a; ALTER TABLE t2 ENABLE ALWAYS TRIGGER a`,
    changes
  }
})
