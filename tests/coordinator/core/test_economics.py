"""The formulas of the policy: signs, known values, and what the default policy gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.economics import (
    Threat,
    bad_share_bound,
    deterrence,
    expected_gain,
    hazard,
    holdback_needed,
    rate_needed,
    survival,
)
from assay_coordinator.core.policy import Policy

SHARE = st.floats(0.01, 0.99)


def test_the_default_policy_deters() -> None:
    q = hazard(0.05, Threat())
    assert q == pytest.approx(0.0446, abs=1e-4)
    assert deterrence(Policy()) == pytest.approx(4.455)
    assert holdback_needed(0.05, Threat()) < Policy().holdback_jobs
    assert rate_needed(Threat(), 60) < 0.05


@pytest.mark.parametrize(("jobs", "left"), [(20, 0.40), (50, 0.10), (100, 0.01), (200, 0.0001)])
def test_a_cheat_does_not_last(jobs: int, left: float) -> None:
    assert survival(hazard(0.05, Threat()), jobs) == pytest.approx(left, rel=0.15)


@given(SHARE, st.integers(1, 500), st.floats(0.01, 2.0), st.floats(0.0, 500.0))
def test_the_sign_does_not_depend_on_how_often_one_cheats(
    q: float, jobs: int, gain: float, at_risk: float
) -> None:
    once, often = (expected_gain(q, n, gain, at_risk) for n in (1, jobs))
    assert once * often >= 0
    assert once == pytest.approx(gain - q * at_risk, abs=1e-6)


@given(SHARE, SHARE, SHARE, st.floats(0.0, 0.9))
def test_what_is_held_back_suffices_by_the_margin(
    rate: float, gain: float, power: float, collusion: float
) -> None:
    threat = Threat(gain, power, collusion)
    held = holdback_needed(rate, threat)
    assert expected_gain(hazard(rate, threat), 10, gain, held) < 0
    assert rate_needed(threat, held) == pytest.approx(rate)


def test_a_record_bounds_the_share_of_bad_jobs() -> None:
    assert bad_share_bound(300) == pytest.approx(3 / 300, rel=0.02)
    assert bad_share_bound(0) == pytest.approx(0.95)
    bounds = [bad_share_bound(n) for n in range(50)]
    assert bounds == sorted(bounds, reverse=True)
    assert bad_share_bound(300, power=0.5) == pytest.approx(2 * bad_share_bound(300))
