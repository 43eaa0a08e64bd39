/** What every `OffsetStore` must do. Each implementation runs it with its own layer. */
import { assert } from "@effect/vitest"
import { type Array, Effect, Option, type Scope } from "effect"
import { Offset } from "../src/stream/FluvioConsumer.ts"
import { Lsn, OffsetStore, type Position, PositionConflict } from "../src/stream/OffsetStore.ts"
import type { Relation } from "../src/stream/Relation.ts"

export interface StoreFixture {
  /** One more instance of the connector on the same store. */
  instance(topic: string, partition: number): Effect.Effect<OffsetStore["Service"], never, Scope.Scope>
  /** The transaction that `save` joins. */
  withTransaction<A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, unknown>
}

export const position = (offset: number, lsn?: bigint): Position => ({
  offset: Offset.make(offset),
  checksum: 0xffff_ffff - (offset % 1000),
  epoch: 0,
  commitLsn: lsn === undefined ? undefined : Lsn.make(lsn),
  commitTime: lsn === undefined ? undefined : 840_000_000_000_000n + BigInt(offset),
  latestTime: lsn === undefined ? undefined : 850_000_000_000_000n + BigInt(offset)
})

export const relation = (id: number, ...columns: ReadonlyArray<string>): Relation => ({
  id,
  namespace: `a "schema"`,
  name: "orders.ü",
  replicaIdentity: "Default",
  columns: columns.map((name) => ({ name, isKey: true, typeId: 4_294_967_295, typeModifier: -1 }))
})

const type = (offset: number, name: string, namespace: string | undefined) => ({
  id: 4_294_967_294,
  namespace,
  name,
  offset: Offset.make(offset)
})

const described = (offset: number, id: number) => ({ relation: relation(id, "id"), offset: Offset.make(offset) })

const nothing = { relations: [], types: [] }

type Check = readonly [name: string, run: (fixture: StoreFixture) => Effect.Effect<void, unknown, Scope.Scope>]

