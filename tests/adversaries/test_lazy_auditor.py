"""An auditor who computes nothing (`lazy_auditor`)."""

from __future__ import annotations

from adversary_page import seen


def test_computing_nothing_is_seen_on_every_audit() -> None:
    result = seen("lazy_auditor")
    assert result.stopped == len(result.runs)
    assert all(run.paid == 0 for run in result.runs)
    assert result.jobs <= 3
