"""Guessed logits (`fingerprint_forger`)."""

from __future__ import annotations

from adversary_page import seen


def test_guessed_logits_do_not_help() -> None:
    result = seen("fingerprint_forger")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 4
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
