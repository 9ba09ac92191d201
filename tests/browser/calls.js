// What tests ask of the verify modules, by name, with arguments and answers that JSON can hold:
// bytes are { hex }, integers { int }. Runs in Node.js and in a page, beside the modules.

import { hex, unhex } from "./verify/bytes.js";
import { blake2b } from "./verify/blake2b.js";
import * as bundles from "./verify/bundle.js";
import * as credit from "./verify/credit.js";
import * as hashes from "./verify/hashes.js";
import { MESSAGES } from "./verify/messages.js";
import { unpack } from "./verify/msgpack.js";
import { keptOf } from "./verify/own.js";
import { verify, verifyAnswer } from "./verify/receipt.js";
import { readRecord, readRecords } from "./verify/records.js";
import * as schema from "./verify/schema.js";
import { isSigned, openSigned } from "./verify/signatures.js";
import { linesOf } from "./verify/standing.js";
import * as trees from "./verify/tree.js";

const CALLS = {
  blake2b: (data, person, key = null, size = 32n) => (
    blake2b(data, person, { key, size: Number(size) })
  ),
  hashes: (name, ...parts) => hashes[name](...parts),
  unpack: (data, canonical) => {
    unpack(data, { canonical });
    return true;
  },
  schemas: () => MESSAGES,
  decodeEach: (described, many) => {
    const schemas = schemasOf(described);
    return Promise.all(many.map((data) => outcome(() => schema.decode(schemas, data))));
  },
  isSignedEach: (data, many) => (
    Promise.all(many.map(([key, signature]) => isSigned(key, data, signature)))
  ),
  openEach: (name, blobs, key) => {
    const wanted = MESSAGES.find((one) => one.name === name);
    return Promise.all(blobs.map((blob) => outcome(() => openSigned(wanted, blob, key))));
  },
  readRecord: (data) => readRecord(data),
  verifyFile: (data, coordinator) => (
    Promise.all(readRecords(data).map((record) => verify(record, coordinator)))
  ),
  verifyEach: (files) => Promise.all(files.map((data) => outcome(() => (
    Promise.all(readRecords(data).map((record) => verify(record)))
  )))),
  verifyAnswer: (data, coordinator) => verifyAnswer(readRecords(data), coordinator),
  standing: (data) => linesOf(readRecord(data)),
  decodeBundle: (data) => bundles.decodeBundle(data),
  tree: (leaves) => trees.treeOf(leaves.map(([hash, amount]) => ({ hash, amount }))),
  leafHash: (leaf) => trees.leafHash(leaf),
  lineHash: (line) => trees.lineHash(line),
  fold: (hash, amount, index, proof) => trees.fold(hash, amount, index, proof),
  foldEach: (hash, amount, index, proofs) => Promise.all(proofs.map((raw) => outcome(() => (
    trees.fold(hash, amount, index, bundles.decodeProof(raw))
  )))),
  verifyBundle: (data, options) => credit.verifyBundle(bundles.decodeBundle(data), {
    ...options, kept: typeof options.kept === "string" ? keptOf(options.kept) : null,
  }),
};

export async function call(name, args) {
  return told(await outcome(() => CALLS[name](...args.map(given))));
}

// { value } or, if bytes were refused, { error: its code, reason }.
async function outcome(make) {
  try {
    return { value: await make() };
  } catch (error) {
    if (error.name !== "ProtocolError") throw error;
    return { error: error.code, reason: error.reason };
  }
}

function given(value) {
  if (Array.isArray(value)) return value.map(given);
  if (value === null || typeof value !== "object") return value;
  if ("hex" in value) return unhex(value.hex);
  if ("int" in value) return BigInt(value.int);
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, given(one)]));
}

function told(value) {
  if (typeof value === "bigint") return { int: value.toString() };
  if (value instanceof Uint8Array) return { hex: hex(value) };
  if (value instanceof Map) return [...value].map(told);
  if (Array.isArray(value)) return value.map(told);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, told(one)]));
}

// Schemas as `told` describes them: { is, name, number, fields: [[number, { field, kind }]] }.
function schemasOf(described) {
  return new Map(described.map((one) => [Number(one.number), kindOf(one)]));
}

function kindOf(one) {
  if (one.is === "struct") {
    const fields = one.fields.map(([n, { field, kind }]) => (
      [Number(n), { field, kind: kindOf(kind) }]
    ));
    return { ...one, fields: new Map(fields) };
  }
  if (!("least" in one) || one.is === "integer") return one;
  const sized = { ...one, least: Number(one.least), most: Number(one.most) };
  return one.is === "list" ? { ...sized, of: kindOf(one.of) } : sized;
}
