// The messages that a receipt and a bundle of credit are made of, field by field as in
// protocol/assay_protocol/messages; a test holds these tables to those classes.

import { boolean, bytes, decodeAs, float, integer, list, message, struct, text } from "./schema.js";

export { decodeAs };

export const PROMPT_TOKENS_MAX = 131_072;
export const OUTPUT_TOKENS_MAX = 2_048;
export const VECTORS_BYTES_MAX = 4 << 20;
export const PROMPT_LOGPROBS_BYTES_MAX = 4 << 20;
export const GRAMMAR_BYTES_MAX = 16 << 10;
export const IMAGES_MAX = 8;
export const IMAGES_BYTES_MAX = 768 << 10;
export const IMAGE_SIDE_MAX = 4_096;
export const IMAGE_TOKENS_MIN = 9;
export const UNACKED_TOKENS_MAX = 128n;
export const FINISH_REASONS = ["stop", "length", "cancelled", "slow_reader"];

const KEY = bytes(32);
const DIGEST = bytes(32);
const TICKET_ID = bytes(16);
const SIGNED = bytes(65, 8_192);
const COUNT = integer(0, 1n << 31n);
const CREDIT = integer(0, (1n << 63n) - 1n);
const TIME = CREDIT;
const NAME = text(1, 128);

const TOKEN_BIAS = struct("TokenBias", { token: COUNT, bias: float });

const SAMPLER = struct(
  "Sampler",
  { temperature: float, top_k: COUNT, top_p: float, min_p: float },
  {
    repetition_penalty: float,
    repetition_window: COUNT,
    presence_penalty: float,
    frequency_penalty: float,
    logit_bias: list(TOKEN_BIAS, 0, 256),
    stop_tokens: list(COUNT, 0, 32),
    logprobs: integer(0, 20),
    grammar: DIGEST,
    texts: list(integer(1, PROMPT_TOKENS_MAX), 1, 256),
    prompt_logprobs: integer(0, 20),
  },
);

const ROUTE = struct("Route", { node: KEY, addresses: list(text(1, 256), 0, 8) });

const STANDING = struct(
  "Standing",
  {
    state: NAME,
    audits_passed: COUNT,
    audits_failed: COUNT,
    audit_bps: COUNT,
    at_risk: CREDIT,
    class_id: NAME,
    exact: boolean,
  },
  { region: NAME },
);

export const TicketGrant = message(
  12, "TicketGrant", { ticket: SIGNED, route: ROUTE }, { standing: STANDING },
);

export const Ticket = message(
  110,
  "Ticket",
  {
    ticket: TICKET_ID,
    client: KEY,
    node: KEY,
    model: DIGEST,
    prompt_hash: DIGEST,
    n_in: COUNT,
    sampler: SAMPLER,
    max_tokens: integer(1, OUTPUT_TOKENS_MAX),
    start: COUNT,
    nonce_commitment: DIGEST,
    seed_ticket: TICKET_ID,
    price_in: CREDIT,
    price_out: CREDIT,
    issued_at: TIME,
    expires_at: TIME,
    epoch: COUNT,
  },
  { calibration: COUNT },
);

export const Receipt = message(
  112,
  "Receipt",
  {
    ticket: TICKET_ID,
    class_id: NAME,
    output_hash: DIGEST,
    root: DIGEST,
    n_in: COUNT,
    n_out: COUNT,
    finish: NAME,
    started_at: TIME,
    first_at: TIME,
    ended_at: TIME,
  },
  { calibration: COUNT, prompt_logprobs: DIGEST },
);

export const Ack = message(96, "Ack", { ticket: TICKET_ID, count: COUNT, output_hash: DIGEST });

const SHARE = struct("Share", { account: KEY, role: integer(0, 255), bps: integer(1, 10_000) });
const MODEL_SPLIT = struct("ModelSplit", { model: DIGEST, shares: list(SHARE, 1, 8) });

export const Pricing = message(46, "Pricing", {
  fee_bps: integer(0, 10_000),
  splits: list(MODEL_SPLIT, 0, 4_096),
});

export const MESSAGES = [TicketGrant, Ticket, Receipt, Ack, Pricing];
