"""Honest where it believes that it is probed (`probe_spotter`)."""

from __future__ import annotations

from adversary_page import seen


def test_guessing_which_jobs_are_looked_at_does_not_help() -> None:
    result = seen("probe_spotter")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 10
    assert result.profit < 0
