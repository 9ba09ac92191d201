"""WordPiece from a model card: the ids that the model's own tokenizer gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.implementations import BertWordPieceTokenizer

from assay.tokenizer import Tokenizer
from assay_node.models.bert import convert_bert
from assay_node.models.card import build_card
from assay_protocol.cards import ModelCard, decode_card, encode_card
from assay_protocol.errors import ProtocolError
from bert_cases import WORDS, write_bert

CLS, SEP, UNKNOWN = (WORDS.index(mark) for mark in ("[CLS]", "[SEP]", "[UNK]"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def card(folder: Path) -> ModelCard:
    file = convert_bert(folder, folder.parent / "small.gguf", kind="f16")
    made = build_card(file, name="small", price_in=1, price_out=0)
    return decode_card(encode_card(made))


def test_words_are_cut_as_bert_cuts_them(card: ModelCard) -> None:
    ours = Tokenizer.from_card(card)
    got = ours.encode("Word1 wörd2s b a-a zebra", special=False, bos=True, eos=True)
    words = [WORDS.index(word) for word in ("word1", "word2", "##s", "b", "a")]
    assert got[:6] == (CLS, *words)
    assert got[-3:] == (WORDS.index("a"), UNKNOWN, SEP)
    marks = ours.encode("[SEP] word1 [MASK]", special=False)
    assert not {SEP, WORDS.index("[MASK]")} & set(marks), "marks in a text stay text"


def test_the_models_own_tokenizer_says_the_same(folder: Path, card: ModelCard) -> None:
    ours, theirs = Tokenizer.from_card(card), BertWordPieceTokenizer(str(folder / "vocab.txt"))
    pieces = st.sampled_from(
        ["word1", "WORD12", "wording", "b", "é", "a", "...", "漢", " ", "\t", "x"]
    )

    @given(st.lists(pieces, max_size=12).map("".join))
    def check(text: str) -> None:
        got = ours.encode(text, special=False, bos=True, eos=True)
        assert list(got) == theirs.encode(text).ids

    check()


def test_a_card_that_contradicts_itself_is_refused(card: ModelCard) -> None:
    for pieces in (
        (*card.pieces[:-1], card.pieces[-2]),  # one text twice
        (b"", *card.pieces[1:]),
    ):
        texts = card.texts if pieces[0] else tuple(t for t in card.texts if t[0] != UNKNOWN)
        with pytest.raises(ProtocolError, match="card_invalid"):
            Tokenizer.from_card(replace(card, pieces=pieces, texts=texts))
