// Answers of jobs that embed: vectors in the place of tokens, and the root over them, which follows
// from them alone (protocol/assay_protocol/embeddings.py, spec/embeddings.md).

import { blake2b } from "./blake2b.js";
import { littleEndian32 } from "./bytes.js";
import { require } from "./errors.js";
import { framed, jobSeed, runningHash } from "./hashes.js";

const FLOAT_BYTES = 4;
const DIMS_MAX = 16_384;
const LENGTH_OFF_MAX = 1e-3;
const LEAF_VECTORS = 16;
const SKETCH_BYTES = 10;
const PAIRS = 8;
const STEPS = 127;

// Throws ProtocolError unless `output` is `count` vectors, each of the length 1.
function checkVectors(output, count) {
  if (count === 0) {
    require(output.length === 0, "vectors must be whole");
    return;
  }
  const dims = Math.floor(output.length / (FLOAT_BYTES * count));
  const whole = output.length === FLOAT_BYTES * count * dims;
  require(whole && dims >= 1 && dims <= DIMS_MAX, "vectors must be whole");
  for (let i = 0; i < count; i += 1) {
    const length = Math.hypot(...numbersOf(rows(output, count, i, i + 1)));
    require(Math.abs(length - 1) <= LENGTH_OFF_MAX, "a vector must have the length 1");
  }
}

// What a receipt binds of `count` vectors of a ticket's job: { root, output }, the latter their hash.
// Throws ProtocolError as checkVectors does. Megabytes are read and hashed here: once for a record.
export function bound(ticket, nonce, output, count) {
  checkVectors(output, count);
  const seed = jobSeed(ticket.seed_ticket, nonce);
  const running = runningHash(ticket.ticket, nonce);
  const leaves = [];
  for (let first = 0; first < count; first += LEAF_VECTORS) {
    const next = Math.min(first + LEAF_VECTORS, count);
    const vectors = rows(output, count, first, next);
    const end = running.update(vectors).digest();
    const raw = framed("assay vectors", nonce, vectors);
    const sketches = new Uint8Array(SKETCH_BYTES * (next - first));
    for (let i = first; i < next; i += 1) {
      const sketch = vectorSketch(rows(output, count, i, i + 1), seed, i);
      sketches.set(sketch, SKETCH_BYTES * (i - first));
    }
    leaves.push(framed("assay leaf", littleEndian32(leaves.length), end, raw, sketches));
  }
  const root = framed("assay branch", littleEndian32(count), merkle(leaves));
  return { root, output: running.digest() };
}

// Eight differences of the vector's numbers at places that the seed picks, in steps of their
// largest, and that step as a half-precision number.
export function vectorSketch(vector, seed, position) {
  const numbers = numbersOf(vector);
  const place = new Uint8Array(8);
  place.set(littleEndian32(position));
  const picked = new DataView(blake2b(place, "assay sketch", { key: seed, size: 64 }).buffer);
  const at = (i) => numbers[Math.floor((picked.getUint32(4 * i, true) * numbers.length) / 2 ** 32)];
  const apart = Array.from({ length: PAIRS }, (_, i) => at(2 * i) - at(2 * i + 1));
  const half = toHalf(Math.max(...apart.map(Math.abs)) / STEPS);
  const sketch = new DataView(new ArrayBuffer(SKETCH_BYTES));
  apart.forEach((one, i) => {
    const steps = half.value ? roundEven(one / half.value) : 0;
    sketch.setInt8(i, Math.min(STEPS, Math.max(-STEPS, steps)));
  });
  sketch.setUint16(PAIRS, half.bits, true);
  return new Uint8Array(sketch.buffer);
}

// The vectors `first` to `next`, the last not among them.
function rows(output, count, first, next) {
  const size = output.length / count;
  return output.subarray(first * size, next * size);
}

function numbersOf(vector) {
  const view = new DataView(vector.buffer, vector.byteOffset, vector.length);
  const count = vector.length / FLOAT_BYTES;
  return Array.from({ length: count }, (_, i) => view.getFloat32(FLOAT_BYTES * i, true));
}

function merkle(leaves) {
  if (leaves.length === 0) return new Uint8Array(32);
  let level = leaves;
  while (level.length > 1) {
    const above = [];
    for (let i = 0; i + 1 < level.length; i += 2) {
      above.push(framed("assay branch", level[i], level[i + 1]));
    }
    if (level.length % 2) above.push(level[level.length - 1]); // rises as it is
    level = above;
  }
  return level[0];
}

// The nearest half-precision number, { bits, value }, of one in [0, 65504]; ties go to even.
function toHalf(number) {
  let exponent = -14;
  while (exponent < 15 && number >= 2 ** (exponent + 1)) exponent += 1;
  const step = 2 ** (exponent - 10);
  const units = roundEven(number / step);
  return { bits: (exponent + 14) * 1024 + units, value: units * step };
}

// To the nearest whole number; halves to the even one, as Python rounds.
function roundEven(number) {
  const below = Math.floor(number);
  const over = number - below;
  if (over !== 0.5) return over < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}
