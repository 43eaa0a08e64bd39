/**
 * The inbound connector between the source and the topic, which can be made to send what a real one sends in a bad
 * night: half a transaction and then all of it, a transaction twice, a batch that a producer repeats.
 */
import { Deferred, Effect, Fiber, type Scope } from "effect"
import type { BrokerProcess } from "../../layers/embedded/Broker.ts"
import * as Inbound from "../../layers/embedded/Inbound.ts"
import type { InboundError } from "../../layers/embedded/Inbound.ts"
import type { PackageMissing } from "../../layers/embedded/OptionalPackage.ts"
import type { Place } from "../../layers/fluvio/Connection.ts"

/**
 * `middle`: only a part is appended, and the connector dies. `behind`: all is appended, and it dies before it tells
 * PostgreSQL. `twice`: whole transactions are appended twice in a row, as by a producer that missed the first answer.
 */
export type Mishap = "middle" | "behind" | "twice"

export interface Feed {
  /** Lets the mishap come over the next records that it fits; succeeds when it has happened. */
  suffer(mishap: Mishap): Effect.Effect<void>
  /** Stops sending wherever it is. */
  readonly stop: Effect.Effect<void>
  readonly start: Effect.Effect<void>
  /** Inserts, updates, deletes and truncates sent, repetitions included. */
  readonly changes: Effect.Effect<number>
}

export interface FeedOptions extends Inbound.InboundOptions {
  readonly broker: BrokerProcess
  readonly place: Place
}

const typeKey = `"message":{"type":"`

const typeOf = (value: Uint8Array): string => {
  const buffer = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  const start = buffer.indexOf(typeKey) + typeKey.length
  return buffer.toString("utf8", start, buffer.indexOf(`"`, start))
}

const changeTypes = new Set(["insert", "update", "delete", "truncate"])

const records = (values: ReadonlyArray<Uint8Array>) => values.map((value) => ({ value }))

/** Starts sending. The publication and the slot exist when it returns. */
export const make = Effect.fn("Feed.make")(function* ({
  broker,
  place,
  ...options
}: FeedOptions): Effect.fn.Return<Feed, InboundError | PackageMissing, Scope.Scope> {
  const scope = yield* Effect.scope
  const inbound = yield* Inbound.make(options)
  let changes = 0
  let pending: { readonly mishap: Mishap; readonly done: Deferred.Deferred<void> } | undefined
  let running: Fiber.Fiber<void> | undefined

  const append = (values: ReadonlyArray<Uint8Array>) => broker.append(place, records(values))

  const send = Effect.fnUntraced(function* (values: ReadonlyArray<Uint8Array>) {
    const types = values.map(typeOf)
    changes += types.filter((type) => changeTypes.has(type)).length
    const isWhole = types[0] === "begin" && types.at(-1) === "commit"
    const suffering = pending
    if (suffering === undefined || !isWhole || values.length < 3) return yield* append(values)
    pending = undefined
    Deferred.doneUnsafe(suffering.done, Effect.void)
    switch (suffering.mishap) {
      case "middle":
        yield* append(values.slice(0, Math.ceil(values.length / 2)))
        return yield* Effect.fail("half of it is sent")
      case "behind":
        yield* append(values)
        return yield* Effect.fail("PostgreSQL is not told")
      case "twice":
        yield* append(values)
        return yield* append(values)
    }
  })

  // It goes on where PostgreSQL was told, whatever it ended with: a broker or a source that is away comes back.
  const run = inbound.run(send).pipe(Effect.ignoreCause, Effect.andThen(Effect.sleep("100 millis")), Effect.forever)

  const start = Effect.suspend(() =>
    running === undefined ? Effect.map(Effect.forkIn(run, scope), (fiber) => void (running = fiber)) : Effect.void
  )
  const stop = Effect.suspend(() => {
    const stopping = running
    running = undefined
    return stopping === undefined ? Effect.void : Fiber.interrupt(stopping)
  })
  yield* start

  return {
    suffer: (mishap) =>
      Effect.suspend(() => {
        const done = Deferred.makeUnsafe<void>()
        pending = { mishap, done }
        return Deferred.await(done)
      }).pipe(Effect.onInterrupt(() => Effect.sync(() => void (pending = undefined)))),
    stop,
    start,
    changes: Effect.sync(() => changes)
  }
})
