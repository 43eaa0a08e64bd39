/** What a load did to the connector: for people, and as figures for programs. */

export interface Outcome {
  /** What it was. */
  readonly load: string
  /** What was seen of the connector under it. */
  readonly seen: string
  /** The most memory that its process ever held, in bytes. */
  readonly peak: number
  /** Everything that was measured, by its name. */
  readonly figures: { readonly [name: string]: number }
}

export const whole = (value: number): string => Math.round(value).toLocaleString("en")
export const rounded = (value: number, digits = 2): number => Number(value.toFixed(digits))
export const mebibytes = (bytes: number): number => Math.round(bytes / 2 ** 20)

/** As Markdown, the way docs/benchmarks.md has it. */
export const table = (outcomes: { readonly [name: string]: Outcome }): string =>
  [
    ["`--only`", "Load", "What was seen", "Peak memory"],
    ["---", "---", "---", "---"],
    ...Object.entries(outcomes).map(([name, { load, peak, seen }]) => [
      `\`${name}\``,
      load,
      seen,
      `${mebibytes(peak)} MiB`
    ])
  ]
    .map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n")
