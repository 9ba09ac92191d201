"""Intervals against published values and against their own definition."""

from __future__ import annotations

import pytest

from intervals import clopper_pearson, shown


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.30850),  # 1 - 0.025 ** (1 / 10)
        (5, 10, 0.18709, 0.81291),
        (1, 20, 0.00127, 0.24873),
        (10, 10, 0.69150, 1.0),
    ],
)
def test_known_intervals(hits: int, trials: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, trials) == pytest.approx((low, high), abs=1e-4)


def test_the_ends_leave_out_what_they_should() -> None:
    low, high = clopper_pearson(0, 224)
    assert low == 0.0
    assert (1 - high) ** 224 == pytest.approx(0.025, rel=1e-6)


def test_more_trials_make_it_narrower() -> None:
    wide, narrow = clopper_pearson(3, 30), clopper_pearson(30, 300)
    assert wide[0] < narrow[0] < 0.1 < narrow[1] < wide[1]


def test_nothing_is_known_of_no_trials() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert shown(0, 0) == "-"
    assert shown(10, 10) == "100 [69, 100]"
