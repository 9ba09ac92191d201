"""The token, the registry and the ledger against a model of them, whatever is done in any order.

ASSAY_LEDGER_EXAMPLES sets how many random runs of up to 50 actions there are, each on a new chain;
without it the runs are the same each time, and must reach every outcome that matters.
"""

from __future__ import annotations

import os
import time
from typing import Final

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
from contracts.evm import DEPLOYER, TIMELOCK, ledger_config
from contracts.frauds import FRAUDS, possible
from contracts.ledger_model import (
    ACTIVE,
    CHALLENGER,
    EXITING,
    GIFT,
    KEYS,
    LEDGER,
    OWNERS,
    REGISTRY,
    TOKEN,
    WIRING,
    LedgerModel,
)

ASKED: Final = os.environ.get("ASSAY_LEDGER_EXAMPLES")
EXAMPLES: Final = int(ASKED or 150)
CALLS_LEAST: Final = 10_000  # in a normal run
MATTER: Final = [
    *[(function, None) for function in ("claim", "answer", "expire", "refund", "attest")],
    *[(function, None) for function in ("recount", "activate", "withdraw", "setMinter", "post")],
    *[("claim", error) for error in ("NotFinal", "NothingToClaim", "NoPayee", "NotInTree")],
    ("challengeStep", "EpochIsFinal"),
    ("demand", "EpochIsFinal"),
    ("post", "JustVoided"),
    ("post", "TotalLowered"),
    ("expire", "TooEarly"),
]

owners = st.sampled_from(OWNERS)
keys = st.sampled_from(KEYS)
numbers = st.integers(0, 5)
earnings = st.dictionaries(
    st.tuples(keys, st.sampled_from([0, 2, 4])),
    st.lists(st.integers(1, 2**40), min_size=1, max_size=3),
    max_size=3,
)


class Ledger(LedgerModel, RuleBasedStateMachine):
    """Rules predict what each transaction does; invariants compare what can be read."""

    total_calls = 0

    @initialize()
    def deploy(self) -> None:
        self.begin()

    def teardown(self) -> None:
        if hasattr(self, "evm"):
            Ledger.total_calls += self.evm.calls

    def any_epoch(self, data: st.DataObject) -> int:
        """Mostly one that is posted and open."""
        open_ones = range(self.final_head() + 1, self.head + 1)
        others = [self.final_head(), self.head + 1, self.base]
        return data.draw(st.sampled_from([*open_ones, *open_ones, *others]), label="epoch")

    def a_node(self, data: st.DataObject) -> bytes:
        """Mostly an active one."""
        return data.draw(st.sampled_from([*sorted(self.nodes), *self.active * 3]), label="key")

    # ---- epochs ----

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

    @rule(
        kind=st.sampled_from(sorted(FRAUDS)),
        proven_after=st.sampled_from([None, 0, WIRING.window]),
    )
    def post_fraud(self, kind: str, proven_after: int | None) -> None:
        self.evm.pass_time(self.evm.now <= self.voided_at)
        if kind not in possible(self.books):
            return
        fraud = FRAUDS[kind](self.books)
        self.post(fraud.epoch, fraud.leaves, fraud)
        if proven_after is not None and self.posted[self.head].fraud is fraud:
            self.evm.pass_time(proven_after)
            self.prove(self.head)

    @precondition(lambda self: self.evm.now <= self.voided_at)
    @rule()
    def post_too_soon(self) -> None:
        self.post(self.posted[self.head].epoch, len(self.posted[self.head].epoch.leaves), None)

    @rule(which=st.integers(0, 4), key=keys, number=numbers)
    def do_a_small_thing(self, which: int, key: bytes, number: int) -> None:
        """Which are always possible, so that they do not crowd out the others."""
        header = self.posted[self.head].epoch.header()
        if which == 0:
            self.act("NotPoster", OWNERS[0], LEDGER, "post", self.head + 1, header)
        elif which == 1 and number != self.head + 1:
            self.act("EpochOutOfOrder", DEPLOYER, LEDGER, "post", number, header)
        elif which == 2:
            self.bind(key, OWNERS[number % len(OWNERS)])
        elif which == 3:
            self.settle(number)
        else:
            self.court_slashes(key, [1, 150, 10_000][number % 3])

    @precondition(lambda self: any(each.fraud for each in self.posted.values()))
    @rule(data=st.data())
    def challenge(self, data: st.DataObject) -> None:
        frauds = [number for number, each in self.posted.items() if each.fraud]
        number = data.draw(st.sampled_from(frauds), label="epoch")
        if number > self.base:
            self.prove(number)

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

    # ---- demands ----

    @rule(data=st.data(), index=numbers, sender=owners)
    def demand_some(self, data: st.DataObject, index: int, sender: bytes) -> None:
        self.demand(self.any_epoch(data), index, sender)

    @rule(earned=earnings, sender=owners, late=st.booleans())
    def post_and_demand(
        self, earned: dict[tuple[bytes, int], list[int]], sender: bytes, late: bool
    ) -> None:
        """Both of the first leaves, and one demand is answered in time or expires too late."""
        self.post_honest(earned)
        number = self.head
        for index in range(2):
            self.demand(number, index, sender)
        if 0 in self.posted[number].demands:
            self.evm.pass_time(WIRING.demand_seconds + 1 if late else 1)
            (self.expire if late else self.answer)(number, 0)

    @precondition(lambda self: any(each.demands for each in self.posted.values()))
    @rule(data=st.data(), late=st.booleans())
    def answer_or_expire(self, data: st.DataObject, late: bool) -> None:
        asked = [(n, i) for n, each in self.posted.items() for i in each.demands]
        number, index = data.draw(st.sampled_from(asked), label="demand")
        (self.expire if late else self.answer)(number, index)

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
    def register_somehow(self, key: bytes, sender: bytes, bond: int, signature: bool) -> None:
        self.register(key, sender, bond, signature)

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
        leaving = [key for key, node in self.nodes.items() if node.state == EXITING]
        key = data.draw(st.sampled_from(leaving or sorted(self.nodes)), label="key")
        node = self.nodes[key]
        self.act("NotOwner", CHALLENGER, REGISTRY, "withdraw", key)
        if node.state == EXITING and data.draw(st.booleans(), label="wait"):
            self.evm.pass_time(WIRING.unbonding)
        error = None
        if node.state != EXITING:
            error = "WrongState"
        elif self.evm.now < node.since + WIRING.unbonding:
            error = "TooEarly"
        if self.act(error, node.owner, REGISTRY, "withdraw", key):
            del self.nodes[key]

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
            derandomize=ASKED is None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    seconds = time.perf_counter() - start
    print(f"{Ledger.total_calls} contract calls, {Ledger.total_calls / seconds:.0f} a second")
    for (function, error), count in sorted(Ledger.outcomes.items(), key=str):
        print(f"{function:<22}{error or 'done':<20}{count:>6}")
    if ASKED is None:
        assert Ledger.total_calls >= CALLS_LEAST
        assert set(MATTER) <= set(Ledger.outcomes)
        done = {function for function, error in Ledger.outcomes if error is None}
        assert len([function for function in done if function.startswith("challenge")]) >= 5
