"""Which connections are cut for newcomers, once there are nearly as many as there may be.

Keys are free, so anybody can prove thousands of identities and then say nothing: without this they
would keep everybody else out for good. Only who has no stream open is cut, and can dial again when
it has something to say; a session, or an answer under way, is a stream.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection
from typing import Final, Protocol, TypeVar

SPARE_SHARE: Final = 16  # one of so many places is kept free: for newcomers, and for dialing out


class Guest(Protocol):
    """A connection that somebody else opened."""

    @property
    def host(self) -> str:
        """The address it comes from."""
        ...

    @property
    def idle_at(self) -> float | None:
        """Since when it has had no stream; None: it has one, or that is not known."""
        ...


_Guest = TypeVar("_Guest", bound=Guest)


def to_cut(guests: Collection[_Guest], places: int) -> list[_Guest]:
    """Those to cut, so that of `places` some are free: of the address with most connections first,
    and there who has been idle for longest."""
    over = len(guests) - (places - max(1, places // SPARE_SHARE))
    if over <= 0:
        return []
    crowd = Counter(guest.host for guest in guests)
    idle = [
        (-crowd[g.host], g.idle_at, i, g) for i, g in enumerate(guests) if g.idle_at is not None
    ]
    return [guest for _, _, _, guest in heapq.nsmallest(over, idle)]
