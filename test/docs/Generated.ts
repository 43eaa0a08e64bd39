/**
 * The parts of the pages that are made from the code. They stand between `<!-- generated: name -->` and
 * `<!-- /generated -->`; what an error prints stands before what resolves it.
 */
import { format, resolveConfig } from "prettier"
import { describe } from "../../src/Cli.ts"
import { table } from "../../src/Settings.ts"
import { examples } from "./Examples.ts"

const code = (text: string | undefined) => (text === undefined ? "–" : `\`${text}\``)

const markdownTable = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>) =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n")

const parts: { readonly [name: string]: () => string } = {
  settings: () =>
    markdownTable(
      ["Setting", "Default", "Meaning"],
      table.map(({ description, isRequired, key, ...setting }) => [
        code(key),
        isRequired ? "required" : code(setting.default),
        description
      ])
    ),
  kinds: () =>
    markdownTable(
      ["Setting", "Takes", "Flag", "Environment"],
      table.map(({ environment, expects, flag, key }) => [
        code(key),
        expects,
        code(flag === undefined ? undefined : `--${flag}`),
        code(environment)
      ])
    )
}

const printed = (tag: string): string => {
  const error = Object.values(examples).find(({ _tag }) => _tag === tag)
  return error === undefined ? "" : `\`\`\`\nfluvio-postgres-sink: ${describe(error)}\n\`\`\`\n\n`
}

/** The page as it should be. */
export const render = async (page: string, path: string): Promise<string> => {
  const filled = page
    .replaceAll(
      /(<!-- generated: ([\w-]+) -->\n).*?(?=<!-- \/generated -->)/gs,
      (_, start: string, name: string) => `${start}\n${parts[name]()}\n\n`
    )
    .replaceAll(
      /(^### (\w+)\n\nExit [^\n]*(?:\n[^\n]+)*\n\n)(?:```\n.*?^```\n\n)?(?=\*\*What resolves it:)/gms,
      (_, start: string, tag: string) => `${start}${printed(tag)}`
    )
  return format(filled, { ...(await resolveConfig(path)), filepath: path })
}
