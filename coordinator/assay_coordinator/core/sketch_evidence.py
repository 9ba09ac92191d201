"""Channel S: what the sketches say: how far the executor's logits are from the auditor's.

The mean leaf distance of an honest answer is close to normal, with the calibration table's mean
and spread. The evidence is the likelihood ratio of a shift by 1, 3 or 10 standard deviations. One
job's mean counts once, as tokens of one answer are not independent; spans are for cheats that are
in one stretch of it. Distances below the mean speak for the node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from assay_coordinator.core.calibration import Noise
from assay_coordinator.core.token_evidence import SPAN, average, windows
from assay_protocol.limits import LEAF_TOKENS

SHIFTS: Final = (1.0, 3.0, 10.0)
NO_SKETCHES: Final = (0.0,) * (2 * len(SHIFTS))  # say nothing
AGREEING_SD: Final = 4.0  # auditors that are nearer than this to each other computed the same


def sketch_ratios(noise: Noise, distances: Sequence[float]) -> tuple[float, ...]:
    """Log-likelihood ratios in nats: for each shift of the answer's mean, then for each of one
    span's, averaged over where that may be. `distances`: of each leaf, not negative."""
    if not distances:
        return NO_SKETCHES
    if not all(map(math.isfinite, distances)):
        return (math.inf,) * len(NO_SKETCHES)
    whole = _score(noise, math.fsum(distances), len(distances))
    sums = [0.0]
    for distance in distances:
        sums.append(sums[-1] + distance)
    leaves = min(SPAN // LEAF_TOKENS, len(distances))
    spans = [_score(noise, b - a, leaves) for a, b in windows(sums)]
    ratios = [_ratio(whole, shift) for shift in SHIFTS]
    return (*ratios, *(average([_ratio(one, shift) for one in spans]) for shift in SHIFTS))


def near(noise: Noise, distances: Sequence[float]) -> bool:
    """Whether honest noise explains the distance of two auditors' sketches from each other."""
    if not distances:
        return True
    mean = math.fsum(distances) / len(distances)
    return mean <= noise.drift + AGREEING_SD * noise.sd(len(distances))


def _score(noise: Noise, total: float, leaves: int) -> float:
    """Standard deviations from the honest mean."""
    return (total / leaves - noise.drift) / noise.sd(leaves)


def _ratio(score: float, shift: float) -> float:
    return shift * score - shift * shift / 2
