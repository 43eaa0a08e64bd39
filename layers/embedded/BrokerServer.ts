/**
 * A Fluvio cluster of one process: a controller (SC) and storage units (SPU), each on a port of its own on loopback.
 *
 * It follows the order of events of the real servers: one response in flight per stream, the next only when the reader
 * has acknowledged the one before it, a push when records arrive at a stream that has caught up. Beyond that it can be
 * told to misbehave as real servers and networks do, see {@link Faults}.
 *
 * It knows nothing of Effect; `Broker.ts` makes a scoped resource of it.
 */
import { mkdirSync, readdirSync, rmSync } from "node:fs"
import { createServer, type Server, type Socket } from "node:net"
import { join } from "node:path"
import {
  type Api,
  ApiVersions,
  decodeRequest,
  decodeRequestHeader,
  encodeResponse,
  type ErrorCode,
  errorOf,
  FetchOffsets,
  FrameSplitter,
  type Metadata,
  noError,
  objectLabel,
  Partition,
  type PartitionMetadata,
  Produce,
  ProtocolViolation,
  type RequestHeader,
  Spu,
  type SpuMetadata,
  StreamFetch,
  Topic,
  type TopicMetadata,
  UpdateOffsets,
  type WatchUpdate
} from "../fluvio/Protocol.ts"
import { BatchCorrupt, findBatches } from "../fluvio/RecordBatch.ts"
import { Reader, type TypeOf } from "../fluvio/Wire.ts"
import { PartitionLog } from "./PartitionLog.ts"

/** Ways to misbehave. Those that happen once switch themselves off when they have. */
export interface Faults {
  /** Cut every response at the reader's `max_bytes`, wherever that is in a batch, as a real SPU does. */
  readonly cutAtMaxBytes: boolean
  /** Stay connected and answer nothing. What arrives meanwhile is answered once this ends. */
  readonly frozen: boolean
  /** Accept no connections. Those that are open stay. */
  readonly refusing: boolean
  /** Keep appended records uncommitted until this ends. */
  readonly withholdingCommits: boolean
  /** Milliseconds by which every response is delayed. */
  readonly delay: number
  /** Once: this error instead of the next records. */
  readonly fetchError: ErrorCode | undefined
  /** Once: break off the connection in the middle of the next frame with records. */
  readonly cutFrame: boolean
  /** Once: a wrong checksum in the first batch of the next records. */
  readonly corruptBatch: boolean
  /** Once: the last batch of the next records comes twice. */
  readonly duplicateBatch: boolean
}

const noFaults: Faults = {
  cutAtMaxBytes: false,
  frozen: false,
  refusing: false,
  withholdingCommits: false,
  delay: 0,
  fetchError: undefined,
  cutFrame: false,
  corruptBatch: false,
  duplicateBatch: false
}

export interface ServerOptions {
  /** Where topics are kept; without it, in memory. */
  readonly folder: string | undefined
  /** Port of the controller, then one of each SPU; 0 for any free one. */
  readonly ports: ReadonlyArray<number>
  /** The port that clients are told of each SPU, where it is not its own. */
  readonly publicPorts: ReadonlyArray<number>
}

/** Ids of SPUs count up from here, as those of a real cluster do. */
export const firstSpu = 5001
const host = "127.0.0.1"
const maxRequestBytes = 64 * 1024 * 1024
const maxBatchBytes = 32 * 1024 * 1024
/** A cluster keeps consumers' offsets here. A client that sees no topic at all waits a minute for the first one. */
const systemTopic = "consumer-offset"

interface PartitionState {
  readonly topic: string
  readonly index: number
  readonly log: PartitionLog
  leader: number
  /** One past the last committed record. */
  committed: number
  /** Producers that wait for a commit up to an offset. */
  readonly waiting: Array<{ readonly until: number; readonly resume: () => void }>
}

interface StreamSession {
  readonly id: number
  readonly peer: Peer
  readonly partition: PartitionState
  readonly correlationId: number
  readonly maxBytes: number
  readonly isCommittedOnly: boolean
  /** Where the reader goes on, once it has acknowledged all it was sent; `undefined` while a response is in flight. */
  from: number | undefined
}

