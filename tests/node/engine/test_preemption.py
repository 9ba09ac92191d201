"""Classes of jobs: who is preempted, how it goes on, and that nobody waits for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

from assay_node.engine.batcher import PREEMPTIONS_MAX, Batcher
from assay_node.engine.interface import (
    PRIORITIES,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NORMAL,
)
from assay_node.engine.plans import Copy, Drop, Plan, Restore, Save, Trim
from assay_node.engine.priorities import PASSES_MAX
from assay_node.engine.shelf import Shelf
from kv_memory import KvMemory, owners_of
from scheduling import CHUNK, CONTEXT, Scheduling

LONG = list(range(100, 120))
OTHER = list(range(200, 220))


def _batcher(slots: int = 1, context: int = CONTEXT) -> Batcher:
    return Batcher(slots=slots, context=context, chunk=CHUNK, total=20, waiting_max=60)


def _draw(batcher: Batcher, plan: Plan) -> list[int]:
    """Token 7 for every job that draws; the jobs that drew."""
    drew = [feed.job for feed in plan.feeds if feed.draws]
    for job in drew:
        batcher.drawn(job, 7, ends=False)
    return drew


def _step(batcher: Batcher) -> Plan:
    plan = batcher.plan()
    _draw(batcher, plan)
    return plan


def _run_until_drawn(batcher: Batcher, job: int, tokens: int = 1) -> None:
    while tokens:
        tokens -= job in _draw(batcher, batcher.plan())


def _preempted(*, saved: bool) -> tuple[Batcher, Plan]:
    """Job 1 drew two tokens, then job 2 took its slot and ended; what job 1 went on with."""
    batcher = _batcher()
    batcher.submit(1, LONG, 9, priority=PRIORITY_LOW)
    _run_until_drawn(batcher, 1, 2)
    batcher.submit(2, OTHER, 1)
    plan = batcher.plan()
    assert plan.moves == (Save(1, 0), Trim(0, 0))
    assert [feed.job for feed in plan.feeds] == [2]
    if saved:
        batcher.saved(1)
    _draw(batcher, plan)
    _run_until_drawn(batcher, 2)
    return batcher, batcher.plan()


def test_a_saved_job_is_restored_and_fed_only_what_was_not() -> None:
    batcher, plan = _preempted(saved=True)
    assert plan.moves == (Restore(1, 0),)
    assert [(feed.position, feed.tokens, feed.draws) for feed in plan.feeds] == [(21, (7,), True)]
    assert batcher.text(1) == [*LONG, 7, 7]


def test_a_job_that_was_not_saved_is_fed_again_in_pieces() -> None:
    batcher, plan = _preempted(saved=False)
    assert plan.moves == (Trim(0, 0),)
    pieces = [plan.feeds[0], batcher.plan().feeds[0], batcher.plan().feeds[0]]
    assert [len(piece.tokens) for piece in pieces] == [8, 8, 6]
    assert [piece.draws for piece in pieces] == [False, False, True]


def test_what_was_saved_is_dropped_where_a_slot_holds_as_much() -> None:
    batcher = _batcher()
    batcher.submit(1, LONG, 9, priority=PRIORITY_LOW)
    _run_until_drawn(batcher, 1)
    batcher.submit(2, LONG, 1)
    plan = batcher.plan()
    assert plan.moves == (Save(1, 0), Trim(0, 19))
    batcher.saved(1)
    _draw(batcher, plan)
    assert batcher.plan().moves == (Drop(1), Trim(0, 20))


def test_the_lowest_class_and_in_it_the_last_admitted_is_preempted() -> None:
    batcher = _batcher(slots=3)
    batcher.submit(1, [1], 50, priority=PRIORITY_NORMAL)
    for job in (2, 3):
        batcher.submit(job, [job], 50, priority=PRIORITY_LOW)
        _step(batcher)
    batcher.submit(4, [4], 50, priority=PRIORITY_HIGH)
    assert {feed.job for feed in _step(batcher).feeds} == {1, 2, 4}
    batcher.submit(5, [5], 50, priority=PRIORITY_HIGH)
    assert {feed.job for feed in _step(batcher).feeds} == {1, 4, 5}
    assert batcher.cancel(4)
    assert {feed.job for feed in _step(batcher).feeds} == {1, 2, 5}, "first preempted, last back"


@pytest.mark.parametrize("priority", PRIORITIES)
def test_nobody_is_preempted_by_its_own_class(priority: int) -> None:
    batcher = _batcher()
    batcher.submit(1, [1], 9, priority=priority)
    _step(batcher)
    batcher.submit(2, [2], 9, priority=priority)
    assert [feed.job for feed in batcher.plan().feeds] == [1]


def test_a_job_is_preempted_only_so_often() -> None:
    batcher = _batcher()
    batcher.submit(0, [9], 40, priority=PRIORITY_LOW)
    _step(batcher)
    order = []
    for number in range(1, 3 * PREEMPTIONS_MAX):
        batcher.submit(number, [number], 1, priority=PRIORITY_HIGH)
        order += [feed.job for feed in _step(batcher).feeds]
        if order[-1] == number:
            order += [feed.job for feed in _step(batcher).feeds]
    assert order[: 2 * PREEMPTIONS_MAX] == [1, 0, 2, 0, 3, 0]
    assert set(order[2 * PREEMPTIONS_MAX :]) == {0}


def test_a_class_that_was_passed_over_often_is_served_and_not_preempted() -> None:
    batcher = _batcher()
    batcher.submit(0, [9], 3, priority=PRIORITY_LOW)
    order = []
    for number in range(1, 20):
        batcher.submit(number, [number], 1, priority=PRIORITY_HIGH)
        order += [feed.job for feed in _step(batcher).feeds]
    assert order[:PASSES_MAX] == list(range(1, PASSES_MAX + 1))
    assert order[PASSES_MAX : PASSES_MAX + 3] == [0, 0, 0]


def test_a_cancelled_preempted_job_is_forgotten() -> None:
    batcher = _batcher()
    batcher.submit(1, LONG, 9, priority=PRIORITY_LOW)
    _run_until_drawn(batcher, 1)
    batcher.submit(2, [2], 2)
    _step(batcher)
    assert (batcher.running, batcher.waiting) == (1, 1)
    assert batcher.cancel(1)
    _step(batcher)
    assert (batcher.running, batcher.waiting) == (0, 0)
    assert batcher.plan() == Plan()


def test_a_copy_that_is_not_fed_yet_survives_that_its_source_is_given_away() -> None:
    batcher, memory = _batcher(slots=6, context=200), KvMemory(6, 200)
    prompts = {1: [*LONG, 1], 2: [*LONG, 2], 3: [*LONG[:10], 3]}
    prompts |= {job: [1000 * job + i for i in range(100)] for job in (10, 11, 12)}

    def step() -> None:
        plan = batcher.plan()
        memory.make(plan)
        memory.decode(plan.feeds, owners_of(batcher))
        for feed in plan.feeds:
            if feed.draws:
                assert memory.tokens(feed.slot) == list(batcher.text(feed.job))
                batcher.drawn(feed.job, 7, ends=feed.job == 1 and batcher.running > 1)

    batcher.submit(1, prompts[1], 5)
    for _ in range(3):
        step()
    for job in (10, 11, 12, 2):
        batcher.submit(job, prompts[job], 3)
    step()
    assert "Copy" in memory.moved
    batcher.submit(3, prompts[3], 3)
    while batcher.running:
        step()


def test_a_free_slot_is_copied_where_much_of_it_would_be_lost() -> None:
    batcher = _batcher(slots=2)
    batcher.submit(1, LONG + OTHER, 1)
    _run_until_drawn(batcher, 1)
    batcher.submit(2, [*LONG, 1], 1)
    assert batcher.plan().moves == (Copy(0, 1), Trim(1, 20))
    batcher.drawn(2, 7, ends=True)
    batcher.submit(3, [*LONG, *OTHER, 1], 1)
    assert batcher.plan().moves == (Trim(0, 40),), "what the second began with is still there"


def test_a_free_slot_is_used_itself_where_another_was_used_later() -> None:
    batcher = _batcher(slots=2)
    batcher.submit(1, LONG + OTHER, 1)
    _run_until_drawn(batcher, 1)
    batcher.submit(2, [9] * 30, 1)
    _run_until_drawn(batcher, 2)
    batcher.submit(3, [*LONG, 1], 1)
    assert batcher.plan().moves == (Trim(0, 20),)


def test_nothing_is_restored_over_what_is_still_to_be_copied() -> None:
    batcher = _batcher(slots=2)
    batcher.submit(1, LONG, 9, priority=PRIORITY_LOW)
    _run_until_drawn(batcher, 1)
    batcher.submit(2, OTHER * 2, 9)
    _run_until_drawn(batcher, 2)
    batcher.submit(3, [3], 9, priority=PRIORITY_HIGH)
    assert Save(1, 0) in _step(batcher).moves
    batcher.saved(1)
    batcher.submit(4, [*OTHER, 4], 9)
    assert batcher.cancel(3)
    assert batcher.cancel(2)
    plan = batcher.plan()
    assert plan.moves == (Copy(1, 0), Trim(0, 20), Drop(1), Trim(1, 0))


def test_the_shelf_takes_what_fits_and_forgets_what_is_taken() -> None:
    shelf = Shelf(10)
    shelf.put(1, np.zeros(6, np.uint8))
    assert not shelf.fits(5)
    assert shelf.fits(4)
    shelf.drop(2)
    assert shelf.take(1).nbytes == 6
    assert shelf.held_bytes == 0


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=40, stateful_step_count=40)
