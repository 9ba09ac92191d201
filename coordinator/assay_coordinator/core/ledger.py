"""Double entry in integer micro-credits: where every credit is, and how it came there.

A purse is (kind, owner). Money enters only from `mint`, whose balance is minus all that was ever
granted, so all purses always sum to zero. A job's money goes
    available[client] -> reserved[client] -> escrow[node] -> earned[node] (less the fee -> treasury)
or from escrow back to available[client]. `earned` is also counted for life: that is the credit
epochs anchor (L1: lifetime credit = what reached `earned`; L2: a ticket is booked once, jobs.py).
No purse but `mint` is ever negative, and a transfer is never zero or less.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from assay_coordinator.core.events import Effect, Save
from assay_coordinator.core.records import BalanceRow, CreditRow, PostingRow

NOBODY: Final = bytes(32)
KINDS: Final = ("mint", "available", "reserved", "escrow", "earned", "treasury")


class Purse(NamedTuple):
    kind: str
    owner: bytes = NOBODY


MINT: Final = Purse("mint")
TREASURY: Final = Purse("treasury")


class Ledger:
    """Balances, postings and lifetime credit; every change returns the rows that keep it."""

    def __init__(self) -> None:
        self.balances: dict[Purse, int] = {}
        self.credit: dict[bytes, CreditRow] = {}
        self.next_seq = 1

    def restore(self, balances: list[BalanceRow], credit: list[CreditRow], next_seq: int) -> None:
        self.balances = {Purse(row.purse, row.owner): row.amount for row in balances}
        self.credit = {row.account: row for row in credit}
        self.next_seq = next_seq

    def balance(self, kind: str, owner: bytes = NOBODY) -> int:
        return self.balances.get(Purse(kind, owner), 0)

    def transfer(
        self, now: int, source: Purse, target: Purse, amount: int, reason: str, ref: bytes
    ) -> list[Effect]:
        """Move `amount`; a transfer of nothing is nothing."""
        if amount == 0:
            return []
        assert amount > 0, reason
        assert source.kind in KINDS, source
        assert target.kind in KINDS, target
        left = self.balances.get(source, 0) - amount
        assert left >= 0 or source == MINT, f"{reason}: {source.kind} would be {left}"
        self.balances[source] = left
        self.balances[target] = self.balances.get(target, 0) + amount
        posting = PostingRow(
            self.next_seq,
            now,
            source.kind,
            source.owner,
            target.kind,
            target.owner,
            amount,
            reason,
            ref,
        )
        self.next_seq += 1
        effects: list[Effect] = [
            Save(posting),
            Save(BalanceRow(source.kind, source.owner, left)),
            Save(BalanceRow(target.kind, target.owner, self.balances[target])),
        ]
        if target.kind == "earned":
            effects.append(self._count_credit(target.owner, amount))
        return effects

    def check(self) -> None:
        """L1: nothing appeared or vanished."""
        assert sum(self.balances.values()) == 0, "L1: purses do not sum to zero"
        assert all(amount >= 0 or purse == MINT for purse, amount in self.balances.items())
        for account, row in self.credit.items():
            assert self.balance("earned", account) <= row.cumulative, "L1: more than was credited"

    def _count_credit(self, account: bytes, amount: int) -> Save:
        old = self.credit.get(account)
        position = old.position if old else len(self.credit)  # permanent: a leaf cannot move
        row = CreditRow(account, position, (old.cumulative if old else 0) + amount)
        self.credit[account] = row
        return Save(row)
