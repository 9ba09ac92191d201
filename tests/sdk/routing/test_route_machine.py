"""The router's decisions, in virtual time and under any order of events."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.routing.core.events import (
    Begin,
    Cancel,
    Effect,
    Event,
    Failed,
    FirstToken,
    GiveUp,
    Start,
    Tick,
    Whole,
)
from assay.routing.core.machine import (
    RETRY_US,
    RETRY_US_MAX,
    Allowed,
    Phase,
    RouteMachine,
    Shares,
)
from assay.routing.core.plans import CASES, Plan, Routes, Target, case_of
from assay.routing.core.share import SAVED_MAX, Share

OPEN = Allowed(upstream=True, hedge=True, upstream_retries=1)
CODES = (
    "model_not_found", "no_capacity", "engine_failed", "context_length_exceeded",
    "insufficient_credit", "insufficient_quota", "invalid_value", "upstream_failed",
    "upstream_rate_limited", "upstream_refused",
)  # fmt: skip


def shares(retry: int = 1_000, hedge: int = 1_000) -> Shares:
    return Shares(Share(retry), Share(hedge))


def machine(plan: Plan, allowed: Allowed = OPEN, given: Shares | None = None) -> RouteMachine:
    return RouteMachine(plan, allowed, given or shares())


def told(effects: Sequence[Effect]) -> list[str]:
    """Effects in words."""
    words = []
    for effect in effects:
        match effect:
            case Start(attempt, target, why, _):
                words.append(f"{why} {attempt} {target}")
            case Cancel(attempt):
                words.append(f"cancel {attempt}")
            case GiveUp(attempt):
                words.append(f"give up {attempt}")
    return words


def test_a_name_without_a_plan_is_a_model_of_the_network() -> None:
    one = machine(Routes().plan("m"))
    assert told(one.handle(0, Begin())) == ["first 0 m"]
    assert one.wake_at is None
    assert one.handle(5, FirstToken(0)) == []
    assert one.handle(9, Whole(0)) == []
    assert (one.phase, one.answering) == (Phase.OVER, 0)


def test_the_next_model_answers_where_one_cannot() -> None:
    one = machine(Plan(network=("a", "b", "c")))
    one.handle(0, Begin())
    assert told(one.handle(1, Failed(0, "no_capacity"))) == ["fallback 1 b"]
    assert told(one.handle(2, Failed(1, "model_not_found"))) == ["fallback 2 c"]
    assert told(one.handle(3, Failed(2, "engine_failed"))) == ["give up 2"]


@pytest.mark.parametrize("code", ["invalid_value", "insufficient_quota", "content_filter"])
def test_what_is_the_callers_own_fault_is_told_at_once(code: str) -> None:
    one = machine(Plan(network=("a", "b")))
    one.handle(0, Begin())
    assert told(one.handle(1, Failed(0, code))) == ["give up 0"]


def test_nothing_takes_over_once_there_is_a_token() -> None:
    one = machine(Plan(network=("a", "b"), upstream="u", upstream_when=CASES))
    one.handle(0, Begin())
    one.handle(1, FirstToken(0))
    assert told(one.handle(2, Failed(0, "engine_failed"))) == ["give up 0"]


def test_a_charged_failure_is_not_paid_twice() -> None:
    one = machine(Plan(network=("a", "b")))
    one.handle(0, Begin())
    assert told(one.handle(1, Failed(0, "timeout", charged=True))) == ["give up 0"]


@pytest.mark.parametrize("code", ["no_capacity", "engine_failed", "insufficient_credit"])
@pytest.mark.parametrize("case", CASES)
def test_the_upstream_is_asked_in_the_cases_of_its_plan_alone(code: str, case: str) -> None:
    plan = Plan(network=("a",), upstream="u", upstream_model="m", upstream_when=(case,))
    one = machine(plan)
    one.handle(0, Begin())
    wanted = ["fallback 1 u:m"] if case == case_of(code) else ["give up 0"]
    assert told(one.handle(1, Failed(0, code))) == wanted
    forbidden = machine(plan, Allowed(upstream=False))
    forbidden.handle(0, Begin())
    assert told(forbidden.handle(1, Failed(0, code))) == ["give up 0"]


def test_a_name_that_only_an_upstream_has() -> None:
    plan = Plan(upstream="u", upstream_model="m", upstream_when=("unserved",))
    assert told(machine(plan).handle(0, Begin())) == ["first 0 u:m"]
    assert told(machine(plan, Allowed()).handle(0, Begin())) == ["give up None"]


def test_a_target_that_is_too_slow_is_left_for_the_next() -> None:
    plan = Plan(
        network=("a",), upstream="u", upstream_model="m", upstream_when=("slow",),
        first_token_ms=50,
    )  # fmt: skip
    one = machine(plan)
    one.handle(0, Begin())
    assert one.wake_at == 50_000
    assert one.handle(49_999, Tick()) == []
    assert told(one.handle(50_000, Tick())) == ["cancel 0", "fallback 1 u:m"]
    assert one.wake_at is None, "nobody could take the last one's place"
    assert one.handle(50_001, FirstToken(0)) == []
    assert one.answering is None, "what was given up does not answer"
    alone = machine(plan, Allowed(upstream=False))
    alone.handle(0, Begin())
    assert alone.wake_at is None


def test_a_hedge_runs_beside_and_the_first_token_decides() -> None:
    one = machine(Plan(network=("a", "b"), hedge_after_ms=40))
    one.handle(0, Begin())
    at = one.wake_at
    assert at is not None
    assert 40_000 <= at <= 50_000
    (start,) = one.handle(at, Tick())
    assert start == Start(1, Target("a"), "hedge", beside=0)
    assert one.wake_at is None, "once a request"
    assert told(one.handle(at + 1, FirstToken(1))) == ["cancel 0"]
    assert one.answering == 1


def test_an_upstream_is_not_hedged() -> None:
    plan = Plan(upstream="u", upstream_when=("unserved",), hedge_after_ms=40)
    one = machine(plan)
    one.handle(0, Begin())
    assert one.wake_at is None
    assert one.handle(60_000, Tick()) == []


def test_a_hedge_that_fails_changes_nothing() -> None:
    plan = Plan(network=("a",), hedge_after_ms=40, upstream="u", upstream_when=("no_node",))
    one = machine(plan)
    one.handle(0, Begin())
    one.handle(50_000, Tick())
    assert one.handle(50_001, Failed(1, "insufficient_quota")) == []
    assert told(one.handle(50_002, Failed(0, "engine_failed"))) == ["give up 0"]


def test_the_hedge_goes_on_where_the_first_fails() -> None:
    one = machine(Plan(network=("a", "b"), hedge_after_ms=40))
    one.handle(0, Begin())
    one.handle(50_000, Tick())
    assert one.handle(50_001, Failed(0, "engine_failed")) == []
    assert told(one.handle(50_002, Failed(1, "insufficient_quota"))) == ["fallback 2 b"]


def test_an_upstream_is_tried_again_once_and_after_a_pause() -> None:
    plan = Plan(upstream="u", upstream_model="m", upstream_when=("unserved",))
    one = machine(plan)
    one.handle(0, Begin())
    assert one.handle(10, Failed(0, "upstream_failed")) == []
    at = one.wake_at
    assert at is not None
    assert RETRY_US + 10 <= at <= RETRY_US * 5 // 4 + 10
    assert told(one.handle(at, Tick())) == ["retry 1 u:m"]
    assert told(one.handle(at + 1, Failed(1, "upstream_failed"))) == ["give up 1"]


def test_a_spent_share_of_retries_ends_the_request() -> None:
    plan = Plan(upstream="u", upstream_model="m", upstream_when=("unserved",))
    one = machine(plan, given=shares(retry=0))
    one.handle(0, Begin())
    assert told(one.handle(10, Failed(0, "upstream_failed"))) == ["give up 0"]


def test_an_upstream_that_says_when_to_come_is_obeyed_within_reason() -> None:
    plan = Plan(upstream="u", upstream_model="m", upstream_when=("unserved",))
    one = machine(plan)
    one.handle(0, Begin())
    one.handle(0, Failed(0, "upstream_rate_limited", retry_after_us=3_000_000))
    assert one.wake_at == 3_000_000
    two = machine(plan)
    two.handle(0, Begin())
    late = Failed(0, "upstream_rate_limited", retry_after_us=RETRY_US_MAX + 1)
    assert told(two.handle(0, late)) == ["give up 0"]


@given(st.integers(0, 1_000), st.lists(st.booleans(), max_size=300))
def test_no_more_than_the_share_is_used(permille: int, wanted: list[bool]) -> None:
    share, used = Share(permille), 0
    for n, want in enumerate(wanted, 1):
        share.add()
        used += want and share.take()
        assert used * 1_000 <= n * permille + SAVED_MAX * 1_000
    assert permille or not used


def test_a_spent_share_of_hedges_lets_the_first_go_on_alone() -> None:
    given_out = shares(hedge=100)
    plan, hedged = Plan(network=("a",), hedge_after_ms=1), 0
    for _ in range(200):
        one = RouteMachine(plan, OPEN, given_out)
        one.handle(0, Begin())
        hedged += len(one.handle(2_000, Tick()))
    assert hedged == SAVED_MAX + 200 // 10 - 1  # the tenth of a request that came last is saved


PLANS = st.builds(
    Plan,
    network=st.lists(st.sampled_from("abc"), max_size=3, unique=True).map(tuple),
    upstream=st.sampled_from(("", "u")),
    upstream_model=st.just("m"),
    upstream_when=st.lists(st.sampled_from(CASES), unique=True).map(tuple),
    first_token_ms=st.sampled_from((0, 5, 50)),
    hedge_after_ms=st.sampled_from((0, 5, 50)),
)
ALLOWED = st.builds(
    Allowed, upstream=st.booleans(), hedge=st.booleans(), upstream_retries=st.integers(0, 2)
)
HAPPENINGS = st.lists(
    st.tuples(
        st.integers(0, 60_000),
        st.one_of(
            st.builds(FirstToken, st.integers(0, 6)),
            st.builds(Whole, st.integers(0, 6)),
            st.builds(Failed, st.integers(0, 6), st.sampled_from(CODES), st.booleans()),
            st.just(Tick()),
        ),
    ),
    max_size=40,
)


class Watched:
    """A machine and what must hold of it, whatever comes."""

    def __init__(self, plan: Plan, allowed: Allowed) -> None:
        self.machine, self.plan, self.allowed = machine(plan, allowed), plan, allowed
        self.running: dict[int, Target] = {}
        self.answer: int | None = None
        self.hedges = 0
        self.cases = set() if plan.network else {"unserved"}

    def handle(self, now: int, event: Event) -> None:
        if isinstance(event, Failed) and event.attempt in self.running:
            self.cases |= {case_of(event.code) or ""}
            del self.running[event.attempt]
        if isinstance(event, Whole):
            self.running.pop(event.attempt, None)
        slow = self.plan.first_token_ms > 0
        for effect in self.machine.handle(now, event):
            match effect:
                case Start(attempt, target, why, _):
                    self._started(attempt, target, why, slow)
                case Cancel(attempt):
                    del self.running[attempt]
                case GiveUp():
                    assert not self.running
        if self.answer is not None:
            assert self.machine.answering == self.answer, "an answer is of one attempt alone"
        self.answer = self.machine.answering
        assert (self.machine.phase is not Phase.OVER) or self.machine.wake_at is None
        waits = self.machine.wake_at is not None or bool(self.running)
        assert waits or self.machine.phase is Phase.OVER, "nothing will ever happen again"

    def _started(self, attempt: int, target: Target, why: str, slow: bool) -> None:
        assert self.machine.answering is None, "nobody takes an answer over"
        if target.upstream:
            seen = self.cases | ({"slow"} if slow else set())
            assert self.allowed.upstream
            assert seen & set(self.plan.upstream_when)
        if why == "hedge":
            self.hedges += 1
            assert self.allowed.hedge
            assert not target.upstream
            assert list(self.running.values()) == [target]
        else:
            assert not self.running
        self.running[attempt] = target
        assert attempt <= 2 * len(self.plan.network) + 3, "attempts are bounded"


@given(PLANS, ALLOWED, HAPPENINGS)
def test_whatever_happens(
    plan: Plan, allowed: Allowed, happenings: list[tuple[int, Event]]
) -> None:
    watched, now = Watched(plan, allowed), 0
    watched.handle(0, Begin())
    for later, event in happenings:
        now += later
        watched.handle(now, event)
    for attempt in sorted(watched.running):  # whatever is left ends, and so does the request
        watched.handle(now, Failed(attempt, "engine_failed"))
    for _ in range(20):
        if watched.machine.phase is Phase.OVER:
            break
        now = max(now, watched.machine.wake_at or now)
        watched.handle(now, Tick())
        for attempt in sorted(watched.running):
            watched.handle(now, Failed(attempt, "engine_failed"))
    assert watched.machine.phase is Phase.OVER


@given(PLANS, HAPPENINGS)
def test_the_same_requests_give_the_same_decisions(
    plan: Plan, happenings: list[tuple[int, Event]]
) -> None:
    def run() -> list[list[str]]:
        one, now = RouteMachine(plan, OPEN, shares(), seed=7), 0
        found = [told(one.handle(0, Begin()))]
        for later, event in happenings:
            now += later
            found.append(told(one.handle(now, event)))
        return found

    assert run() == run()
