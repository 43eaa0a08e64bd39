#!/usr/bin/env -S node --max-semi-space-size=16 --initial-old-space-size=96 --heap-growing-percent=150
/**
 * The executable. It imports nothing before it has seen that this Node can run the rest: on an older one the imports
 * themselves would fail, with a message about something else.
 *
 * The options of the first line keep V8 from letting garbage grow; `npm start` gives the same.
 */
const [major, minor] = process.versions.node.split(".").map(Number)

if (major < 22 || (major === 22 && minor < 19)) {
  console.error(`fluvio-postgres-sink needs Node 22.19 or newer, and this is Node ${process.versions.node}`)
  process.exitCode = 1
} else {
  const { main } = await import("./Program.ts")
  main()
}
