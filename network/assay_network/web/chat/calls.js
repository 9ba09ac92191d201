// What these pages ask of the gateway that served them: its public API, as any client would.

// A refusal, by its code. `seconds`: when to come again, if that was said.
export class Refused extends Error {
  constructor(code, message, seconds = null) {
    super(message);
    this.name = "Refused";
    this.code = code;
    this.seconds = seconds;
  }
}

const EVENT_CHARACTERS_MAX = 1 << 20;
const ASKED_SECONDS_MAX = 30;

const WORDS = {
  invalid_api_key: "This gateway asks for an API key. Put yours in below, under Keys.",
  insufficient_credit: "The gateway's own account has no credit left to pay a node with.",
  insufficient_quota: "What your key may spend is spent.",
  rate_limit_exceeded: "Too many questions at once for this key.",
  model_not_found: "Nobody offers this model now.",
  no_capacity: "No node that serves this model is free now.",
  context_length_exceeded: "The conversation is longer than the model reads. Reload to begin anew.",
  request_too_large: "The question is larger than this gateway takes.",
  busy: "The gateway answers as many questions as it can.",
  draining: "The gateway is ending.",
  timeout: "It took too long.",
  engine_failed: "The node's engine failed, and no other could go on.",
  peer_gone: "The node or the coordinator went away.",
  answers_differ: "Two nodes gave different answers, so neither is shown as true.",
  audit_failed: "An audit found that the answer is not the model's.",
  audit_missing: "No audit of the answer passed in time. Nothing speaks against it either.",
  content_filter: "The network's policy refuses a phrase of the question.",
  model_denied: "The network's rules do not allow this model.",
  misdirected_request: "This gateway answers by localhost or by an address, under no other name.",
  receipt_not_found: "The gateway does not keep this receipt any more.",
  unreachable: "The gateway does not answer. It may have ended, or the connection is gone.",
  cut_off: "The answer was cut off.",
};

// Why, in plain words and with the code to look up.
export function inWords(error) {
  if (!(error instanceof Refused)) throw error;
  const said = WORDS[error.code] ?? error.message;
  const when = error.seconds ? ` Try again in ${error.seconds} s.` : "";
  return `${said}${when} (${error.code})`;
}

// The answer to a GET, or to a POST where there is a `body`.
export async function ask(path, key, body = null) {
  const signal = AbortSignal.timeout(ASKED_SECONDS_MAX * 1000);
  const answer = await sent(path, key, body, signal);
  return answer.json();
}

// Streams a chat. `onText` gets each piece, `onThought` each of what the model reasons first; the
// result is what the last chunks told: { finish, usage, assay }. Throws Refused; an aborted `signal`
// throws its reason.
export async function chat(body, key, signal, onText, onThought) {
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  const answer = await sent("/v1/chat/completions", key, asked, signal);
  const told = { finish: null, usage: null, assay: null };
  let whole = false;
  for await (const data of eventsOf(answer.body)) {
    if (data === "[DONE]") {
      whole = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refused(chunk.error.code, chunk.error.message);
    const [choice] = chunk.choices;
    if (choice?.delta.reasoning_content) onThought(choice.delta.reasoning_content);
    if (choice?.delta.content) onText(choice.delta.content);
    told.finish = choice?.finish_reason ?? told.finish;
    told.usage = chunk.usage ?? told.usage;
    told.assay = chunk.assay ?? told.assay;
  }
  if (!whole) throw new Refused("cut_off", WORDS.cut_off);
  return told;
}

async function sent(path, key, body, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method: body ? "POST" : "GET", headers, signal, body: body ? JSON.stringify(body) : undefined,
    });
  } catch (error) {
    if (error.name === "TimeoutError") throw new Refused("timeout", WORDS.timeout);
    if (signal.aborted) throw error;
    throw new Refused("unreachable", WORDS.unreachable);
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  const { code = "internal", message = `HTTP status ${answer.status}` } = told.error ?? {};
  throw new Refused(code, message, Number(answer.headers.get("retry-after")) || null);
}

// The data of server-sent events, one line of data each.
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      const lines = held.split("\n");
      held = lines.pop();
      if (held.length > EVENT_CHARACTERS_MAX) throw new Refused("cut_off", WORDS.cut_off);
      for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
    }
  } catch (error) {
    if (error instanceof TypeError) throw new Refused("cut_off", WORDS.cut_off); // connection lost
    throw error;
  } finally {
    await reader.cancel().catch(() => {});
  }
}
