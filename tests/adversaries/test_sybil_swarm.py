"""Many keys at once (`sybil_swarm`)."""

from __future__ import annotations

from adversary_page import seen


def test_many_keys_earn_no_more_than_one() -> None:
    result = seen("sybil_swarm")
    assert result.stopped == len(result.runs)
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
