"""Double entry in integer micro-credits: where every credit is, and how it came there.

A purse is (kind, owner). Money enters only from `mint`, whose balance is minus all that was ever
granted, so all purses always sum to zero. A job's money goes
    available[client] -> reserved[client] -> escrow[node] -> earned[node] (less the fee -> treasury)
or from escrow back to available[client]. What reaches `earned` is also counted for life, by the
role it was earned in: that is the credit epochs anchor (L1: lifetime credit of an account's roles =
what reached its `earned`; L2: a ticket is booked once, jobs.py). Money has no role once earned, so
an account has one purse however many roles it has.
No purse but `mint` is ever negative, and a transfer is never zero or less.
"""

from __future__ import annotations

from collections import Counter
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
        self.credit: dict[tuple[bytes, int], CreditRow] = {}  # by position
        self.next_seq = 1

    def restore(self, balances: list[BalanceRow], credit: list[CreditRow], next_seq: int) -> None:
        self.balances = {Purse(row.purse, row.owner): row.amount for row in balances}
        ordered = sorted(credit, key=lambda row: row.position)
        assert [row.position for row in ordered] == list(range(len(ordered)))
        self.credit = {(row.account, row.role): row for row in ordered}
        self.next_seq = next_seq

    def balance(self, kind: str, owner: bytes = NOBODY) -> int:
        return self.balances.get(Purse(kind, owner), 0)

    def transfer(
        self, now: int, source: Purse, target: Purse, amount: int, reason: str, ref: bytes
    ) -> list[Effect]:
        """Move `amount`; a transfer of nothing is nothing. Who earns, does so by `earn`."""
        assert target.kind != "earned", reason
        return self._move(now, source, target, amount, reason, ref)

    def earn(
        self,
        now: int,
        source: Purse,
        account: bytes,
        role: int,
        amount: int,
        reason: str,
        ref: bytes,
    ) -> list[Effect]:
        """Move `amount` into the account's `earned`, and count it as credit in `role`."""
        effects = self._move(now, source, Purse("earned", account), amount, reason, ref)
        return [*effects, self._count_credit(account, role, amount)] if effects else []

    def _move(
        self, now: int, source: Purse, target: Purse, amount: int, reason: str, ref: bytes
    ) -> list[Effect]:
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
        return [
            Save(posting),
            Save(BalanceRow(source.kind, source.owner, left)),
            Save(BalanceRow(target.kind, target.owner, self.balances[target])),
        ]

    def check(self) -> None:
        """L1: nothing appeared or vanished."""
        assert sum(self.balances.values()) == 0, "L1: purses do not sum to zero"
        assert all(amount >= 0 or purse == MINT for purse, amount in self.balances.items())
        credited: Counter[bytes] = Counter()
        for row in self.credit.values():
            credited[row.account] += row.cumulative
        for account, amount in credited.items():
            assert self.balance("earned", account) <= amount, "L1: more than was credited"

    def _count_credit(self, account: bytes, role: int, amount: int) -> Save:
        old = self.credit.get((account, role))
        position = old.position if old else len(self.credit)  # permanent: a leaf cannot move
        row = CreditRow(account, role, position, (old.cumulative if old else 0) + amount)
        self.credit[account, role] = row
        return Save(row)
