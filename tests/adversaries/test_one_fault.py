"""Garbage once in a life (`one_fault`)."""

from __future__ import annotations

from adversary_page import seen


def test_one_spoilt_job_suspends_and_does_not_convict() -> None:
    result = seen("one_fault")
    assert result.stopped == len(result.runs)
    assert "convicted" not in result.states
    assert all(run.paid == 0 for run in result.runs), "the spoilt job is not paid"
