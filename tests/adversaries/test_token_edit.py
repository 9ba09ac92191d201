"""An advert in the answer (`token_edit`)."""

from __future__ import annotations

from adversary_page import seen


def test_an_advert_is_seen_within_a_few_jobs() -> None:
    result = seen("token_edit")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 6
    assert result.profit < 0
