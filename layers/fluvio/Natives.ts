/**
 * Packages with compiled parts. A platform may have no build of them, and `--omit=optional` leaves them out: the checksum
 * is then computed in JavaScript, and a codec is missed only by a batch that is compressed with it.
 */
import { createRequire } from "node:module"

const require = createRequire(import.meta.url)

/** A codec's package is not installed, or cannot be loaded on this platform. */
export class NativeMissing extends Error {
  override readonly name = "NativeMissing"
  readonly packageName: string
  readonly reason: string

  constructor(packageName: string, reason: string) {
    super(`the package ${packageName} cannot be loaded: ${reason}`)
    this.packageName = packageName
    this.reason = reason
  }
}

const whenNeeded = <A>(packageName: string): (() => A) => {
  let loaded: A | undefined
  return () => {
    try {
      return (loaded ??= require(packageName) as A)
    } catch (cause) {
      // The lines behind the first are the path on which it was looked for.
      const [reason = ""] = (cause instanceof Error ? cause.message : String(cause)).split("\n")
      throw new NativeMissing(packageName, reason)
    }
  }
}

export const snappy = whenNeeded<typeof import("snappy")>("snappy")
export const lz4 = whenNeeded<typeof import("lz4-napi")>("lz4-napi")

const plain = whenNeeded<{ readonly buf: (bytes: Uint8Array) => number }>("crc-32/crc32c.js")

/** CRC-32C in JavaScript, which gives the same numbers more slowly. */
export const plainCrc32c = (bytes: Uint8Array): number => plain().buf(bytes) >>> 0

const nativeCrc32c = (): ((bytes: Uint8Array) => number) | undefined => {
  try {
    return (require("@node-rs/crc32") as typeof import("@node-rs/crc32")).crc32c
  } catch {
    return undefined
  }
}

/** CRC-32C (unsigned), which is of another polynomial than `zlib.crc32`. */
export const crc32c = nativeCrc32c() ?? plainCrc32c
