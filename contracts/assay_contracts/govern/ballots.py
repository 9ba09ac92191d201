"""What speaks for a voter: its leaves in two epochs, with proofs, out of two published leaf files.

Weight is the credit earned between the two epochs: cumulative at the newer less cumulative at the
older. Leaves keep their place for ever, so one index serves both; before an account's first leaf
its cumulative was nothing. The files are checked against the chain's `dataHash` by the caller's
reader, and the contract checks every proof: a wrong file can only make a vote fail. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from assay_protocol.credit_tree import CreditLeaf, ProofItem
from assay_protocol.leaf_file import LeafFile
from assay_protocol.splits import TREASURY


@dataclass(frozen=True, slots=True)
class Proven:
    """A leaf at its place (`index`), and the siblings from it to the root."""

    leaf: CreditLeaf
    index: int
    proof: tuple[ProofItem, ...]


@dataclass(frozen=True, slots=True)
class Ballot:
    """One leaf's vote: where it stands now, and where it stood at the older epoch, if it did."""

    now: Proven
    before: Proven | None

    @property
    def weight(self) -> int:
        """Micro-credits earned in between."""
        earlier = 0 if self.before is None else self.before.leaf.cumulative
        return self.now.leaf.cumulative - earlier


def ballots(account: bytes, newer: LeafFile, older: LeafFile | None) -> tuple[Ballot, ...]:
    """The ballots of `account`, one for each role it earned in; of no weight are left out, and the
    treasury's leaf, which has no vote. `older` None: there was no epoch then."""
    places = [i for i, record in enumerate(newer.records()) if record[:32] == account]
    places = [i for i in places if newer.leaf(i).role != TREASURY]
    if not places:
        return ()
    tree = newer.tree()
    tree_before = None if older is None else older.tree()
    found = []
    for index in places:
        now = Proven(newer.leaf(index), index, tree.proof(index))
        before = None
        if older is not None and tree_before is not None and index < older.count:
            before = Proven(older.leaf(index), index, tree_before.proof(index))
        found.append(Ballot(now, before))
    return tuple(one for one in found if one.weight > 0)
