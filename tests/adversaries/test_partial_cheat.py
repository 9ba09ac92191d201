"""One job in ten (`partial_cheat`)."""

from __future__ import annotations

from adversary_page import seen


def test_one_cheated_job_in_ten_is_found_by_the_draw() -> None:
    result = seen("partial_cheat")
    assert result.stopped >= len(result.runs) // 2  # one in twenty of some 25 cheated jobs is drawn
    assert result.profit < 0
