import { assert, describe, it } from "@effect/vitest"
import { Console, Effect } from "effect"
import * as StatusLine from "../../layers/StatusLine.ts"

/** What a terminal shows after these writes: a line is what stands behind its last carriage return and clearing. */
const shown = (writes: ReadonlyArray<string>) =>
  writes
    .join("")
    .split("\n")
    .map((line) => line.split("\r\u001B[2K").at(-1))

describe("StatusLine", () => {
  it.effect("keeps lines of the log above itself, and goes when it has reached its end", () =>
    Effect.gen(function* () {
      const writes: Array<string> = []
      const line = StatusLine.make({ columns: 40, write: (text) => writes.push(text) })
      const console = Object.assign(Object.create(globalThis.console), {
        error: (text: string) => writes.push(`${text}\n`)
      }) as Console.Console
      const say = (text: string) => Effect.provideService(Console.error(text), Console.Console, line.above(console))
      yield* say("before")
      yield* line.draw("█░ 50 %", false)
      yield* say("a warning\nof two lines")
      assert.deepStrictEqual(shown(writes), ["before", "a warning", "of two lines", "█░ 50 %"])
      yield* line.draw("██ 100 %", true)
      yield* say("after")
      assert.deepStrictEqual(shown(writes), ["before", "a warning", "of two lines", "██ 100 %", "after", ""])
      yield* line.draw("█░ 50 %", false)
      yield* line.end
      yield* say("the last word")
      assert.deepStrictEqual(shown(writes).slice(-3), ["after", "the last word", ""])
      assert.strictEqual(line.columns(), 40)
      assert.strictEqual(StatusLine.make({ write: () => undefined }).columns(), 80)
    })
  )
})
