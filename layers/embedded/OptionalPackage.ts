/** Packages that only the embedded parts need, so that a production install may leave them out. */
import { Effect, Schema } from "effect"
import { isRetryable } from "../../src/stream/Outcome.ts"

/** An optional package is not installed, or cannot be loaded on this platform. */
export class PackageMissing extends Schema.TaggedError<PackageMissing>()("PackageMissing", {
  name: Schema.String,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  get remedy() {
    return `install it with \`npm install ${this.name}\`; it is an optional dependency that \`--omit=optional\` leaves out`
  }
  override get message() {
    return `the embedded parts need the package ${this.name}, which cannot be loaded: ${this.reason}`
  }
}

/** Loads an optional package; `importer` holds the `import()` itself, so that its types are kept. */
export const load = <A>(name: string, importer: () => Promise<A>): Effect.Effect<A, PackageMissing> =>
  Effect.tryPromise({
    try: importer,
    catch: (cause) => {
      // The lines behind the first are the path on which it was looked for.
      const [reason = ""] = (cause instanceof Error ? cause.message : String(cause)).split("\n")
      return new PackageMissing({ name, reason })
    }
  })
