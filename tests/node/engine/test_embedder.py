"""The embedding engine in its process, with a tiny BERT: results, refusals, queues and death."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trio
import trio.testing
from gguf import GGUFWriter

from assay_node.engine.embedder import (
    TENANT_WAITING_MAX,
    WAITING_MAX,
    LlamaEmbedder,
    open_embedding_engine,
)
from assay_node.engine.embedding import Embed, Pooling
from assay_node.engine.packing import TOGETHER
from assay_node.engine.profiles import FLASH, Profile
from assay_node.engine.supervisor import open_llama_engine
from assay_node.models.bert import convert_bert
from assay_node.models.gguf import read_header
from assay_protocol.errors import AssayError
from bert_cases import POSITIONS, WIDTH, WORDS, bert_tensors, forward, write_bert

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 60.0
COSINE_MIN = 0.9999
SICK = WORDS.index("word7")  # its weights are NaN where a test wants that
WITHOUT_FLASH = replace(FLASH, road="no-flash", flash=False)


def _text(number: int, length: int) -> tuple[int, ...]:
    """[CLS] ... [SEP] without the sick word; another one for every number."""
    inner = (13 + (7 * number + 11 * i + i * i) % 50 for i in range(length - 2))
    return (2, *inner, 3)


TEXTS = [_text(number, length) for number, length in enumerate((2, 9, 30, 5, 63, 64, 17, 150, 3))]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for each pooling, one without, and one with a sick word."""
    pytest.importorskip("llama_cpp")
    folder = tmp_path_factory.mktemp("models")
    for pooling in ("mean", "cls", "last", None):
        source = write_bert(folder / f"bert-{pooling}", pooling)
        convert_bert(source, folder / f"{pooling}.gguf", kind="f32")
    tensors = bert_tensors()
    tensors["embeddings.word_embeddings.weight"][SICK] = np.nan
    source = write_bert(folder / "bert-sick", tensors=tensors)
    convert_bert(source, folder / "sick.gguf", kind="f16")
    return folder


@pytest.fixture
async def engine(models: Path) -> AsyncIterator[LlamaEmbedder]:
    with trio.fail_after(TIMEOUT_SECONDS):
        async with _open(models / "mean.gguf") as opened:
            yield opened


def _open(
    path: Path, pooling: Pooling | None = None, profile: Profile = FLASH
) -> AbstractAsyncContextManager[LlamaEmbedder]:
    return open_embedding_engine(
        path, bytes(32), threads=1, profile=profile, pooling=pooling, silence_seconds=3.0
    )


async def _embed_all(engine: LlamaEmbedder, requests: Sequence[Embed]) -> list[bytes | str]:
    """Asked at once: the vector, or the code of the refusal, of each."""
    found: dict[int, bytes | str] = {}

    async def ask(number: int, request: Embed) -> None:
        try:
            found[number] = (await engine.embed(request)).vector
        except AssayError as error:
            found[number] = error.code

    async with trio.open_nursery() as nursery:
        for number, request in enumerate(requests):
            nursery.start_soon(ask, number, request)
    return [found[number] for number in range(len(requests))]


async def _embed_queued(engine: LlamaEmbedder, requests: Sequence[Embed]) -> list[bytes | str]:
    """Like _embed_all, but the child gets to see them only when all are there."""
    found: list[bytes | str] = []

    async def ask() -> None:
        found.extend(await _embed_all(engine, requests))

    async with trio.open_nursery() as nursery:
        with _stopped(engine):
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
    return found


