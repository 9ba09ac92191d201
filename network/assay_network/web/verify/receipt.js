// Checks a receipt record alone, step by step: what `assay verify` checks offline, with the same
// verdicts (sdk/assay/verify.py). A step is { name, ok, detail }; ok is null where it cannot be
// checked from what a client holds. Nothing here asks anybody anything.

import { concat, equal, hex } from "./bytes.js";
import { ProtocolError, require } from "./errors.js";
import { grammarHash, nonceCommitment, outputHash, promptHash, toldHash } from "./hashes.js";
import { holdsImages, spells, unpackImages } from "./images.js";
import { FINISH_REASONS, Receipt, Ticket } from "./messages.js";
import { openSigned, peek } from "./signatures.js";
import { bound } from "./vectors.js";

// { ok, steps, price } of one record, under `coordinator`'s key if given, else under the key it
// names itself. `price` is in micro-credits, null without a valid ticket.
export async function verify(record, coordinator = null) {
  const key = coordinator ?? record.coordinator;
  const steps = [];
  let ticket;
  let receipt;
  try {
    ticket = await openTicket(record.ticket, key);
    steps.push(step("ticket signature", true, `signed by coordinator ${short(key)}`));
  } catch (error) {
    return result([refused("ticket signature", error)]);
  }
  try {
    receipt = await openSigned(Receipt, record.receipt, ticket.node);
    steps.push(step("receipt signature", true, `signed by node ${short(ticket.node)}`));
  } catch (error) {
    return result([...steps, refused("receipt signature", error)]);
  }
  const vectors = once(() => bound(ticket, record.nonce, record.output, Number(receipt.n_out)));
  steps.push(...contentSteps(record, ticket, receipt, vectors));
  if (ticket.sampler.grammar !== null || record.grammar !== null) {
    steps.push(...grammarSteps(record, ticket));
  }
  if (record.images.length > 0 || holdsImages(record.prompt)) steps.push(imagesStep(record));
  if (tellsPrompt(ticket) || record.prompt_logprobs.length > 0) {
    steps.push(toldStep(record, ticket, receipt));
  }
  steps.push(rootStep(ticket, receipt, vectors));
  const price = jobPrice(ticket, receipt.n_out);
  const tokens = ticket.sampler.texts === null
    ? `${receipt.n_in} prompt and ${receipt.n_out} answer tokens`
    : `${receipt.n_in} tokens of ${receipt.n_out} texts`;
  steps.push(step("price", true, `at most ${price} micro-credits for ${tokens}`));
  return result(steps, price);
}

// The same of the records of one resumed answer, in order, and that each goes on from the last.
export async function verifyAnswer(records, coordinator = null) {
  const steps = [];
  let price = 0n;
  for (const [index, record] of records.entries()) {
    const one = await verify(record, coordinator);
    steps.push(...one.steps.map((each) => ({ ...each, name: `${index + 1}: ${each.name}` })));
    price += one.price ?? 0n;
    if (index > 0 && one.ok) {
      steps.push(await continues(records[index - 1], record, `${index + 1}: continues`));
    }
  }
  return result(steps, price);
}

// What a record says, unchecked: { ticket, receipt } with their fields.
export function read(record) {
  return { ticket: peek(Ticket, record.ticket), receipt: peek(Receipt, record.receipt) };
}

// Micro-credits for a ticket's prompt and `count` answer tokens, rounded up once; of a job that
// embeds, for the texts that have their vectors.
export function jobPrice(ticket, count) {
  const { texts } = ticket.sampler;
  const read = texts === null
    ? ticket.n_in : texts.slice(0, Number(count)).reduce((sum, length) => sum + length, 0n);
  return (read * ticket.price_in + count * ticket.price_out + 999n) / 1000n;
}

export const step = (name, ok, detail) => ({ name, ok, detail });

export const short = (bytes) => hex(bytes).slice(0, 16);

// A step that bytes of somebody else failed; what is not about the bytes is thrown on.
export function refused(name, error, said = String(error.message)) {
  if (!(error instanceof ProtocolError)) throw error;
  return step(name, false, said);
}

async function openTicket(blob, coordinator) {
  try {
    return await openSigned(Ticket, blob, coordinator);
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    throw new ProtocolError(error.code === "bad_signature" ? "wrong_coordinator" : error.code);
  }
}

function contentSteps(record, ticket, receipt, vectors) {
  const { nonce, prompt } = record;
  const what = ticket.sampler.texts === null ? "tokens" : "vectors";
  const checks = [
    ["receipt fits ticket", `model ${short(ticket.model)}, ${receipt.finish}`,
      () => checkReceipt(receipt, ticket)],
    ["seed", "fixed by the ticket and this client's nonce before the node was known",
      () => equal(nonceCommitment(nonce), ticket.nonce_commitment)],
    ["prompt", `these ${ticket.n_in} tokens`,
      () => equal(promptHash(nonce, prompt), ticket.prompt_hash)
        && BigInt(prompt.length) === 4n * ticket.n_in],
    ["output", `these ${receipt.n_out} ${what}`, () => outputFits(record, ticket, receipt, vectors)],
  ];
  return checks.map((check) => tried(...check));
}

