"""An answer cut short (`early_stop`)."""

from __future__ import annotations

from adversary_page import seen


def test_an_end_that_the_model_did_not_draw_is_seen() -> None:
    result = seen("early_stop")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 20
    assert result.profit < 0
