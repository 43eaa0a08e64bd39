/**
 * One use of the vendor's native client, in a process of its own: the client can hang, and even crash its process.
 * It is the witness that the broker speaks Fluvio's protocol and not merely our idea of it.
 */
import fluvio from "@fluvio/client"
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"

export interface NativeRecord {
  readonly key: string | null
  readonly value: string
}

type Task =
  | { readonly type: "produce"; readonly topic: string; readonly records: ReadonlyArray<NativeRecord> }
  /** Reads `count` records from the `from`th after the log's start. */
  | {
      readonly type: "consume"
      readonly topic: string
      readonly partition: number
      readonly from: number
      readonly count: number
    }
  | { readonly type: "administer"; readonly topic: string; readonly partitions: number }

/** What the client saw of a topic while it created, found and deleted it. */
export interface Administered {
  readonly before: boolean
  readonly partitions: number
  readonly partition: unknown
  readonly names: ReadonlyArray<string>
  readonly spus: ReadonlyArray<string>
  readonly secondCreation: string
  readonly after: boolean
}

type Client = Awaited<ReturnType<typeof fluvio.default.connect>>

const produce = async (client: Client, topic: string, records: ReadonlyArray<NativeRecord>) => {
  const producer = await client.topicProducer(topic)
  for (let start = 0; start < records.length; start += 100) {
    await producer.sendAll(records.slice(start, start + 100).map(({ key, value }) => [key ?? "", value]))
  }
  await producer.flush()
}

/** An iterator that is collected while its `next()` is pending crashes the process, so it is kept here. */
const streams: Array<unknown> = []

const consume = async (client: Client, { count, from, partition, topic }: Task & { readonly type: "consume" }) => {
  const consumer = await client.partitionConsumer(topic, partition)
  const stream = await consumer.createStream(new fluvio.Offset({ index: from, from: "beginning" }))
  streams.push(stream)
  const records: Array<NativeRecord> = []
  for await (const record of stream) {
    records.push({ key: record.keyString(), value: record.valueString() })
    if (records.length === count) {
      break
    }
  }
  return records
}

const namesOf = (json: string): ReadonlyArray<string> =>
  (JSON.parse(json) as ReadonlyArray<{ readonly name: string }>).map(({ name }) => name)

const administer = async (client: Client, topic: string, partitions: number): Promise<Administered> => {
  const admin = await client.admin()
  const before = (await admin.findTopic(topic)) !== null
  await admin.createTopic(topic, { partitions, replicationFactor: 1, ignoreRackAssignment: false } as never)
  const partition = await admin.findPartition(topic)
  const names = namesOf(await admin.listTopic())
  const spus = namesOf(await admin.listSpu())
  const count = namesOf(await admin.listPartitions()).filter((name) => name.startsWith(`${topic}-`)).length
  // The client rejects with an array of one string.
  const secondCreation = await admin.createTopic(topic).then(
    () => "succeeded",
    (reason: unknown) => String(reason)
  )
  await admin.deleteTopic(topic)
  const after = (await admin.findTopic(topic)) !== null
  return { before, partitions: count, partition, names, spus, secondCreation, after }
}

const run = async (endpoint: string, task: Task): Promise<unknown> => {
  const [host = "", port] = endpoint.split(":")
  const client = await fluvio.default.connect({ host, port: Number(port) })
  switch (task.type) {
    case "produce":
      return produce(client, task.topic, task.records)
    case "consume":
      return consume(client, task)
    case "administer":
      return administer(client, task.topic, task.partitions)
  }
}

interface Outcome {
  readonly value?: unknown
  readonly error?: string
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.once("message", ({ endpoint, task }: { readonly endpoint: string; readonly task: Task }) => {
    run(endpoint, task).then(
      (value) => process.send?.({ value } satisfies Outcome),
      (reason: unknown) => process.send?.({ error: String(reason) } satisfies Outcome)
    )
  })
}

/** Runs the task in a process that is gone when this settles. A client that hangs fails after half a minute. */
const native = (endpoint: string, task: Task): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(import.meta.url), [], {
      execArgv: [],
      serialization: "advanced",
      stdio: ["ignore", "ignore", "ignore", "ipc"]
    })
    let outcome: Outcome = { error: "the process of the native client ended without an answer" }
    const deadline = setTimeout(() => {
      outcome = { error: "the native client hung for 30 s" }
      child.kill("SIGKILL")
    }, 30_000)
    child.once("message", (message: Outcome) => {
      outcome = message
      child.kill("SIGKILL")
    })
    child.once("exit", () => {
      clearTimeout(deadline)
      if (outcome.error === undefined) {
        resolve(outcome.value)
      } else {
        reject(new Error(outcome.error))
      }
    })
    child.send({ endpoint, task })
  })

export const produceNatively = async (endpoint: string, topic: string, records: ReadonlyArray<NativeRecord>) => {
  await native(endpoint, { type: "produce", topic, records })
}

export const consumeNatively = async (
  endpoint: string,
  topic: string,
  partition: number,
  from: number,
  count: number
) => (await native(endpoint, { type: "consume", topic, partition, from, count })) as ReadonlyArray<NativeRecord>

export const administerNatively = async (endpoint: string, topic: string, partitions: number) =>
  (await native(endpoint, { type: "administer", topic, partitions })) as Administered
