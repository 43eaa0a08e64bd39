/** The process of {@link spawn} in `Broker.ts`: serves the broker until its parent ends it, or is gone itself. */
import { commandsOf, type ProcessCommand, type ProcessMessage } from "./Broker.ts"
import { BrokerServer } from "./BrokerServer.ts"

const tell = (message: ProcessMessage): void => {
  process.send?.(message)
}

const refusal = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

process.once("disconnect", () => process.exit())
// Ctrl-C in a terminal reaches the parent too, which decides when its broker ends.
process.on("SIGINT", () => {})

try {
  const server = new BrokerServer(JSON.parse(process.argv[2] ?? "{}"))
  const commands = commandsOf(server)
  process.on("message", async ({ command, id, name }: ProcessCommand) => {
    try {
      tell({ id, value: await commands[name](command as never) })
    } catch (cause) {
      tell({ id, refusal: refusal(cause) })
    }
  })
  tell({ ports: await server.listen() })
} catch (cause) {
  tell({ id: undefined, refusal: refusal(cause) })
  process.exitCode = 1
  process.disconnect()
}
