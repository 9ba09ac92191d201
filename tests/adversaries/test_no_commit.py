"""Receipts kept back until the draw (`no_commit`)."""

from __future__ import annotations

from adversary_page import seen


def test_who_waits_for_the_draw_is_not_paid() -> None:
    result = seen("no_commit")
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
