import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { load } from "../../../layers/embedded/OptionalPackage.ts"

it.effect("gives the package's exports", () =>
  Effect.gen(function* () {
    const { sep } = yield* load("node:path", () => import("node:path"))
    assert.include(["/", "\\"], sep)
  })
)

it.effect("names a missing package and how to install it, in one line each", () =>
  Effect.gen(function* () {
    const name = "fluvio-postgres-sink-no-such-package"
    const error = yield* load(name, () => import(/* @vite-ignore */ name)).pipe(Effect.flip)
    assert.match(error.message, /^the embedded parts need the package fluvio-postgres-sink-no-such-package, .*$/)
    assert.include(error.remedy, `npm install ${name}`)
    assert.isFalse(error.isRetryable)
  })
)
