"""Which class of jobs is served next: the highest that waits, but none waits for ever. Pure.

Within a class tenants take turns (turns.py), and whoever was preempted comes before all of them, in
the order in which the jobs were first taken. A class that was passed over `PASSES_MAX` times while
it had a job waiting is overdue: its next job is taken first, and `take` says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Generic, Protocol, TypeVar

from assay_node.engine.interface import PRIORITIES
from assay_node.engine.turns import Queued, Turns

PASSES_MAX: Final = 8


class Ranked(Queued, Protocol):
    """What can be queued here, too: its class, one of PRIORITIES."""

    @property
    def priority(self) -> int: ...


J = TypeVar("J", bound=Ranked)


class _Class(Generic[J]):
    """The waiting jobs of one priority."""

    def __init__(self, quantum: int) -> None:
        self.turns: Turns[J] = Turns(quantum)
        self.returned: deque[J] = deque()
        self.passed = 0  # jobs of higher classes taken while one of these waited

    def __len__(self) -> int:
        return len(self.turns) + len(self.returned)

    def take(self, ready: Callable[[J], bool]) -> J | None:
        for job in self.returned:
            if ready(job):
                self.returned.remove(job)
                return job
        return self.turns.take(ready)


class Classes(Generic[J]):
    """The waiting jobs of all classes."""

    def __init__(self, quantum: int) -> None:
        self._classes: dict[int, _Class[J]] = {p: _Class(quantum) for p in PRIORITIES}

    def __len__(self) -> int:
        return sum(map(len, self._classes.values()))

    def __iter__(self) -> Iterator[J]:
        for waiting in self._classes.values():
            yield from waiting.returned
            yield from waiting.turns

    def add(self, job: J) -> None:
        self._classes[job.priority].turns.add(job)

    def put_back(self, job: J) -> None:
        """A job taken before, the last one taken first: it has paid for its turn."""
        self._classes[job.priority].returned.appendleft(job)

    def remove(self, job: J) -> None:
        """Forget a waiting job."""
        waiting = self._classes[job.priority]
        if job in waiting.returned:
            waiting.returned.remove(job)
        else:
            waiting.turns.remove(job)
        if not waiting:
            waiting.passed = 0

    def take(self, ready: Callable[[J], bool], *, above: int = -1) -> tuple[J, bool] | None:
        """The next job that is `ready` of a class above `above`, and whether it was overdue."""
        ranks = [p for p in self._classes if p > above]
        ranks.sort(key=lambda p: (self._classes[p].passed < PASSES_MAX, -p))
        for priority in ranks:
            job = self._classes[priority].take(ready)
            if job is None:
                continue
            overdue = self._classes[priority].passed >= PASSES_MAX
            self._classes[priority].passed = 0
            for lower, waiting in self._classes.items():
                waiting.passed += lower < priority and len(waiting) > 0
            return job, overdue
        return None
