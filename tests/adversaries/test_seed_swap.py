"""A seed of the node's own (`seed_swap`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_seed_of_its_own_is_seen_at_once() -> None:
    result = seen("seed_swap")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 3
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
