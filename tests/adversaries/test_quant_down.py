"""Cheaper weights (`quant_down`), of every strength there is."""

from __future__ import annotations

import pytest

from adversary_page import seen
from assay_simnet.behaviours.weights import QuantDown
from assay_simnet.trials import Trial, try_executor


def test_cheaper_weights_are_seen_within_a_few_jobs() -> None:
    result = seen("quant_down")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 4
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0


@pytest.mark.parametrize(("weights", "jobs"), [("Q6_K", 10), ("Q4_0", 3), ("Q2_K", 3)])
def test_milder_weights_take_a_little_longer(weights: str, jobs: int) -> None:
    result = try_executor(Trial(lambda: QuantDown(weights=weights)))
    assert result.stopped == len(result.runs)
    assert result.jobs <= jobs
    assert result.profit < 0
