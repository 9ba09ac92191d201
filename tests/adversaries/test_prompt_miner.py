"""Prompts full of near-ties (`prompt_miner`)."""

from __future__ import annotations

from adversary_page import seen


def test_near_ties_hide_no_cheaper_model() -> None:
    result = seen("prompt_miner")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 6
    assert result.profit < 0
