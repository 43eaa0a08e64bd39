/**
 * What can befall a connector in a bad night, by the part that it befalls. Every fault heals itself before it is over;
 * what the connector makes of it is not judged here but by the oracle, except where it has to *end* in a certain way.
 */
import { Data, Effect, Random } from "effect"
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { errorOf } from "../../layers/fluvio/Protocol.ts"
import { names } from "../../src/Failpoint.ts"
import { connect } from "../postgres.ts"
import type { ConnectorProcess, End } from "./ConnectorProcess.ts"
import { diskSize, type Harness, place, role, spus, until } from "./Harness.ts"

export const faultClasses = ["connector", "postgres", "fluvio", "source"] as const
export type FaultClass = (typeof faultClasses)[number]

/** The connector did something that no row shows, such as not ending when it was told to. */
export class Misbehaviour extends Data.TaggedError("Misbehaviour")<{ readonly message: string }> {}

export interface Fault {
  readonly name: string
  /** Fails with {@link Misbehaviour}, or with anything else when the moment for this fault did not come. */
  readonly inject: Effect.Effect<void, unknown>
}

const firstSpu = 5001
const opportunity = "6 seconds"

const pause = (min: number, max: number) =>
  Effect.flatMap(Random.nextIntBetween(min, max), (millis) => Effect.sleep(millis))

const oneOf = <A>(...items: readonly [A, ...ReadonlyArray<A>]) => Random.choice(items)

/** Repairs are not given up: the part that they need may be suffering from another fault just now. */
const surely = <A, E>(repair: Effect.Effect<A, E>) =>
  repair.pipe(
    Effect.tapError(() => Effect.sleep("100 millis")),
    Effect.eventually,
    Effect.asVoid
  )

/** For a while it is so. */
const during = <E1, E2>(begin: Effect.Effect<unknown, E1>, end: Effect.Effect<unknown, E2>, min: number, max: number) =>
  begin.pipe(Effect.andThen(pause(min, max)), Effect.ensuring(surely(end)))

const describe = ({ code, message, signal }: End) =>
  `${signal ?? `code ${code}`}${message === undefined ? "" : `: ${message}`}`

/** An orderly end is asked for, and given in time. */
const endsInOrder = (connector: ConnectorProcess, end: Effect.Effect<End | undefined>, isStarting = false) =>
  end.pipe(
    Effect.timeoutOrElse({
      duration: "15 seconds",
      orElse: () => Effect.fail(new Misbehaviour({ message: `${connector.name} did not end 15 s after SIGTERM` }))
    }),
    Effect.flatMap((end) =>
      // One that is still starting ends by the signal itself.
      end === undefined || end.code === 0 || (isStarting && end.signal === "SIGTERM")
        ? Effect.void
        : Effect.fail(
            new Misbehaviour({ message: `${connector.name} was told to end and ended with ${describe(end)}` })
          )
    )
  )

/** How many files the process may have open; what is open stays so. */
const limitFiles = (pid: number | undefined, count: number) =>
  Effect.tryPromise(() => promisify(execFile)("prlimit", ["--pid", String(pid), `--nofile=${count}:`]))

