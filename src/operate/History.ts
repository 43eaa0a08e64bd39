/** How lag and throughput went lately, for charts: every second of the last minute, and every ten of the last hour. */

export interface Point {
  /** Milliseconds since 1970. */
  readonly at: number
  /** `null` while it was not known. */
  readonly lagRecords: number | null
  readonly recordsPerSecond: number
}

const minute = 60
const tensOfAnHour = 360

export class History {
  #seconds: ReadonlyArray<Point> = []
  #tens: ReadonlyArray<Point> = []
  #last: { readonly at: number; readonly records: number } | undefined
  #count = 0

  /** Called about once a second, with all records applied so far. It gives what was added. */
  add(at: number, lagRecords: number | null, records: number): Point {
    const before = this.#last
    const seconds = before === undefined ? 0 : (at - before.at) / 1000
    const rate = before === undefined || seconds <= 0 ? 0 : (records - before.records) / seconds
    const point = { at, lagRecords, recordsPerSecond: Math.round(rate * 10) / 10 }
    this.#last = { at, records }
    this.#seconds = [...this.#seconds, point].slice(-minute)
    this.#count += 1
    if (this.#count % 10 === 0) this.#tens = [...this.#tens, this.#ten()].slice(-tensOfAnHour)
    return point
  }

  /** The last ten seconds as one point: the highest lag, which a mean would hide, and the mean rate. */
  #ten(): Point {
    const ten = this.#seconds.slice(-10)
    const lags = ten.flatMap(({ lagRecords }) => lagRecords ?? [])
    const sum = ten.reduce((sum, { recordsPerSecond }) => sum + recordsPerSecond, 0)
    return {
      at: ten[ten.length - 1].at,
      lagRecords: lags.length === 0 ? null : Math.max(...lags),
      recordsPerSecond: Math.round((sum / ten.length) * 10) / 10
    }
  }

  /** The oldest first; no moment is there twice. */
  get points(): ReadonlyArray<Point> {
    const [first] = this.#seconds
    return [...this.#tens.filter(({ at }) => first === undefined || at < first.at), ...this.#seconds]
  }
}
