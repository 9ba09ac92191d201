"""No model at all (`works_not`)."""

from __future__ import annotations

from adversary_page import seen


def test_made_up_tokens_earn_nothing() -> None:
    result = seen("works_not")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 3
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
