// Asking the service, and knowing since when it does not answer.

const PATIENCE = 8000; // milliseconds
const FAILURES = 2; // in a row, before the service counts as lost: a phone's network stumbles

export const service = {
  failures: 0,
  answered: null, // when it last answered, by this viewer's clock
  refusal: null, // what it said last instead of an answer
  ahead: 0, // milliseconds by which the device's clock is ahead of the viewer's
  get lost() {
    return this.failures >= FAILURES;
  },
  // Now, by the device's clock: its times are only comparable with that.
  now() {
    return Date.now() + this.ahead;
  },
};

// Return the response to a GET; null where none came, the service is at fault or the viewer has to sign in first.
export async function ask(address, headers = {}) {
  let response;
  try {
    response = await fetch(address, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  } catch {
    service.failures += 1;
    service.refusal = null;
    return null;
  }
  if (response.status === 401) {
    location.assign("/sign-in");
    return null;
  }
  if (response.status >= 500) {
    service.failures += 1;
    service.refusal = await refusal(response);
    return null;
  }
  service.failures = 0;
  service.answered = Date.now();
  const date = Date.parse(response.headers.get("date") ?? "");
  // The header has whole seconds, so it says half a second too little on average.
  if (!Number.isNaN(date)) service.ahead = date + 500 - service.answered;
  return response;
}

// Return the answer's JSON; null where there is none.
export async function askJson(address) {
  const response = await ask(address);
  if (response === null || !response.ok) return null;
  try {
    return await response.json();
  } catch {
    service.failures += 1;
    return null;
  }
}

async function refusal(response) {
  try {
    return (await response.json()).error ?? null;
  } catch {
    return null;
  }
}
