"""The scheduler against a model of the KV memory it plans for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.engine.batcher import Batcher, Feed
from assay_protocol.errors import AssayError

CHUNK = 8
CONTEXT = 40


def _batcher(slots: int = 2, waiting_max: int = 4) -> Batcher:
    return Batcher(slots=slots, context=CONTEXT, chunk=CHUNK, waiting_max=waiting_max)


class Memory:
    """What llama.cpp would hold: refuses any plan it could not decode."""

    def __init__(self, slots: int) -> None:
        self.cells: list[list[int]] = [[] for _ in range(slots)]

    def decode(self, feeds: tuple[Feed, ...]) -> None:
        assert len({feed.slot for feed in feeds}) == len(feeds)
        for feed in feeds:
            cells = self.cells[feed.slot]
            if feed.fresh:
                del cells[feed.position :]
            assert len(cells) == feed.position, "a hole or an overlap in the sequence"
            cells.extend(feed.tokens)
            assert 0 < len(feed.tokens) <= CHUNK
            assert len(cells) <= CONTEXT


def test_a_job_waits_for_a_slot_and_is_admitted_when_one_is_free() -> None:
    batcher = _batcher(slots=1)
    batcher.submit(1, [5, 6], 1)
    batcher.submit(2, [7], 1)
    (first,) = batcher.plan()
    assert (first.job, first.tokens, first.fresh, first.draws) == (1, (5, 6), True, True)
    assert (batcher.running, batcher.waiting) == (1, 1)
    assert batcher.drawn(1, 9, ends=False) == "length"
    assert [feed.job for feed in batcher.plan()] == [2]


def test_a_long_prompt_is_cut_while_others_decode() -> None:
    batcher = _batcher()
    batcher.submit(1, [1], 10)
    batcher.plan()
    batcher.drawn(1, 2, ends=False)
    batcher.submit(2, list(range(20)), 5)
    sizes = []
    for _ in range(3):
        feeds = {feed.job: feed for feed in batcher.plan()}
        assert feeds[1].draws
        sizes.append(len(feeds[2].tokens))
        batcher.drawn(1, 2, ends=False)
    assert sizes == [8, 8, 4]
    assert feeds[2].draws


def test_prompts_share_one_budget_oldest_first() -> None:
    batcher = _batcher()
    batcher.submit(1, list(range(5)), 5)
    batcher.submit(2, list(range(100, 110)), 5)
    assert [len(feed.tokens) for feed in batcher.plan()] == [5, 3]


def test_the_longest_kept_prefix_is_reused() -> None:
    batcher = _batcher()
    batcher.submit(1, [1, 2, 3, 4], 2)
    batcher.plan()
    batcher.drawn(1, 5, ends=True)
    batcher.submit(2, [1, 2, 3, 9, 9], 2)
    (feed,) = batcher.plan()
    assert (feed.position, feed.tokens, feed.slot) == (3, (9, 9), 0)


def test_a_repeated_prompt_still_feeds_its_last_token() -> None:
    batcher = _batcher()
    for job in (1, 2):
        batcher.submit(job, [1, 2, 3], 1)
        (feed,) = batcher.plan()
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
    assert [feed.job for feed in batcher.plan()] == [3]


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
    batcher, memory = _batcher(slots=slots), Memory(slots)
    texts: dict[int, list[int]] = {}
    alive: set[int] = set()
    refusals: list[str] = []

    def step(draw: int) -> None:
        feeds = batcher.plan()
        prefill = sum(len(feed.tokens) for feed in feeds if len(feed.tokens) > 1)
        assert prefill <= CHUNK
        memory.decode(feeds)
        for feed in feeds:
            if feed.draws:
                assert memory.cells[feed.slot] == texts[feed.job], "another job's tokens"
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
    assert batcher.plan() == ()
    assert set(refusals) <= {"busy"}