interface Watcher {
  readonly label: string
  /** The objects are those of the label. */
  notify(update: WatchUpdate<never, never>): void
}

interface ObjectApis<Spec, Status> {
  readonly label: string
  readonly list: Api<{ readonly filters: ReadonlyArray<string> }, ReadonlyArray<Metadata<Spec, Status>>>
  readonly watch: Api<unknown, WatchUpdate<Spec, Status>>
}

/** One socket of a client. */
class Peer {
  readonly sessions = new Map<number, StreamSession>()
  readonly watchers: Array<Watcher> = []
  /** The SPU it is connected to; `undefined` for the controller. */
  readonly spu: number | undefined
  readonly socket: Socket
  private readonly outbox: Array<ReadonlyArray<Buffer>> = []
  private readonly server: BrokerServer
  private lastSession = 0

  constructor(server: BrokerServer, socket: Socket, spu: number | undefined) {
    this.server = server
    this.socket = socket
    this.spu = spu
    const splitter = new FrameSplitter(maxRequestBytes)
    socket.setNoDelay(true)
    socket.on("data", (chunk: Buffer) => {
      try {
        for (const frame of splitter.push(chunk)) {
          server.answer(this, new Reader(frame))
        }
      } catch (error) {
        if (!(error instanceof ProtocolViolation)) {
          throw error
        }
        socket.destroy(error)
      }
    })
    // A violation, or a client that is gone: there is nobody to tell.
    socket.on("error", () => socket.destroy())
    if (server.faults.frozen) {
      socket.pause()
    }
  }

  openSession(session: Omit<StreamSession, "id" | "peer">): StreamSession {
    this.lastSession++
    const opened = { ...session, id: this.lastSession, peer: this }
    this.sessions.set(opened.id, opened)
    return opened
  }

  reply<Request, Response>(api: Api<Request, Response>, correlationId: number, response: Response): void {
    this.send(encodeResponse(api, correlationId, response))
  }

  /** With `isLast`, the connection ends behind it. */
  send(frame: ReadonlyArray<Buffer>, isLast = false): void {
    const { delay } = this.server.faults
    const write = () => {
      this.write(frame)
      if (isLast) {
        this.socket.destroySoon()
      }
    }
    if (delay > 0) {
      setTimeout(write, delay)
    } else {
      write()
    }
  }

  private write(frame: ReadonlyArray<Buffer>): void {
    if (this.server.faults.frozen) {
      this.outbox.push(frame)
      return
    }
    this.socket.cork()
    for (const piece of frame) {
      this.socket.write(piece)
    }
    this.socket.uncork()
  }

  thaw(): void {
    for (const frame of this.outbox.splice(0)) {
      this.write(frame)
    }
    this.socket.resume()
  }
}

export class BrokerServer {
  faults: Faults = noFaults
  private readonly folder: string | undefined
  private readonly topics = new Map<string, ReadonlyArray<PartitionState>>()
  private readonly servers: ReadonlyArray<Server>
  private readonly peers = new Set<Peer>()
  private ports: ReadonlyArray<number>
  private readonly publicPorts: ReadonlyArray<number>
  private epoch = 0

  constructor(options: ServerOptions) {
    this.folder = options.folder
    this.ports = options.ports
    this.publicPorts = options.publicPorts
    this.servers = options.ports.map((_, index) => {
      const spu = index === 0 ? undefined : firstSpu + index - 1
      return createServer((socket) => {
        const peer = new Peer(this, socket, spu)
        this.peers.add(peer)
        socket.once("close", () => {
          this.peers.delete(peer)
        })
      })
    })
    if (this.folder !== undefined) {
      mkdirSync(this.folder, { recursive: true })
      for (const topic of readdirSync(this.folder)) {
        const logs = readdirSync(join(this.folder, topic)).filter((name) => name.endsWith(".log"))
        this.open(topic, logs.length, 0)
      }
    }
    if (!this.topics.has(systemTopic)) {
      this.open(systemTopic, 1, 0)
    }
  }

