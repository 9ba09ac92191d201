"""A receipt over sketched leaves, and what honest auditors reveal of its answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from assay.records import ReceiptRecord
from assay_protocol.hashing import leaf_hashes, raw_hashes, sketched_root
from assay_protocol.messages import AuditReveal, LeavesOpened, Receipt, VerdictRecord
from assay_protocol.signing import Identity, peek, seal
from assay_protocol.sketches import sketch
from sdk.client_world import AUDITOR, SECOND_AUDITOR, node_key, verdict_record
from sdk.test_receipt_verify import RECORD

CLASS = "llama.cpp/commit/cpu/plain/kv-f16/q8_0/E"
TOKENS = len(RECORD.output) // 4


def logits(drift: float = 0.0) -> bytes:
    values = np.linspace(3, 9, TOKENS).astype("<f4") + np.float32(drift)
    return values.tobytes()


def sketches(drift: float = 0.0) -> bytes:
    rows = np.sin(np.arange(16 * TOKENS, dtype=np.float32)).reshape(TOKENS, 16)
    return sketch(rows + np.float32(drift) * np.cos(7 * rows))


def sketched(class_id: str = CLASS) -> ReceiptRecord:
    """RECORD as its node would sign it in a class with sketched leaves."""
    receipt = peek(Receipt, RECORD.receipt)
    hashes = leaf_hashes(receipt.ticket, RECORD.nonce, RECORD.output)
    root = sketched_root(hashes, raw_hashes(logits()), sketches())
    return replace(
        RECORD, receipt=seal(node_key(0), replace(receipt, root=root, class_id=class_id))
    )


def opening() -> LeavesOpened:
    receipt = peek(Receipt, RECORD.receipt)
    return LeavesOpened(
        audit=bytes(16),
        hashes=b"".join(leaf_hashes(receipt.ticket, RECORD.nonce, RECORD.output)),
        logits=b"",
        raws=b"".join(raw_hashes(logits())),
        sketches=sketches(),
    )


def reveal(number: int = 1, drift: float = 0.0) -> AuditReveal:
    return AuditReveal(
        audit=number.to_bytes(16, "big"),
        nonce=bytes([number]) * 32,
        mismatches=(5,) if drift else (),
        margins=(120,) if drift else (),
        logits=b"",
        raws=b"".join(raw_hashes(logits(drift))),
        sketches=sketches(drift),
        gaps=bytes(TOKENS),
    )


def verdict() -> VerdictRecord:
    """An answer that two auditors, one of another class, found good."""
    record = sketched()
    reveals: dict[Identity, AuditReveal] = {AUDITOR: reveal(1), SECOND_AUDITOR: reveal(2, 0.02)}
    return verdict_record(record.ticket, record.receipt, opening(), reveals)
