// Verification: how audits end, and what was found wrong.

import { el } from "../dom.js";
import { ask } from "./api.js";
import { bars } from "./charts.js";
import { clock, count, money, percent, plural, when } from "./format.js";
import { badge, card, figures, filters, jobLink, modelName, nodeLink, pager, table } from "./parts.js";
import { jobState, outcome } from "./words.js";

const KINDS = ["passed", "failed", "unequal", "withheld", "unproven", "unaudited", "convicted"];
const CHOICES = [["", "all"], ...KINDS.map((kind) => [kind, outcome(kind).text])];

export const verificationView = {
  title: () => "Verification",
  load: async ({ query }, signal) => {
    const asked = [ask("verification", signal), ask(`verdicts?${query}`, signal)];
    const [day, verdicts] = await Promise.all(asked);
    return { day, verdicts };
  },
  draw: ({ day, verdicts }, { query }) => [
    totals(day),
    card("Verdicts by the hour", hours(day)),
    card("Verdicts",
      filters("#/verification", query, "outcome", CHOICES),
      list(verdicts, query)),
    el("p", { class: "muted small" }, rules(day.policy), el("code", {}, "assay audit recheck"), "."),
  ],
};

function totals({ outcomes, replays, open, standing }) {
  const all = KINDS.reduce((sum, kind) => sum + outcomes[kind], 0);
  const bad = outcomes.failed + outcomes.unequal + outcomes.withheld + outcomes.convicted;
  const node = (state, word) => el("a", { href: `#/nodes?state=${state}` }, `${count(standing[state])} ${word}`);
  return figures(
    ["Verdicts", count(all), "in 24 hours"],
    ["Passed", all ? percent(outcomes.passed / all) : "–", `${count(outcomes.passed)} of them`],
    ["Found wrong", count(bad), bad ? "clients have their money back" : "in 24 hours"],
    ["Open audits", count(open), `${plural(replays, "replay")} in all`],
    ["Convicted", count(standing.convicted),
      el("span", {}, node("convicted", "ever"), ", ", node("inquiry", "under inquiry"))],
  );
}

function hours({ first_at: first, span_us: span, by_hour: by }) {
  const sum = (...kinds) => by.passed.map((_, i) => kinds.reduce((n, kind) => n + by[kind][i], 0));
  return bars({
    title: "Verdicts of the last 24 hours",
    unit: "in an hour",
    series: [
      { name: "passed", look: "good", values: by.passed },
      { name: "found wrong", look: "bad", values: sum("failed", "unequal", "withheld", "convicted") },
      { name: "undecided", look: "muted", values: sum("unproven", "unaudited") },
    ],
    labels: by.passed.map((_, i) => clock(first + i * span)),
    ends: [clock(first), "now"],
    show: count,
  });
}

function list({ items, next }, query) {
  const nothing = query.get("outcome") ? "No audit ended so." : "No audit has ended yet.";
  return [
    table("Verdicts", [
      ["Job", (one) => jobLink(one.ticket)],
      ["Outcome", (one) => badge(outcome(one.outcome))],
      ["When", (one) => when(one.at)],
      ["Node", (one) => nodeLink(one.node), "wide"],
      ["Model", (one) => modelName(one.model), "wide"],
      ["Price", (one) => money(one.charged), "number wide"],
      ["Money", (one) => badge(jobState(one.state)), "wide"],
    ], items, nothing),
    pager("#/verification", query, next),
  ];
}

function rules(policy) {
  return `Every job of a new node is audited until ${count(policy.probation_audits)} have passed, later `
    + `${percent(policy.audit_bps_min / 10_000)} of its jobs or more. Up to ${policy.replays_max} `
    + "auditors see a job, and two who agree with each other decide. "
    + `${plural(policy.convicting_jobs, "job")} found wrong so convict. Who was drawn, and why, `
    + "anybody can recheck with ";
}
