"""A 4-bit attention cache (`kv_q4`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_four_bit_cache_is_seen_within_a_few_jobs() -> None:
    result = seen("kv_q4")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 6
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
