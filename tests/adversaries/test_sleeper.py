"""Honest for a long time, then not (`sleeper`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_long_honest_life_buys_no_cheating() -> None:
    result = seen("sleeper")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 60 + 60
    assert result.profit < 0
