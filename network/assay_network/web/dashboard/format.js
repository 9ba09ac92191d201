// Numbers, times and names as people read them. Times are microseconds since the epoch, credit a
// decimal string of micro-credits.

import { el } from "../dom.js";
import { now } from "./api.js";

const SPANS = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const dates = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function count(number) {
  return whole.format(number);
}

// "1 node", "7 nodes".
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

// Credits of micro-credits: all six places below one credit, two above a thousand, and as many
// whatever they are, so that points stand below one another.
export function credits(micro) {
  const amount = BigInt(micro);
  const sign = amount < 0n ? "−" : "";
  const size = amount < 0n ? -amount : amount;
  const units = size / 1_000_000n;
  const places = units >= 1_000n ? 2 : units >= 1n ? 4 : 6;
  const part = (size % 1_000_000n).toString().padStart(6, "0").slice(0, places);
  return size ? `${sign}${units.toLocaleString("en")}.${part}` : "0";
}

// An amount whose title is exact.
export function money(micro) {
  return el("span", { class: "nowrap", title: `${micro} micro-credits` }, credits(micro));
}

// "40 s", "3 min", "2 h", "5 d" of so many seconds.
export function span(seconds) {
  const size = Math.abs(seconds);
  const [unit, length] = SPANS.find(([, each]) => size >= each) ?? ["s", 1];
  return `${Math.floor(size / length)} ${unit}`;
}

export function ago(at) {
  const seconds = (now() - at) / 1e6;
  if (seconds < -1) return `in ${span(seconds)}`;
  return seconds < 1 ? "now" : `${span(seconds)} ago`;
}

export function exact(at) {
  return dates.format(new Date(at / 1000));
}

// A time that reads relative, is exact in its title, and goes on by itself (`tick`).
export function when(at) {
  const iso = new Date(at / 1000).toISOString();
  return el("time", { datetime: iso, title: exact(at), "data-at": at, class: "nowrap" }, ago(at));
}

// Brings the relative times in `root` up to date.
export function tick(root) {
  for (const time of root.querySelectorAll("time[data-at]")) {
    const text = ago(Number(time.dataset.at));
    if (time.textContent !== text) time.textContent = text;
  }
}

// "14:05", for the ends of charts.
export function clock(at) {
  return new Date(at / 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

export function milliseconds(us) {
  return us < 10_000_000 ? `${count(us / 1000)} ms` : `${(us / 1e6).toFixed(1)} s`;
}

export function rate(perSecond) {
  return `${perSecond < 10 ? perSecond.toFixed(1) : count(perSecond)} tok/s`;
}

export function bytes(size) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, size)) / 3));
  return `${(size / 1000 ** power).toFixed(power > 1 ? 1 : 0)} ${units[power]}`;
}

export function percent(share) {
  return `${(100 * share).toFixed(share < 0.1 && share > 0 ? 1 : 0)} %`;
}

// The beginning of a key, hash or id; the whole is its title.
export function short(hex) {
  return el("code", { title: hex }, `${hex.slice(0, 8)}…`);
}
