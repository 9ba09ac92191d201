// What stands under an answer: its receipts, checked in this browser, and their place in the credit
// that the network anchors on a chain.

import { el, fill } from "../dom.js";
import { facts, stepList, summary } from "../steps.js";
import { equal, hex, unbase64, unhex } from "../verify/bytes.js";
import { decodeBundle } from "../verify/bundle.js";
import { verifyBundle } from "../verify/credit.js";
import { ProtocolError, Unsupported } from "../verify/errors.js";
import { digest } from "../verify/hashes.js";
import { jobPrice, read, short, step, verify } from "../verify/receipt.js";
import { readRecord } from "../verify/records.js";
import { credits, linesOf } from "../verify/standing.js";
import { ask, inWords, Refused } from "./calls.js";

const LEAVES = 1n << 32n; // of a tree: no more fit one
// Beside reasoning: <think>, [/THINK], or a few heads like <|channel|>analysis<|message|>.
const MARKS = /^\s*((<[^<>]{1,20}>|\[[^[\]]{1,20}\])\w{0,16}\s*){0,8}$/;
const BOOKED = "Once the epoch in which it was paid stands on the chain, the receipt is a line of "
  + "its node's credit, and a proof leads from there to the epoch's root.";

const VERDICTS = {
  good: "Receipt holds",
  bad: "Receipt does not hold",
  none: "No receipt",
  unsupported: "Not checked",
};

// Fetches and checks an answer's receipts into `place`. `answer`: { text, reasoning, messages, model,
// told, key, coordinator } with what the stream told; the bytes of a receipt may be given in `records`.
export async function showProof(place, answer) {
  const ids = answer.told.assay?.receipts ?? [];
  fill(place, badge("", "Checking the receipt"));
  try {
    const records = await Promise.all(ids.map((id) => recordOf(id, answer.key)));
    if (!records.length) return conclude(place, "none", "The answer came without a receipt.");
    const checks = await Promise.all(records.map((one) => verify(one, answer.coordinator)));
    const counted = countSteps(records, answer);
    const spelled = await spelledSteps(records, answer);
    const steps = [...checks.flatMap((one) => one.steps), ...counted, ...spelled];
    const tone = steps.some((one) => one.ok === false) ? "bad" : "good";
    const shown = records.map((record, i) => {
      const more = i === 0 ? [...counted, ...spelled] : [];
      return receiptPart(record, checks[i], { answer, id: ids[i], more });
    });
    return conclude(place, tone, summary(steps), shown);
  } catch (error) {
    return told(place, error);
  }
}

// One record's facts, steps and what speaks for its node. With `asked`, { answer, id, more }, there
// are `more` steps, its credit can be looked for, and the record be saved.
export function receiptPart(record, check, asked = null) {
  const signed = read(record);
  return el(
    "div", { class: "stack tight" },
    check.ok ? null : el("p", { class: "small bad" }, "What it says, and does not prove:"),
    factsOf(signed, check),
    folded(`The receipt: ${summary(check.steps)}`, check.steps),
    asked?.more.length > 0 && folded(`The answer shown: ${summary(asked.more)}`, asked.more),
    el(
      "details", {},
      el("summary", {}, "What speaks for the node"),
      el("ul", { class: "small" }, linesOf(record).map((line) => el("li", {}, line))),
    ),
    asked && creditPart(record, asked),
    asked && saveButton(record, signed),
  );
}

function factsOf({ ticket, receipt }, { price }) {
  const seconds = Number(receipt.ended_at - receipt.started_at) / 1e6;
  const most = price ?? jobPrice(ticket, receipt.n_out);
  return facts([
    ["Node", mono(hex(ticket.node))],
    ["Model's file", mono(hex(ticket.model))],
    ["Tokens", `${receipt.n_in} read, ${receipt.n_out} drawn in ${seconds.toFixed(1)} s`],
    ["Price", `at most ${credits(most)} credits`],
    ["Ticket", mono(hex(ticket.ticket))],
  ]);
}

