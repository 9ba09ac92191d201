"""What a transaction does, what it offers for that, and how far offers may grow.

Pure, as the outbox core needs it; wallet.py signs.
"""

from __future__ import annotations

from dataclasses import dataclass

from assay_contracts.adapters.backend import Fees


@dataclass(frozen=True, slots=True)
class Call:
    """What a transaction does: `to` None creates a contract from `data`; no value is sent."""

    to: bytes | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Offer:
    """What a transaction may cost: units of gas, and wei per unit, of which `tip` to the miner."""

    gas: int
    fee: int
    tip: int


@dataclass(frozen=True, slots=True)
class FeeBounds:
    """The most a transaction may offer, in wei per gas, and how offers grow."""

    fee_max: int = 500 * 10**9

    def first(self, fees: Fees) -> tuple[int, int] | None:
        """(fee, tip) that outlives two full blocks; None if even now costs more than allowed."""
        if fees.base + fees.tip > self.fee_max:
            return None
        return min(self.fee_max, 2 * fees.base + fees.tip), fees.tip

    def raised(self, fee: int, tip: int, fees: Fees) -> tuple[int, int] | None:
        """An offer that replaces (fee, tip): both grow by an eighth at least, which is what nodes
        ask for, or to what the chain wants now. None if that is above the bound."""
        higher, higher_tip = fee + fee // 8 + 1, max(fees.tip, tip + tip // 8 + 1)
        if higher > self.fee_max:
            return None
        wanted = min(self.fee_max, max(higher, 2 * fees.base + higher_tip))
        return wanted, min(higher_tip, wanted)
