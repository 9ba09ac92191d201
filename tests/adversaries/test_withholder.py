"""No leaves of what is drawn (`withholder`)."""

from __future__ import annotations

from adversary_page import seen


def test_leaves_that_are_not_shown_are_not_paid() -> None:
    result = seen("withholder")
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
