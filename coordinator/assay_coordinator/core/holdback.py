"""Pay of one node that is held back, the oldest first, until enough was earned after it.

A job's pay is due once what is held of later jobs is worth `jobs` times as much. Where all jobs
cost the same that is after `jobs` more of them; tiny jobs, which an owner can buy of its own node
for next to nothing, push nobody's pay out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator


class Holdback:
    """Tickets with their prices in micro-credits."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[bytes, int]] = deque()
        self._value = 0  # of all of them

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[bytes]:
        """Their tickets, the oldest first."""
        return (ticket for ticket, _ in self._jobs)

    @property
    def oldest(self) -> bytes:
        return self._jobs[0][0]

    def add(self, ticket: bytes, price: int) -> None:
        self._jobs.append((ticket, price))
        self._value += price

    def due(self, jobs: int) -> bool:
        """Whether the oldest one's pay was held for long enough."""
        if len(self._jobs) < 2:
            return jobs == 0 and bool(self._jobs)
        price = self._jobs[0][1]
        return self._value - price >= jobs * price

    def take(self) -> bytes:
        """Remove the oldest and give its ticket."""
        ticket, price = self._jobs.popleft()
        self._value -= price
        return ticket

    def drop(self, tickets: Collection[bytes]) -> None:
        """Remove those of `tickets` that are here."""
        self._jobs = deque(one for one in self._jobs if one[0] not in tickets)
        self._value = sum(price for _, price in self._jobs)
