"""A dropped system prompt (`sys_prompt_drop`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_dropped_system_prompt_is_seen_within_a_few_jobs() -> None:
    result = seen("sys_prompt_drop")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 8
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
