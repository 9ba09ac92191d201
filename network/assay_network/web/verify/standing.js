// What may be said of an answer for its node's record (sdk/assay/standing.py). The record is the
// coordinator's word with the ticket, and not signed.

import { jobSeed } from "./hashes.js";
import { read, short } from "./receipt.js";

const RULE_OF_THREE = 3; // of v audits none failed: at 95 %, less than 3 / v of the jobs are bad
const CREDIT = 1_000_000n; // micro-credits

// One sentence a line. Throws ProtocolError if the record's blobs are not what they must be.
export function linesOf(record) {
  const { ticket, receipt } = read(record);
  const seed = short(jobSeed(ticket.seed_ticket, record.nonce));
  const node = `${short(ticket.node)}… (${receipt.class_id})`;
  const drawn = `drawn under seed ${seed}… by node ${node}`;
  const said = record.standing;
  return [drawn, audited(said), ...(said ? stakes(said) : []), replayed(said)];
}

// Micro-credits as credits.
export function credits(amount) {
  return `${amount / CREDIT}.${(amount % CREDIT).toString().padStart(6, "0")}`;
}

function audited(said) {
  if (!said) return "the coordinator said nothing of the node's audits: nothing is claimed for it";
  const passed = Number(said.audits_passed);
  if (said.audits_failed > 0n) {
    const counts = `${said.audits_failed} of its audits failed and ${passed} passed`;
    return `${counts}: no bound is claimed for it`;
  }
  if (!passed) return "none of its jobs was audited yet: nothing is claimed for it";
  if (passed <= RULE_OF_THREE) return `its ${passed} audits all passed: too few for a bound`;
  const share = general((100 * RULE_OF_THREE) / passed, 2);
  return `its last ${passed} audits all passed: at 95 %, less than ${share} % of its jobs are bad`;
}

function stakes(said) {
  const rate = `${general(Number(said.audit_bps) / 100, 6)} % of its jobs are audited`;
  const lines = [`${rate}; it loses ${credits(said.at_risk)} credits of held pay if convicted`];
  if (said.exact) lines.push("auditors of its own class found its answers equal bit for bit");
  if (said.state !== "active") lines.push(`its state was '${said.state}'`);
  return lines;
}

function replayed(said) {
  const unsigned = said ? "the record is the coordinator's word, unsigned; " : "";
  return `${unsigned}with the model's file you can replay the answer: assay receipt verify`;
}

// `digits` significant ones and no zeros at the end; far from 1 with an exponent, as Python's "g".
function general(value, digits) {
  const [mantissa, told] = value.toExponential(digits - 1).split("e");
  const exponent = Number(told);
  if (exponent >= -4 && exponent < digits) return String(Number(value.toPrecision(digits)));
  const size = String(Math.abs(exponent)).padStart(2, "0");
  return `${Number(mantissa)}e${exponent < 0 ? "-" : "+"}${size}`;
}
