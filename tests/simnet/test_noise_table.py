"""The simulated model's table of noise is what a fit of it gives, and honest nodes keep within."""

from __future__ import annotations

import pytest

from assay_simnet.noise_table import FITTED, JOBS, NOISE_TABLE, fitted
from assay_simnet.setting import MODEL


def test_the_figures_are_the_fits() -> None:
    few = fitted(60)
    assert few.drift == pytest.approx(FITTED.drift, rel=0.05)
    assert FITTED.jobs == JOBS
    assert list(FITTED.flips) == sorted(FITTED.flips, reverse=True)
    noise = NOISE_TABLE.noise(MODEL, "scripted/F", "another/F")
    assert noise.drift == FITTED.drift / 1e6
