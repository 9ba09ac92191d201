"""Transcripts lost whenever they are asked for (`forgetful`)."""

from __future__ import annotations

from adversary_page import seen


def test_lost_transcripts_are_not_paid() -> None:
    result = seen("forgetful")
    assert result.profit < 0
    assert sum(run.paid for run in result.runs) < sum(run.cheated for run in result.runs) / 4
