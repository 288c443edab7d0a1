// Individuals over time: stacked bars per label, drawn as SVG, and the same as a table.

import { element, fill, many, moment, number } from "./words.js";

const COLOURS = 6; // labels of their own; after them "unknown" (c6) and all others (c7)
const UNKNOWN = "unknown";
const OTHERS = "other labels";
const HEIGHT = 240;
const MARGIN = { right: 8, top: 10, bottom: 24 };
const DIGIT = 7.5; // pixels
const STEPS = [1, 3, 6, 24]; // hours a bar
const MOST_BARS = 32;
const SVG = "http://www.w3.org/2000/svg";

let shown = null; // what was drawn last, to draw it again at another width

// Draw what `View.counts` gave, over `hours`.
export function showCounts(section, counts, hours) {
  const step = STEPS.find((one) => hours / one <= MOST_BARS) ?? 24;
  const bars = collect(counts, step);
  const series = rank(bars);
  const text = JSON.stringify([bars.map((bar) => [bar.at, ...bar.labels]), step]);
  if (shown?.text === text && shown.section === section) return;
  shown = { text, section, bars, series, step };
  const total = series.reduce((sum, one) => sum + one.total, 0);
  fill(section.querySelector(".keys"), ...series.map((one) =>
    element("span", { className: `key c${one.colour}` }, element("bdi", {}, one.label), ` ${number(one.total)}`)));
  fill(section.querySelector(".numbers"), total ? table(bars, series, step) : "No individuals in this time.");
  draw();
}

export function totalOf(counts) {
  return Object.values(counts?.labels ?? {}).flat().reduce((sum, n) => sum + (Number(n) || 0), 0);
}

// Sum the steps into bars that begin at full hours, or at midnight, of the viewer's clock.
function collect({ since, until, step_seconds: seconds, labels: counts }, step) {
  const bars = new Map();
  for (let at = start(since * 1000, step); at < until * 1000; at = next(at, step)) bars.set(at, new Map());
  for (const [label, values] of Object.entries(counts ?? {})) {
    values.forEach((value, index) => {
      const bar = bars.get(start((since + (index + 0.5) * seconds) * 1000, step));
      if (bar && Number(value) > 0) bar.set(label, (bar.get(label) ?? 0) + Number(value));
    });
  }
  return [...bars].map(([at, found]) => ({ at, labels: found })); // maps: a label may be "__proto__"
}

function start(milliseconds, step) {
  const date = new Date(milliseconds);
  return date.setHours(date.getHours() - (date.getHours() % step), 0, 0, 0);
}

function next(at, step) {
  const date = new Date(at);
  const after = date.setHours(date.getHours() + step, 0, 0, 0);
  return start(after > at ? after : at + step * 3600000, step); // a clock that is put back repeats an hour
}

// Choose the labels that get a colour: the most frequent, and the same ones the same colour at every refresh.
function rank(bars) {
  const totals = new Map();
  bars.forEach((bar) => bar.labels.forEach((n, label) => totals.set(label, (totals.get(label) ?? 0) + n)));
  const named = [...totals].filter(([label]) => label !== UNKNOWN).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const top = named.slice(0, COLOURS);
  const order = top.map(([label]) => label).sort();
  const series = top.map(([label, total]) => ({ label, total, colour: order.indexOf(label), of: (bar) => bar.labels.get(label) ?? 0 }));
  if (totals.has(UNKNOWN)) {
    series.push({ label: UNKNOWN, total: totals.get(UNKNOWN), colour: 6, of: (bar) => bar.labels.get(UNKNOWN) ?? 0 });
  }
  const rest = named.slice(COLOURS);
  if (rest.length) {
    const of = (bar) => rest.reduce((sum, [label]) => sum + (bar.labels.get(label) ?? 0), 0);
    series.push({ label: OTHERS, total: rest.reduce((sum, [, n]) => sum + n, 0), colour: 7, of });
  }
  return series;
}

