import { PgProtocol, PgTypes } from "@effect/sql-pg"
import { Result } from "effect"
import * as fc from "fast-check"
import { assert, describe, it } from "vitest"
import { CopyProtocol } from "../../../layers/postgres/CopyProtocol.ts"

/** Messages as the driver sends them in one write. */
const frame = (...messages: ReadonlyArray<Uint8Array>): Buffer => Buffer.concat(messages)

const parse = (name: string, query: string, parameterTypes: ReadonlyArray<number>) =>
  Result.getOrThrow(PgProtocol.encodeParse({ name, query, parameterTypes }))

const encodeBind = PgProtocol.makeBindEncoder(PgTypes.writeParameter, PgTypes.isTextFormat)
const bind = (statement: string, parameters: ReadonlyArray<PgTypes.Parameter>) =>
  Result.getOrThrow(encodeBind({ portal: "", statement, parameters }))

const describePortal = PgProtocol.encodeDescribe({ target: "portal", name: "" })
const execute = PgProtocol.encodeExecute({ portal: "", maxRows: 0 })
const sync = PgProtocol.encodeSync()
const closeOf = (name: string) => PgProtocol.encodeClose({ target: "statement", name })

const query = 'COPY "public"."pets" ("id") FROM STDIN'
const data = (text: string) => PgTypes.bytea(Buffer.from(text))

/** CopyData and CopyDone. */
const copied = (text: string): Buffer => {
  const header = Buffer.from([0x64, 0, 0, 0, 0])
  header.writeInt32BE(4 + text.length, 1)
  return Buffer.concat([header, Buffer.from(text), Buffer.from([0x63, 0, 0, 0, 4])])
}

const sent = (protocol: CopyProtocol, ...messages: ReadonlyArray<Uint8Array>): Buffer =>
  Buffer.concat(protocol.outgoing(frame(...messages)))

const message = (type: string, body: string): Buffer => {
  const header = Buffer.from([type.charCodeAt(0), 0, 0, 0, 0])
  header.writeInt32BE(4 + body.length, 1)
  return Buffer.concat([header, Buffer.from(body, "latin1")])
}

describe("what goes to the server", () => {
  it("has the data of a COPY behind its Execute and before the Sync, and no parameter", () => {
    assert.deepStrictEqual(
      sent(new CopyProtocol(), parse("s1", query, [17]), bind("s1", [data("1\n2\n")]), describePortal, execute, sync),
      frame(parse("s1", query, []), bind("s1", []), describePortal, execute, copied("1\n2\n"), sync)
    )
  })

  it("knows a prepared COPY again by its name, until that is closed or given to another statement", () => {
    const protocol = new CopyProtocol()
    sent(protocol, parse("s1", query, [17]), bind("s1", [data("1\n")]), describePortal, execute, sync)
    assert.deepStrictEqual(
      sent(protocol, bind("s1", [data("2\n")]), execute, sync),
      frame(bind("s1", []), execute, copied("2\n"), sync)
    )
    const other = [closeOf("s1"), bind("s1", [data("3\n")]), execute, sync]
    assert.deepStrictEqual(sent(protocol, ...other), frame(...other))
    sent(protocol, parse("", query, [17]), bind("", [data("4\n")]), describePortal, execute, sync)
    const unnamed = [parse("", "SELECT $1", [17]), bind("", [data("5\n")]), describePortal, execute, sync]
    assert.deepStrictEqual(sent(protocol, ...unnamed), frame(...unnamed))
  })

  it("may be a COPY of no rows, and of statements that are closed in the same write", () => {
    assert.deepStrictEqual(
      sent(new CopyProtocol(), closeOf("s0"), parse("s1", query, [17]), bind("s1", [data("")]), execute, sync),
      frame(closeOf("s0"), parse("s1", query, []), bind("s1", []), execute, copied(""), sync)
    )
  })

  it("is left as it is otherwise", () => {
    const startup = Buffer.from(PgProtocol.encodeStartupMessage({ user: "COPY " }))
    const others = [
      startup,
      frame(parse("s1", "SELECT 'COPY '", []), bind("s1", [PgTypes.text("COPY ")]), describePortal, execute, sync),
      frame(parse("", "COPYING", []), sync),
      frame(parse("", "COPY pets TO STDOUT", []), bind("", []), describePortal, execute, sync),
      Buffer.from(PgProtocol.encodeTerminate())
    ]
    const protocol = new CopyProtocol()
    for (const other of others) assert.deepStrictEqual(sent(protocol, other), other)
  })
})

