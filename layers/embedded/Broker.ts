/**
 * A Fluvio cluster without an installation: what the demo, the tests and the benchmarks run on.
 *
 * It speaks the real protocol on loopback ports, so that every client of Fluvio can use it, and it is also
 * administered directly, without a client. It runs in this process or in one of its own.
 *
 * Gotcha: it is for development. It has no replication, no authentication and no TLS, and what it acknowledges survives
 * the death of its process, not that of the machine.
 */
import { Context, Effect, Layer, Schema, type Scope } from "effect"
import { fork } from "node:child_process"
import { extname } from "node:path"
import { fileURLToPath } from "node:url"
import type { Place } from "../fluvio/Connection.ts"
import { type Codec, encodeBatch, type NewRecord } from "../fluvio/RecordBatch.ts"
import { BrokerServer, type Faults, type ServerOptions } from "./BrokerServer.ts"
import { isRetryable } from "../../src/stream/Outcome.ts"

/** The broker could not be started, or refused what it was asked for. */
export class BrokerError extends Schema.TaggedError<BrokerError>()("BrokerError", {
  operation: Schema.String,
  reason: Schema.String
}) {
  readonly isRetryable = isRetryable(this)
  readonly remedy = "see the reason; if a port or the folder is in use, another development broker may still be running"
  override get message() {
    return `the development broker could not ${this.operation}: ${this.reason}`
  }
}

export interface BrokerOptions {
  /** Keeps topics in this folder, and finds them there again; without it they are in memory. */
  readonly folder?: string
  /** Port of the controller; any free one by default. */
  readonly port?: number
  /** How many SPUs there are; partitions start out led by the first one, whose id is 5001. */
  readonly spus?: number
  /** Ports that clients are told instead of the SPUs' own, in their order: of what stands in between. */
  readonly publicPorts?: ReadonlyArray<number>
}

export interface AppendOptions {
  /** Records per batch; all of them in one by default. */
  readonly batch?: number
  readonly codec?: Codec
  /** When the records were produced, in milliseconds since 1970; now by default. */
  readonly timestamp?: number
}

/** What a partition holds: `start` to one before `end`, of which those before `committed` are committed. */
export interface LogBounds {
  readonly start: number
  readonly committed: number
  readonly end: number
}

export interface BrokerShape {
  /** `host:port` of the controller, which is what clients are given. */
  readonly endpoint: string
  /** Of the controller, and then of each SPU. */
  readonly ports: ReadonlyArray<number>
  /** The log starts at `firstOffset`, 0 by default. */
  createTopic(
    topic: string,
    options?: { readonly partitions?: number; readonly firstOffset?: number }
  ): Effect.Effect<void, BrokerError>
  /** Readers of the topic are told `TopicDeleted`. */
  deleteTopic(topic: string): Effect.Effect<void, BrokerError>
  /** Appends without a client. */
  append(
    place: Place,
    records: ReadonlyArray<NewRecord>,
    options?: AppendOptions
  ): Effect.Effect<LogBounds, BrokerError>
  /** Appends a batch as it is, whatever it holds. */
  appendBatch(place: Place, batch: Buffer): Effect.Effect<LogBounds, BrokerError>
  bounds(place: Place): Effect.Effect<LogBounds, BrokerError>
  /** Raises the log's start to `offset`, as retention does. */
  trim(place: Place, offset: number): Effect.Effect<LogBounds, BrokerError>
  /** Lets another SPU lead; with an id of none there is no leader. */
  moveLeader(place: Place, spu: number): Effect.Effect<void, BrokerError>
  /** Changes the switches that are given and leaves the others. */
  setFaults(changes: Partial<Faults>): Effect.Effect<void, BrokerError>
  readonly closeConnections: Effect.Effect<void, BrokerError>
  /** How many sockets of clients are open. */
  readonly connections: Effect.Effect<number, BrokerError>
}

