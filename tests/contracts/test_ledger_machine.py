"""The token, the registry and the ledger against a model of them, whatever is done in any order.

ASSAY_LEDGER_EXAMPLES sets how many runs of up to 50 actions there are; each run is a new chain.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from assay_contracts import calls
from contracts.books import NOTHING, Books, Epoch, account, leads_home
from contracts.evm import BAD, COURT, DEPLOYER, GOOD, TIMELOCK, Evm, Wiring, ledger_config
from contracts.frauds import FRAUDS, Fraud, possible

EXAMPLES: Final = int(os.environ.get("ASSAY_LEDGER_EXAMPLES", "150"))
CALLS_LEAST: Final = 10_000  # in a normal run
LEDGER, REGISTRY, TOKEN = "CreditLedger", "NodeRegistry", "CreditToken"
OWNERS: Final = [bytes([0xA0 + i]) * 20 for i in range(3)]
CHALLENGER: Final = bytes([0xC4]) * 20
GIFT: Final = 100_000
WIRING: Final = Wiring(poster_key=account(1))
KEYS: Final = [account(i) for i in range(1, 5)]  # the first is the poster's
NONE, PROBATION, ACTIVE, EXITING, EJECTED = range(5)

owners = st.sampled_from(OWNERS)
keys = st.sampled_from(KEYS)
numbers = st.integers(0, 5)
earnings = st.dictionaries(
    st.tuples(keys, st.sampled_from([0, 2, 4])),
    st.lists(st.integers(1, 2**40), min_size=1, max_size=3),
    max_size=3,
)


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


class Ledger(RuleBasedStateMachine):
    """Rules predict what each transaction does; invariants compare what can be read."""

    total_calls = 0
    outcomes: ClassVar[Counter[tuple[str, str | None]]] = Counter()

    @initialize()
    def deploy(self) -> None:
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

    def teardown(self) -> None:
        if hasattr(self, "evm"):
            Ledger.total_calls += self.evm.calls

    # ---- the model ----

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

    def any_epoch(self, data: st.DataObject) -> int:
        """Mostly one that is posted and open."""
        open_ones = range(self.final_head() + 1, self.head + 1)
        others = [self.final_head(), self.head + 1, self.base]
        return data.draw(st.sampled_from([*open_ones, *open_ones, *others]), label="epoch")

    def a_node(self, data: st.DataObject) -> bytes:
        return data.draw(st.sampled_from(sorted(self.nodes)), label="key")

    def error_of(self, number: int) -> str | None:
        return self.is_open(number) if number >= self.base else "UnknownEpoch"

    def act(
        self, error: str | None, sender: bytes, contract: str, function: str, *arguments: object
    ) -> bool:
        """Does it, and sees that it is refused with `error` or done."""
        Ledger.outcomes[function, error] += 1
        if error is None:
            self.evm.send(sender, contract, function, *arguments)
        else:
            assert self.evm.refused(sender, contract, function, *arguments) == error
        return error is None

    def forget_from(self, number: int) -> None:
        for gone in [epoch for epoch in self.posted if epoch >= number]:
            posted = self.posted.pop(gone)
            for index, (by, _) in posted.demands.items():
                self.void.append((gone, index, posted.at, by))
        self.books.epochs = self.books.epochs[:number]
        self.voided_at = self.evm.now

    # ---- epochs ----

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

    @rule(earned=earnings)
    def post_honest(self, earned: dict[tuple[bytes, int], list[int]]) -> None:
        self.evm.pass_time(self.evm.now <= self.voided_at)
        epoch = self.books.book(earned)
        self.books.epochs.pop()
        self.post(epoch, len(epoch.leaves), None)

    @rule(earned=earnings)
    def post_and_wait(self, earned: dict[tuple[bytes, int], list[int]]) -> None:
        self.post_honest(earned)
        self.pass_time(WIRING.window)

    @rule(kind=st.sampled_from(sorted(FRAUDS)), proven_at_once=st.booleans())
    def post_fraud(self, kind: str, proven_at_once: bool) -> None:
        self.evm.pass_time(self.evm.now <= self.voided_at)
        if kind not in possible(self.books):
            return
        fraud = FRAUDS[kind](self.books)
        self.post(fraud.epoch, fraud.leaves, fraud)
        if proven_at_once and self.posted[self.head].fraud is fraud:
            self.prove(self.head)

    @precondition(lambda self: self.evm.now <= self.voided_at)
    @rule()
    def post_too_soon(self) -> None:
        self.post(self.posted[self.head].epoch, len(self.posted[self.head].epoch.leaves), None)

    @rule(number=numbers, sender=st.sampled_from([OWNERS[0], DEPLOYER]))
    def post_out_of_order(self, number: int, sender: bytes) -> None:
        header = self.posted[self.head].epoch.header()
        if sender != DEPLOYER:
            self.act("NotPoster", sender, LEDGER, "post", self.head + 1, header)
        elif number != self.head + 1:
            self.act("EpochOutOfOrder", sender, LEDGER, "post", number, header)

    @precondition(lambda self: any(each.fraud for each in self.posted.values()))
    @rule(data=st.data())
    def challenge(self, data: st.DataObject) -> None:
        frauds = [number for number, each in self.posted.items() if each.fraud]
        number = data.draw(st.sampled_from(frauds), label="epoch")
        if number > self.base:
            self.prove(number)

    def prove(self, number: int) -> None:
        fraud = self.posted[number].fraud
        assert fraud is not None
        function, *arguments = fraud.challenge(number)
        error = self.is_open(number)
        if self.act(error, CHALLENGER, LEDGER, str(function), *arguments):
            self.forget_from(number)
            self.slash(KEYS[0], 2**96, WIRING.reward_bps)

    @precondition(lambda self: self.head > self.base)
    @rule(data=st.data())
    def challenge_honest(self, data: st.DataObject) -> None:
        """Arguments that are true of other epochs or indices void nothing here."""
        numbers_open = range(self.base + 1, self.head + 1)
        honest = [n for n in numbers_open if self.posted[n].fraud is None]
        if not honest:
            return
        number = data.draw(st.sampled_from(honest), label="epoch")
        places = [
            self.posted[n].epoch.place(i)
            for n in (number, number - 1)
            for i in range(len(self.posted[n].epoch.leaves))
        ]
        if not places:
            return
        first, second = (data.draw(st.sampled_from(places), label="place") for _ in range(2))
        kind = data.draw(st.sampled_from(["Step", "Duplicate", "Omission", "Beyond"]))
        arguments: tuple[object, ...] = (first, second)
        if kind == "Omission":
            arguments = (first[1], first[2])
        if kind == "Beyond":
            arguments = (first[0].hash, first[0].cumulative, first[2])
        name = self.evm.refused(CHALLENGER, LEDGER, f"challenge{kind}", number, *arguments)
        assert name in {"NoFraud", "NotInTree", "EpochIsFinal"}

    @rule(seconds=st.sampled_from([1, 301, 500, 1_000, 1_000, 3_000]))
    def pass_time(self, seconds: int) -> None:
        self.evm.pass_time(seconds)

    @rule(count=numbers)
    def settle(self, count: int) -> None:
        self.act(None, CHALLENGER, LEDGER, "settle", count)

    # ---- holders ----

    @rule(holders=st.integers(0, 2))
    def require_holders(self, holders: int) -> None:
        self.act(None, TIMELOCK, LEDGER, "setHoldersRequired", holders)
        self.holders_required = holders

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), stranger=st.integers(0, 5))
    def attest(self, data: st.DataObject, stranger: int) -> None:
        number, key = self.any_epoch(data), self.a_node(data)
        node = self.nodes[key]
        sender = CHALLENGER if stranger == 0 else node.owner
        error = self.error_of(number)
        if error is None and (node.owner, node.state) != (sender, ACTIVE):
            error = "NotActiveOwner"
        if error is None and key in self.posted[number].holders:
            error = "AlreadyAttested"
        if self.act(error, sender, LEDGER, "attest", number, key):
            self.posted[number].holders.add(key)
            self.start_window(self.posted[number])

    @rule(data=st.data())
    def recount(self, data: st.DataObject) -> None:
        number = self.any_epoch(data)
        error = self.error_of(number)
        if self.act(error, CHALLENGER, LEDGER, "recount", number):
            self.start_window(self.posted[number])

    def start_window(self, posted: Posted) -> None:
        required = min(posted.required, self.holders_required)
        if posted.final_after is None and len(posted.holders) >= required:
            posted.final_after = self.evm.now - posted.at + WIRING.window

    # ---- demands ----

    @rule(data=st.data(), index=numbers, sender=owners)
    def demand(self, data: st.DataObject, index: int, sender: bytes) -> None:
        number = self.any_epoch(data)
        error = self.error_of(number)
        posted = self.posted.get(number)
        if error is None and posted is not None:
            if index >= len(posted.epoch.leaves):
                error = "NotInTree"
            elif index in posted.demands:
                error = "AlreadyDemanded"
        if self.act(error, sender, LEDGER, "demand", number, index) and posted is not None:
            posted.demands[index] = (sender, self.evm.now + WIRING.demand_seconds)

    @precondition(lambda self: self.head > self.final_head())
    @rule(data=st.data(), sender=owners)
    def demand_in_vain(self, data: st.DataObject, sender: bytes) -> None:
        self.demand(data, 0, sender)
        self.evm.pass_time(WIRING.demand_seconds + 1)

    @precondition(lambda self: any(each.demands for each in self.posted.values()))
    @rule(data=st.data(), late=st.booleans())
    def answer_or_expire(self, data: st.DataObject, late: bool) -> None:
        asked = [(n, i) for n, each in self.posted.items() for i in each.demands]
        number, index = data.draw(st.sampled_from(asked), label="demand")
        posted = self.posted[number]
        by, deadline = posted.demands[index]
        if late:
            self.evm.pass_time(data.draw(st.sampled_from([0, WIRING.demand_seconds + 1])))
            error = None if self.evm.now > deadline else "TooEarly"
            if self.act(error, CHALLENGER, LEDGER, "expire", number, index):
                del posted.demands[index]
                self.forget_from(number)
            return
        error = None if leads_home(posted.epoch, index) else "NotInTree"
        if self.act(error, by, LEDGER, "answer", number, posted.epoch.place(index)):
            del posted.demands[index]
            after = self.evm.now - posted.at + WIRING.demand_seconds
            if posted.final_after is not None:
                posted.final_after = max(posted.final_after, after)

    @precondition(lambda self: self.void)
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        demand = data.draw(st.sampled_from(self.void), label="demand")
        number, index, posted_at, by = demand
        before = self.evm.balance(by)
        self.act(None, CHALLENGER, LEDGER, "refund", number, index, posted_at)
        assert self.evm.balance(by) - before == WIRING.demand_bond
        self.void.remove(demand)

    # ---- claims ----

    @rule(data=st.data(), sender=owners)
    def claim_too_early(self, data: st.DataObject, sender: bytes) -> None:
        self.claim(data.draw(st.sampled_from(sorted(self.posted)), label="epoch"), data, sender)

    @precondition(lambda self: self.final_head() > 0)
    @rule(data=st.data(), sender=owners)
    def claim_late(self, data: st.DataObject, sender: bytes) -> None:
        self.claim(data.draw(st.integers(1, self.final_head()), label="epoch"), data, sender)

    @precondition(lambda self: self.final_head() > 0)
    @rule(data=st.data(), sender=owners)
    def claim_on_the_newest(self, data: st.DataObject, sender: bytes) -> None:
        self.claim(self.final_head(), data, sender)

    def claim(self, number: int, data: st.DataObject, sender: bytes) -> None:
        epoch = self.posted[number].epoch
        if not epoch.leaves:
            return
        index = data.draw(st.integers(0, len(epoch.leaves) - 1), label="index")
        leaf = epoch.leaves[index]
        owner = (leaf.account, leaf.role)
        error = self.claim_error(number, index)
        payee = self.payees.get(leaf.account, b"")
        before = self.evm.balance(payee) if error is None else 0
        if self.act(error, sender, LEDGER, "claim", number, *epoch.place(index)):
            assert self.evm.balance(payee) - before == leaf.cumulative - self.claimed.get(owner, 0)
            self.claimed[owner] = leaf.cumulative
            self.highest = max(self.highest, self.posted[number].total)

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

    @precondition(lambda self: self.final_head() > self.base and not self.void)
    @rule()
    def go_on_in_a_new_ledger(self) -> None:
        """From the newest final epoch; what was posted after it is posted anew."""
        base = self.final_head()
        if any(each.demands for each in self.posted.values()):
            return
        config = ledger_config(self.evm, previous=self.evm.at[LEDGER], base_epoch=base)
        self.evm.at[LEDGER] = self.evm.create(calls.constructor(LEDGER, config))
        self.act(None, TIMELOCK, TOKEN, "setMinter", self.evm.at[LEDGER])
        for owner in OWNERS:
            self.act(None, owner, TOKEN, "approve", self.evm.at[LEDGER], 2**256 - 1)
        self.forget_from(base + 1)
        self.base, self.holders_required, self.voided_at = base, 0, 0

    # ---- nodes ----

    @rule(
        key=keys,
        sender=owners,
        bond=st.sampled_from([500, 500, 100, 99]),
        signature=st.sampled_from([True, True, True, False]),
    )
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

    @rule(key=keys, payee=owners)
    def bind(self, key: bytes, payee: bytes) -> None:
        self.act(None, CHALLENGER, REGISTRY, "bind", key, payee, GOOD)
        self.payees[key] = payee

    @rule(key=keys, owner=owners)
    def join(self, key: bytes, owner: bytes) -> None:
        """All the way, if the key is free."""
        self.register(key, owner, 500, True)
        self.pass_time(WIRING.probation)
        self.activate(key)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def activate_some(self, data: st.DataObject) -> None:
        self.activate(self.a_node(data))

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

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def exit(self, data: st.DataObject) -> None:
        key = self.a_node(data)
        node = self.nodes[key]
        self.act("NotOwner", CHALLENGER, REGISTRY, "beginExit", key)
        error = "WrongState" if node.state == EXITING else None
        if self.act(error, node.owner, REGISTRY, "beginExit", key):
            node.state, node.since = EXITING, self.evm.now
            self.leave_active(key)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        key = self.a_node(data)
        node = self.nodes[key]
        self.act("NotOwner", CHALLENGER, REGISTRY, "withdraw", key)
        error = None
        if node.state != EXITING:
            error = "WrongState"
        elif self.evm.now < node.since + WIRING.unbonding:
            error = "TooEarly"
        if self.act(error, node.owner, REGISTRY, "withdraw", key):
            del self.nodes[key]

    @rule(key=keys, amount=st.sampled_from([1, 150, 10_000]))
    def court_slashes(self, key: bytes, amount: int) -> None:
        self.act(None, COURT, REGISTRY, "slash", key, amount, CHALLENGER, 0, bytes(32))
        self.slash(key, amount, 0)

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

    # ---- what always holds ----

    @invariant()
    def tokens_are_claims(self) -> None:
        paid = sum(self.claimed.values())
        given = GIFT * len(OWNERS)
        assert self.evm.ask(TOKEN, "totalSupply") == given + paid - self.burned
        assert self.evm.ask(LEDGER, "totalClaimed") == paid
        assert paid <= max(self.highest, self.posted[self.final_head()].total)

    @invariant()
    def no_account_has_claimed_more_than_it_earned(self) -> None:
        final = [self.posted[n] for n in range(self.final_head() + 1)]
        if any(each.fraud for each in final):
            return
        earned = {(leaf.account, leaf.role): leaf.cumulative for leaf in final[-1].epoch.leaves}
        assert all(amount <= earned[owner] for owner, amount in self.claimed.items())

    @invariant()
    def epochs_are_final_for_ever_or_void(self) -> None:
        final = self.final_head()
        assert final >= self.was_final
        self.was_final = final
        assert self.evm.ask(LEDGER, "head") == self.head
        for number in {self.base, final, final + 1, self.head, self.head + 1}:
            assert self.evm.ask(LEDGER, "isFinal", number) == (0 < number <= final)

    @invariant()
    def bonds_are_there(self) -> None:
        bonds = sum(node.bond for node in self.nodes.values())
        assert self.evm.balance(self.evm.at[REGISTRY]) == bonds
        asked = sum(len(each.demands) for each in self.posted.values()) + len(self.void)
        assert self.evm.balance(self.evm.at[LEDGER]) == WIRING.demand_bond * asked

    @invariant()
    def the_active_are_listed(self) -> None:
        count = self.evm.ask(REGISTRY, "activeCount")
        assert [self.evm.ask(REGISTRY, "activeAt", i) for i in range(count)] == self.active


@pytest.mark.slow
def test_the_contracts_do_what_the_model_does() -> None:
    Ledger.total_calls = 0
    start = time.perf_counter()
    run_state_machine_as_test(
        Ledger,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    seconds = time.perf_counter() - start
    print(f"{Ledger.total_calls} contract calls, {Ledger.total_calls / seconds:.0f} a second")
    assert Ledger.total_calls >= min(CALLS_LEAST, 60 * EXAMPLES)
    for (function, error), count in sorted(Ledger.outcomes.items(), key=str):
        print(f"{function:<22}{error or 'done':<20}{count:>6}")
