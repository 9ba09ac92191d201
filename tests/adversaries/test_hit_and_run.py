"""Cheating when nothing is held back (`hit_and_run`): a little is gained, and a key is at stake."""

from __future__ import annotations

from adversary_page import seen


def test_an_empty_escrow_lets_a_few_jobs_pay() -> None:
    result = seen("hit_and_run")
    assert 0 < result.stopped < len(result.runs)
    assert result.profit < 8 * 0.48 / 2, "half of what nobody would have caught"
