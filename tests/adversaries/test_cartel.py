"""Friends among the auditors (`cartel`)."""

from __future__ import annotations

from adversary_page import seen


def test_friends_among_the_auditors_do_not_save_it() -> None:
    result = seen("cartel")
    assert result.stopped == len(result.runs)
    assert result.profit < 0
