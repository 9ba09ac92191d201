// Charts of bars, as SVG. A drawing has no words in it: those are HTML around it, so that they can
// be read at any width, and a table of the same numbers is one key away.

import { el, svg } from "../dom.js";
import { table } from "./parts.js";

const [WIDTH, HEIGHT, GAP, WIDEST] = [1000, 100, 0.22, 60];

// `series`: [{ name, look, values }], one value of each for a bar, stacked from below in that
// order. `labels` names the bars, in the table and when pointed at; `ends` stands below the first
// and the last. `show(value)` is a value as text.
export function bars({ title, series, labels, ends, unit, show = String }) {
  const totals = labels.map((_, i) => series.reduce((sum, { values }) => sum + values[i], 0));
  const most = Math.max(...totals, 0);
  if (!most) return el("p", { class: "empty" }, "Nothing yet.");
  const all = series.map(({ name, values }) => `${show(values.reduce((a, b) => a + b, 0))} ${name}`);
  const drawing = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${title}: ${all.join(", ")}; at most ${show(most)} ${unit}`,
  }, labels.map((label, i) => stack(label, i, labels.length, series, most, show)));
  return el("figure", { class: "chart" },
    el("figcaption", { class: "small muted" },
      series.map(({ name, look }) => el("span", {}, el("span", { class: `key ${look}` }), name)),
      el("span", {}, `highest: ${show(most)} ${unit}`)),
    drawing,
    el("div", { class: "ends" }, ends.map((end) => el("span", {}, end))),
    numbers(title, series, labels, totals, show));
}

// How far along to `most` something is, as a bar that is full there.
export function level(value, most, look, label) {
  const share = Math.max(0, Math.min(1, value / most));
  return svg("svg", {
    class: "level", viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img",
    "aria-label": label,
  },
    svg("rect", { class: "rest", width: 100, height: 8 }),
    svg("rect", { class: `mark ${look}`, width: 100 * share, height: 8 }));
}

function stack(label, index, size, series, most, show) {
  const pitch = WIDTH / size;
  const width = Math.min(WIDEST, pitch * (1 - GAP));
  let top = HEIGHT;
  const parts = series.map(({ look, values }) => {
    const height = (HEIGHT * values[index]) / most;
    top -= height;
    return height && svg("rect", {
      class: `mark ${look}`, x: (index + 0.5) * pitch - width / 2, y: top, width, height,
    });
  });
  const said = series.map(({ name, values }) => `${show(values[index])} ${name}`).join(", ");
  return svg("g", {},
    svg("title", {}, `${label}: ${said}`),
    svg("rect", { x: index * pitch, y: 0, width: pitch, height: HEIGHT, fill: "transparent" }),
    parts.map((part) => part || null));
}

// The bars that are not empty as a table, the latest first.
function numbers(title, series, labels, totals, show) {
  const rows = labels.map((label, i) => ({ label, i })).filter(({ i }) => totals[i]).reverse();
  if (!rows.length) return null;
  const columns = series.map(({ name, values }) => [name, ({ i }) => show(values[i]), "number"]);
  return el("details", {}, el("summary", {}, "As a table"),
    table(title, [["time", ({ label }) => label], ...columns], rows, ""));
}
