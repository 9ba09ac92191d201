// What can be wrong with bytes that somebody else made: those codes of errors.py that checking a
// receipt or a bundle of credit can end with, and their sentences.

export const CODES = {
  malformed: "The bytes are not a message: bad msgpack, wrong type, missing or extra field.",
  oversized: "A frame, list or string is larger than its limit in limits.py.",
  unknown_message: "A message type this version must understand but does not.",
  unexpected_message: "A known message that does not belong here or now.",
  bad_signature: "The signature does not match the key and the signed bytes.",
  wrong_coordinator: "The ticket is not signed by the coordinator this node works for.",
  receipt_mismatch: "The receipt contradicts its ticket or an earlier receipt.",
  proof_invalid: "The proof does not lead from the leaf to the root.",
};

// The bytes are not what they must be. `reason` is the sentence, `message` has the code before it.
export class ProtocolError extends Error {
  constructor(code, reason = CODES[code]) {
    super(`${code}: ${reason}`);
    this.name = "ProtocolError";
    this.code = code;
    this.reason = reason;
  }
}

// The browser cannot check signatures or hashes: nothing is said of the bytes.
export class Unsupported extends Error {}

export function require(holds, reason, code = "malformed") {
  if (!holds) throw new ProtocolError(code, reason);
}