  /** Listens on all ports, and returns them. */
  async listen(): Promise<ReadonlyArray<number>> {
    const ports: Array<number> = []
    for (const [index, server] of this.servers.entries()) {
      ports.push(await listening(server, this.ports[index] ?? 0))
    }
    this.ports = ports
    return ports
  }

  /** The ports are free at once, although the servers only count as closed when their last connection is. */
  private refuse(): void {
    for (const server of this.servers) {
      server.close()
    }
  }

  /** Closes ports, connections and files. */
  close(): void {
    this.refuse()
    this.closeConnections()
    for (const partition of this.partitions()) {
      partition.log.close()
    }
  }

  get connections(): number {
    return this.peers.size
  }

  closeConnections(): void {
    for (const peer of this.peers) {
      peer.socket.destroy()
    }
  }

  /** Changes the given switches; the others stay as they are. */
  async setFaults(changes: Partial<Faults>): Promise<void> {
    const before = this.faults
    this.faults = { ...before, ...changes }
    if (this.faults.frozen && !before.frozen) {
      for (const peer of this.peers) {
        peer.socket.pause()
      }
    }
    if (!this.faults.frozen && before.frozen) {
      for (const peer of this.peers) {
        peer.thaw()
      }
    }
    if (!this.faults.withholdingCommits && before.withholdingCommits) {
      for (const partition of this.partitions()) {
        this.commit(partition)
      }
    }
    if (this.faults.refusing && !before.refusing) {
      this.refuse()
    }
    if (!this.faults.refusing && before.refusing) {
      await this.listen()
    }
  }

  private partitions(): ReadonlyArray<PartitionState> {
    return [...this.topics.values()].flat()
  }

  /** The partition, or an error that says it is not there. */
  partition(topic: string, index: number): PartitionState {
    const partition = this.topics.get(topic)?.[index]
    if (partition === undefined) {
      throw new Error(`there is no partition ${topic}-${index}`)
    }
    return partition
  }

  private open(topic: string, partitions: number, firstOffset: number): ReadonlyArray<PartitionState> {
    const folder = this.folder === undefined ? undefined : join(this.folder, topic)
    if (folder !== undefined) {
      mkdirSync(folder, { recursive: true })
    }
    const opened = Array.from({ length: partitions }, (_, index): PartitionState => {
      const log = new PartitionLog(folder === undefined ? undefined : join(folder, `${index}.log`), firstOffset)
      return { topic, index, log, leader: firstSpu, committed: log.end, waiting: [] }
    })
    this.topics.set(topic, opened)
    return opened
  }

  createTopic(name: string, partitions: number, firstOffset: number): void {
    const error = this.whyNotCreate(name, partitions)
    if (error !== undefined) {
      throw new Error(`the topic ${JSON.stringify(name)} cannot be created: ${error.name}`)
    }
    const opened = this.open(name, partitions, firstOffset)
    this.notifyWatchers(Topic, "update", [topicMetadata(name, opened)])
    this.notifyWatchers(Partition, "update", opened.map(partitionMetadata))
  }

  private whyNotCreate(name: string, partitions: number): ErrorCode | undefined {
    if (!/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(name)) {
      return errorOf(2006)
    }
    if (this.topics.has(name)) {
      return errorOf(2002)
    }
    return partitions < 1 ? errorOf(60) : undefined
  }

  deleteTopic(name: string): void {
    const partitions = this.topics.get(name)
    if (partitions === undefined) {
      throw new Error(`there is no topic ${name}`)
    }
    this.topics.delete(name)
    this.notifyWatchers(Partition, "delete", partitions.map(partitionMetadata))
    this.notifyWatchers(Topic, "delete", [topicMetadata(name, partitions)])
    for (const partition of partitions) {
      for (const session of this.sessionsOf(partition)) {
        this.endSession(session, errorOf(2007))
      }
      partition.log.close()
    }
    if (this.folder !== undefined) {
      rmSync(join(this.folder, name), { recursive: true })
    }
  }

