"""Credit bundles from the tables: what one account needs to check its credit alone."""

from __future__ import annotations

from typing import Any

from assay_contracts.bundle import CreditBundle, PreviousLeaf
from assay_coordinator.adapters.store import Store
from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.epochs import ROLE_COMPUTE, statement
from assay_coordinator.core.records import EpochRow, JobRow, LeafRow, LineRow
from assay_protocol.credit_tree import CreditLeaf, ProofItem, account_tree
from assay_protocol.errors import AssayError


def credit_bundle(store: Store, chain_id: int, ledger: bytes, account: bytes) -> bytes:
    """The encoded bundle of `account` for the newest epoch that is on the chain.

    Raises AssayError("proof_invalid") if the account has no credit in it.
    """
    epochs = TABLES[EpochRow]
    posted: list[EpochRow] = store.rows(EpochRow, epochs.c.state == "posted")
    if not posted:
        raise AssayError("proof_invalid", "no epoch is on the chain yet")
    epoch = posted[-1].epoch
    leaf, index, proof = _proven(store, epoch, account)
    previous = None
    if leaf.cumulative != leaf.epoch_credit:
        previous = PreviousLeaf(*_proven(store, epoch - 1, account))
    table = TABLES[LineRow]
    rows: list[LineRow] = store.rows(LineRow, table.c.epoch == epoch, table.c.account == account)
    lines = statement(rows)
    return CreditBundle(
        chain_id=chain_id,
        ledger=ledger,
        epoch=epoch,
        leaf=leaf,
        index=index,
        proof=proof,
        lines=tuple(lines),
        previous=previous,
        receipts=_receipts(store, [line.id for line in lines if line.kind == "job"]),
    ).encode()


def _proven(
    store: Store, epoch: int, account: bytes
) -> tuple[CreditLeaf, int, tuple[ProofItem, ...]]:
    rows: list[LeafRow] = store.rows(LeafRow, TABLES[LeafRow].c.epoch == epoch)
    places = [row.position for row in rows if row.account == account]
    if not places:
        raise AssayError("proof_invalid", f"the account has no credit in epoch {epoch}")
    tree = account_tree([_leaf(row) for row in rows])
    return _leaf(rows[places[0]]), places[0], tree.proof(places[0])


def _leaf(row: LeafRow) -> CreditLeaf:
    return CreditLeaf(
        row.account, ROLE_COMPUTE, row.cumulative, row.epoch_credit, row.receipts_root
    )


def _receipts(store: Store, tickets: list[bytes]) -> tuple[bytes, ...]:
    found: dict[bytes, bytes] = {}
    for at in range(0, len(tickets), 500):  # databases bound the parameters of a query
        column: Any = TABLES[JobRow].c.ticket
        for row in store.rows(JobRow, column.in_(tickets[at : at + 500])):
            found[row.ticket] = row.receipt_blob
    return tuple(found[ticket] for ticket in tickets)