const error = (severity: string, code: string) =>
  message("E", `SFATAL\0V${severity}\0C${code}\0Mterminating connection\0\0`)

const endedBy = (stream: Buffer, cut: number) => {
  const protocol = new CopyProtocol()
  protocol.incoming(stream.subarray(0, cut))
  protocol.incoming(stream.subarray(cut))
  return protocol.endedBy
}

describe("what comes from the server", () => {
  const type = fc.constantFrom("1", "2", "n", "C", "Z", "D", "E", "G")
  const messages = fc.array(
    fc.record({ type, body: fc.string({ unit: fc.constantFrom("G", "\0", "\0\0\0\u0005", "x"), maxLength: 20 }) })
  )

  it("is everything but the CopyInResponse of a COPY that was sent with its data, however it is cut", () => {
    fc.assert(
      fc.property(messages, fc.array(fc.nat(200)), fc.boolean(), (messages, cuts, isCopying) => {
        const stream = Buffer.concat(messages.map(({ body, type }) => message(type, body)))
        const edges = [0, ...cuts.filter((cut) => cut < stream.length).sort((a, b) => a - b), stream.length]
        const protocol = new CopyProtocol()
        if (isCopying) sent(protocol, parse("", query, [17]), bind("", [data("1\n")]), execute, sync)
        const heard = edges.slice(1).flatMap((end, n) => protocol.incoming(stream.subarray(edges[n], end)))
        const ready = isCopying ? messages.findIndex(({ type }) => type === "Z") : 0
        const kept = messages.filter(({ type }, n) => type !== "G" || (ready >= 0 && n >= ready))
        assert.deepStrictEqual(Buffer.concat(heard), Buffer.concat(kept.map(({ body, type }) => message(type, body))))
      }),
      { numRuns: 500 }
    )
  })

  it("goes on at once, as far as it is known what it is", () => {
    const protocol = new CopyProtocol()
    const row = message("D", "a long row")
    assert.deepStrictEqual(Buffer.concat(protocol.incoming(row.subarray(0, 9))), row.subarray(0, 9))
    assert.deepStrictEqual(Buffer.concat(protocol.incoming(row.subarray(9))), row.subarray(9))
  })

  it("tells whether an answer is awaited, and which process of the server answers, however it is cut", () => {
    const started = Buffer.concat([message("K", "\0\0\u0001\u0002key!"), message("Z", "I")])
    for (let cut = 0; cut <= started.length; cut++) {
      const protocol = new CopyProtocol()
      assert.isFalse(protocol.isAwaited)
      protocol.outgoing(Buffer.from(PgProtocol.encodeStartupMessage({ user: "me" })))
      assert.isTrue(protocol.isAwaited)
      protocol.incoming(started.subarray(0, cut))
      protocol.incoming(started.subarray(cut))
      assert.deepStrictEqual([protocol.isAwaited, protocol.processId], [false, 258])
      protocol.outgoing(frame(sync))
      protocol.incoming(message("D", "row"))
      assert.isTrue(protocol.isAwaited)
    }
  })

  it("tells with which SQLSTATE the server ended the session, however it is cut", () => {
    const fatal = Buffer.concat([message("D", "row"), error("FATAL", "25P04")])
    for (let cut = 0; cut <= fatal.length; cut++) assert.strictEqual(endedBy(fatal, cut), "25P04")
    assert.strictEqual(endedBy(Buffer.concat([error("ERROR", "57014"), message("Z", "E")]), 0), undefined)
  })

  it("leaves a length that cannot be to the driver", () => {
    const broken = Buffer.from([0x44, 0xff, 0xff, 0xff, 0xff, 0x44, 0, 0, 0, 0])
    assert.deepStrictEqual(Buffer.concat(new CopyProtocol().incoming(broken)), broken)
  })
})
