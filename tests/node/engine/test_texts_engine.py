"""Texts behind the interface of engines: order, turns, refusals, and what is claimed of bits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from assay_node.engine.embedding import Embed, Embedded
from assay_node.engine.interface import Generate, Replay
from assay_node.engine.scripted_embedder import (
    EmbeddingScript,
    ScriptedEmbedder,
    open_scripted_embedder,
    scripted_vector,
)
from assay_node.engine.texts_engine import (
    SLOTS_MAX,
    TEXTS_AT_ONCE,
    WAITING_MAX,
    TextsEngine,
    proved_class,
)
from assay_protocol.embeddings import check_vectors, embedding_sampler
from assay_protocol.errors import AssayError

SCRIPT = EmbeddingScript()
TEXTS = [tuple(range(1, 2 + number % 7)) for number in range(2 * TEXTS_AT_ONCE + 3)]
PROMPT = tuple(token for text in TEXTS for token in text)
SAMPLER = embedding_sampler([len(text) for text in TEXTS])
JOB = Generate(PROMPT, 0, len(TEXTS), SAMPLER, bytes(32), tenant=b"client")


async def test_vectors_come_in_order_some_at_a_time() -> None:
    async with open_scripted_embedder(SCRIPT) as engine, engine.generate(JOB) as chunks:
        found = [chunk async for chunk in chunks]
    assert [chunk.finish for chunk in found] == [None, None, "length"]
    vectors = b"".join(chunk.vectors for chunk in found)
    assert check_vectors(vectors, SCRIPT.dims) == len(TEXTS)
    assert vectors == b"".join(scripted_vector(SCRIPT, text) for text in TEXTS)
    replayed = await engine.replay(Replay(PROMPT, (), 0, SAMPLER, bytes(32)))
    assert (replayed.vectors, replayed.drawn) == (vectors, ())


async def test_a_job_that_draws_or_does_not_add_up_is_refused() -> None:
    async with open_scripted_embedder(SCRIPT) as engine:
        for job, code in (
            (replace(JOB, sampler=replace(SAMPLER, texts=None)), "task_refused"),
            (replace(JOB, prompt=PROMPT[1:]), "malformed"),
            (replace(JOB, prompt=(256, *PROMPT[1:])), "malformed"),
        ):
            with pytest.raises(AssayError, match=code):
                async with engine.generate(job) as chunks:
                    async for _ in chunks:
                        pass
        assert engine.load.running == 0


async def test_jobs_wait_for_a_slot_and_not_without_end(autojump_clock: object) -> None:
    script = replace(SCRIPT, seconds_per_token=1.0)
    async with open_scripted_embedder(script, slots=64) as engine:
        assert engine.info.slots == SLOTS_MAX

        async def one() -> None:
            async with engine.generate(JOB) as chunks:
                async for _ in chunks:
                    pass

        async with trio.open_nursery() as nursery:
            for _ in range(SLOTS_MAX + WAITING_MAX):
                nursery.start_soon(one)
            await trio.testing.wait_all_tasks_blocked()
            load = engine.load
            assert (load.running, load.waiting, load.free_slots) == (SLOTS_MAX, WAITING_MAX, 0)
            with pytest.raises(AssayError, match="busy"):
                await one()
            with pytest.raises(AssayError, match="busy"):
                await engine.benchmark()
            nursery.cancel_scope.cancel()
        assert (engine.load.running, engine.load.waiting) == (0, 0)
        rates = await engine.benchmark()
        assert (round(rates.prefill_tps), rates.decode_tps) == (1, rates.prefill_tps)


class Moody(ScriptedEmbedder):
    """Computes a text otherwise if another one is being computed."""

    busy = 0

    async def embed(self, request: Embed) -> Embedded:
        self.busy += 1
        try:
            await trio.lowlevel.checkpoint()
            tokens = request.tokens if self.busy == 1 else (*request.tokens, 1)
            return Embedded(scripted_vector(SCRIPT, tokens))
        finally:
            self.busy -= 1


async def test_exact_is_claimed_where_no_text_depends_on_others() -> None:
    named = replace(SCRIPT, class_id="a/b/F")
    assert await proved_class(ScriptedEmbedder(named)) == "a/b/E"
    assert await proved_class(Moody(named)) == "a/b/F"
    short = replace(named, context=3)
    assert await proved_class(ScriptedEmbedder(short)) == "a/b/E"
    assert TextsEngine(ScriptedEmbedder(named), slots=1, class_id="x").info.class_id == "x"


def test_a_cheaper_script_is_near_and_not_the_same() -> None:
    cheap = replace(SCRIPT, perturbation=0.01)
    assert scripted_vector(cheap, (1, 2)) != scripted_vector(SCRIPT, (1, 2))
    assert check_vectors(scripted_vector(cheap, (1, 2)), SCRIPT.dims) == 1
