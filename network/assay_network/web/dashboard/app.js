// The dashboard: which view an address shows, and keeping it up to date.
//
// A view has: title(params), load(params, signal) -> what the API says, draw(what, params) -> nodes,
// and perhaps frame(params) -> { nodes, body }, of which only `body` is drawn anew. It is asked
// again every few seconds while somebody looks, and drawn again only if something changed.

import { el, fill } from "../dom.js";
import { ask } from "./api.js";
import { accountView, creditView, epochView } from "./credit.js";
import { tick } from "./format.js";
import { jobsView, jobView } from "./jobs.js";
import { modelsView } from "./models.js";
import { healthWords, networkView } from "./network.js";
import { nodesView, nodeView } from "./nodes.js";
import { verificationView } from "./verification.js";

const AGAIN_MS = 5_000;
const TICK_MS = 1_000;
const VIEWS = [
  ["", networkView, "Network"],
  ["nodes", nodesView, "Nodes"],
  ["nodes/:node", nodeView],
  ["jobs", jobsView, "Jobs"],
  ["jobs/:ticket", jobView],
  ["verification", verificationView, "Verification"],
  ["credit", creditView, "Credit"],
  ["credit/epochs/:epoch", epochView],
  ["credit/:account", accountView],
  ["models", modelsView, "Models"],
];
const main = document.getElementById("main");
const state = document.getElementById("state");
let shown = null; // what is being shown: { view, params, body, drawn, timer, abort }

function start() {
  fill(document.getElementById("views"), VIEWS.filter(([, , name]) => name).map(([path, , name]) => (
    el("li", {}, el("a", { href: `#/${path}` }, name))
  )));
  addEventListener("hashchange", () => {
    if (location.hash === "#main") return; // the link that skips to the page
    open();
    scrollTo(0, 0);
    main.focus();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refresh();
  });
  setInterval(() => tick(document), TICK_MS);
  open();
  watchHealth();
}

// ---- addresses ----

function open() {
  shown?.abort.abort();
  clearTimeout(shown?.timer);
  const { view, params, path } = found(location.hash);
  const title = view.title(params);
  document.title = `${title} · Assay network`;
  const { nodes, body } = view.frame?.(params) ?? plainFrame(title);
  shown = { view, params, body, drawn: null, timer: 0, abort: new AbortController() };
  fill(body, el("p", { class: "muted" }, "Asking the coordinator…"));
  fill(main, el("div", { class: "stack" }, nodes));
  main.setAttribute("aria-busy", "true");
  for (const link of document.querySelectorAll("#views a")) {
    const mine = link.hash === `#/${path.split("/")[0]}`;
    if (mine) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  refresh();
}

function plainFrame(title) {
  const body = el("div", { class: "stack" });
  return { nodes: [el("h1", {}, title), body], body };
}

// The view of an address: "#/nodes/ab12?role=auditor".
function found(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?");
  for (const [pattern, view] of VIEWS) {
    const names = matched(pattern, path);
    if (names) return { view, path, params: { ...names, query: new URLSearchParams(query) } };
  }
  return { view: lost, path, params: { query: new URLSearchParams() } };
}

function matched(pattern, path) {
  const [wanted, given] = [pattern.split("/"), path.split("/")];
  if (wanted.length !== given.length) return null;
  const names = {};
  for (const [i, part] of wanted.entries()) {
    if (part.startsWith(":")) names[part.slice(1)] = encodeURIComponent(given[i]);
    else if (part !== given[i]) return null;
  }
  return names;
}

const lost = {
  title: () => "Nothing here",
  load: async () => null,
  draw: () => el("p", {}, "There is no such page. ", el("a", { href: "#/" }, "To the network")),
};

// ---- keeping up ----

async function refresh() {
  const mine = shown;
  clearTimeout(mine.timer);
  try {
    const told = await mine.view.load(mine.params, mine.abort.signal);
    if (mine === shown) drawIfNew(mine, told);
  } catch (error) {
    if (mine !== shown || mine.abort.signal.aborted) return;
    if (!error.code) throw error;
    failed(mine, error);
  }
  if (mine !== shown) return;
  main.setAttribute("aria-busy", "false");
  if (!document.hidden) mine.timer = setTimeout(refresh, AGAIN_MS);
}

function drawIfNew(mine, told) {
  mine.failed?.remove();
  mine.failed = null;
  const text = JSON.stringify(told);
  if (text === mine.drawn) return;
  mine.drawn = text;
  const place = placeOf(document.activeElement);
  fill(mine.body, mine.view.draw(told, mine.params));
  if (place) mine.body.querySelector(place)?.focus({ preventScroll: true });
}

// How to find what had the focus once it was drawn again.
function placeOf(element) {
  if (!shown.body.contains(element)) return null;
  if (element.id) return `#${CSS.escape(element.id)}`;
  const name = ["href", "aria-label"].find((one) => element.hasAttribute(one));
  return name ? `[${name}="${CSS.escape(element.getAttribute(name))}"]` : null;
}

function failed(mine, error) {
  const old = mine.drawn ? " What is shown is what it said before." : "";
  const notice = el("p", { class: "notice bad", role: "alert" },
    `${error.message}${old} `, el("code", { class: "muted" }, error.code));
  if (!mine.drawn) {
    fill(mine.body, notice);
  } else if (!mine.failed) {
    mine.failed = notice;
    mine.body.prepend(notice);
  }
}

// The state in the bar on top, whatever view is open.
async function watchHealth() {
  try {
    const { look, text } = healthWords(await ask("network"));
    say(look, text);
  } catch (error) {
    if (!error.code) throw error;
    say("bad", "no answer");
  }
  setTimeout(watchHealth, AGAIN_MS);
}

function say(look, text) {
  if (state.textContent !== text) fill(state, el("span", { class: `dot ${look}` }), text);
}

start();
