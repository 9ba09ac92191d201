"""A class of its own for the noise (`class_liar`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_class_nobody_knows_is_no_excuse() -> None:
    result = seen("class_liar")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 10
    assert result.profit < 0