  /** Lets another SPU lead. Readers at the one before are told so; with an id of no SPU there is no leader at all. */
  moveLeader(topic: string, index: number, spu: number): void {
    const partition = this.partition(topic, index)
    partition.leader = spu
    this.notifyWatchers(Partition, "update", [partitionMetadata(partition)])
    for (const session of this.sessionsOf(partition)) {
      this.endSession(session, errorOf(6))
    }
  }

  /** Retention: the log now starts at `offset`. */
  trim(topic: string, index: number, offset: number): void {
    const { log } = this.partition(topic, index)
    if (offset < log.start || offset > log.end) {
      throw new Error(`offset ${offset} is not in ${topic}-${index}, which holds ${log.start} to ${log.end}`)
    }
    log.trim(offset)
  }

  /** Appends one whole batch, pushes it to the readers that have caught up, and returns its base offset. */
  append(partition: PartitionState, batch: Buffer): number {
    const baseOffset = partition.log.append(batch)
    if (!this.faults.withholdingCommits) {
      this.commit(partition)
    } else {
      this.push(partition)
    }
    return baseOffset
  }

  private commit(partition: PartitionState): void {
    partition.committed = partition.log.end
    for (const { resume, until } of partition.waiting.splice(0)) {
      if (until <= partition.committed) {
        resume()
      }
    }
    this.push(partition)
  }

  private push(partition: PartitionState): void {
    for (const session of this.sessionsOf(partition)) {
      if (session.from !== undefined) {
        this.serve(session, session.from)
      }
    }
  }

  private sessionsOf(partition: PartitionState): ReadonlyArray<StreamSession> {
    return [...this.peers].flatMap((peer) =>
      [...peer.sessions.values()].filter((session) => session.partition === partition)
    )
  }

  /** Answers one request, in no other version than those of `Protocol.ts`. A violation ends the connection. */
  answer(peer: Peer, body: Reader): void {
    const header = decodeRequestHeader(body)
    if (header.key === ApiVersions.key) {
      read(ApiVersions, header, body)
      return this.greet(peer, header.correlationId)
    }
    if (peer.spu === undefined) {
      this.answerAsController(peer, header, body)
    } else {
      this.answerAsStorage(peer, peer.spu, header, body)
    }
  }

  private greet(peer: Peer, correlationId: number): void {
    const apis =
      peer.spu === undefined
        ? [Topic.create, Topic.delete, Topic.list, Topic.watch]
        : [Produce, FetchOffsets, StreamFetch, UpdateOffsets]
    peer.reply(ApiVersions, correlationId, {
      error: noError,
      apis: apis.map(({ key, version }) => ({ key, min: version, max: version })),
      platformVersion: peer.spu === undefined ? "0.11.11" : "0.0.0"
    })
  }

  private answerAsController(peer: Peer, header: RequestHeader, body: Reader): void {
    const label = objectLabel(body)
    switch (label) {
      case Topic.label:
        if (header.key === Topic.create.key) {
          return this.answerCreate(peer, header.correlationId, read(Topic.create, header, body))
        }
        if (header.key === Topic.delete.key) {
          return this.answerDelete(peer, header.correlationId, read(Topic.delete, header, body))
        }
        return this.answerAbout(Topic, this.allTopics(), peer, header, body)
      case Partition.label:
        return this.answerAbout(Partition, this.allPartitions(), peer, header, body)
      case Spu.label:
        return this.answerAbout(Spu, this.allSpus(), peer, header, body)
      default:
        throw new ProtocolViolation(`the controller has no objects of type ${label}`)
    }
  }

  private answerCreate(
    peer: Peer,
    correlationId: number,
    { dryRun, name, spec: { replicas } }: TypeOf<typeof Topic.create.request>
  ): void {
    const partitions =
      replicas.type === "computed" ? replicas.partitions : replicas.type === "assigned" ? replicas.partitions.length : 0
    const error = this.whyNotCreate(name, partitions)
    if (error === undefined && !dryRun) {
      // Watchers see it before the answer, so that it can be used at once. A real controller does not promise that.
      this.createTopic(name, partitions, 0)
    }
    peer.reply(Topic.create, correlationId, { name, error: error ?? noError, message: undefined })
  }

