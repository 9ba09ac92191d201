"""Whether a coordinator does its work: told by its runtime, and until the cause is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from assay_coordinator import runtime as runtime_module
from assay_coordinator.core.coordinator import Stored
from assay_coordinator.core.events import EpochVoided, PostEpoch, PostRound
from assay_coordinator.core.records import Row
from assay_coordinator.health import Health
from assay_coordinator.metrics import CoordinatorMetrics
from assay_protocol.errors import AssayError
from coordinator.test_coordinator_runtime import EMPTY, epoch_of, running
from prometheus_text import samples


async def until(holds: Callable[[], object]) -> None:
    with trio.fail_after(20):
        while not holds():
            await trio.sleep(0.002)


async def test_what_a_failed_commit_takes_back_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime_module, "RESTORE_RETRY_SECONDS", 0.01)
    metrics, disk_is_well, loads = CoordinatorMetrics(), False, 0

    def commit(rows: list[Row]) -> None:
        if not disk_is_well:
            raise AssayError("storage_failed")

    def load(now: int) -> Stored:
        nonlocal loads
        loads += 1
        if loads > 1 and not disk_is_well:
            raise AssayError("storage_failed")
        return EMPTY

    voided = EpochVoided(1, standing=True)  # a row and a log event
    async with running(lambda key: b"", commit=commit, load=load, observe=metrics.observe) as up:
        up.tell(voided)
        await until(lambda: loads > 2)
        assert up.faults() == ["commit_failed"]
        assert samples(metrics.text())["assay_db_commit_batch_size_count"] == 0
        disk_is_well = True
        await until(lambda: not up.faults())
        up.tell(voided)
        await until(lambda: samples(metrics.text())["assay_db_commit_batch_size_count"])
    seen = samples(metrics.text())
    assert seen["assay_db_commit_batch_size_count"] == 1
    assert seen['assay_log_events_total{event="epoch_voided"}'] == 1
    assert up.health.commit_failures == 1


async def test_what_the_chain_does_not_take_is_a_fault_until_it_does(autojump_clock: Any) -> None:
    chain_is_there = False

    async def submit(effect: PostEpoch | PostRound) -> None:
        if not chain_is_there:
            raise AssayError("storage_failed")

    async with running(lambda key: b"", submit) as up:
        up._to_post.send_nowait(epoch_of(1))
        await trio.sleep(12)
        assert up.faults() == ["not_posted"]
        assert up.health.post_failures == 3  # at 0, 5 and 10 seconds
        chain_is_there = True
        await trio.sleep(6)
        assert up.faults() == []
        assert up.depths().posts == 0


async def test_a_full_queue_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(lambda key: b"") as up:
        assert up.faults() == []
        monkeypatch.setattr(runtime_module, "QUEUE_EVENTS_MAX", 0)
        assert up.faults() == ["queue_full"]


def test_several_faults_are_told_and_each_ends_alone() -> None:
    health = Health()
    health.post_failed("epoch 1")
    health.post_failed("epoch 2")
    health.chain_unread = True
    assert health.faults == ["chain_not_read", "not_posted"]
    health.unposted.discard("epoch 1")
    assert health.faults == ["chain_not_read", "not_posted"]
    health.unposted.discard("epoch 2")
    assert health.faults == ["chain_not_read"]
