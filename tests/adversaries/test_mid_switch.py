"""A cheaper model in one span (`mid_switch`)."""

from __future__ import annotations

from adversary_page import seen


def test_one_span_of_an_answer_is_enough() -> None:
    result = seen("mid_switch")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 8
    assert result.profit < 0
