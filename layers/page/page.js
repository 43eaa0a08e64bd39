/** What the page does: it listens to /events, and shows each status as it comes. Data is only ever set as text. */
const byId = (id) => document.getElementById(id)
const number = new Intl.NumberFormat("en")
const rounded = new Intl.NumberFormat("en", { maximumFractionDigits: 1 })
const lastHour = 3600
const chartHeight = 160

/** An element with its attributes and what stands in it: text, or other elements. */
const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  element.append(...children)
  return element
}

/** Replaces what stands there, unless it would be the same: a selection and a reader's place are kept. */
const show = (id, ...children) => {
  const next = make("div", {}, ...children)
  if (byId(id).innerHTML !== next.innerHTML) byId(id).replaceChildren(...next.childNodes)
}

const setText = (id, text) => {
  if (byId(id).textContent !== text) byId(id).textContent = text
}

/** What stands between backticks is typed somewhere. */
const rich = (text) => text.split("`").map((part, n) => (n % 2 === 1 ? make("code", {}, part) : part))

const span = (seconds) => {
  const parts = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [Math.floor(seconds) % 60, "s"]
  ]
  const first = parts.findIndex(([amount]) => amount > 0)
  if (first === -1) return "0 s"
  return parts
    .slice(first, first + 2)
    .filter(([amount]) => amount > 0)
    .map(([amount, unit]) => `${amount} ${unit}`)
    .join(" ")
}

const clock = (iso) => new Date(iso).toLocaleTimeString("en-GB")
const ago = (iso, now) => {
  const seconds = Math.max(0, (now - Date.parse(iso)) / 1000)
  return seconds < 60 ? "less than a minute ago" : `${span(seconds - (seconds % 60))} ago`
}

const table = (caption, head, rows) =>
  make(
    "table",
    {},
    make("caption", { class: "unseen" }, caption),
    make(
      "thead",
      {},
      make("tr", {}, ...head.map(([text, kind]) => make("th", { scope: "col", ...(kind && { class: kind }) }, text)))
    ),
    make(
      "tbody",
      {},
      ...rows.map((cells) =>
        make(
          "tr",
          {},
          ...cells.map((cell, n) =>
            make(
              n === 0 ? "th" : "td",
              { ...(n === 0 && { scope: "row" }), ...(head[n][1] && { class: head[n][1] }) },
              cell
            )
          )
        )
      )
    )
  )

const facts = (pairs) => pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])

// The state

/** The instance that this page is served by, and the one whose figures are shown: that which applies. */
let own

/** How it is: a level, a word, a sentence that changes only with what it says, and what to do. */
const verdict = (status) => {
  const { pause, quarantine, targetError } = status
  const trouble = own.troubles[0]
  const because = trouble === undefined ? "" : ` ${trouble.message}`
  const remedy = trouble?.remedy ?? null
  if (own.state === "stopped") {
    return trouble === undefined
      ? { level: "mind", word: "Stopped", sentence: "as it was told to." }
      : { level: "bad", word: "Stopped by an error:", sentence: because, remedy }
  }
  if (own.state === "retrying") return { level: "bad", word: "Trying again:", sentence: because, remedy }
  if (pause !== null) return { level: "mind", word: "Paused", sentence: `by ${pause.by}: ${pause.reason}` }
  if (own.state === "starting") {
    return {
      level: "mind",
      word: "Starting:",
      sentence: targetError === null ? "nothing is applied yet." : `waiting for the target. ${targetError}`
    }
  }
  if (targetError !== null) return { level: "mind", word: "Target not answering:", sentence: targetError }
  if (own.state === "standing by") {
    return {
      level: "well",
      word: "Standing by:",
      sentence: "another instance applies; this one takes over when it ends."
    }
  }
  if (quarantine.held > 0) {
    const what = quarantine.held === 1 ? "a transaction is" : `${quarantine.held} transactions are`
    return { level: "mind", word: "Going on,", sentence: `but ${what} set aside and held for you.` }
  }
  if (own.state === "catching up") {
    const minutes = own.catchUpSeconds === null ? null : Math.ceil(own.catchUpSeconds / 60)
    const left = minutes === null ? "" : minutes <= 1 ? ", about a minute to go" : `, about ${span(minutes * 60)} to go`
    return { level: "busy", word: "Catching up", sentence: `with what the topic held at the start${left}.` }
  }
  return { level: "well", word: "Well:", sentence: "it follows the topic, and applies what comes as it comes." }
}

