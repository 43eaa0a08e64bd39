import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { invoke } from "../../executable.ts"

/** A configuration file of this text; it goes with the scope. */
const file = (text: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const folder = await mkdtemp(join(tmpdir(), "settings-"))
      await writeFile(join(folder, "connector.yaml"), text)
      return folder
    }),
    (folder) => Effect.promise(() => rm(folder, { recursive: true }))
  ).pipe(Effect.map((folder) => join(folder, "connector.yaml")))

const connector = `
apiVersion: 0.1.0
meta:
  name: orders-copy
  type: postgres-sink
  topic: orders
  version: latest
  consumer: { max_bytes: 2 MiB }
  secrets: [{ name: PG_PASSWORD }]
parameters:
  url: postgresql://sink:\${{ secrets.PG_PASSWORD }}@db.example:5432/copy?sslmode=require&sslpassword=hush
  consumer: { profile-path: "/run/\${{ secrets.PG_PASSWORD }}/config" }
  group: { rows: 7, bytes: 1 MiB }
  on-error: quarantine
  tables: { include: [public.pets], map: { public.pets: copy.pets } }
`
const secret = { PG_PASSWORD: "s3cr3t" }

describe("config", () => {
  it.effect("says of each setting what holds and who has said so, without a server and without secrets", () =>
    Effect.gen(function* () {
      const path = yield* file(connector)
      const words = ["config", "--config", path, "--schema-changes", "full"]
      const variables = { ...secret, FLUVIO_PG_GROUP_BYTES: "3 MiB", FLUVIO_PG_HTTP_TOKEN: "open-sesame" }
      const { code, err, out } = yield* invoke([...words, "--json"], variables)
      assert.deepStrictEqual({ code, err }, { code: 0, err: "" })
      const found = JSON.parse(out) as { readonly [key: string]: unknown }
      for (const [key, value, from] of [
        ["name", "orders-copy", "meta.name"],
        ["url", "postgresql://sink:…@db.example:5432/copy?sslmode=require&sslpassword=…", "parameters.url"],
        ["consumer.max-bytes", "2 MiB", "meta.consumer.max_bytes"],
        ["consumer.profile-path", "/run/…/config", "parameters.consumer.profile-path"],
        ["group.rows", "7", "parameters.group.rows"],
        ["group.bytes", "3 MiB", "FLUVIO_PG_GROUP_BYTES"],
        ["group.window", "0 millis", "default"],
        ["group.transactions", null, "default"],
        ["schema-changes", "full", "--schema-changes"],
        ["on-error.decode", "quarantine", "parameters.on-error"],
        ["http.token", "…", "FLUVIO_PG_HTTP_TOKEN"],
        ["tables.include", ["public.pets"], "parameters.tables.include"],
        ["tables.map", { "public.pets": "copy.pets" }, "parameters.tables.map"]
      ] as const) {
        assert.deepStrictEqual(found[key], { value, from }, key)
      }
      const plain = yield* invoke(words, variables)
      assert.match(plain.out, /^group\.rows +7 +parameters\.group\.rows$/m)
      for (const text of [out, plain.out]) assert.notMatch(text, /s3cr3t|hush/)
    })
  )

  it.effect("refuses wrong settings as run does", () =>
    Effect.gen(function* () {
      const path = yield* file(connector)
      for (const [words, variables, message] of [
        [["--group-rows", "many"], secret, /^fluvio-postgres-sink: --group-rows: expected a whole number from 1 on\n/],
        [[], {}, /^fluvio-postgres-sink: parameters\.url: the secret PG_PASSWORD is neither/],
        [[], { ...secret, FLUVIO_PG_TOPC: "x" }, /FLUVIO_PG_TOPC: is no setting; FLUVIO_PG_TOPIC is/]
      ] as const) {
        const { code, err, out } = yield* invoke(["config", "--config", path, ...words], variables)
        assert.deepStrictEqual({ code, out }, { code: 2, out: "" })
        assert.match(err, message)
      }
    })
  )
})

describe("schema", () => {
  it.effect("prints one JSON document, without settings", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* invoke(["schema"])
      assert.deepStrictEqual({ code, err }, { code: 0, err: "" })
      assert.deepInclude(JSON.parse(out), { title: "Configuration of fluvio-postgres-sink" })
    })
  )
})

/** What a real bash offers for the last word of a line, with the completions as a user would load them. */
const offered = (script: string, ...words: ReadonlyArray<string>) =>
  Effect.sync(() => {
    const ask = [
      script,
      `COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=\${#COMP_LINE}`,
      `read -ra registered <<< "$(complete -p fluvio-postgres-sink)"`,
      `"\${registered[2]}" "$1" "\${!#}" "\${COMP_WORDS[COMP_CWORD - 1]}"`,
      `printf '%s\\n' "\${COMPREPLY[@]}"`
    ]
    const { status, stderr, stdout } = spawnSync(
      "bash",
      ["--norc", "-c", ask.join("\n"), "bash", "fluvio-postgres-sink", ...words],
      { encoding: "utf8" }
    )
    assert.deepStrictEqual({ status, stderr }, { status: 0, stderr: "" })
    return stdout.split("\n").filter((line) => line !== "")
  })

describe("completions", () => {
  it.effect("offer commands, flags, values and files in a real bash", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* invoke(["--completions", "bash"])
      assert.deepStrictEqual({ code, err }, { code: 0, err: "" })
      const commands = yield* offered(out, "")
      assert.includeMembers([...commands], ["run", "config", "schema", "pause", "resume"])
      const flags = yield* offered(out, "run", "--group-")
      assert.deepStrictEqual(flags.toSorted(), ["--group-bytes", "--group-rows", "--group-window"])
      for (const [words, expected] of [
        [
          ["run", "--schema-changes", ""],
          ["none", "validate", "additive", "full"]
        ],
        [["run", "--existing-row", "u"], ["update"]],
        [
          ["config", "--on-error", ""],
          ["halt", "quarantine"]
        ],
        [
          ["pause", "--driver", ""],
          ["wire", "client"]
        ],
        [["run", "--config", "package.js"], ["package.json"]]
      ] as const) {
        assert.deepStrictEqual(yield* offered(out, ...words), [...expected], words.join(" "))
      }
    })
  )

  it.effect("are there for zsh and fish too", () =>
    Effect.gen(function* () {
      for (const shell of ["zsh", "fish"]) {
        const { code, out } = yield* invoke(["--completions", shell])
        assert.strictEqual(code, 0)
        for (const text of ["schema-changes", "validate", "quarantine", "config"]) assert.include(out, text)
      }
    })
  )
})
