"""Two receipts for one ticket (`equivocator`)."""

from __future__ import annotations

from adversary_page import seen


def test_two_signatures_on_one_ticket_are_proof() -> None:
    result = seen("equivocator")
    assert result.stopped == len(result.runs)
    assert result.jobs == 1
    assert all(run.paid == 0 for run in result.runs)
    assert result.states in ("suspended", "convicted")