const connectorFaults = ({ chained, clock, first, network, second, target }: Harness): ReadonlyArray<Fault> => {
  const sessions = (name: string, condition = "true") =>
    Effect.map(
      target.database.query(`
        SELECT count(*) FROM pg_stat_activity AS session
        WHERE application_name = '${name}' AND ${condition}
      `),
      ([row]) => Number(row?.["count"]) > 0
    )
  const holdsLock = `EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pg_locks.pid = session.pid)`
  const terminateLockSession = target.database.query(`
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity AS session
    WHERE application_name = '${first.name}' AND ${holdsLock}
  `)
  const isInTransaction = sessions(first.name, "xact_start < clock_timestamp() - interval '50 ms'")

  /** Both instances run; at a random end of it, one of them is left. */
  const withSecond = <E>(body: Effect.Effect<unknown, E>) =>
    second.start.pipe(
      Effect.andThen(body),
      Effect.andThen(
        Effect.flatMap(Random.nextBoolean, (isFirst) => (isFirst ? first.signal("SIGKILL") : Effect.void))
      ),
      Effect.andThen(pause(0, 1500)),
      Effect.ensuring(
        Effect.flatMap(Random.nextBoolean, (isKilled) => (isKilled ? second.stop("SIGKILL") : Effect.void))
      ),
      Effect.andThen(endsInOrder(second, second.stop("SIGTERM"), true)),
      Effect.ensuring(second.stop("SIGKILL"))
    )

  return [
    { name: "killed", inject: first.signal("SIGKILL") },
    ...names.map((at) => ({
      name: `killed ${at}`,
      inject: Effect.flatMap(Random.nextIntBetween(1, at === "after schema change" ? 1 : 12), (passing) =>
        Effect.timeout(first.restartWith({ at, passing }), opportunity)
      )
    })),
    {
      name: "stalled before commit, and its sessions terminated",
      inject: first
        .restartWith({ at: "before commit", passing: 2, stall: 2500 })
        .pipe(
          Effect.raceFirst(pause(2000, 3500)),
          Effect.andThen(
            target.database.query(
              `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '${first.name}'`
            )
          )
        )
    },
    {
      name: "told to end in a transaction",
      inject: until(isInTransaction).pipe(
        Effect.timeout(opportunity),
        Effect.andThen(endsInOrder(first, first.endWith("SIGTERM")))
      )
    },
    {
      name: "frozen while another instance takes over",
      inject: withSecond(
        first
          .signal("SIGSTOP")
          .pipe(
            Effect.andThen(until(sessions(second.name))),
            Effect.andThen(terminateLockSession),
            Effect.andThen(until(sessions(second.name, holdsLock))),
            Effect.timeout("10 seconds"),
            Effect.ensuring(first.signal("SIGCONT")),
            Effect.andThen(pause(200, 1500))
          )
      )
    },
    {
      name: "clock jumps",
      inject: Effect.flatMap(oneOf(-10_000, -8, -1, 1, 8, 10_000), (hours) =>
        during(clock.jump(hours), clock.jump(0), 300, 2500)
      )
    },
    {
      name: "out of file descriptors",
      inject: Effect.flatMap(first.pid, (pid) =>
        during(
          Effect.all([limitFiles(pid, 3), network.toTarget.cut, ...network.toSpus.map(({ cut }) => cut)]),
          // It may have ended meanwhile, and with it the limit.
          Effect.ignore(limitFiles(pid, 1024)),
          300,
          2000
        )
      )
    },
    { name: "started twice", inject: withSecond(pause(800, 2500)) },
    { name: "the chained one killed", inject: chained.connector.signal("SIGKILL") },
    {
      name: "the chained one killed after statement",
      inject: Effect.flatMap(Random.nextIntBetween(1, 12), (passing) =>
        Effect.timeout(chained.connector.restartWith({ at: "after statement", passing }), opportunity)
      )
    }
  ]
}

