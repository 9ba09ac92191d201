"""Operating errors: every failure a peer or a user can cause has one stable code.

Codes are part of the protocol: they travel in `Error` frames and stand in docs/errors.md. A code is
never renamed or reused. Assertions are for our own bugs and are not listed here.
"""

from __future__ import annotations

from typing import Final

CODES: Final[dict[str, str]] = {
    # the wire
    "malformed": "The bytes are not a message: bad msgpack, wrong type, missing or extra field.",
    "oversized": "A frame, list or string is larger than its limit in limits.py.",
    "unknown_message": "A message type this version must understand but does not.",
    "unexpected_message": "A known message that does not belong here or now.",
    "bad_signature": "The signature does not match the key and the signed bytes.",
    "peer_gone": "The connection or stream ended before the exchange was complete.",
    "timeout": "The peer did not answer in time.",
    "unsupported_protocol": "The peer does not speak this protocol.",
    "busy": "No capacity now; try again after retry_after_ms.",
    "internal": "A fault of our own; it is in the log under its event name.",
    # tickets and jobs
    "ticket_expired": "The ticket's time is over.",
    "ticket_not_mine": "The ticket names another node or another client.",
    "ticket_replayed": "The ticket was already used.",
    "wrong_coordinator": "The ticket is not signed by the coordinator this node works for.",
    "nonce_mismatch": "The client nonce does not match its commitment in the ticket.",
    "prompt_mismatch": "The prompt does not match its hash or count in the ticket.",
    "prompt_too_long": "Prompt and answer do not fit the model's context.",
    "model_unknown": "The model is not in the catalogue or not served here.",
    "sampler_refused": "The sampler settings are out of range or not supported.",
    "task_refused": (
        "No node of the model does this: embed, write answers, or tell logprobs of a prompt."
    ),
    "region_unserved": "No node that says it is there serves the model.",
    "grammar_mismatch": "The grammar is missing or does not match its commitment in the ticket.",
    "grammar_refused": "The grammar cannot be read, is too complex or is not supported here.",
    "image_mismatch": "The images are missing, or are not the ones that the prompt spells.",
    "image_refused": "The model reads no images, not as many, or not of that size.",
    "adapter_unknown": "The adapter is not loaded with the model here.",
    "pooling_missing": "The model names no pooling, so it has no embedding of a whole text.",
    "not_finite": "The model's embedding of this text is not a direction: not finite, or zero.",
    "draining": "The node is leaving and takes no new jobs.",
    "slow_reader": "The client stopped reading or acknowledging.",
    "engine_failed": "The inference engine stopped; the job can be resumed elsewhere.",
    "cancelled": "The client cancelled the job.",
    "audit_failed": "An audit found that the answer is not the model's, or was not shown one.",
    "audit_missing": "No audit of the answer passed in time; nothing speaks against it either.",
    "answers_differ": "Two nodes that drew under one seed gave different answers.",
    # the coordinator
    "no_capacity": "No node that fits the constraints is free.",
    "insufficient_credit": "The account's available balance does not cover the job.",
    "not_registered": "The node has no lease here.",
    "suspended": "The node is suspended and gets no jobs.",
    "convicted": "The key was convicted of cheating; it never registers again.",
    "calibration_unknown": "There is no table of honest noise of that version here.",
    "calibration_invalid": "The table of honest noise cannot be read or is not an operator's.",
    "unknown_ticket": "No such ticket was issued.",
    "receipt_mismatch": "The receipt contradicts its ticket or an earlier receipt.",
    "verify_refused": "The level of verification is not known, or cannot be given here.",
    "resume_refused": "The resume point is not the caller's, or does not match what was signed.",
    "unknown_round": "No round of the lottery with this number was drawn.",
    "unknown_node": "No node with this key was ever registered here.",
    "query_invalid": "A web request asks for what is not there: a word, a value or a cursor.",
    "misdirected_request": "A web request calls the server by a name that its owner did not set.",
    "password_required": "A web request tells no password, or a wrong one.",
    "forbidden": "The caller may not do this.",
    "class_refused": "This numerics class is not accepted here, or cannot do what was asked.",
    "rate_limited": "Too many requests or jobs at once from this account.",
    "storage_failed": "The database could not commit; nothing was acknowledged.",
    # files, models, keys, processes
    "key_permissions": "The key file can be read by others; it must have mode 0600.",
    "key_invalid": "The key file does not hold a 32-byte seed.",
    "model_corrupt": "The model file's sha256 is not the one in its card.",
    "model_missing": "The model file was not found and could not be fetched.",
    "gguf_invalid": "The model file is not a well-formed GGUF file, or is cut off.",
    "model_too_large": "The model does not fit into the memory that is free.",
    "model_in_use": "A running node has the model file open.",
    "card_invalid": "The model card cannot be read or contradicts itself.",
    "port_in_use": "The address is already in use or cannot be listened on.",
    "disk_full": "The disk has no room; nothing half-written was kept.",
    "config_invalid": "A configuration key or value is not known or not possible.",
    "engine_missing": "The engine's library is not installed.",
    # the chain and credit
    "chain_mismatch": "The chain is not the one expected, or its history changed.",
    "epoch_out_of_order": "The epoch is not the successor of the one on chain.",
    "epoch_unknown": "The epoch is not on the chain: never posted, or voided.",
    "epoch_open": "The epoch is not final: it can still be challenged.",
    "proof_invalid": "The proof does not lead from the leaf to the root.",
    "contract_refused": "The contract reverted the call or transaction.",
    "chain_unavailable": "The chain cannot be reached or is not in step; nothing was lost.",
    "gas_too_low": "The account cannot pay for the transaction, or its fee is above the bound.",
    # governance
    "model_denied": "Governance does not allow this model to be served.",
    "prompt_refused": "The prompt contains a phrase that the network's moderation policy refuses.",
    "rules_invalid": "The rules are not those on the chain, or not signed by their author.",
}


class AssayError(Exception):
    """An operating error with a stable `code` (a key of CODES) and a message for people."""

    def __init__(self, code: str, message: str = "", *, retry_after_ms: int | None = None) -> None:
        assert code in CODES, code
        super().__init__(message or CODES[code])
        self.code = code
        self.retry_after_ms = retry_after_ms

    @property
    def message(self) -> str:
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class ProtocolError(AssayError):
    """The peer broke the protocol: what it sent is not valid, whatever our state."""


class PeerGone(AssayError):
    """The connection or stream was lost; the request may or may not have run."""

    def __init__(self, message: str = "") -> None:
        super().__init__("peer_gone", message)


class RemoteError(AssayError):
    """The peer answered with an error of its own; its code is kept."""
