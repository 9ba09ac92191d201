// The chat page: asks the gateway that served it, streams the answer, and has its receipt checked.

import { el, fill } from "../dom.js";
import { unhex } from "../verify/bytes.js";
import { missing } from "../verify/signatures.js";
import { ask, chat, inWords, Refused } from "./calls.js";
import { showProof } from "./proof.js";

const TURNS_MAX = 200; // of one conversation, as it is sent again with every question

const at = (id) => document.getElementById(id);
const [form, question, talk] = ["ask", "question", "talk"].map(at);
const [send, stop, status] = ["send", "stop", "status"].map(at);
const messages = [];
let running = null; // the AbortController of the answer under way

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!text || running) return;
  question.value = "";
  answer(text);
});

question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});

stop.addEventListener("click", () => running?.abort());
at("key").addEventListener("change", listModels);

listModels();
missing().then((reason) => reason && notice("warn", `${reason} Answers come, but unchecked.`));

async function answer(text) {
  if (messages.length >= TURNS_MAX) {
    notice("bad", "This conversation is long enough; reload to begin anew.");
    return;
  }
  const turn = begun(text);
  const asked = [...messages, { role: "user", content: text }];
  const key = at("key").value.trim();
  const model = at("model").value;
  const mine = new AbortController();
  begin(mine);
  try {
    const body = { model, messages: asked, max_tokens: Number(at("length").value) || 256 };
    const told = await chat(body, key, mine.signal, turn.add, turn.think);
    messages.push(asked.at(-1), { role: "assistant", content: turn.text() });
    end(mine); // the next question may be asked while this answer's receipt is checked
    turn.end();
    status.textContent = "Answered; checking the receipt";
    const coordinator = coordinatorKey();
    const said = { text: turn.text(), reasoning: turn.reasoning() };
    const facts = { ...said, messages: asked, model, told, key, coordinator };
    const verdict = await showProof(turn.proof(), facts);
    status.textContent = verdict === "good" ? "The receipt holds" : "The receipt was not confirmed";
  } catch (error) {
    end(mine);
    turn.end();
    failed(turn, error, mine.signal.aborted);
    if (!mine.signal.aborted) question.value ||= text;
  }
}

function failed(turn, error, stopped) {
  if (stopped) {
    turn.say("warn", "Stopped. What was drawn until then is paid for, and no receipt is shown.");
    status.textContent = "Stopped";
    return;
  }
  if (!(error instanceof Refused)) {
    turn.say("bad", "A fault of this page; the browser's console has it.");
    throw error;
  }
  turn.say("bad", inWords(error));
  status.textContent = "The question was not answered";
  if (error.code === "invalid_api_key") {
    at("settings").open = true;
    at("key").focus();
  }
}

// A question and the place of its answer, on the page.
function begun(text) {
  at("intro").hidden = true;
  const words = el("div", { class: "words" });
  const thought = el("div", { class: "words small muted" });
  const turn = el("li", { class: "turn answered drawing" }, words);
  talk.append(el("li", { class: "turn asked" }, el("div", { class: "words" }, text)), turn);
  turn.scrollIntoView({ block: "nearest" });
  const below = () => turn.appendChild(el("div", { class: "proof" }));
  const grow = (place, piece) => {
    const follows = innerHeight + scrollY >= document.body.scrollHeight - 80;
    place.append(piece);
    if (follows) scrollTo(0, document.body.scrollHeight);
  };
  return {
    text: () => words.textContent,
    reasoning: () => thought.textContent,
    add: (piece) => grow(words, piece),
    think: (piece) => {
      if (!thought.isConnected) {
        words.before(el("details", { class: "reasoning" }, el("summary", {}, "Reasoning"), thought));
      }
      grow(thought, piece);
    },
    proof: below,
    say: (tone, said) => below().append(el("p", { class: `notice ${tone}` }, said)),
    end: () => turn.classList.remove("drawing"),
  };
}

// While an answer comes, the log says nothing aloud; then it is read as a whole.
function begin(controller) {
  running = controller;
  status.textContent = "Answering";
  busy(true);
}

function end(controller) {
  if (running !== controller) return;
  running = null;
  busy(false);
}

function busy(is) {
  talk.setAttribute("aria-busy", String(is));
  send.hidden = is;
  stop.hidden = !is;
}

async function listModels() {
  try {
    const { data } = await ask("/v1/models", at("key").value.trim());
    fill(at("model"), data.map(({ id, nodes }) => (
      el("option", { value: id }, `${id}, ${counted(nodes, "node")}`)
    )));
    at("gateway").textContent = `${counted(data.length, "model")} offered`;
    fill(at("notices"));
  } catch (error) {
    at("gateway").textContent = "";
    notice("bad", inWords(error));
    if (error.code === "invalid_api_key") at("settings").open = true;
  }
}

const counted = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

function coordinatorKey() {
  const text = at("coordinator").value.trim();
  return text ? unhex(text) ?? new Uint8Array() : null;
}

function notice(tone, said) {
  fill(at("notices"), el("p", { class: `notice ${tone}`, role: "alert" }, said));
}