const showState = (status) => {
  const { level, remedy = null, sentence, word } = verdict(status)
  byId("state").dataset.level = level
  setText("word", word)
  setText("sentence", sentence.trim())
  byId("remedy").hidden = remedy === null
  show("remedy", ...rich(`What resolves it: ${remedy ?? ""}`))
  document.title = `${word.replace(/\W+$/, "")} · ${status.topic}-${status.partition}`
  setText("title", `${status.topic}-${status.partition}`)
  setText(
    "about",
    `${own.name || "fluvio-postgres-sink"} ${own.version} on ${own.host || "this machine"}, pid ${own.pid}; ${own.state} since ${clock(own.since)}`
  )
}

const figure = (name, value, note = "") =>
  make("div", {}, make("dt", {}, name), make("dd", {}, value), make("dd", {}, note))

const showFigures = (status, shown) => {
  const { lag, rate, catchUpSeconds } = shown
  const behind = status.lagRecords ?? lag?.records ?? null
  show(
    "figures",
    figure(
      "Lag",
      behind === null ? "unknown" : number.format(behind),
      behind === null || behind === 0 ? "records" : `records${lag?.seconds ? `, ${span(lag.seconds)}` : ""}`
    ),
    figure("Applied", rounded.format(rate.records), "records per second"),
    figure("Changes", rounded.format(rate.changes), "per second"),
    figure(
      "Caught up",
      behind === 0 ? "now" : catchUpSeconds === null ? "unknown" : `in ${span(catchUpSeconds)}`,
      behind === 0 ? "nothing is waiting" : catchUpSeconds === null ? "nothing is applied" : "at this rate"
    ),
    figure("Set aside", number.format(status.quarantine.held), "transactions held")
  )
}

const showPosition = (status, shown) => {
  const { log, position } = status
  const room = shown.log
  show(
    "position",
    ...facts([
      ["Offset", position === null ? "nothing is applied yet" : String(position.offset)],
      ["LSN", position?.commitLsn ?? "not known"],
      ["Epoch", String(position?.epoch ?? 0)],
      ["Topic holds", log === null ? "not reachable" : `offsets ${log.start} to before ${log.end}`],
      [
        "Head-room",
        room === null
          ? "not known"
          : room.start === 0
            ? "retention has removed nothing yet"
            : `${number.format(room.headRoomRecords)} records${room.headRoomSeconds === null ? "" : `, ${span(room.headRoomSeconds)}`}`
      ],
      [
        "Applied",
        `${number.format(shown.totals.transactions)} transactions, ${number.format(shown.totals.changes)} changes`
      ],
      ["Memory", shown.memoryBytes == null ? "not known" : `${rounded.format(shown.memoryBytes / 1_048_576)} MiB`]
    ])
  )
}

const stageNames = { decode: "Read and decode", plan: "Plan", execute: "Statements", commit: "Commit" }

/** By the style's own interface, which the page's policy allows, as it does not allow the attribute. */
const bar = (share) => {
  const element = make("div")
  element.style.width = `${Math.round(share * 100)}%`
  return element
}

const showStages = (shown) => {
  const all = Object.values(shown.stages).reduce((sum, seconds) => sum + seconds, 0)
  if (all === 0) return show("stages", make("p", { class: "quiet" }, "Nothing was applied yet."))
  show(
    "stages",
    table(
      "Seconds spent in each stage since the start",
      [["Stage"], ["Seconds", "number"], ["Share", "number"], ["", "bar"]].map(([text, kind]) => [
        text || "Of all",
        kind
      ]),
      Object.entries(shown.stages).map(([stage, seconds]) => [
        stageNames[stage] ?? stage,
        seconds.toFixed(1),
        `${Math.round((seconds / all) * 100)} %`,
        bar(seconds / all)
      ])
    )
  )
}

const showTables = (shown, now) => {
  const { tables } = shown
  if (tables.length === 0) {
    return show("tables", make("p", { class: "quiet" }, "No table has changed since the start of the process."))
  }
  show(
    "tables",
    table(
      "Changes of each table since the start of the process",
      [
        ["Table"],
        ["Inserts", "number"],
        ["Updates", "number"],
        ["Deletes", "number"],
        ["Truncates", "number"],
        ["Last change", "number"]
      ],
      tables.map((one) => [
        one.table,
        ...[one.insert, one.update, one.delete, one.truncate].map((count) => number.format(count)),
        ago(one.lastChange, now)
      ])
    )
  )
}