function tried(name, detail, holds) {
  try {
    return holds() ? step(name, true, detail) : step(name, false, "does not match");
  } catch (error) {
    return refused(name, error, error.reason);
  }
}

function outputFits({ nonce, output }, ticket, receipt, vectors) {
  if (ticket.sampler.texts !== null) return equal(vectors().output, receipt.output_hash);
  if (BigInt(output.length) !== 4n * receipt.n_out) return false;
  return equal(outputHash(ticket.ticket, nonce, output), receipt.output_hash);
}

const tellsPrompt = ({ sampler, start }) => sampler.prompt_logprobs !== null && start === 0n;

// That the logprobs of the prompt are those the node signed for; a replay says if they are right.
function toldStep({ nonce, prompt_logprobs: told }, ticket, receipt) {
  const rivals = ticket.sampler.prompt_logprobs;
  const entry = rivals === null ? 1 : 8 * (1 + Number(rivals));
  const detail = `of ${Math.floor(told.length / entry)} tokens, as the node signed for them`;
  return tried("prompt logprobs", detail, () => receipt.prompt_logprobs !== null
    && equal(toldHash(ticket.ticket, nonce, told), receipt.prompt_logprobs));
}

// `find`, asked once: what it gave or threw is given or thrown again.
function once(find) {
  let found = null;
  return () => {
    found ??= attempt(find);
    if (found.error) throw found.error;
    return found.value;
  };
}

function attempt(find) {
  try {
    return { value: find(), error: null };
  } catch (error) {
    return { value: null, error };
  }
}

function rootStep(ticket, receipt, vectors) {
  const name = "leaves root";
  if (ticket.sampler.texts === null) {
    return step(name, null, "covers sketches of the logits: a replay checks it");
  }
  return tried(name, "of these vectors: an auditor is held to the same ones", () => {
    const { root } = vectors();
    const bare = receipt.n_out > 0n && receipt.class_id.endsWith("/L"); // such leaves hold logprobs
    require(!bare, "leaves and logits do not match in number");
    return equal(root, receipt.root);
  });
}

function checkReceipt(receipt, ticket) {
  const fits = (holds, reason) => require(holds, reason, "receipt_mismatch");
  fits(equal(receipt.ticket, ticket.ticket), "ticket is not the ticket's");
  fits(receipt.n_in === ticket.n_in, "n_in is not the ticket's");
  fits(receipt.calibration === ticket.calibration, "calibration is not the ticket's");
  fits(receipt.n_out <= ticket.max_tokens, "more tokens than the ticket allows");
  const drawn = ticket.sampler.texts === null || receipt.finish !== "stop";
  fits(FINISH_REASONS.includes(receipt.finish) && drawn, "unknown reason for the end");
  const short = receipt.finish === "length" && receipt.n_out !== ticket.max_tokens;
  fits(!short, "ended by length before the ticket's length");
  const told = (receipt.prompt_logprobs !== null) === tellsPrompt(ticket);
  fits(told, "logprobs of the prompt: signed for or asked for");
  const ordered = receipt.started_at <= receipt.first_at && receipt.first_at <= receipt.ended_at;
  fits(ordered, "times are out of order");
  return true;
}

// That the pixels kept are those the prompt spells.
function imagesStep({ prompt, images }) {
  const name = "images";
  if (images.length === 0) {
    return step(name, null, "the record has no pixels of them, so nobody can replay it");
  }
  let kept;
  try {
    kept = unpackImages(images);
  } catch (error) {
    return refused(name, error, error.reason);
  }
  const detail = `the pixels of ${kept.length}, as the prompt spells them`;
  return tried(name, detail, () => spells(prompt, kept));
}

// That the grammar is the one committed to; what it allows is not computed in a browser.
function grammarSteps(record, ticket) {
  const committed = ticket.sampler.grammar;
  const fits = committed !== null && record.grammar !== null
    && equal(grammarHash(record.nonce, record.grammar), committed);
  if (!fits) return [step("grammar", false, "not the one committed to")];
  return [
    step("grammar", true, "the one committed to"),
    step("follows its grammar", null, "needs the model's card"),
  ];
}

async function continues(before, after, name) {
  let first;
  try {
    first = await openTicket(before.ticket, before.coordinator);
  } catch (error) {
    return refused(name, error, "the part before has no valid ticket");
  }
  const then = await openTicket(after.ticket, after.coordinator);
  if (!equal(first.seed_ticket, then.seed_ticket) || !equal(before.nonce, after.nonce)) {
    return step(name, false, "another seed: the parts are not of one answer");
  }
  const held = concat([before.prompt, before.output]);
  if (!equal(after.prompt.subarray(0, held.length), held)) {
    return step(name, false, "the prompt is not the earlier part");
  }
  const between = BigInt(after.prompt.length - held.length) / 4n;
  if (then.start !== first.start + BigInt(before.output.length) / 4n + between) {
    return step(name, false, "the parts do not meet");
  }
  return step(name, true, `from token ${then.start}, ${between} of them without a receipt`);
}

function result(steps, price = null) {
  return { ok: steps.every((one) => one.ok !== false), steps, price };
}
