"""How sure a share is that was counted in a sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

_HALVINGS: Final = 60


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a binomial share: each end leaves out half of 1 - confidence.

    Clopper and Pearson 1934; never too narrow, whatever the true share. (0, 1) of no trials.
    """
    tail = (1 - confidence) / 2
    low, high = 0.0, 1.0
    if hits > 0:
        low = _solve(lambda share: 1 - _at_most(hits - 1, trials, share), tail)
    if hits < trials:
        high = _solve(lambda share: 1 - _at_most(hits, trials, share), 1 - tail)
    return low, high


def shown(hits: int, trials: int) -> str:
    """Percent, with the interval's ends."""
    if trials == 0:
        return "-"
    low, high = clopper_pearson(hits, trials)
    return f"{100 * hits / trials:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def _solve(rising: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def _at_most(hits: int, trials: int, share: float) -> float:
    """The chance of at most so many hits."""
    if share <= 0.0:
        return 1.0
    if share >= 1.0:
        return float(hits >= trials)
    logs = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(share)
        + (trials - k) * math.log1p(-share)
        for k in range(hits + 1)
    )
    return min(1.0, math.fsum(math.exp(one) for one in logs))
