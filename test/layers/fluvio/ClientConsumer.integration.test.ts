import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import * as Broker from "../../../layers/embedded/Broker.ts"
import { make } from "../../../layers/fluvio/ClientConsumer.ts"
import { DriverLimit, FluvioUnreachable, Offset } from "../../../src/stream/FluvioConsumer.ts"
import { conformance, fate, take, until } from "./conformance.ts"
import { batch, cluster, offsets } from "./ScriptedCluster.ts"

// The library is loaded later than this; it would write a line for every connection that a test closes.
process.env["RUST_LOG"] = "off"

const place = { topic: "t", partition: 0 }

describe("client: what the library cannot do is refused", () => {
  it.live("an offset too far behind the start of the log", () =>
    Effect.gen(function* () {
      const endpoint = yield* cluster({ onOffsets: (call) => offsets(call, 0, 2 ** 33) })
      const consumer = make({ endpoint, ...place })
      const { error } = yield* fate(consumer, 2 ** 32)
      assert(error instanceof DriverLimit, error.message)
      assert.match(error.reason, /offset 4294967296 lies 4294967296 records behind the start/)
    })
  )

  it.live("TLS", () =>
    Effect.gen(function* () {
      const consumer = make({ endpoint: "127.0.0.1:1", tls: { policy: "anonymous" }, ...place })
      assert.instanceOf((yield* fate(consumer, 0)).error, DriverLimit)
      assert.instanceOf(yield* Effect.flip(consumer.bounds), DriverLimit)
    })
  )

  it.live("to work without being installed", () =>
    Effect.gen(function* () {
      const hooks = `import { registerHooks } from "node:module"
        registerHooks({
          resolve(name, context, next) {
            if (name === "@fluvio/client") throw new Error("not found")
            return next(name, context)
          }
        })`
      const source = `import { Effect } from "effect"
        import { make } from "./layers/fluvio/ClientConsumer.ts"
        const consumer = make({ endpoint: "127.0.0.1:1", topic: "t", partition: 0 })
        console.log((await Effect.runPromise(Effect.flip(consumer.bounds))).message)`
      const { stdout } = yield* Effect.promise(() =>
        promisify(execFile)(
          process.execPath,
          ["--import", `data:text/javascript,${encodeURIComponent(hooks)}`, "--input-type=module", "--eval", source],
          { cwd: fileURLToPath(new URL("../../..", import.meta.url)) }
        )
      )
      assert.strictEqual(
        stdout.trim(),
        "the client driver cannot go on: the package @fluvio/client is not installed, or not built for this platform"
      )
    })
  )
})

describe("client: its own ways", () => {
  it.live("a log that moves while a stream is opened is not read: another attempt is", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.make()
      yield* broker.createTopic("t")
      for (const start of [0, 10, 20]) {
        yield* broker.appendBatch(place, batch(start, 10))
      }
      // The library's two connections and a third one: that of the second look at the log's start, which delay keeps waiting.
      yield* broker.setFaults({ delay: 200 })
      const consumer = make({ endpoint: broker.endpoint, ...place })
      const reading = yield* Effect.forkChild(fate(consumer, 20))
      let seen = 0
      yield* until(Effect.map(broker.connections, (connections) => (seen = connections === 3 ? seen + 1 : 0) === 5))
      yield* broker.trim(place, 10)
      const { error } = yield* Fiber.join(reading)
      assert(error instanceof FluvioUnreachable)
      assert.match(error.reason, /moved the start of the log from 0 to 10/)
      yield* broker.setFaults({ delay: 0 })
      assert.strictEqual((yield* take(consumer, 20, 1))[0]?.offset, Offset.make(20))
    })
  )

  it.live("reads what is not committed yet", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.make()
      yield* broker.createTopic("t")
      yield* broker.setFaults({ withholdingCommits: true })
      yield* broker.appendBatch(place, batch(0, 10))
      const consumer = make({ endpoint: broker.endpoint, ...place })
      assert.strictEqual((yield* consumer.bounds).end, Offset.make(0))
      assert.strictEqual((yield* take(consumer, 0, 10)).length, 10)
    })
  )

  it.live("reads no further ahead than about a mebibyte while the consumer is busy", () =>
    Effect.gen(function* () {
      const broker = yield* Broker.make()
      yield* broker.createTopic("t")
      for (let start = 0; start < 4000; start += 100) {
        yield* broker.appendBatch(place, batch(start, 100, {}, 10_000))
      }
      const largest = yield* make({ endpoint: broker.endpoint, ...place })
        .records(Offset.make(0))
        .pipe(
          Stream.mapEffect((records) =>
            Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 100))).pipe(Effect.as(records.length))
          ),
          Stream.take(4),
          Stream.runFold(
            () => 0,
            (largest, length) => Math.max(largest, length)
          )
        )
      assert.isAtMost(largest, 106)
    })
  )
})

conformance({
  name: "client",
  make: (options) => make({ timeout: "2 seconds", ...options }),
  codecs: ["none", "gzip", "snappy", "lz4", "zstd"],
  tellsTimestamps: false
})
