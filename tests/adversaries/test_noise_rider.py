"""A third more noise than others have (`noise_rider`)."""

from __future__ import annotations

from adversary_page import seen


def test_noise_just_inside_one_jobs_bounds_adds_up() -> None:
    result = seen("noise_rider")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 65
    assert result.profit < 0.06 * 80, "less than a cheat of this size would gain unseen"