function draw() {
  const { section, bars, series, step } = shown;
  const place = section.querySelector(".chart");
  if (!series.length) {
    fill(place, element("p", { className: "empty" }, "No individuals in this time."));
    return;
  }
  const width = Math.max(240, place.clientWidth);
  const sums = bars.map((bar) => series.reduce((sum, one) => sum + one.of(bar), 0));
  const tick = niceStep(Math.max(...sums) / 4);
  const top = Math.max(tick, Math.ceil(Math.max(...sums) / tick) * tick);
  const left = 12 + DIGIT * number(top).length;
  const inner = { width: width - left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  const y = (value) => MARGIN.top + inner.height * (1 - value / top);
  const slot = inner.width / bars.length;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
  const total = sums.reduce((a, b) => a + b, 0);
  const most = series.map((one) => `${one.label} ${number(one.total)}`).join(", ");
  drawing.setAttribute("aria-label", `${many(total, "individual")} since ${moment(bars[0].at)}: ${most}`);
  for (let value = 0; value <= top; value += tick) {
    drawing.append(svg("line", { x1: left, x2: width - MARGIN.right, y1: y(value), y2: y(value), class: "grid" }));
    drawing.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)));
  }
  bars.forEach((bar, index) => {
    const x = left + index * slot;
    let height = 0;
    for (const one of series) {
      const value = one.of(bar);
      if (!value) continue;
      const size = { x: x + slot * 0.12, width: slot * 0.76, y: y(height + value), height: y(height) - y(height + value) };
      drawing.append(svg("rect", { ...size, class: `c${one.colour}` }));
      height += value;
    }
    const touch = svg("rect", { x, width: slot, y: MARGIN.top, height: inner.height, class: "touch" });
    const parts = series.filter((one) => one.of(bar)).map((one) => `${one.label}: ${number(one.of(bar))}`);
    touch.append(svg("title", {}, [when(bar.at, step), ...(parts.length ? parts : ["none"])].join("\n")));
    drawing.append(touch);
  });
  axis(drawing, bars, step, { left, slot, width });
  fill(place, drawing);
}

// Label hours that divide the day, or midnights, as far apart as their words need.
function axis(drawing, bars, step, { left, slot, width }) {
  const apart = [1, 3, 6, 12, 24, 48, 96, 192].find((hours) => (hours / step) * slot >= 56) ?? 384;
  const last = start(bars.at(-1).at, 24);
  bars.forEach((bar, index) => {
    const hour = new Date(bar.at).getHours();
    if (hour % Math.min(apart, 24)) return;
    if (apart > 24 && Math.round((last - bar.at) / 86400000) % (apart / 24)) return;
    const x = left + (index + (step === 24 ? 0.5 : 0)) * slot; // a day's name stands below its bar, an hour's where it begins
    if (x > width - 24) return;
    const text = hour === 0
      ? new Date(bar.at).toLocaleDateString(undefined, { day: "numeric", month: "short" })
      : new Date(bar.at).toLocaleTimeString(undefined, { hour: "numeric", minute: "2-digit" });
    const y = HEIGHT - MARGIN.bottom;
    drawing.append(svg("line", { x1: x, x2: x, y1: y, y2: y + 4, class: "grid" }));
    drawing.append(svg("text", { x, y: HEIGHT - 6, "text-anchor": "middle" }, text));
  });
}

function table(bars, series, step) {
  const head = element("tr", {}, ...["from", ...series.map((one) => one.label)].map((text) => element("th", { scope: "col" }, text)));
  const rows = bars.filter((bar) => series.some((one) => one.of(bar))).reverse().map((bar) =>
    element("tr", {}, element("th", { scope: "row" }, when(bar.at, step)), ...series.map((one) => element("td", {}, number(one.of(bar))))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

function when(at, step) {
  return step === 24 ? new Date(at).toLocaleDateString() : moment(at);
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, least)));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((value) => value >= least && Number.isInteger(value));
}

function svg(tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.textContent = text;
  return made;
}

// Draw anew where the page gets wider or narrower.
export function followWidth(section) {
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (shown && Math.abs(entry.contentRect.width - width) >= 1) draw();
    width = entry.contentRect.width;
  }).observe(section.querySelector(".chart"));
}
