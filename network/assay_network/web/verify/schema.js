// Msgpack values -> fields by name: the rules of protocol/spec/02-codec.md. A message is a map with
// its type at key 0; required fields stand at 2, 4, 6, ..., optional ones at 1, 3, 5, ..., in order
// of declaration. An unknown odd field is passed over, an unknown even one refused.

import { utf8 } from "./bytes.js";
import { ProtocolError, require } from "./errors.js";
import { unpack } from "./msgpack.js";

const MESSAGE_BYTES_MAX = (1 << 20) - 64;

// Kinds of fields. Bounds are inclusive; a text's are of its UTF-8 bytes, a list's of its items.
export const bytes = (least, most = least) => ({ is: "bytes", least, most });
export const text = (least, most) => ({ is: "text", least, most });
export const integer = (least, most) => (
  { is: "integer", least: BigInt(least), most: BigInt(most) }
);
export const list = (of, least, most) => ({ is: "list", of, least, most });
export const float = { is: "float" };
export const boolean = { is: "boolean" };

// A part of messages, or, with a number, a message. `required` and `optional`: kinds by field.
export function struct(name, required, optional = {}, number = null) {
  const fields = new Map();
  Object.entries(required).forEach(([field, kind], i) => fields.set(2 * i + 2, { field, kind }));
  Object.entries(optional).forEach(([field, kind], i) => fields.set(2 * i + 1, { field, kind }));
  return { is: "struct", name, number, fields };
}

export function message(number, name, required, optional = {}) {
  return struct(name, required, optional, number);
}

// The message in `data`, as an object of its fields (null where an optional one is absent); of
// `schemas`, by number. Null for an unknown message with an odd number. Throws ProtocolError.
export function decode(schemas, data) {
  require(data.length <= MESSAGE_BYTES_MAX, `message of ${data.length} bytes`, "oversized");
  const raw = unpack(data);
  const [key, number] = raw instanceof Map ? (raw.entries().next().value ?? []) : [];
  const told = key === 0n && typeof number === "bigint";
  require(told, "not a map that begins with a type at key 0");
  raw.delete(0n);
  const schema = schemas.get(Number(number));
  if (schema) return fieldsOf(schema, raw);
  require(number > 0n && number % 2n === 1n, `type ${number}`, "unknown_message");
  return null;
}

// The message in `data`, which must be one of `schema`.
export function decodeAs(schema, data) {
  const found = decode(new Map([[schema.number, schema]]), data);
  if (found === null) throw new ProtocolError("unexpected_message", `wanted ${schema.name}`);
  return found;
}

function fieldsOf(schema, raw) {
  const found = {};
  for (const { field } of schema.fields.values()) found[field] = null;
  let last = 0n;
  for (const [number, value] of raw) {
    const ascending = typeof number === "bigint" && number > last;
    require(ascending, `${schema.name}: keys must be ascending integers`);
    last = number;
    const known = schema.fields.get(Number(number));
    if (known) found[known.field] = checked(known.kind, value, `${schema.name}.${known.field}`);
    else require(number % 2n === 1n, `${schema.name}: unknown required field ${number}`);
  }
  const missing = [...schema.fields].some(([n, { field }]) => n % 2 === 0 && found[field] === null);
  require(!missing, `${schema.name}: a required field is missing`);
  return found;
}

function checked(kind, value, where) {
  switch (kind.is) {
    case "struct":
      require(value instanceof Map, `${where}: map wanted`);
      return fieldsOf(kind, value);
    case "list":
      require(Array.isArray(value), `${where}: list wanted`);
      sized(kind, value.length, `${where}: ${kind.least} to ${kind.most} items wanted`);
      return value.map((item) => checked(kind.of, item, where));
    case "bytes":
    case "text":
      return lengthy(kind, value, where);
    case "integer": {
      const within = typeof value === "bigint" && value >= kind.least && value <= kind.most;
      require(within, `${where}: integer in [${kind.least}, ${kind.most}] wanted`);
      return value;
    }
    case "float":
      require(Number.isFinite(value), `${where}: finite float wanted`);
      return value;
    default:
      require(typeof value === "boolean", `${where}: finite bool wanted`);
      return value;
  }
}

function lengthy(kind, value, where) {
  const isText = kind.is === "text";
  const right = isText ? typeof value === "string" : value instanceof Uint8Array;
  require(right, `${where}: ${isText ? "str" : "bytes"} wanted`);
  const size = isText ? utf8(value).length : value.length;
  sized(kind, size, `${where}: ${kind.least} to ${kind.most} bytes wanted`);
  return value;
}

function sized(kind, size, reason) {
  const code = size > kind.most ? "oversized" : "malformed";
  require(size >= kind.least && size <= kind.most, reason, code);
}
