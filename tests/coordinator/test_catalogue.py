"""The catalogue: cards by what the network calls their models."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay_coordinator.app import read_catalogue
from assay_protocol.cards import decode_card, encode_card
from assay_protocol.errors import AssayError
from card_cases import small_card


def test_a_model_and_the_same_with_an_adapter_are_two(tmp_path: Path) -> None:
    plain = small_card(name="plain", price_out=300)
    styled = small_card(name="styled", price_out=500, adapter=b"a" * 32)
    for card in (plain, styled):
        (tmp_path / f"{card.name}.card").write_bytes(encode_card(card))
    cards, listed = read_catalogue([tmp_path])
    assert {model: decode_card(raw) for model, raw in cards.items()} == {
        plain.model: plain,
        styled.model: styled,
    }
    assert {one.model: one.price_out for one in listed.values()} == {
        plain.digest: 300,
        styled.model: 500,
    }


def test_what_is_no_card_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.card").write_bytes(b"nonsense")
    with pytest.raises(AssayError) as caught:
        read_catalogue([tmp_path])
    assert caught.value.code == "card_invalid"
    assert "x.card" in caught.value.message
