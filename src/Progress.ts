/** How far catching up has come, for a person in front of a terminal. */
import { Clock, Effect } from "effect"
import { FluvioConsumer } from "./stream/FluvioConsumer.ts"
import type { Applied } from "./Applied.ts"
import type { Instance } from "./operate/Instance.ts"

export interface Progressed {
  /** Records applied since the start. */
  readonly done: number
  /** Records that lay ahead at the start. */
  readonly total: number
  readonly seconds: number
}

let format: Intl.NumberFormat | undefined
/** As people read it: 1,234,567. The format is made when first asked for: it costs a start 20 ms. */
export const readable = (number: number): string => (format ??= new Intl.NumberFormat("en")).format(number)

const barWidth = 24

const timeLeft = (seconds: number): string =>
  seconds < 60
    ? `${Math.ceil(seconds)} s`
    : seconds < 3600
      ? `${Math.floor(seconds / 60)} min ${Math.ceil(seconds % 60)} s`
      : `${Math.floor(seconds / 3600)} h ${Math.ceil((seconds % 3600) / 60)} min`

/** A narrower bar says nothing. */
const leastBarWidth = 8

/**
 * One line that fits into so many columns: `████████░░░░ 42 % · 840,000 of 2,000,000 records · 161,000/s · 7 s left`. Where
 * there is less room the bar is shorter, and then the rate and the records are left out.
 */
export const render = ({ done, seconds, total }: Progressed, columns: number): string => {
  const share = total === 0 ? 1 : Math.min(done / total, 1)
  const rate = seconds > 0 ? done / seconds : 0
  const percent = `${Math.floor(share * 100)} %`
  const counts = `${readable(Math.min(done, total))} of ${readable(total)} records`
  const speed = `${readable(Math.round(rate))}/s`
  const left = rate > 0 ? [`${timeLeft(Math.max(total - done, 0) / rate)} left`] : []
  for (const parts of [[percent, counts, speed, ...left], [percent, counts, ...left], [percent, ...left], [percent]]) {
    const text = parts.join(" · ")
    // Some terminals break the line as soon as its last column is written to.
    const room = columns - 1 - " ".length - text.length
    if (room < leastBarWidth) continue
    const width = Math.min(barWidth, room)
    const full = Math.round(share * width)
    return `${"█".repeat(full)}${"░".repeat(width - full)} ${text}`
  }
  return percent
}

/**
 * How it goes when there is nothing to catch up: `following · 0 records behind · 1,200 changes/s · last public.orders`, with
 * fewer parts where there is less room; a state of its own while it waits, stands by or is tried again.
 */
export const renderState = ({ lag, pause, rate, state, tables }: Instance, columns: number): string => {
  const last = tables.reduce<Instance["tables"][number] | undefined>(
    (latest, table) => (latest === undefined || table.lastChange > latest.lastChange ? table : latest),
    undefined
  )
  const parts = [
    state as string,
    ...(state === "paused" && pause !== null ? [pause.reason] : []),
    ...(lag === null || state === "standing by" ? [] : [`${readable(lag.records)} records behind`]),
    ...(state === "following" ? [`${readable(Math.round(rate.changes))} changes/s`] : []),
    ...(state === "following" && last !== undefined ? [`last ${last.table}`] : [])
  ]
  for (let count = parts.length; count > 0; count--) {
    const text = parts.slice(0, count).join(" · ")
    if (text.length < columns) return text
  }
  return state.slice(0, Math.max(0, columns - 1))
}

/** Where progress is shown: one line, which is drawn anew each time. */
export interface Line {
  readonly columns: () => number
  readonly draw: (text: string, isLast: boolean) => Effect.Effect<void>
}

/** Listens to committed groups and draws one line until the end that the log had at the start is reached. */
export const make = ({ columns, draw }: Line) => {
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
      yield* draw(render({ done, total: course.total, seconds }, columns()), isCaughtUp)
    },
    // Without the end of the log there is no picture yet; the connector itself reports what is wrong.
    (drawing) => Effect.ignore(drawing)
  )
}
