"""BOINC's policy: what a patient traitor gets away with is known in closed form."""

from __future__ import annotations

import pytest

from adaptive_replication import CONSECUTIVE, bad_share


def test_the_least_patient_traitor_has_nearly_half_of_its_results_wrong() -> None:
    honest = CONSECUTIVE  # all are replicated
    wrong = CONSECUTIVE - 1  # a geometric wait with chance 1 / CONSECUTIVE
    expected = wrong / (honest + wrong)
    assert bad_share(CONSECUTIVE, 2_000, seed=3) == pytest.approx(expected, abs=0.02)


def test_patience_costs_more_than_it_brings() -> None:
    shares = [bad_share(patience, 300, seed=5) for patience in (10, 20, 40)]
    assert shares == sorted(shares, reverse=True)
