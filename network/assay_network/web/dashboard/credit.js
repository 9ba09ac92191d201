// Credit: epochs and their roots, and what one account earned.

import { el } from "../dom.js";
import { ask } from "./api.js";
import { bars } from "./charts.js";
import { checkCard } from "./credit_check.js";
import { count, credits, money, short, when } from "./format.js";
import { keyForm } from "./own_node.js";
import { badge, card, facts, figures, pager, table } from "./parts.js";
import { epochState } from "./words.js";

const KEY_NAME = "Key of an account, 64 hex digits";
const ROLES = {
  compute: "By computing", auditor: "By auditing", publisher: "As publisher", adapter: "By an adapter",
  data: "By data", treasury: "As treasury",
};

export const creditView = {
  title: () => "Credit",
  frame: () => {
    const body = el("div", { class: "stack" });
    const form = card("What did an account earn?", keyForm("Show it", (key) => `#/credit/${key}`, KEY_NAME));
    return { nodes: [el("h1", {}, "Credit"), form, body], body };
  },
  load: ({ query }, signal) => ask(`epochs?${query}`, signal),
  draw: (told, { query }) => [
    !query.get("after") && running(told),
    !query.get("after") && told.items.length > 0 && card("Credit of each epoch", history(told.items)),
    card("Epochs", list(told, query)),
  ],
};

export const epochView = {
  title: ({ epoch }) => `Epoch ${epoch}`,
  load: async ({ epoch, query }, signal) => {
    const asked = [ask(`epochs/${epoch}`, signal), ask(`epochs/${epoch}/leaves?${query}`, signal)];
    const [one, leaves] = await Promise.all(asked);
    return { one, leaves };
  },
  draw: ({ one, leaves }, { query }) => [posted(one), leafList(one, leaves, query)],
};

export const accountView = {
  title: ({ account }) => `Credit of ${account.slice(0, 8)}…`,
  frame: ({ account }) => {
    const body = el("div", { class: "stack" });
    const nodes = [el("h1", {}, `Credit of ${account.slice(0, 8)}…`), body, checkCard(account)];
    return { nodes, body };
  },
  load: ({ account }, signal) => ask(`credit/${account}`, signal),
  draw: (told) => [
    el("p", { class: "small break muted" }, el("code", {}, told.account)),
    figures(
      ["Earned", money(told.earned), "can be claimed once an epoch is final"],
      ["In escrow", money(told.escrow), "paid once it is certain"],
      ...told.roles.map((one) => [ROLES[one.role] ?? one.role, money(one.lifetime), `leaf ${count(one.index)} of every tree`]),
    ),
    card("Earned by epoch", byEpoch(told.epochs)),
  ],
};

function running({ running: now, chain }) {
  return figures(
    ["Running epoch", count(now.epoch), el("span", {}, "opened ", when(now.opened_at))],
    ["Closes", when(now.closes_at), "its root then goes on the chain"],
    ["Paid jobs", count(now.jobs), "in it so far"],
    ["Chain", String(chain.id), chain.local ? "kept by this coordinator" : "mined by others"],
  );
}

function history(items) {
  const ascending = [...items].reverse();
  const totals = ascending.map((one) => BigInt(one.total)); // of all time: differences are epochs
  const known = ascending[0].epoch === 1 ? 0 : 1;
  const epochs = ascending.slice(known);
  if (!epochs.length) return el("p", { class: "empty" }, "Nothing to compare it with on this page.");
  const sums = epochs.map((_, i) => Number(totals[i + known] - (i + known ? totals[i + known - 1] : 0n)));
  return bars({
    title: "Credit booked in each epoch",
    unit: "credits",
    series: [{ name: "credits", look: "", values: sums }],
    labels: epochs.map((one) => `epoch ${one.epoch}`),
    ends: [`epoch ${epochs[0].epoch}`, `epoch ${epochs.at(-1).epoch}`],
    show: (micro) => credits(micro),
  });
}

function list({ items, next }, query) {
  return [
    table("Closed epochs", [
      ["Epoch", (one) => el("a", { href: `#/credit/epochs/${one.epoch}` }, count(one.epoch))],
      ["Closed", (one) => when(one.closed_at)],
      ["State", (one) => badge(epochState(one.state))],
      ["Root", (one) => short(one.root), "wide"],
      ["Transaction", (one) => (one.transaction ? short(one.transaction) : "–"), "wide"],
      ["Jobs", (one) => count(one.jobs), "number"],
      ["Leaves", (one) => count(one.leaves), "number wide"],
      ["Credit of all time", (one) => money(one.total), "number wide"],
    ], items, "No epoch has closed yet. The first root goes on the chain when one does."),
    pager("#/credit", query, next),
  ];
}

function posted(one) {
  const state = epochState(one.state);
  return el("section", { class: "card" },
    el("div", { class: "head" }, el("h2", {}, "On the chain"), badge(state)),
    facts(
      ["Closed", when(one.closed_at)],
      ["Root", el("code", { class: "break" }, one.root)],
      ["Transaction", one.transaction ? el("code", { class: "break" }, `0x${one.transaction}`) : "none yet"],
      ["Block", one.block === null ? "–" : count(one.block)],
      ["Jobs paid", count(one.jobs)],
      ["Leaves", count(one.leaves)],
      ["Credit of all time", money(one.total)],
      ["Leaf file's sha256", el("code", { class: "break" }, one.leaf_file_sha256)],
      ["Pricing's sha256", el("code", { class: "break" }, one.pricing)],
    ));
}

function leafList(one, { items, next }, query) {
  const base = `#/credit/epochs/${one.epoch}`;
  return card("Leaves",
    table(`Leaves of epoch ${one.epoch}`, [
      ["Leaf", (leaf) => count(leaf.index)],
      ["Account", (leaf) => el("a", { href: `#/credit/${leaf.account}` }, short(leaf.account))],
      ["Role", (leaf) => leaf.role],
      ["In this epoch", (leaf) => money(leaf.epoch_credit), "number"],
      ["Over its life", (leaf) => money(leaf.lifetime), "number wide"],
    ], items, "Nobody had earned anything by then."),
    pager(base, query, next));
}

function byEpoch(epochs) {
  const name = (one) => `epoch ${one.epoch}${one.running ? ", running" : ""}`;
  return bars({
    title: "Credit earned in each epoch",
    unit: "credits",
    series: [{ name: "credits", look: "", values: epochs.map((one) => Number(one.amount)) }],
    labels: epochs.map(name),
    ends: [name(epochs[0]), name(epochs.at(-1))],
    show: (micro) => credits(micro),
  });
}
