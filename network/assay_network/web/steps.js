// The outcome of a verification, as verify/*.js gives it, shown: one line a step.

import { el } from "./dom.js";

const MARKS = new Map([
  [true, ["holds", "good"]],
  [false, ["does not hold", "bad"]],
  [null, ["not checked", ""]],
]);

// A list of steps { name, ok, detail }.
export function stepList(steps) {
  return el("ul", { class: "steps" }, steps.map(({ name, ok, detail }) => {
    const [word, tone] = MARKS.get(ok);
    return el(
      "li", {},
      el("span", { class: `badge ${tone}` }, word),
      el("div", {}, el("strong", {}, name), el("div", { class: "small muted break" }, detail)),
    );
  }));
}

// How many of each outcome, in a sentence.
export function summary(steps) {
  const count = (wanted) => steps.filter((step) => step.ok === wanted).length;
  const [held, failed, open] = [count(true), count(false), count(null)];
  const said = [
    failed ? `${failed} of ${steps.length} checks failed` : `${held} checks hold`,
    open ? `${open} cannot be made here` : "",
  ];
  return said.filter(Boolean).join(", ");
}

// Names and values side by side: pairs of a name and what `el` takes as children.
export function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined);
  return el("dl", { class: "facts" }, rows.map(([name, value]) => [
    el("dt", {}, name), el("dd", {}, value),
  ]));
}
