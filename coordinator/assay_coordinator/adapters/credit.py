"""Credit bundles from the tables: what one account needs to check its credit alone.

An epoch's whole tree is built once, when the first account asks, and kept for those that follow.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from assay_contracts.credit.bundle import CreditBundle, PreviousLeaf, Statement
from assay_coordinator.adapters.leaf_files import leaf_file
from assay_coordinator.adapters.store import Store
from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.records import EpochRow, JobRow, LineRow, PricingRow
from assay_protocol.credit_tree import CreditLine, SumTree
from assay_protocol.errors import AssayError
from assay_protocol.leaf_file import LeafFile

TREES_KEPT_MAX: Final = 5  # the newest posted and final epochs, those before them, and one more
PRICED_BEFORE: Final = bytes(31) + b"\x01"  # by the rules there were before they had a digest
TICKETS_PER_QUERY: Final = 500  # databases bound the parameters of a query


class EpochTree:
    """One epoch's leaves and all inner nodes, and where each account stands."""

    def __init__(self, leaves: LeafFile) -> None:
        self.leaves = leaves
        self.tree: SumTree = leaves.tree()
        self._places: dict[bytes, tuple[int, ...]] = {}
        for index, record in enumerate(leaves.records()):
            account = record[:32]
            self._places[account] = (*self._places.get(account, ()), index)

    def places(self, account: bytes) -> tuple[int, ...]:
        """The indices of an account's leaves, one for each of its roles."""
        return self._places.get(account, ())


class Bundles:
    """Makes bundles; safe to call from several threads."""

    def __init__(
        self,
        store: Store,
        chain_id: int,
        ledger: bytes,
        is_final: Callable[[int], bool] = lambda epoch: False,
    ) -> None:
        """`is_final` says of an epoch whether it can be claimed from; final is all before it."""
        self._store, self._chain_id, self._ledger = store, chain_id, ledger
        self._is_final = is_final
        self._trees: OrderedDict[int, EpochTree] = OrderedDict()
        self._building = threading.Lock()

    def bundle(self, account: bytes) -> bytes:
        """The encoded bundle of `account` for the newest epoch that is on the chain.

        Raises AssayError("proof_invalid") if the account has no credit in it.
        """
        return self._bundle(account, self._posted()[-1])

    def claimable(self, account: bytes) -> bytes:
        """The same for the newest epoch that is final. Raises also AssayError("epoch_open") if no
        epoch is."""
        posted = self._posted()
        finals = bisect_left(posted, True, key=lambda row: not self._is_final(row.epoch))
        if finals == 0:
            raise AssayError("epoch_open", "no epoch is final yet")
        return self._bundle(account, posted[finals - 1])

    def _bundle(self, account: bytes, row: EpochRow) -> bytes:
        epoch = row.epoch
        tree = self._tree(epoch)
        places = tree.places(account)
        if not places:
            raise AssayError("proof_invalid", f"the account has no credit in epoch {epoch}")
        before = self._tree(epoch - 1) if epoch > 1 else None
        statements = tuple(self._statement(epoch, tree, before, index) for index in places)
        lines = [line for one in statements for line in one.lines if line.kind == "job"]
        return CreditBundle(
            chain_id=self._chain_id,
            ledger=self._ledger,
            epoch=row.epoch,
            pricing=self._pricing(row.pricing),
            statements=statements,
            receipts=self._receipts(lines),
        ).encode()

    def _statement(
        self, epoch: int, tree: EpochTree, before: EpochTree | None, index: int
    ) -> Statement:
        leaf = tree.leaves.leaf(index)
        previous = None
        if before is not None and index < before.leaves.count:
            proof = before.tree.proof(index)
            previous = PreviousLeaf(before.leaves.leaf(index), index, proof)
        table = TABLES[LineRow]
        mine = (
            table.c.epoch == epoch,
            table.c.account == leaf.account,
            table.c.role == leaf.role,
        )
        rows: list[LineRow] = self._store.rows(LineRow, *mine)
        return Statement(
            leaf=leaf,
            index=index,
            proof=tree.tree.proof(index),
            lines=tuple(CreditLine(row.kind, row.ref, row.digest, row.amount) for row in rows),
            previous=previous,
        )

    def _tree(self, epoch: int) -> EpochTree:
        with self._building:
            tree = self._trees.get(epoch)
            if tree is None:
                tree = self._trees[epoch] = EpochTree(leaf_file(self._store, epoch))
                while len(self._trees) > TREES_KEPT_MAX:
                    self._trees.popitem(last=False)
            self._trees.move_to_end(epoch)
            return tree

    def _pricing(self, digest: bytes) -> bytes:
        return b"" if digest == PRICED_BEFORE else pricing_document(self._store, digest)

    def _posted(self) -> list[EpochRow]:
        epochs = TABLES[EpochRow]
        posted: list[EpochRow] = self._store.rows(EpochRow, epochs.c.state == "posted")
        if not posted:
            raise AssayError("proof_invalid", "no epoch is on the chain yet")
        return posted

    def _receipts(self, lines: list[CreditLine]) -> tuple[bytes, ...]:
        tickets = list(dict.fromkeys(line.id for line in lines))
        found: dict[bytes, bytes] = {}
        for at in range(0, len(tickets), TICKETS_PER_QUERY):
            column: Any = TABLES[JobRow].c.ticket
            wanted = column.in_(tickets[at : at + TICKETS_PER_QUERY])
            for row in self._store.rows(JobRow, wanted):
                found[row.ticket] = row.receipt_blob
        return tuple(found[ticket] for ticket in tickets if ticket in found)


def pricing_document(store: Store, digest: bytes) -> bytes:
    """The part "pricing": the rules of that digest, if they ever priced an epoch here."""
    rows: list[PricingRow] = store.rows(PricingRow, TABLES[PricingRow].c.digest == digest)
    if not rows:
        raise AssayError("proof_invalid", "no epoch was priced by such rules")
    return rows[0].data
