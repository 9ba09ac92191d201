// Checks an account's credit in this browser: receipts -> lines -> leaf -> root.
//
// The bundle and the root both come from this coordinator, so what holds here is that its books
// agree with themselves. That the root is the one on the chain, the chain must say: whoever has a
// root from elsewhere gives it, and it is compared with that one.

import { el, fill } from "../dom.js";
import { stepList } from "../steps.js";
import { decodeBundle } from "../verify/bundle.js";
import { equal, unhex } from "../verify/bytes.js";
import { verifyBundle } from "../verify/credit.js";
import { missing } from "../verify/signatures.js";
import { ask, askBytes } from "./api.js";
import { card } from "./parts.js";

const ROOT = /^(0x)?[0-9a-f]{64}$/;
// A card with a button that runs the check.
export function checkCard(account) {
  const result = el("div", { class: "stack tight", "aria-live": "polite" });
  const root = el("input", {
    id: "root", class: "mono", autocomplete: "off", spellcheck: "false",
    "aria-describedby": "root-help",
  });
  const button = el("button", { class: "primary" }, "Check it here");
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    fill(result, el("p", { class: "muted" }, "Checking…"));
    fill(result, await checked(account, root.value.trim().toLowerCase()));
    button.disabled = false;
  };
  return card("Proof",
    el("form", { submit, class: "stack", novalidate: true },
      el("p", {}, "Your browser fetches every receipt and line behind this credit, adds them up, "
        + "and follows the Merkle proof to the root of the newest epoch on the chain."),
      el("div", { class: "row" },
        el("div", { class: "grow" },
          el("label", { for: "root" }, "That epoch's root as you know it from the chain, if you do"),
          root),
        button),
      el("p", { class: "small muted", id: "root-help" },
        "Without it the coordinator's own word for the root is taken. ",
        el("code", {}, "assay credit verify"),
        " reads it from a chain of your choice, and also checks the receipts you kept.")),
    result);
}

async function checked(account, root) {
  const unable = await missing();
  if (unable) return el("p", { class: "notice warn" }, unable);
  if (root && !ROOT.test(root)) {
    return el("p", { class: "notice warn", role: "alert" }, "A root is 64 hex digits.");
  }
  try {
    const bundle = decodeBundle(await askBytes(`credit/${account}/bundle`));
    const [epoch, before] = await Promise.all([posted(bundle.epoch), posted(bundle.epoch - 1n)]);
    return verdict(bundle, epoch, await verifyBundle(bundle, {
      account: unhex(account),
      ledger: unhex((await ask("network")).chain.ledger.slice(2)),
      posted: { source: "this coordinator told the root", epoch, before, policy: epoch.policy },
    }), root);
  } catch (error) {
    if (!error.code) throw error;
    return el("p", { class: `notice ${error.reason ? "bad" : "warn"}`, role: "alert" },
      `${sentence(error)} `, el("code", { class: "muted" }, error.code));
  }
}

// The coordinator refused, or what it sent is no bundle.
function sentence({ code, message, reason }) {
  if (reason) return `What the coordinator sent cannot be read: ${reason}.`;
  return code === "proof_invalid" ? `Nothing to check: ${message}.` : message;
}

// What the coordinator says is on the chain; null before the first epoch.
async function posted(number) {
  if (number < 1n) return null;
  const told = await ask(`epochs/${number}`);
  return {
    root: unhex(told.root),
    total: BigInt(told.total),
    leaves: BigInt(told.leaves),
    policy: unhex(told.pricing),
  };
}

function verdict(bundle, epoch, { ok, steps }, root) {
  const own = root && equal(unhex(root.replace(/^0x/, "")), epoch.root);
  const shown = steps.filter((step) => step.name !== "root");
  const last = root
    ? { name: "your root", ok: Boolean(own), detail: own ? "it is the one the proof leads to" : "it is another one" }
    : { name: "root", ok: null, detail: "told by this coordinator: compare it with the chain" };
  const right = ok && (!root || own);
  return [
    el("p", { class: `notice ${right ? (root ? "good" : "warn") : "bad"}` }, summary(bundle.epoch, right, root)),
    stepList([...shown, last]),
  ];
}

function summary(epoch, right, root) {
  if (!right) return `The proof of epoch ${epoch} does not hold. Keep this page and the receipts you have.`;
  if (root) return `Everything adds up, and leads to the root you gave for epoch ${epoch}.`;
  return `Everything adds up for epoch ${epoch}. One thing is open: that the chain has this root.`;
}