  private answerDelete(peer: Peer, correlationId: number, { name }: TypeOf<typeof Topic.delete.request>): void {
    const exists = this.topics.has(name)
    if (exists) {
      this.deleteTopic(name)
    }
    peer.reply(Topic.delete, correlationId, { name, error: exists ? noError : errorOf(2001), message: undefined })
  }

  /** Answers a List or a Watch. */
  private answerAbout<Spec, Status>(
    { label, list, watch }: ObjectApis<Spec, Status>,
    objects: ReadonlyArray<Metadata<Spec, Status>>,
    peer: Peer,
    header: RequestHeader,
    body: Reader
  ): void {
    const { correlationId, key } = header
    if (key === list.key) {
      const { filters } = read(list, header, body)
      const wanted = objects.filter(({ name }) => filters.length === 0 || filters.includes(name))
      return peer.reply(list, correlationId, wanted)
    }
    if (key === watch.key) {
      read(watch, header, body)
      peer.watchers.push({ label, notify: (update) => peer.reply(watch, correlationId, update) })
      return peer.reply(watch, correlationId, { epoch: this.epoch, changes: [], all: objects })
    }
    throw new ProtocolViolation(`the controller does not answer ${key} for ${label}`)
  }

  private notifyWatchers<Spec, Status>(
    { label }: ObjectApis<Spec, Status>,
    type: "update" | "delete",
    objects: ReadonlyArray<Metadata<Spec, Status>>
  ): void {
    this.epoch++
    const changes = objects.map((object) => ({ type, object: object as Metadata<never, never> }))
    for (const peer of this.peers) {
      for (const watcher of peer.watchers) {
        if (watcher.label === label) {
          watcher.notify({ epoch: this.epoch, changes, all: [] })
        }
      }
    }
  }

  private allTopics(): ReadonlyArray<TopicMetadata> {
    return [...this.topics].map(([name, partitions]) => topicMetadata(name, partitions))
  }

  private allPartitions(): ReadonlyArray<PartitionMetadata> {
    return this.partitions().map(partitionMetadata)
  }

  private allSpus(): ReadonlyArray<SpuMetadata> {
    return this.ports.slice(1).map((port, index) => {
      const id = firstSpu + index
      return {
        name: `custom-spu-${id}`,
        spec: {
          id,
          kind: 1,
          publicEndpoint: {
            port: this.publicPorts[index] ?? port,
            ingress: [{ hostname: host, ip: undefined }],
            encryption: 0
          },
          privateEndpoint: { port, host, encryption: 0 },
          rack: undefined,
          publicEndpointLocal: undefined
        },
        status: { resolution: 0 }
      }
    })
  }

  private answerAsStorage(peer: Peer, spu: number, header: RequestHeader, body: Reader): void {
    switch (header.key) {
      case Produce.key:
        return this.produce(peer, spu, header.correlationId, read(Produce, header, body))
      case FetchOffsets.key:
        return this.fetchOffsets(peer, spu, header.correlationId, read(FetchOffsets, header, body))
      case StreamFetch.key:
        return this.streamFetch(peer, spu, header.correlationId, read(StreamFetch, header, body))
      case UpdateOffsets.key:
        return this.updateOffsets(peer, header.correlationId, read(UpdateOffsets, header, body))
      default:
        throw new ProtocolViolation(`an SPU does not answer ${header.key}`)
    }
  }

  private led(spu: number, topic: string, index: number): PartitionState | undefined {
    const partition = this.topics.get(topic)?.[index]
    return partition?.leader === spu ? partition : undefined
  }

