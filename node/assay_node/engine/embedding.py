"""What can be asked of an embedding engine: one text, one vector.

Like interface.py for answers: tokens and vectors, no tickets, peers or money. An embedding engine
serves one model, in a process of its own (embedder.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from assay_node.engine.interface import Load
from assay_node.engine.requests import check_tokens
from assay_protocol.errors import AssayError

Pooling = Literal["mean", "cls", "last"]
POOLINGS: Final[tuple[Pooling, ...]] = ("mean", "cls", "last")


@dataclass(frozen=True, slots=True)
class EmbeddingInfo:
    """What is loaded and how it computes."""

    model: bytes  # sha256 of the model file, 32 bytes
    n_vocab: int
    dims: int  # numbers in a vector
    context: int  # tokens of one text
    pooling: str  # one of POOLINGS
    class_id: str
    device: str


@dataclass(frozen=True, slots=True)
class Embed:
    """Embed one text, with the marks its model wants around it ([CLS], [SEP], an end token)."""

    tokens: tuple[int, ...]
    tenant: bytes = b""  # who asks: turns are fair between tenants


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vector of one text."""

    vector: bytes  # little-endian f32, EmbeddingInfo.dims of them, of Euclidean length 1


class EmbeddingEngine(Protocol):
    """One loaded model. Every method raises AssayError and nothing else of its own."""

    @property
    def info(self) -> EmbeddingInfo: ...

    @property
    def load(self) -> Load:
        """In texts: `running` 1 at most, as batches are made one after the other."""
        ...

    async def embed(self, request: Embed) -> Embedded:
        """Wait for the text's turn; cancelling takes it out of the queue.

        Codes: "malformed" (no tokens, or some outside the vocabulary), "prompt_too_long", "busy",
        "not_finite" (what the model computed is no direction), "engine_failed" (ask again).
        """
        ...


def check_embed(info: EmbeddingInfo, request: Embed) -> None:
    """Raises AssayError: "malformed", "prompt_too_long"."""
    check_tokens(info.n_vocab, request.tokens)
    if len(request.tokens) > info.context:
        raise AssayError("prompt_too_long", f"{len(request.tokens)} tokens, {info.context} fit")
