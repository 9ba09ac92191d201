"""Greedy draws where a temperature was asked for (`topk_greedy`)."""

from __future__ import annotations

from adversary_page import seen


def test_greedy_draws_are_seen_at_once() -> None:
    result = seen("topk_greedy")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 3
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
