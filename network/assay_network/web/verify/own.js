// What an account kept itself: its receipts, and what each must have earned. No maker of a bundle
// can pass these checks by leaving something out (contracts/assay_contracts/credit/own.py).

import { equal, hex, unhex } from "./bytes.js";
import { ProtocolError, require } from "./errors.js";
import { digest } from "./hashes.js";
import { Ack, decodeAs, Pricing, Receipt, Ticket, UNACKED_TOKENS_MAX } from "./messages.js";
import { jobPrice, short, step } from "./receipt.js";
import { openSigned, peek } from "./signatures.js";

const WHOLE_BPS = 10_000n;
const NAMES = ["ticket", "receipt", "ack", "ticket_blob"];
const MAY_BE_ABSENT = new Set(["ack", "ticket_blob"]);

// The receipts of a file that `node credit receipts` wrote: one JSON object a line.
export function keptOf(text) {
  return text.split("\n").filter((line) => line.trim()).map((line) => {
    const row = objectOf(line);
    return Object.fromEntries(NAMES.map((name) => [name, blobOf(row, name)]));
  });
}

// The three steps about `kept`, for the lines that `account` earned by computing.
export async function ownSteps(kept, account, lines, pricing, whole) {
  const jobs = lines.filter((line) => line.kind === "job");
  const booked = new Map(jobs.map((line) => [hex(line.id), line]));
  return [
    await signedBy(kept, account),
    inLines(kept, booked, whole),
    amounts(kept, jobs, pricing),
  ];
}

async function signedBy(kept, account) {
  const bad = [];
  for (const one of kept) {
    if (!(await isOwn(one, account))) bad.push(one);
  }
  const count = `${kept.length} receipts of one's own`;
  const told = `${count}, ${bad.length} not signed by ${short(account)}`;
  return step("receipt signatures", bad.length === 0, named(told, bad[0]?.ticket));
}

async function isOwn(one, account) {
  try {
    return equal((await openSigned(Receipt, one.receipt, account)).ticket, one.ticket);
  } catch (error) {
    if (error instanceof ProtocolError) return false;
    throw error;
  }
}

function inLines(kept, booked, whole) {
  const mine = kept.filter((one) => booked.has(hex(one.ticket)));
  const isOther = (one) => !equal(booked.get(hex(one.ticket)).digest, digest(one.receipt));
  const other = mine.filter(isOther).length;
  const absent = kept.length - mine.length;
  const told = `${mine.length} in this epoch, ${other} of another receipt, ${absent} not in it`;
  return step("own receipts", other === 0 && !(whole && absent), told);
}

// The client's word on what it got may have come with the receipt or later, so a job has two
// prices at most. A receipt without its ticket is left out, and counted.
function amounts(kept, jobs, pricing) {
  try {
    const rules = decodeAs(Pricing, pricing);
    const tickets = kept.filter((one) => one.ticket_blob !== null);
    const byTicket = new Map(tickets.map((one) => [hex(one.ticket), one]));
    const priced = jobs.filter((line) => byTicket.has(hex(line.id)));
    const wrong = priced.filter((line) => (
      !paysOf(byTicket.get(hex(line.id)), rules).includes(line.amount)
    ));
    const told = `${priced.length} of ${jobs.length} jobs priced again, ${wrong.length} differ`;
    return step("own amounts", wrong.length === 0, named(told, wrong[0]?.id));
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    return step("own amounts", false, error.message);
  }
}

// What the node may have got for a job.
function paysOf(kept, rules) {
  const ticket = peek(Ticket, kept.ticket_blob);
  const receipt = peek(Receipt, kept.receipt);
  const acked = kept.ack ? peek(Ack, kept.ack).count : 0n;
  const payable = acked + UNACKED_TOKENS_MAX;
  const counts = [receipt.n_out, receipt.n_out < payable ? receipt.n_out : payable];
  const shares = rules.splits.find((one) => equal(one.model, ticket.model))?.shares ?? [];
  const shared = shares.reduce((sum, share) => sum + share.bps, 0n);
  return counts.map((count) => {
    const price = jobPrice(ticket, count);
    const rest = price - (price * rules.fee_bps) / WHOLE_BPS;
    return (rest * (WHOLE_BPS - shared)) / WHOLE_BPS;
  });
}

function named(told, id) {
  return id ? `${told}: ${hex(id)}` : told;
}

function objectOf(line) {
  try {
    return Object(JSON.parse(line));
  } catch {
    return require(false, "not a file of exported receipts");
  }
}

function blobOf(row, name) {
  if (MAY_BE_ABSENT.has(name) && (row[name] ?? null) === null) return null;
  const blob = typeof row[name] === "string" ? unhex(row[name]) : null;
  require(blob !== null, "not a file of exported receipts");
  return blob;
}
