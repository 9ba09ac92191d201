from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.detokenizer import Detokenizer
from assay_protocol.errors import ProtocolError

BYTES = [bytes([byte]) for byte in range(256)]


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 5))
def test_whole_characters_only_whatever_the_cuts(text: str, step: int) -> None:
    detokenizer = Detokenizer(BYTES)
    data = text.encode()
    said = ""
    for at in range(0, len(data), step):
        said += detokenizer.push(data[at : at + step])
        assert text.startswith(said)
    assert detokenizer.flush() == ""
    assert said == text


@given(st.binary(), st.data())
def test_cuts_do_not_change_the_text_even_of_broken_bytes(data: bytes, draw: st.DataObject) -> None:
    cut = draw.draw(st.integers(0, len(data)))
    detokenizer = Detokenizer(BYTES)
    said = detokenizer.push(data[:cut]) + detokenizer.push(data[cut:]) + detokenizer.flush()
    assert said == data.decode("utf-8", errors="replace")


def test_an_unfinished_character_shows_only_at_the_end() -> None:
    detokenizer = Detokenizer([b"ok \xf0\x9f", b"\x99", b"\x82!", b""])
    assert detokenizer.push([0]) == "ok "
    assert detokenizer.push([1, 3]) == ""
    assert detokenizer.push([2]) == "🙂!"
    assert detokenizer.push([0]) == "ok "
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""


@pytest.mark.parametrize("token", [-1, 2])
def test_a_token_outside_the_vocabulary_is_refused(token: int) -> None:
    with pytest.raises(ProtocolError) as refused:
        Detokenizer([b"a", b"b"]).push([0, token])
    assert refused.value.code == "malformed"
