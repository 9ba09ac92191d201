"""Which of the nodes that may audit a job does it."""

from __future__ import annotations

from collections.abc import Sequence

from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Node


def choose(policy: Policy, entropy: Entropy, free: Sequence[Node]) -> Node:
    """At random among the most trusted there are: a young network has no experienced ones yet, but
    a fresh key, which costs nothing, decides only where all keys are fresh."""
    for least in (policy.experienced_audits, policy.probation_audits, 0):
        pool = [node for node in free if node.row.verified >= least]
        if pool:
            break
    return pool[entropy.below(len(pool))]
