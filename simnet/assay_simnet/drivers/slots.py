"""A machine's slots: so many answers and replays at once, the rest waits in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any


class Slots:
    """First come, first served. What begins must `free` its slot once."""

    __slots__ = ("_count", "_free", "_waiting")

    def __init__(self, count: int) -> None:
        assert count > 0
        self._count = self._free = count
        # Made when it is first needed: most of many machines never have anybody wait.
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] | None = None

    def want(self, begin: Callable[..., None], *args: Any) -> None:
        """Call `begin` once there is a slot for it: now, or later."""
        if self._free:
            self._free -= 1
            begin(*args)
        else:
            if self._waiting is None:
                self._waiting = deque()
            self._waiting.append((begin, args))

    def free(self) -> None:
        """A slot's work is over; the next one begins."""
        if self._waiting:
            begin, args = self._waiting.popleft()
            begin(*args)
        else:
            self._free += 1

    @property
    def taken(self) -> int:
        return self._count - self._free

    @property
    def waiting(self) -> int:
        return len(self._waiting or ())
