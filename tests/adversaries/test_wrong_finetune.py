"""A missing adapter (`wrong_finetune`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_missing_adapter_is_seen_within_a_few_jobs() -> None:
    result = seen("wrong_finetune")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 8
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
