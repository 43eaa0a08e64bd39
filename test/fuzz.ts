/** How hard the fuzzers work: `FUZZ=40 npm run fuzz` runs each 40 times as long as `npm test` does. */
const factor = Number(process.env["FUZZ"] ?? 1)

export const fuzzRuns = (runs: number): { readonly numRuns: number } => ({ numRuns: Math.ceil(runs * factor) })

/** For the time-out of a test, in milliseconds. */
export const fuzzTime = Math.max(20_000, factor * 20_000)
