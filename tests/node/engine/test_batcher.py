"""The scheduler against a model of the KV memory it plans for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.engine.batcher import TOLD_ROWS_MAX, Batcher
from assay_node.engine.plans import Copy, Feed, Plan, Trim
from assay_protocol.errors import AssayError
from kv_memory import KvMemory, owners_of

CHUNK = 8
TOTAL = 20
CONTEXT = 40


def _batcher(slots: int = 2, waiting_max: int = 4) -> Batcher:
    return Batcher(slots=slots, context=CONTEXT, chunk=CHUNK, total=TOTAL, waiting_max=waiting_max)


def test_a_job_waits_for_a_slot_and_is_admitted_when_one_is_free() -> None:
    batcher = _batcher(slots=1)
    batcher.submit(1, [5, 6], 1)
    batcher.submit(2, [7], 1)
    assert batcher.plan() == Plan((Trim(0, 0),), (Feed(1, 0, (5, 6), 0, draws=True),))
    assert (batcher.running, batcher.waiting) == (1, 1)
    assert batcher.drawn(1, 9, ends=False) == "length"
    assert [feed.job for feed in batcher.plan().feeds] == [2]


def test_a_long_prompt_is_cut_while_others_decode() -> None:
    batcher = _batcher()
    batcher.submit(1, [1], 10)
    batcher.plan()
    batcher.drawn(1, 2, ends=False)
    batcher.submit(2, list(range(20)), 5)
    sizes = []
    for _ in range(3):
        feeds = {feed.job: feed for feed in batcher.plan().feeds}
        assert feeds[1].draws
        sizes.append(len(feeds[2].tokens))
        batcher.drawn(1, 2, ends=False)
    assert sizes == [8, 8, 4]
    assert feeds[2].draws


def test_prompts_share_one_budget_oldest_first() -> None:
    batcher = _batcher(slots=4)
    for job in range(4):
        batcher.submit(job, list(range(100 * job, 100 * job + 10)), 5)
    assert [len(feed.tokens) for feed in batcher.plan().feeds] == [8, 8, 4]


def test_the_budget_is_one_chunk_while_more_decode_than_wait_for_their_first_token() -> None:
    batcher = _batcher(slots=4)
    batcher.submit(0, [1], 5)
    batcher.submit(1, [2], 5)
    batcher.plan()
    for job in range(2):
        batcher.drawn(job, 9, ends=False)
    batcher.submit(2, list(range(100, 110)), 5)
    assert [len(feed.tokens) for feed in batcher.plan().feeds] == [1, 1, 8]
    for job in range(2):
        batcher.drawn(job, 9, ends=False)
    batcher.submit(3, list(range(200, 210)), 5)
    assert [len(feed.tokens) for feed in batcher.plan().feeds] == [1, 1, 2, 8]


def test_the_longest_kept_prefix_is_reused() -> None:
    batcher = _batcher()
    batcher.submit(1, [1, 2, 3, 4], 2)
    batcher.plan()
    batcher.drawn(1, 5, ends=True)
    batcher.submit(2, [1, 2, 3, 9, 9], 2)
    (feed,) = batcher.plan().feeds
    assert (feed.position, feed.tokens, feed.slot) == (3, (9, 9), 0)


def test_a_repeated_prompt_still_feeds_its_last_token() -> None:
    batcher = _batcher()
    for job in (1, 2):
        batcher.submit(job, [1, 2, 3], 1)
        (feed,) = batcher.plan().feeds
        batcher.drawn(job, 7, ends=False)
    assert feed.tokens == (3,)
    assert feed.draws


def test_end_of_generation_finishes_with_stop() -> None:
    batcher = _batcher()
    batcher.submit(1, [1], 10)
    batcher.plan()
    assert batcher.drawn(1, 0, ends=True) == "stop"
    assert batcher.running == 0


def test_what_does_not_fit_is_refused() -> None:
    batcher = _batcher(slots=1, waiting_max=1)
    with pytest.raises(AssayError) as caught:
        batcher.submit(1, [1] * 30, 11)
    assert caught.value.code == "prompt_too_long"
    batcher.submit(1, [1] * 30, 10)
    batcher.submit(2, [1], 1)
    with pytest.raises(AssayError) as caught:
        batcher.submit(3, [1], 1)
    assert caught.value.code == "busy"


def test_cancel_frees_the_slot_of_a_running_and_forgets_a_waiting_job() -> None:
    batcher = _batcher(slots=1)
    batcher.submit(1, list(range(20)), 5)
    batcher.submit(2, [1], 1)
    batcher.submit(3, [2], 1)
    batcher.plan()
    assert batcher.cancel(1)
    assert batcher.cancel(2)
    assert not batcher.cancel(1)
    assert [feed.job for feed in batcher.plan().feeds] == [3]


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(st.integers(0, 2), min_size=1, max_size=30)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("step"), st.integers(0, 9)),
    ),
    max_size=60,
)


@given(slots=st.integers(1, 4), steps=_STEPS)
def test_every_plan_can_be_decoded_and_every_job_ends(
    slots: int, steps: list[tuple[str, object]]
) -> None:
    batcher, memory = _batcher(slots=slots), KvMemory(slots, CONTEXT)
    texts: dict[int, list[int]] = {}
    alive: set[int] = set()
    refusals: list[str] = []

    def step(draw: int) -> None:
        plan = batcher.plan()
        feeds = plan.feeds
        prefill = sum(len(feed.tokens) for feed in feeds if len(feed.tokens) > 1)
        assert prefill <= TOTAL
        assert all(len(feed.tokens) <= CHUNK for feed in feeds)
        memory.make(plan)
        memory.decode(feeds, owners_of(batcher))
        for feed in feeds:
            if feed.draws:
                assert memory.tokens(feed.slot) == texts[feed.job], "another job's tokens"
                texts[feed.job].append(draw)
                if batcher.drawn(feed.job, draw, ends=draw == 9) is not None:
                    alive.remove(feed.job)

    for number, (what, value) in enumerate(steps):
        match what, value:
            case "submit", list():
                try:
                    batcher.submit(number, value, CONTEXT - len(value))
                except AssayError as error:
                    refusals.append(error.code)
                else:
                    texts[number] = list(value)
                    alive.add(number)
            case "cancel", int() if alive:
                job = sorted(alive)[value % len(alive)]
                alive.remove(job)
                assert batcher.cancel(job)
            case "step", int():
                step(value)
    for _ in range((CONTEXT + 4) * (len(alive) + 1)):
        step(1)
    assert not alive
    assert batcher.plan() == Plan()
    assert set(refusals) <= {"busy"}


_LONG = list(range(100, 130))


def _fed(batcher: Batcher) -> dict[int, Feed]:
    return {feed.job: feed for feed in batcher.plan().feeds}


def test_a_job_waits_for_a_prefix_that_is_being_fed_and_then_copies_it() -> None:
    batcher = _batcher()
    batcher.submit(1, [*_LONG, 1], 5)
    batcher.submit(2, [*_LONG, 2], 5)
    for _ in range(4):
        feeds = _fed(batcher)
        assert set(feeds) == {1}, "fed twice"
    assert feeds[1].draws
    batcher.drawn(1, 9, ends=False)
    plan = batcher.plan()
    (second,) = [feed for feed in plan.feeds if feed.job == 2]
    assert plan.moves == (Copy(feeds[1].slot, second.slot), Trim(second.slot, 30))
    assert (second.position, second.tokens) == (30, (2,))


def test_whoever_shares_nothing_passes_a_job_that_waits() -> None:
    batcher = _batcher()
    batcher.submit(1, [*_LONG, 1], 5)
    batcher.submit(2, [*_LONG, 2], 5)
    batcher.submit(3, [7], 5)
    batcher.plan()
    assert batcher.running == 2
    assert batcher.waiting == 1
    assert batcher.cancel(2)


@pytest.mark.parametrize("wait", [0, 2])
def test_a_job_is_held_back_once_though_what_it_waits_for_is_cancelled(wait: int) -> None:
    batcher = _batcher(slots=3)
    batcher.submit(1, [*_LONG, 1], 5)
    batcher.submit(2, [*_LONG, 2], 5)
    for _ in range(1 + wait):
        batcher.plan()
    assert batcher.cancel(1)
    batcher.submit(3, [*_LONG, 3], 5)
    assert 2 in _fed(batcher)


def test_tenants_neither_reuse_nor_copy_nor_await_what_others_sent() -> None:
    batcher = _batcher()
    batcher.submit(1, [*_LONG, 1], 5, tenant=b"a")
    batcher.submit(2, [*_LONG, 2], 5, tenant=b"b")
    assert batcher.plan().feeds
    assert batcher.running == 2
    for _ in range(10):
        plan = batcher.plan()
        assert not any(isinstance(move, Copy) for move in plan.moves)
        for feed in plan.feeds:
            if feed.draws:
                batcher.drawn(feed.job, 9, ends=True)
    batcher.submit(3, [*_LONG, 1], 5, tenant=b"c")
    (feed,) = batcher.plan().feeds
    assert feed.position == 0


@pytest.mark.parametrize(("first", "second", "reused"), [(20, 30, 20), (0, 30, 0), (30, 9, 9)])
def test_between_tenants_only_what_both_mark_shared_is_reused(
    first: int, second: int, reused: int
) -> None:
    batcher = _batcher(slots=1)
    batcher.submit(1, [*_LONG, 1], 5, tenant=b"a", shared=first)
    while batcher.running or batcher.waiting:
        for feed in batcher.plan().feeds:
            if feed.draws:
                batcher.drawn(1, 9, ends=True)
    batcher.submit(2, [*_LONG, 2], 5, tenant=b"b", shared=second)
    (feed,) = batcher.plan().feeds
    assert feed.position == reused


def test_a_tenant_with_many_jobs_does_not_keep_another_waiting() -> None:
    batcher = _batcher(slots=1, waiting_max=20)
    for number in range(10):
        batcher.submit(number, [number], CONTEXT - 1, tenant=b"greedy")
    batcher.submit(99, [99], 1, tenant=b"modest")
    order: list[int] = []
    while len(order) < 3:
        (feed,) = batcher.plan().feeds
        order.append(feed.job)
        batcher.drawn(feed.job, 0, ends=True)
    assert order == [0, 99, 1]


_TENANT_STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            st.tuples(
                st.sampled_from([b"a", b"b"]),
                st.integers(0, 1),  # which long beginning
                st.integers(1, 36),  # how much of it
                st.sampled_from([0, 0, 20]),
            ),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("step"), st.just(0)),
    ),
    max_size=50,
)


@given(slots=st.integers(1, 4), steps=_TENANT_STEPS)
def test_copies_hold_the_right_tokens_and_no_stranger_learns_of_them(
    slots: int, steps: list[tuple[str, object]]
) -> None:
    batcher = _batcher(slots=slots, waiting_max=60)
    memory = KvMemory(slots, CONTEXT)
    jobs: dict[int, tuple[bytes, list[int], int]] = {}

    def step() -> None:
        plan = batcher.plan()
        assert plan.feeds or not jobs, "stuck"
        memory.make(plan)
        memory.decode(plan.feeds, owners_of(batcher))
        for feed in plan.feeds:
            if feed.draws:
                assert memory.tokens(feed.slot) == jobs[feed.job][1]
                jobs[feed.job][1].append(5)
                if batcher.drawn(feed.job, 5, ends=False) is not None:
                    del jobs[feed.job]

    for number, (what, value) in enumerate(steps):
        match what, value:
            case "submit", (bytes() as tenant, int() as kind, int() as length, int() as shared):
                text = [1000 * kind + i for i in range(length)]
                batcher.submit(number, text, 2, tenant=tenant, shared=min(shared, length))
                jobs[number] = (tenant, text, min(shared, length))
            case "cancel", int() if jobs:
                job = sorted(jobs)[value % len(jobs)]
                del jobs[job]
                assert batcher.cancel(job)
            case "step", _:
                step()
    for _ in range(60 * (len(jobs) + 1)):
        if jobs:
            step()
    assert not jobs
    assert batcher.plan() == Plan()


def test_a_job_that_asks_about_its_prompt_feeds_all_of_it_whatever_a_slot_holds() -> None:
    batcher = _batcher()
    batcher.submit(1, [1, 2, 3, 4], 2)
    batcher.plan()
    batcher.drawn(1, 5, ends=True)
    batcher.submit(2, [1, 2, 3, 9, 9], 2, asks=True)
    (feed,) = batcher.plan().feeds
    assert (feed.position, feed.tokens) == (0, (1, 2, 3, 9, 9))
    assert (feed.told, feed.rows, feed.wanted, feed.telling) == (4, 1, 5, 0)
    batcher.drawn(2, 5, ends=True)
    batcher.submit(3, [1, 2, 3, 9, 8], 2)
    (feed,) = batcher.plan().feeds
    assert (feed.position, feed.told) == (4, 0), "what it left is reused as ever"


def test_prompts_that_are_asked_about_share_a_bound_of_their_own() -> None:
    batcher = Batcher(slots=4, context=400, chunk=48, total=144, waiting_max=4)
    for job in range(3):
        batcher.submit(job, list(range(1000 * job, 1000 * job + 100)), 5, asks=job != 1)
    feeds = _fed(batcher)
    assert [(job, len(feed.tokens), feed.told) for job, feed in feeds.items()] == [
        (0, 48, 48),
        (1, 48, 0),
        (2, TOLD_ROWS_MAX - 48, TOLD_ROWS_MAX - 48),
    ]
