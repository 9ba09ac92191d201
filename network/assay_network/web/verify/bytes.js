// Bytes: how they are compared, joined, read as numbers and shown. Integers are BigInt throughout
// these modules, so that none is rounded and none is taken for a float.

export function equal(one, other) {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

export function concat(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function utf8(text) {
  return new TextEncoder().encode(text);
}

export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The bytes of a hexadecimal text, with or without 0x; null if it is none.
export function unhex(text) {
  const digits = text.trim().replace(/^0x/i, "");
  if (digits.length % 2 || /[^0-9a-f]/i.test(digits)) return null;
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

// The bytes of a base64 text; null if it is none.
export function unbase64(text) {
  try {
    return Uint8Array.from(atob(text.replace(/\s+/g, "")), (one) => one.charCodeAt(0));
  } catch {
    return null;
  }
}

export function base64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

// An unsigned big-endian number.
export function bigEndian(bytes) {
  return bytes.length ? BigInt(`0x${hex(bytes)}`) : 0n;
}

// `value` in `size` bytes; it must fit.
export function toBigEndian(value, size) {
  return unhex(value.toString(16).padStart(2 * size, "0"));
}

// A small number in four bytes, the lowest first.
export function littleEndian32(number) {
  return Uint8Array.of(number, number >>> 8, number >>> 16, number >>> 24);
}
