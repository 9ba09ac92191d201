"""Blocks of model files: sizes, roots, and frames from anybody."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol import blocks
from assay_protocol.cards import decode_card, encode_card
from assay_protocol.errors import AssayError, ProtocolError, RemoteError
from assay_protocol.limits import BLOCK_BYTES, BLOCKS_MAX
from card_cases import small_card


def test_a_file_is_cut_without_rest() -> None:
    for size in (1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES):
        count = blocks.block_count(size)
        assert sum(blocks.block_size(size, index) for index in range(count)) == size
    with pytest.raises(AssayError, match="too many"):
        blocks.block_count(BLOCKS_MAX * BLOCK_BYTES + 1)


def test_the_root_binds_size_and_every_hash() -> None:
    one = hashlib.sha256(b"a").digest()
    root = blocks.block_root(1, one)
    assert root.hex() == "0c8cb295340a312473a436e97d32bf9960798c8d77e5b7d52887d2b2401adb92"
    assert blocks.block_root(2, one) != root
    assert blocks.block_root(1, one[::-1]) != root
    assert blocks.block_holds(one, 0, b"a")
    assert not blocks.block_holds(one, 0, b"b")
    assert not blocks.block_holds(one, 1, b"a")


@given(st.binary(max_size=48))
def test_any_frame_is_a_request_or_malformed(frame: bytes) -> None:
    try:
        request = blocks.decode_request(frame)
    except ProtocolError:
        return
    assert blocks.encode_request(request) == frame


@pytest.mark.parametrize(
    ("frame", "kind", "code"),
    [
        (blocks.encode_refusal("busy"), RemoteError, "busy"),
        (b"", ProtocolError, "malformed"),
        (b"\x01nonsense", ProtocolError, "malformed"),
        (b"\x01\xff", ProtocolError, "malformed"),
        (b"\x00x", ProtocolError, "malformed"),
        (b"\x02busy", ProtocolError, "malformed"),
    ],
)
def test_what_is_no_grant(frame: bytes, kind: type[AssayError], code: str) -> None:
    with pytest.raises(kind) as refused:
        blocks.check_granted(frame)
    assert refused.value.code == code
    blocks.check_granted(blocks.GRANTED)


def test_a_card_may_have_a_root_or_not() -> None:
    card = small_card()
    rooted = replace(card, block_root=bytes(32))
    assert decode_card(encode_card(rooted)) == rooted
    assert decode_card(encode_card(card)) == card
    assert len(encode_card(rooted)) > len(encode_card(card))
    for root in (b"short", "text"):
        with pytest.raises(ProtocolError):
            encode_card(replace(card, block_root=root))  # type: ignore[arg-type]
