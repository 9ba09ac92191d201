"""Receipts, openings and reveals of an answer, to weigh; and ready-made findings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from assay_coordinator.core.calibration import BUILT_IN, Table
from assay_coordinator.core.evidence import ALTERNATIVES, MICRO
from assay_coordinator.core.findings import Asked, Bound, Finding, weigh
from assay_protocol import messages as m
from assay_protocol.leaves import Leaves, leaves_of
from assay_protocol.sketches import sketch
from coordinator.core.coordinator_world import pack_logits

TOKENS = 96
GAP = 150
ENDS = [b"\x01" * 32] * 6


def values(seed: int, drift: float = 0.0) -> np.ndarray[Any, Any]:
    """Logits of 16 tokens at each position, `drift` of their length away from seed 0's."""
    true = np.random.default_rng(0).standard_normal((TOKENS, 16))
    noise = np.random.default_rng(seed).standard_normal((TOKENS, 16))
    return np.asarray(true + drift * noise, np.float32)


def leaves(seed: int = 0, drift: float = 0.0) -> Leaves:
    seen = values(seed, drift)
    return leaves_of(seen[:, 0].tobytes(), sketch(seen))


def receipt(of: Leaves, class_id: str = "x/F") -> m.Receipt:
    return m.Receipt(
        ticket=bytes(16),
        model=bytes(32),
        class_id=class_id,
        prompt_hash=bytes(32),
        seed_hash=bytes(32),
        output_hash=ENDS[-1],
        root=of.root(class_id, ENDS),
        n_in=1,
        n_out=TOKENS,
        finish="stop",
        started_at=0,
        first_at=0,
        ended_at=0,
    )


def opening(of: Leaves) -> m.LeavesOpened:
    told = {"logits": of.logits} if of.logits else {"logits": b""}
    if not of.logits:
        told |= {"raws": of.raws, "sketches": of.sketches}
    return m.LeavesOpened(audit=bytes(16), hashes=b"".join(ENDS), **told)


def reveal(of: Leaves, mismatches: int = 0, tokens: int = TOKENS, **changes: Any) -> m.AuditReveal:
    wrong = tuple(range(mismatches))
    whole = m.AuditReveal(
        audit=bytes(16),
        nonce=bytes(32),
        mismatches=wrong,
        margins=tuple(100 for _ in wrong),
        logits=b"",
        raws=of.raws[: 32 * -(-tokens // 16)],
        sketches=of.sketches[: 10 * tokens],
        gaps=bytes([GAP]) * tokens,
    )
    return replace(whole, **changes)


def found(
    count: int = 0,
    drift: float = 0.05,
    executor: str = "x/F",
    auditor: str = "y/F",
    seed: int = 1,
    table: Table = BUILT_IN,
    **changes: Any,
) -> Finding:
    """The finding of an auditor whose logits are `drift` away from the executor's."""
    mine, theirs = leaves(), leaves(seed, drift)
    bound = Bound(bytes([seed]) * 32, auditor, bytes(16), bytes(32), b"")
    said = replace(reveal(theirs, count), **changes)
    return weigh(bound, receipt(mine, executor), opening(mine), said, Asked(TOKENS), table)


def plain(name: int, nats: float = -1.0, **changes: Any) -> Finding:
    """A finding with evidence of so many nats by every alternative."""
    bound = Bound(bytes([name]) * 32, "y/F", bytes([name]) * 16, bytes(32), b"")
    ratios = (round(nats * MICRO),) * ALTERNATIVES
    return replace(Finding(bound, b"", replayed=TOKENS, ratios=ratios), **changes)


def logprobs(count: int, value: float) -> bytes:
    return pack_logits([value] * count)
