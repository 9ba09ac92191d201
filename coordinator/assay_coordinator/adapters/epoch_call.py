"""An epoch as the ledger contract is told of it."""

from __future__ import annotations

from assay_contracts.adapters.offers import Call
from assay_contracts.credit.ledger_abi import Header, post_call
from assay_coordinator.core.events import PostEpoch


def epoch_call(ledger: bytes, effect: PostEpoch) -> Call:
    """What posts it on the contract at the address `ledger`."""
    header = Header(
        root=effect.root,
        total_cum=effect.total,
        jobs=effect.jobs,
        leaves=effect.leaves,
        data_hash=effect.data_hash,
        policy=effect.pricing,
    )
    return Call(ledger, post_call(effect.epoch, header))
