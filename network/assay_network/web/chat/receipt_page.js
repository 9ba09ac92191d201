// The receipt page: a file or pasted bytes, checked without asking anybody anything.

import { el, fill } from "../dom.js";
import { summary } from "../steps.js";
import { unbase64, unhex } from "../verify/bytes.js";
import { ProtocolError } from "../verify/errors.js";
import { verify } from "../verify/receipt.js";
import { readRecord, readRecords, RECORD_BYTES_MAX } from "../verify/records.js";
import { receiptPart, sentenceOf } from "./proof.js";

const FILE_BYTES_MAX = 64 * RECORD_BYTES_MAX;
const SHOWN_MAX = 50;

const at = (id) => document.getElementById(id);
const drop = at("drop");

at("receipt").addEventListener("submit", (event) => {
  event.preventDefault();
  const [file] = at("file").files;
  if (file) checkFile(file);
  else check(bytesOf(at("pasted").value));
});

at("file").addEventListener("change", () => at("file").files[0] && checkFile(at("file").files[0]));

for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", over);
  });
}
drop.addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (file) checkFile(file);
});

async function checkFile(file) {
  if (file.size > FILE_BYTES_MAX) return refuse("The file is larger than this page reads.");
  return check(new Uint8Array(await file.arrayBuffer()));
}

async function check(data) {
  if (!data) return refuse("That is neither base64 nor hex.");
  const key = at("coordinator").value.trim();
  const coordinator = key ? unhex(key) : null;
  if (key && coordinator?.length !== 32) return refuse("The coordinator's key has 64 hex digits.");
  try {
    const records = recordsOf(data);
    const first = records.slice(0, SHOWN_MAX);
    const checks = await Promise.all(first.map((one) => verify(one, coordinator)));
    fill(at("found"), checks.map((one, i) => shown(records[i], one, i + 1)), rest(records.length));
  } catch (error) {
    refuse(sentenceOf(error));
  }
}

// Of a file, or of one record as the gateway's API gives it.
function recordsOf(data) {
  try {
    return readRecords(data);
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    try {
      return [readRecord(data)];
    } catch {
      throw error;
    }
  }
}

function shown(record, result, number) {
  const [tone, said] = result.ok ? ["good", "Holds"] : ["bad", "Does not hold"];
  return el(
    "article", { class: "card" },
    el(
      "div", { class: "head" },
      el("h2", {}, `Receipt ${number}`),
      el("span", { class: `badge ${tone}` }, said),
      el("span", { class: "small muted" }, summary(result.steps)),
    ),
    partOf(record, result),
  );
}

// What is signed by nobody may be no message at all.
function partOf(record, result) {
  try {
    return receiptPart(record, result);
  } catch (error) {
    return el("p", { class: "small" }, sentenceOf(error));
  }
}

function rest(count) {
  const left = count - SHOWN_MAX;
  const said = `${left} more are in the file: use assay verify.`;
  return left > 0 && el("p", { class: "notice warn" }, said);
}

function refuse(said) {
  fill(at("found"), el("p", { class: "notice bad" }, said));
}

function bytesOf(text) {
  if (!text.trim()) return null;
  return unhex(text) ?? unbase64(text);
}
