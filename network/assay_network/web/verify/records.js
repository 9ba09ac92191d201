// A receipt file: a row of records, each with its length in front (four bytes, the highest first).
// A record is what a client keeps of one node's part of an answer (sdk/assay/records.py).

import { bigEndian, equal } from "./bytes.js";
import { require } from "./errors.js";
import {
  decodeAs, GRAMMAR_BYTES_MAX, IMAGES_BYTES_MAX, IMAGES_MAX, OUTPUT_TOKENS_MAX,
  PROMPT_LOGPROBS_BYTES_MAX, PROMPT_TOKENS_MAX, TicketGrant, VECTORS_BYTES_MAX,
} from "./messages.js";
import { unpack } from "./msgpack.js";

const FORMAT = "assay-receipt-1";
const SIGNED_BYTES_MAX = 2_048;
const GRANT_BYTES_MAX = SIGNED_BYTES_MAX + 1_024;
const LENGTH_BYTES = 4;
const OUTPUT_BYTES_MAX = Math.max(4 * OUTPUT_TOKENS_MAX, VECTORS_BYTES_MAX);
const IMAGES_PACKED_MAX = IMAGES_BYTES_MAX + 8 * IMAGES_MAX;
export const RECORD_BYTES_MAX =
  4 * PROMPT_TOKENS_MAX + OUTPUT_BYTES_MAX
  + 2 * SIGNED_BYTES_MAX + GRAMMAR_BYTES_MAX + GRANT_BYTES_MAX
  + PROMPT_LOGPROBS_BYTES_MAX + IMAGES_PACKED_MAX + 512;

const FIELDS = [
  ["coordinator", 32, 32],
  ["ticket", 65, SIGNED_BYTES_MAX],
  ["receipt", 65, SIGNED_BYTES_MAX],
  ["nonce", 32, 32],
  ["prompt", 4, 4 * PROMPT_TOKENS_MAX],
  ["output", 0, OUTPUT_BYTES_MAX],
  ["grammar", 1, GRAMMAR_BYTES_MAX],
  ["grant", 1, GRANT_BYTES_MAX],
  ["prompt_logprobs", 1, PROMPT_LOGPROBS_BYTES_MAX],
  ["images", 1, IMAGES_PACKED_MAX],
];

// All records of a file's bytes. Throws ProtocolError if any of it is not one.
export function readRecords(data) {
  const records = [];
  let at = 0;
  while (at < data.length) {
    const size = Number(bigEndian(data.subarray(at, at + LENGTH_BYTES)));
    at += LENGTH_BYTES;
    const whole = size > 0 && size <= Math.min(RECORD_BYTES_MAX, data.length - at);
    require(whole, "a record is cut short");
    records.push(readRecord(data.subarray(at, at + size)));
    at += size;
  }
  require(records.length > 0, "the file is empty");
  return records;
}

// One record, without its length: an object of bytes; `grammar` and `grant` may be null, and so
// may `standing`, what the coordinator said of the node with the ticket.
export function readRecord(data) {
  require(data.length <= RECORD_BYTES_MAX, "the record is too large");
  const raw = unpack(data);
  const listed = Array.isArray(raw) && raw.length >= 7 && raw.length <= 11;
  require(listed, "not a receipt record");
  const [format, ...parts] = raw;
  require(format === FORMAT, "not a receipt record of a known format");
  require(parts.every((part) => part instanceof Uint8Array), "a field is not bytes");
  const record = { grammar: null, grant: null, prompt_logprobs: new Uint8Array(), images: new Uint8Array() };
  const mayBeEmpty = ["grammar", "grant", "prompt_logprobs"];  // where another field follows
  FIELDS.slice(0, parts.length).forEach(([name, least, most], i) => {
    const empty = mayBeEmpty.includes(name) && i < parts.length - 1 ? 0 : least;
    const fits = parts[i].length >= empty && parts[i].length <= most;
    require(fits, "a field has a wrong size");
    record[name] = parts[i];
  });
  const fours = record.prompt.length % 4 === 0 && record.output.length % 4 === 0;
  require(fours, "token bytes must come in fours");
  for (const name of ["grammar", "grant"]) if (record[name]?.length === 0) record[name] = null;
  return { ...record, standing: standingIn(record) };
}

function standingIn(record) {
  if (record.grant === null) return null;
  const granted = decodeAs(TicketGrant, record.grant);
  require(equal(granted.ticket, record.ticket), "the grant is of another ticket");
  return granted.standing;
}
