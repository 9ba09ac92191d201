// Checks one account's credit of one epoch: receipts -> lines -> leaf -> root, each arrow a named
// step for each role, with the verdicts of `assay credit verify`.
//
// A page asks no chain. The roots are given to it, and they prove nothing unless they come from
// somewhere other than whoever made the bundle: that is a step of its own, which is never "holds".

import { equal, hex } from "./bytes.js";
import { digest } from "./hashes.js";
import { ownSteps } from "./own.js";
import { refused, short, step } from "./receipt.js";
import { sha256 } from "./signatures.js";
import { fold, leafHash, lineHash, treeOf } from "./tree.js";

const COMPUTE = 0n;
const ROLES = ["compute", "publisher", "adapter", "data", "auditor", "treasury"];

// { ok, steps }. Options, each null or left out where it is not known:
//   account  one's own key: else a bundle of anybody's passes
//   ledger   the contract's address, as the operator published it
//   kept     one's own receipts (own.js); with `whole` each must be in this epoch
//   posted   { source, epoch, before, policy }: what the ledger holds of the epoch and of the one
//            before it, { root, total, leaves } or null if it is not posted; and the hash of its
//            pricing; { chainId, isLedger }, if that was asked, too: the chain's number, and
//            whether the network's code stands at the ledger. `source` says who told all this
export async function verifyBundle(bundle, options = {}) {
  const { account = null, ledger = null, kept = null, whole = false, posted = null } = options;
  const steps = [oneAccount(bundle, account), receiptDigests(bundle)];
  for (const statement of bundle.statements) {
    steps.push(noJobTwice(statement), await linesToLeaf(statement), cumulative(statement));
  }
  if (kept) {
    const computed = bundle.statements.filter((one) => one.leaf.role === COMPUTE);
    const lines = computed.flatMap((one) => one.lines);
    steps.push(...(await ownSteps(kept, accountOf(bundle), lines, bundle.pricing, whole)));
  }
  if (ledger) {
    const detail = `the bundle names 0x${hex(bundle.ledger)}`;
    steps.push(step("ledger address", equal(ledger, bundle.ledger), detail));
  }
  steps.push(...(posted ? await toRoots(bundle, posted) : await rootsToCompare(bundle)));
  return { ok: steps.every((one) => one.ok !== false), steps };
}

export function accountOf(bundle) {
  return bundle.statements[0].leaf.account;
}

export function roleName(role) {
  return ROLES[Number(role)] ?? `role ${role}`;
}

function oneAccount(bundle, account) {
  const wanted = account ?? accountOf(bundle);
  const roles = new Set(bundle.statements.map((one) => one.leaf.role));
  const owned = bundle.statements.every((one) => equal(one.leaf.account, wanted));
  const ok = owned && roles.size === bundle.statements.length;
  return step("account", ok, `${short(accountOf(bundle))} in ${roles.size} roles`);
}

function receiptDigests(bundle) {
  const lines = bundle.statements.flatMap((statement) => statement.lines);
  const booked = new Set(lines.map((line) => hex(line.digest)));
  const missing = bundle.receipts.filter((blob) => !booked.has(hex(digest(blob)))).length;
  const told = `${bundle.receipts.length} receipts, ${missing} not among the lines`;
  return step("receipt digests", missing === 0, told);
}

function noJobTwice(statement) {
  const seen = new Set();
  const again = new Set();
  const names = statement.lines.map((line) => `${line.kind} ${hex(line.id)}`);
  for (const name of names) (seen.has(name) ? again : seen).add(name);
  const twice = names.find((name) => again.has(name));
  const told = twice ? `${twice} is booked twice` : `${names.length} lines`;
  return step("no job twice", !twice, of(statement, told));
}

