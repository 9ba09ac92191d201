"""The cache of another prompt (`prefix_poison`)."""

from __future__ import annotations

from adversary_page import seen


def test_another_prompts_cache_is_seen_within_a_few_jobs() -> None:
    result = seen("prefix_poison")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 8
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
