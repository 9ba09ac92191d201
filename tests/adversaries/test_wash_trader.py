"""A node that is its own client (`wash_trader`)."""

from __future__ import annotations

from adversary_page import seen


def test_paying_oneself_costs_the_fee() -> None:
    result = seen("wash_trader")
    assert result.stopped == 0, "honest work, and paid for"
    assert result.profit <= -0.08 * 40
