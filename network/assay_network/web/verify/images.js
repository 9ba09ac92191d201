// Images of a prompt: places in it that spell their pixels (protocol/spec/images.md).

import { blake2b } from "./blake2b.js";
import { concat, equal, littleEndian32 } from "./bytes.js";
import { require } from "./errors.js";
import { IMAGE_SIDE_MAX, IMAGE_TOKENS_MIN, IMAGES_BYTES_MAX, IMAGES_MAX } from "./messages.js";

const TOKEN_BYTES = 4;
const SIZE_BYTES = 8;
const BLOCK_BYTES = 64;

// Whether the packed tokens have a place of an image: one whose highest bit is set.
export function holdsImages(prompt) {
  for (let at = 3; at < prompt.length; at += TOKEN_BYTES) if (prompt[at] >= 0x80) return true;
  return false;
}

// The images a record keeps: objects of `width`, `height`, `pixels`. Throws ProtocolError.
export function unpackImages(data) {
  const images = [];
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let at = 0; at < data.length;) {
    const said = "not a row of images";
    require(images.length < IMAGES_MAX && data.length - at >= SIZE_BYTES, said);
    const [width, height] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
    const sides = Math.min(width, height) >= 1 && Math.max(width, height) <= IMAGE_SIDE_MAX;
    const end = at + SIZE_BYTES + 3 * width * height;
    require(sides && end <= data.length, said);
    images.push({ width, height, pixels: data.subarray(at + SIZE_BYTES, end) });
    at = end;
  }
  return images;
}

// Whether the packed prompt spells these images and no others, one after the other.
export function spells(prompt, images) {
  const pixels = images.reduce((sum, image) => sum + image.pixels.length, 0);
  if (images.length === 0 || pixels > IMAGES_BYTES_MAX) return false;
  const isPlace = (token) => prompt[TOKEN_BYTES * token + 3] >= 0x80;
  const tokens = prompt.length / TOKEN_BYTES;
  let places = 0;
  for (let token = 0; token < tokens; token += 1) if (isPlace(token)) places += 1;
  const count = places / images.length;
  if (!Number.isInteger(count) || count < IMAGE_TOKENS_MIN) return false;
  let token = 0;
  for (const image of images) {
    while (token < tokens && !isPlace(token)) token += 1;
    const there = prompt.subarray(TOKEN_BYTES * token, TOKEN_BYTES * (token + count));
    if (!equal(there, spelled(image, count))) return false;
    token += count;
  }
  return true;
}

function spelled({ width, height, pixels }, count) {
  const sides = [littleEndian32(width), littleEndian32(height)];
  const digest = blake2b(concat([...sides, pixels]), "assay image");
  const size = TOKEN_BYTES * count;
  const blocks = Array.from({ length: Math.ceil(size / BLOCK_BYTES) }, (_, number) =>
    blake2b(littleEndian32(number), "assay spell", { key: digest, size: BLOCK_BYTES }));
  const tokens = concat(blocks).subarray(0, size);
  for (let at = 3; at < size; at += TOKEN_BYTES) tokens[at] |= 0x80;
  return tokens;
}
