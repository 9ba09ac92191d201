"""A coordinator that spares a friend (`coordinator_bias`)."""

from __future__ import annotations

from adversary_page import seen


def test_a_spared_friend_shows_in_the_public_draw() -> None:
    result = seen("coordinator_bias")
    assert result.stopped == len(result.runs)
