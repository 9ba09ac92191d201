"""How far tokens are from the edges of a sampler's filters: how much drift lets one in or out.

Distances are in logits and count both sides: drift of sup norm A, which may lift one token and
lower the others, crosses at most a distance of 2A. All of them are lower bounds.
"""

from __future__ import annotations

import bisect
import math
import operator
from dataclasses import dataclass
from typing import Final

import numpy as np

from assay_protocol.filters import ROUGH, Reals, Tokens, Values, top
from assay_protocol.noise import GUMBEL_MOST
from assay_protocol.samplers import SamplerLike


@dataclass(frozen=True, slots=True)
class Rim:
    """The largest logits of a row, as far as a few places beyond its filters.

    Places are ranks by descending logit; the first `kept` pass the filters.
    """

    tokens: Tokens
    values: Reals
    kept: int
    whole: bool  # no token is beyond these
    limit: int  # how many places top-k lets through
    mass: list[float]  # running sums of exp(logit - best) of the places top-p counts; [] without it
    total: float  # their whole sum
    sampler: SamplerLike

    def inside(self, place: int, most: float) -> float:
        """How far a kept `place` is from falling out; `most`, if farther than that."""
        own = float(self.values[place])
        if self.limit < len(self.values):
            most = min(most, own - float(self.values[self.limit]))
        best = 1 if place == 0 else 0  # of the others
        if self.sampler.min_p > 0.0 and best < len(self.values):
            most = min(most, own - float(self.values[best]) - math.log(self.sampler.min_p))
        return self._to_nucleus(place, most, inside=True) if self.mass else most

    def outside(self, most: float) -> Reals:
        """How far the places from `kept` on are outside top-k and min-p, those nearer than `most`.

        Their distances to top-p take longer to find: `outside_nucleus`.
        """
        values = self.values[self.kept :]
        apart = np.zeros(len(values))
        if self.limit < len(self.values):
            begin = self.limit - self.kept
            apart[begin:] = float(self.values[self.limit - 1]) - values[begin:]
        if self.sampler.min_p > 0.0:
            floor = float(self.values[0]) + math.log(self.sampler.min_p)
            np.maximum(apart, floor - values, out=apart)
        return apart[: int(np.searchsorted(apart, most))]

    def outside_nucleus(self, place: int, most: float) -> float:
        """How far `place` is outside top-p; `most`, if farther than that."""
        return self._to_nucleus(place, most, inside=False) if self.mass else 0.0

    def beyond(self, score: float, most: float) -> float:
        """How near, at least, a token not listed is to passing the filters and beating `score`."""
        if self.whole:
            return most
        last = float(self.values[-1])
        least = score - last - self.sampler.temperature * GUMBEL_MOST
        least = max(least, float(self.outside(math.inf)[-1]))
        if least < most:
            least = max(least, self.outside_nucleus(len(self.values) - 1, most))
        return min(least, most)

    def _to_nucleus(self, place: int, most: float, *, inside: bool) -> float:
        if not inside and self._before(place) < self.sampler.top_p * self.total:
            return 0.0  # another filter keeps it out
        low, high = 0.0, min(most, 2 * _DRIFT_MAX)
        if not self._crosses(place, high, inside):
            return high
        for _ in range(_HALVINGS_OF_GAPS):
            middle = (low + high) / 2
            if self._crosses(place, middle, inside):
                high = middle
            else:
                low = middle
        return max(0.0, low - 2 * ROUGH)

    def _before(self, place: int) -> float:
        return self.mass[min(place, len(self.mass)) - 1] if place else 0.0

    def _crosses(self, place: int, apart: float, inside: bool) -> bool:
        """Whether drift of `apart` / 2 can do it: the worst it does is told at `_nucleus_slack`."""
        own = float(self.values[place])
        line = own - apart if inside else own + apart
        places = bisect.bisect_left(self.values, -line, key=operator.neg)
        ahead = self._before(places)
        if inside:
            if places == len(self.values) < self.limit and not self.whole:
                return True  # how much is ahead is not known
            ahead = max(0.0, ahead - math.exp(own - float(self.values[0])))
        sign = apart / 2 if inside else -apart / 2
        filled = ahead * math.exp(sign)
        rest = max(0.0, self.total - ahead) * math.exp(-sign)
        return (filled >= self.sampler.top_p * (filled + rest)) == inside


