"""Epochs: every account's statement, and the tree whose root goes on the chain.

A line is written when credit is earned, into the running epoch. Closing builds the account tree
over lifetime credit (L5: the root is of exactly the ledger's credit, asserted against it) and asks
for the root to be posted. Accounts keep their index for life, so a leaf's place cannot be moved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from assay_coordinator.core.events import Effect, PostEpoch, Save
from assay_coordinator.core.ledger import Ledger
from assay_coordinator.core.records import EpochRow, LeafRow, LineRow
from assay_protocol.credit_tree import CreditLeaf, CreditLine, account_tree, receipts_root
from assay_protocol.messages import EpochClosed

ROLE_COMPUTE = 0


class Epochs:
    """The running epoch and the last one closed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.running = 1
        self.opened_at = 0
        self.last: EpochRow | None = None
        self._unposted: dict[int, EpochRow] = {}
        self._lines: dict[bytes, list[LineRow]] = {}
        self._jobs = 0

    def restore(
        self, last: EpochRow | None, unposted: list[EpochRow], lines: list[LineRow], now: int
    ) -> None:
        """`lines` are those of the running epoch."""
        self._unposted = {row.epoch: row for row in unposted}
        self.last, self.running = last, last.epoch + 1 if last else 1
        self.opened_at = last.closed_at if last else now
        self._lines = {}
        for line in lines:
            assert line.epoch == self.running
            self._lines.setdefault(line.account, []).append(line)
        self._jobs = sum(line.kind == "job" for line in lines)

    def add_line(
        self, account: bytes, kind: str, ref: bytes, digest: bytes, amount: int
    ) -> list[Effect]:
        """Write a line of the running epoch; a line of nothing is not written."""
        if amount == 0:
            return []
        line = LineRow(self.running, account, kind, ref, digest, amount)
        self._lines.setdefault(account, []).append(line)
        self._jobs += kind == "job"
        return [Save(line)]

    def close(self, now: int) -> tuple[EpochClosed, list[Effect]]:
        """Close the running epoch and open the next. An epoch without any credit still closes."""
        credit = sorted(self._ledger.credit.values(), key=lambda row: row.position)
        assert [row.position for row in credit] == list(range(len(credit)))
        leaves = [self._leaf(row.account, row.cumulative) for row in credit]
        tree = account_tree(leaves)
        total = sum(row.cumulative for row in credit)
        assert tree.total == total, "L5: the tree's sum is not the ledger's credit"
        rows = [
            LeafRow(
                self.running,
                position,
                leaf.account,
                leaf.cumulative,
                leaf.epoch_credit,
                leaf.receipts_root,
            )
            for position, leaf in enumerate(leaves)
        ]
        data_hash = hashlib.sha256(b"".join(leaf.hash for leaf in leaves)).digest()
        closed = EpochRow(
            self.running, now, tree.root, total, self._jobs, len(leaves), data_hash, "queued"
        )
        self._unposted[closed.epoch] = closed
        self.last, self.running, self.opened_at = closed, self.running + 1, now
        self._lines, self._jobs = {}, 0
        answer = EpochClosed(
            epoch=closed.epoch, root=closed.root, total=total, accounts=len(leaves)
        )
        return answer, [Save(closed), *map(Save, rows), post(closed)]

    def posted(self, epoch: int) -> list[Effect]:
        """The chain holds it; told twice is told once."""
        row = self._unposted.pop(epoch, None)
        if row is None:
            return []
        row = replace(row, state="posted")
        if self.last is not None and self.last.epoch == epoch:
            self.last = row
        return [Save(row)]

    def _leaf(self, account: bytes, cumulative: int) -> CreditLeaf:
        root, total = receipts_root(statement(self._lines.get(account, [])))
        return CreditLeaf(account, ROLE_COMPUTE, cumulative, total, root)


def statement(rows: Iterable[LineRow]) -> list[CreditLine]:
    """An account's lines in the order its tree has them: by kind, then by id."""
    ordered = sorted(rows, key=lambda row: (row.kind, row.ref))
    return [CreditLine(row.kind, row.ref, row.digest, row.amount) for row in ordered]


def post(row: EpochRow) -> PostEpoch:
    """The request to put a closed epoch on the chain."""
    return PostEpoch(row.epoch, row.root, row.total, row.jobs, row.leaves, row.data_hash)
