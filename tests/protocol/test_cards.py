from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_protocol import limits
from assay_protocol.cards import (
    ModelCard,
    ModelSource,
    SentencePieces,
    TokenType,
    Vision,
    adapted_model,
    card_digest,
    decode_card,
    encode_card,
)
from assay_protocol.errors import ProtocolError
from card_cases import small_card

VECTORS = Path(__file__).parents[2] / "protocol/spec/vectors/model_card.json"


PIECES = SentencePieces(
    scores=struct.pack("<5f", 0, -1, -2.5, -3, 7), space_first=True, swallows=()
)
SEES = Vision(projector=bytes(32), size_bytes=9, tokens=64, side=512, before=(1,), after=())
SPELT = {"tokenizer_model": "llama", "sentence_pieces": PIECES}


def decoded_or_refused(data: bytes) -> ModelCard | None:
    """The card, or None if it was refused the one way it may be."""
    code = None
    try:
        return decode_card(data)
    except ProtocolError as error:
        code = error.code
    assert code == "card_invalid"
    return None


@settings(max_examples=40)
@given(
    name=st.text("abZ09._-", max_size=63).map("m".__add__),
    digest=st.binary(min_size=32, max_size=32),
    size_bytes=st.integers(1, limits.MODEL_BYTES_MAX),
    license=st.text("aé日🙂 ", max_size=30),
    chat_template=st.text("aé日🙂\n{}", max_size=60),
    bos=st.none() | st.integers(0, 4),
    eog=st.sets(st.integers(0, 4)).map(lambda ids: tuple(sorted(ids))),
    merges=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=9).map(tuple),
    price_out=st.integers(0, limits.CARD_PRICE_MAX),
    block_root=st.none() | st.binary(min_size=32, max_size=32),
    adapter=st.none() | st.binary(min_size=32, max_size=32),
    vision=st.none() | st.just(SEES),
    with_source=st.booleans(),
)
def test_what_is_encoded_is_decoded(with_source: bool, **fields: Any) -> None:
    card = small_card(**fields)
    card = card if with_source else replace(card, source=None)
    data = encode_card(card)
    assert decode_card(data) == card
    assert len(card_digest(data)) == 32


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_card(data)
    assert refused.value.code == "card_invalid"


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_card_is_refused_or_another_card(at: int, byte: int) -> None:
    good = encode_card(small_card())
    damaged = bytearray(good)
    damaged[at % len(good)] = byte
    card = decoded_or_refused(bytes(damaged))
    assert card is None or encode_card(card) == damaged
    assert (bytes(damaged) == good) == (card == small_card())


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary() | st.text("ab<"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=8,
)


