"""Bytes that verification adds to the wire: a real signed receipt, and what an audit opens."""

from __future__ import annotations

from typing import Final

from assay_node.engine.library import COMMIT
from assay_node.engine.profiles import FLASH
from assay_protocol.codec import encode
from assay_protocol.limits import LEAF_TOKENS, SKETCH_BYTES
from assay_protocol.messages import LeavesOpened, Receipt
from assay_protocol.signing import Identity, seal

_CLASS: Final = FLASH.named(commit=COMMIT, device="cpu-avx2", quant="q8_0")
_NOW: Final = 1_800_000_000_000_000  # microseconds: as many bytes as today


def receipt_bytes(tokens: int) -> int:
    """Of a signed receipt for an answer of so many tokens."""
    digest = bytes(32)
    receipt = Receipt(
        ticket=bytes(16),
        class_id=_CLASS,
        output_hash=digest,
        root=digest,
        n_in=500,
        n_out=tokens,
        finish="length",
        started_at=_NOW,
        first_at=_NOW,
        ended_at=_NOW,
        calibration=1,
    )
    return len(seal(Identity(digest), receipt))


def opened_bytes(tokens: int) -> int:
    """Of the message that opens all leaves of such an answer; nothing else of it is sent."""
    leaves = -(-tokens // LEAF_TOKENS)
    digests, sketches = bytes(32 * leaves), bytes(SKETCH_BYTES * tokens)
    opened = LeavesOpened(
        audit=bytes(16), hashes=digests, logits=b"", raws=digests, sketches=sketches
    )
    return len(encode(opened))