@contextmanager
def _stopped(engine: LlamaEmbedder) -> Iterator[None]:
    """The child takes nothing inside: what is asked piles up."""
    child = engine.pid
    assert child is not None
    os.kill(child, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("profile", [FLASH, WITHOUT_FLASH])
async def test_vectors_are_those_of_the_formulas(
    models: Path, pooling: Pooling, profile: Profile
) -> None:
    with trio.fail_after(TIMEOUT_SECONDS):
        async with _open(models / f"{pooling}.gguf", profile=profile) as engine:
            vectors = await _embed_all(engine, [Embed(text) for text in TEXTS])
            assert (engine.info.dims, engine.info.pooling) == (WIDTH, pooling)
            assert engine.info.context == POSITIONS
    tensors = bert_tensors()
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert isinstance(vector, bytes)
        rows = forward(tensors, text)
        wanted = {"mean": rows.mean(0), "cls": rows[0], "last": rows[-1]}[pooling]
        found = np.frombuffer(vector, "<f4").astype(float)
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
        assert found @ wanted / np.linalg.norm(wanted) > COSINE_MIN


@pytest.mark.parametrize("profile", [FLASH, WITHOUT_FLASH])
@pytest.mark.parametrize("name", ["mean", "sick"])  # F32 and F16
async def test_a_text_among_others_has_the_bits_it_has_alone(
    models: Path, profile: Profile, name: str
) -> None:
    requests = [Embed(text) for text in [*TEXTS, (5,), (6,), (3, 2)]]
    with trio.fail_after(TIMEOUT_SECONDS):
        async with _open(models / f"{name}.gguf", profile=profile) as engine:
            together = await _embed_queued(engine, requests)
            alone = [(await engine.embed(request)).vector for request in requests]
    assert together == alone
    assert len(set(alone)) == len(alone)


async def test_what_is_not_finite_fails_alone(models: Path) -> None:
    healthy = [Embed(_text(number, 6)) for number in range(8)]
    sick = Embed((2, SICK, 3))
    mixed = [*healthy[:4], sick, *healthy[4:]]
    assert sum(len(request.tokens) for request in mixed) <= TOGETHER
    with trio.fail_after(TIMEOUT_SECONDS):
        async with _open(models / "sick.gguf") as engine:
            alone = [(await engine.embed(request)).vector for request in healthy]
            found = await _embed_all(engine, mixed)
    assert found == [*alone[:4], "not_finite", *alone[4:]]


async def test_bad_texts_are_refused_and_the_others_computed(engine: LlamaEmbedder) -> None:
    good = Embed(TEXTS[1])
    alone = (await engine.embed(good)).vector
    bad = [Embed(()), Embed((len(WORDS),)), Embed((-1,)), Embed((5,) * (POSITIONS + 1))]
    codes = ["malformed", "malformed", "malformed", "prompt_too_long"]
    assert await _embed_all(engine, [*bad, good]) == [*codes, alone]


async def test_a_model_without_pooling_is_refused_unless_one_is_asked_for(models: Path) -> None:
    with trio.fail_after(TIMEOUT_SECONDS):
        with pytest.raises(AssayError) as refused:
            async with _open(models / "None.gguf"):
                raise AssertionError("opened")
        assert refused.value.code == "pooling_missing"
        with pytest.raises(AssayError) as refused:
            async with _open(models / "mean.gguf", "cls"):
                raise AssertionError("opened")
        assert refused.value.code == "config_invalid"
        async with (
            _open(models / "None.gguf", "mean") as asked,
            _open(models / "mean.gguf") as named,
        ):
            assert await asked.embed(Embed(TEXTS[1])) == await named.embed(Embed(TEXTS[1]))


async def test_an_encoder_that_does_not_say_so_is_given_whole_texts(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GGUFWriter, "add_causal_attention", lambda *_: None)
    silent = convert_bert(models / "bert-mean", models / "silent.gguf", kind="f32")
    assert "bert.attention.causal" not in read_header(silent).values
    assert max(map(len, TEXTS)) > 128, "more than a causal model is given at once"
    requests = [Embed(text) for text in TEXTS]
    with trio.fail_after(TIMEOUT_SECONDS):
        async with _open(models / "mean.gguf") as outspoken:
            wanted = await _embed_all(outspoken, requests)
        async with _open(silent) as engine:
            assert await _embed_all(engine, requests) == wanted


async def test_an_encoder_is_refused_where_answers_are_wanted(models: Path) -> None:
    with trio.fail_after(TIMEOUT_SECONDS), pytest.raises(AssayError) as refused:
        async with open_llama_engine(models / "mean.gguf", bytes(32), threads=1):
            raise AssertionError("opened")
    assert refused.value.code == "engine_failed"
    assert "embeds" in refused.value.message


async def test_a_killed_child_fails_its_texts_and_is_started_again(engine: LlamaEmbedder) -> None:
    before = (await engine.embed(Embed(TEXTS[1]))).vector
    first = engine.pid
    assert first is not None
    found: list[bytes | str] = []

    async def ask() -> None:
        found.extend(await _embed_all(engine, [Embed(text) for text in TEXTS]))

    async with trio.open_nursery() as nursery:
        with _stopped(engine):
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(first, signal.SIGKILL)
    assert found == ["engine_failed"] * len(TEXTS)
    assert await _embed_when_ready(engine, Embed(TEXTS[1])) == before
    assert engine.pid != first
    assert engine.load.restarts == 1


async def _embed_when_ready(engine: LlamaEmbedder, request: Embed) -> bytes:
    while True:
        try:
            return (await engine.embed(request)).vector
        except AssayError as error:
            if error.code != "busy" or error.retry_after_ms is None:
                raise
            await trio.sleep(error.retry_after_ms / 1000)


async def test_a_hung_child_is_replaced(engine: LlamaEmbedder) -> None:
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGSTOP)
    assert await _embed_all(engine, [Embed(TEXTS[1])]) == ["engine_failed"]
    assert engine.load.restarts == 1


