from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.tokenizer import Tokenizer, control_texts
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError, ProtocolError
from card_cases import small_card

BYTE = 5  # id of byte 0 in the vocabulary below


def byte_card(pre: str = "smollm", **changes: Any) -> ModelCard:
    """Five markers, then every byte, then `12`, `123` and ` a`, made by merges."""
    merged = (b"12", b"123", b" a")
    pieces = (b"", b"", b"", b"<tool>", b"", *(bytes([byte]) for byte in range(256)), *merged)
    card = small_card(
        n_vocab=len(pieces),
        tokenizer_pre=pre,
        pieces=pieces,
        token_types=bytes([3, 3, 3, 4, 5]) + bytes([1]) * (len(pieces) - 5),
        merges=((BYTE + 49, BYTE + 50), (BYTE + 256, BYTE + 51), (BYTE + 32, BYTE + 97)),
        texts=((0, "<s>"), (1, "</s>"), (2, "<s><s>"), (3, "<tool>"), (4, "<unused>")),
    )
    return replace(card, **changes)


TOKENIZER = Tokenizer.from_card(byte_card())


def ids(text: str) -> tuple[int, ...]:
    return tuple(BYTE + byte for byte in text.encode())


@settings(max_examples=60)
@given(st.text(st.characters(codec="utf-8"), max_size=60), st.booleans())
def test_decoding_gives_back_what_was_encoded(text: str, special: bool) -> None:
    written = text.replace("s>", "s >")  # no control tokens, which decode to nothing
    assert TOKENIZER.decode(TOKENIZER.encode(written, special=special)) == written


def test_markers_are_tokens_only_when_asked_for() -> None:
    assert TOKENIZER.encode("x<s>y</s>") == (*ids("x"), 0, *ids("y"), 1)
    assert TOKENIZER.encode("x<s>y", special=False) == ids("x<s>y")
    assert TOKENIZER.encode("<tool>", special=False) == (3,)
    assert TOKENIZER.encode("<unused>") == ids("<unused>")


def test_the_longest_marker_wins() -> None:
    assert TOKENIZER.encode("<s><s><s>") == (2, 0)
    assert TOKENIZER.encode("x<s> <s><s>") == (*ids("x"), 0, *ids(" "), 2)


def test_thousands_of_markers_in_one_text_cost_no_product_of_both() -> None:
    """Cutting every piece anew for every marker took seconds for what anybody may write."""
    count = 4_000
    marks = tuple((264 + i, f"[PAD{i}]") for i in range(count))
    card = byte_card()
    card = replace(
        card,
        n_vocab=264 + count,
        pieces=(*card.pieces, *(text.encode() for _, text in marks)),
        token_types=card.token_types + bytes([4]) * count,
        texts=(*card.texts, *marks),
    )
    tokenizer = Tokenizer.from_card(card)
    text = "".join(f"a{mark}" for _, mark in marks) * 2
    begun = time.process_time()
    parts = tokenizer.split(text, special=False)
    assert time.process_time() - begun < 2.0
    assert parts == [part for token, _ in marks for part in ("a", token)] * 2


def test_the_start_token_comes_only_by_request_and_if_the_model_has_one() -> None:
    assert TOKENIZER.encode("x", bos=True) == ids("x")
    wants_bos = Tokenizer.from_card(byte_card(add_bos=True))
    assert wants_bos.encode("x", bos=True) == (0, *ids("x"))
    assert wants_bos.encode("x") == ids("x")


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "123 a", [b"1", b"2", b"3", b" a"]),
        ("gpt-2", "123 a", [b"123", b" a"]),
        ("qwen2", "123 a", [b"1", b"2", b"3", b" a"]),
        ("llama-bpe", "123123", [b"123", b"123"]),
        ("gpt-2", "1\n a", [b"1", b"\n", b" a"]),
    ],
)
def test_words_are_cut_as_the_card_says(pre: str, text: str, pieces: list[bytes]) -> None:
    card = byte_card(pre)
    assert [card.pieces[i] for i in Tokenizer.from_card(card).encode(text)] == pieces


def test_control_tokens_decode_to_nothing_and_broken_bytes_show() -> None:
    assert TOKENIZER.decode([0, *ids("a"), 1]) == "a"
    assert TOKENIZER.decode([*ids("a"), BYTE + 0xC3]) == "a\ufffd"
    with pytest.raises(ProtocolError):
        TOKENIZER.decode([len(byte_card().pieces)])


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(AssayError) as refused:
        TOKENIZER.encode("a\ud800")
    assert refused.value.code == "malformed"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tokenizer_model": "llama"}, "model_unknown"),
        ({"tokenizer_model": "t5"}, "model_unknown"),
        ({"tokenizer_pre": "superbpe"}, "model_unknown"),
        ({"merges": ((BYTE + 97, BYTE + 98),)}, "card_invalid"),
        ({"merges": ((3, BYTE),)}, "card_invalid"),
        ({"pieces": (*byte_card().pieces[:-1], b"12")}, "card_invalid"),
        ({"pieces": (*byte_card().pieces[:-1], b"")}, "card_invalid"),
    ],
)
def test_a_vocabulary_we_cannot_serve_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(AssayError) as refused:
        Tokenizer.from_card(byte_card(**changes))
    assert refused.value.code == code


def test_a_byte_without_a_token_adds_none_and_still_parts_its_neighbours() -> None:
    card = byte_card("gpt-2", token_types=bytes([3, 3, 3, 4, 5, 2]) + bytes([1]) * 258)
    card = replace(card, pieces=(*card.pieces[:5], b"", *card.pieces[6:]))
    tokenizer = Tokenizer.from_card(replace(card, texts=(*card.texts, (BYTE, "nul"))))
    assert tokenizer.encode("12") == (BYTE + 256,)
    assert tokenizer.encode("1\x002") == ids("12")


def test_no_merge_leads_to_a_token_that_steers() -> None:
    """A file whose merges make a control token would let anybody type it."""
    card = byte_card("gpt-2", pieces=(*byte_card().pieces[:-3], b"", b"123", b" a"))
    kinds = bytearray(card.token_types)
    kinds[-3] = 3
    card = replace(card, token_types=bytes(kinds), texts=(*card.texts, (BYTE + 256, "12")))
    tokenizer = Tokenizer.from_card(card)
    assert tokenizer.encode("12", special=False) == ids("12")
    assert tokenizer.encode("12") == (BYTE + 256,)


def test_what_shows_who_speaks_is_no_text_though_it_is_shown() -> None:
    texts = ((0, "<s>"), (1, "</s>"), (2, "<|start|>"), (3, "<|message|>"), (4, "<unused>"))
    card = byte_card(token_types=bytes([3, 3, 4, 4, 5]) + bytes([1]) * 259, texts=texts)
    card = replace(card, pieces=(b"", b"", b"<|start|>", b"<|message|>", *card.pieces[4:]))
    assert {"<|start|>", "<|message|>"} <= set(control_texts(card))
    tokenizer = Tokenizer.from_card(card)
    assert tokenizer.encode("<|start|>a<|message|>") == (2, *ids("a"), 3)
    assert tokenizer.encode("<|start|>", special=False) == ids("<|start|>")


def test_control_texts_are_those_that_steer_the_model() -> None:
    assert set(control_texts(byte_card())) == {"<s>", "</s>", "<s><s>"}
