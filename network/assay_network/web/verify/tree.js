// The credit tree: a Merkle tree whose nodes also add up what is below them, so that one root says
// what each account earned and what all did (protocol/spec/credit.md). Hashes are SHA-256, integers
// unsigned with the highest byte first.

import { concat, toBigEndian } from "./bytes.js";
import { LINE_KINDS } from "./bundle.js";
import { require } from "./errors.js";
import { sha256 } from "./signatures.js";

const AMOUNT_MAX = (1n << 128n) - 1n;
const DEPTH_MAX = 32;
const [LEAF, NODE, LINE, NOTHING] = [0, 1, 2, 3].map((byte) => Uint8Array.of(byte));

// Of an account's leaf: { account, role, cumulative, epochCredit, receiptsRoot }.
export function leafHash(leaf) {
  return sha256(concat([
    LEAF, leaf.account, toBigEndian(leaf.role, 1), toBigEndian(leaf.cumulative, 16),
    toBigEndian(leaf.epochCredit, 16), leaf.receiptsRoot,
  ]));
}

// Of one booked receipt or audit: { kind, id, digest, amount }.
export function lineHash(line) {
  const kind = Uint8Array.of(LINE_KINDS.indexOf(line.kind));
  return sha256(concat([LINE, kind, line.id, line.digest, toBigEndian(line.amount, 16)]));
}

// The root { hash, amount } over leaves of that form, in order.
export async function treeOf(leaves) {
  const total = leaves.reduce((sum, leaf) => sum + leaf.amount, 0n);
  require(total <= AMOUNT_MAX, "sum is not 128 bit");
  let padding = { hash: await sha256(NOTHING), amount: 0n };
  let level = leaves.length ? leaves : [padding];
  while (level.length > 1) {
    const whole = level.length % 2 ? [...level, padding] : level;
    level = await Promise.all(
      Array.from({ length: whole.length / 2 }, (_, i) => joined(whole[2 * i], whole[2 * i + 1])),
    );
    padding = await joined(padding, padding);
  }
  return level[0];
}

// Root and sum { hash, amount } that a proof leads to from a leaf; compare both with the chain's.
// Throws ProtocolError("proof_invalid").
export async function fold(hash, amount, index, proof) {
  const fits = (holds, reason) => require(holds, reason, "proof_invalid");
  const placed = proof.length <= DEPTH_MAX && index >> BigInt(proof.length) === 0n;
  fits(placed, "the index does not fit the proof's depth");
  let node = { hash, amount };
  let place = index;
  for (const sibling of proof) {
    fits(sibling.amount <= AMOUNT_MAX - node.amount, "a proof item is out of bounds");
    node = await (place & 1n ? joined(sibling, node) : joined(node, sibling));
    place >>= 1n;
  }
  return node;
}

async function joined(left, right) {
  const sums = [toBigEndian(left.amount, 16), toBigEndian(right.amount, 16)];
  const hash = await sha256(concat([NODE, left.hash, sums[0], right.hash, sums[1]]));
  return { hash, amount: left.amount + right.amount };
}
