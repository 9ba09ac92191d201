"""Two statements of one key about one thing, as the contract SlashCourt takes them."""

from __future__ import annotations

from assay_contracts import calls
from assay_contracts.ed25519_hints import HintedSignature, hinted
from assay_protocol.errors import AssayError
from assay_protocol.messages import Receipt, Seal
from assay_protocol.signing import SIGNATURE_BYTES, covered, open_signed


def equivocation_call(cls: type[Receipt | Seal], key: bytes, a: bytes, b: bytes) -> bytes:
    """Call data that slashes `key` for the signed blobs `a` and `b`.

    Raises AssayError: "bad_signature" or "malformed" for what is no `cls` of the key's, "malformed"
    for two that do not contradict each other.
    """
    said = [open_signed(cls, blob, key) for blob in (a, b)]
    if a[SIGNATURE_BYTES:] == b[SIGNATURE_BYTES:] or len({_subject(one) for one in said}) != 1:
        raise AssayError("malformed", "the statements do not contradict each other")
    pairs = (statement(cls, key, blob) for blob in (a, b))
    arguments = [part for pair in pairs for part in pair]
    return calls.encode("SlashCourt", "equivocation", key, *arguments)


def statement(cls: type, key: bytes, blob: bytes) -> tuple[bytes, HintedSignature]:
    """The bytes that a signed blob's signature covers, and the signature."""
    return covered(cls, blob), hinted(key, blob[:SIGNATURE_BYTES])


def _subject(said: Receipt | Seal) -> bytes:
    return said.ticket if isinstance(said, Receipt) else said.subject
