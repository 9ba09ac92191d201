"""An auditor with a cheaper model (`cheap_auditor`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_cheaper_replay_is_seen_on_every_audit() -> None:
    result = seen("cheap_auditor")
    assert result.stopped == len(result.runs)
    assert all(run.paid == 0 for run in result.runs)
    assert result.jobs <= 3
