// BLAKE2b with a personalization (RFC 7693): browsers have SHA-2 only, and the hashes of jobs are
// these. A 64-bit word is two of 32 bits, the low half at an even place.

const BLOCK_BYTES = 128;
const DIGEST_BYTES = 32;
const ROUNDS = 12;
const IV = Uint32Array.of(
  0xf3bcc908, 0x6a09e667, 0x84caa73b, 0xbb67ae85, 0xfe94f82b, 0x3c6ef372, 0x5f1d36f1, 0xa54ff53a,
  0xade682d1, 0x510e527f, 0x2b3e6c1f, 0x9b05688c, 0xfb41bd6b, 0x1f83d9ab, 0x137e2179, 0x5be0cd19,
);
// Which word of the message each step of a round takes, twice the number: its low half's place.
const ORDER = [
  "0123456789abcdef", "ea489fd61c02b753",
  "b8c052fdae367194", "7931dcbe265a40f8",
  "905724afe1bc683d", "2c6a0b834d75fe19",
  "c51fed4a0763928b", "db7ec13950f4862a",
  "6fe9b308c2d714a5", "a2847615fb9e3cd0",
].map((row) => Array.from(row, (digit) => 2 * parseInt(digit, 16)));
// The four words of each step's mix, as places of low halves.
const MIX = [
  [0, 8, 16, 24], [2, 10, 18, 26], [4, 12, 20, 28], [6, 14, 22, 30],
  [0, 10, 20, 30], [2, 12, 22, 24], [4, 14, 16, 26], [6, 8, 18, 28],
];

// The hash of `data`, `size` bytes long (at most 64); `person` is a text of at most 16 ASCII
// characters, `key` has at most 64 bytes.
export function blake2b(data, person = "", { key = null, size = DIGEST_BYTES } = {}) {
  const hash = new Blake2b(person, { keySize: key === null ? 0 : key.length, size });
  if (key !== null) { // it is the first block
    const block = new Uint8Array(BLOCK_BYTES);
    block.set(key);
    hash.update(block);
  }
  hash.update(data);
  return hash.digest();
}

// A hash that data is added to in pieces, and that can be read in between.
export class Blake2b {
  constructor(person = "", { keySize = 0, size = DIGEST_BYTES } = {}) {
    this.size = size;
    this.state = begin(person, keySize, size);
    this.block = new Uint8Array(BLOCK_BYTES);
    this.filled = 0; // of the block: a full one waits, since the last one is hashed as such
    this.count = 0;
  }

  update(data) {
    for (let at = 0; at < data.length;) {
      if (this.filled === BLOCK_BYTES) {
        compress(this.state, wordsOf(this.block), this.count, false);
        this.filled = 0;
      }
      const piece = data.subarray(at, at + BLOCK_BYTES - this.filled);
      this.block.set(piece, this.filled);
      this.filled += piece.length;
      this.count += piece.length;
      at += piece.length;
    }
    return this;
  }

  // Of all that was added until now.
  digest() {
    const state = this.state.slice();
    compress(state, wordsOf(this.block.fill(0, this.filled)), this.count, true);
    const digest = new DataView(new ArrayBuffer(this.size));
    for (let i = 0; i < this.size / 4; i += 1) digest.setUint32(4 * i, state[i], true);
    return new Uint8Array(digest.buffer);
  }
}

function wordsOf(block) {
  const view = new DataView(block.buffer);
  return Uint32Array.from({ length: BLOCK_BYTES / 4 }, (_, i) => view.getUint32(4 * i, true));
}

// The state before any data: the parameters (lengths, one leaf; the person in the last two words)
// on the initial values.
function begin(person, keySize, size) {
  const state = IV.slice();
  state[0] ^= 0x01010000 ^ (keySize << 8) ^ size;
  for (let i = 0; i < person.length; i += 1) {
    state[12 + (i >> 2)] ^= person.charCodeAt(i) << (8 * (i & 3));
  }
  return state;
}

// One block; `count` bytes have been seen with it (below 2**32).
function compress(state, words, count, isLast) {
  const v = new Uint32Array(32);
  v.set(state);
  v.set(IV, 16);
  v[24] ^= count;
  if (isLast) {
    v[28] = ~v[28];
    v[29] = ~v[29];
  }
  for (let round = 0; round < ROUNDS; round += 1) {
    const order = ORDER[round % ORDER.length];
    for (let i = 0; i < MIX.length; i += 1) {
      mix(v, MIX[i], words, order[2 * i], order[2 * i + 1]);
    }
  }
  for (let i = 0; i < 16; i += 1) state[i] ^= v[i] ^ v[i + 16];
}

function mix(v, [a, b, c, d], words, x, y) {
  add(v, a, v[b], v[b + 1]);
  add(v, a, words[x], words[x + 1]);
  exchange(v, d, a);
  add(v, c, v[d], v[d + 1]);
  turn(v, b, c, 24);
  add(v, a, v[b], v[b + 1]);
  add(v, a, words[y], words[y + 1]);
  turn(v, d, a, 16);
  add(v, c, v[d], v[d + 1]);
  turnBack(v, b, c);
}

function add(v, a, low, high) {
  const sum = v[a] + low;
  v[a] = sum;
  v[a + 1] = v[a + 1] + high + (sum > 0xffffffff ? 1 : 0);
}

// v[a] = (v[a] xor v[b]) turned right by 32.
function exchange(v, a, b) {
  const low = v[a] ^ v[b];
  v[a] = v[a + 1] ^ v[b + 1];
  v[a + 1] = low;
}

// The same by fewer than 32 bits.
function turn(v, a, b, bits) {
  const low = v[a] ^ v[b];
  const high = v[a + 1] ^ v[b + 1];
  v[a] = (low >>> bits) | (high << (32 - bits));
  v[a + 1] = (high >>> bits) | (low << (32 - bits));
}

// The same by 63 bits: left by one.
function turnBack(v, a, b) {
  const low = v[a] ^ v[b];
  const high = v[a + 1] ^ v[b + 1];
  v[a] = (low << 1) | (high >>> 31);
  v[a + 1] = (high << 1) | (low >>> 31);
}
