// The page: asks the service again and again while somebody looks, and says what it knows.

import { askJson, service } from "./asking.js";
import { followWidth, showCounts, totalOf } from "./chart.js";
import { showHealth, showTiles } from "./health.js";
import { showCameras } from "./live.js";
import { showRecent } from "./recent.js";
import { age, duration, element, fill, many, moment } from "./words.js";

const RECENT = 48;
const CLOCKS_DIFFER = 120; // seconds
const CHOICES = [["24 hours", 24], ["7 days", 168], ["30 days", 720]];
const find = (selector) => document.querySelector(selector);

let health = null;
let individuals = null;
let hours = CHOICES[0][1];
const opened = Date.now();

async function renewHealth() {
  const found = await askJson("/api/health");
  if (found !== null) health = found;
  showAll();
}

function showAll() {
  if (health !== null) {
    showTiles(find("#tiles"), health, individuals);
    showCameras(find("#live .cameras"), health);
    showHealth(find("#health .panels"), health);
  }
}

async function renewCounts() {
  let asked;
  do {
    asked = hours;
    const chosen = await askJson(`/api/counts?hours=${asked}`);
    const day = asked === 24 ? chosen : await askJson("/api/counts?hours=24");
    if (day !== null) individuals = totalOf(day);
    showAll();
    if (chosen !== null && asked === hours) showCounts(find("#counts"), chosen, hours);
  } while (asked !== hours); // chosen anew meanwhile
}

async function renewRecent() {
  const found = await askJson(`/api/recent?limit=${RECENT}`);
  if (found !== null) showRecent(find("#recent"), found.events);
}

// Say how the service is, or that nobody knows.
function showState() {
  const lost = service.lost;
  const problems = lost ? [] : [...(health?.problems ?? [])];
  if (!lost && health?.drift?.noted?.length) problems.push(`${health.drift.sentence}.`); // no failure, so not in problems
  const ahead = service.ahead / 1000;
  if (health !== null && Math.abs(ahead) > CLOCKS_DIFFER) {
    problems.push(`The clock of this device is ${duration(Math.abs(ahead))} ${ahead > 0 ? "ahead of" : "behind"} yours.`);
  }
  document.body.classList.toggle("stale", lost);
  const place = find("#lost");
  if (lost) {
    const since = service.answered ?? opened;
    const what = service.refusal ? `The service cannot say how it is: ${service.refusal}.` : "The service cannot be reached.";
    const old = health === null ? "" : " What stands below is from before.";
    change(place, `${what} Its last answer came ${service.answered ? `at ${moment(since, true)}, ${age((Date.now() - since) / 1000)}` : "before this page was opened"}.${old}`);
  }
  place.hidden = !lost;
  const list = find("#problems ul");
  if (list.dataset.shown !== JSON.stringify(problems)) {
    list.dataset.shown = JSON.stringify(problems);
    fill(list, ...problems.map((text) => element("li", {}, text)));
  }
  find("#problems").hidden = problems.length === 0;
  const state = find("#state");
  const well = !lost && health?.ok && problems.length === 0;
  const word = problems.length ? many(problems.length, "problem") : "not well";
  change(state, lost ? "not reachable" : health === null ? "loading" : well ? "all well" : word);
  state.className = `mark ${well ? "good" : "bad"}`;
  if (health === null) return;
  if (health.device) {
    change(find("h1"), `${health.device}: insects, counted`);
    document.title = `${health.device} · edge-lsla`; // several devices are often open side by side
  }
  const model = health.model?.name ? `, ${health.model.name} in slot ${health.model.slot ?? "?"}` : "";
  change(find("#summary"), `running for ${duration(health.uptime_seconds)}${model}`);
}

function change(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

// Do something every so many milliseconds while the page is seen, and at once when it is seen again.
function keep(work, every) {
  let timer = null;
  let busy = false;
  const turn = async () => {
    if (busy) return;
    clearTimeout(timer);
    busy = true;
    try {
      await work();
    } finally {
      busy = false;
      showState();
      if (!document.hidden) timer = setTimeout(turn, every);
    }
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : turn()));
  turn();
  return turn;
}

fill(find("#place"), `edge-lsla · ${location.hostname}`);
followWidth(find("#counts"));
keep(renewHealth, 2000);
keep(renewRecent, 5000);
const turnCounts = keep(renewCounts, 30000);
fill(find("#counts .choice"), ...CHOICES.map(([text, value]) => {
  const button = element("button", { type: "button", ariaPressed: String(value === hours) }, text);
  button.addEventListener("click", () => {
    hours = value;
    for (const other of find("#counts .choice").children) other.ariaPressed = String(other === button);
    turnCounts();
  });
  return button;
}));
setInterval(showState, 1000);
