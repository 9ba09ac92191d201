"""An adapter changes the answers that ask for it and no others, bit for bit. Needs the model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from gguf import GGMLQuantizationType as Kind

from assay_node.engine.interface import (
    PRIORITY_HIGH,
    PRIORITY_LOW,
    Engine,
    Generate,
    Replay,
    Replayed,
)
from assay_node.engine.profiles import FLASH, PLAIN
from assay_node.engine.supervisor import LlamaEngine, open_llama_engine
from assay_protocol.errors import AssayError
from assay_protocol.messages import Sampler
from lora_cases import write_adapter
from model_files import shallow_model

pytestmark = [pytest.mark.model, pytest.mark.slow]

needs_plain = pytest.mark.skipif(
    not PLAIN.available, reason="scripts/build_engine.sh exact was not run"
)
ROADS = [
    pytest.param((FLASH, Kind.Q8_0), id="flash-q8_0"),
    pytest.param((PLAIN, Kind.F16), id="plain-f16", marks=needs_plain),
    pytest.param((PLAIN, Kind.F32), id="plain-f32", marks=needs_plain),
]
TIMEOUT_SECONDS = 120.0
SLOTS = 3
SAMPLER = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
A, B = b"a" * 32, b"b" * 32
LENGTHS = (5, 70, 23)  # of prompts that all begin alike

Answer = tuple[tuple[int, ...], bytes]


LAYERS = 8  # which road keeps the bits is tried on the whole model: test_exact_formats.py


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shallow_model(tmp_path_factory.mktemp("model") / "shallow.gguf", LAYERS)


def _requests(adapter: bytes | None, max_tokens: int = 10) -> list[Generate]:
    text = [7919 * (i + 1) % 49_152 for i in range(max(LENGTHS))]
    return [
        Generate(
            tuple(text[:length]), 0, max_tokens, SAMPLER, bytes([length]) * 32, adapter=adapter
        )
        for length in LENGTHS
    ]


@pytest.fixture(params=ROADS)
async def engine(
    request: pytest.FixtureRequest, model: Path, tmp_path: Path
) -> AsyncIterator[LlamaEngine]:
    profile, kind = request.param
    with trio.fail_after(TIMEOUT_SECONDS):
        async with open_llama_engine(
            model,
            bytes(32),
            slots=SLOTS,
            context=256,
            threads=1,
            profile=profile,
            adapters=[
                (write_adapter(tmp_path / name.decode(), number, kind, layers=LAYERS), 32 * name)
                for number, name in enumerate((b"a", b"b"))
            ],
        ) as opened:
            yield opened


async def _write(
    engine: Engine,
    requests: Sequence[Generate],
    out: dict[Generate, Answer],
    begun: trio.Event | None = None,
) -> None:
    """All at once; `begun` is set when each has its first tokens."""
    waiting = len(requests)

    async def write(request: Generate) -> None:
        nonlocal waiting
        tokens: tuple[int, ...] = ()
        logits = b""
        async with engine.generate(request) as chunks:
            async for chunk in chunks:
                waiting -= not tokens and len(chunk.tokens) > 0
                if begun is not None and not waiting:
                    begun.set()
                tokens, logits = tokens + chunk.tokens, logits + chunk.logits
        out[request] = tokens, logits

    async with trio.open_nursery() as nursery:
        for request in requests:
            nursery.start_soon(write, request)


async def _replayed(engine: Engine, request: Generate, output: tuple[int, ...]) -> Replayed:
    asked = Replay(
        request.prompt, output, 0, request.sampler, request.seed, adapter=request.adapter
    )
    return await engine.replay(asked)


async def test_an_adapter_changes_its_own_answers_and_no_others(engine: LlamaEngine) -> None:
    plain, of_a, of_b = _requests(None), _requests(A), _requests(B)
    before: dict[Generate, Answer] = {}
    alone: dict[Generate, Answer] = {}
    among: dict[Generate, Answer] = {}
    after: dict[Generate, Answer] = {}
    await _write(engine, plain, before)
    for request in (*of_a, *of_b):
        await _write(engine, [request], alone)
    mixed = [one for three in zip(plain, of_a, of_b, strict=True) for one in three]
    await _write(engine, mixed, among)
    await _write(engine, plain, after)
    assert before == after == {request: among[request] for request in plain}
    assert alone == {request: among[request] for request in (*of_a, *of_b)}
    logits = [{among[one][1] for one in three} for three in zip(plain, of_a, of_b, strict=True)]
    assert [len(three) for three in logits] == [3, 3, 3], "an adapter that changes nothing"
    for request in mixed:
        replayed = await _replayed(engine, request, among[request][0])
        assert (replayed.drawn, replayed.logits) == among[request]


@pytest.mark.parametrize("engine", ROADS[:2], indirect=True)  # of saved states, not of formats
async def test_a_preempted_answer_goes_on_with_its_adapter(engine: LlamaEngine) -> None:
    low = [replace(request, priority=PRIORITY_LOW) for request in _requests(A, 40)]
    high = [replace(request, priority=PRIORITY_HIGH) for request in _requests(None, 4)]
    alone: dict[Generate, Answer] = {}
    again: dict[Generate, Answer] = {}
    for request in low:
        await _write(engine, [request], alone)
    begun = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write, engine, low, again, begun)
        await begun.wait()
        assert not again
        await _write(engine, high, {})
        assert len(again) < len(low), "they were to be preempted"
    assert again == alone


@pytest.mark.parametrize("engine", ROADS[:1], indirect=True)
async def test_an_adapter_that_is_not_loaded_is_refused(engine: LlamaEngine) -> None:
    assert engine.info.adapters == (A, B)
    unknown = replace(_requests(A)[0], adapter=b"c" * 32)
    with pytest.raises(AssayError, match="adapter_unknown"):
        async with engine.generate(unknown):
            raise AssertionError("it was begun")
    with pytest.raises(AssayError, match="adapter_unknown"):
        await _replayed(engine, unknown, (1,))


@pytest.mark.parametrize(
    "fault", ["another architecture", "no adapter", "cut", "missing", "activated"]
)
async def test_a_file_that_is_no_adapter_of_the_model_is_refused(
    model: Path, tmp_path: Path, fault: str
) -> None:
    file = tmp_path / "adapter"
    if fault == "no adapter":
        file = model
    elif fault != "missing":
        architecture = "qwen2" if fault == "another architecture" else "llama"
        tokens = (5, 6) if fault == "activated" else ()
        write_adapter(file, 1, arch=architecture, layers=LAYERS, invoked_by=tokens)
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:-100_000])
    with trio.fail_after(TIMEOUT_SECONDS), pytest.raises(AssayError) as caught:
        async with open_llama_engine(
            model, bytes(32), slots=1, context=64, threads=1, adapters=[(file, A)]
        ):
            raise AssertionError("it was opened")
    assert caught.value.code == "engine_failed"
