// What the service says of itself: the tiles at the top and the panels at the bottom.

import { bytes, duration, element, fill, many, milliseconds, moment, named, NONE, number } from "./words.js";

const CLOCKS = {
  synchronised: "synchronised",
  unsynchronised: "not synchronised: times may be wrong",
  jumped: "jumped: times before and after do not fit",
  unknown: "unknown",
};

// Show the few figures that matter at a glance; `individuals` are those of the last 24 hours.
export function showTiles(place, health, individuals) {
  const rate = (health.cameras ?? []).reduce((sum, camera) => sum + (camera.watching ? camera.fps ?? 0 : 0), 0);
  const waiting = health.store?.undelivered;
  const figures = [
    [individuals === null ? NONE : number(individuals), "individuals in 24 hours"],
    [number(rate, 1), "frames a second"],
    [milliseconds(health.latency_ms?.p95), "latency, 95th percentile"],
    [typeof health.temperature_c === "number" ? `${number(health.temperature_c, 1)} °C` : bytes(health.store?.free_bytes),
      typeof health.temperature_c === "number" ? "temperature" : "free on disk"],
    [number(waiting), `${waiting === 1 ? "event waits" : "events wait"} for delivery`],
  ];
  fill(place, ...figures.map(([value, text]) => element("div", {}, element("b", {}, value), element("span", {}, text))));
}

// Show everything else.
export function showHealth(place, health) {
  const { model = {}, store = {}, queues = {}, pace = {} } = health;
  const limit = typeof pace?.rate === "number" ? (pace.rate === 0 ? "paused" : `at most ${number(pace.rate, 2)} frames/s`) : "every frame";
  const digest = (value) => element("span", { className: "digest", title: value ?? "" }, String(value ?? "").slice(0, 16) || NONE);
  fill(
    place,
    panel("Cameras", rows(["camera", "frames/s", "dropped", "gaps"], health.cameras ?? [], (one) =>
      [one.name, one.watching ? number(one.fps, 1) : "lost", number(one.dropped), number(one.gaps)], "No camera is configured.")),
    panel("Speed", rows(["milliseconds", "p50", "p95", "p99"], [
      ["latency", health.latency_ms], ["our overhead", health.overhead_ms],
    ], ([name, found]) => [name, ...["p50", "p95", "p99"].map((key) => number(found?.[key], 2))], ""), facts([
      ["pace", `${limit}${pace?.reason ? ` (${pace.reason})` : ""}`],
      ["frames looked at", number(health.frames)],
      ["waiting inside", `${many(queues?.frames ?? 0, "frame")}, ${many(queues?.events ?? 0, "event")}`],
    ])),
    panel("Delivery", rows(["to", "state", "waiting", "sent"], health.deliveries ?? [], (one) =>
      [one.name, one.connected ? "connected" : "away", number(one.backlog), number(one.delivered)], "Nothing is delivered: no receiver is configured.")),
    panel("Records", facts([
      ["events", `${number(store?.events)} kept, ${number(health.events)} since the start`],
      ["not yet delivered", number(store?.undelivered)],
      ["size", bytes(store?.bytes)],
      ["free on disk", bytes(store?.free_bytes)],
      ...(health.reservoir ? [["sample to calibrate with", sample(health.reservoir)]] : []),
    ])),
    panel("Model", facts([
      ["name", model?.name ?? NONE],
      ["slot", model?.slot ?? NONE],
      ["precision", model?.precision ?? NONE],
      ["backend", model?.backend ?? NONE],
      ["file", digest(model?.file_sha256)],
      ["artifact", digest(model?.digest)],
      ...(health.drift ? [["drift", String(health.drift.sentence ?? NONE).replace(/^drift: /, "")]] : []),
    ]), ...updates(model?.history ?? [])),
    panel("Device", facts([
      ["temperature", typeof health.temperature_c === "number" ? `${number(health.temperature_c, 1)} °C` : "not measured"],
      ["memory", typeof health.memory_mb === "number" ? bytes(health.memory_mb * 1e6) : NONE],
      ["clock", CLOCKS[health.clock] ?? String(health.clock)],
      ["running", `${duration(health.uptime_seconds)}, since ${moment(health.started * 1000)}`],
      ["stages restarted", number(health.restarts)],
    ])),
  );
}

// What happened to models, newest first.
function updates(history) {
  if (!history.length) return [];
  return [element("h4", {}, "Updates"), rows(["when", "what", "model"], history, (one) => [
    moment(one.time * 1000),
    one.what,
    element("span", { className: "digest", title: one.reason ?? "" }, named(one.name, one)),
  ], "")];
}

// Say how many pictures the reservoir has, of how many crops that were drawn.
function sample({ seen = 0, size = 0 }) {
  return `${many(Math.min(seen, size), "picture")} of ${many(seen, "crop")} drawn, at most ${number(size)}`;
}

function panel(title, ...content) {
  return element("div", {}, element("h3", {}, title), ...content);
}

function facts(pairs) {
  const lines = pairs.map(([name, value]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)));
  return element("table", { className: "facts" }, element("tbody", {}, ...lines));
}

// Return a table of objects; the last error of one stands below it, as far as it is one's own.
function rows(titles, objects, cells, otherwise) {
  if (!objects.length) return element("p", { className: "muted" }, otherwise);
  const head = element("tr", {}, ...titles.map((text) => element("th", { scope: "col" }, text)));
  const lines = objects.flatMap((one) => {
    const [name, ...rest] = cells(one).map((value) => value ?? NONE);
    const ill = one.last_error && !(one.watching ?? one.connected ?? true);
    const line = element("tr", { className: ill ? "noted" : "" }, element("th", { scope: "row" }, name), ...rest.map((value) => element("td", {}, value)));
    return ill ? [line, element("tr", { className: "note" }, element("td", { colSpan: titles.length }, one.last_error))] : [line];
  });
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines));
}
