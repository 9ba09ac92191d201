"""Who audits: a draw among those who are free, weighted by the work they have shown.

The draw is a hash of the round's seed and the receipt, so nobody can know it before the receipt is
booked, and asking again gives the same answer. A key's weight is what it has proven, up to a cap:
a crowd of fresh keys weighs nothing beside one node with a record, and no record weighs all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Node


def choose(policy: Policy, seed: bytes, receipt: bytes, turn: int, free: Sequence[Node]) -> Node:
    """The auditor for the `turn`-th replay of the receipt (its digest), out of `free`.

    Among the most trusted there are: a young network has no experienced ones yet, but a fresh key,
    which costs nothing, decides only where all keys are fresh.
    """
    pool: list[Node] = []
    for least in (policy.experienced_audits, policy.probation_audits, 0):
        pool = [node for node in free if node.row.verified >= least]
        if pool:
            break
    pool.sort(key=lambda node: node.key)
    weights = [max(1, min(node.row.verified, policy.auditor_weight_max)) for node in pool]
    place = _value(seed, receipt, turn) % sum(weights)
    for node, weight in zip(pool, weights, strict=True):
        place -= weight
        if place < 0:
            return node
    raise AssertionError("the places are as many as the weights")


def _value(seed: bytes, receipt: bytes, turn: int) -> int:
    data = receipt + turn.to_bytes(4, "big")
    drawn = hashlib.blake2b(data, key=seed, person=b"assay auditor", digest_size=32).digest()
    return int.from_bytes(drawn, "big")