const postgresFaults = ({
  first,
  network: { toTarget },
  target: { database, disk, server, url }
}: Harness): ReadonlyArray<Fault> => {
  const ofRole = `FROM pg_stat_activity WHERE usename = '${role}'`
  const terminate = database.query(`SELECT pg_terminate_backend(pid) ${ofRole}`)
  const restart = (stop: Effect.Effect<void, unknown>) =>
    Effect.andThen(stop, pause(0, 1200)).pipe(Effect.ensuring(surely(server.start)))

  /** A session of somebody else's. */
  const inTransaction = (statements: ReadonlyArray<string>, min: number, max: number) =>
    Effect.gen(function* () {
      const other = yield* connect("other", url)
      yield* other.query("BEGIN")
      for (const statement of statements) {
        yield* other.query(statement)
        yield* pause(min, max)
      }
      yield* other.query("ROLLBACK")
    }).pipe(Effect.scoped)

  return [
    { name: "all sessions terminated", inject: terminate },
    {
      name: "the applying session terminated",
      inject: until(
        Effect.map(
          database.query(`SELECT pg_terminate_backend(pid) ${ofRole} AND xact_start IS NOT NULL`),
          ({ length }) => length > 0
        )
      ).pipe(Effect.timeout(opportunity))
    },
    {
      name: "a statement cancelled",
      inject: until(
        Effect.map(
          database.query(`SELECT pg_cancel_backend(pid) ${ofRole} AND state = 'active'`),
          ({ length }) => length > 0
        )
      ).pipe(Effect.timeout(opportunity))
    },
    { name: "restarted, fast", inject: restart(server.stop("fast")) },
    { name: "restarted, immediate", inject: restart(server.stop("immediate")) },
    { name: "killed", inject: restart(server.kill) },
    {
      name: "too many connections",
      inject: during(
        Effect.andThen(database.query(`ALTER ROLE ${role} CONNECTION LIMIT 0`), terminate),
        database.query(`ALTER ROLE ${role} CONNECTION LIMIT -1`),
        300,
        2000
      )
    },
    {
      name: "disk full",
      inject: Effect.suspend(() => {
        const since = new Date().toISOString()
        const isSeen = Effect.map(first.log, (log) =>
          log.some((line) => line > since && line.includes("the target's disk is full"))
        )
        return disk.fill.pipe(
          Effect.andThen(until(isSeen)),
          Effect.timeout(opportunity),
          Effect.andThen(pause(0, 1000)),
          Effect.ensuring(disk.resize(diskSize))
        )
      })
    },
    {
      name: "read-only",
      inject: during(
        Effect.andThen(database.query(`ALTER ROLE ${role} SET default_transaction_read_only = on`), terminate),
        // A session keeps what it began with.
        Effect.andThen(database.query(`ALTER ROLE ${role} RESET default_transaction_read_only`), terminate),
        300,
        2000
      )
    },
    {
      name: "a table locked",
      inject: Effect.flatMap(
        oneOf("public.ledger_left", "public.customer", "public.writer", "fluvio.offset"),
        (table) => inTransaction([`LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`], 300, 2500)
      )
    },
    {
      name: "locks in the other order",
      inject: inTransaction(
        [`LOCK TABLE public.ledger_right IN SHARE MODE`, `LOCK TABLE public.ledger_left IN SHARE MODE`],
        100,
        600
      )
    },
    ...(["before", "after"] as const).map((when) => ({
      name: when === "before" ? "COMMIT lost" : "answer to COMMIT lost",
      inject: Effect.timeout(toTarget.cutAtCommit(when), opportunity)
    })),
    { name: "network cut", inject: toTarget.cut },
    {
      name: "network dead, then cut",
      inject: during(toTarget.setFrozen(true), Effect.andThen(toTarget.cut, toTarget.setFrozen(false)), 300, 2500)
    },
    {
      name: "network dead for a while",
      inject: during(toTarget.setFrozen(true), toTarget.setFrozen(false), 300, 2500)
    },
    {
      name: "network slow",
      inject: Effect.flatMap(oneOf(5, 50), (millis) =>
        during(toTarget.setDelay(millis), toTarget.setDelay(0), 1000, 3000)
      )
    }
  ]
}

