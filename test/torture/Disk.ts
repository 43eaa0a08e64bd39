/**
 * A disk that really runs full: a Linux file system of a size of its own, which takes root, or, for other users, a kernel
 * that lets them have a name space of mounts of their own.
 */
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, statfs } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { TestDatabase } from "../postgres.ts"

export interface Disk {
  /** Everybody may write there. */
  readonly folder: string
  /** As a volume that an operator gives more room. It never becomes smaller than what it holds. */
  resize(bytes: number): Effect.Effect<void>
  /** Takes away what room is left. */
  readonly fill: Effect.Effect<void>
}

/**
 * Mounts, and takes a new size from each line of its standard input; unmounts at the end of it, which comes when this
 * process dies in whatever way.
 */
const guardian = `
  mount -t tmpfs -o "size=$2,mode=0777" tmpfs "$1" && echo done || exit
  while read -r size; do
    mount -o "remount,size=$size,mode=0777" tmpfs "$1" && echo done || echo refused
  done
  umount -l "$1"
  rmdir "$1"
`

/** It goes with the scope, with everything on it. */
export const make = (bytes: number): Effect.Effect<Disk, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const mountPoint = await mkdtemp(join(tmpdir(), "fluvio-postgres-sink-disk-"))
      const isRoot = process.getuid?.() === 0
      const [program = "", ...args] = [...(isRoot ? [] : ["unshare", "--map-root-user", "--mount"]), "/bin/sh"]
      const guard = spawn(program, [...args, "-c", guardian, "guardian", mountPoint, String(bytes)], {
        detached: true,
        cwd: "/",
        stdio: ["pipe", "pipe", "inherit"]
      })
      const answers = createInterface({ input: guard.stdout })[Symbol.asyncIterator]()
      if ((await answers.next()).value !== "done") throw new Error("no disk can be mounted: root may on Linux")
      return { folder: isRoot ? mountPoint : `/proc/${guard.pid}/root${mountPoint}`, guard, answers }
    }),
    ({ guard }) =>
      Effect.promise(async () => {
        guard.stdin.end()
        await once(guard, "close")
      })
  ).pipe(
    Effect.map(({ answers, folder, guard }) => {
      const resize = async (size: number) => {
        guard.stdin.write(`${size}\n`)
        if ((await answers.next()).value !== "done") throw new Error(`the disk cannot have ${size} bytes`)
      }
      return {
        folder,
        resize: (size) => Effect.promise(() => resize(size)),
        fill: Effect.tryPromise(async () => {
          const { bfree, blocks, bsize } = await statfs(folder)
          await resize((blocks - bfree) * bsize)
          // More may have been written between the look and the act.
        }).pipe(Effect.eventually)
      }
    })
  )

/** Moves a database that nobody is connected to onto the disk, catalog and all; only its server's log stays elsewhere. */
export const hold = Effect.fn("Disk.hold")(function* ({ folder }: Disk, administrator: TestDatabase, database: string) {
  // The server's user makes the folder, because it has to own it.
  yield* administrator.query(`COPY (SELECT) TO PROGRAM 'mkdir -m 700 ${folder}/space'`)
  yield* administrator.query(`CREATE TABLESPACE space LOCATION '${folder}/space'`)
  yield* administrator.query(`ALTER DATABASE ${database} SET TABLESPACE space`)
  // A crash before the next checkpoint would repeat the move, and with it drop the database's replication slots.
  yield* administrator.query("CHECKPOINT")
})
