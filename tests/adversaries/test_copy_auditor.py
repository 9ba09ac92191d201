"""An auditor who waits for the answer (`copy_auditor`)."""

from __future__ import annotations

from adversary_page import seen


def test_who_commits_to_nothing_learns_nothing() -> None:
    result = seen("copy_auditor")
    assert result.stopped == len(result.runs)
    assert all(run.paid == 0 for run in result.runs)
    assert result.jobs <= 2
