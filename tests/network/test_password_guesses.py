"""Whose wrong passwords are counted together, for how long, and in how little memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_network.password_guesses import (
    ADDRESSES_MAX,
    GUESS_SECONDS,
    GUESSES_AT_ONCE,
    KNOWN_MAX,
    PasswordGuesses,
)


def used_up(host: str, guesses: PasswordGuesses, now: float = 0.0) -> None:
    for _ in range(GUESSES_AT_ONCE):
        assert not guesses.wait(host, now)
        guesses.wrong(host, now)
    assert guesses.wait(host, now) == GUESS_SECONDS


@pytest.mark.parametrize(
    ("host", "neighbour", "stranger"),
    [
        ("203.0.113.7", "::ffff:203.0.113.7", "203.0.113.8"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", "2001:db8:0:2::1"),
        ("fe80::1%eth0", "fe80::2%eth1", "2001:db8::1"),
    ],
)
def test_who_is_counted_together(host: str, neighbour: str, stranger: str) -> None:
    guesses = PasswordGuesses()
    used_up(host, guesses)
    assert guesses.wait(neighbour, 0)
    assert not guesses.wait(stranger, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "", "unix"])
def test_who_is_not_counted(host: str) -> None:
    guesses = PasswordGuesses()
    for _ in range(1_000):
        assert not guesses.wait(host, 0)
        guesses.wrong(host, 0)


def test_memory_is_bounded_and_who_is_pushed_out_is_a_guesser_not_a_knower() -> None:
    guesses = PasswordGuesses()
    guesses.right("192.0.2.1")
    used_up("192.0.2.2", guesses)
    for i in range(ADDRESSES_MAX):
        guesses.wrong(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 0)
    assert len(guesses._free_at) == ADDRESSES_MAX
    assert not guesses.wait("192.0.2.2", 0), "the oldest may guess anew"
    for _ in range(99):
        guesses.wrong("192.0.2.1", 0)
    assert not guesses.wait("192.0.2.1", 0)
    for i in range(KNOWN_MAX):
        guesses.right(f"198.51.{i >> 8}.{i & 255}")
    assert len(guesses._known) == KNOWN_MAX


@given(st.lists(st.floats(0, 30), max_size=200))
def test_in_any_time_no_more_are_heard_than_the_rate_lets(waits: list[float]) -> None:
    guesses, now, heard = PasswordGuesses(), 0.0, 0
    for wait in waits:
        now += wait
        if not guesses.wait("203.0.113.7", now):
            guesses.wrong("203.0.113.7", now)
            heard += 1
    assert heard <= GUESSES_AT_ONCE + now / GUESS_SECONDS
