"""Jobs of several adapters in one scheduler: what one computed is never another's to use."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.engine.batcher import Batcher
from assay_node.engine.interface import PRIORITIES, PRIORITY_HIGH, PRIORITY_LOW
from assay_node.engine.plans import Copy, Plan, Restore, Save, Trim
from kv_memory import KvMemory

A, B = b"\x01" * 32, b"\x02" * 32
ADAPTERS = (None, A, B)
LONG = list(range(100, 120))
CONTEXT = 60


def _batcher(slots: int) -> Batcher:
    return Batcher(slots=slots, context=CONTEXT, chunk=8, total=20, waiting_max=60)


def _run(batcher: Batcher) -> list[Plan]:
    """Until every job is over."""
    plans = []
    while batcher.running or batcher.waiting:
        plans.append(batcher.plan())
        for feed in plans[-1].feeds:
            if feed.draws:
                batcher.drawn(feed.job, 7, ends=False)
    return plans


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_slot_is_used_again_with_its_own_adapter_only(adapter: bytes | None) -> None:
    batcher = _batcher(slots=1)
    batcher.submit(1, LONG, 2, adapter=A)
    _run(batcher)
    batcher.submit(2, [*LONG, 1], 1, adapter=adapter)
    reused = len(LONG) if adapter == A else 0
    assert batcher.plan().moves == (Trim(0, reused),)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_what_all_tenants_share_is_shared_with_one_adapter_only(adapter: bytes | None) -> None:
    batcher = _batcher(slots=1)
    batcher.submit(1, LONG, 2, tenant=b"a", shared=20)
    _run(batcher)
    batcher.submit(2, [*LONG, 1], 1, tenant=b"b", shared=20, adapter=adapter)
    assert batcher.plan().moves == (Trim(0, 0 if adapter else 20),)


def test_nobody_waits_for_what_another_adapter_is_being_fed() -> None:
    batcher = _batcher(slots=3)
    for job, adapter in enumerate(ADAPTERS):
        batcher.submit(job, [*LONG, job], 2, adapter=adapter)
    plans = _run(batcher)
    assert [type(move) for move in plans[0].moves] == [Trim] * 3
    assert not any(isinstance(move, Copy) for plan in plans for move in plan.moves)


def test_a_saved_state_goes_on_with_its_adapter_whatever_the_slot_held() -> None:
    batcher = _batcher(slots=1)
    batcher.submit(1, LONG, 9, priority=PRIORITY_LOW, adapter=A)
    while not batcher.plan().feeds[0].draws:
        continue
    batcher.drawn(1, 7, ends=False)
    batcher.submit(2, [*LONG, 7, 7], 1, priority=PRIORITY_HIGH, adapter=B)
    assert batcher.plan().moves == (Save(1, 0), Trim(0, 0))
    batcher.saved(1)
    while not batcher.plan().feeds[0].draws:
        continue
    batcher.drawn(2, 7, ends=False)
    plan = batcher.plan()
    assert plan.moves == (Restore(1, 0),), "not Drop: the slot's tokens are those of another"
    assert [adapter for adapter, _ in plan.groups] == [A]


def test_every_step_serves_all_adapters_in_one_order() -> None:
    batcher = _batcher(slots=4)
    for job, adapter in enumerate((B, None, A, B)):
        batcher.submit(job, [job], 5, adapter=adapter)
    for plan in _run(batcher):
        found = [(adapter, [feed.job for feed in feeds]) for adapter, feeds in plan.groups]
        assert found == [(None, [1]), (A, [2]), (B, [0, 3])]


@dataclass
class _World:
    """A batcher, the memory it plans for, and what each job should have computed."""

    batcher: Batcher
    memory: KvMemory
    texts: dict[int, list[int]] = field(default_factory=dict)
    adapters: dict[int, bytes | None] = field(default_factory=dict)

    def step(self) -> None:
        plan = self.batcher.plan()
        assert plan.feeds or not self.texts, "stuck"
        for job in self.memory.make(plan):
            self.batcher.saved(job)
        running = self.batcher._running.values()
        # The memory knows cells by owner and refuses others': here the owner is the adapter.
        owners = {job.slot: (self.adapters[job.id] or b"", 0) for job in running}
        seen = []
        for adapter, feeds in plan.groups:
            self.memory.decode(tuple(feeds), owners)
            for feed in feeds:
                assert self.adapters[feed.job] == feed.adapter == adapter
                seen.append(feed)
                if feed.draws:
                    self._draw(feed.job, feed.slot)
        assert sorted(seen, key=lambda feed: feed.slot) == list(plan.feeds)
        assert len({adapter for adapter, _ in plan.groups}) == len(plan.groups)

    def _draw(self, job: int, slot: int) -> None:
        assert self.memory.tokens(slot) == self.texts[job]
        self.texts[job].append(5)
        if self.batcher.drawn(job, 5, ends=False) is not None:
            del self.texts[job]


_JOBS = st.tuples(
    st.sampled_from(ADAPTERS),
    st.sampled_from([b"a", b"b"]),
    st.sampled_from(PRIORITIES),
    st.integers(1, 40),  # how much of the one text there is
    st.integers(0, 20),  # how much of it all may know
)
_STEPS = st.lists(st.one_of(_JOBS, st.just("step"), st.integers(0, 20)), max_size=40)


@given(slots=st.integers(1, 4), kept=st.sampled_from([0, 90]), steps=_STEPS)
def test_no_cell_is_ever_used_with_another_adapter(
    slots: int, kept: int, steps: list[object]
) -> None:
    world = _World(_batcher(slots), KvMemory(slots, CONTEXT, tokens_max=kept))
    for number, what in enumerate(steps):
        match what:
            case (
                bytes() | None as adapter,
                bytes() as tenant,
                int() as priority,
                int() as length,
                int() as shared,
            ):
                text = list(range(length))
                world.texts[number], world.adapters[number] = text, adapter
                world.batcher.submit(
                    number,
                    text,
                    4,
                    tenant=tenant,
                    shared=min(shared, length),
                    priority=priority,
                    adapter=adapter,
                )
            case "step":
                world.step()
            case int() if world.texts:
                job = sorted(world.texts)[what % len(world.texts)]
                del world.texts[job]
                world.memory.saved.pop(job, None)
                assert world.batcher.cancel(job)
    for _ in range(60 * (len(world.texts) + 1)):
        if world.texts:
            world.step()
    assert not world.texts
    assert world.batcher.plan() == Plan()
    assert not world.memory.saved