export const offsetStoreChecks: Array.NonEmptyReadonlyArray<Check> = [
  [
    "holds nothing at first",
    (fixture) =>
      Effect.gen(function* () {
        const store = yield* fixture.instance("orders", 0)
        assert.deepStrictEqual(yield* store.load, { position: Option.none(), described: nothing, savedBy: "connector" })
      })
  ],
  [
    "gives back exactly what was saved, LSNs above 2^63 included",
    (fixture) =>
      Effect.gen(function* () {
        const store = yield* fixture.instance("orders", 3)
        const highest = position(Number.MAX_SAFE_INTEGER - 1, 2n ** 64n - 1n)
        const early = { ...position(7, 0n), commitTime: -(2n ** 63n) }
        const without = position(8)
        let previous = Option.none<Position>()
        for (const next of [early, without, highest]) {
          yield* store.save(previous, next, nothing)
          previous = Option.some(next)
          const other = yield* fixture.instance("orders", 3)
          assert.deepStrictEqual(yield* other.load, { position: previous, described: nothing, savedBy: "connector" })
        }
      })
  ],
  [
    "keeps topics and partitions apart",
    (fixture) =>
      Effect.gen(function* () {
        const one = yield* fixture.instance("orders", 0)
        const two = yield* fixture.instance("orders", 1)
        const three = yield* fixture.instance("people", 0)
        yield* one.save(Option.none(), position(1, 1n), {
          relations: [],
          types: [{ id: 1, namespace: undefined, name: "a", offset: Offset.make(1) }]
        })
        yield* two.save(Option.none(), position(2, 2n), nothing)
        assert.deepStrictEqual(yield* Effect.map(one.load, (stored) => stored.position), Option.some(position(1, 1n)))
        assert.deepStrictEqual(yield* Effect.map(two.load, (stored) => stored.described), nothing)
        assert.deepStrictEqual(yield* Effect.map(three.load, (stored) => stored.position), Option.none())
      })
  ],
  [
    "refuses an instance whose position another one has replaced",
    (fixture) =>
      Effect.gen(function* () {
        const live = yield* fixture.instance("orders", 0)
        const zombie = yield* fixture.instance("orders", 0)
        yield* live.save(Option.none(), position(10, 1n), nothing)
        const late = yield* Effect.flip(zombie.save(Option.none(), position(11, 1n), nothing))
        assert.instanceOf(late, PositionConflict)
        yield* live.save(Option.some(position(10, 1n)), position(20, 2n), nothing)
        for (const stale of [position(10, 1n), { ...position(20, 2n), checksum: 1 }]) {
          const conflict = yield* Effect.flip(zombie.save(Option.some(stale), position(30, 3n), nothing))
          assert.instanceOf(conflict, PositionConflict)
          assert.isTrue(conflict.isRetryable)
        }
        assert.deepStrictEqual(yield* Effect.map(live.load, (stored) => stored.position), Option.some(position(20, 2n)))
      })
  ],
  [
    "is undone with the transaction that it joined",
    (fixture) =>
      Effect.gen(function* () {
        const store = yield* fixture.instance("orders", 0)
        const before = yield* store.load
        yield* Effect.flip(
          fixture.withTransaction(
            store
              .save(Option.none(), position(5, 5n), {
                relations: [{ relation: relation(1, "id"), offset: Offset.make(4) }],
                types: []
              })
              .pipe(Effect.andThen(Effect.fail("the rows failed")))
          )
        )
        assert.deepStrictEqual(yield* store.load, before)
        yield* fixture.withTransaction(store.save(Option.none(), position(5, 5n), nothing))
        assert.deepStrictEqual(yield* Effect.map(store.load, (stored) => stored.position), Option.some(position(5, 5n)))
      })
  ],
  [
    "keeps the last of each relation and type",
    (fixture) =>
      Effect.gen(function* () {
        const store = yield* fixture.instance("orders", 0)
        const at = (offset: number, ...columns: ReadonlyArray<string>) => ({
          relation: relation(16_400, ...columns),
          offset: Offset.make(offset)
        })
        const other = { relation: relation(4_294_967_295), offset: Offset.make(1) }
        yield* store.save(Option.none(), position(9), {
          relations: [other, at(2, "id"), at(3, "id", `"; DROP`)],
          types: [type(4, "mood", "a"), type(5, "humour", "")]
        })
        assert.deepStrictEqual(yield* Effect.map(store.load, (stored) => stored.described), {
          relations: [other, at(3, "id", `"; DROP`)],
          types: [type(5, "humour", "")]
        })
        yield* store.save(Option.some(position(9)), position(12), {
          relations: [at(11)],
          types: [type(10, "mood", "b")]
        })
        assert.deepStrictEqual(yield* Effect.map(store.load, (stored) => stored.described), {
          relations: [other, at(11)],
          types: [type(10, "mood", "b")]
        })
      })
  ],
  [
    "forgets with an epoch what was described in it, unless it is rolled back",
    (fixture) =>
      Effect.gen(function* () {
        const store = yield* fixture.instance("orders", 0)
        const other = yield* fixture.instance("people", 0)
        const before = { relations: [described(2, 16_385), described(3, 16_390)], types: [type(4, "mood", undefined)] }
        yield* store.save(Option.none(), position(9, 9n), before)
        yield* other.save(Option.none(), position(9, 9n), before)
        const next = { ...position(20, 5n), epoch: 1 }
        const after = { relations: [described(18, 16_385)], types: [] }
        yield* Effect.flip(
          fixture.withTransaction(
            store.save(Option.some(position(9, 9n)), next, after).pipe(Effect.andThen(Effect.fail("the rows failed")))
          )
        )
        assert.deepStrictEqual(yield* store.load, {
          position: Option.some(position(9, 9n)),
          described: before,
          savedBy: "connector"
        })
        yield* store.save(Option.some(position(9, 9n)), next, after)
        assert.deepStrictEqual(yield* store.load, {
          position: Option.some(next),
          described: after,
          savedBy: "connector"
        })
        assert.deepStrictEqual((yield* other.load).described, before)
      })
  ]
]
