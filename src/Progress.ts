/** How far catching up has come, for a person in front of a terminal. */
import { Clock, Effect } from "effect"
import { FluvioConsumer } from "./stream/FluvioConsumer.ts"
import type { Applied } from "./Applied.ts"

export interface Progressed {
  /** Records applied since the start. */
  readonly done: number
  /** Records that lay ahead at the start. */
  readonly total: number
  readonly seconds: number
}

const number = new Intl.NumberFormat("en")
const barWidth = 24

const timeLeft = (seconds: number): string =>
  seconds < 60
    ? `${Math.ceil(seconds)} s`
    : seconds < 3600
      ? `${Math.floor(seconds / 60)} min ${Math.ceil(seconds % 60)} s`
      : `${Math.floor(seconds / 3600)} h ${Math.ceil((seconds % 3600) / 60)} min`

/** One line without an end: `████████░░░░ 42 % · 840,000 of 2,000,000 records · 161,000/s · 7 s left`. */
export const render = ({ done, seconds, total }: Progressed): string => {
  const share = total === 0 ? 1 : Math.min(done / total, 1)
  const full = Math.round(share * barWidth)
  const rate = seconds > 0 ? done / seconds : 0
  const left = rate > 0 ? ` · ${timeLeft(Math.max(total - done, 0) / rate)} left` : ""
  const bar = "█".repeat(full) + "░".repeat(barWidth - full)
  const counts = `${number.format(Math.min(done, total))} of ${number.format(total)} records`
  return `${bar} ${Math.floor(share * 100)} % · ${counts} · ${number.format(Math.round(rate))}/s${left}`
}

/** Listens to committed groups and draws over one line until the end that the log had at the start is reached. */
export const make = (write: (text: string) => Effect.Effect<void>) => {
  let done = 0
  let course: { readonly end: number; readonly total: number; readonly started: number } | undefined
  let isCaughtUp = false
  return Effect.fnUntraced(
    function* (applied: Applied) {
      if (isCaughtUp) return
      const now = Number(yield* Clock.monotonicTimeNanos) / 1e9
      done += applied.records
      if (course === undefined) {
        const { bounds } = yield* FluvioConsumer
        const { end } = yield* bounds
        course = { end, total: end - applied.position.offset - 1 + done, started: now }
      }
      isCaughtUp = applied.position.offset >= course.end - 1
      const seconds = now - course.started
      // A log that was nearly read at the start needs no bar.
      if (isCaughtUp && seconds < 1) return
      yield* write(`\r\u001B[2K${render({ done, total: course.total, seconds })}${isCaughtUp ? "\n" : ""}`)
    },
    // Without the end of the log there is no picture yet; the connector itself reports what is wrong.
    (drawing) => Effect.ignore(drawing)
  )
}
