// Asks the coordinator's JSON API (docs/dashboard.md). Every answer says what time it is there, so
// "3 min ago" is right on a machine whose clock is not.

const TIMEOUT_MS = 10_000;
let skew = 0; // microseconds that the coordinator's clock is ahead of this one

// What the coordinator's clock says, in microseconds since the epoch.
export function now() {
  return Date.now() * 1000 + skew;
}

// A refusal, with its stable code; "unreachable" if there was no answer at all.
export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

// The answer for `path` (without "api/") as JSON; throws Refused. `signal` gives it up.
export async function ask(path, signal) {
  return (await fetched(path, signal)).json();
}

// The same as bytes.
export async function askBytes(path, signal) {
  return new Uint8Array(await (await fetched(path, signal)).arrayBuffer());
}

async function fetched(path, signal) {
  const limits = [AbortSignal.timeout(TIMEOUT_MS), ...(signal ? [signal] : [])];
  let response;
  try {
    response = await fetch(`api/${path}`, { signal: AbortSignal.any(limits) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused("unreachable", "The coordinator does not answer.");
  }
  const told = Number(response.headers.get("x-assay-now"));
  if (told > 0) skew = told - Date.now() * 1000;
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  try {
    const { error } = await response.json();
    return new Refused(String(error.code), String(error.message));
  } catch {
    return new Refused("unreachable", `The answer was HTTP ${response.status}.`);
  }
}
