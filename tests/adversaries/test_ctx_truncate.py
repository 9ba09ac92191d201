"""Half a prompt (`ctx_truncate`)."""

from __future__ import annotations

from adversary_page import seen


def test_half_a_prompt_is_seen_within_a_few_jobs() -> None:
    result = seen("ctx_truncate")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 8
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
