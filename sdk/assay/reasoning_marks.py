"""Which marks a model writes its reasoning between, as its card tells.

Decided by what the chat template spells and which marks the vocabulary has, never by the model's
name. A template may open the mark in the generation prompt (DeepSeek-R1), or open and close it
there where thinking is switched off (Qwen3), so where an answer begins is read from its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from assay.reasoning_split import ChannelSplit, MarkSplit, Split
from assay_protocol.cards import ModelCard
from assay_protocol.images import IMAGE_TOKEN

TAIL_TOKENS: Final = 32  # of a prompt: as many as a mark may be spelled with, and blanks after it


@dataclass(frozen=True, slots=True)
class Marks:
    """One way to write reasoning. `source`: who reads it so, too."""

    name: str
    opening: str
    closing: str
    source: str
    channels: bool = False  # messages of several channels, each with a head

    def split(self, tail: str) -> Split:
        """A reader of an answer to a prompt that ends in `tail`."""
        if self.channels:
            return ChannelSplit()
        inside = tail.rstrip().endswith(self.opening)
        return MarkSplit(self.opening, self.closing, inside=inside)


CHANNELS: Final = Marks(
    "channels", "<|channel|>", "<|message|>", "openai/harmony docs/format.md (gpt-oss)", True
)
TABLE: Final = (
    CHANNELS,
    Marks("think", "<think>", "</think>", "vLLM deepseek_r1, qwen3; llama.cpp common/parsers"),
    Marks("seed", "<seed:think>", "</seed:think>", "vLLM seed_oss"),
    Marks("bracket", "[THINK]", "[/THINK]", "vLLM mistral; mistral-common SpecialTokens"),
)


def marks_of(card: ModelCard) -> Marks | None:
    """The marks of the card's model; None if it has none that are known."""
    template, written = card.chat_template, {text for _, text in card.texts}
    for marks in TABLE:
        pair = (marks.opening, marks.closing)
        if all(mark in template for mark in pair) or written.issuperset(pair):
            return marks
        if not marks.channels and marks.closing in template:  # it cuts it out of earlier turns
            return marks
    return None


def shown_pieces(card: ModelCard, marks: Marks | None) -> tuple[bytes, ...]:
    """The card's pieces; those of marks that are control tokens, and silent, are spelled out."""
    silent = [
        (token, text)
        for token, text in card.texts
        if marks is not None and text in (marks.opening, marks.closing) and not card.pieces[token]
    ]
    if not silent:
        return card.pieces
    pieces = list(card.pieces)
    for token, text in silent:
        pieces[token] = text.encode()
    return tuple(pieces)


def prompt_tail(card: ModelCard, prompt: Sequence[int]) -> str:
    """The text the prompt ends in, control tokens as their marks, images as nothing."""
    texts = dict(card.texts)
    tail = [token for token in prompt[-TAIL_TOKENS:] if token < IMAGE_TOKEN]
    pieces = [card.pieces[token] or texts.get(token, "").encode() for token in tail]
    return b"".join(pieces).decode(errors="replace")
