"""What the end-to-end tests share: the scripted model's card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay_node.engine.scripted import Script
from assay_protocol.cards import ModelCard, encode_card
from card_cases import small_card

N_VOCAB = Script().n_vocab


def scripted_card(**changes: Any) -> ModelCard:
    """The card of the model that `--engine scripted` serves: 256 tokens, 0 ends an answer."""
    fields: dict[str, Any] = {
        "name": "scripted",
        "digest": Script().model,
        "context": 2048,
        "n_vocab": N_VOCAB,
        "bos": None,
        "eos": 0,
        "eog": (0,),
        "pieces": (b"", *(bytes([i]) for i in range(1, N_VOCAB))),
        "token_types": bytes([3, *[1] * (N_VOCAB - 1)]),
        "merges": (),
        "texts": ((0, "<|end|>"),),
    }
    return small_card(**(fields | changes))


def write_card(folder: Path) -> Path:
    path = folder / "scripted.card"
    path.write_bytes(encode_card(scripted_card()))
    return path
