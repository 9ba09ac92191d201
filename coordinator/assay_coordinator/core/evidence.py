"""From one replay to a verdict: what honest noise explains, and what it does not.

Token replay (channel T, docs/verification.md 2). An honest node whose arithmetic
differs from the auditor's still disagrees on about 3 % of tokens; a cheaper model on 15-35 %. Each
token adds a log-likelihood ratio between HONEST_MISMATCH and CHEAT_MISMATCH, in integer
micro-nats. A node's evidence is max(0, evidence + replay), an e-detector: under honesty the chance
that it ever crosses CONVICTION is at most 1e-6 per start, as far as tokens are independent.

Leaves make auditors accountable: the executor committed to sketches of its logits in the receipt's
root and the auditor commits to its own before those are opened, so who computed nothing cannot
agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Final

from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import unpack_logits
from assay_protocol.leaves import Leaves
from assay_protocol.limits import LEAF_TOKENS
from assay_protocol.messages import AuditReveal, LeavesOpened, Receipt
from assay_protocol.sketches import leaf_distances

HONEST_MISMATCH: Final = 0.06
CHEAT_MISMATCH: Final = 0.25
_MISS: Final = round(1e6 * math.log(CHEAT_MISMATCH / HONEST_MISMATCH))
_MATCH: Final = round(1e6 * math.log((1 - CHEAT_MISMATCH) / (1 - HONEST_MISMATCH)))
SUSPICION: Final = 2_000_000  # a replay above this is shown to further auditors
CONVICTION: Final = round(1e6 * math.log(1e6))
LOGIT_TOLERANCE: Final = 0.5  # median distance; honest noise is about 0.05
SKETCH_TOLERANCE: Final = 0.25  # of the sketches' length; honest noise is about 0.04
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
    sketches: bytes = b""

    @property
    def bad(self) -> bool:
        """Honest noise does not explain it."""
        tolerance = SKETCH_TOLERANCE if self.sketches else LOGIT_TOLERANCE
        return bool(self.fault) or self.evidence > SUSPICION or self.distance > tolerance


def check_opening(receipt: Receipt, opened: LeavesOpened) -> None:
    """Raise ProtocolError unless the opened leaves are those the receipt's root committed to."""
    hashes = [opened.hashes[i : i + 32] for i in range(0, len(opened.hashes), 32)]
    if len(opened.hashes) % 32 or (hashes and hashes[-1] != receipt.output_hash):
        raise ProtocolError("receipt_mismatch", "the opening ends on another hash")
    leaves = Leaves(opened.raws or b"", opened.sketches or b"", opened.logits)
    leaves.check(receipt.class_id, receipt.n_out)
    if leaves.root(receipt.class_id, hashes) != receipt.root:
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
    logits: tuple[float, ...] = ()
    if reveal.raws is None:
        logits, equal, distance = _logprobs_apart(receipt.n_out, opened, reveal)
    else:
        equal, distance = _sketches_apart(receipt.n_out, opened, reveal)
    return Finding(
        auditor=auditor,
        audit=reveal.audit,
        commitment=committed,
        replayed=receipt.n_out,
        mismatches=len(wrong),
        evidence=len(wrong) * _MISS + (receipt.n_out - len(wrong)) * _MATCH,
        logits=logits,
        equal_logits=equal,
        distance=distance,
        fault="",
        sketches=reveal.sketches or b"",
    )


def _logprobs_apart(
    n_out: int, opened: LeavesOpened, reveal: AuditReveal
) -> tuple[tuple[float, ...], int, float]:
    """The auditor's logprobs, how many equal the executor's, and how far they are apart."""
    theirs, ours = unpack_logits(reveal.logits), unpack_logits(opened.logits)
    if len(theirs) != n_out or not all(map(math.isfinite, theirs)):
        raise ProtocolError("malformed", "one finite logprob for each token")
    if len(ours) != n_out:
        return theirs, 0, math.inf
    equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return theirs, equal, _distance(ours, theirs)


def _sketches_apart(n_out: int, opened: LeavesOpened, reveal: AuditReveal) -> tuple[int, float]:
    """How many tokens are in leaves of equal bits, and how far apart the farthest leaf is."""
    theirs = Leaves(reveal.raws or b"", reveal.sketches or b"", reveal.logits)
    theirs.check("", n_out)
    leaf_distances(theirs.sketches, theirs.sketches)  # refuses what is no number
    if opened.raws is None or opened.sketches is None:
        return 0, math.inf  # logprobs where they are not taken
    ours = opened.raws
    same = [ours[i : i + 32] == theirs.raws[i : i + 32] for i in range(0, len(ours), 32)]
    equal = min(n_out, LEAF_TOKENS * sum(same))
    return equal, max(leaf_distances(opened.sketches, theirs.sketches), default=0.0)


def agree(a: Finding, b: Finding) -> bool:
    """Two auditors computed the same: the same fault, or sketches within tolerance."""
    if a.fault or b.fault:
        return a.fault == b.fault
    if a.sketches or b.sketches:
        if len(a.sketches) != len(b.sketches):
            return False
        return max(leaf_distances(a.sketches, b.sketches)) <= SKETCH_TOLERANCE
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
