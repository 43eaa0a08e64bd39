/**
 * Scenarios whose judge is PostgreSQL itself: SQL on a source goes through inbound, broker and connector into a target,
 * and beside it through a native subscription (`copy_data = false`) into a database of its own.
 *
 * ```ts
 * scenarios("Added columns", {
 *   "a column with a type of its own": {
 *     both: "CREATE TABLE t (id int PRIMARY KEY, a text)",
 *     changes: ["INSERT INTO t VALUES (1, 'x')", ddl("ALTER TABLE t ADD b text"), "UPDATE t SET b = 'y'"]
 *   },
 *   "a rename and an added column in front of a kept one": {
 *     both: "CREATE TABLE t (id int PRIMARY KEY, a text)",
 *     changes: ["INSERT INTO t VALUES (1, 'x')", "ALTER TABLE t RENAME a TO b; ALTER TABLE t ADD a text; UPDATE t SET a = 'y'"],
 *     settings: { "schema-changes": "full" },
 *     ends: stops("SchemaRefused", { facts: { table: '"public"."t"', reason: /renamed/ }, offers: ["source", "goes on"] })
 *   }
 * })
 * ```
 *
 * - **Preparations** (before anything is captured): `both` runs in source, target and native subscriber; `source` and
 *   `native` in that one alone; `target` in target and native subscriber. The publication is `published`; it is made
 *   `FOR ALL TABLES` unless the source's preparation makes it.
 * - **Changes**: each text is sent to the source as one query, which is one transaction unless it says BEGIN itself.
 *   `ddl(sql)` is `{ source: sql, native: sql }`: the native subscriber runs the DDL when it has applied everything
 *   before it, and only then the source does. `{ target: sql }` runs in the target when all before it is applied;
 *   `{ target, native }` in both. Whatever the connector creates by itself, the native subscriber needs by hand.
 * - **Ways**: the topic is read from its beginning by several connectors, each with a target of its own: all
 *   transactions in one group (the folded plan), each in a group of its own, and each streamed in parts. `ways` sets
 *   others; `{ consumer: { driver: "client" } }` is one.
 * - **Ends**: `"native"` (the default): every table has the rows and columns that the native subscriber's has, as a
 *   multiset of texts, so tables without keys are compared too; `"source"`: every table of the source has its rows in
 *   the target; `"goes on"`: the topic's end is reached; or `stops(tag, …)`.
 * - **Stops**: the connector stops with an error of this tag and these facts (fields of the error, `message` and `remedy`
 *   among them; a RegExp matches the text, an object some of its fields). Then each remedy is taken in a fresh run and
 *   leads to its own end: `offers` gives the end of each alternative that the error itself offers, in order, and its
 *   statements are run as they are; `remedies` are for what an error says in words. `remedies: []` is for stops that
 *   nobody can resolve.
 * - `rows` and `warns` check the target's rows and the connector's warnings besides, at the end of every run.
 *
 * `Replica.ts` is the level below, for what does not fit.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, Predicate } from "effect"
import { equalToNative, equalToSource } from "./Equality.ts"
import { type Feed, nativeOf, Replica, real, type Role, type Run, type RunOptions, type Settings } from "./Replica.ts"

export interface Step {
  readonly source?: string
  readonly native?: string
  /** In the target, when everything before is applied; so the step belongs to one run, and every run has its own source. */
  readonly target?: string
}

/** Some of a value's fields, by equality or by a RegExp. */
export interface Facts {
  readonly [field: string]: unknown
}

export interface Remedy {
  readonly target?: string
  /** It is sent through the same topic, so it stands last. */
  readonly source?: string
  /** Instead of the scenario's, from the next start on. */
  readonly settings?: Settings
  /** `"source"` by default. */
  readonly leads?: End
}

export interface Stop {
  readonly tag: string
  readonly facts?: Facts
  readonly offers?: ReadonlyArray<End>
  readonly remedies?: ReadonlyArray<Remedy>
}

export type End = "native" | "source" | "goes on" | Stop

export interface Scenario {
  readonly both?: string
  readonly source?: string
  readonly target?: string
  readonly native?: string
  readonly changes: ReadonlyArray<string | Step>
  readonly settings?: Settings
  readonly role?: Role
  /** Settings on top of the scenario's, a run for each. */
  readonly ways?: ReadonlyArray<Settings>
  readonly ends?: End
  /** Queries in the target, and their rows at the end. */
  readonly rows?: { readonly [query: string]: ReadonlyArray<ReadonlyArray<string | null>> }
  /** Each has to match a line that was logged as a warning, or worse. */
  readonly warns?: ReadonlyArray<RegExp>
}

/** DDL on the source, and by hand on the native subscriber just before it. */
export const ddl = (sql: string): Step => ({ source: sql, native: sql })

export const stops = (tag: string, stop: Omit<Stop, "tag"> = {}): Stop => ({ tag, ...stop })

export const together: Settings = {}
export const oneByOne: Settings = { group: { transactions: 1 } }
export const streamed: Settings = { group: { bytes: "1 KiB" } }

/** It owns the tables and may do no more than that: triggers and foreign keys are at work. */
export const owner: Role = {
  attributes: "",
  grants: (role) => `
    GRANT ALL ON SCHEMA public TO ${role};
    DO $$ DECLARE name regclass; BEGIN
      FOR name IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO ${role}', name);
      END LOOP;
    END $$`
}

