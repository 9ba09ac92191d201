"""What the tables say of epochs: their roots, the transactions that hold them, leaves and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, select

from assay_contracts.adapters.outbox_rows import ITEMS
from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.records import EpochRow, LeavesRow, LineRow, VoidRow
from assay_coordinator.dashboard.asked import Cursor
from assay_protocol.credit_tree import LEAF_BYTES, CreditLeaf
from assay_protocol.errors import AssayError
from assay_protocol.leaf_file import HEAD_BYTES

VOIDS_MAX: Final = 100
_EPOCHS, _VOIDS, _LINES = TABLES[EpochRow].c, TABLES[VoidRow].c, TABLES[LineRow].c
_LEAVES = TABLES[LeavesRow].c


@dataclass(frozen=True, slots=True)
class FoundEpoch:
    """An epoch, the transaction that posts it, and when the contract voided it, if it did."""

    row: EpochRow
    posted: Mapping[str, Any]
    voided_at: int | None


def newest_epochs(connection: Connection, after: Cursor | None, most: int) -> list[FoundEpoch]:
    """Closed epochs, newest first, those before the cursor's."""
    wanted = select(TABLES[EpochRow]).order_by(_EPOCHS.epoch.desc()).limit(most)
    if after is not None:
        wanted = wanted.where(_EPOCHS.epoch < after[0])
    return _with_posts(connection, [EpochRow(*row) for row in connection.execute(wanted)])


def one_epoch(connection: Connection, epoch: int) -> FoundEpoch:
    """Raises AssayError("epoch_unknown") if it has not closed."""
    wanted = select(TABLES[EpochRow]).where(_EPOCHS.epoch == epoch)
    rows = [EpochRow(*row) for row in connection.execute(wanted)]
    if not rows:
        raise AssayError("epoch_unknown", f"epoch {epoch} has not closed")
    return _with_posts(connection, rows)[0]


def leaves_from(
    connection: Connection, epoch: int, first: int, most: int
) -> list[tuple[int, CreditLeaf]]:
    """Leaves of an epoch's tree with their indices. Only these are read of the leaf file, which
    has one for every account there is. Raises AssayError("epoch_unknown")."""
    count = one_epoch(connection, epoch).row.leaves
    if first >= count:
        return []
    begin = HEAD_BYTES + LEAF_BYTES * first + 1  # SQL counts from 1
    part = func.substr(_LEAVES.data, begin, LEAF_BYTES * most)
    data = connection.execute(select(part).where(_LEAVES.epoch == epoch)).scalar_one()
    records = [data[at : at + LEAF_BYTES] for at in range(0, len(data), LEAF_BYTES)]
    numbered = enumerate(records, first)
    return [(index, CreditLeaf.decode(record)) for index, record in numbered if index < count]


def earned_by_epoch(
    connection: Connection, account: bytes, epochs: Sequence[int]
) -> dict[int, dict[int, int]]:
    """Micro-credits that the account's lines of these epochs add up to, by epoch and role."""
    wanted = (
        select(_LINES.epoch, _LINES.role, func.sum(_LINES.amount))
        .where(_LINES.epoch.in_(epochs), _LINES.account == account)
        .group_by(_LINES.epoch, _LINES.role)
    )
    found: dict[int, dict[int, int]] = {}
    for epoch, role, amount in connection.execute(wanted):
        found.setdefault(epoch, {})[role] = int(amount)
    return found


def _with_posts(connection: Connection, rows: list[EpochRow]) -> list[FoundEpoch]:
    names = {f"epoch-{row.epoch}": row.epoch for row in rows}
    columns = (ITEMS.c.key, ITEMS.c.state, ITEMS.c.block, ITEMS.c.transaction_hash)
    items = connection.execute(select(*columns).where(ITEMS.c.key.in_(names)))
    posts = {names[key]: _post(state, block, tx) for key, state, block, tx in items}
    voids = select(_VOIDS.epoch, _VOIDS.at).where(_VOIDS.standing == 1)
    standing = [(epoch, at) for epoch, at in connection.execute(voids.limit(VOIDS_MAX))]
    return [
        FoundEpoch(row, posts.get(row.epoch, _post("waiting", None, None)), _voided(row, standing))
        for row in rows
    ]


def _post(state: str, block: int | None, transaction: bytes | None) -> Mapping[str, Any]:
    hashed = None if transaction is None else transaction.hex()
    return {"post_state": state, "block": block, "transaction": hashed}


def _voided(row: EpochRow, voids: Sequence[tuple[int, int]]) -> int | None:
    """An epoch that is voided takes with it all that were posted on top of it by then."""
    return next((at for epoch, at in voids if epoch <= row.epoch and row.closed_at <= at), None)
