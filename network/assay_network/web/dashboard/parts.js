// What the views are made of.

import { el } from "../dom.js";
import { facts as listed } from "../steps.js";
import { short } from "./format.js";

// { look, text, means } of words.js as a badge.
export function badge({ look, text, means }) {
  return el("span", { class: `badge ${look}`.trim(), title: means }, text);
}

export function nodeLink(key) {
  return el("a", { href: `#/nodes/${key}` }, short(key));
}

export function jobLink(ticket) {
  return el("a", { href: `#/jobs/${ticket}` }, short(ticket));
}

// A model as { id, name }.
export function modelName(model) {
  return el("span", { title: model.id }, model.name ?? short(model.id));
}

export function modelNames(models) {
  return models.flatMap((model, i) => (i ? [", ", modelName(model)] : [modelName(model)]));
}

export function card(title, ...content) {
  return el("section", { class: "card" }, el("div", { class: "head" }, el("h2", {}, title)), content);
}

// Named values, side by side: [name, value, note] each.
export function figures(...items) {
  return el("dl", { class: "figures" }, items.map(([name, value, note]) => (
    el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, note ?? "")))
  )));
}

// Named values, one below the other: [name, ...value] each; null is left out.
export function facts(...items) {
  return listed(items.filter(Boolean).map(([name, ...value]) => [name, value]));
}

// A table of `rows`; columns are [label, cell(row), class]. The first one names the row. What is
// empty says `nothing` instead.
export function table(caption, columns, rows, nothing) {
  if (!rows.length) return el("p", { class: "empty" }, nothing);
  const head = columns.map(([label, , look]) => el("th", { scope: "col", class: look }, label));
  const body = rows.map((row) => el("tr", {}, columns.map(([, cell, look], i) => (
    i ? el("td", { class: look }, cell(row)) : el("th", { scope: "row", class: look }, cell(row))
  ))));
  return el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    el("table", {},
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, head)),
      el("tbody", {}, body)));
}

// Links to the newest page of a list and to the one after this; `base` is its address without
// a cursor.
export function pager(base, query, next) {
  if (!query.get("after") && !next) return null;
  const to = (after) => {
    const asked = new URLSearchParams(query);
    asked.delete("after");
    if (after) asked.set("after", after);
    return asked.size ? `${base}?${asked}` : base;
  };
  return el("nav", { class: "pager", "aria-label": "Pages" },
    query.get("after") && el("a", { class: "button", href: to(null) }, "To the top"),
    next && el("a", { class: "button", href: to(next) }, "More"));
}

// Links that choose a value of `word`: [value, label] each.
export function filters(base, query, word, choices) {
  const now = query.get(word) ?? "";
  return el("ul", { class: "filters", "aria-label": `Only of ${word}` }, choices.map(([value, label]) => (
    el("li", {}, el("a", {
      href: value ? `${base}?${word}=${value}` : base,
      "aria-current": now === value ? "true" : null,
    }, label))
  )));
}
