"""One task waits, and is woken once for each ring it waited for."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from assay_network.bell import Bell


async def test_a_ring_wakes_who_waits_and_is_not_remembered() -> None:
    bell, woken = Bell(), 0

    async def listen() -> None:
        nonlocal woken
        while True:
            await bell.wait()
            woken += 1

    bell.ring()  # nobody is there
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        assert woken == 0
        bell.ring()
        bell.ring()  # the same waiting is woken once
        await wait_all_tasks_blocked()
        assert woken == 1
        nursery.cancel_scope.cancel()


async def test_who_was_cancelled_waits_no_more(autojump_clock: Any) -> None:
    bell = Bell()
    with trio.move_on_after(1) as scope:
        await bell.wait()
    assert scope.cancelled_caught
    bell.ring()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait)
        await wait_all_tasks_blocked()
        with pytest.raises(AssertionError, match="one task"):
            await bell.wait()
        bell.ring()
