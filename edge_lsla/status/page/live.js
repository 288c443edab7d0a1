// The newest picture of each camera, asked for only while somebody can see it.

import { ask, service } from "./asking.js";
import { duration, element, fill, number } from "./words.js";

const EVERY = 500; // milliseconds between pictures
const WITHOUT = 5000; // between questions for a picture that is not there
const UNCHANGED = 10; // seconds after which a picture counts as old

class Camera {
  constructor(name) {
    this.address = addressOf(name);
    this.tag = null; // of the picture shown
    this.changed = null; // when it last changed
    this.onScreen = false;
    this.picture = element("img", { alt: `Newest picture of ${name}`, width: 640, height: 480, hidden: true });
    this.sign = element("div", { className: "sign", textContent: "waiting for the first picture" });
    this.mark = element("span", { className: "mark" });
    this.rate = element("span", { className: "muted" });
    const caption = element("figcaption", {}, element("b", {}, name), this.mark, this.rate);
    this.figure = element("figure", {}, element("div", { className: "view" }, this.picture, this.sign), caption);
    this.observer = new IntersectionObserver((entries) => {
      this.onScreen = entries.at(-1).isIntersecting;
      this.wake();
    });
    this.observer.observe(this.figure);
    this.run();
  }

  // Show what health says of this camera.
  describe(camera, pace) {
    this.said = [camera, pace];
    const paused = pace?.rate === 0;
    const watching = Boolean(camera?.watching);
    this.mark.textContent = paused ? "paused" : watching ? "watching" : "lost";
    this.mark.className = `mark ${watching && !paused ? "good" : "bad"}`;
    this.rate.textContent = watching && !paused ? `${number(camera.fps, 1)} frames/s` : "";
    const seconds = this.changed === null ? 0 : (performance.now() - this.changed) / 1000;
    const usual = Math.max(UNCHANGED, pace?.rate ? 3 / pace.rate : 0);
    const old = this.changed !== null && seconds > usual ? `This picture is ${duration(seconds)} old.` : "";
    if (paused) this.say(`Paused: ${pace.reason || "no reason given"}. ${old}`);
    else if (!watching) this.say(`Camera lost: ${camera?.last_error || "it gives no frames"}. ${old}`);
    else if (this.changed === null) this.say("No picture yet.");
    else this.say(old);
  }

  say(text) {
    this.sign.hidden = text === "";
    if (this.sign.textContent !== text) this.sign.textContent = text;
  }

  wake() {
    this.woken?.();
  }

  async run() {
    while (!this.ended) {
      if (document.hidden || !this.onScreen) {
        await new Promise((done) => { this.woken = done; });
        continue;
      }
      const begun = performance.now();
      const every = await this.renew();
      const rest = Math.max(100, every - (performance.now() - begun));
      await new Promise((done) => { setTimeout(done, rest); });
    }
  }

  // Ask for the picture; return after how long to ask again.
  async renew() {
    if (this.address === null) return WITHOUT;
    const answer = await ask(this.address, this.tag ? { "If-None-Match": this.tag } : {});
    if (answer === null) return service.lost ? WITHOUT : 4 * EVERY;
    if (answer.status === 304) return EVERY;
    if (!answer.ok) return WITHOUT;
    let address;
    try {
      address = URL.createObjectURL(await answer.blob());
      const former = this.picture.src;
      this.picture.src = address;
      await this.picture.decode();
      if (former) URL.revokeObjectURL(former);
    } catch {
      return WITHOUT; // cut off, or not a picture
    }
    this.picture.hidden = false;
    this.picture.width = this.picture.naturalWidth;
    this.picture.height = this.picture.naturalHeight;
    this.tag = answer.headers.get("etag");
    this.changed = performance.now();
    if (this.said) this.describe(...this.said);
    return EVERY;
  }

  end() {
    this.ended = true;
    this.observer.disconnect();
    this.wake();
    if (this.picture.src) URL.revokeObjectURL(this.picture.src);
  }
}

// A name that is no well-formed text has no address.
function addressOf(name) {
  try {
    return `/live/${encodeURIComponent(name)}.jpg`;
  } catch {
    return null;
  }
}

const cameras = new Map();
document.addEventListener("visibilitychange", () => cameras.forEach((camera) => camera.wake()));

// Show these cameras, and what health says of them.
export function showCameras(place, health) {
  const rows = new Map((health.cameras ?? []).map((row) => [String(row.name), row]));
  if ([...rows.keys()].join("\0") !== [...cameras.keys()].join("\0")) {
    cameras.forEach((camera) => camera.end());
    cameras.clear();
    rows.forEach((_, name) => cameras.set(name, new Camera(name)));
    const none = element("p", { className: "muted" }, "No camera is configured.");
    fill(place, ...(cameras.size ? [...cameras.values()].map((camera) => camera.figure) : [none]));
  }
  rows.forEach((row, name) => cameras.get(name).describe(row, health.pace));
}
