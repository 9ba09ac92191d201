"""The node's side of an embedding engine: texts in, vectors out, over a process of its own.

If that process dies (keeper.py), texts in flight fail with "engine_failed" and can be asked again.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from assay_node.engine import embedding_wire, wire
from assay_node.engine.channels import Results
from assay_node.engine.embedding import Embed, Embedded, EmbeddingInfo, Pooling, check_embed
from assay_node.engine.interface import Load
from assay_node.engine.keeper import SILENCE_SECONDS_MAX, Keeper, kept
from assay_node.engine.pace import Pace
from assay_node.engine.profiles import FLASH, Profile
from assay_protocol.errors import AssayError

WAITING_MAX: Final = 256
TENANT_WAITING_MAX: Final = 128  # one client cannot take every place in the queue
CONTEXT: Final = 512  # tokens, where nothing else is asked for: what BERT was trained with
_BYTES_OF_F32: Final = 4


class LlamaEmbedder(Keeper[EmbeddingInfo]):
    """Open it with open_embedding_engine."""

    def __init__(self, opening: embedding_wire.Opening, silence_seconds: float) -> None:
        super().__init__(opening, silence_seconds)
        self._texts: dict[int, Results[Embedded]] = {}
        self._asked: dict[int, Embed] = {}
        self._pace = Pace()

    @property
    def load(self) -> Load:
        running = min(len(self._asked), 1)
        free = 1 - running if self._commands is not None else 0
        return Load(running, len(self._asked) - running, free, self._restarts)

    async def embed(self, request: Embed) -> Embedded:
        check_embed(self.info, request)
        self._check_queue(request.tenant)
        results: Results[Embedded] = Results(1)
        job = self._begin(self._texts, results)
        self._asked[job] = request
        self._pace.begin(trio.current_time())
        self._command(embedding_wire.embed_frame(job, request))
        try:
            return await anext(results)
        finally:
            del self._asked[job]
            self._end(self._texts, job)
            if not self._texts:
                self._pace.idle()

    def _deliver(self, event: wire.Event) -> None:
        """Hand an event to its text; events of texts given up meanwhile are dropped."""
        job, what = event
        if isinstance(what, Embedded) and len(what.vector) != _BYTES_OF_F32 * self.info.dims:
            raise ValueError(what)
        if (text := self._texts.get(job)) is None:
            return
        match what:
            case Embedded():
                text.put(what)
                self._pace.drawn(len(self._asked[job].tokens), trio.current_time())
                text.finish()
            case AssayError():
                text.fail(what)
            case _:
                raise ValueError(what)

    def _check_queue(self, tenant: bytes) -> None:
        """Raises AssayError("busy") with the time until a place in the queue should be free."""
        asked = self._asked.values()
        mine = sum(request.tenant == tenant for request in asked)
        if len(asked) >= WAITING_MAX or mine >= TENANT_WAITING_MAX:
            mean = sum(len(request.tokens) for request in asked) / len(asked)
            raise AssayError("busy", retry_after_ms=self._pace.retry_after_ms(mean))


@asynccontextmanager
async def open_embedding_engine(
    path: Path,
    model_digest: bytes,
    *,
    context: int = CONTEXT,
    threads: int | None = None,
    profile: Profile = FLASH,
    gpu_layers: int = -1,
    pooling: Pooling | None = None,
    silence_seconds: float = SILENCE_SECONDS_MAX,
) -> AsyncIterator[LlamaEmbedder]:
    """Load `path`, whose sha256 the caller has checked to be `model_digest`, and serve it.

    A text has up to `context` tokens, or as many as the model was trained for. `pooling` is for a
    file that names none, such as a chat model's; where the file names one it must be the same.
    `threads` and `silence_seconds` are as in open_llama_engine. Raises AssayError:
    "engine_missing" without the library, "engine_failed" if the model cannot be loaded,
    "pooling_missing", "config_invalid" (another pooling than the file's).
    """
    cores = threads or max(1, (os.cpu_count() or 1) - 1)
    opening = embedding_wire.Opening(
        str(path), model_digest, context, cores, profile, gpu_layers, pooling
    )
    async with kept(LlamaEmbedder(opening, silence_seconds)) as engine:
        yield engine
