import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import * as events from "../../events.ts"
import * as Operator from "../../operator.ts"
import { eventually } from "../../pipeline.ts"
import { TestPostgres } from "../../postgres.ts"

/** What an OpenTelemetry collector is sent, by path. */
const collector = Effect.acquireRelease(
  Effect.promise(async () => {
    const received: Array<{ readonly path: string; readonly body: string }> = []
    const server = createServer((request, response) => {
      const chunks: Array<Buffer> = []
      request.on("data", (chunk: Buffer) => chunks.push(chunk))
      request.on("end", () => {
        received.push({ path: request.url ?? "", body: Buffer.concat(chunks).toString() })
        response.setHeader("content-type", "application/json").end("{}")
      })
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    return { server, received, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
  }),
  ({ server }) =>
    Effect.promise(
      () =>
        new Promise((resolve) => {
          server.closeAllConnections()
          server.close(resolve)
        })
    )
)

interface Span {
  readonly name: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly attributes: ReadonlyArray<{ readonly key: string; readonly value: unknown }>
}

interface Traces {
  readonly resourceSpans: ReadonlyArray<{
    readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<Span> }>
  }>
}

layer(TestPostgres.layer(), { excludeTestServices: true })("OpenTelemetry", (it) => {
  it.effect("pushes metrics, one span a group around its statements, and the log, without a value", () =>
    Effect.gen(function* () {
      const { received, url } = yield* collector
      const { append, database, runWith } = yield* Operator.make()
      yield* database.query("CREATE TABLE pets (id int PRIMARY KEY, name text)")
      yield* append([
        events.begin(1001),
        events.relation(events.relationOf()),
        events.insert(16_385, [events.int4(1), events.text("s3cret")]),
        events.insert(16_385, [events.int4(2), events.text("s3cret")]),
        events.commit(1001)
      ])
      const connector = yield* runWith({
        OTEL_EXPORTER_OTLP_ENDPOINT: url,
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
        OTEL_METRIC_EXPORT_INTERVAL: "200",
        OTEL_BSP_SCHEDULE_DELAY: "200"
      })
      const bodies = (path: string) => received.filter((one) => one.path === path).map(({ body }) => body)
      const spans = () =>
        bodies("/v1/traces")
          .flatMap((body) => (JSON.parse(body) as Traces).resourceSpans)
          .flatMap(({ scopeSpans }) => scopeSpans)
          .flatMap((scope) => scope.spans)
      yield* eventually(
        Effect.sync(
          () =>
            spans().some(({ name }) => name === "group") &&
            bodies("/v1/metrics").some((body) => body.includes("fluvio_postgres_sink_changes_total"))
        )
      )
      yield* connector.signal("SIGTERM")
      assert.strictEqual((yield* connector.ended).code, 0)

      const group = spans().find(({ name }) => name === "group")
      assert.includeMembers(group?.attributes.map(({ key }) => key) ?? [], [
        "first.offset",
        "offset",
        "changes",
        "execute.ms",
        "commit.ms"
      ])
      const byId = new Map(spans().map((span) => [span.spanId, span]))
      const isBelowGroup = (span: Span): boolean => {
        const parent = span.parentSpanId === undefined ? undefined : byId.get(span.parentSpanId)
        return parent !== undefined && (parent.spanId === group?.spanId || isBelowGroup(parent))
      }
      assert.isNotEmpty(spans().filter(isBelowGroup))
      assert.isNotEmpty(bodies("/v1/logs"))
      assert.match(bodies("/v1/metrics")[0], /"fluvio-postgres-sink"/)
      assert.notInclude(received.map(({ body }) => body).join(), "s3cret")
    })
  )
})
