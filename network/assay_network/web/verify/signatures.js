// Ed25519 and SHA-256 by the browser's own cryptography. What is signed is a message's bytes as
// they came, after "assay/1/", the message's name and a zero byte.

import { concat, hex, unhex, utf8 } from "./bytes.js";
import { ProtocolError, Unsupported } from "./errors.js";
import { decodeAs } from "./messages.js";

export const SIGNATURE_BYTES = 64;
const KEY_BYTES = 32;
const P = 2n ** 255n - 19n;
// Points of small order, without the sign: under such a key one signature fits many messages.
const SMALL_ORDER = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

let asked = null;

// Why nothing can be checked in this browser, in a sentence; null if everything can.
export function missing() {
  asked ??= whatIsMissing();
  return asked;
}

async function whatIsMissing() {
  if (!globalThis.crypto?.subtle) {
    return "Browsers check signatures only for pages of this machine or loaded over https.";
  }
  try {
    await importKey(unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"));
    return null;
  } catch {
    return "This browser cannot check Ed25519: Chromium 137, Firefox 129, Safari 17 and newer can.";
  }
}

export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) throw new Unsupported(await missing());
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

// Whether `key` signed `data`. The equation is compared exactly by browsers and libsodium alike; what
// libsodium refuses besides (points of small order, keys in a second form) is refused here before.
export async function isSigned(key, data, signature) {
  if (signature.length !== SIGNATURE_BYTES || key.length !== KEY_BYTES) return false;
  if (!isPoint(key) || !isPoint(signature.subarray(0, 32))) return false;
  const reason = await missing();
  if (reason) throw new Unsupported(reason);
  try {
    return await crypto.subtle.verify("Ed25519", await importKey(key), signature, data);
  } catch {
    return false; // the key is no point of the curve
  }
}

// The message of `schema` in `blob`, if `key` signed it. Throws ProtocolError.
export async function openSigned(schema, blob, key) {
  if (!(await isSigned(key, covered(schema, blob), blob.subarray(0, SIGNATURE_BYTES)))) {
    throw new ProtocolError("bad_signature", `${schema.name} is not signed by that key`);
  }
  return decodeAs(schema, blob.subarray(SIGNATURE_BYTES));
}

// The message in a signed blob, unchecked: to learn which key to check it with.
export function peek(schema, blob) {
  return decodeAs(schema, blob.subarray(SIGNATURE_BYTES));
}

function covered(schema, blob) {
  return concat([utf8(`assay/1/${schema.name}\0`), blob.subarray(SIGNATURE_BYTES)]);
}

function importKey(key) {
  return crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
}

// Whether these 32 bytes name a point in its one form, and not one of small order.
function isPoint(bytes) {
  const unsigned = bytes.slice();
  unsigned[31] &= 0x7f;
  if (SMALL_ORDER.has(hex(unsigned))) return false;
  return BigInt(`0x${hex(unsigned.reverse())}`) < P;
}