const showQuarantine = ({ quarantine }) => {
  if (quarantine.held === 0) return show("quarantine", make("p", { class: "quiet" }, "Empty."))
  show(
    "quarantine",
    table(
      "Transactions that are held, by reason",
      [["Reason"], ["Held", "number"]],
      quarantine.byClass.map((one) => [one.class, number.format(one.held)])
    ),
    make("p", { class: "quiet" }, `The oldest one is held since ${quarantine.oldest}.`)
  )
}

/** So many transactions are shown one by one; the command lists them all. */
const mostHeld = 10

/** What is held, as it was listed last. */
let held = []
let listedOf

const showHeld = () => {
  const hasToken = byId("token").value !== ""
  byId("held").hidden = held.length === 0
  show(
    "held",
    table(
      "The first transactions that are held, in the order of the source",
      [["Id", "number"], ...(hasToken ? [["Apply"]] : []), ["LSN"], ["Tables"], ["Why"]],
      held
        .slice(0, mostHeld)
        .map(({ class: kind, commitLsn, id, reason, tables }) => [
          String(id),
          ...(hasToken ? [make("button", { type: "button", "data-replay": id }, `Replay ${id}`)] : []),
          commitLsn ?? "not known",
          tables.join(", ") || "none",
          `${kind}: ${reason}`
        ])
    ),
    ...(held.length > mostHeld ? [make("p", { class: "quiet" }, `And ${held.length - mostHeld} more.`)] : [])
  )
}

/** Listed anew when something was set aside or resolved. */
const list = async ({ quarantine }) => {
  const version = JSON.stringify(quarantine)
  if (version === listedOf) return
  listedOf = version
  try {
    const response = await fetch("/quarantine")
    if (!response.ok) throw new Error(String(response.status))
    held = (await response.json()).transactions
  } catch {
    listedOf = undefined
  }
  showHeld()
}

const showInstances = ({ instances, lock, targetError }) => {
  const holder =
    lock === null || own.state === "stopped"
      ? targetError === null && own.state !== "stopped"
        ? "Nobody holds the lock."
        : "Who holds the lock is not known."
      : `The lock is held by ${lock.applicationName || "a session"} (${lock.role}@${lock.address ?? "local"}, pid ${lock.pid}).`
  show(
    "instances",
    table(
      "Instances of this connector",
      [["Name"], ["State"], ["Where"]],
      instances.map(({ host, id, isAlive, name, pid, seenAt, state }) => [
        `${name || "fluvio-postgres-sink"}${id === own.id ? " (this one)" : ""}`,
        isAlive || state === "stopped" ? state : `${state}, silent since ${clock(seenAt)}`,
        `${host || "unknown"}, pid ${pid}`
      ])
    ),
    make("p", { class: "quiet" }, holder)
  )
}

const showErrors = (now) => {
  if (own.troubles.length === 0) return show("errors", make("p", { class: "quiet" }, "None since the start."))
  show(
    "errors",
    ...own.troubles.map(({ at, attempt, error, message, remedy }) =>
      make(
        "div",
        { class: "error" },
        make(
          "p",
          {},
          make("strong", {}, error),
          ` at ${clock(at)}, ${ago(at, now)}${attempt > 1 ? `, ${attempt} tries without progress` : ""}`
        ),
        make("p", {}, message),
        ...(remedy === null ? [] : [make("p", { class: "quiet" }, ...rich(`What resolves it: ${remedy}`))])
      )
    )
  )
}

// The charts

let points = []
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 })

/** With seconds where the axis shows less than ten minutes. */
const timeOf = (tick, ticks) => {
  const time = clock(tick * 1000)
  return ticks.length > 1 && ticks[1] - ticks[0] < 60 ? time : time.slice(0, 5)
}

const charts = [
  { id: "lag", name: "Lag", unit: "records", of: ({ lagRecords }) => lagRecords },
  { id: "rate", name: "Throughput", unit: "records per second", of: ({ recordsPerSecond }) => recordsPerSecond }
].map((chart) => ({ ...chart, plot: undefined }))

