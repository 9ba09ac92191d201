"""Drafts taken though they lose (`lossy_spec`)."""

from __future__ import annotations

from adversary_page import seen


def test_lossy_drafts_are_seen_by_their_draws() -> None:
    result = seen("lossy_spec")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 10
    assert result.profit < 0
