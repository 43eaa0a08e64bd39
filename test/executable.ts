/** The executable, to be run in a process of its own as an operator would. */
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

export const executable = fileURLToPath(new URL("../layers/main.ts", import.meta.url))

const [firstLine] = readFileSync(executable, "utf8").split("\n", 1)

/** The options for Node that its first line names, and without which it needs more memory. */
export const nodeOptions: ReadonlyArray<string> = firstLine.match(/--\S+/g) ?? []
