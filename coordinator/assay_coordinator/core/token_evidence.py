"""Channel T: what the tokens say, given how near each draw was to a tie.

An honest node whose arithmetic differs from the auditor's flips a draw only where noise bridges the
gap to the next candidate, and how often it does by gap is measured (calibration.py). Under an
alternative of strength s a flip is s times as likely, at least `_LEAST[s]` and at most 0.6. Each
token's likelihood ratio then has mean 1 or less for every node that flips no oftener than the
table says, whatever the prompt: near-ties, which a prompt could be made of, carry hardly any
weight. (docs/verification.md 2; the form is that of likelihood-ratio martingales.)

The same evidence on every machine: logarithms are elementary.py's, and sums math.fsum's (from
Python 3.12 on, sum() rounds otherwise than before).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from assay_coordinator.core.calibration import Noise, gap_bin
from assay_protocol.elementary import exp, log
from assay_protocol.limits import LEAF_TOKENS

STRENGTHS: Final = (1.5, 3.0, 10.0)
SPAN: Final = 2 * LEAF_TOKENS  # a cheat may be in one stretch of the answer only
NO_TOKENS: Final = (0.0,) * (2 * len(STRENGTHS))  # say nothing
_LEAST: Final = {1.5: 0.005, 3.0: 0.01, 10.0: 0.05}
_MOST: Final = 0.6
KNOWN_MAX: Final = 1_024  # of pairs of classes, and strengths, whose ratios are not made again


def token_ratios(noise: Noise, gaps: bytes, mismatches: Sequence[int]) -> tuple[float, ...]:
    """Log-likelihood ratios in nats: for each strength over the whole answer, then for each over
    one span of it, averaged over where that may be. `gaps`: one code a token."""
    bins = [gap_bin(code) for code in gaps]
    wrong = [at for at in mismatches if 0 <= at < len(bins)]
    whole, spans = [], []
    for strength in STRENGTHS:
        flip, stay = _by_bin(noise.flips, strength)
        ratios = [stay[one] for one in bins]
        for at in wrong:
            ratios[at] = flip[bins[at]]
        sums = [0.0]
        for at in range(0, len(bins), LEAF_TOKENS):
            sums.append(sums[-1] + math.fsum(ratios[at : at + LEAF_TOKENS]))
        whole.append(sums[-1])
        spans.append(average([b - a for a, b in windows(sums)]))
    return (*whole, *spans)


def average(logs: Sequence[float]) -> float:
    """ln of the mean of exp(x): the mixture of e-values, given and returned as logarithms."""
    top = max(logs, default=0.0)
    if not math.isfinite(top):
        return top
    return top + log(math.fsum(exp(x - top) for x in logs) / max(1, len(logs)))


def windows(sums: Sequence[float]) -> list[tuple[float, float]]:
    """Running sums before and after each span of SPAN tokens that starts at a leaf."""
    width = SPAN // LEAF_TOKENS
    last = max(1, len(sums) - width)
    return [(sums[i], sums[min(i + width, len(sums) - 1)]) for i in range(last)]


@lru_cache(maxsize=KNOWN_MAX)
def _by_bin(
    flips: tuple[float, ...], strength: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ln of how much likelier a flip, and its absence, is under the alternative, by gap bin."""
    flip, stay = [], []
    for honest in flips:
        least = max(strength * honest, _LEAST[strength])
        other = max(honest, min(_MOST, least))  # never below: else fewer flips would be suspect
        flip.append(log(other / honest))
        stay.append(log((1 - other) / (1 - honest)))
    return tuple(flip), tuple(stay)