def rim_of(values: Values, kept: int, sampler: SamplerLike) -> Rim:
    """The rim of a row of which `kept` tokens pass the filters; its tokens are places in the row.

    Raises nothing; a few places beyond top-k or `kept` bound the work, whatever the row.
    """
    limit = min(sampler.top_k or len(values), len(values))
    reach = kept if limit == len(values) else max(kept, limit + 1 - _BEYOND)
    tokens = top(values, reach + _BEYOND)
    own = values[tokens].astype(np.float64)
    mass: list[float] = []
    total = 0.0
    if sampler.top_p < 1.0:
        mass = np.cumsum(np.exp(own[:limit] - own[0])).tolist()
        total = mass[-1] if len(mass) == limit else _sum(values, float(own[0]))
    whole = len(tokens) == len(values)
    return Rim(tokens, own, kept, whole, limit, mass, total, sampler)


def slack(values: Reals, sampler: SamplerLike, mine: int) -> Reals:
    """Distance in logits of each of `values` (descending) inside (+) or outside (-) its filters.

    top-k: to the first excluded, or the last included, logit. min-p: to the floor. top-p: see
    `_nucleus_slack`; outside it only `mine` gets its distance. The best is not safe: drift may put
    another token in its place.
    """
    apart = np.full(len(values), np.inf)
    limit = min(sampler.top_k or len(values), len(values))
    if limit < len(values):
        apart[:limit] = values[:limit] - values[limit]
        apart[limit:] = np.minimum(values[limit:] - values[limit - 1], -np.finfo(np.float64).tiny)
    if sampler.top_p < 1.0:
        apart = np.minimum(apart, _nucleus_slack(values, limit, sampler.top_p, mine))
    if sampler.min_p > 0.0:
        apart = np.minimum(apart, values - values[0] - math.log(sampler.min_p))
    return apart


_BEYOND: Final = 24  # places looked at beyond the filters
_DRIFT_MAX: Final = 64.0  # logits; no filter is farther away than that in practice
_HALVINGS: Final = 40
_HALVINGS_OF_GAPS: Final = 16


def _sum(values: Values, best: float) -> float:
    """Of exp(value - best) over the whole row, off by less than ROUGH of it."""
    below = (values - values.dtype.type(best)).astype(np.float32, copy=False)
    return float(np.exp(below).sum(dtype=np.float64))


def _nucleus_slack(values: Reals, limit: int, top_p: float, mine: int) -> Reals:
    """Twice the least drift A that could move a value across the edge of top-p, with its sign.

    What drift can do at most: sorted weights each move by a factor within exp(-A) and exp(A), and
    a token changes places only with those within 2A of it. So one outside gets in at the earliest
    when those more than 2A above it, weighed down, leave room; one inside falls out at the earliest
    when all but those more than 2A below it, weighed up, fill the nucleus. The least such A is
    found by bisection and rounded down.
    """
    weights = np.exp(values - values[0])
    mass = np.append(0.0, np.cumsum(weights[:limit]))
    total = mass[-1]
    before = mass[np.minimum(np.arange(len(values)), limit)]
    kept = before < top_p * total
    apart = np.where(kept, np.inf, -np.finfo(np.float64).tiny)
    asked = np.append(np.flatnonzero(kept), mine)
    inside = kept[asked]
    low, high = np.zeros(len(asked)), np.full(len(asked), _DRIFT_MAX)
    for _ in range(_HALVINGS):
        drift = (low + high) / 2
        edge = values[asked] + np.where(inside, -2 * drift, 2 * drift)
        ahead = mass[np.minimum(np.searchsorted(-values, -edge), limit)]
        ahead -= np.where(inside, np.minimum(weights[asked], ahead), 0.0)
        sign = np.where(inside, drift, -drift)
        filled = ahead * np.exp(sign)
        crossed = (filled >= top_p * (filled + (total - ahead) * np.exp(-sign))) == inside
        low, high = np.where(crossed, low, drift), np.where(crossed, drift, high)
    apart[asked] = np.where(inside, 2 * low, -2 * low)
    return apart
