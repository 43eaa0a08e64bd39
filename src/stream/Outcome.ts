/**
 * What follows from each error: whether trying again may help, whose turn it is, and how the process exits.
 *
 * This is the only place that decides it. An error class asks here for its `isRetryable`, the retry around the pipeline
 * and the log go by that, and the command line takes its exit code from here. A test holds the table to all error
 * classes that `src` and `layers` export.
 */

/** The exit codes of the program, as docs/errors.md lists them. */
export const exitCodes = {
  /** Done, or stopped by SIGTERM or SIGINT. */
  fine: 0,
  /** A defect of the connector, or something that nobody has thought of. */
  failed: 1,
  /** The command line or a setting is wrong. */
  usage: 2,
  /** The answer of a command is no: not ready, different, or lagging behind. */
  notReady: 3,
  /** The operator has to decide or to repair something; the same start again would end the same way. */
  stopped: 4,
  /** What might have passed by itself did not pass within `retry.times`. */
  gaveUp: 5
} as const

/** The command by which an operator has reading go on elsewhere, as the remedies name it. */
export const positionSet = (flags: string): string => `\`fluvio-postgres-sink position set ${flags} --reason … --yes\``

/** A copy holds a part of what the topic brings once more. */
export const untilCaughtUp = "start with `existing-row: update` until it has caught up"

/** What to do where the topic is not the one that was read. */
export const otherTopic = `point the connector at the topic it was reading; or, if that is gone, run \`fluvio-postgres-sink position reset --reason … --yes\`, with the same settings, then copy the tables from the source again, and ${untilCaughtUp}`

/** Whose turn it is, which is the kind of remedy that the error's own `remedy` spells out. */
const outcomes = {
  /** It may pass by itself; the remedy is for when it does not. */
  passing: { isRetryable: true, exitCode: exitCodes.gaveUp },
  /** A setting, or the connector's environment, has to be corrected. */
  settings: { isRetryable: false, exitCode: exitCodes.usage },
  /** A record or a value has to be corrected, or set aside. */
  data: { isRetryable: false, exitCode: exitCodes.stopped },
  /** The target's tables, types or rights have to be made to fit. */
  schema: { isRetryable: false, exitCode: exitCodes.stopped },
  /** Rows of source and target have to be made to agree. */
  conflict: { isRetryable: false, exitCode: exitCodes.stopped },
  /** It has to be decided where in the source's history the target stands. */
  position: { isRetryable: false, exitCode: exitCodes.stopped },
  /** A command was asked, and its answer is no. */
  answer: { isRetryable: false, exitCode: exitCodes.notReady },
  /** It has to be reported. */
  defect: { isRetryable: false, exitCode: exitCodes.failed }
} as const

export type Outcome = keyof typeof outcomes

/** What some classes know of themselves. */
interface Facts {
  readonly isRetryable?: unknown
  readonly class?: unknown
  readonly given?: unknown
  readonly sqlState?: unknown
  readonly failure?: Facts
}

/** By what `target/SqlFailure` makes of the SQLSTATE. */
const bySqlFailure = (failure: Facts): Outcome => {
  if (failure.isRetryable === true) return "passing"
  // A pooler has lost a prepared statement, or mixed them up; within a transaction the driver hides that behind 25P02.
  if (["26000", "42P05", "25P02"].includes(failure.sqlState as string)) return "settings"
  switch (failure.class) {
    case "authentication":
    case "connection":
    case "tls":
      return "settings"
    case "data":
      return "data"
    case "constraint":
      return "conflict"
    case "privilege":
    case "schema":
      return "schema"
    default:
      return "defect"
  }
}

/** By the tag of the error's class; a function where the error's facts decide. */
const table = {
  // Reading the topic
  OffsetEvicted: "position",
  OffsetBeyondEnd: "position",
  OffsetGap: "data",
  CorruptBatch: "data",
  BatchTooLarge: "settings",
  TopicNotFound: "settings",
  LeaderMoved: "passing",
  FluvioUnreachable: "passing",
  FluvioSilent: "passing",
  FluvioProtocolError: "settings",
  FluvioTlsError: "settings",
  FluvioProfileError: "settings",
  CodecMissing: "settings",
  DriverLimit: "settings",
  // Records to transactions
  EventDecodeError: "data",
  FloatNull: "data",
  UnknownRelation: "data",
  WrongArity: "data",
  CommitWithoutBegin: "data",
  CommitMissing: "position",
  OutsideTransaction: "position",
  CommitMismatch: "data",
  RecordsRepeated: "data",
  SourceRewound: "position",
  BeginMissing: "position",
  RestMissing: "passing",
  // The place in the topic
  RetentionGap: "position",
  PlaceNotProved: "position",
  PlaceInsideTransaction: "position",
  PositionConflict: "passing",
  LockLost: "passing",
  OffsetStoreError: (error) => (error.class === undefined ? "schema" : bySqlFailure(error)),
  // The target
  SqlFailure: bySqlFailure,
  ApplyFailed: ({ failure = {} }) => bySqlFailure(failure),
  InTransactionFailed: ({ failure = {} }) => (bySqlFailure(failure) === "passing" ? "passing" : "settings"),
  RowConflict: "conflict",
  RowsUnfilled: "conflict",
  IdentityMissing: "schema",
  IdentityFixed: "schema",
  ArbiterMissing: "schema",
  SchemaRefused: "schema",
  TableMissing: "schema",
  NotATable: "schema",
  RowSecurityActive: "schema",
  SessionsPooled: "settings",
  TooFewConnections: ({ given }) => (given === undefined ? "passing" : "settings"),
  // Setting aside
  QuarantineLimit: "data",
  QuarantineResolved: "passing",
  SkipCancelled: "passing",
  // The process
  ConnectorConfigError: "settings",
  PackageMissing: "settings",
  // The operator's commands
  NotHeld: "settings",
  ReplayRefused: "data",
  NotReady: "answer",
  PositionRefused: "position",
  SkipRefused: "position",
  // The parts for development
  BrokerError: "settings",
  DatabaseError: "defect",
  DatabasesDiffer: "defect",
  InboundError: ({ isRetryable }) => (isRetryable === true ? "passing" : "settings"),
  PostgresServerError: "settings",
  SinkEnded: "defect",
  WaitedTooLong: "defect"
} satisfies { readonly [tag: string]: Outcome | ((error: Facts) => Outcome) }

/** The tags of all error classes. */
export type Tag = keyof typeof table

export const tags = Object.keys(table) as ReadonlyArray<Tag>

const isTag = (tag: unknown): tag is Tag => typeof tag === "string" && Object.hasOwn(table, tag)

/** A class that is not in the table is none of the connector's, and nothing is known of it. */
export const outcomeOf = (error: unknown): Outcome => {
  const { _tag } = Object(error) as { readonly _tag?: unknown }
  if (!isTag(_tag)) return "defect"
  const entry: Outcome | ((error: Facts) => Outcome) = table[_tag]
  return typeof entry === "string" ? entry : entry(error as Facts)
}

/** Whether trying again may help. */
export const isRetryable = (error: { readonly _tag: Tag }): boolean => outcomes[outcomeOf(error)].isRetryable

/** The heading of the documentation that describes the error. */
export const pageOf = (error: unknown): string | undefined => {
  const { _tag } = Object(error) as { readonly _tag?: unknown }
  return isTag(_tag) ? `docs/errors.md#${_tag.toLowerCase()}` : undefined
}

/** How the process exits when the error ends it. */
export const exitCodeOf = (error: unknown): number => outcomes[outcomeOf(error)].exitCode
