"""Right logits of wrong text: only the draws tell (`prefill_forger`)."""

from __future__ import annotations

from adversary_page import seen


def test_text_of_a_cheap_model_is_seen_under_right_logits() -> None:
    result = seen("prefill_forger")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 4
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
