"""A failing memory cell (`bit_fault`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_broken_machine_is_not_convicted() -> None:
    result = seen("bit_fault")
    assert "convicted" not in result.states
    assert sum(run.cheated for run in result.runs) > 0
