"""The root of all credit by production's tree, for networks that are small enough."""

from __future__ import annotations

from assay_protocol.credit_tree import PADDING, CreditLeaf, Frontier, leaf_hash
from assay_protocol.splits import AUDITOR, COMPUTE
from assay_simnet.epochs.purses import Purses
from assay_simnet.invariants import Violated


def credit_root(purses: Purses, epoch: int) -> str:
    """L5: the tree's sum is the credit there is. A leaf for each node and role, by place."""
    tree = Frontier()
    for role, credit in ((COMPUTE, purses.computed), (AUDITOR, purses.audited)):
        for node, cumulative in enumerate(credit.tolist()):
            account = node.to_bytes(32, "big")
            leaf = CreditLeaf(account, role, cumulative, 0, PADDING)
            tree.add(leaf_hash(leaf.encode()), cumulative)
    total = sum(purses.earned.tolist())
    if tree.total != total:
        raise Violated("L5", f"the tree of epoch {epoch} sums to {tree.total}, credit is {total}")
    return tree.root.hex()
