"""Another node's answer (`copycat`)."""

from __future__ import annotations

from adversary_page import seen


def test_another_nodes_answer_fits_no_other_seed() -> None:
    result = seen("copycat")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 3
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
