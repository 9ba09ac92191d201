"""A scripted embedder: the interface of embedding engines over arithmetic instead of a model.

For tests and simulations, like scripted.py: a text's vector is a pure function of the model's
digest and its tokens, the same bits everywhere. Its class id and device say "scripted".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from math import hypot

import trio

from assay_node.engine.embedding import Embed, Embedded, EmbeddingInfo, check_embed
from assay_node.engine.interface import Load
from assay_node.engine.texts_engine import TextsEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingScript:
    """A scripted embedding model and the ways it is told to misbehave."""

    model: bytes = b"scripted embedder".ljust(32, b".")  # its digest, and the seed of its vectors
    n_vocab: int = 256
    dims: int = 48
    context: int = 512
    class_id: str = "scripted"
    perturbation: float = 0.0  # > 0: a cheaper model, each number off by up to so much of 1
    seconds_per_token: float = 0.0


class ScriptedEmbedder:
    """Serves `script`. Neighbouring tokens make a text's vector, so like texts have like ones."""

    def __init__(self, script: EmbeddingScript) -> None:
        self._script = script
        self.info = EmbeddingInfo(
            model=script.model,
            n_vocab=script.n_vocab,
            dims=script.dims,
            context=script.context,
            pooling="mean",
            class_id=script.class_id,
            device="scripted",
        )
        self.load = Load(0, 0, 1, 0)

    async def embed(self, request: Embed) -> Embedded:
        check_embed(self.info, request)
        await trio.sleep(self._script.seconds_per_token * len(request.tokens))
        return Embedded(scripted_vector(self._script, request.tokens))


def scripted_vector(script: EmbeddingScript, tokens: tuple[int, ...]) -> bytes:
    """Little-endian f32[dims] of length 1."""
    sums = [0.0] * script.dims
    for pair in pairwise((0, *tokens)):
        for place, number in enumerate(_numbers(script, struct.pack("<2I", *pair))):
            sums[place] += number
    if script.perturbation:
        cheaper = replace(script, model=script.model[::-1])
        length = hypot(*sums)
        off = _numbers(cheaper, struct.pack(f"<{len(tokens)}I", *tokens))
        sums = [
            number / length + script.perturbation * other
            for number, other in zip(sums, off, strict=True)
        ]
    length = hypot(*sums)
    return struct.pack(f"<{script.dims}f", *(number / length for number in sums))


def _numbers(script: EmbeddingScript, salt: bytes) -> list[float]:
    """`dims` of them, in [-1, 1]."""
    stream = hashlib.shake_128(script.model + salt).digest(2 * script.dims)
    return [word / 32_768 for word in struct.unpack(f"<{script.dims}h", stream)]


@asynccontextmanager
async def open_scripted_embedder(
    script: EmbeddingScript | None = None, *, slots: int = 4
) -> AsyncIterator[TextsEngine]:
    """An engine that lives in this process; nothing to start, nothing to stop."""
    yield TextsEngine(ScriptedEmbedder(script or EmbeddingScript()), slots=slots)
