"""A model of the token, the registry and the ledger: what each transaction should do.

Nothing of the contracts' code is used: the model says what is refused and by which error, and keeps
what should be readable afterwards. test_ledger_machine.py drives it at random.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar, Final

from contracts.books import NOTHING, Books, Epoch, account, leads_home
from contracts.evm import BAD, COURT, DEPLOYER, GOOD, Evm, Wiring
from contracts.frauds import Fraud

LEDGER, REGISTRY, TOKEN = "CreditLedger", "NodeRegistry", "CreditToken"
OWNERS: Final = [bytes([0xA0 + i]) * 20 for i in range(3)]
CHALLENGER: Final = bytes([0xC4]) * 20
GIFT: Final = 100_000
WIRING: Final = Wiring(poster_key=account(1))
KEYS: Final = [account(i) for i in range(1, 5)]  # the first is the poster's
NONE, PROBATION, ACTIVE, EXITING, EJECTED = range(5)


@dataclass
class Posted:
    """An epoch as the ledger should hold it; times in seconds."""

    epoch: Epoch
    at: int
    final_after: int | None
    required: int
    fraud: Fraud | None = None
    holders: set[bytes] = field(default_factory=set)
    demands: dict[int, tuple[bytes, int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.epoch.tree.total


@dataclass
class Node:
    owner: bytes
    bond: int
    state: int
    since: int


class LedgerModel:
    """Acts on a chain of its own, and asserts that each outcome is the expected one."""

    outcomes: ClassVar[Counter[tuple[str, str | None]]] = Counter()

    def begin(self) -> None:
        """Three owners with tokens; three keys that are paid to them."""
        self.evm = Evm(WIRING)
        self.books = Books()
        self.base = 0
        self.posted = {0: Posted(NOTHING, 0, 0, 0)}
        self.void: list[tuple[int, int, int, bytes]] = []  # demands that can be refunded
        self.claimed: dict[tuple[bytes, int], int] = {}
        self.highest = self.burned = self.holders_required = self.was_final = 0
        self.voided_at = 0
        self.nodes: dict[bytes, Node] = {}
        self.active: list[bytes] = []
        self.payees: dict[bytes, bytes] = {}
        for owner in OWNERS:
            self.evm.give(owner, GIFT, LEDGER, REGISTRY)
        for key, owner in zip(KEYS[:3], OWNERS, strict=True):
            self.bind(key, owner)

    # ---- what should be so ----

    @property
    def head(self) -> int:
        return max(self.posted)

    def ready(self, number: int) -> bool:
        posted = self.posted[number]
        if posted.demands or posted.final_after is None:
            return False
        return self.evm.now >= posted.at + posted.final_after

    def final_head(self) -> int:
        newest = self.base
        while newest < self.head and self.ready(newest + 1):
            newest += 1
        return newest

    def is_open(self, number: int) -> str | None:
        """The error of whoever acts on an epoch that is not open."""
        if number not in self.posted or number == 0:
            return "UnknownEpoch"
        return "EpochIsFinal" if number <= self.final_head() else None

    def error_of(self, number: int) -> str | None:
        return self.is_open(number) if number >= self.base else "UnknownEpoch"

    def claim_error(self, number: int, index: int) -> str | None:
        if number > self.final_head():
            return "NotFinal"
        posted = self.posted[number]
        if number < self.base or not leads_home(posted.epoch, index):
            return "NotInTree"
        leaf = posted.epoch.leaves[index]
        already = self.claimed.get((leaf.account, leaf.role), 0)
        if leaf.cumulative <= already:
            return "NothingToClaim"
        if leaf.account not in self.payees:
            return "NoPayee"
        paid = sum(self.claimed.values()) + leaf.cumulative - already
        return "Insolvent" if paid > max(self.highest, posted.total) else None

    # ---- transactions, refused or done as they should be ----

    def act(
        self, error: str | None, sender: bytes, contract: str, function: str, *arguments: object
    ) -> bool:
        """Does it, and sees that it is refused with `error` or done."""
        LedgerModel.outcomes[function, error] += 1
        if error is None:
            self.evm.send(sender, contract, function, *arguments)
        else:
            assert self.evm.refused(sender, contract, function, *arguments) == error
        return error is None

    def post(self, epoch: Epoch, leaves: int, fraud: Fraud | None) -> None:
        number, before = self.head + 1, self.posted[self.head]
        error = None
        if self.evm.now <= self.voided_at:
            error = "JustVoided"
        elif epoch.tree.total < before.total:
            error = "TotalLowered"
        if not self.act(error, DEPLOYER, LEDGER, "post", number, epoch.header(leaves)):
            return
        after = WIRING.window if self.holders_required == 0 else None
        self.posted[number] = Posted(epoch, self.evm.now, after, self.holders_required, fraud)
        self.books.epochs.append(epoch)

    def prove(self, number: int) -> None:
        fraud = self.posted[number].fraud
        assert fraud is not None
        function, *arguments = fraud.challenge(number)
        error = self.is_open(number)
        if self.act(error, CHALLENGER, LEDGER, str(function), *arguments):
            self.forget_from(number)
            self.slash(KEYS[0], 2**96, WIRING.reward_bps)

    def settle(self, count: int) -> None:
        self.act(None, CHALLENGER, LEDGER, "settle", count)

    def demand(self, number: int, index: int, sender: bytes) -> None:
        error = self.error_of(number)
        posted = self.posted.get(number)
        if error is None and posted is not None:
            if index >= len(posted.epoch.leaves):
                error = "NotInTree"
            elif index in posted.demands:
                error = "AlreadyDemanded"
        if self.act(error, sender, LEDGER, "demand", number, index) and posted is not None:
            posted.demands[index] = (sender, self.evm.now + WIRING.demand_seconds)

    def answer(self, number: int, index: int) -> None:
        posted = self.posted[number]
        error = None if leads_home(posted.epoch, index) else "NotInTree"
        if self.act(error, CHALLENGER, LEDGER, "answer", number, posted.epoch.place(index)):
            del posted.demands[index]
            after = self.evm.now - posted.at + WIRING.demand_seconds
            if posted.final_after is not None:
                posted.final_after = max(posted.final_after, after)

    def expire(self, number: int, index: int) -> None:
        posted = self.posted[number]
        error = None if self.evm.now > posted.demands[index][1] else "TooEarly"
        if self.act(error, CHALLENGER, LEDGER, "expire", number, index):
            del posted.demands[index]
            self.forget_from(number)

    def register(self, key: bytes, sender: bytes, bond: int, signature: bool) -> None:
        node = self.nodes.get(key)
        error = None
        if node is not None and (node.state != EJECTED or node.bond):
            error = "WrongState"
        elif bond < WIRING.min_bond:
            error = "BondTooLow"
        elif not signature:
            error = "BadSignature"
        given = GOOD if signature else BAD
        if self.act(error, sender, REGISTRY, "register", key, bond, given):
            self.nodes[key] = Node(sender, bond, PROBATION, self.evm.now)
            self.payees.setdefault(key, sender)

    def bind(self, key: bytes, payee: bytes) -> None:
        self.act(None, CHALLENGER, REGISTRY, "bind", key, payee, GOOD)
        self.payees[key] = payee

    def activate(self, key: bytes) -> None:
        node = self.nodes[key]
        error = None
        if node.state != PROBATION:
            error = "WrongState"
        elif self.evm.now < node.since + WIRING.probation:
            error = "TooEarly"
        if self.act(error, CHALLENGER, REGISTRY, "activate", key):
            node.state = ACTIVE
            self.active.append(key)

    def court_slashes(self, key: bytes, amount: int) -> None:
        self.act(None, COURT, REGISTRY, "slash", key, amount, CHALLENGER, 0, bytes(32))
        self.slash(key, amount, 0)

    # ---- what follows from them ----

    def forget_from(self, number: int) -> None:
        for gone in [epoch for epoch in self.posted if epoch >= number]:
            posted = self.posted.pop(gone)
            for index, (by, _) in posted.demands.items():
                self.void.append((gone, index, posted.at, by))
        self.books.epochs = self.books.epochs[:number]
        self.voided_at = self.evm.now

    def start_window(self, posted: Posted) -> None:
        required = min(posted.required, self.holders_required)
        if posted.final_after is None and len(posted.holders) >= required:
            posted.final_after = self.evm.now - posted.at + WIRING.window

    def slash(self, key: bytes, amount: int, reward_bps: int) -> None:
        node = self.nodes.get(key)
        if node is None:
            return
        taken = min(amount, node.bond)
        node.bond -= taken
        self.burned += taken - taken * reward_bps // 10_000
        if taken and node.bond < WIRING.min_bond and node.state in (PROBATION, ACTIVE):
            node.state = EJECTED
            self.leave_active(key)

    def leave_active(self, key: bytes) -> None:
        if key in self.active:
            last = self.active.pop()
            if last != key:
                self.active[self.active.index(key)] = last
