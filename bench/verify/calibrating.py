"""Thresholds and noise from honest audits of the other half of the jobs.

Jobs are dealt into two halves; what is said of one half is judged by what was fitted from the
other, for each pair of classes by itself. So every job-audit counts and none judges itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from assay_coordinator.core.calibration import Noise, Table
from assay_coordinator.core.fitting import Trace, noise_of
from assay_protocol.messages import Calibration
from noted import Noted
from weighing import Weighed

SDS: Final = 4.0
MARGIN_CLIP: Final = 0.5  # logits
_ANY: Final = (b"", "", "")  # model, executor, auditor: the fitted pair is the only one

Floats = NDArray[np.float64]


def statistics(found: Weighed) -> Mapping[str, Floats]:
    """One number for each job by check; what is larger is more suspect."""
    return {
        "T": np.minimum(found.margins, MARGIN_CLIP).sum(axis=1),
        "S": found.distances.mean(axis=1),
        "DiFR": found.difr.mean(axis=1),
    }


def limits(honest: Weighed) -> dict[str, float]:
    """Mean and SDS standard deviations of honest jobs' statistics."""
    return {
        name: float(values.mean() + SDS * values.std(ddof=1))
        for name, values in statistics(honest).items()
    }


def noise(honest: Noted) -> Noise:
    """The product's own fit, as `coordinator calibrate` makes it from audits of trusted nodes."""
    traces = [
        Trace(
            *_ANY,
            gaps=honest.gaps[job].tobytes(),
            mismatches=tuple(np.flatnonzero(honest.wrong[job]).tolist()),
            distances=tuple(honest.distances[job].tolist()),
        )
        for job in range(honest.jobs)
    ]
    fitted = Calibration(version=1, fitted_at=0, pairs=(noise_of(_ANY, traces),))
    return Table(fitted).noise(*_ANY)


def halves(jobs: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The even and the odd ones."""
    every = np.arange(jobs)
    return every[every % 2 == 0], every[every % 2 == 1]
