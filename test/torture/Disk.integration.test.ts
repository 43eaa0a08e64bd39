/** The target's disk runs full while the connector applies: a file system that has no byte left, not an imitation. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import * as Postgres from "../../layers/embedded/Postgres.ts"
import { connect } from "../postgres.ts"
import * as Disk from "./Disk.ts"
import * as Scene from "./Scene.ts"

const mebibyte = 2 ** 20
const settings = { FLUVIO_PG_GROUP_BYTES: "1 MiB", FLUVIO_PG_RETRY_MAX: "1 s" }

describe("A full disk", () => {
  it.live("under the tables is waited out", () =>
    Effect.gen(function* () {
      const disk = yield* Disk.make(16 * mebibyte)
      const server = yield* Postgres.make()
      const url = yield* server.createDatabase("target")
      yield* Disk.hold(disk, yield* connect("administrator", server.url()), "target")
      const database = yield* connect("target", url)
      const { append, connector, isWhole, result, says } = yield* Scene.make({ url, database, settings })
      yield* append(96, mebibyte / 4)
      yield* connector.start
      yield* says("the target's disk is full (SQLSTATE 53100); trying again in", 2)
      assert.isTrue(yield* isWhole)

      yield* disk.resize(64 * mebibyte)
      const { expected, found } = yield* result
      assert.deepStrictEqual(found, expected)
      assert.deepStrictEqual(yield* connector.ends, [])
    })
  )

  // Without room for its log PostgreSQL panics, cannot recover either, and stays down until somebody starts it again.
  it.live("under the write-ahead log, which takes the server down, is waited out", () =>
    Effect.gen(function* () {
      const disk = yield* Disk.make(64 * mebibyte)
      const server = yield* Postgres.make()
      const url = yield* server.createDatabase("target")
      const database = yield* connect("target", url)
      const [row] = yield* database.query("SHOW data_directory")
      yield* server.stop("fast")
      yield* Effect.promise(() =>
        promisify(execFile)("sh", [
          "-c",
          `cp -a "$1/pg_wal" "$2" && rm -r "$1/pg_wal" && ln -s "$2/pg_wal" "$1/pg_wal"`,
          "move",
          String(row?.["data_directory"]),
          disk.folder
        ])
      )
      yield* server.start
      yield* disk.fill
      const { append, connector, isWhole, result, says } = yield* Scene.make({ url, database, settings })
      yield* append(96, mebibyte / 4)
      yield* connector.start
      yield* says("the target refused the connection (")

      yield* disk.resize(256 * mebibyte)
      yield* server.start
      assert.isTrue(yield* isWhole)
      const { expected, found } = yield* result
      assert.deepStrictEqual(found, expected)
      assert.deepStrictEqual(yield* connector.ends, [])
    })
  )
})
