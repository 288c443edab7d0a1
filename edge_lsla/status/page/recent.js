// The newest individuals, each once, with its best picture.

import { service } from "./asking.js";
import { age, duration, element, fill, moment, named, percent } from "./words.js";

const FIRST = 12; // shown before the viewer asks for more
const UPDATES = { promoted: "A new model stays", refused: "A new model was refused" };
const cards = new Map(); // by individual, kept so that a crop is fetched once
let all = false;

// Show events, newest first, as `View.recent` gives them.
export function showRecent(section, events) {
  const place = section.querySelector(".events");
  const more = section.querySelector(".more");
  const seen = new Map();
  for (const event of events) {
    const key = String(event.track ?? event.id);
    if (!seen.has(key)) seen.set(key, { last: event, all: [] });
    seen.get(key).all.push(event);
  }
  [...cards.keys()].filter((key) => !seen.has(key)).forEach((key) => cards.delete(key));
  const rest = all ? 0 : Math.max(0, seen.size - FIRST);
  more.hidden = rest === 0;
  more.textContent = `Show ${rest} more`;
  more.onclick = () => {
    all = true;
    showRecent(section, events);
  };
  const shown = [...seen].slice(0, seen.size - rest).map(([key, one]) => {
    if (!cards.has(key)) cards.set(key, new Card());
    cards.get(key).describe(one.last, one.all);
    return cards.get(key).article;
  });
  if (!shown.length) fill(place, element("p", { className: "muted" }, "Nothing has been seen yet."));
  else if (shown.some((article, index) => place.children[index] !== article) || place.children.length !== shown.length) {
    fill(place, ...shown);
  }
}

class Card {
  constructor() {
    this.crop = element("div", { className: "crop" });
    this.words = element("div");
    this.article = element("article", {}, this.crop, this.words);
    this.address = undefined;
  }

  describe(last, all) {
    // An individual's picture belongs to the event that it came with: its arrival, where the service says no other.
    const withCrop = all.find((event) => event.crop) ?? all.find((event) => event.kind === "arrived" && event.crop !== false);
    this.without = last.kind === "model" ? "model" : "no picture";
    this.show(withCrop && /^[0-9a-f]{32}$/.test(withCrop.id) ? `/crops/${withCrop.id}.jpg` : null);
    const at = last.time * 1000;
    const ago = element("time", { dateTime: isoTime(at), title: moment(at, true) }, age((service.now() - at) / 1000));
    if (last.kind === "model") {
      const { name, slot, bundle, what, why } = last.details ?? {};
      const said = element("div", { className: "muted clip", title: why ?? "" }, named(name ?? slot ?? "", { ...last.details, digest: bundle }));
      fill(this.words, element("b", {}, UPDATES[what] ?? "Another model watches"), said, element("div", { className: "muted" }, ago));
      return;
    }
    const sure = last.confidence === null || last.confidence === undefined ? "" : ` ${percent(last.confidence)}`;
    const seconds = last.details?.seconds;
    const after = last.kind === "left" && typeof seconds === "number" ? `, after ${duration(seconds)}` : "";
    fill(
      this.words,
      element("b", {}, element("bdi", { className: "clip" }, last.label ?? "unknown")),
      element("div", { className: "muted" }, element("bdi", { className: "clip" }, last.source ?? ""), sure && ` ·${sure}`),
      element("div", { className: "muted" }, `${last.kind === "left" ? "left" : "arrived"} `, ago, after),
    );
  }

  show(address) {
    if (this.address === address) return;
    this.address = address;
    const none = () => fill(this.crop, this.without);
    if (address === null) none();
    else fill(this.crop, element("img", { alt: "", loading: "lazy", decoding: "async", onerror: none, src: address }));
  }
}

function isoTime(milliseconds) {
  const date = new Date(milliseconds);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}
