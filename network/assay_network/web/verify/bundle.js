// A bundle of credit: all that one account needs to check its credit of one epoch
// (protocol/spec/credit.md, "The bundle"). Bounded, and nothing in it is believed yet.

import { bigEndian } from "./bytes.js";
import { require } from "./errors.js";
import { unpack } from "./msgpack.js";

const VERSION = 2n;
export const BUNDLE_BYTES_MAX = 64 << 20;
const LINES_MAX = 1 << 18;
const STATEMENTS_MAX = 16;
const RECEIPT_BYTES_MAX = 4_096;
const PRICING_BYTES_MAX = (1 << 20) - 64;
const PROOF_ITEM_BYTES = 48;
const DEPTH_MAX = 32;
export const LINE_KINDS = ["job", "audit", "sweep"];

// { chainId, ledger, epoch, pricing, statements, receipts }, a statement being { leaf, index,
// proof, lines, previous }. Throws ProtocolError: "oversized" or "malformed".
export function decodeBundle(data) {
  require(data.length <= BUNDLE_BYTES_MAX, "the bundle is larger than 64 MiB", "oversized");
  const fields = unpack(data, { canonical: false });
  const known = !Array.isArray(fields) || !fields.length || fields[0] === VERSION;
  require(known, "the bundle's version is not known");
  const [, chainId, ledger, epoch, pricing, statements, receipts] = listOf(fields, 7, "bundle");
  const several = Array.isArray(statements) && statements.length <= STATEMENTS_MAX;
  require(several && statements.length > 0, `a bundle has 1 to ${STATEMENTS_MAX} statements`);
  return {
    chainId: number(chainId, 63),
    ledger: exactly(ledger, 20),
    epoch: number(epoch, 32),
    pricing: atMost(pricing, PRICING_BYTES_MAX, "the rules are larger than a message"),
    statements: statements.map(statementOf),
    receipts: bounded(receipts).map((blob) => (
      atMost(blob, RECEIPT_BYTES_MAX, "a receipt of more than 4096 bytes")
    )),
  };
}

// The siblings of a proof's bytes, leaf to root: { hash, amount } each.
export function decodeProof(raw) {
  require(raw instanceof Uint8Array, "not bytes of the right length");
  require(raw.length % PROOF_ITEM_BYTES === 0, "proof is not whole items");
  const count = raw.length / PROOF_ITEM_BYTES;
  require(count <= DEPTH_MAX, "proof is too deep");
  return Array.from({ length: count }, (_, i) => {
    const item = raw.subarray(i * PROOF_ITEM_BYTES, (i + 1) * PROOF_ITEM_BYTES);
    return { hash: item.subarray(0, 32), amount: bigEndian(item.subarray(32)) };
  });
}

function statementOf(raw) {
  const [leaf, index, proof, lines, previous] = listOf(raw, 5, "statement");
  return {
    leaf: leafOf(leaf),
    index: number(index, 32),
    proof: decodeProof(proof),
    lines: bounded(lines).map(lineOf),
    previous: previous === null ? null : previousOf(previous),
  };
}

function leafOf(raw) {
  const [account, role, cumulative, epochCredit, root] = listOf(raw, 5, "leaf");
  return {
    account: exactly(account, 32),
    role: number(role, 8),
    cumulative: bigEndian(exactly(cumulative, 16)),
    epochCredit: bigEndian(exactly(epochCredit, 16)),
    receiptsRoot: exactly(root, 32),
  };
}

function lineOf(raw) {
  const [kind, id, digest, amount] = listOf(raw, 4, "line");
  const name = LINE_KINDS[Number(number(kind, 8))];
  require(name !== undefined, `no kind of line has number ${kind}`);
  return {
    kind: name, id: exactly(id, 16), digest: exactly(digest, 32),
    amount: bigEndian(exactly(amount, 16)),
  };
}

function previousOf(raw) {
  const [leaf, index, proof] = listOf(raw, 3, "previous leaf");
  return { leaf: leafOf(leaf), index: number(index, 32), proof: decodeProof(proof) };
}

function listOf(raw, size, what) {
  const right = Array.isArray(raw) && raw.length === size;
  require(right, `a ${what} is not a list of ${size} fields`);
  return raw;
}

function bounded(raw) {
  require(Array.isArray(raw), "lines and receipts are lists");
  require(raw.length <= LINES_MAX, `more than ${LINES_MAX} lines or receipts`, "oversized");
  return raw;
}

function number(raw, bits) {
  const right = typeof raw === "bigint" && raw >= 0n && raw >> BigInt(bits) === 0n;
  require(right, `not a number of ${bits} bits`);
  return raw;
}

function exactly(raw, size) {
  const right = raw instanceof Uint8Array && raw.length === size;
  require(right, "not bytes of the right length");
  return raw;
}

function atMost(raw, size, reason) {
  require(raw instanceof Uint8Array, "not bytes of the right length");
  require(raw.length <= size, reason, "oversized");
  return raw;
}