/** What is asked of the broker's process, and how it answers. */
interface Commands {
  createTopic(command: { topic: string; partitions: number; firstOffset: number }): void
  deleteTopic(command: { topic: string }): void
  append(command: Place & { batches: ReadonlyArray<Uint8Array> }): LogBounds
  bounds(command: Place): LogBounds
  trim(command: Place & { offset: number }): LogBounds
  moveLeader(command: Place & { spu: number }): void
  setFaults(command: Partial<Faults>): Promise<void>
  closeConnections(command: object): void
  connections(command: object): number
}

export type CommandName = keyof Commands
type Payload<Name extends CommandName> = Parameters<Commands[Name]>[0]
type Answer<Name extends CommandName> = Awaited<ReturnType<Commands[Name]>>
type Call = <Name extends CommandName>(name: Name, command: Payload<Name>) => Effect.Effect<Answer<Name>, BrokerError>

/** The commands, carried out by a server in this process. */
export const commandsOf = (server: BrokerServer): Commands => {
  const bounds = ({ partition, topic }: Place): LogBounds => {
    const { committed, log } = server.partition(topic, partition)
    return { start: log.start, committed, end: log.end }
  }
  return {
    createTopic: ({ firstOffset, partitions, topic }) => server.createTopic(topic, partitions, firstOffset),
    deleteTopic: ({ topic }) => server.deleteTopic(topic),
    append: (command) => {
      const partition = server.partition(command.topic, command.partition)
      for (const batch of command.batches) {
        server.append(partition, Buffer.from(batch.buffer, batch.byteOffset, batch.byteLength))
      }
      return bounds(command)
    },
    bounds,
    trim: (command) => {
      server.trim(command.topic, command.partition, command.offset)
      return bounds(command)
    },
    moveLeader: ({ partition, spu, topic }) => server.moveLeader(topic, partition, spu),
    setFaults: (changes) => server.setFaults(changes),
    closeConnections: () => server.closeConnections(),
    connections: () => server.connections
  }
}

const shape = (ports: ReadonlyArray<number>, call: Call): BrokerShape => ({
  endpoint: `127.0.0.1:${ports[0]}`,
  ports,
  createTopic: (topic, { firstOffset = 0, partitions = 1 } = {}) =>
    call("createTopic", { topic, partitions, firstOffset }),
  deleteTopic: (topic) => call("deleteTopic", { topic }),
  append: Effect.fnUntraced(function* (place, records, { batch = records.length, codec = "none", timestamp } = {}) {
    const produced = timestamp ?? (yield* Effect.clockWith((clock) => clock.currentTimeMillis))
    const batches: Array<Buffer> = []
    for (let start = 0; start < records.length; start += batch) {
      batches.push(encodeBatch(records.slice(start, start + batch), { codec, timestamp: produced }))
    }
    return yield* call("append", { ...place, batches })
  }),
  appendBatch: (place, batch) => call("append", { ...place, batches: [batch] }),
  bounds: (place) => call("bounds", place),
  trim: (place, offset) => call("trim", { ...place, offset }),
  moveLeader: (place, spu) => call("moveLeader", { ...place, spu }),
  setFaults: (changes) => call("setFaults", changes),
  closeConnections: call("closeConnections", {}),
  connections: call("connections", {})
})

const reasonOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const serverOptions = ({ folder, port = 0, publicPorts = [], spus = 1 }: BrokerOptions): ServerOptions => ({
  folder,
  publicPorts,
  ports: [port, ...Array.from({ length: spus }, () => 0)]
})

/** Starts a broker in this process. It closes with the scope. */
export const make = Effect.fn("Broker.make")(function* (
  options: BrokerOptions = {}
): Effect.fn.Return<BrokerShape, BrokerError, Scope.Scope> {
  const failed = (operation: string) => (cause: unknown) => new BrokerError({ operation, reason: reasonOf(cause) })
  const server = yield* Effect.acquireRelease(
    Effect.try({ try: () => new BrokerServer(serverOptions(options)), catch: failed("start") }),
    (server) => Effect.sync(() => server.close())
  )
  const ports = yield* Effect.tryPromise({ try: () => server.listen(), catch: failed("start") })
  const commands = commandsOf(server)
  return shape(ports, (name, command) =>
    Effect.tryPromise({
      try: async () => (await commands[name](command as never)) as never,
      catch: failed(name)
    })
  )
})

