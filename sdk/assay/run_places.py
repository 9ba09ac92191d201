"""How many threads of one kind work at once, in each run of trio: a limiter belongs to its run."""

from __future__ import annotations

import trio


class RunPlaces:
    """`count` places, for a module that lives through several runs (a thread each, in tests and in
    programs that call the synchronous client)."""

    def __init__(self, name: str, count: int) -> None:
        self._limiter = trio.lowlevel.RunVar[trio.CapacityLimiter](name)
        self._count = count

    def limiter(self) -> trio.CapacityLimiter:
        """This run's. Only within one."""
        try:
            return self._limiter.get()
        except LookupError:
            self._limiter.set(trio.CapacityLimiter(self._count))
            return self._limiter.get()
