"""The model that real processes serve: SmolLM2-135M as it is shipped, its card, and a cheaper one.

The engine's profile is tried out here, once: nodes that start together would otherwise all try it
at the same time, and each would be in the others' way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from assay_node.engine.library import engines
from assay_node.engine.quantize import requantize
from assay_node.engine.trials import choose
from assay_node.models.card import build_card, file_sha256
from assay_node.models.fetch import fetch_test_model
from assay_protocol.cards import ModelCard, encode_card

NAME: Final = "smollm2-135m"
CHEAP: Final = "Q2_K"  # what a cheat serves for it
THREADS: Final = 1  # of each node: several share this machine


@dataclass(frozen=True, slots=True)
class RealModel:
    """Its file, its card, and the card's file."""

    file: Path
    card: ModelCard
    card_file: Path


def prepare(folder: Path, *, price_in: int, price_out: int, context: int = 0) -> RealModel:
    """Fetch the model if need be, and write its card into `folder`. `context`: fewer tokens than
    it was trained with; 0: all. Raises AssayError. Takes a minute the first time."""
    file = fetch_test_model()
    choose(file, file_sha256(file), "exact", threads=THREADS, directory=engines())
    card = build_card(file, name=NAME, price_in=price_in, price_out=price_out)
    if context:
        card = replace(card, context=min(context, card.context))
    card_file = folder / f"{NAME}.card"
    card_file.write_bytes(encode_card(card))
    return RealModel(file, card, card_file)


def cheaper(model: RealModel) -> Path:
    """The same model in fewer bits; made once, beside it."""
    cheap = model.file.with_name(f"demo-cheap-{CHEAP}.gguf")
    if not cheap.exists():
        requantize(model.file, cheap, CHEAP)
    return cheap
