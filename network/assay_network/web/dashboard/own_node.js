// The node that whoever looks calls theirs. Only this browser knows which that is.

import { el } from "../dom.js";

const NAME = "assay-own-node";
const KEY = /^[0-9a-f]{64}$/;

// Its key in hex, or null.
export function ownNode() {
  try {
    const key = localStorage.getItem(NAME);
    return KEY.test(key ?? "") ? key : null;
  } catch {
    return null; // the browser keeps nothing for this page
  }
}

// Keep it, or with null forget it; false if the browser keeps nothing.
export function setOwnNode(key) {
  try {
    if (key) localStorage.setItem(NAME, key);
    else localStorage.removeItem(NAME);
    return true;
  } catch {
    return false;
  }
}

// A field for a key, which leads to that node's page (or where `to(key)` says).
export function keyForm(label, to = (key) => `#/nodes/${key}`, name = "Key of a node, 64 hex digits") {
  const field = el("input", {
    id: "key", name: "key", class: "mono", autocomplete: "off", spellcheck: "false",
    "aria-describedby": "key-fault", placeholder: "e.g. b3c79fa4e83b…",
  });
  const fault = el("p", { id: "key-fault", class: "small bad", role: "alert" });
  const submit = (event) => {
    event.preventDefault();
    const key = field.value.trim().toLowerCase().replace(/^0x/, "");
    const right = KEY.test(key);
    field.setAttribute("aria-invalid", String(!right));
    fault.textContent = right ? "" : "A key is 64 hex digits; node keys show prints your node's.";
    if (right) location.hash = to(key);
  };
  return el("form", { submit, class: "stack tight", novalidate: true },
    el("div", { class: "row" },
      el("div", { class: "grow" }, el("label", { for: "key" }, name), field),
      el("button", { class: "primary" }, label)),
    fault);
}
