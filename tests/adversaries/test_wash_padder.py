"""Tiny jobs of one's own that push cheated pay out of escrow (`wash_padder`)."""

from __future__ import annotations

from adversary_page import seen


def test_freeing_ones_pay_brings_the_audits_back() -> None:
    result = seen("wash_padder")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 3
    assert result.profit < 0