  private produce(
    peer: Peer,
    spu: number,
    correlationId: number,
    { acks, topics }: TypeOf<typeof Produce.request>
  ): void {
    let uncommitted = 0
    const reply = () => {
      if (uncommitted === 0) {
        peer.reply(Produce, correlationId, { topics: answers, throttleMs: 0 })
      }
    }
    const answers = topics.map(({ name, partitions }) => ({
      name,
      partitions: partitions.map(({ partition: index, records }) => {
        const partition = this.led(spu, name, index)
        const outcome = partition === undefined ? errorOf(6) : this.appendAll(partition, Buffer.concat(records))
        if (partition !== undefined && acks < 0 && partition.committed < partition.log.end) {
          uncommitted++
          const resume = () => {
            uncommitted--
            reply()
          }
          partition.waiting.push({ until: partition.log.end, resume })
        }
        return {
          partition: index,
          error: typeof outcome === "number" ? noError : outcome,
          baseOffset: typeof outcome === "number" ? outcome : -1,
          logAppendTime: -1,
          logStartOffset: partition?.log.start ?? -1
        }
      })
    }))
    reply()
  }

  /** The base offset of the first batch, or why none was appended. */
  private appendAll(partition: PartitionState, records: Buffer): number | ErrorCode {
    try {
      const { cut, whole } = findBatches(records, maxBatchBytes)
      if (cut !== undefined) {
        return errorOf(2, `a batch of ${cut.bytes} bytes is cut`)
      }
      const baseOffset = partition.log.end
      for (const { end, start } of whole) {
        this.append(partition, records.subarray(start, end))
      }
      return baseOffset
    } catch (error) {
      if (error instanceof BatchCorrupt) {
        return errorOf(2, error.reason)
      }
      throw error
    }
  }

  private fetchOffsets(
    peer: Peer,
    spu: number,
    correlationId: number,
    { topics }: TypeOf<typeof FetchOffsets.request>
  ): void {
    peer.reply(
      FetchOffsets,
      correlationId,
      topics.map(({ name, partitions }) => ({
        name,
        partitions: partitions.map((index) => {
          const partition = this.led(spu, name, index)
          return {
            error: partition === undefined ? errorOf(3001) : noError,
            partition: index,
            startOffset: partition?.log.start ?? 0,
            lastStableOffset: partition?.committed ?? 0
          }
        })
      }))
    )
  }

  private streamFetch(
    peer: Peer,
    spu: number,
    correlationId: number,
    { fetchOffset, isolation, maxBytes, partition: index, topic }: TypeOf<typeof StreamFetch.request>
  ): void {
    const partition = this.led(spu, topic, index)
    if (partition === undefined) {
      return peer.reply(StreamFetch, correlationId, {
        ...emptyFetch,
        topic,
        partition: index,
        streamId: 0,
        error: errorOf(6)
      })
    }
    const session = peer.openSession({
      partition,
      correlationId,
      maxBytes,
      isCommittedOnly: isolation === 1,
      from: undefined
    })
    const { end } = partition.log
    if (fetchOffset > end) {
      return this.endSession(session, errorOf(2, `start offset: ${fetchOffset} is greater than leo: ${end}`))
    }
    this.serve(session, fetchOffset)
  }

  private updateOffsets(peer: Peer, correlationId: number, { offsets }: TypeOf<typeof UpdateOffsets.request>): void {
    peer.reply(
      UpdateOffsets,
      correlationId,
      offsets.map(({ sessionId }) => ({
        sessionId,
        error: peer.sessions.has(sessionId) ? noError : errorOf(3002)
      }))
    )
    for (const { offset, sessionId } of offsets) {
      const session = peer.sessions.get(sessionId)
      if (session !== undefined) {
        this.serve(session, offset)
      }
    }
  }

  /** Sends what there is from `from` on. If there is nothing, the session is parked and nothing is sent. */
  private serve(session: StreamSession, from: number): void {
    const { isCommittedOnly, maxBytes, partition } = session
    const { log } = partition
    const { fetchError } = this.faults
    if (fetchError !== undefined) {
      this.faults = { ...this.faults, fetchError: undefined }
      return this.endSession(session, fetchError)
    }
    if (from < log.start) {
      return this.endSession(session, errorOf(71, from, log.start))
    }
    const until = isCommittedOnly ? partition.committed : log.end
    const records = from < until ? log.read(from, until, maxBytes, this.faults.cutAtMaxBytes) : []
    if (records.length === 0) {
      session.from = from
      return
    }
    session.from = undefined
    this.sendRecords(session, this.spoil(records))
  }