// That the signed counts are those the gateway told.
function countSteps(records, { told: { usage } }) {
  if (!usage) return [];
  const signed = records.reduce((sum, record) => sum + read(record).receipt.n_out, 0n);
  const detail = `${signed} signed, ${usage.completion_tokens} told by the gateway`;
  return [step("tokens counted", signed === BigInt(usage.completion_tokens), detail)];
}

// That the tokens signed for are those of the question and the text, as the gateway spells them.
async function spelledSteps(records, { text, reasoning, messages, model, key }) {
  const [first] = records;
  const resumed = read(first).ticket.start > 0n;
  const output = records.flatMap((record) => tokensOf(record.output));
  const [spelled, read_] = await Promise.all([
    ask("/detokenize", key, { model, tokens: output }),
    ask("/tokenize", key, { model, messages }),
  ]);
  const asks = read_.tokens.join() === tokensOf(first.prompt).join();
  const by = "by this gateway's word for the vocabulary";
  return [
    step("your question", resumed ? null : asks, `the prompt signed for is what you asked, ${by}`),
    step("the text", spells(spelled.prompt, reasoning, text), `the tokens signed for spell ${
      reasoning ? "this reasoning and this text" : "this text"}, ${by}`),
  ];
}

// Whether an answer's tokens spell the text; of one with reasoning, that first and, around it, only
// marks that a page does not show.
function spells(all, reasoning, text) {
  if (!reasoning) return all === text;
  const at = all.indexOf(reasoning);
  const [from, to] = [at + reasoning.length, all.length - text.length];
  if (at < 0 || to < from || !all.endsWith(text)) return false;
  return MARKS.test(all.slice(0, at)) && MARKS.test(all.slice(from, to));
}

function folded(title, steps) {
  return el("details", {}, el("summary", {}, title), stepList(steps));
}

function creditPart(record, { id, answer }) {
  const found = el("div", { class: "stack tight", "aria-live": "polite" });
  const button = el("button", { type: "button", click: look }, "Look for it in the node's credit");

  async function look() {
    button.disabled = true;
    try {
      const told = await ask(`/v1/receipts/${encodeURIComponent(id)}/credit`, answer.key);
      fill(found, await creditShown(record, told));
    } catch (error) {
      fill(found, el("p", { class: "small" }, sentenceOf(error)));
    }
    button.textContent = "Look again";
    button.disabled = false;
  }

  return el(
    "details", {},
    el("summary", {}, "Its place in the epoch's credit"),
    el("p", { class: "small muted" }, BOOKED),
    found, button,
  );
}

async function creditShown(record, told) {
  if (told.bundle === null) {
    return el("p", { class: "small" }, "No epoch with credit of the node is on the chain yet.");
  }
  const bundle = decodeBundle(unbase64(told.bundle) ?? new Uint8Array());
  const name = digest(record.receipt);
  const lines = bundle.statements.flatMap((statement) => statement.lines);
  const line = lines.find((one) => one.kind === "job" && equal(one.digest, name));
  const place = line
    ? step("booked", true, `epoch ${bundle.epoch} pays its node ${credits(line.amount)} credits`)
    : step("booked", null, `not in epoch ${bundle.epoch}: paid in another one, or not yet`);
  const posted = told.posted && postedOf(told.posted);
  const account = read(record).ticket.node;
  const checked = await verifyBundle(bundle, { account, posted });
  return [stepList([place, ...checked.steps]), posted ? null : compareForm(bundle, account)];
}

// What the gateway read of the chain, as verify/credit.js takes it.
function postedOf(told) {
  const root = (one) => one && {
    root: unhex(one.root), total: BigInt(one.total), leaves: BigInt(one.leaves),
  };
  return {
    source: `read by this gateway from ${told.source}`,
    epoch: root(told.epoch), before: root(told.before),
    policy: told.policy && unhex(told.policy),
    chainId: BigInt(told.chain_id), isLedger: told.is_ledger,
  };
}

