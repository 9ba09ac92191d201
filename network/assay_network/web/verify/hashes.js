// The hashes that bind a job, as protocol/spec/04-signing-and-hashes.md has them.

import { blake2b, Blake2b } from "./blake2b.js";
import { concat, littleEndian32 } from "./bytes.js";

export const promptHash = (nonce, prompt) => framed("assay prompt", nonce, prompt);
export const grammarHash = (nonce, grammar) => framed("assay grammar", nonce, grammar);
export const nonceCommitment = (nonce) => framed("assay nonce", nonce);
export const jobSeed = (seedTicket, nonce) => framed("assay seed", seedTicket, nonce);

// Of a whole answer: packed tokens or vectors, without lengths, since a node takes it at every count.
export function outputHash(ticket, nonce, output) {
  return runningHash(ticket, nonce).update(output).digest();
}

// The same of an answer that comes in pieces.
export function runningHash(ticket, nonce) {
  return new Blake2b("assay output").update(ticket).update(nonce);
}

// Of all logprobs of a prompt that a node told, packed.
export function toldHash(ticket, nonce, told) {
  return blake2b(concat([ticket, nonce, told]), "assay told");
}

// The name of a signed blob; a receipt stands under it in a line of credit.
export const digest = (blob) => blake2b(blob);

// Of several parts, none of which can be taken for another.
export function framed(person, ...parts) {
  return blake2b(concat(parts.flatMap((part) => [littleEndian32(part.length), part])), person);
}
