"""New keys after bans (`whitewasher`)."""

from __future__ import annotations

from adversary_page import seen


def test_new_keys_earn_nothing_before_their_audits() -> None:
    result = seen("whitewasher")
    assert all(run.paid == 0 for run in result.runs)
    assert result.profit < 0
