/** The loads by name, in two sizes. */
import { Effect } from "effect"
import type { Lab } from "../bench/Lab.ts"
import type { Outcome } from "./Outcome.ts"
import * as Record from "./Record.ts"
import * as Slow from "./Slow.ts"
import * as Tables from "./Tables.ts"
import * as Tiny from "./Tiny.ts"
import * as Transaction from "./Transaction.ts"

export const names = ["tables", "transaction", "tiny", "record", "slow"] as const
export type Name = (typeof names)[number]

export interface Sizes {
  readonly tables: Tables.TablesSize
  readonly transaction: Transaction.TransactionSize
  readonly tiny: Tiny.TinySize
  readonly record: Record.RecordSize
  readonly slow: Slow.SlowSize
}

export const full: Sizes = {
  tables: { tables: 200, transactions: 500 },
  transaction: { rows: 1_000_000 },
  tiny: { rate: 10_000, seconds: 60, mostBehind: 1 },
  record: { bytes: 32_000_000 },
  slow: { records: 3_600_000, seconds: 150, mostGrowth: 1.25 }
}

/** About a minute together. On a machine that is busy with other things, times prove nothing. */
export const quick: Sizes = {
  tables: { tables: 200, transactions: 20 },
  transaction: { rows: 100_000 },
  tiny: { rate: 2_000, seconds: 3, mostBehind: Infinity },
  record: { bytes: 6_000_000 },
  slow: { records: 480_000, seconds: 8, mostGrowth: Infinity }
}

export const run = Effect.fnUntraced(function* (name: Name, lab: Lab, sizes: Sizes) {
  let outcome: Outcome
  switch (name) {
    case "tables":
      outcome = yield* Tables.run(lab, sizes.tables)
      break
    case "transaction":
      outcome = yield* Transaction.run(lab, sizes.transaction)
      break
    case "tiny":
      outcome = yield* Tiny.run(lab, sizes.tiny)
      break
    case "record":
      outcome = yield* Record.run(lab, sizes.record)
      break
    case "slow":
      outcome = yield* Slow.run(lab, sizes.slow)
  }
  return outcome
})