async function linesToLeaf(statement) {
  const { leaf, lines } = statement;
  try {
    const leaves = await Promise.all(
      lines.map(async (line) => ({ hash: await lineHash(line), amount: line.amount })),
    );
    const { hash, amount } = await treeOf(leaves);
    const summed = amount === leaf.epochCredit;
    const told = summed
      ? `epoch credit ${amount}` : `lines sum to ${amount}, leaf says ${leaf.epochCredit}`;
    return step("lines to leaf", summed && equal(hash, leaf.receiptsRoot), of(statement, told));
  } catch (error) {
    return refused("lines to leaf", error, of(statement, error.message));
  }
}

function cumulative(statement) {
  const { leaf, previous, index } = statement;
  const before = previous ? previous.leaf.cumulative : 0n;
  const sum = before + leaf.epochCredit;
  let ok = sum === leaf.cumulative;
  let told = `${before} + ${leaf.epochCredit} = ${sum}`;
  if (!ok) told += `, leaf says ${leaf.cumulative}`;
  const same = !previous || (equal(previous.leaf.account, leaf.account)
    && previous.leaf.role === leaf.role && previous.index === index);
  if (!same) [ok, told] = [false, "the previous leaf is another account's or place's"];
  return step("cumulative", ok, of(statement, told));
}

// Against the roots that were given.
async function toRoots(bundle, posted) {
  const { source, epoch, before, policy = null, chainId = null, isLedger = null } = posted;
  const steps = [step("root", null, `${source}: whoever made the proof must not be who says this`)];
  if (chainId !== null) {
    steps.push(step("chain id", chainId === bundle.chainId, `the chain says ${chainId}`));
  }
  if (isLedger !== null) {
    const told = `the artefact ${isLedger ? "is" : "is not"} at 0x${hex(bundle.ledger)}`;
    steps.push(step("contract code", isLedger, told));
  }
  if (isLedger === false) { // nothing such a contract answers means anything
    return [...steps, step("leaf to root", false, "not checked: other code")];
  }
  for (const one of bundle.statements) {
    steps.push(await toRoot("leaf to root", bundle.epoch, epoch, one));
    const name = "previous leaf to root";
    if (one.previous) {
      steps.push(await toRoot(name, bundle.epoch - 1n, before, one.previous));
    } else if (before) {
      const isNew = one.index >= before.leaves; // places are for ever: it earned nothing before
      const told = `place ${one.index}, ${before.leaves} leaves before: ${isNew ? "new" : "old"}`;
      steps.push(step(name, isNew, of(one, told)));
    }
  }
  if (policy) {
    const ok = equal(await sha256(bundle.pricing), policy);
    steps.push(step("pricing", ok, `the epoch was priced by ${short(policy)}`));
  }
  return steps;
}

async function toRoot(name, epoch, posted, { leaf, index, proof }) {
  if (!posted) return step(name, false, `epoch ${epoch} is not on the chain`);
  if (index >= posted.leaves) {
    return step(name, false, `index ${index} in a tree of ${posted.leaves}`);
  }
  try {
    const found = await fold(await leafHash(leaf), leaf.cumulative, index, proof);
    const ok = equal(found.hash, posted.root) && found.amount === posted.total;
    const told = `epoch ${epoch} root ${short(posted.root)} total ${posted.total}`;
    return step(name, ok, ok ? told : `the proof leads to ${short(found.hash)}, not ${told}`);
  } catch (error) {
    return refused(name, error);
  }
}

// Without roots: what to compare with the chain.
async function rootsToCompare(bundle) {
  const steps = [];
  for (const { leaf, index, proof } of bundle.statements) {
    try {
      const { hash, amount } = await fold(await leafHash(leaf), leaf.cumulative, index, proof);
      const told = `leads to ${hex(hash)} and total ${amount}: compare both with the ledger's`;
      steps.push(step("leaf to root", null, told));
    } catch (error) {
      steps.push(refused("leaf to root", error));
    }
  }
  return steps;
}

function of(statement, told) {
  return `${roleName(statement.leaf.role)}: ${told}`;
}
