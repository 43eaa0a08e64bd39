import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Recorded } from "../../layers/Mock.ts"
import { begin, commit, eventJson, insert, int4, relationOf, text } from "../events.ts"
import * as Pipeline from "../pipeline.ts"

const pet = relationOf()
const kibibyte = 1024

describe("Quarantine", () => {
  it.effect("sends the records of a transaction in parts, so that its size does not matter", () =>
    Effect.gen(function* () {
      const names = [300, 600, 300, 3000, 100, 100].map((size) => "n".repeat(size * kibibyte))
      const messages = [begin(1), ...names.map((name, id) => insert(pet.id, [int4(id), text(name)])), commit(1)]
      const parts: Array<ReadonlyArray<unknown>> = []
      const pipeline = yield* Pipeline.start({
        stored: Pipeline.knowing(pet),
        config: { "on-error": { data: "quarantine" } },
        log: Pipeline.log(messages),
        answer: ({ params, text }: Recorded) => {
          if (text.startsWith("INSERT INTO fluvio.quarantine (")) return { rows: [{ id: "7" }] }
          if (text.startsWith("INSERT INTO fluvio.quarantine_record")) parts.push(params)
          return text.startsWith('INSERT INTO "public"') ? { sqlState: "22001" } : undefined
        }
      })
      yield* pipeline.until(() => pipeline.applied.length === 1)
      assert.deepInclude(pipeline.applied[0], { quarantined: 1, transactions: 1 })
      assert.deepStrictEqual(
        parts.map(([id, , offsets]) => [id, offsets]),
        [
          ["7", "{0,1,2}"],
          ["7", "{3}"],
          ["7", "{4}"],
          ["7", "{5,6,7}"]
        ]
      )
      // Each is found again where its part says that it is.
      const records = parts.flatMap(([, bytes, , places, sizes]) => {
        const [at, length] = [places, sizes].map((list) => String(list).slice(1, -1).split(",").map(Number))
        return at.map((place, n) => Buffer.from(bytes as Uint8Array).toString("utf8", place - 1, place - 1 + length[n]))
      })
      assert.deepStrictEqual(
        records,
        messages.map((message) => eventJson(message))
      )
    })
  )
})
