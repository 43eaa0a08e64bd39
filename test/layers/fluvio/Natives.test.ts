import { crc32c as native } from "@node-rs/crc32"
import * as fc from "fast-check"
import { assert, it } from "vitest"
import { crc32c, plainCrc32c } from "../../../layers/fluvio/Natives.ts"
import { fuzzRuns } from "../../fuzz.ts"

it("takes the compiled checksum where it is installed", () => {
  assert.strictEqual(crc32c, native)
})

it("computes the same checksum without it", () => {
  // The check value that the catalogues of checksums give for CRC-32C.
  assert.strictEqual(plainCrc32c(Buffer.from("123456789")), 0xe306_9283)
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2000 }), (bytes) => {
      assert.strictEqual(plainCrc32c(bytes), native(bytes))
    }),
    fuzzRuns(500)
  )
})
