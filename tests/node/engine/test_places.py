"""Slots side by side: every gap between those of one group is one more pass over the weights."""

from __future__ import annotations

import random

import pytest

from assay_node.engine.batcher import Batcher
from assay_node.engine.places import Place
from assay_node.engine.plans import Copy, Plan, Trim

ADAPTER = b"\x01" * 32
LONG = list(range(100, 120))


def _batcher(slots: int) -> Batcher:
    return Batcher(slots=slots, context=200, chunk=32, total=96, waiting_max=60)


def _passes(plan: Plan) -> int:
    """Runs of successive slots, of each group."""
    groups = [[feed.slot for feed in feeds] for _, feeds in plan.groups]
    return sum(slot - 1 not in slots for slots in groups for slot in slots)


def _draw(batcher: Batcher, plan: Plan, *, ends: bool = False) -> None:
    for feed in plan.feeds:
        if feed.draws:
            batcher.drawn(feed.job, 7, ends=ends)


def test_between_two_beside_one_far_from_others_then_the_oldest() -> None:
    def best(mine: list[int], others: list[int]) -> int:
        free = set(range(8)) - {*mine, *others}
        return min(Place.of(n, 10 - n, mine, others) for n in free).number

    assert best([0, 2, 5], []) == 1
    assert best([0], [2, 7]) == 1
    assert best([], [0]) == 7
    assert best([], [0, 7]) == 4
    assert best([], []) == 7


@pytest.mark.parametrize("adapters", [(None,), (None, ADAPTER)])
def test_jobs_that_come_in_turns_are_decoded_in_one_pass_of_each_group(
    adapters: tuple[bytes | None, ...],
) -> None:
    batcher = _batcher(slots=12)
    for job in range(8):
        batcher.submit(job, [job], 20, adapter=adapters[job % len(adapters)])
        plan = batcher.plan()
        _draw(batcher, plan)
    assert _passes(plan) == len(adapters)


def test_at_a_third_of_the_slots_there_is_seldom_a_gap() -> None:
    batcher, numbers = _batcher(slots=12), random.Random(1)
    passes = steps = job = 0
    while steps < 1_000:
        while batcher.running < 4:
            job += 1
            batcher.submit(job, [job], numbers.randint(5, 80))
            _draw(batcher, batcher.plan())
        plan = batcher.plan()
        passes, steps = passes + _passes(plan), steps + 1
        _draw(batcher, plan)
    assert passes < 1.2 * steps


def test_a_long_prefix_far_away_is_copied_to_where_it_is_decoded_at_once() -> None:
    batcher = _batcher(slots=4)
    for job, text in ((1, LONG), (2, [5]), (3, [6])):
        batcher.submit(job, text, 3)
    _draw(batcher, batcher.plan())
    batcher.cancel(2)
    batcher.cancel(1)
    assert [feed.slot for feed in batcher.plan().feeds] == [2]
    batcher.submit(4, [*LONG, 4], 3)
    assert batcher.plan().moves == (Copy(0, 3), Trim(3, 20))


def test_a_short_prefix_far_away_is_fed_again() -> None:
    batcher = _batcher(slots=4)
    for job, text in ((1, [1, 2, 3]), (2, [5]), (3, [6])):
        batcher.submit(job, text, 3)
    _draw(batcher, batcher.plan())
    batcher.cancel(2)
    batcher.cancel(1)
    batcher.submit(4, [1, 2, 4], 3)
    assert batcher.plan().moves == (Trim(3, 0),)
