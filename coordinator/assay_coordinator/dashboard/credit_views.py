"""Credit: epochs and their roots, the leaves of one, and an account's bundle."""

from __future__ import annotations

from typing import Any, Final

from assay_coordinator.dashboard.asked import Asked, cursor
from assay_coordinator.dashboard.postings import (
    FoundEpoch,
    earned_by_epoch,
    leaves_from,
    newest_epochs,
    one_epoch,
)
from assay_coordinator.dashboard.shapes import Shape, credit, epoch_shape, page
from assay_coordinator.dashboard.views import Views
from assay_protocol.credit_tree import CreditLeaf, role_name
from assay_protocol.errors import AssayError
from assay_protocol.splits import ROLES

EPOCHS_SHOWN: Final = 30  # of an account's history
BUNDLE_BYTES_MAX: Final = 8 << 20  # of one that a page is given


async def epochs(views: Views, asked: Asked) -> Shape:
    """Closed epochs, newest first."""
    after, limit = asked.after(0), asked.limit()
    found = await views.subject.read(newest_epochs, after, limit + 1)
    following = cursor(found[limit - 1].row.epoch) if len(found) > limit else None
    running = views.subject.core().epochs
    return {
        **page([_epoch(one) for one in found[:limit]], following),
        "running": {
            "epoch": running.running,
            "opened_at": running.opened_at,
            "closes_at": running.opened_at + views.subject.core().policy.epoch_us,
            "jobs": running.statements.jobs,
        },
        "chain": {
            "id": views.subject.chain.chain_id,
            "ledger": f"0x{views.subject.chain.ledger.hex()}",
            "local": views.subject.chain.local,
        },
    }


async def epoch(views: Views, asked: Asked) -> Shape:
    """One closed epoch."""
    return _epoch(await views.subject.read(one_epoch, asked.number("epoch")))


async def leaves(views: Views, asked: Asked) -> Shape:
    """Leaves of an epoch's tree in the order of their index."""
    number, after, limit = asked.number("epoch"), asked.after(0), asked.limit()
    first = 0 if after is None else int(after[0]) + 1
    if first >> 32:
        raise AssayError("query_invalid", "after is larger than any leaf's index")
    found = await views.subject.read(leaves_from, number, first, limit + 1)
    following = cursor(found[limit - 1][0]) if len(found) > limit else None
    return page([{"index": index, **_leaf(leaf)} for index, leaf in found[:limit]], following)


async def account(views: Views, asked: Asked) -> Shape:
    """What an account earned, by role and by epoch; nothing of one that earns nothing. What it
    holds to spend is its own business."""
    key, core = asked.name("account", 32), views.subject.core()
    running = core.epochs.running
    numbers = list(range(max(1, running - EPOCHS_SHOWN + 1), running + 1))
    earned = await views.subject.read(earned_by_epoch, key, numbers)
    rows = [core.ledger.credit.get((key, role)) for role in ROLES.values()]
    return {
        "account": key.hex(),
        "earned": credit(core.ledger.balance("earned", key)),
        "escrow": credit(core.ledger.balance("escrow", key)),
        "roles": [
            {
                "role": role_name(row.role),
                "index": row.position,
                "lifetime": credit(row.cumulative),
            }
            for row in rows
            if row is not None
        ],
        "epochs": [
            {
                "epoch": number,
                "running": number == running,
                "amount": credit(sum(earned.get(number, {}).values())),
            }
            for number in numbers
        ],
    }


async def bundle(views: Views, asked: Asked) -> bytes:
    """All that checks the account's credit of the newest epoch on the chain, but the root."""
    raw = await views.subject.bundle(asked.name("account", 32))
    if len(raw) > BUNDLE_BYTES_MAX:
        raise AssayError("oversized", "it has very many receipts: `assay credit prove` fetches it")
    return raw


def _epoch(found: FoundEpoch) -> Shape:
    return epoch_shape(found.row, found.posted, found.voided_at)


def _leaf(leaf: CreditLeaf) -> dict[str, Any]:
    return {
        "account": leaf.account.hex(),
        "role": role_name(leaf.role),
        "role_number": leaf.role,
        "lifetime": credit(leaf.cumulative),
        "epoch_credit": credit(leaf.epoch_credit),
        "lines_root": leaf.receipts_root.hex(),
    }
