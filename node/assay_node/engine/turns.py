"""Whose job is next: deficit round robin over tenants. Pure.

A tenant's turn begins with `quantum` tokens added to what it may spend; its jobs are taken, oldest
first, while it can pay for them, then the turn goes on to the next tenant. No job costs more than
`quantum`, so a tenant whose jobs may be taken at all is served in every one of its turns, and waits
at most while every other tenant spends less than two quanta - however many jobs those have queued.
(Shreedhar and Varghese, "Efficient fair queueing using deficit round robin", SIGCOMM 1995.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What can be queued: who asks, and what it costs in tokens."""

    @property
    def tenant(self) -> bytes: ...

    @property
    def cost(self) -> int: ...


J = TypeVar("J", bound=Queued)


@dataclass(slots=True)
class _Tenant(Generic[J]):
    jobs: deque[J] = field(default_factory=deque)
    credit: int = 0


class Turns(Generic[J]):
    """The waiting jobs of all tenants."""

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._tenants: dict[bytes, _Tenant[J]] = {}
        self._order: deque[bytes] = deque()  # whose turn it is stands first

    def __len__(self) -> int:
        return sum(len(tenant.jobs) for tenant in self._tenants.values())

    def __iter__(self) -> Iterator[J]:
        for tenant in self._tenants.values():
            yield from tenant.jobs

    def add(self, job: J) -> None:
        """Queue `job` behind its tenant's others; a new tenant's turn comes last."""
        assert 0 < job.cost <= self._quantum
        if job.tenant not in self._tenants:
            first = not self._order
            self._tenants[job.tenant] = _Tenant(credit=self._quantum if first else 0)
            self._order.append(job.tenant)
        self._tenants[job.tenant].jobs.append(job)

    def remove(self, job: J) -> None:
        """Forget a waiting job."""
        self._tenants[job.tenant].jobs.remove(job)
        self._forget_if_empty(job.tenant)

    def take(self, ready: Callable[[J], bool]) -> J | None:
        """The next job that is `ready`, taken out; None if there is none."""
        for _ in range(len(self._order) + 1):
            if not self._order:
                break
            tenant = self._tenants[self._order[0]]
            job = next((job for job in tenant.jobs if ready(job)), None)
            if job is not None and job.cost <= tenant.credit:
                tenant.credit -= job.cost
                self.remove(job)
                return job
            if job is None:
                tenant.credit = 0  # nobody saves up while it has nothing to run
            self._next_turn()
        return None

    def _next_turn(self) -> None:
        self._order.rotate(-1)
        self._tenants[self._order[0]].credit += self._quantum

    def _forget_if_empty(self, name: bytes) -> None:
        if self._tenants[name].jobs:
            return
        del self._tenants[name]
        first = self._order[0] == name
        self._order.remove(name)
        if first and self._order:
            self._tenants[self._order[0]].credit += self._quantum