const dataOf = ({ of }) => [points.map(({ at }) => at / 1000), points.map(of)]

const draw = (chart) => {
  const place = byId(chart.id)
  chart.plot?.destroy()
  const axis = {
    stroke: color("--quiet"),
    grid: { stroke: color("--line"), width: 1 },
    ticks: { stroke: color("--line"), width: 1 },
    font: "12px system-ui, sans-serif"
  }
  chart.plot = new uPlot(
    {
      width: place.clientWidth,
      height: chartHeight,
      legend: { show: false },
      cursor: { show: false },
      scales: {
        // A new connector has no hour yet: two minutes at least, so that its first seconds are no cliff.
        x: { range: (_, low, high) => [Math.min(low, high - 120), high] },
        y: { range: (_, __, high) => [0, Math.max(1, (high ?? 0) * 1.1)] }
      },
      axes: [
        { ...axis, size: 32, space: 70, values: (_, ticks) => ticks.map((tick) => timeOf(tick, ticks)) },
        { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => short.format(tick)) }
      ],
      series: [
        {},
        {
          stroke: color("--accent"),
          width: 2,
          fill: `${color("--accent")}33`,
          points: { show: false },
          spanGaps: false
        }
      ]
    },
    dataOf(chart),
    place
  )
}

const showCharts = () => {
  for (const chart of charts) {
    if (chart.plot === undefined) draw(chart)
    else chart.plot.setData(dataOf(chart))
    const values = points.map(chart.of).filter((value) => value !== null)
    const text =
      values.length === 0
        ? `${chart.name}: nothing is known yet`
        : `${chart.name}: now ${number.format(values.at(-1))} ${chart.unit}, at most ${number.format(Math.max(...values))} in the last hour`
    byId(chart.id).setAttribute("aria-label", text)
  }
}

const redraw = () => charts.forEach((chart) => chart.plot && draw(chart))
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw)
new ResizeObserver(() => {
  for (const { id, plot } of charts) plot?.setSize({ width: byId(id).clientWidth, height: chartHeight })
}).observe(byId("lag"))

// What may be asked

const offer = (status) => {
  const hasToken = byId("token").value !== ""
  byId("pause-form").hidden = !hasToken || status.pause !== null
  byId("resume-line").hidden = !hasToken || status.pause === null
  showHeld()
}

let latest
byId("token").addEventListener("input", () => latest && offer(latest))
byId("token-form").addEventListener("submit", (event) => event.preventDefault())

const ask = async (path, body) => {
  setText("answer", "Asking …")
  try {
    const response = await fetch(path, {
      method: "POST",
      headers: { authorization: `Bearer ${byId("token").value}`, "content-type": "application/json" },
      body: JSON.stringify(body)
    })
    const answer = response.status === 401 ? { error: "the token is not the right one" } : await response.json()
    setText("answer", response.ok ? answer.text : `Not done: ${answer.error ?? response.status}`)
  } catch {
    setText("answer", "Not done: the connector cannot be reached")
  }
}

byId("pause-form").addEventListener("submit", (event) => {
  event.preventDefault()
  void ask("/pause", { reason: byId("reason").value })
})
byId("resume").addEventListener("click", () => void ask("/resume", {}))
byId("held").addEventListener("click", ({ target }) => {
  const { replay } = target.dataset
  if (replay !== undefined) void ask(`/quarantine/${replay}/replay`, {})
})

// The events

const receive = ({ history, id, point, status, takesActions }) => {
  const now = Date.now()
  points = history ?? [...points, point].filter(({ at }) => at >= point.at - lastHour * 1000)
  latest = status
  own = status.instances.find((instance) => instance.id === id)
  const shown = status.instances.find(({ isAlive, state }) => isAlive && /following|catching up/.test(state)) ?? own
  showState(status)
  showFigures(status, shown)
  showPosition(status, shown)
  showStages(shown)
  showTables(shown, now)
  showQuarantine(status)
  void list(status)
  showInstances(status)
  showErrors(now)
  showCharts()
  byId("actions").hidden = !takesActions
  offer(status)
}

const events = new EventSource("/events")
events.addEventListener("status", ({ data }) => {
  byId("connection").hidden = true
  receive(JSON.parse(data))
})
events.addEventListener("error", () => {
  byId("connection").hidden = false
})