const script = (...parts: ReadonlyArray<string | undefined>) => {
  const given = parts.filter((part) => part !== undefined)
  return given.length === 0 ? undefined : given.join(";\n")
}

const isStop = (end: End): end is Stop => typeof end !== "string"

/** Whether native has to judge, at the end or behind a remedy. */
const isNatives = (end: End): boolean =>
  isStop(end)
    ? [...(end.offers ?? []), ...(end.remedies ?? []).map(({ leads = "source" }) => leads)].some(isNatives)
    : end === "native"

const assertFacts = (found: unknown, facts: Facts, path: string): void => {
  for (const [field, wanted] of Object.entries(facts)) {
    const at = `${path}.${field}`
    const value = (found as Facts)[field]
    if (wanted instanceof RegExp) assert.match(String(value), wanted, at)
    else if (Predicate.isObject(wanted) && !Array.isArray(wanted)) assertFacts(value, wanted as Facts, at)
    else assert.deepStrictEqual(value, wanted, at)
  }
}

const offersOf = (error: object): ReadonlyArray<ReadonlyArray<string>> =>
  "alternatives" in error ? (error.alternatives as ReadonlyArray<ReadonlyArray<string>>) : []

const play = Effect.fnUntraced(function* (feed: Feed, scenario: Scenario, run: Run | undefined) {
  for (const change of scenario.changes) {
    const { native, source, target }: Step = typeof change === "string" ? { source: change } : change
    if (target !== undefined) {
      yield* feed.captured
      yield* feed.release
      yield* run!.caughtUp
      yield* run!.target.query(target)
    }
    if (native !== undefined) yield* feed.native?.define(native) ?? Effect.void
    if (source !== undefined) yield* feed.source.query(source)
  }
  yield* feed.captured
  yield* feed.release
  yield* feed.native?.caughtUp ?? Effect.void
})

/** `turn` chooses the remedy; gives how many there are. */
const conclude: (feed: Feed, run: Run, scenario: Scenario, end: End, turn: number) => Effect.Effect<number, unknown> =
  Effect.fnUntraced(function* (feed, run, scenario, end, turn) {
    if (!isStop(end)) {
      yield* run.caughtUp
      if (end === "native") yield* equalToNative(nativeOf(feed).database, run.target)
      if (end === "source") yield* equalToSource(feed.source, run.target)
      for (const [query, rows] of Object.entries(scenario.rows ?? {})) {
        assert.deepStrictEqual(yield* run.rows(query), rows, query)
      }
      for (const wanted of scenario.warns ?? []) assert.match(run.warnings.join("\n"), wanted)
      return 1
    }
    const error = yield* run.stopped
    assert.strictEqual(error._tag, end.tag, error.message)
    assertFacts(error, end.facts ?? {}, error._tag)
    const offered = offersOf(error)
    if (end.offers !== undefined)
      assert.strictEqual(offered.length, end.offers.length, `${error.message}: ${error.remedy}`)
    const remedies = [
      ...(end.offers ?? []).map((leads, index): Remedy => ({ target: offered[index]!.join(";"), leads })),
      ...(end.remedies ?? [])
    ]
    assert(remedies.length > 0 || end.remedies !== undefined, `no remedy is tried of ${error.remedy}`)
    const remedy = remedies[turn % remedies.length]
    if (remedy === undefined) return 1
    if (remedy.target !== undefined) yield* run.target.query(remedy.target)
    if (remedy.source !== undefined) {
      yield* feed.source.query(remedy.source)
      yield* feed.captured
      yield* feed.release
    }
    yield* run.restart(remedy.settings)
    const { leads = "source" } = remedy
    const nested = yield* conclude(feed, run, scenario, leads, Math.floor(turn / remedies.length))
    return remedies.length * nested
  })

/** Plays a scenario, in each of its ways and with each remedy. */
export const perform = Effect.fnUntraced(function* (scenario: Scenario) {
  const { both, ends = "native", settings = {}, ways = [together, oneByOne, streamed] } = scenario
  const feed = Effect.suspend(() =>
    Replica.feed({
      source: script(both, scenario.source),
      native: isNatives(ends) ? (script(both, scenario.target, scenario.native) ?? "") : undefined,
      isHeld: true
    })
  )
  const optionsOf = (turn: number): RunOptions => ({
    target: script(both, scenario.target),
    role: scenario.role,
    settings: { ...settings, ...ways[turn % ways.length] }
  })
  const needsOwnSource = scenario.changes.some((change) => typeof change !== "string" && change.target !== undefined)
  const shared = needsOwnSource ? undefined : yield* Effect.tap(feed, (fed) => play(fed, scenario, undefined))
  const attempt = (turn: number) =>
    Effect.gen(function* () {
      const fed = shared ?? (yield* feed)
      const run = yield* fed.run(optionsOf(turn))
      if (shared === undefined) yield* play(fed, scenario, run)
      const remedies = yield* conclude(fed, run, scenario, ends, turn)
      yield* run.stop
      return remedies
    }).pipe(Effect.scoped)
  const remedies = yield* attempt(0)
  for (let turn = 1; turn < Math.max(remedies, ways.length); turn++) yield* attempt(turn)
})

/** A suite of scenarios, by their titles. */
export const scenarios = (name: string, all: { readonly [title: string]: Scenario }): void =>
  layer(Replica.layer, real)(name, (it) => {
    for (const [title, scenario] of Object.entries(all)) it.effect(title, () => perform(scenario))
  })
