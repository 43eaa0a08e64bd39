/**
 * Preloaded into the executable, which learns the time of day from nothing else: its wall clock is as many milliseconds
 * off as a file says. Timers and the monotonic clock go on undisturbed, as they do when somebody sets a machine's clock.
 */
import { openSync, readSync } from "node:fs"
import { variable } from "./ClockFault.ts"

const trueNow = Date.now
// Open from the start, because a process may be allowed no further file.
const file = openSync(String(process.env[variable]), "r")
const text = Buffer.alloc(32)
const now = () => trueNow() + Number(text.toString("latin1", 0, readSync(file, text, 0, text.length, 0)))

globalThis.Date = new Proxy(Date, {
  apply: () => new Date().toString(),
  construct: (target, args, newTarget) => Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget),
  get: (target, key) => (key === "now" ? now : Reflect.get(target, key))
})
