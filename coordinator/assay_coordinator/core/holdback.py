"""Pay of one node that is held back, the oldest first, until it is old and enough was earned since.

A job's pay is due `age_us` after its receipt was booked, if what is held of later jobs is worth
`jobs` times as much by then. Where all jobs cost the same that is `jobs` more of them; tiny jobs
push nobody's pay out. Nor does an owner's own money alone, which costs him a fee and which he has
back in the end: whatever he buys of his own node, what strangers paid it lately stays at risk
(docs/decisions/0045-pay-is-held-by-age-too.md). Pure: times are the caller's, in microseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """One job's pay: `price` in micro-credits, `booked_at` when its receipt came."""

    ticket: bytes
    price: int
    booked_at: int


class Holdback:
    """A node's held jobs, in the order in which they were put here."""

    def __init__(self) -> None:
        self._jobs: deque[Held] = deque()
        self._value = 0  # of all of them

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[bytes]:
        """Their tickets, the oldest first."""
        return (one.ticket for one in self._jobs)

    @property
    def oldest(self) -> bytes:
        return self._jobs[0].ticket

    def add(self, held: Held) -> None:
        self._jobs.append(held)
        self._value += held.price

    def due(self, now: int, jobs: int, age_us: int) -> bool:
        """Whether the oldest one's pay was held for long enough. Where `jobs` is 0 none is held."""
        if not self._jobs or not jobs:
            return bool(self._jobs)
        first = self._jobs[0]
        later = self._value - first.price
        old = now - first.booked_at >= age_us
        return old and len(self._jobs) > 1 and later >= jobs * first.price

    def take(self) -> bytes:
        """Remove the oldest and give its ticket."""
        held = self._jobs.popleft()
        self._value -= held.price
        return held.ticket

    def drop(self, tickets: Collection[bytes]) -> None:
        """Remove those of `tickets` that are here."""
        self._jobs = deque(one for one in self._jobs if one.ticket not in tickets)
        self._value = sum(one.price for one in self._jobs)
