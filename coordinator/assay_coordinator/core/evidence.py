"""From one replay to a verdict: what honest noise explains, and what it does not.

Token replay (channel T, docs/verification.md 2). An honest node whose arithmetic
differs from the auditor's still disagrees on about 3 % of tokens; a cheaper model on 15-35 %. Each
token adds a log-likelihood ratio between HONEST_MISMATCH and CHEAT_MISMATCH, in integer
micro-nats. A node's evidence is max(0, evidence + replay), an e-detector: under honesty the chance
that it ever crosses CONVICTION is at most 1e-6 per start, as far as tokens are independent.

Logits make auditors accountable: the executor committed to its logits in the receipt's root and
the auditor commits to its own before those are opened, so who computed nothing cannot agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Final

from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import leaves_root, unpack_logits
from assay_protocol.messages import AuditReveal, LeavesOpened, Receipt

HONEST_MISMATCH: Final = 0.06
CHEAT_MISMATCH: Final = 0.25
_MISS: Final = round(1e6 * math.log(CHEAT_MISMATCH / HONEST_MISMATCH))
_MATCH: Final = round(1e6 * math.log((1 - CHEAT_MISMATCH) / (1 - HONEST_MISMATCH)))
SUSPICION: Final = 2_000_000  # a replay above this is shown to further auditors
CONVICTION: Final = round(1e6 * math.log(1e6))
LOGIT_TOLERANCE: Final = 0.5  # median distance; honest noise is about 0.05
SPAN: Final = 16  # tokens: an answer is as far off as its worst span (cheats that start late)
DISTANCE_EVIDENCE: Final = 7_000_000  # two auditors agree with each other and not with the node


@dataclass(frozen=True, slots=True)
class Finding:
    """What one auditor's replay says."""

    auditor: bytes
    audit: bytes
    commitment: bytes
    replayed: int
    mismatches: int
    evidence: int
    logits: tuple[float, ...]
    equal_logits: int
    distance: float
    fault: str

    @property
    def bad(self) -> bool:
        """Honest noise does not explain it."""
        return bool(self.fault) or self.evidence > SUSPICION or self.distance > LOGIT_TOLERANCE


def check_opening(receipt: Receipt, opened: LeavesOpened) -> None:
    """Raise ProtocolError unless the opened leaves are those the receipt's root committed to."""
    hashes = [opened.hashes[i : i + 32] for i in range(0, len(opened.hashes), 32)]
    if len(opened.logits) != 4 * receipt.n_out or len(opened.hashes) % 32:
        raise ProtocolError("receipt_mismatch", "the opening has another length")
    if hashes and hashes[-1] != receipt.output_hash:
        raise ProtocolError("receipt_mismatch", "the opening ends on another hash")
    if leaves_root(hashes, opened.logits) != receipt.root:
        raise ProtocolError("receipt_mismatch", "the leaves are not the root's")


def weigh(
    auditor: bytes, committed: bytes, receipt: Receipt, opened: LeavesOpened, reveal: AuditReveal
) -> Finding:
    """The finding of a reveal whose commitment was checked. Raises ProtocolError if malformed."""
    if reveal.fault is not None:
        return Finding(auditor, reveal.audit, committed, 0, 0, 0, (), 0, 0.0, reveal.fault)
    wrong = reveal.mismatches
    if list(wrong) != sorted(set(wrong)) or (wrong and wrong[-1] >= receipt.n_out):
        raise ProtocolError("malformed", "mismatch positions")
    theirs, ours = unpack_logits(reveal.logits), unpack_logits(opened.logits)
    if len(theirs) != receipt.n_out or not all(map(math.isfinite, theirs)):
        raise ProtocolError("malformed", "one finite logit for each token")
    return Finding(
        auditor=auditor,
        audit=reveal.audit,
        commitment=committed,
        replayed=receipt.n_out,
        mismatches=len(wrong),
        evidence=len(wrong) * _MISS + (receipt.n_out - len(wrong)) * _MATCH,
        logits=theirs,
        equal_logits=sum(a == b for a, b in zip(ours, theirs, strict=True)),
        distance=_distance(ours, theirs),
        fault="",
    )


def agree(a: Finding, b: Finding) -> bool:
    """Two auditors computed the same: the same fault, or logits within tolerance."""
    if a.fault or b.fault:
        return a.fault == b.fault
    return _distance(a.logits, b.logits) <= LOGIT_TOLERANCE


def convicting_evidence(bad: list[Finding]) -> int:
    """What a quorum of bad findings adds: the weakest replay's, so one liar cannot raise it."""
    assert len(bad) >= 2
    evidence = max(0, min(finding.evidence for finding in bad))
    if evidence <= SUSPICION and agree(bad[0], bad[1]):
        evidence = DISTANCE_EVIDENCE
    return evidence


def accumulate(evidence: int, more: int) -> int:
    return max(0, evidence + more)


def _distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The largest median of |a - b| over spans; what is no number is infinitely far."""
    if not a:
        return 0.0
    apart = [abs(x - y) for x, y in zip(a, b, strict=True)]
    apart = [x if math.isfinite(x) else math.inf for x in apart]
    starts = [*range(0, len(apart) - SPAN, SPAN), max(0, len(apart) - SPAN)]
    return max(median(apart[start : start + SPAN]) for start in starts)
