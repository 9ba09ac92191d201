"""What one epoch has booked so far: for each account and role, the tree of its lines as it grows.

A line costs O(1) hashes on average and is not kept: what remains of n lines is at most log2(n)
nodes. The lines themselves are in the table, from which a restart makes the same statements again.
"""

from __future__ import annotations

from collections.abc import Iterable

from assay_coordinator.core.records import LineRow
from assay_protocol.credit_tree import PADDING, Frontier, line_hash
from assay_protocol.splits import COMPUTE


class Statements:
    """The lines of one epoch by (account, role), in the order booked."""

    def __init__(self) -> None:
        self._trees: dict[tuple[bytes, int], Frontier] = {}
        self.jobs = 0

    @classmethod
    def of(cls, rows: Iterable[LineRow]) -> Statements:
        """`rows` of one epoch, each account's and role's in order of position."""
        made = cls()
        for row in rows:
            place = made.add(row.account, row.role, row.kind, row.ref, row.digest, row.amount)
            assert place == row.position, "a line is missing"
        return made

    def add(
        self, account: bytes, role: int, kind: str, ref: bytes, digest: bytes, amount: int
    ) -> int:
        """Take a line; its position among the account's lines in that role."""
        tree = self._trees.get((account, role))
        if tree is None:
            tree = self._trees[account, role] = Frontier()
        tree.add(line_hash(kind, ref, digest, amount), amount)
        self.jobs += kind == "job" and role == COMPUTE
        return tree.size - 1

    def root(self, account: bytes, role: int) -> tuple[bytes, int]:
        """The leaf's `receipts_root` and `epoch_credit`."""
        tree = self._trees.get((account, role))
        return (PADDING, 0) if tree is None else (tree.root, tree.total)

    def summary(self) -> dict[tuple[bytes, int], tuple[bytes, int]]:
        """All roots and sums."""
        return {key: (tree.root, tree.total) for key, tree in self._trees.items()}
