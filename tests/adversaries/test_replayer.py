"""An old answer with a new receipt (`replayer`)."""

from __future__ import annotations

from adversary_page import seen


def test_an_old_answer_fits_no_new_seed() -> None:
    result = seen("replayer")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 3
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
