"""A cheaper model after the first half (`tail_cheat`)."""

from __future__ import annotations

from adversary_page import seen


def test_the_tail_of_an_answer_is_looked_at() -> None:
    result = seen("tail_cheat")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 8
    assert result.profit < 0
