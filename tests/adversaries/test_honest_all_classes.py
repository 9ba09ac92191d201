"""Honest nodes (`honest_all_classes`)."""

from __future__ import annotations

from adversary_page import seen


def test_no_honest_node_is_ever_stopped() -> None:
    result = seen("honest_all_classes")
    assert result.stopped == 0
    assert result.profit == 0
