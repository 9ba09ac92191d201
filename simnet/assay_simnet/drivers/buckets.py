"""Virtual time in ticks: what is due within one tick happens at its end, in the order it was asked.

A heap holds ticks, not events, so a busy network costs one list append an event.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Buckets:
    """A clock and what is to happen. Times are microseconds since the epoch."""

    def __init__(self, start_us: int, tick_us: int) -> None:
        assert start_us % tick_us == 0
        self.now, self.tick_us = start_us, tick_us
        self.done = 0  # events so far
        self._due: dict[int, list[tuple[Callable[..., None], tuple[Any, ...]]]] = {}
        self._ticks: list[int] = []

    def at(self, at_us: int, call: Callable[..., None], *args: Any) -> None:
        """Do it at the end of the tick that holds `at_us`, and no sooner than one tick from now."""
        tick = self.tick_us
        due = -(-at_us // tick) * tick
        if due <= self.now:
            due = self.now + tick
        bucket = self._due.get(due)
        if bucket is None:
            self._due[due] = [(call, args)]
            heapq.heappush(self._ticks, due)
        else:
            bucket.append((call, args))

    def after(self, delay_us: int, call: Callable[..., None], *args: Any) -> None:
        self.at(self.now + delay_us, call, *args)

    def run(self, until_us: int) -> None:
        """Let time pass until the end of that tick, or until nothing is left to happen."""
        until_us = -(-until_us // self.tick_us) * self.tick_us
        while self._ticks and self._ticks[0] <= until_us:
            self.now = heapq.heappop(self._ticks)
            bucket = self._due.pop(self.now)
            for call, args in bucket:
                call(*args)
            self.done += len(bucket)
        self.now = max(self.now, until_us)
