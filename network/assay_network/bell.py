"""Wakes one waiting task: what trio's ParkingLot does for many costs twice as much for one.

A token wakes two tasks on its way (the reader of its stream, and the writer of its answer), so this
is on the path of every token.
"""

from __future__ import annotations

from typing import Any

import trio


class Bell:
    """One task waits at a time; a ring that nobody waits for is not remembered."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        """Until it rings. The caller looks again for what it waits for: a ring says only "look"."""
        assert self._task is None, "one task waits at a time"
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._give_up)

    def ring(self) -> None:
        """Wake who waits, if somebody does."""
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    def _give_up(self, raise_cancel: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
