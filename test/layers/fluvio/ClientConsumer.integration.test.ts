import { make } from "../../../layers/fluvio/ClientConsumer.ts"
import { conformance } from "./conformance.ts"

conformance({
  name: "client",
  make: (options) => make({ timeout: "2 seconds", ...options }),
  codecs: ["none", "gzip", "snappy", "lz4", "zstd"],
  tellsTimestamps: false
})
