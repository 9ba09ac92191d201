// Jobs: the newest, and one with its audit. Who asked, and what, is nowhere here.

import { el } from "../dom.js";
import { ask } from "./api.js";
import { count, exact, milliseconds, money, plural, rate, short, when } from "./format.js";
import { badge, card, facts, jobLink, modelName, nodeLink, pager, table } from "./parts.js";
import { finding, jobState, outcome } from "./words.js";

const LEVELS = {
  sample: "as the lottery draws", now: "at once, whatever the lottery draws", none: "never",
};

export const jobsView = {
  title: () => "Jobs",
  load: ({ query }, signal) => ask(`jobs?${query}`, signal),
  draw: ({ items, next }, { query }) => [
    query.get("node") && el("p", {}, "Of node ", nodeLink(query.get("node")), ". ",
      el("a", { href: "#/jobs" }, "All jobs")),
    el("section", { class: "card" },
      table("Booked jobs", [
        ["Job", (job) => jobLink(job.ticket)],
        ["Booked", (job) => when(job.booked_at)],
        ["Model", (job) => modelName(job.model), "wide"],
        ["Node", (job) => nodeLink(job.node), "wide"],
        ["In", (job) => count(job.tokens_in), "number wide"],
        ["Out", (job) => count(job.tokens_out), "number"],
        ["First token", (job) => milliseconds(job.first_at - job.started_at), "number wide"],
        ["Speed", (job) => speed(job), "number wide"],
        ["Price", (job) => money(job.charged), "number wide"],
        ["State", (job) => state(job)],
      ], items, "No job was booked yet. A job stands here once its receipt is handed in."),
      pager("#/jobs", query, next)),
  ],
};

export const jobView = {
  title: ({ ticket }) => `Job ${ticket.slice(0, 8)}…`,
  load: ({ ticket }, signal) => ask(`jobs/${ticket}`, signal),
  draw: (job) => [
    el("div", { class: `notice stack tight ${(ended(job) ?? jobState(job.state)).look}` },
      el("div", { class: "head" }, state(job), el("span", { class: "muted small" }, when(job.booked_at))),
      el("p", {}, [ended(job)?.means, jobState(job.state).means].filter(Boolean).join(" "))),
    el("div", { class: "cards" }, answer(job), price(job)),
    replays(job),
  ],
};

// The verdict, where there is one.
function ended(job) {
  const plain = [null, "undrawn", "open"];
  return plain.includes(job.outcome) ? null : outcome(job.outcome);
}

function state(job) {
  const verdict = ended(job);
  const paid = verdict?.text === "passed" && job.state === "released";
  return el("span", {},
    verdict && badge(verdict), verdict && !paid && " ", !paid && badge(jobState(job.state)));
}

// Tokens a second after the first one.
function speed(job) {
  const seconds = (job.ended_at - job.first_at) / 1e6;
  return seconds > 0 && job.tokens_out > 1 ? rate((job.tokens_out - 1) / seconds) : "–";
}

function answer(job) {
  return card("Answer", facts(
    ["Node", nodeLink(job.node)],
    ["Model", modelName(job.model)],
    ["Prompt", plural(job.tokens_in, "token")],
    ["Answer", `${plural(job.tokens_out, "token")}, ended by ${job.finish}`],
    job.resumed_at > 0 && ["Goes on from", `token ${count(job.resumed_at)} of another node's answer`],
    ["Began", exact(job.started_at)],
    ["First token", milliseconds(job.first_at - job.started_at)],
    ["Speed", speed(job)],
    ["Receipt", short(job.receipt)],
  ));
}

function price(job) {
  const [numerator, denominator] = job.chance;
  return card("Money and audit", facts(
    ["Price", money(job.charged)],
    ["Chance of an audit", denominator ? `${numerator} in ${denominator}` : "–"],
    job.verify && ["Its client wants it audited", LEVELS[job.verify] ?? job.verify],
    ["Round", count(job.round)],
  ));
}

function replays(job) {
  const nothing = {
    undrawn: "The lottery did not draw it.",
    open: "Its audit runs. Who audits is told when it has ended.",
  };
  return card("Replays",
    table("Replays of this answer", [
      ["Auditor", (audit) => nodeLink(audit.auditor)],
      ["Found", (audit) => badge(finding(audit.found))],
      ["Wrong tokens", (audit) => `${count(audit.mismatches)} of ${count(audit.replayed)}`, "number"],
      ["Evidence", (audit) => `${audit.evidence_nats.toFixed(2)} nats`, "number wide"],
      ["Drift", (audit) => audit.drift.toFixed(4), "number wide"],
      ["Drawn from", (audit) => plural(audit.candidates, "candidate"), "number wide"],
      ["When", (audit) => when(audit.at), "wide"],
    ], job.audits, nothing[job.outcome]
      ?? (job.outcome ? "No replay was finished." : "Its round of the lottery is not drawn yet.")));
}
