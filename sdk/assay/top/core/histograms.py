"""Histograms as Prometheus has them: how many values were at most each bound, since a start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import inf


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` values were at most `bounds[i]`; both rise, and the last bound is infinite."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    @classmethod
    def of(cls, buckets: Iterable[tuple[float, float]]) -> Histogram | None:
        """From (bound, count) in any order; None if that is not a histogram."""
        ordered = sorted(buckets)
        bounds = tuple(bound for bound, _ in ordered)
        counts = tuple(count for _, count in ordered)
        apart = all(a < b for a, b in pairwise(bounds))
        rising = all(a <= b for a, b in pairwise((0.0, *counts)))
        if not bounds or bounds[-1] != inf or not apart or not rising or counts[-1] == inf:
            return None
        return cls(bounds, counts)

    @property
    def total(self) -> float:
        """How many values there are."""
        return self.counts[-1]

    def fell(self, before: Histogram) -> bool:
        """Whether this cannot be `before` with more values: its process began anew."""
        if self.bounds != before.bounds:
            return True
        gained = [new - old for new, old in zip(self.counts, before.counts, strict=True)]
        return gained[0] < 0 or any(a > b for a, b in pairwise(gained))

    def less(self, before: Histogram) -> Histogram:
        """The values that came since `before`, of which it must not have fallen."""
        assert not self.fell(before)
        pairs = zip(self.counts, before.counts, strict=True)
        return Histogram(self.bounds, tuple(new - old for new, old in pairs))

    def plus(self, other: Histogram) -> Histogram:
        """The values of both; of the other alone if their bounds differ (another version's)."""
        if self.bounds != other.bounds:
            return other
        pairs = zip(self.counts, other.counts, strict=True)
        return Histogram(self.bounds, tuple(one + two for one, two in pairs))

    def quantile(self, share: float) -> float | None:
        """The value that `share` of all are at most, as Prometheus' histogram_quantile estimates
        it: linear within a bucket, the largest finite bound for values beyond it. None: no value.
        """
        if not self.total or len(self.bounds) < 2:
            return None
        rank = share * self.total
        at = next(i for i, count in enumerate(self.counts) if count >= rank and count > 0)
        if at == len(self.bounds) - 1:
            return self.bounds[-2]
        low, below = (self.bounds[at - 1], self.counts[at - 1]) if at else (0.0, 0.0)
        high = self.bounds[at]
        if high <= 0:
            return high
        return low + (high - low) * (rank - below) / (self.counts[at] - below)
