"""Which jobs each check catches: ours, and those of others by their own thresholds.

E         bits of the logits and the draws, where both are of one exact class
evidence  the coordinator's own rule for one audit: it finds the job wrong
T, S      tokens, sketches: past mean + 4 sd of honest jobs;  T or S: either
TOPLOC, Gonka  as published;  DiFR: its statistic, past mean + 4 sd as well (anchors.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from assay_coordinator.core.evidence import FAILURE, combined
from calibrating import halves, limits, noise, statistics
from weighing import Weighed

FLOAT_METHODS: Final = (
    "evidence", "T", "S", "T or S", "TOPLOC", "DiFR", "Gonka .99", "Gonka .98",
)  # fmt: skip
_GONKA: Final = {"Gonka .99": 0.99, "Gonka .98": 0.98}

Caught = Mapping[str, NDArray[np.bool_]]  # by method: one entry for each job


class Judge:
    """Calibrated on honest audits of one pair of classes; each half of the jobs by the other."""

    def __init__(self, honest: Weighed) -> None:
        even, odd = halves(honest.jobs)
        self._limits = [limits(honest.some(odd)), limits(honest.some(even))]
        self._noises = [noise(honest.some(half).noted()) for half in (odd, even)]

    def caught(self, found: Weighed) -> Caught:
        """By each of FLOAT_METHODS; `found` are audits of jobs 0, 1, ... by the same pair."""
        own, parity = statistics(found), np.arange(found.jobs) % 2
        past = {
            name: values > np.array([half[name] for half in self._limits])[parity]
            for name, values in own.items()
        }
        noted = found.noted()
        wrong = [
            noted.hard(job) or combined(noted.ratios(self._noises[job % 2], job)) >= FAILURE
            for job in range(found.jobs)
        ]
        caught = {
            **past,
            "T or S": past["T"] | past["S"],
            "evidence": np.array(wrong, bool),
            **{name: 1 - found.gonka <= least for name, least in _GONKA.items()},
        }
        if (found.toploc >= 0).all():  # its package was there
            caught["TOPLOC"] = found.toploc == 1
        return caught


def exactly(found: Weighed) -> NDArray[np.bool_]:
    """By channel E, of audits within one exact class."""
    caught: NDArray[np.bool_] = ~found.equal | found.wrong.any(axis=1)
    return caught
