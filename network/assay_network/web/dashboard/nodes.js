// Nodes: all of them, and one with its record.

import { el } from "../dom.js";
import { ask } from "./api.js";
import { level } from "./charts.js";
import { count, money, percent, plural, rate, short, when } from "./format.js";
import { ownNode, setOwnNode } from "./own_node.js";
import {
  badge, card, facts, figures, filters, jobLink, modelName, modelNames, nodeLink, pager, table,
} from "./parts.js";
import { finding, nodeState, whyStanding } from "./words.js";

const CHOICES = [
  ["", "all"], ["active", "active"], ["probation", "probation"], ["away", "away"],
  ["inquiry", "inquiry"], ["suspended", "suspended"], ["convicted", "convicted"],
];

export const nodesView = {
  title: () => "Nodes",
  load: ({ query }, signal) => ask(`nodes?${query}`, signal),
  draw: ({ items, next }, { query }) => [
    filters("#/nodes", query, "state", CHOICES),
    el("section", { class: "card" },
      table("Nodes", [
        ["Node", (node) => nodeLink(node.node)],
        ["State", (node) => badge(nodeState(node.state))],
        ["Hardware", (node) => node.device || "–", "wide"],
        ["Models", (node) => modelNames(node.models), "wide"],
        ["At work", (node) => load(node), "number wide"],
        ["Jobs", (node) => count(node.jobs), "number"],
        ["Audits passed", (node) => audits(node), "number wide"],
        ["Earned", (node) => money(node.earned), "number"],
      ], items, query.get("state") ? "No node has this state." : "No node has registered yet."),
      pager("#/nodes", query, next)),
  ],
};

export const nodeView = {
  title: ({ node }) => `Node ${node.slice(0, 8)}…`,
  load: async ({ node, query }, signal) => {
    const paths = [`nodes/${node}`, `nodes/${node}/audits?${query}`, `jobs?node=${node}&limit=10`];
    const [one, audited, jobs] = await Promise.all(paths.map((path) => ask(path, signal)));
    return { one, audited, jobs: jobs.items };
  },
  draw: ({ one, audited, jobs }, { query }) => [
    standing(one),
    earnings(one),
    el("div", { class: "cards" }, record(one), hardware(one)),
    auditList(one, audited, query),
    jobList(one, jobs),
  ],
};

function load(node) {
  return node.state === "away" ? "–" : `${count(node.running)} of ${count(node.slots)}`;
}

function audits(node) {
  const failed = node.audits_failed;
  return [count(node.audits_passed), failed > 0 && el("span", { class: "bad" }, `, ${failed} failed`)];
}

function standing(node) {
  const state = nodeState(node.state);
  const look = node.standing === "convicted" ? "bad" : state.look;
  return el("div", { class: `notice stack tight ${look}` },
    el("div", { class: "head" }, badge(state),
      node.state !== node.standing && badge(nodeState(node.standing)),
      node.draining && badge({ look: "warn", text: "draining", means: "It leaves: no new jobs." }),
      el("span", { class: "muted small" }, "since ", when(node.since))),
    el("p", {}, whyStanding(node)),
    node.suspended_until && el("p", { class: "small" }, "It rests until ", when(node.suspended_until), "."),
    el("p", { class: "small break muted" }, el("code", {}, node.node)),
    ownButton(node));
}

function ownButton(node) {
  const mine = ownNode() === node.node;
  const click = (event) => {
    const now = ownNode() === node.node ? null : node.node;
    if (setOwnNode(now)) event.target.textContent = ownText(Boolean(now));
  };
  return el("div", {}, el("button", { click, id: "own" }, ownText(mine)));
}

function ownText(mine) {
  return mine ? "Forget that this node is mine" : "This is my node: show it on the first page";
}

function earnings(node) {
  const credit = el("a", { href: `#/credit/${node.node}` }, "epochs and proof");
  return figures(
    ["Earned", money(node.earned), credit],
    ["In escrow", money(node.escrow), "paid once it is certain"],
    ["By computing", money(node.credit.compute), "over its life"],
    ["By auditing", money(node.credit.auditor), plural(node.audits_done, "replay")],
    ["Jobs", count(node.jobs), `${count(node.running)} running now`],
  );
}

function record(node) {
  const nats = `${node.evidence_nats.toFixed(2)} of ${node.alarm_nats.toFixed(1)} nats`;
  const look = node.evidence_nats >= node.alarm_nats ? "bad" : node.evidence_nats > 2 ? "warn" : "good";
  const left = node.probation_left;
  return card("Record", facts(
    ["Audits", `${count(node.audits_passed)} passed, ${count(node.audits_failed)} failed`],
    ["Last passed", node.audits_passed ? when(node.audited_at) : "none yet"],
    ["Audited", `${percent(node.audit_rate)} of its jobs at least`
      + (left ? `; ${plural(left, "more audit")} to pass in probation` : "")],
    ["Evidence against it", nats, level(node.evidence_nats, node.alarm_nats, look, nats)],
    ["Equal bits in a row", count(node.exact_in_a_row)],
    ["As an auditor", `${plural(node.audits_done, "replay")}, ${plural(node.audit_faults, "fault")}, `
      + `outvoted ${plural(node.outvoted, "time")}`
      + (node.may_audit ? "" : "; it is asked no more")],
  ));
}

function hardware(node) {
  return card("Hardware and models",
    facts(
      ["Device", node.device || "not told since the coordinator started"],
      node.region && ["Where, by its own word", node.region],
      node.software && ["Software", node.software],
      ["Operator", short(node.operator)],
    ),
    table("Models it offers", [
      ["Model", (offer) => modelName(offer.model)],
      ["Class", (offer) => el("code", {}, offer.class), "wide"],
      ["Slots", (offer) => count(offer.slots), "number"],
      ["Prompt", (offer) => rate(offer.prefill_tokens_per_second), "number wide"],
      ["Answer", (offer) => rate(offer.decode_tokens_per_second), "number"],
    ], node.offers, "It offers nothing now."));
}

function auditList(node, { items, next }, query) {
  const role = query.get("role") ?? "";
  const other = role === "auditor" ? ["Answer of", "executor"] : ["Auditor", "auditor"];
  const choices = [["", "of its answers"], ["auditor", "it made of others' answers"]];
  return card("Audits",
    filters(`#/nodes/${node.node}`, query, "role", choices),
    table("Audits", [
      ["Job", (audit) => jobLink(audit.ticket)],
      ["When", (audit) => when(audit.at)],
      ["Found", (audit) => badge(finding(audit.found))],
      [other[0], (audit) => nodeLink(audit[other[1]]), "wide"],
      ["Wrong tokens", (audit) => `${count(audit.mismatches)} of ${count(audit.replayed)}`, "number"],
      ["Drift", (audit) => audit.drift.toFixed(4), "number wide"],
    ], items, role ? "It has audited nobody yet." : "No answer of it was audited yet."),
    pager(`#/nodes/${node.node}`, query, next));
}

function jobList(node, jobs) {
  return card("Latest jobs",
    table("Its latest jobs", [
      ["Job", (job) => jobLink(job.ticket)],
      ["Booked", (job) => when(job.booked_at)],
      ["Tokens", (job) => count(job.tokens_out), "number"],
      ["Price", (job) => money(job.charged), "number"],
    ], jobs, "It has done no job yet."),
    jobs.length > 0 && el("p", { class: "small" },
      el("a", { href: `#/jobs?node=${node.node}` }, "All its jobs")));
}
