"""What is to happen at which instant of a virtual run, called by one task.

The same for trio as buckets.py is without it: calls due together come in the order they were asked.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

import trio

from assay_simnet.setting import SECOND, START


class Agenda:
    """Times are microseconds since the epoch; trio's clock stands at 0 when START is."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._stirred = trio.Event()

    @property
    def now(self) -> int:
        """Only within the run."""
        return START + round(trio.current_time() * SECOND)

    def at(self, at_us: int, call: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._due, (at_us, self._count, call, args))
        if self._due[0][1] == self._count:
            self._stirred.set()

    def after(self, delay_us: int, call: Callable[..., None], *args: Any) -> None:
        self.at(self.now + delay_us, call, *args)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._stirred = trio.Event()
            while self._due and self._due[0][0] <= self.now:
                _, _, call, args = heapq.heappop(self._due)
                call(*args)
            next_us = self._due[0][0] if self._due else math.inf
            with trio.move_on_at((next_us - START) / SECOND):
                await self._stirred.wait()
