"""The wait told to who is refused follows what was measured."""

from __future__ import annotations

import pytest

from assay_node.engine.pace import RATE_ASSUMED, RETRY_MS_MAX, RETRY_MS_MIN, Pace


def _drawing(rate: float, seconds: int) -> Pace:
    pace = Pace()
    pace.begin(0.0)
    for second in range(1, seconds + 1):
        pace.drawn(int(rate), float(second))
    return pace


def test_before_any_measurement_something_is_assumed() -> None:
    assert Pace().retry_after_ms(10) == pytest.approx(10_000 / RATE_ASSUMED)


def test_the_rate_is_what_was_drawn_a_second() -> None:
    pace = _drawing(50, 10)
    assert pace.rate == pytest.approx(50)
    assert pace.retry_after_ms(100) == pytest.approx(2_000, abs=1)


def test_idle_time_does_not_count() -> None:
    pace = _drawing(50, 10)
    pace.idle()
    pace.begin(1_000.0)
    pace.drawn(50, 1_001.0)
    assert pace.rate == pytest.approx(50)


def test_what_is_long_ago_is_forgotten() -> None:
    pace = _drawing(1_000, 30)
    for second in range(31, 331):
        pace.drawn(10, float(second))
    assert pace.rate == pytest.approx(10, rel=0.02)


def test_the_wait_is_bounded_even_if_nothing_moves() -> None:
    pace = Pace()
    pace.begin(0.0)
    pace.drawn(1, 1e9)
    assert pace.retry_after_ms(1_000_000) == RETRY_MS_MAX
    assert _drawing(1_000, 5).retry_after_ms(1) == RETRY_MS_MIN
