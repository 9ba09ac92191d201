"""A missing layer (`layer_skip`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_missing_layer_is_seen_within_a_few_jobs() -> None:
    result = seen("layer_skip")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 4
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
