"""Which tokens pass a sampler's filters: top-k, then top-p, then min-p (spec/sampler.md).

Pure functions of one row of logits, as the model gave them or adjusted. Sorted by descending logit,
the lower id first among equals, the tokens that pass are always the first of all. Only as much of a
vocabulary is sorted as a filter needs: this runs once for each token that is drawn.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from assay_protocol.adjustments import Logits
from assay_protocol.samplers import SamplerLike

ROUGH: Final = 1e-5  # the sum of float32 exponentials is off by 2e-6 at most: rounded arguments

Tokens = NDArray[np.int64]
Reals = NDArray[np.float64]
Values = Logits | Reals  # one row of logits, as the model gave them or adjusted


def kept(values: Values, sampler: SamplerLike) -> Tokens:
    """The tokens that pass top-k, then top-p, then min-p."""
    if sampler.top_k:
        return _kept_of_top(values, sampler)
    best = _finite(values.max())
    floor = _floor(best, sampler)
    if sampler.top_p < 1.0:
        return _top_p(values, best, floor, sampler.top_p)
    return np.flatnonzero(at_least(values, floor))


def top(values: Values, count: int) -> Tokens:
    """The `count` largest logits' tokens, largest first, the lower id first among equals.

    The count-th largest of the column maxima is a lower bound of the count-th largest logit: one
    pass over the vocabulary then leaves a handful of candidates, several times faster than
    partitioning all of it.
    """
    if count >= len(values):
        return descending(values)
    rows = len(values) // _COLUMNS
    if count >= _COLUMNS or rows < 2:
        return descending(values, float(np.partition(values, -count)[-count]))[:count]
    columns = values[: rows * _COLUMNS].reshape(rows, _COLUMNS).max(axis=0)
    columns.partition(_COLUMNS - count)
    _finite(columns[-1])  # where numpy puts what is not a number
    tokens: Tokens = (values >= columns[-count]).nonzero()[0]
    return tokens[(-values[tokens]).argsort(kind="stable")[:count]]


def descending(values: Values, floor: float = -math.inf) -> Tokens:
    """All tokens of at least `floor`, largest first, the lower id first among equals."""
    all_of_it = floor == -math.inf
    tokens = np.arange(len(values)) if all_of_it else np.flatnonzero(at_least(values, floor))
    return tokens[np.argsort(-values[tokens], kind="stable")]


def at_least(values: Values, floor: float) -> NDArray[np.bool_]:
    """Which values are >= `floor`, as reals: a float32 row is compared with the next float32 up."""
    if values.dtype == np.float32 and math.isfinite(floor):
        bound = np.float32(floor)
        if float(bound) < floor:
            bound = np.nextafter(bound, np.float32(np.inf))
        return values >= bound
    return values >= floor


_COLUMNS: Final = 512  # width of the coarse maxima that bound the k-th largest logit from below
_DEPTHS: Final = (4.0, *range(6, 20), math.inf)  # logits below the best in which top-p looks first


def _kept_of_top(values: Values, sampler: SamplerLike) -> Tokens:
    order = top(values, sampler.top_k)
    own = values[order].astype(np.float64)
    best = _finite(own[0])
    keep = own >= _floor(best, sampler)
    if sampler.top_p < 1.0:
        weights = np.exp(own - best)
        keep &= _nucleus(np.cumsum(weights), weights, sampler.top_p * float(weights.sum()))
    return order[keep]


def _floor(best: float, sampler: SamplerLike) -> float:
    """The least logit that passes min-p."""
    return best + math.log(sampler.min_p) if sampler.min_p > 0.0 else -math.inf


def _finite(best: float) -> float:
    assert math.isfinite(best), "logits must be finite"
    return float(best)


def _top_p(values: Values, best: float, floor: float, top_p: float) -> Tokens:
    """The nucleus of the whole vocabulary, down to `floor`; only as much is sorted as it needs.

    A token is kept while the sum before it is below the target, and sums never fall: once the sum
    over the best few reaches it, no token after them is kept. The target itself is needed exactly
    only where some sum comes so near to it that a rough one could not tell them apart.
    """
    below = (values - values.dtype.type(best)).astype(np.float32, copy=False)
    rough = top_p * float(np.exp(below).sum(dtype=np.float64))
    exact: float | None = None
    for depth in _DEPTHS:
        line = max(floor, best - depth)
        order = descending(values, line)
        own = np.exp(values[order].astype(np.float64) - best)
        sums = np.cumsum(own)
        if exact is None and np.any(np.abs(sums - own - rough) <= ROUGH * rough):
            exact = top_p * float(np.exp(values.astype(np.float64) - best).sum())
        target = rough if exact is None else exact
        if line == floor or sums[-1] >= target * (1 + ROUGH):
            break
    return order[_nucleus(sums, own, target)]


def _nucleus(sums: Reals, weights: Reals, target: float) -> NDArray[np.bool_]:
    keep = sums - weights < target
    keep[0] = True
    return keep
