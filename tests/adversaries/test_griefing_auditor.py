"""An auditor who calls everything wrong (`griefing_auditor`)."""

from __future__ import annotations

from adversary_page import seen


def test_one_word_against_a_node_convicts_nobody() -> None:
    result = seen("griefing_auditor")  # fails if an honest executor lost its standing
    assert result.stopped == len(result.runs)
    assert result.jobs <= 3
    assert result.profit < 0
