"""All money of the network in integer micro-credits, node by node, and the check that it adds up.

    mint -> clients -> escrow[node] -> earned[node] + publisher + treasury     a released job
                       escrow[node] -> clients                                a refunded one
            treasury -> earned[node]                                          an audit's pay
    mint -> granted[node]        a subsidy, as an operator's Grant: money that is no credit
    mint -> bonds -> mint        bonds come and go        bonds -> burned     a slashed one

What a price is divided into is production's `Splits.divide`; here it is only multiplied by how many
jobs were released. Jobs of one epoch have one price, and what an epoch leaves in escrow is released
or refunded in the next. `check` (L1) adds up for itself: purses, credit by role, and value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from assay_protocol.splits import Splits
from assay_simnet.epochs.asks import MODEL
from assay_simnet.epochs.chances import Reals, Wholes
from assay_simnet.invariants import Violated

PURSE_MAX: Final = 1 << 62  # of one purse, and of what is moved at once
_BELOW_ONE: Final = 1 - 1e-12  # so that rounding of shares never hands out more than there is


@dataclass(frozen=True)
class Booked:
    """An epoch's jobs by node: how many were charged, refunded (of those carried in from the epoch
    before, and of its own), and are left in escrow at its end."""

    charged: Wholes
    refunded_before: Wholes
    refunded: Wholes
    held: Wholes


class Purses:
    """Every purse. Arrays have a place for each node."""

    def __init__(self, nodes: int) -> None:
        self.mint = self.clients = self.treasury = self.publisher = 0
        self.bonds = self.burned = 0
        self.escrow, self.earned, self.granted = np.zeros((3, nodes), np.int64)
        self.computed, self.audited = np.zeros((2, nodes), np.int64)  # credit, by role
        self.held = np.zeros(nodes, np.int64)  # jobs in escrow, at `price` each
        self.price = 0
        self._rules: Splits | None = None  # they were charged under
        self._charged = self._refunded = self._audits = 0  # value, for the check

    def book(self, price: int, rules: Splits, jobs: Booked) -> Wholes:
        """Charge, refund and release an epoch's jobs; what each node earned by computing."""
        assert 0 <= price * int(jobs.charged.max(initial=0)) < PURSE_MAX
        before, now = (self._rules or rules).divide(MODEL, self.price), rules.divide(MODEL, price)
        out_before = self.held - jobs.refunded_before
        out = jobs.charged - jobs.refunded - jobs.held
        count, count_before = exact_sum(out), exact_sum(out_before)
        value = price * exact_sum(jobs.charged)
        back = self.price * exact_sum(jobs.refunded_before) + price * exact_sum(jobs.refunded)
        self._grant_clients(value)
        self.clients += back - value
        self.escrow += price * jobs.charged
        self.escrow -= self.price * (jobs.refunded_before + out_before)
        self.escrow -= price * (jobs.refunded + out)
        pay = before.node * out_before + now.node * out
        self.earned += pay
        self.computed += pay
        self.treasury += before.treasury * count_before + now.treasury * count
        for parts, many in ((before.others, count_before), (now.others, count)):
            self.publisher += sum(part.amount for part in parts) * many
        self.held, self.price, self._rules = jobs.held, price, rules
        self._charged += value
        self._refunded += back
        return pay

    def pay_auditors(self, wanted: int, weights: Reals) -> Wholes:
        """Out of the treasury, as far as it goes, by weight; what each auditor got."""
        pay = _shared(min(wanted, self.treasury), weights)
        total = exact_sum(pay)
        self.treasury -= total
        self.earned += pay
        self.audited += pay
        self._audits += total
        return pay

    def subsidise(self, amount: int, weights: Reals) -> Wholes:
        """Granted from the mint by weight; what each node got."""
        got = _shared(amount, weights)
        self.mint -= exact_sum(got)
        self.granted += got
        return got

    def bond(self, amount: int) -> None:
        """Owners put down so much together; what they take back is negative."""
        self.mint -= amount
        self.bonds += amount

    def burn(self, amount: int) -> None:
        """So much of the bonds is slashed."""
        self.bonds -= amount
        self.burned += amount

    @property
    def paid_by_clients(self) -> int:
        """Charged in all, less what was refunded."""
        return self._charged - self._refunded

    def check(self) -> None:
        """L1. Raises Violated, with the number of a node where one is to blame."""
        scalars = (self.clients, self.treasury, self.publisher, self.bonds, self.burned)
        if min(scalars) < 0:
            raise Violated("L1", f"a purse is negative: {scalars}")
        for name in ("escrow", "earned", "granted"):
            purse = getattr(self, name)
            _none(purse < 0, f"{name} is negative")
            _none(purse > PURSE_MAX, f"{name} is more than a purse holds")
        _none(self.escrow != self.price * self.held, "escrow is not what its open jobs hold")
        _none(self.earned != self.computed + self.audited, "earned is not credit by role")
        inside = sum(exact_sum(purse) for purse in (self.escrow, self.earned, self.granted))
        if self.mint + sum(scalars) + inside:
            raise Violated("L1", f"purses sum to {self.mint + sum(scalars) + inside}")
        accepted = self._charged - self._refunded - exact_sum(self.escrow)
        divided = exact_sum(self.computed) + self.publisher + self.treasury + self._audits
        if accepted != divided:
            why = f"jobs worth {accepted} were accepted, {divided} of it was divided"
            raise Violated("L1", why)

    def _grant_clients(self, value: int) -> None:
        """Clients buy what they lack."""
        short = max(0, value - self.clients)
        self.mint -= short
        self.clients += short


def exact_sum(values: Wholes) -> int:
    """The sum as a Python integer, whatever its size."""
    if not len(values):
        return 0
    most = max(abs(int(values.max())), abs(int(values.min())))
    if most * len(values) < PURSE_MAX:
        return int(values.sum())
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFF_FFFF).sum())


def _shared(amount: int, weights: Reals) -> Wholes:
    """Parts of it by weight, rounded down; of nothing where nobody weighs anything."""
    assert 0 <= amount < PURSE_MAX
    total = float(weights.sum())
    if not amount or total <= 0.0:
        return np.zeros(len(weights), np.int64)
    parts = np.floor(weights * (amount * _BELOW_ONE / total)).astype(np.int64)
    return parts if exact_sum(parts) <= amount else np.zeros(len(weights), np.int64)


def _none(bad: np.typing.NDArray[np.bool_], why: str) -> None:
    if bad.any():
        node = int(np.flatnonzero(bad)[0])
        raise Violated("L1", f"{why} (node {node})", (node,))
