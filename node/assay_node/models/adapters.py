"""LoRA files: looked at before llama.cpp sees them, and named by their sha256."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from assay_node.models.gguf import read_header
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError

_KIND: Final = ("adapter", "lora")  # of general.type and adapter.type


def check_adapter(path: Path, architecture: str) -> None:
    """Whether the header is that of a LoRA file for such a model; its sha256 is the caller's.

    Raises AssayError "model_missing" or "gguf_invalid".
    """
    header = read_header(path)
    if (header.text("general.type"), header.text("adapter.type")) != _KIND:
        raise AssayError("gguf_invalid", f"{path} is no LoRA adapter")
    if header.architecture != architecture:
        told = f"{path} is for {header.architecture}, the model is {architecture}"
        raise AssayError("gguf_invalid", told)


def is_base(card: ModelCard, adapted: ModelCard) -> bool:
    """Whether `adapted` is the model of `card` with an adapter, reading images alike."""
    alike = (card.digest, card.vision) == (adapted.digest, adapted.vision)
    return alike and card.adapter is None and adapted.adapter is not None


def base_of(adapted: ModelCard, cards: Sequence[ModelCard]) -> ModelCard:
    """The card of the model file alone that `adapted` adds to.

    Raises AssayError("config_invalid"): the node serves an adapter beside its model.
    """
    for card in cards:
        if is_base(card, adapted):
            return card
    raise AssayError("config_invalid", f"{adapted.name}: serve the model it is for, too")
