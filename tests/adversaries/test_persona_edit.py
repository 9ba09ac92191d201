"""One changed phrase of the system prompt (`persona_edit`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_changed_phrase_is_found_by_sketches() -> None:
    result = seen("persona_edit")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 20
    assert result.profit < 0
