"""Which of a node's unpaid jobs are looked at, where there are too many to look at all.

Drawn without putting back, weighted by price, under a secret of the coordinator. The newest would
be whatever the node likes: it learns that an answer of it is drawn before the verdict falls, and
can book any number of one-token jobs of its own meanwhile. What weighs here is what is at risk.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TypeVar

from assay_protocol.elementary import log  # the same bits on every machine

_T = TypeVar("_T")
_SPAN = 1 << 64


def drawn_by_price(jobs: Sequence[tuple[_T, int, bytes]], most: int) -> list[_T]:
    """At most `most` of `jobs`, in their order: each with its price in micro-credits and at least
    eight random bytes of its own.

    Each job draws the time of its first event at the rate of its price, and the earliest are taken
    (Efraimidis and Spirakis, Weighted random sampling with a reservoir, 2006).
    """
    if len(jobs) <= most:
        return [job for job, _, _ in jobs]
    times = [_first_event(price, random) for _, price, random in jobs]
    taken = sorted(heapq.nsmallest(most, range(len(jobs)), key=times.__getitem__))
    return [jobs[place][0] for place in taken]


def _first_event(price: int, random: bytes) -> float:
    uniform = (int.from_bytes(random[:8], "big") + 1) / (_SPAN + 1)
    return -log(uniform) / max(1, price)
