"""How a job's price is divided among those who made it possible, exactly and again by anybody.

Of a released price the treasury takes `fee_bps`; of the rest each share of the model's split gets
`floor(rest * bps / 10,000)`, the node what its `COMPUTE` share (10,000 less the split's) floors to,
and what rounding leaves goes to the treasury with the fee. Nothing appears, nothing is lost. The
document of these rules is public, and its sha256 stands in the header of every epoch it priced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple

from assay_protocol.codec import encode
from assay_protocol.credit_tree import (
    ADAPTER,
    AUDITOR,
    COMPUTE,
    DATA,
    PUBLISHER,
    ROLES,
    TREASURY,
)
from assay_protocol.errors import ProtocolError
from assay_protocol.messages import Pricing, Share

__all__ = [
    "ADAPTER",
    "AUDITOR",
    "COMPUTE",
    "DATA",
    "PUBLISHER",
    "ROLES",
    "TREASURY",
    "Division",
    "Part",
    "Splits",
    "no_splits",
]
SPLIT_ROLES: Final = (PUBLISHER, ADAPTER, DATA)
SPLIT_BPS_MAX: Final = 4_000  # a node keeps at least six tenths of what the treasury leaves
WHOLE_BPS: Final = 10_000


class Part(NamedTuple):
    """What one account earns of a price, in one role."""

    account: bytes
    role: int
    amount: int


@dataclass(frozen=True, slots=True)
class Division:
    """A price divided: what the treasury takes, what the node earns, what others do."""

    treasury: int
    node: int
    others: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Splits:
    """The rules in force in one epoch. Raises ProtocolError("malformed") if they contradict
    themselves: unknown roles, a split above `SPLIT_BPS_MAX`, a model or a share listed twice."""

    pricing: Pricing
    _by_model: Mapping[bytes, tuple[Share, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_model = {one.model: one.shares for one in self.pricing.splits}
        if len(by_model) != len(self.pricing.splits):
            raise ProtocolError("malformed", "a model has two splits")
        for shares in by_model.values():
            _check_shares(shares)
        if self.pricing.fee_bps > WHOLE_BPS:
            raise ProtocolError("malformed", "the fee is more than all")
        object.__setattr__(self, "_by_model", by_model)

    @property
    def digest(self) -> bytes:
        """What an epoch's header says of the rules that priced it."""
        return sha256(encode(self.pricing)).digest()

    def divide(self, model: bytes, price: int) -> Division:
        """`price` in micro-credits; the parts sum to it exactly."""
        fee = price * self.pricing.fee_bps // WHOLE_BPS
        rest = price - fee
        shares = self._by_model.get(model, ())
        others = tuple(
            Part(share.account, share.role, rest * share.bps // WHOLE_BPS) for share in shares
        )
        node = rest * (WHOLE_BPS - sum(share.bps for share in shares)) // WHOLE_BPS
        treasury = price - node - sum(part.amount for part in others)
        assert treasury >= fee
        return Division(treasury, node, others)


def no_splits(fee_bps: int) -> Splits:
    """The rules of a network whose models share with nobody."""
    return Splits(Pricing(fee_bps=fee_bps, splits=()))


def _check_shares(shares: tuple[Share, ...]) -> None:
    if any(share.role not in SPLIT_ROLES for share in shares):
        raise ProtocolError("malformed", "a share has no role that shares")
    if sum(share.bps for share in shares) > SPLIT_BPS_MAX:
        raise ProtocolError("malformed", f"shares of more than {SPLIT_BPS_MAX} bps")
    if len({(share.account, share.role) for share in shares}) != len(shares):
        raise ProtocolError("malformed", "an account has two shares in one role")
