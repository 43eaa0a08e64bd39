import { assert, it } from "vitest"
import { join } from "node:path"
import ts from "typescript"
import * as Pages from "./Pages.ts"

/** The programs that pages print, each as if it stood in a file at the root. */
const programs = new Map(
  Pages.paths.flatMap((path) =>
    [...Pages.read(path).matchAll(/^```ts\n(.*?)^```$/gms)].map(([, text], n): [string, string] => [
      join(Pages.root, `${path.replaceAll("/", "-")}-${n + 1}.ts`),
      text
    ])
  )
)

it("the programs that pages print compile as they are", () => {
  assert.isAtLeast(programs.size, 3)
  const { config } = ts.readConfigFile(join(Pages.root, "tsconfig.json"), ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent(
    {
      compilerOptions: {
        ...config.compilerOptions,
        // A program may be an excerpt: what it makes is for the reader to use.
        noUnusedLocals: false,
        paths: { "fluvio-postgres-sink": ["./src/index.ts"], "fluvio-postgres-sink/layers/*": ["./layers/*.ts"] }
      }
    },
    ts.sys,
    Pages.root
  )
  const host = ts.createCompilerHost(options)
  const { fileExists, readFile } = host
  const { getSourceFile } = host
  host.fileExists = (name) => programs.has(name) || fileExists(name)
  host.readFile = (name) => programs.get(name) ?? readFile(name)
  host.getSourceFile = (name, version, ...rest) => {
    const text = programs.get(name)
    return text === undefined
      ? getSourceFile.call(host, name, version, ...rest)
      : ts.createSourceFile(name, text, { ...(typeof version === "object" ? version : { languageVersion: version }) })
  }
  const program = ts.createProgram([...programs.keys()], options, host)
  const wrong = ts.getPreEmitDiagnostics(program).map(({ file, messageText, start }) => {
    const line = file === undefined ? 0 : file.getLineAndCharacterOfPosition(start ?? 0).line + 1
    return `${file?.fileName ?? ""}:${line} ${ts.flattenDiagnosticMessageText(messageText, " ")}`
  })
  assert.deepStrictEqual(wrong, [])
})
