import { defineConfig } from "vitest/config"
import { fuzzTime } from "./test/fuzz.ts"

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/**/*.test.ts"],
          exclude: ["test/**/*.integration.test.ts"],
          testTimeout: fuzzTime
        }
      },
      {
        test: {
          name: "integration",
          include: ["test/**/*.integration.test.ts"],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          // Each file starts real servers; two cores carry two files.
          maxWorkers: 2
        }
      }
    ]
  }
})
