"""How much of an answer an audit replays: all of it half the time, else a prefix.

A prefix of b tokens costs a prefill of b tokens, and every position is still replayed in at least
half of the audits. All auditors of one job replay the same prefix, else the second could not
confirm what the first one found.
"""

from __future__ import annotations

from assay_coordinator.core.entropy import Entropy
from assay_protocol.limits import LEAF_TOKENS


def replay_tokens(entropy: Entropy, receipt_digest: bytes, n_out: int) -> int:
    """`n_out`, or a multiple of 16 below it; fixed by the receipt and the coordinator's secret."""
    leaves = (n_out - 1) // LEAF_TOKENS  # whole leaves that end before the last token
    word = int.from_bytes(entropy.keyed(b"coverage", receipt_digest), "big")
    if leaves < 1 or word & 1:
        return n_out
    return LEAF_TOKENS * (1 + (word >> 1) % leaves)
