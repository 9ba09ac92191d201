"""Tokens after the end (`padder`)."""

from __future__ import annotations

from adversary_page import seen


def test_tokens_after_the_end_are_seen() -> None:
    result = seen("padder")
    assert result.stopped == len(result.runs)
    assert result.profit < 0
