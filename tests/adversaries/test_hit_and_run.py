"""Cheating when nothing is held back (`hit_and_run`)."""

from __future__ import annotations

from adversary_page import seen


def test_an_empty_escrow_is_no_free_hand() -> None:
    result = seen("hit_and_run")
    assert result.stopped == len(result.runs)
    assert result.profit < 0
