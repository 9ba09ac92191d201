"""Another model of the same tokens (`small_model`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_small_model_is_seen_at_once() -> None:
    result = seen("small_model")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 3
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
