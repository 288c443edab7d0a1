// Elements whose content is only ever text, and numbers and times in words.

// Return an element; strings among the children become text, never HTML: labels may come from anywhere.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  Object.assign(made, properties);
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== "").map(nodeOrText));
  return made;
}

function nodeOrText(child) {
  return child instanceof Node ? child : String(child);
}

// Replace an element's children.
export function fill(place, ...children) {
  place.replaceChildren(...children.filter((child) => child !== null).map(nodeOrText));
}

export const NONE = "–";

export function number(value, digits = 0) {
  if (typeof value !== "number" || !Number.isFinite(value)) return NONE;
  return new Intl.NumberFormat(undefined, { maximumFractionDigits: digits }).format(value);
}

export function many(count, one, more = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : more}`;
}

// Three significant digits say enough of a time in milliseconds.
export function milliseconds(value) {
  return typeof value === "number" ? `${number(value, value < 10 ? 2 : value < 100 ? 1 : 0)} ms` : NONE;
}

export function bytes(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return NONE;
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; value >= 999.5 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${number(value, unit && value < 100 ? 1 : 0)} ${units[unit]}`;
}

export function duration(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return NONE;
  if (seconds < 60) return `${number(Math.max(0, Math.floor(seconds)))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return many(Math.floor(seconds / 86400), "day");
}

export function age(seconds) {
  if (seconds < 5) return "just now";
  return `${seconds < 48 * 3600 && seconds >= 3600 ? `${Math.floor(seconds / 3600)} h` : duration(seconds)} ago`;
}

// A moment in the viewer's own way of writing it; the date only where it is not today.
export function moment(milliseconds, seconds = false) {
  const date = new Date(milliseconds);
  if (Number.isNaN(date.getTime())) return NONE;
  const time = { hour: "numeric", minute: "2-digit", ...(seconds ? { second: "2-digit" } : {}) };
  if (date.toDateString() === new Date().toDateString()) return date.toLocaleTimeString(undefined, time);
  return date.toLocaleString(undefined, { day: "numeric", month: "short", ...time });
}

export function percent(value) {
  return typeof value === "number" ? `${number(value * 100)} %` : NONE;
}

// What tells a model from others of its name: the bundle's file and the artifact that ran; records of before know of
// the bundle only its manifest's digest, or nothing at all.
export function named(name, { digest, file_sha256: file, artifact_sha256: artifact, precision }) {
  const start = (what, value) => value && `${what} ${String(value).slice(0, 12)}`;
  const about = [start("file", file) || start("manifest", digest), start("artifact", artifact), precision].filter(Boolean).join(", ");
  return about ? `${name} (${about})` : String(name);
}
