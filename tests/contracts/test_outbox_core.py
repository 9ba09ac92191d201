"""The outbox's decisions against a model of chains: each call happens once, whatever fails when."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter, deque
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from assay_contracts.adapters.backend import Fees
from assay_contracts.adapters.offers import Call, FeeBounds
from assay_contracts.adapters.outbox_core import (
    GAS_MAX,
    SECOND,
    Added,
    Alarm,
    Ask,
    Attempt,
    Differs,
    Effect,
    Estimate,
    Estimated,
    Event,
    Fill,
    Found,
    Item,
    Looked,
    NotSent,
    OutboxCore,
    Patience,
    Refused,
    Save,
    Send,
    Sent,
    Settled,
    Sign,
    Signed,
)
from contracts.model_chain import Mined, ModelChain

CALL = Call(b"\x01" * 20, b"data")
FEES = Fees(10, 1)


def item(key: str, seq: int = 1, lane: str = "", keep: bool = True, lag: int = 0) -> Item:
    return Item(key, seq, "call", CALL, lane, lag, keep)


class Crash(Exception):
    """The process ended between two steps."""


class Driven:
    """The core with rows, as `Outbox` drives it; it can die between any two steps."""

    def __init__(self, chain: ModelChain, confirmations: int) -> None:
        self.chain = chain
        self.patience = Patience(
            confirmations=confirmations, has_pool=chain.has_pool, fees=FeeBounds(2_000)
        )
        self.core = OutboxCore(self.patience)
        self.now = 0
        self.rows: dict[str, Item] = {}
        self.refused: set[str] = set()
        self.alarms: Counter[str] = Counter()
        self.left = -1  # steps until it dies

    def submit(self, one: Item) -> None:
        self.rows[one.key] = one
        self.core.handle(self.now, Added(one))

    def restart(self) -> None:
        self.core = OutboxCore(self.patience)
        for one in self.rows.values():
            if one.state not in ("final", "failed"):
                self.core.handle(self.now, Added(one))

    def go(self) -> None:
        """One pass; raises Crash if it dies in it."""
        self._reopen()
        queue = deque(self.core.handle(self.now, self.chain.look()))
        steps = 0
        while queue:
            steps += 1
            assert steps < 5_000, "a pass never ends"
            if self.left == 0:
                self.left = -1
                raise Crash
            self.left -= self.left > 0
            event = self._do(queue.popleft())
            if event is not None:
                queue.extendleft(reversed(self.core.handle(self.now, event)))

    def _reopen(self) -> None:
        for one in self.rows.values():
            if one.state == "final" and one.place and not self.chain.holds(one.place):
                state = "signed" if one.attempts else "waiting"
                opened = replace(one, state=state, place=None)
                self.rows[one.key] = opened
                self.core.handle(self.now, Added(opened))

    def _do(self, effect: Effect) -> Event | None:
        match effect:
            case Ask(key):
                asked = self.core.items.get(key)
                if asked is None:
                    return None
                places = [self.chain.find(a.hash) for a in reversed(asked.attempts)]
                return Found(key, next((p for p in places if p), None))
            case Estimate(key):
                if key in self.refused:
                    return Refused(key, "not now", sent=False)
                return Estimated(key, 21_000)
            case Sign(key, nonce, offer):
                name = hashlib.sha256(f"{key} {nonce} {offer}".encode()).digest()
                attempt = Attempt(name, nonce, offer)
                row = self.rows[key]
                self.rows[key] = replace(row, state="signed", attempts=(*row.attempts, attempt))
                return Signed(key, attempt)
            case Send(key, name):
                attempt = next(a for a in self.rows[key].attempts if a.hash == name)
                sent = Mined(key, name, attempt.nonce, attempt.offer.fee)
                told = self.chain.send(sent)
                return Sent(key) if told == "sent" else NotSent(key, told, told)
            case Fill(nonce, fee, _):
                name = hashlib.sha256(f"fill {nonce} {fee}".encode()).digest()
                self.chain.send(Mined("", name, nonce, fee))
            case Save(one, dropped):
                kept = tuple(a for a in self.rows[one.key].attempts if a.hash != dropped)
                self.rows[one.key] = replace(one, attempts=kept)
            case Settled(one):
                assert self.rows[one.key].state in ("final", "failed")
            case Alarm(code, _, _):
                self.alarms[code] += 1
        return None


class Machine(RuleBasedStateMachine):
    """Submissions, passes, crashes, blocks, fees, forks no deeper than the confirmations, nodes
    that forget, chains restored from older copies, and others that use the wallet."""

    @initialize(has_pool=st.booleans(), confirmations=st.integers(0, 3), seed=st.integers(0, 9))
    def begin(self, has_pool: bool, confirmations: int, seed: int) -> None:
        self.confirmations = confirmations if has_pool else 0
        self.chain = ModelChain(has_pool, random.Random(seed), fees=FEES)
        self.outbox = Driven(self.chain, self.confirmations)
        self.count, self.alone = 0, True

    @rule(lane=st.sampled_from(["", "", "epochs"]), lag=st.integers(0, 1))
    def submit(self, lane: str, lag: int) -> None:
        self.count += 1
        one = item(f"k{self.count}", self.count, lane, lag=lag if self.chain.has_pool else 0)
        self.outbox.submit(one)

    @rule(seconds=st.integers(0, 60))
    def a_pass(self, seconds: int) -> None:
        self.outbox.now += seconds * SECOND
        self.outbox.go()

    @rule(steps=st.integers(0, 12))
    def a_pass_that_dies(self, steps: int) -> None:
        self.outbox.left = steps
        with suppress(Crash):
            self.outbox.go()
        self.outbox.left = -1
        self.outbox.restart()

    @precondition(lambda self: self.chain.has_pool)
    @rule(count=st.integers(1, 4))
    def blocks(self, count: int) -> None:
        for _ in range(count):
            self.chain.mine()

    @rule(base=st.integers(0, 900), tip=st.integers(0, 20))
    def other_fees(self, base: int, tip: int) -> None:
        self.chain.fees = Fees(base if self.chain.has_pool else 0, tip)

    @rule()
    def the_node_forgets(self) -> None:
        self.chain.pool.clear()

    @rule()
    def others_spend(self) -> None:
        self.chain.spend()
        self.alone = False

    @precondition(lambda self: self.chain.has_pool)
    @rule(data=st.data(), keep_pool=st.booleans())
    def a_fork(self, data: st.DataObject, keep_pool: bool) -> None:
        most = min(self.confirmations, len(self.chain.blocks))
        self.chain.go_back(data.draw(st.integers(0, most)), keep_pool=keep_pool)

    @precondition(lambda self: not self.chain.has_pool)
    @rule(data=st.data(), others=st.integers(0, 2))
    def an_older_copy(self, data: st.DataObject, others: int) -> None:
        self.chain.go_back(data.draw(st.integers(0, len(self.chain.blocks))), keep_pool=False)
        for _ in range(others):
            self.chain.spend()

    @invariant()
    def nothing_is_there_twice(self) -> None:
        times = Counter(one.key for one in self.chain.mined if one.key)
        assert all(n == 1 for n in times.values()), times
        nonces = [one.nonce for one in self.chain.mined]
        assert nonces == list(range(len(nonces)))

    @invariant()
    def lanes_are_in_order(self) -> None:
        """A pool may mine what follows before what was pushed behind it; contracts refuse that."""
        if self.chain.has_pool and not self.alone:
            return
        rows = self.outbox.rows
        order = [rows[one.key].seq for one in self.chain.mined if one.key and rows[one.key].lane]
        assert order == sorted(order)

    def teardown(self) -> None:
        if not hasattr(self, "chain"):
            return
        self.chain.fees = FEES
        for _ in range(20 + 12 * self.count):
            self.outbox.now += 60 * SECOND
            self.outbox.go()
            if self.chain.has_pool:
                self.chain.mine()
        assert {one.state for one in self.outbox.rows.values()} <= {"final"}
        times = Counter(one.key for one in self.chain.mined if one.key)
        assert times == Counter(self.outbox.rows.keys())
        self.nothing_is_there_twice()


Machine.TestCase.settings = settings(
    max_examples=int(os.environ.get("ASSAY_OUTBOX_EXAMPLES", "150")),
    stateful_step_count=40,
    deadline=None,
)
TestMachine = Machine.TestCase


@pytest.fixture
def real() -> Driven:
    return Driven(ModelChain(True, random.Random(1), fees=FEES), confirmations=2)


@pytest.fixture
def instant() -> Driven:
    return Driven(ModelChain(False, random.Random(1), fees=Fees(0, 0)), confirmations=0)


def test_on_a_chain_without_a_pool_one_pass_is_enough(instant: Driven) -> None:
    for n in (1, 2, 3):
        instant.submit(item(f"k{n}", n, "epochs"))
    instant.go()
    assert [one.key for one in instant.chain.mined] == ["k1", "k2", "k3"]
    assert {row.state for row in instant.rows.values()} == {"final"}
    assert instant.core.items == {}


def test_a_call_is_final_at_its_depth_and_a_note_deeper_still(real: Driven) -> None:
    real.submit(item("note", 1, lag=1))
    real.submit(item("call", 2))
    real.go()
    for wanted in (("mined", "mined"), ("mined", "mined"), ("mined", "final"), ("final", "final")):
        real.chain.mine()
        real.go()
        assert (real.rows["note"].state, real.rows["call"].state) == wanted


def test_what_would_be_refused_burns_no_nonce_and_a_kept_one_waits(real: Driven) -> None:
    real.refused.add("kept")
    real.submit(item("kept", 1))
    real.submit(item("other", 2))
    real.go()
    assert [one.key for one in real.chain.pool.values()] == ["other"]
    assert real.alarms == {"contract_refused": 1}
    real.refused.clear()
    real.now += 60 * SECOND
    real.go()
    assert [one.nonce for one in real.chain.pool.values()] == [0, 1]


def test_what_is_not_kept_fails_with_the_reason(real: Driven) -> None:
    real.refused.add("once")
    real.submit(item("once", keep=False))
    real.go()
    row = real.rows["once"]
    assert (row.state, row.reason, real.chain.pool) == ("failed", "not now", {})


def test_the_next_of_a_lane_waits_for_the_one_before(real: Driven) -> None:
    for n in (1, 2):
        real.submit(item(f"k{n}", n, "epochs"))
    real.go()
    assert [one.key for one in real.chain.pool.values()] == ["k1"]
    real.chain.mine()
    real.go()
    assert [one.key for one in real.chain.pool.values()] == ["k2"]


def test_a_transaction_that_waits_offers_an_eighth_more_until_the_bound(real: Driven) -> None:
    real.chain.fees = Fees(100, 5)
    real.submit(item("k"))
    real.go()
    offers = []
    real.chain.fees = Fees(1_900, 5)  # nobody mines what offers less
    for _ in range(40):
        real.now += 60 * SECOND
        real.go()
        real.chain.mine()
        offers.append(real.chain.pool[0].fee if 0 in real.chain.pool else 0)
        if not real.chain.pool:
            break
    sent = [attempt.offer for attempt in real.rows["k"].attempts]
    assert all(b.fee > a.fee * 9 // 8 for a, b in pairwise(sent))
    assert max(offer.fee for offer in sent) <= 2_000
    assert real.chain.mined[0].key == "k"


def test_above_the_bound_it_waits_and_says_so(real: Driven) -> None:
    real.chain.fees = Fees(3_000, 0)
    real.submit(item("new"))
    real.go()
    assert real.alarms["gas_too_low"] == 1
    assert real.rows["new"].attempts == ()
    real.chain.fees = FEES
    real.now += 60 * SECOND
    real.go()
    assert len(real.chain.pool) == 1
    real.chain.fees = Fees(3_000, 0)
    for _ in range(70):  # it is raised to the bound, and waits there for cheaper days
        real.now += 60 * SECOND
        real.go()
        real.chain.mine()
    assert real.alarms["gas_too_low"] > 1
    assert real.chain.mined == []
    real.chain.fees = FEES
    for _ in range(4):
        real.chain.mine()
        real.go()
    assert real.rows["new"].state == "final"


def test_a_revert_in_a_block_spends_the_nonce_and_is_tried_anew(real: Driven) -> None:
    real.submit(item("kept"))
    real.submit(item("once", 2, keep=False))
    real.go()
    for _ in range(3):
        real.chain.mine()
    view = real.chain.look()
    real.core.handle(real.now, view)
    for key in ("kept", "once"):
        place = real.chain.find(real.rows[key].attempts[0].hash)
        for effect in real.core.handle(real.now, Found(key, place, ok=False)):
            real._do(effect)
    assert real.rows["once"].state == "failed"
    assert "refused in block 1" in real.rows["once"].reason
    assert (real.rows["kept"].state, real.rows["kept"].attempts) == ("waiting", ())


def test_what_the_contract_holds_is_done_whoever_sent_it(real: Driven) -> None:
    real.submit(item("k"))
    for _ in range(4):
        real.core.handle(real.now, real.chain.look())
        for effect in real.core.handle(real.now, Found("k", done=True)):
            real._do(effect)
        real.chain.mine()
    row = real.rows["k"]
    assert row.state == "final"
    assert row.place is not None
    assert (row.place.transaction, row.place.block) == (b"", 0)
    assert real.chain.mined == []


def test_something_else_under_its_name_is_an_alarm_and_nothing_is_sent(real: Driven) -> None:
    real.submit(item("k"))
    real.core.handle(real.now, real.chain.look())
    assert real.core.handle(real.now, Differs("k", "another root")) == [
        Alarm("chain_mismatch", "k", "another root")
    ]
    real.now += SECOND
    assert real.core.handle(real.now, Found("k")) == []
    assert real.core.handle(real.now, Differs("k", "again")) == [], "not more often than it helps"


def test_gas_beyond_all_bounds_is_not_signed(real: Driven) -> None:
    real.submit(item("k"))
    real.core.handle(real.now, real.chain.look())
    (alarm,) = real.core.handle(real.now, Estimated("k", GAS_MAX + 1))
    assert isinstance(alarm, Alarm)
    assert alarm.code == "gas_too_low"


def test_a_spent_nonce_is_believed_only_at_the_depth_that_nothing_leaves(real: Driven) -> None:
    real.submit(item("k"))
    real.go()
    real.chain.spend()  # somebody else's transaction took its nonce
    real.go()
    assert len(real.rows["k"].attempts) == 1, "it could still be the other one that is gone"
    real.chain.go_back(1, keep_pool=False)
    real.chain.mine()
    real.go()
    assert real.chain.pool[0].key == "k", "the same bytes again"
    real.chain.spend()
    for _ in range(2):
        real.go()
        real.chain.mine()
    real.go()
    assert [attempt.nonce for attempt in real.rows["k"].attempts] == [0, 1]


def test_a_nonce_that_nobody_holds_is_spent_on_nothing(real: Driven) -> None:
    real.submit(item("gone"))
    real.submit(item("waits", 2))
    real.go()
    real.chain.pool.clear()
    for effect in real.core.handle(real.now, Refused("gone", "not as it is", sent=True)):
        real._do(effect)
    real.refused.add("gone")
    real.go()
    assert [(one.key, one.nonce) for one in real.chain.pool.values()] == [("", 0), ("waits", 1)]


def test_without_a_pool_it_takes_the_next_nonce_instead(instant: Driven) -> None:
    instant.chain.spend()
    instant.submit(item("k"))
    instant.go()
    instant.chain.go_back(2, keep_pool=False)
    instant.go()
    assert [(one.key, one.nonce) for one in instant.chain.mined] == [("k", 0)]
    assert [attempt.nonce for attempt in instant.rows["k"].attempts] == [1, 0]


def test_a_lane_that_the_chain_lost_is_sent_in_order_again(instant: Driven) -> None:
    for n in (1, 2, 3):
        instant.submit(item(f"k{n}", n, "epochs"))
    instant.go()
    instant.chain.go_back(3, keep_pool=False)
    instant.chain.spend()
    for _ in range(3):
        instant.go()
    assert [one.key for one in instant.chain.mined] == ["", "k1", "k2", "k3"]


def test_events_of_what_is_settled_are_nothing(real: Driven) -> None:
    assert real.core.handle(0, Sent("gone")) == []
    assert real.core.handle(0, Looked(1, b"", 0, FEES)) == []