const fluvioFaults = ({ broker, feed, network: { toController, toSpus } }: Harness): ReadonlyArray<Fault> => {
  const everySpu = (act: (proxy: (typeof toSpus)[number]) => Effect.Effect<void>) =>
    Effect.forEach(toSpus, act, { discard: true })
  const cutSpus = everySpu(({ cut }) => cut)
  const anySpu = Effect.map(Random.nextIntBetween(0, spus - 1), (index) => firstSpu + index)
  const lead = Effect.flatMap(anySpu, (spu) => broker.moveLeader(place, spu))

  return [
    {
      name: "broker killed",
      inject: Effect.andThen(broker.kill, pause(0, 1500)).pipe(Effect.ensuring(surely(broker.start)))
    },
    { name: "leader moved", inject: lead },
    { name: "no leader for a while", inject: during(broker.moveLeader(place, firstSpu + spus), lead, 200, 1500) },
    { name: "cut in mid-frame by the broker", inject: broker.setFaults({ cutFrame: true }) },
    {
      name: "cut in mid-frame by the network",
      inject: Effect.flatMap(Random.nextIntBetween(1, 100_000), (bytes) => everySpu((proxy) => proxy.cutAfter(bytes)))
    },
    { name: "a batch corrupt once", inject: broker.setFaults({ corruptBatch: true }) },
    { name: "a batch delivered twice", inject: broker.setFaults({ duplicateBatch: true }) },
    { name: "a batch appended twice", inject: Effect.timeout(feed.suffer("twice"), opportunity) },
    {
      name: "an error instead of records",
      inject: Effect.flatMap(oneOf(1, 6, 1002, 3000), (code) => broker.setFaults({ fetchError: errorOf(code) }))
    },
    {
      name: "broker silent for a while",
      inject: during(broker.setFaults({ frozen: true }), broker.setFaults({ frozen: false }), 500, 4000)
    },
    {
      name: "commits withheld for a while",
      inject: during(
        broker.setFaults({ withholdingCommits: true }),
        broker.setFaults({ withholdingCommits: false }),
        300,
        2000
      )
    },
    {
      name: "controller away, SPU serving",
      inject: during(
        Effect.andThen(toController.setRefusing(true), toController.cut),
        toController.setRefusing(false),
        500,
        2500
      )
    },
    {
      name: "controller away when the SPU's connection breaks",
      inject: during(
        Effect.all([toController.setRefusing(true), toController.cut, cutSpus]),
        toController.setRefusing(false),
        300,
        2000
      )
    },
    {
      name: "SPUs away, controller serving",
      inject: during(
        Effect.andThen(
          everySpu((proxy) => proxy.setRefusing(true)),
          cutSpus
        ),
        everySpu((proxy) => proxy.setRefusing(false)),
        300,
        2000
      )
    },
    { name: "network cut", inject: cutSpus },
    {
      name: "network dead for a while",
      inject: during(
        everySpu((proxy) => proxy.setFrozen(true)),
        everySpu((proxy) => proxy.setFrozen(false)),
        500,
        4000
      )
    },
    {
      name: "network slow",
      inject: Effect.flatMap(oneOf(5, 100), (millis) =>
        during(
          everySpu((proxy) => proxy.setDelay(millis)),
          everySpu((proxy) => proxy.setDelay(0)),
          1000,
          3000
        )
      )
    },
    {
      name: "network narrow, 1 Mbit/s",
      inject: during(
        everySpu((proxy) => proxy.setRate(125_000)),
        everySpu((proxy) => proxy.setRate(Infinity)),
        1000,
        3000
      )
    }
  ]
}

const sourceFaults = ({ chained, feed, source: { database, server } }: Harness): ReadonlyArray<Fault> => {
  const restart = (stop: Effect.Effect<void, unknown>) =>
    Effect.andThen(stop, pause(0, 1000)).pipe(Effect.ensuring(surely(server.start)))
  return [
    { name: "inbound ended in mid-transaction", inject: Effect.timeout(feed.suffer("middle"), opportunity) },
    { name: "inbound ended before it confirmed", inject: Effect.timeout(feed.suffer("behind"), opportunity) },
    { name: "inbound restarted", inject: during(feed.stop, feed.start, 0, 1500) },
    ...(["middle", "behind", "twice"] as const).map((mishap) => ({
      name: `the chain's inbound: ${mishap}`,
      inject: Effect.timeout(chained.feed.suffer(mishap), opportunity)
    })),
    {
      name: "replication session terminated",
      inject: database.query("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    },
    { name: "restarted, fast", inject: restart(server.stop("fast")) },
    { name: "restarted, immediate", inject: restart(server.stop("immediate")) },
    { name: "killed", inject: restart(server.kill) }
  ]
}

export const faultsOf = (harness: Harness): { readonly [Class in FaultClass]: ReadonlyArray<Fault> } => ({
  connector: connectorFaults(harness),
  postgres: postgresFaults(harness),
  fluvio: fluvioFaults(harness),
  source: sourceFaults(harness)
})
