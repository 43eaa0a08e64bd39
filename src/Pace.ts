/** How large the next groups may be: smaller after one that was too much, and larger again with each that is applied. */
import type { GroupLimits } from "./stream/Group.ts"

/** So much larger may the next group be than the one that was applied. */
const growth = 1.25

export class Pace {
  #most = Infinity
  #tried = 0

  /** The limits of the settings, or less. */
  within(limits: GroupLimits): GroupLimits {
    return this.#most < limits.rows ? { ...limits, rows: Math.floor(this.#most) } : limits
  }

  get isSlow(): boolean {
    return this.#most < Infinity
  }

  /** So many changes are tried together now. */
  tries(changes: number): void {
    this.#tried = changes
  }

  /** What was tried last was too much, or did not come through several times: half of it is next. */
  slow(): void {
    this.#most = Math.max(1, this.#tried / 2)
  }

  /** What was tried last is applied. */
  applied(): void {
    this.#most *= growth
  }
}
