"""Policies: what is refused, in which form texts are compared, and who signed."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.errors import ProtocolError
from assay_protocol.messages import ModerationPolicy
from assay_protocol.moderation import (
    Phrases,
    comparable,
    open_policy,
    pack_policy,
    policy_digest,
    text_of,
    unpack_policy,
)
from assay_protocol.signing import Identity, seal

AUTHOR = Identity(b"\x07" * 32)
POLICY = ModerationPolicy(name="test", version=1, issued_at=5, phrases=("how to", "x"))
_LETTERS = st.text("ab ", max_size=12)


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("secret", "a SECRET thing"),
        ("secret", "top-secrets"),  # words are not told apart
        ("Straße", "STRASSE"),
        ("two words", "two \t\n words"),
        ("ﬁne", "FINE"),  # the ligature
        ("é", "e\u0301"),
    ],
)
def test_texts_are_compared_in_one_form(phrase: str, text: str) -> None:
    assert Phrases([phrase]).in_text(text)


@pytest.mark.parametrize(
    ("phrase", "text"),
    [("two words", "twowords"), ("secret", "se cret"), ("", "anything"), ("ab", "a"), ("a", "")],
)
def test_what_is_not_there_is_not_found(phrase: str, text: str) -> None:
    assert not Phrases([phrase]).in_text(text)


@given(st.lists(_LETTERS, max_size=6), _LETTERS)
def test_phrases_are_found_as_python_finds_them(phrases: list[str], text: str) -> None:
    plain = [comparable(one) for one in phrases if comparable(one)]
    assert Phrases(phrases).in_text(text) == any(one in comparable(text) for one in plain)


@given(st.lists(st.text(min_size=1, max_size=5), max_size=4), st.text(max_size=30))
def test_any_text_is_searched(phrases: list[str], text: str) -> None:
    expected = any(comparable(one) in comparable(text) for one in phrases)
    assert Phrases(phrases).in_text(text) == expected


def test_an_end_inside_a_longer_beginning_is_found() -> None:
    assert Phrases(["abcd", "bc"]).in_text("xabce")


def test_a_prompt_is_read_by_its_models_vocabulary() -> None:
    pieces = (b"", b"how", b" to", "é".encode()[:1], "é".encode()[1:])
    assert text_of(pieces, (1, 0, 2, 3, 4)) == "how toé"  # control tokens add nothing
    assert text_of(pieces, (3,)) == "\ufffd"
    with pytest.raises(ProtocolError, match="malformed"):
        text_of(pieces, (5,))


@given(st.lists(st.sampled_from([1, 2, 3, 4, 1 << 31, (1 << 32) - 1]), max_size=8))
def test_an_image_hides_a_phrase_no_better_than_a_space(prompt: list[int]) -> None:
    pieces = (b"", b"bad", b"ba", b"d", b" ", b" ")
    runs = groupby(prompt, key=lambda token: token >= 1 << 31)
    spaced = [token for seen, run in runs for token in ([5] if seen else run)]
    assert text_of(pieces, prompt) == text_of(pieces, spaced)


def test_a_policy_file_holds_author_and_policy() -> None:
    file = pack_policy(AUTHOR, POLICY)
    author, blob, policy = unpack_policy(file)
    assert (author, policy) == (AUTHOR.public_key, POLICY)
    assert blob == seal(AUTHOR, POLICY)
    assert policy_digest(blob) != policy_digest(file)


@given(st.data())
def test_a_damaged_policy_is_refused_by_name(data: st.DataObject) -> None:
    file = bytearray(pack_policy(AUTHOR, POLICY))
    at = data.draw(st.integers(0, len(file) - 1))
    file[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError, match="rules_invalid"):
        unpack_policy(bytes(file))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_policy_or_rules_invalid(file: bytes) -> None:
    with pytest.raises(ProtocolError, match="rules_invalid"):
        unpack_policy(file)


def test_another_author_did_not_sign_it() -> None:
    blob = seal(AUTHOR, POLICY)
    with pytest.raises(ProtocolError, match="rules_invalid"):
        open_policy(blob, Identity(b"\x08" * 32).public_key)