// Where the gateway reads no chain: a root from elsewhere can be put in.
function compareForm(bundle, account) {
  const root = el("input", { id: "root", class: "mono", autocomplete: "off", required: true });
  const total = el("input", { id: "total", inputmode: "numeric", pattern: "[0-9]+" });
  const found = el("div", { "aria-live": "polite" });
  const check = async (event) => {
    event.preventDefault();
    const sum = total.value.trim();
    const bytes = unhex(root.value);
    if (bytes?.length !== 32 || !/^\d+$/.test(sum)) {
      fill(found, el("p", { class: "small" }, "A root is 64 hex digits, a total a whole number."));
      return;
    }
    const given = { root: bytes, total: BigInt(sum), leaves: LEAVES };
    const posted = { source: "given by you", epoch: given, before: null };
    const { steps } = await verifyBundle(bundle, { account, posted });
    fill(found, stepList(steps.filter((one) => one.name === "leaf to root")));
  };
  return el(
    "form", { class: "stack tight", submit: check },
    el(
      "p", { class: "small muted break" },
      `This gateway reads no chain. Ask the ledger 0x${hex(bundle.ledger)} for epoch `,
      `${bundle.epoch} where you trust the answer, and put in what it says.`,
    ),
    el("div", {}, el("label", { for: "root" }, "Root"), root),
    el("div", {}, el("label", { for: "total" }, "Total"), total),
    el("div", {}, el("button", { type: "submit" }, "Compare")), found,
  );
}

// A file that `assay verify` reads: the record with its length in front.
function saveButton(record, { ticket }) {
  const save = () => {
    const size = new DataView(new ArrayBuffer(4));
    size.setUint32(0, record.encoded.length);
    const url = URL.createObjectURL(new Blob([size.buffer, record.encoded]));
    const link = document.createElement("a");
    link.href = url;
    link.download = `${hex(ticket.ticket)}.receipt`;
    link.click();
    URL.revokeObjectURL(url);
  };
  const words = "It holds your question and the answer, so keep it as you keep those.";
  return el(
    "div", { class: "row" },
    el("button", { type: "button", click: save }, "Save the receipt"),
    el("span", { class: "small muted grow" }, words),
  );
}

async function recordOf(id, key) {
  const told = await ask(`/v1/receipts/${encodeURIComponent(id)}`, key);
  const encoded = unbase64(told.record) ?? new Uint8Array();
  const record = { ...readRecord(encoded), encoded };
  if (hex(read(record).ticket.ticket) !== id.split("-")[0]) {
    throw new ProtocolError("receipt_mismatch", "the gateway gave the receipt of another ticket");
  }
  return record;
}

function tokensOf(packed) {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  return Array.from({ length: packed.length / 4 }, (_, i) => view.getUint32(4 * i, true));
}

function conclude(place, verdict, said, ...more) {
  const tone = verdict === "good" || verdict === "bad" ? verdict : "warn";
  fill(
    place,
    el(
      "div", { class: "head" },
      badge(tone, VERDICTS[verdict]), el("span", { class: "small muted" }, said),
    ),
    more,
  );
  return verdict;
}

function told(place, error) {
  if (error instanceof Unsupported) return conclude(place, "unsupported", error.message);
  if (error instanceof ProtocolError) return conclude(place, "bad", sentenceOf(error));
  return conclude(place, "unsupported", sentenceOf(error));
}

// What went wrong, for people. A fault of ours is thrown on, to the console.
export function sentenceOf(error) {
  if (error instanceof Refused) return inWords(error);
  if (error instanceof ProtocolError || error instanceof Unsupported) return error.message;
  throw error;
}

const badge = (tone, text) => el("span", { class: `badge ${tone}` }, text);
const mono = (text) => el("span", { class: "mono break", title: text }, text);