/** A broker in a process of its own, which can die and come back. */
export interface BrokerProcess extends BrokerShape {
  /** Ends the process with SIGKILL and waits until it is gone. */
  readonly kill: Effect.Effect<void>
  /** Starts the process again, on the same ports and folder. */
  readonly start: Effect.Effect<void, BrokerError>
}

/** The first message of the process, and then one for each command. */
export type ProcessMessage =
  | { readonly ports: ReadonlyArray<number> }
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number | undefined; readonly refusal: string }

export interface ProcessCommand {
  readonly id: number
  readonly name: CommandName
  readonly command: unknown
}

type Resume = (effect: Effect.Effect<unknown, string>) => void

/** Starts a broker in a process of its own. The process ends with the scope, and also when this process dies. */
export const spawn = Effect.fn("Broker.spawn")(function* (
  options: BrokerOptions = {}
): Effect.fn.Return<BrokerProcess, BrokerError, Scope.Scope> {
  const entry = fileURLToPath(new URL(`./BrokerProcess${extname(import.meta.url)}`, import.meta.url))
  let running: { readonly send: (command: ProcessCommand) => void; readonly end: Effect.Effect<void> } | undefined
  let settings = serverOptions(options)
  let lastId = 0
  const waiting = new Map<number, Resume>()

  const start = Effect.callback<void, BrokerError>((resume) => {
    const child = fork(entry, [JSON.stringify(settings)], {
      execArgv: [],
      // Structured clones carry bytes as they are.
      serialization: "advanced",
      stdio: ["ignore", "ignore", "inherit", "ipc"]
    })
    const gone = new Promise<void>((resolve) => {
      child.once("exit", () => resolve())
      // Without an id it never started, and so it will not exit.
      child.on("error", () => child.pid === undefined && resolve())
    })
    running = {
      // Sending fails only when the process is ending, which is reported once it has.
      send: (command) => child.send(command, () => {}),
      end: Effect.promise(() => {
        child.kill("SIGKILL")
        return gone
      })
    }
    child.on("message", (message: ProcessMessage) => {
      if ("ports" in message) {
        settings = { ...settings, ports: message.ports }
        resume(Effect.void)
      } else if (message.id === undefined) {
        resume(Effect.fail(new BrokerError({ operation: "start", reason: (message as { refusal: string }).refusal })))
      } else {
        const answered = waiting.get(message.id)
        waiting.delete(message.id)
        answered?.("value" in message ? Effect.succeed(message.value) : Effect.fail(message.refusal))
      }
    })
    void gone.then(() => {
      running = undefined
      const reason = "its process has ended"
      resume(Effect.fail(new BrokerError({ operation: "start", reason })))
      for (const [id, answer] of waiting) {
        waiting.delete(id)
        answer(Effect.fail(reason))
      }
    })
  })
  const kill = Effect.suspend(() => running?.end ?? Effect.void)

  yield* Effect.acquireRelease(start, () => kill)
  const call: Call = (name, command) =>
    Effect.callback<unknown, string>((resume) => {
      if (running === undefined) {
        return resume(Effect.fail("its process has ended"))
      }
      const id = ++lastId
      waiting.set(id, resume)
      running.send({ id, name, command })
      return Effect.sync(() => waiting.delete(id))
    }).pipe(
      Effect.map((value) => value as never),
      Effect.mapError((reason) => new BrokerError({ operation: name, reason }))
    )
  return { ...shape(settings.ports, call), kill, start }
})

export class Broker extends Context.Service<Broker, BrokerShape>()("fluvio-postgres-sink/embedded/Broker") {
  /** A broker in this process. */
  static readonly layer = (options?: BrokerOptions): Layer.Layer<Broker, BrokerError> =>
    Layer.effect(Broker, make(options))
}