async def test_a_text_given_up_leaves_nothing_behind(engine: LlamaEmbedder) -> None:
    alone = (await engine.embed(Embed(TEXTS[2]))).vector
    with trio.CancelScope() as given_up, _stopped(engine):
        async with trio.open_nursery() as nursery:
            for text in TEXTS:
                nursery.start_soon(engine.embed, Embed(text))
            await trio.testing.wait_all_tasks_blocked()
            assert engine.load.running + engine.load.waiting == len(TEXTS)
            given_up.cancel()
    assert (engine.load.running, engine.load.waiting) == (0, 0)
    assert await _embed_all(engine, [Embed(TEXTS[2])]) == [alone]


async def test_a_full_queue_says_when_to_ask_again(engine: LlamaEmbedder) -> None:
    with trio.CancelScope() as given_up, _stopped(engine):
        async with trio.open_nursery() as nursery:
            for number in range(TENANT_WAITING_MAX):
                nursery.start_soon(engine.embed, Embed(_text(number, 9), b"greedy"))
            await trio.testing.wait_all_tasks_blocked()
            assert await _refusal(engine, b"greedy") > 0
            for number in range(WAITING_MAX - TENANT_WAITING_MAX):
                tenant = bytes([number % 7])
                nursery.start_soon(engine.embed, Embed(_text(number, 9), tenant))
            await trio.testing.wait_all_tasks_blocked()
            assert await _refusal(engine, b"somebody") > 0
            given_up.cancel()
    assert len((await engine.embed(Embed(TEXTS[1]))).vector) == 4 * WIDTH


async def _refusal(engine: LlamaEmbedder, tenant: bytes) -> int:
    with pytest.raises(AssayError) as refused:
        await engine.embed(Embed(TEXTS[1], tenant))
    assert refused.value.code == "busy"
    assert refused.value.retry_after_ms is not None
    return refused.value.retry_after_ms


async def test_a_tenant_with_one_text_does_not_wait_for_anothers_hundred(
    engine: LlamaEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []  # as the engine ends them; in which order tasks wake is trio's affair
    monkeypatch.setattr(engine._pace, "drawn", lambda tokens, now: lengths.append(tokens))
    greedy, patient = 20, 19
    async with trio.open_nursery() as nursery:
        with _stopped(engine):
            for number in range(100):
                nursery.start_soon(engine.embed, Embed(_text(number, greedy), b"greedy"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(engine.embed, Embed(_text(0, patient), b"patient"))
            await trio.testing.wait_all_tasks_blocked()
    assert len(lengths) == 101
    assert lengths.index(patient) * greedy <= 2 * POSITIONS + TOGETHER


async def test_a_context_shorter_than_a_batch_is_enough(models: Path) -> None:
    """llama.cpp ends the process where a context has fewer places than texts may be in it."""
    async with open_embedding_engine(models / "mean.gguf", bytes(32), context=40) as engine:
        texts = [_text(number, 5) for number in range(10)]
        async with trio.open_nursery() as nursery:
            for text in texts:
                nursery.start_soon(engine.embed, Embed(text))
        assert engine.info.context == 40