  private sendRecords({ correlationId, id, partition, peer }: StreamSession, records: ReadonlyArray<Buffer>): void {
    const frame = encodeResponse(StreamFetch, correlationId, {
      ...emptyFetch,
      topic: partition.topic,
      streamId: id,
      partition: partition.index,
      highWatermark: partition.committed,
      logStartOffset: partition.log.start,
      records
    })
    if (this.faults.cutFrame) {
      this.faults = { ...this.faults, cutFrame: false }
      const whole = Buffer.concat(frame)
      peer.send([whole.subarray(0, whole.length >>> 1)], true)
    } else {
      peer.send(frame)
    }
  }

  /** The records with the faults that were asked for. */
  private spoil(records: ReadonlyArray<Buffer>): ReadonlyArray<Buffer> {
    const { corruptBatch, duplicateBatch } = this.faults
    if (!corruptBatch && !duplicateBatch) {
      return records
    }
    this.faults = { ...this.faults, corruptBatch: false, duplicateBatch: false }
    const bytes = Buffer.concat(records)
    const crcPosition = 17
    if (corruptBatch) {
      bytes.writeUInt32BE(~bytes.readUInt32BE(crcPosition) >>> 0, crcPosition)
    }
    const last = findBatches(bytes).whole.at(-1)
    return duplicateBatch && last !== undefined
      ? [bytes.subarray(0, last.end), bytes.subarray(last.start, last.end)]
      : [bytes]
  }

  private endSession({ correlationId, id, partition, peer }: StreamSession, error: ErrorCode): void {
    peer.sessions.delete(id)
    peer.reply(StreamFetch, correlationId, {
      ...emptyFetch,
      topic: partition.topic,
      streamId: id,
      partition: partition.index,
      error
    })
  }
}

const emptyFetch = {
  error: noError,
  highWatermark: 0,
  nextFilterOffset: 0,
  logStartOffset: 0,
  aborted: undefined,
  records: []
}

const read = <Request, Response>(api: Api<Request, Response>, header: RequestHeader, body: Reader): Request => {
  if (header.version !== api.version) {
    throw new ProtocolViolation(`${api.name} of version ${header.version}; only ${api.version} is spoken`)
  }
  return decodeRequest(api, body)
}

const topicMetadata = (name: string, partitions: ReadonlyArray<PartitionState>): TopicMetadata => ({
  name,
  spec: {
    replicas: { type: "computed", partitions: partitions.length, replication: 1, ignoreRack: false },
    cleanupPolicy: undefined,
    storage: undefined,
    compression: 4,
    deduplication: undefined,
    system: name === systemTopic
  },
  status: {
    resolution: 4,
    replicaMap: partitions.map(({ index, leader }) => [index, [leader]]),
    mirrorMap: [],
    reason: ""
  }
})

const partitionMetadata = ({ committed, index, leader, log, topic }: PartitionState): PartitionMetadata => ({
  name: `${topic}-${index}`,
  spec: {
    leader,
    replicas: [leader],
    cleanupPolicy: undefined,
    storage: undefined,
    compression: 4,
    deduplication: undefined,
    system: topic === systemTopic,
    mirror: undefined
  },
  status: {
    resolution: 1,
    leader: { spu: leader, highWatermark: committed, endOffset: log.end },
    liveReplicas: 1,
    replicas: [],
    size: log.size,
    isBeingDeleted: false,
    // As of a real controller, which does not learn of retention.
    baseOffset: 0
  }
})

const listening = (server: Server, port: number): Promise<number> =>
  new Promise((resolve, reject) => {
    server.once("error", reject)
    server.listen(port, host, () => {
      server.off("error", reject)
      const address = server.address()
      if (address === null || typeof address === "string") {
        return reject(new Error("the server listens on no port"))
      }
      resolve(address.port)
    })
  })