@given(st.integers(0, 26), _VALUES)
def test_a_field_of_any_other_kind_is_refused(field: int, value: Any) -> None:
    rooted = small_card(block_root=bytes(32), adapter=bytes(32), vision=SEES, **SPELT)
    raw = msgpack.unpackb(encode_card(rooted), raw=False)
    raw[field] = value
    data = msgpack.packb(raw)
    card = decoded_or_refused(data)
    assert card is None or encode_card(card) == data


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "../etc/passwd"},
        {"name": "a\nb"},
        {"digest": bytes(31)},
        {"adapter": bytes(31)},
        {"adapter": bytearray(32)},
        {"vision": replace(SEES, projector=bytes(31))},
        {"vision": replace(SEES, size_bytes=0)},
        {"vision": replace(SEES, tokens=limits.IMAGE_TOKENS_MIN - 1)},
        {"vision": replace(SEES, tokens=limits.IMAGE_TOKENS_MAX + 1)},
        {"vision": replace(SEES, side=0)},
        {"vision": replace(SEES, before=[1])},
        {"vision": replace(SEES, after=(5,))},
        {"vision": replace(SEES, before=(1,) * (limits.CARD_MARKS_MAX + 1))},
        {"size_bytes": 0},
        {"size_bytes": True},
        {"size_bytes": limits.MODEL_BYTES_MAX + 1},
        {"context": 0},
        {"n_vocab": 6},
        {"bos": 5},
        {"eos": -1},
        {"bos": None, "add_bos": True},
        {"eog": (5,)},
        {"eog": (2, 1)},
        {"eog": (1, 1)},
        {"pieces": (b"",) * 4},
        {"pieces": (b"", b"", b"a", b"b", b"x" * (limits.CARD_PIECE_BYTES_MAX + 1))},
        {"pieces": (b"<|start|>", b"", b"a", b"b", b"ab")},
        {"token_types": bytes([3, 3, 1, 1, 7])},
        {"token_types": bytes(4)},
        {"merges": ((2, 5),)},
        {"texts": ((1, "<|end|>"), (0, "<|start|>"))},
        {"texts": ((0, ""),)},
        {"texts": ((0, "\ud800"),)},
        {"license": "x" * (limits.CARD_LABEL_BYTES_MAX + 1)},
        {"chat_template": "x" * (limits.CARD_TEMPLATE_BYTES_MAX + 1)},
        {"price_in": -1},
        {"price_out": limits.CARD_PRICE_MAX + 1},
        {"source": ModelSource(hf_repo="a/b", filename="../x.gguf", revision="main")},
        {"source": ModelSource(hf_repo="a/b", filename="x/../y.gguf", revision="main")},
        {"source": ModelSource(hf_repo="a/b", filename="/x.gguf", revision="main")},
        {"source": ModelSource(hf_repo="a/b?c=d", filename="x.gguf", revision="main")},
        {"source": ModelSource(hf_repo="a", filename="x.gguf", revision="main")},
        {"source": ModelSource(hf_repo="a/b", filename="x.gguf", revision="")},
        {"sentence_pieces": PIECES},
        {**SPELT, "sentence_pieces": replace(PIECES, scores=bytes(16))},
        {**SPELT, "sentence_pieces": replace(PIECES, scores=struct.pack("<5f", *[math.inf] * 5))},
        {**SPELT, "sentence_pieces": replace(PIECES, scores=struct.pack("<5f", *[math.nan] * 5))},
        {**SPELT, "sentence_pieces": replace(PIECES, scores=bytearray(20))},
        {**SPELT, "sentence_pieces": replace(PIECES, space_first=1)},
        {**SPELT, "sentence_pieces": replace(PIECES, swallows=(1, 0))},
        {**SPELT, "sentence_pieces": replace(PIECES, swallows=(2,))},
        {**SPELT, "sentence_pieces": replace(PIECES, swallows=[0])},
        {**SPELT, "sentence_pieces": b"x"},
    ],
)
def test_a_card_that_breaks_a_rule_is_not_encoded(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as refused:
        encode_card(small_card(**changes))
    assert refused.value.code == "card_invalid"


def test_another_encoding_of_the_same_card_is_refused() -> None:
    raw = msgpack.unpackb(encode_card(small_card()), raw=False)
    body = msgpack.packb(raw)
    longer = b"\xdc\x00\x17" + body[3:] if body[0] == 0xDC else b"\xdd\x00\x00\x00\x17" + body[1:]
    assert decode_card(body) == small_card()
    for other in (longer if longer != body else b"\xdd\x00\x00\x00\x17" + body[3:], body + b"\x00"):
        with pytest.raises(ProtocolError):
            decode_card(other)


def test_a_model_with_an_adapter_has_a_name_of_its_own_that_binds_both_files() -> None:
    plain, first, second = (small_card(adapter=one) for one in (None, bytes(32), b"a" * 32))
    other = small_card(digest=b"o" * 32, adapter=bytes(32))
    assert plain.model == plain.digest
    names = {one.model for one in (plain, first, second, other)}
    assert len(names) == 4
    assert not names & {first.adapter, second.adapter, other.digest}
    assert adapted_model(first.digest, bytes(32)) == first.model


def test_a_sentencepiece_card_carries_what_it_is_tokenized_with() -> None:
    pieces = replace(PIECES, swallows=(0, 1), space_first=False)
    card = small_card(tokenizer_model="llama", sentence_pieces=pieces)
    data = encode_card(card)
    assert decode_card(data) == card
    assert msgpack.unpackb(data)[23:] == [None, None, [PIECES.scores, False, [0, 1]]]
    assert decode_card(encode_card(small_card(tokenizer_model="llama"))).sentence_pieces is None


def test_fields_left_out_at_the_end_have_one_form() -> None:
    raw = msgpack.unpackb(encode_card(small_card()), raw=False)
    assert len(raw) == 23
    assert len(msgpack.unpackb(encode_card(small_card(block_root=bytes(32))))) == 24
    assert msgpack.unpackb(encode_card(small_card(adapter=bytes(32))))[23:] == [None, bytes(32)]
    for more in ([None], [None, None], [bytes(32), None], [None, bytes(32), None], [None] * 3):
        assert decoded_or_refused(msgpack.packb([*raw, *more])) is None


def test_token_types_are_those_of_gguf() -> None:
    assert [kind.value for kind in TokenType] == [1, 2, 3, 4, 5, 6]


def test_vectors() -> None:
    vectors = json.loads(VECTORS.read_text())
    for vector in vectors["cards"]:
        data = bytes.fromhex(vector["encoded"])
        card = decode_card(data)
        assert card.name == vector["name"]
        assert card.pieces == tuple(bytes.fromhex(piece) for piece in vector["pieces"])
        assert card_digest(data).hex() == vector["card_digest"]
        assert card.model.hex() == vector.get("model", card.digest.hex())
        assert encode_card(card) == data
    for vector in vectors["refused"]:
        with pytest.raises(ProtocolError, match="card_invalid"):
            decode_card(bytes.fromhex(vector["encoded"]))
