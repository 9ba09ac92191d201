// Msgpack as the network writes it (protocol/spec/02-codec.md): one form for each value, and no
// other is read. Integers become BigInt and floats Number, so one never passes for the other; a map
// becomes a Map with its entries in order.

import { bigEndian, hex } from "./bytes.js";
import { require } from "./errors.js";

const DEPTH_MAX = 1024; // lists and maps inside one another, as the Python reader allows
const NANOSECONDS_MAX = 999_999_999;
const TIMESTAMP = -1;
const LENGTH_LEAST = [0, 1 << 8, 1 << 16]; // of a length in 1, 2 or 4 bytes
const TEXT_LEAST = [32, 1 << 8, 1 << 16];
const TEXT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

// A value of a type of its own: fields that this version does not know may hold some.
export class Extension {
  constructor(type, data) {
    this.type = type;
    this.data = data;
  }
}

// The value in `bytes`. With `canonical: false` longer forms of it are read too, as where bytes are
// not hashed. Throws ProtocolError("malformed").
export function unpack(bytes, { canonical = true } = {}) {
  const reader = new Reader(bytes, canonical);
  const value = reader.value(0);
  require(reader.at === bytes.length, "not msgpack: bytes after the end");
  return value;
}

class Reader {
  constructor(bytes, canonical) {
    this.at = 0;
    this.bytes = bytes;
    this.canonical = canonical;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  value(depth) {
    const tag = this.take(1)[0];
    if (tag < 0x80) return BigInt(tag);
    if (tag < 0x90) return this.map(tag & 0x0f, depth);
    if (tag < 0xa0) return this.list(tag & 0x0f, depth);
    if (tag < 0xc0) return this.text(tag & 0x1f);
    if (tag >= 0xe0) return BigInt(tag - 0x100);
    switch (tag) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return this.take(this.size(tag - 0xc4));
      case 0xc7: case 0xc8: case 0xc9: return this.longExtension(tag - 0xc7);
      case 0xca: return this.float32();
      case 0xcb: return this.view.getFloat64(this.skip(8));
      case 0xcc: case 0xcd: case 0xce: case 0xcf: return this.unsigned(tag - 0xcc);
      case 0xd0: case 0xd1: case 0xd2: case 0xd3: return this.signed(tag - 0xd0);
      case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
        return this.extension(1 << (tag - 0xd4));
      case 0xd9: case 0xda: case 0xdb:
        return this.text(this.size(tag - 0xd9, TEXT_LEAST[tag - 0xd9]));
      case 0xdc: return this.list(this.size(1, 16), depth);
      case 0xdd: return this.list(this.size(2), depth);
      case 0xde: return this.map(this.size(1, 16), depth);
      case 0xdf: return this.map(this.size(2), depth);
    }
    return require(false, "not msgpack: a byte that means nothing");
  }

  skip(size) {
    require(size <= this.bytes.length - this.at, "not msgpack: cut off");
    this.at += size;
    return this.at - size;
  }

  take(size) {
    const at = this.skip(size);
    return this.bytes.subarray(at, at + size);
  }

  // What has a shorter form is refused in this one.
  shortest(holds) {
    require(holds || !this.canonical, "not canonical msgpack");
  }

  // A length of 1, 2 or 4 bytes (width 0, 1, 2); below `least` it has a shorter form.
  size(width, least = LENGTH_LEAST[width]) {
    const size = Number(bigEndian(this.take(1 << width)));
    this.shortest(size >= least);
    return size;
  }

  unsigned(width) {
    const value = bigEndian(this.take(1 << width));
    this.shortest(value >= (width ? 1n << BigInt(4 << width) : 0x80n));
    return value;
  }

  signed(width) {
    const bits = 8 << width;
    const value = BigInt.asIntN(bits, bigEndian(this.take(bits / 8)));
    this.shortest(value < (width ? -(1n << BigInt(bits / 2 - 1)) : -32n));
    return value;
  }

  float32() {
    this.shortest(false);
    return this.view.getFloat32(this.skip(4));
  }

  text(size) {
    const bytes = this.take(size);
    try {
      return TEXT.decode(bytes);
    } catch {
      return require(false, "not msgpack: text that is not UTF-8");
    }
  }

  list(size, depth) {
    this.bound(size, depth);
    const items = [];
    for (let left = size; left > 0; left -= 1) items.push(this.value(depth + 1));
    return items;
  }

  map(size, depth) {
    this.bound(2 * size, depth);
    const found = new Map();
    const names = new Set();
    for (let left = size; left > 0; left -= 1) {
      const key = this.value(depth + 1);
      const name = nameOf(key);
      this.shortest(!names.has(name));
      names.add(name);
      found.set(key, this.value(depth + 1));
    }
    return found;
  }

  // No more is prepared for than can come: each item takes a byte.
  bound(items, depth) {
    require(depth < DEPTH_MAX, "not msgpack: nested too deeply");
    require(items <= this.bytes.length - this.at, "not msgpack: cut off");
  }

  longExtension(width) {
    const size = this.size(width);
    this.shortest(![1, 2, 4, 8, 16].includes(size));
    return this.extension(size);
  }

  extension(size) {
    const type = this.view.getInt8(this.skip(1));
    const data = this.take(size);
    if (type === TIMESTAMP) this.timestamp(data);
    else require(type >= 0, "not msgpack: an extension of no known type");
    return new Extension(type, data);
  }

  timestamp(data) {
    const nanoseconds = { 4: 0n, 8: bigEndian(data) >> 34n, 12: bigEndian(data.subarray(0, 4)) };
    const seconds = bigEndian(data.subarray(-8)) & (data.length === 8 ? (1n << 34n) - 1n : ~0n);
    const past = nanoseconds[data.length];
    require(past !== undefined && past <= NANOSECONDS_MAX, "not msgpack: no time");
    if (data.length === 8) this.shortest(past > 0n || seconds >> 32n > 0n);
    if (data.length === 12) this.shortest(seconds >> 34n > 0n);
  }
}

// What makes two keys one: to the Python reader true, 1 and 1.0 are.
function nameOf(key) {
  if (typeof key === "boolean") return `number ${Number(key)}`;
  if (typeof key === "bigint") return `number ${key}`;
  if (typeof key === "number") return `number ${Number.isInteger(key) ? BigInt(key) : key}`;
  if (typeof key === "string") return `text ${key}`;
  if (key instanceof Uint8Array) return `bytes ${hex(key)}`;
  require(key === null || key instanceof Extension, "not msgpack: a key that is no key");
  return key === null ? "nil" : `${key.type} ${hex(key.data)}`;
}
