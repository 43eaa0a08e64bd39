/** The last line of a terminal, which is drawn again and again, and a console whose lines stand above it. */
import { Console, Effect } from "effect"

/** What is needed of `process.stderr`. */
export interface Terminal {
  readonly columns?: number | undefined
  write(text: string): unknown
}

const clear = "\r\u001B[2K"

export const make = (terminal: Terminal) => {
  let shown = ""
  /** Takes the line away while something else is written. */
  const aside = <A>(write: () => A): A => {
    if (shown === "") return write()
    terminal.write(clear)
    const result = write()
    terminal.write(shown)
    return result
  }
  return {
    /** Some pseudo-terminals say 0. */
    columns: () => terminal.columns || 80,
    draw: (line: string, isLast: boolean) =>
      Effect.sync(() => {
        terminal.write(`${clear}${line}${isLast ? "\n" : ""}`)
        shown = isLast ? "" : line
      }),
    /** Takes an unfinished line away, for whatever is written next. */
    end: Effect.sync(() => {
      if (shown !== "") terminal.write(clear)
      shown = ""
    }),
    /** The same console, whose lines do not run into the status line. */
    above: (console: Console.Console): Console.Console =>
      new Proxy(console, {
        get: (target, name) => {
          const method: unknown = Reflect.get(target, name, target)
          return typeof method === "function"
            ? (...args: ReadonlyArray<unknown>) => aside(() => Reflect.apply(method, target, args) as unknown)
            : method
        }
      })
  }
}
