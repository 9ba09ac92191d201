"""Transcripts lost whenever they are asked for (`forgetful`)."""

from __future__ import annotations

from adversary_page import seen


def test_lost_transcripts_are_not_paid() -> None:
    result = seen("forgetful")
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
