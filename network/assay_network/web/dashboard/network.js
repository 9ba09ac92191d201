// The first view: is the network healthy, what is my node earning, was anybody convicted and why.

import { el } from "../dom.js";
import { ask } from "./api.js";
import { bars } from "./charts.js";
import { clock, count, milliseconds, money, plural, rate, when } from "./format.js";
import { keyForm, ownNode } from "./own_node.js";
import { badge, card, facts, figures, jobLink, modelName, nodeLink, table } from "./parts.js";
import { fault, jobState, nodeState, outcome, whyStanding } from "./words.js";

export const networkView = {
  title: () => "Network",
  load: async (params, signal) => {
    const own = ownNode();
    const asked = [ask("network", signal), own && ask(`nodes/${own}`, signal).catch(() => null)];
    const [network, mine] = await Promise.all(asked);
    return { network, mine };
  },
  draw: ({ network, mine }) => [
    said(network),
    totals(network),
    el("div", { class: "cards" }, ownCard(mine), attention(network)),
    card("Jobs in the last six hours", activity(network.activity)),
    el("div", { class: "cards" }, latest(network), models(network)),
    card("This network", about(network)),
  ],
};

// The state in a word, for the bar on top.
export function healthWords({ faults, nodes }) {
  if (faults.length) return { look: "bad", text: plural(faults.length, "fault") };
  if (!serving(nodes)) return { look: "warn", text: "no node serves" };
  return { look: "good", text: "healthy" };
}

function serving(nodes) {
  return nodes.active + nodes.probation;
}

function said(network) {
  const { look } = healthWords(network);
  const { nodes, faults } = network;
  const here = `${plural(serving(nodes), "node serves", "nodes serve")}, `
    + `${count(network.free_slots)} of ${plural(network.slots, "slot")} free.`;
  const healthy = faults.length ? "The coordinator does not do its work: " : "Healthy. ";
  return el("div", { class: "notice said " + look },
    el("p", {}, el("span", { class: `dot ${look}` }),
      look === "warn" ? "The coordinator works, and no node serves. " : healthy,
      look === "warn" && !nodes.registered && [el("code", {}, "node start"), " with its address adds one."],
      faults.map(fault).join("; ") || (look === "good" && here)));
}

function totals(network) {
  const { rates, nodes, epoch } = network;
  const speed = rates.tokens_per_second === null ? "–" : rate(rates.tokens_per_second);
  return figures(
    ["Nodes here", count(nodes.present), `of ${count(nodes.registered)} ever registered`],
    ["At work", count(network.running), `${count(network.waiting)} waiting`],
    ["Jobs", count(network.jobs), "booked in all"],
    ["Rate", speed, rates.jobs ? `over the last ${plural(rates.jobs, "job")}` : "no job yet"],
    ["First token", rates.jobs ? milliseconds(rates.first_token_us) : "–", "median of the same"],
    ["Audits", count(network.audits), `${count(network.audits_open)} open`],
    ["Epoch", count(epoch.running), el("span", {}, "closes ", when(epoch.closes_at))],
  );
}

function ownCard(mine) {
  if (!mine) {
    return card("Your node",
      el("p", { class: "muted" }, "What does it earn, and how does it stand?"),
      keyForm("Show it"));
  }
  return card("Your node", facts(
    ["Node", nodeLink(mine.node)],
    ["State", badge(nodeState(mine.state))],
    ["Earned", money(mine.earned)],
    ["In escrow", money(mine.escrow)],
    ["Jobs", count(mine.jobs)],
    ["Audits", `${count(mine.audits_passed)} passed, ${count(mine.audits_failed)} failed`],
  ));
}

function attention({ attention: nodes, against }) {
  if (!nodes.length && !against.length) {
    return card("Needs a look", el("p", { class: "empty" },
      "Nothing. No node is under inquiry, suspended or convicted."));
  }
  return card("Needs a look",
    el("ul", { class: "notes" }, nodes.map((node) => {
      const standing = nodeState(node.standing);
      return el("li", { class: standing.look },
        el("div", { class: "head" }, badge(standing), nodeLink(node.node), when(node.since)),
        el("p", { class: "small" }, whyStanding(node)));
    })),
    !nodes.length && el("p", {}, `${plural(against.length, "audit")} found something wrong.`),
    el("p", { class: "small" }, el("a", { href: "#/verification" }, "All that audits found")));
}

function activity({ first_at: first, span_us: span, jobs, against }) {
  const good = jobs.map((all, i) => Math.max(0, all - against[i]));
  return bars({
    title: "Jobs by when they ended, in spans of five minutes",
    unit: "in five minutes",
    series: [
      { name: "jobs", look: "", values: good },
      { name: "found wrong", look: "bad", values: against },
    ],
    labels: jobs.map((_, i) => clock(first + i * span)),
    ends: [clock(first), "now"],
    show: count,
  });
}

function latest({ latest: jobs }) {
  return card("Latest jobs",
    table("The latest jobs", [
      ["Job", (job) => jobLink(job.ticket)],
      ["Booked", (job) => when(job.booked_at)],
      ["Tokens", (job) => count(job.tokens_out), "number"],
      ["State", (job) => badge(job.outcome === "failed" ? outcome("failed") : jobState(job.state))],
    ], jobs, "No job was booked yet."),
    jobs.length > 0 && el("p", { class: "small" }, el("a", { href: "#/jobs" }, "All jobs")));
}

function models({ models: listed }) {
  return card("Models",
    table("Models of the catalogue", [
      ["Model", (model) => modelName({ id: model.model, name: model.name })],
      ["Nodes", (model) => count(model.nodes), "number"],
      ["Free slots", (model) => `${count(model.free_slots)} of ${count(model.slots)}`, "number"],
    ], listed, "The catalogue is empty: coordinator start has a --catalogue."),
    el("p", { class: "small" }, el("a", { href: "#/models" }, "Prices and files")));
}

function about(network) {
  const { chain, epoch } = network;
  return facts(
    ["Coordinator's key", el("code", { class: "break" }, network.coordinator)],
    ["Chain", `${chain.id}${chain.local ? ", kept by this coordinator" : ""}`],
    ["Credit ledger", el("code", { class: "break" }, chain.ledger)],
    ["Last epoch", epoch.last
      ? el("a", { href: `#/credit/epochs/${epoch.last}` }, count(epoch.last)) : "none closed yet"],
    ["Treasury", money(network.treasury)],
  );
}
