"""Which receipts are audited: a draw over the receipt's own bytes, after it is booked.

The draw is a PRF of the coordinator's secret and the receipt's digest: a node cannot know it while
it still can change the receipt, and asking twice gives the same answer. (A draw that anybody can
recheck, against a pre-committed chain of secrets, is docs/verification.md 5.)
"""

from __future__ import annotations

from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.policy import Policy


def drawn(policy: Policy, entropy: Entropy, verified: int, receipt_digest: bytes) -> bool:
    """Whether the receipt is audited, for a node with `verified` passed audits."""
    numerator, denominator = policy.audit_due(verified)
    value = int.from_bytes(entropy.keyed(b"lottery", receipt_digest), "big")
    return value * denominator < numerator << 256
