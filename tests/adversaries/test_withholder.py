"""No leaves of what is drawn (`withholder`)."""

from __future__ import annotations

from adversary_page import seen


def test_leaves_that_are_not_shown_are_not_paid() -> None:
    result = seen("withholder")
    assert result.profit < 0
    assert sum(run.paid for run in result.runs) < sum(run.cheated for run in result.runs) / 4
