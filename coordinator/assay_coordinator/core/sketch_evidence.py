"""Channel S: what the sketches say: how far the executor's logits are from the auditor's.

The mean leaf distance of an honest answer is close to normal, with the calibration table's mean
and spread. The evidence is the likelihood ratio of a shift by 1, 3 or 10 standard deviations. One
job's mean counts once, as tokens of one answer are not independent; spans are for cheats that are
in one stretch of it. Distances below the mean speak for the node.

The table's spread is that of whole leaves. Of a leaf of fewer tokens it is wider by the root of how
many are missing: an answer of one token says a quarter of what one of sixteen does. So the last
leaf counts by its tokens (`last`: their share of LEAF_TOKENS).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from assay_coordinator.core.calibration import Noise
from assay_coordinator.core.token_evidence import average, windows
from assay_protocol.limits import LEAF_TOKENS

SHIFTS: Final = (1.0, 3.0, 10.0)
NO_SKETCHES: Final = (0.0,) * (2 * len(SHIFTS))  # say nothing
AGREEING_SD: Final = 4.0  # auditors that are nearer than this to each other computed the same


def sketch_ratios(noise: Noise, distances: Sequence[float], last: float = 1.0) -> tuple[float, ...]:
    """Log-likelihood ratios in nats: for each shift of the answer's mean, then for each of one
    span's, averaged over where that may be. `distances`: of each leaf, not negative."""
    if not distances:
        return NO_SKETCHES
    if not all(map(math.isfinite, distances)):
        return (math.inf,) * len(NO_SKETCHES)
    counts = _counts(len(distances), last)
    far = [count * distance for count, distance in zip(counts, distances, strict=True)]
    whole = _score(noise, math.fsum(far), math.fsum(counts))
    sums, leaves = ([0.0, *accumulate(each)] for each in (far, counts))
    around = zip(windows(sums), windows(leaves), strict=True)
    spans = [_score(noise, b - a, d - c) for (a, b), (c, d) in around]
    ratios = [_ratio(whole, shift) for shift in SHIFTS]
    return (*ratios, *(average([_ratio(one, shift) for one in spans]) for shift in SHIFTS))


def near(noise: Noise, distances: Sequence[float], last: float = 1.0) -> bool:
    """Whether honest noise explains the distance of two auditors' sketches from each other."""
    if not distances:
        return True
    counts = _counts(len(distances), last)
    leaves = math.fsum(counts)
    mean = math.fsum(map(math.prod, zip(counts, distances, strict=True))) / leaves
    return mean <= noise.drift + AGREEING_SD * noise.sd(leaves)


def last_share(tokens: int) -> float:
    """How much of a leaf the last one of so many tokens is, from above 0 to 1."""
    return ((tokens - 1) % LEAF_TOKENS + 1) / LEAF_TOKENS


def _counts(leaves: int, last: float) -> list[float]:
    assert 0 < last <= 1
    return [*[1.0] * (leaves - 1), last]


def _score(noise: Noise, total: float, leaves: float) -> float:
    """Standard deviations from the honest mean."""
    return (total / leaves - noise.drift) / noise.sd(leaves)


def _ratio(score: float, shift: float) -> float:
    return shift * score - shift * shift / 2
