import { assert, describe, it } from "vitest"
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"

import { nodeOptions } from "./executable.ts"

const root = resolve(import.meta.dirname, "..")

const sourcesBelow = (room: string): ReadonlyArray<string> =>
  readdirSync(join(root, room), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(room, name))

const importsOf = (file: string): ReadonlyArray<string> => {
  const text = readFileSync(join(root, file), "utf8")
  return [...text.matchAll(/(?:from|import\()\s*"([^"]+)"|^import "([^"]+)"/gm)].map((match) => match[1] ?? match[2])
}

/** Paths are resolved from the root, packages stay names. */
const resolved = (file: string, specifier: string): string =>
  specifier.startsWith(".") ? relative(root, resolve(root, dirname(file), specifier)) : specifier

describe("the rooms", () => {
  it("src imports nothing but effect and itself", () => {
    const strangers = sourcesBelow("src").flatMap((file) =>
      importsOf(file)
        .map((specifier) => resolved(file, specifier))
        .filter((target) => !/^effect(\/|$)/.test(target) && !target.startsWith("src/"))
        .map((target) => `${file} imports ${target}`)
    )
    assert.deepStrictEqual(strangers, [])
  })

  it("layers never import tests", () => {
    const strangers = sourcesBelow("layers").flatMap((file) =>
      importsOf(file)
        .map((specifier) => resolved(file, specifier))
        .filter((target) => target.startsWith("test/"))
        .map((target) => `${file} imports ${target}`)
    )
    assert.deepStrictEqual(strangers, [])
  })

  it("each room of src uses only the rooms below it", () => {
    const floors = ["stream", "target", "schema", "plan"]
    const floorOf = (file: string): number => {
      const room = file.split("/")[1]
      return floors.includes(room) ? floors.indexOf(room) : floors.length
    }
    const strangers = sourcesBelow("src").flatMap((file) =>
      importsOf(file)
        .map((specifier) => resolved(file, specifier))
        .filter((target) => target.startsWith("src/") && floorOf(target) > floorOf(file))
        .map((target) => `${file} imports ${target}`)
    )
    assert.deepStrictEqual(strangers, [])
  })

  it("no import leads back to where it came from", () => {
    const files = [...sourcesBelow("src"), ...sourcesBelow("layers")]
    const imports = new Map(
      files.map((file) => [
        file,
        importsOf(file)
          .map((specifier) => resolved(file, specifier))
          .filter((target) => files.includes(target))
      ])
    )
    const circles: Array<string> = []
    const visit = (file: string, path: ReadonlyArray<string>, done: Set<string>) => {
      if (path.includes(file)) return void circles.push([...path.slice(path.indexOf(file)), file].join(" -> "))
      if (done.has(file)) return
      for (const next of imports.get(file) ?? []) visit(next, [...path, file], done)
      done.add(file)
    }
    const done = new Set<string>()
    for (const file of files) visit(file, [], done)
    assert.deepStrictEqual(circles, [])
  })
})

describe("npm start", () => {
  it("gives Node the options that the executable names in its first line", () => {
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
    assert.strictEqual(scripts.start, ["node", ...nodeOptions, "layers/main.ts", "run"].join(" "))
    assert.isAbove(nodeOptions.length, 0)
  })
})
