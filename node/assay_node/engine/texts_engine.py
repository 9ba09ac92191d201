"""An embedding engine behind the interface of engines, so that a node serves it like any other.

What differs is only what goes in and out: `Generate` and `Replay` hold texts, one after the other,
and what comes back are their vectors. A job's texts are embedded some at a time and told in order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from assay_node.engine.embedder import CONTEXT, open_embedding_engine
from assay_node.engine.embedding import Embed, EmbeddingEngine
from assay_node.engine.interface import (
    Benchmark,
    Chunk,
    EngineInfo,
    Generate,
    Load,
    Replay,
    Replayed,
)
from assay_node.engine.profiles import FLASH, PLAIN, claim
from assay_protocol.classes import is_exact
from assay_protocol.embeddings import split_texts
from assay_protocol.errors import AssayError

TEXTS_AT_ONCE: Final = 32  # of one job; an embedder takes 128 of one tenant
SLOTS_MAX: Final = 4  # jobs at once, so that no job's texts find the embedder's queue full
WAITING_MAX: Final = 16  # jobs beyond those
_TRIAL_TEXTS: Final = 16
_TRIAL_TOKENS: Final = 24  # of the longest of these; one more has BENCHMARK_TOKENS
BENCHMARK_TOKENS: Final = 256


class TextsEngine:
    """Jobs over one embedder. `class_id` replaces the embedder's own, if given."""

    def __init__(self, embedder: EmbeddingEngine, *, slots: int, class_id: str = "") -> None:
        info = embedder.info
        self._embedder = embedder
        self._jobs = 0
        self._slots = trio.Semaphore(min(slots, SLOTS_MAX))
        self.info = EngineInfo(
            model=info.model,
            n_vocab=info.n_vocab,
            context=info.context,
            slots=min(slots, SLOTS_MAX),
            class_id=class_id or info.class_id,
            eog=frozenset(),
            device=info.device,
            dims=info.dims,
        )

    @property
    def load(self) -> Load:
        """In jobs, each some texts."""
        free = self._slots.value
        running = self.info.slots - free
        return Load(running, self._jobs - running, free, self._embedder.load.restarts)

    @asynccontextmanager
    async def generate(self, request: Generate) -> AsyncIterator[AsyncIterator[Chunk]]:
        texts = self._texts(request)
        async with self._place():
            yield self._chunks(texts, request.tenant)

    async def replay(self, request: Replay) -> Replayed:
        texts = self._texts(request)
        async with self._place():
            vectors = [chunk.vectors async for chunk in self._chunks(texts, b"")]
        return Replayed((), b"", (), (), vectors=b"".join(vectors))

    async def benchmark(self) -> Benchmark:
        """Tokens a second of one text after the other. A vector is told for nothing: the rate of
        decoding is the same, as if each were one token more."""
        if self._jobs:
            raise AssayError("busy")
        length = min(BENCHMARK_TOKENS, self.info.context)
        began = trio.current_time()
        for number in range(2):
            await self._embedder.embed(Embed(some_tokens(self.info.n_vocab, length, number)))
        rate = 2 * length / max(1e-9, trio.current_time() - began)
        return Benchmark(rate, rate)

    def _texts(self, request: Generate | Replay) -> list[tuple[int, ...]]:
        lengths = request.sampler.texts
        if not lengths:
            raise AssayError("task_refused", "this model only embeds texts")
        if sum(lengths) != len(request.prompt):
            raise AssayError("malformed", "the texts are not the prompt")
        return split_texts(request.prompt, lengths)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._jobs >= self.info.slots + WAITING_MAX:
            raise AssayError("busy")
        self._jobs += 1
        try:
            async with self._slots:
                yield
        finally:
            self._jobs -= 1

    async def _chunks(
        self, texts: Sequence[tuple[int, ...]], tenant: bytes
    ) -> AsyncIterator[Chunk]:
        for at in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[at : at + TEXTS_AT_ONCE]
            last = at + len(some) == len(texts)
            vectors = await embed_together(self._embedder, some, tenant)
            yield Chunk((), b"", "length" if last else None, vectors=b"".join(vectors))


@asynccontextmanager
async def open_texts_engine(
    path: Path,
    model_digest: bytes,
    *,
    slots: int = SLOTS_MAX,
    context: int = CONTEXT,
    threads: int | None = None,
    exact: bool = True,
) -> AsyncIterator[TextsEngine]:
    """Load an embedding model's file as open_embedding_engine does; its errors.

    With `exact`, by the first of two ways of computing that proves exact here, or else by the first
    of them without claiming it.
    """
    opening = partial(open_embedding_engine, path, model_digest, context=context, threads=threads)
    for profile in (FLASH, PLAIN) if exact else ():
        if profile.available:
            async with opening(profile=profile) as embedder:
                class_id = await proved_class(embedder)
                if is_exact(class_id):
                    yield TextsEngine(embedder, slots=slots, class_id=class_id)
                    return
    async with opening(profile=FLASH) as embedder:
        yield TextsEngine(embedder, slots=slots)


async def embed_together(
    embedder: EmbeddingEngine, texts: Sequence[tuple[int, ...]], tenant: bytes = b""
) -> list[bytes]:
    """A vector for each text, all asked for at once. Raises the AssayError of the first to fail."""
    vectors = [b""] * len(texts)
    failures: list[AssayError] = []

    async def embed(number: int) -> None:
        try:
            vectors[number] = (await embedder.embed(Embed(texts[number], tenant))).vector
        except AssayError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(len(texts)):
            nursery.start_soon(embed, number)
    if failures:
        raise failures[0]
    return vectors


async def proved_class(embedder: EmbeddingEngine) -> str:
    """The embedder's class, exact if here no text's vector depends on what is asked for beside it.

    Some texts are embedded one by one and all at once, in two orders. As with answers (trials.py),
    exactness is tried where it is claimed.
    """
    info = embedder.info
    lengths = [1 + number * _TRIAL_TOKENS // _TRIAL_TEXTS for number in range(_TRIAL_TEXTS)]
    lengths = [min(length, info.context) for length in (*lengths, BENCHMARK_TOKENS)]
    texts = [some_tokens(info.n_vocab, length, n) for n, length in enumerate(lengths)]
    alone = [(await embedder.embed(Embed(text))).vector for text in texts]
    together = await embed_together(embedder, texts)
    turned = await embed_together(embedder, texts[::-1])
    return claim(info.class_id, proved=alone == together == turned[::-1])


def some_tokens(n_vocab: int, length: int, number: int) -> tuple[int, ...]:
    """Arbitrary ones, the same ones for the same `number`."""
    return tuple((7919 * place + 104_729 * number + 1) % n_vocab for place in range(length))
