"""The llama.cpp engine in its process: exactness, resume, cancel, and death. Needs the model."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from assay_node.engine.interface import PRIORITY_HIGH, PRIORITY_LOW, Engine, Generate, Replay
from assay_node.engine.quantize import requantize
from assay_node.engine.supervisor import TENANT_WAITING_MAX, LlamaEngine, open_llama_engine
from assay_protocol.errors import AssayError
from assay_protocol.messages import Sampler, TokenBias

pytestmark = [pytest.mark.model, pytest.mark.slow]

TIMEOUT_SECONDS = 60.0


SAMPLER = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


def _model() -> Path:
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    found = Path(os.environ.get("ASSAY_TEST_MODEL") or Path.home() / ".cache/assay/models" / name)
    assert found.is_file(), f"put {name} at {found}, or its path into ASSAY_TEST_MODEL"
    return found


def _request(number: int, max_tokens: int = 24) -> Generate:
    prompt = tuple(500 + (37 * i + 911 * number) % 40_000 for i in range(10 + 31 * number))
    return Generate(prompt, 0, max_tokens, SAMPLER, bytes([number]) * 32)


async def _write(
    engine: Engine, request: Generate, out: dict[Generate, tuple[tuple[int, ...], bytes]]
) -> None:
    tokens: tuple[int, ...] = ()
    logits = b""
    async with engine.generate(request) as chunks:
        async for chunk in chunks:
            tokens, logits = tokens + chunk.tokens, logits + chunk.logits
    assert chunk.finish is not None
    out[request] = tokens, logits


def _replay(request: Generate, output: tuple[int, ...]) -> Replay:
    return Replay(request.prompt, output, request.start, request.sampler, request.seed)


@pytest.fixture
async def engine() -> AsyncIterator[LlamaEngine]:
    with trio.fail_after(TIMEOUT_SECONDS):
        async with open_llama_engine(
            _model(), bytes(32), slots=4, context=512, threads=1, silence_seconds=5.0
        ) as opened:
            yield opened


async def test_concurrent_answers_equal_solo_answers_and_their_replays(
    engine: LlamaEngine,
) -> None:
    requests = [_request(number) for number in range(4)]
    solo: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    together: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    async with trio.open_nursery() as nursery:
        for request in requests:
            nursery.start_soon(_write, engine, request, together)
    for request in reversed(requests):
        await _write(engine, request, solo)
    assert together == solo
    for request in requests:
        tokens, logits = together[request]
        replayed = await engine.replay(_replay(request, tokens))
        assert replayed.drawn == tokens
        assert replayed.logits == logits
        assert set(replayed.margins) == {0.0}


async def test_a_resumed_answer_goes_on_exactly(engine: LlamaEngine) -> None:
    out: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    request = _request(1)
    await _write(engine, request, out)
    whole, logits = out[request]
    cut = 9
    rest = replace(
        request, prompt=request.prompt + whole[:cut], start=cut, max_tokens=len(whole) - cut
    )
    async with open_llama_engine(_model(), bytes(32), slots=1, context=512, threads=1) as other:
        await _write(other, rest, out)
    assert out[rest] == (whole[cut:], logits[4 * cut :])


async def test_options_are_drawn_and_replayed_exactly(engine: LlamaEngine) -> None:
    sampler = replace(
        SAMPLER,
        repetition_penalty=1.2,
        presence_penalty=0.4,
        frequency_penalty=0.3,
        logit_bias=(TokenBias(token=30, bias=2.0),),
        logprobs=3,
    )
    plain, asked = _request(1), replace(_request(1), sampler=sampler)
    out: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    await _write(engine, plain, out)
    await _write(engine, asked, out)
    tokens, logits = out[asked]
    replayed = await engine.replay(_replay(asked, tokens))
    assert tokens != out[plain][0]
    assert (replayed.drawn, replayed.logits) == (tokens, logits)


async def test_another_seed_is_seen_in_the_tokens(engine: LlamaEngine) -> None:
    out: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    request = replace(_request(2, 40), sampler=replace(SAMPLER, temperature=1.5))
    await _write(engine, request, out)
    claim = replace(request, seed=b"\xff" * 32)
    replayed = await engine.replay(_replay(claim, out[request][0]))
    wrong = sum(a != b for a, b in zip(replayed.drawn, out[request][0], strict=True))
    assert wrong > 4
    assert replayed.logits == out[request][1]


async def test_cancel_frees_the_slot(engine: LlamaEngine) -> None:
    async with trio.open_nursery() as nursery:

        async def take_two(number: int) -> None:
            async with engine.generate(_request(number, 300)) as chunks:
                await anext(chunks)
                await anext(chunks)

        for number in range(4):
            nursery.start_soon(take_two, number)
    assert engine.load.free_slots == 4
    # If the worker still held the four jobs, this would wait for some 1,200 tokens.
    with trio.fail_after(5.0):
        await _write(engine, _request(0, 4), {})


async def test_a_killed_child_fails_its_jobs_and_is_started_again(engine: LlamaEngine) -> None:
    first = engine.pid
    assert first is not None
    with pytest.raises(AssayError) as caught:
        async with engine.generate(_request(0, 400)) as chunks:
            await anext(chunks)
            os.kill(first, signal.SIGKILL)
            async for _ in chunks:
                continue
    assert caught.value.code == "engine_failed"
    refusals = await _write_when_there_is_room(engine)
    assert refusals
    assert engine.pid != first
    assert engine.load.restarts == 1


async def _write_when_there_is_room(engine: Engine) -> list[int]:
    """The waits, in milliseconds, the engine asked for before it served."""
    waits: list[int] = []
    while True:
        try:
            await _write(engine, _request(0, 4), {})
        except AssayError as error:
            if error.code != "busy" or error.retry_after_ms is None:
                raise
            waits.append(error.retry_after_ms)
            await trio.sleep(error.retry_after_ms / 1000)
        else:
            return waits


async def test_a_hung_child_is_replaced(engine: LlamaEngine) -> None:
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(AssayError) as caught:
        await engine.replay(_replay(_request(0), (1, 2, 3)))
    assert caught.value.code == "engine_failed"
    assert engine.load.restarts == 1


async def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(1000))
    with trio.fail_after(TIMEOUT_SECONDS), pytest.raises(AssayError) as caught:
        async with open_llama_engine(broken, bytes(32), threads=1):
            raise AssertionError("opened")
    assert caught.value.code == "engine_failed"


async def test_without_the_library_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with trio.fail_after(TIMEOUT_SECONDS), pytest.raises(AssayError) as caught:
        async with open_llama_engine(_model(), bytes(32), threads=1):
            raise AssertionError("opened")
    assert caught.value.code == "engine_missing"


async def test_an_answer_of_a_cheaper_model_is_caught(engine: LlamaEngine, tmp_path: Path) -> None:
    cheap_file = tmp_path / "cheap.gguf"
    requantize(_model(), cheap_file, "Q2_K")
    out: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    requests = [_request(number, 40) for number in range(3)]
    async with open_llama_engine(cheap_file, bytes(32), context=512, threads=1) as cheap:
        async with trio.open_nursery() as nursery:
            for request in requests:
                nursery.start_soon(_write, cheap, request, out)
    tokens = wrong = 0
    for request in requests:
        replayed = await engine.replay(_replay(request, out[request][0]))
        tokens += len(replayed.drawn)
        wrong += sum(a != b for a, b in zip(replayed.drawn, out[request][0], strict=True))
    assert wrong > 0.1 * tokens


async def test_a_prefix_is_copied_between_slots_with_the_same_result(engine: LlamaEngine) -> None:
    prefix = _request(3, 8).prompt
    requests = [replace(_request(3, 8), prompt=(*prefix, 600 + number)) for number in range(4)]
    cold: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    together: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    async with trio.open_nursery() as nursery:
        for request in requests:
            nursery.start_soon(_write, engine, request, together)
    for number, request in enumerate(requests):  # another tenant each: nothing is reused
        stranger = replace(request, tenant=bytes([number]))
        await _write(engine, stranger, cold)
        assert cold[stranger] == together[request]


async def test_a_preempted_answer_goes_on_exactly(engine: LlamaEngine) -> None:
    low = [replace(_request(number, 16), priority=PRIORITY_LOW) for number in range(4)]
    urgent = replace(_request(1, 4), tenant=b"another", priority=PRIORITY_HIGH)
    alone: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    among: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    for request in low:
        await _write(engine, request, alone)
    async with trio.open_nursery() as nursery:
        for request in low:
            nursery.start_soon(_write, engine, request, among)
        await trio.testing.wait_all_tasks_blocked()
        await _write(engine, urgent, among)
        assert set(among) == {urgent}, "it waited until another was done"
    del among[urgent]
    assert among == alone


async def test_a_shared_beginning_stays_with_both_who_sent_it(engine: LlamaEngine) -> None:
    system = _request(3).prompt
    first, second = (
        Generate((*system, *range(base, base + 30)), 0, 6, SAMPLER, bytes(32))
        for base in (3000, 4000)
    )
    there: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    cold: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
    for request in (first, second, first, second):
        await _write(engine, request, there)
    for request in (first, second):
        stranger = replace(request, tenant=b"another" + request.prompt[-1].to_bytes(2, "big"))
        await _write(engine, stranger, cold)
        assert cold[stranger] == there[request]


async def test_one_tenant_cannot_fill_the_queue_and_is_told_when_to_ask_again(
    engine: LlamaEngine,
) -> None:
    refusals: list[AssayError] = []

    async def ask(tenant: bytes) -> None:
        try:
            async with engine.generate(replace(_request(0, 400), tenant=tenant)) as chunks:
                await anext(chunks)
                await trio.sleep_forever()
        except AssayError as error:
            refusals.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(engine.info.slots + TENANT_WAITING_MAX + 3):
            nursery.start_soon(ask, b"greedy")
        await trio.testing.wait_all_tasks_blocked()
        assert len(refusals) == 3
        nursery.start_soon(ask, b"modest")
        await trio.testing.wait_all_tasks_blocked()
        assert len(refusals) == 3
        nursery.cancel_scope.cancel()
    assert {error.code for error in refusals} == {"busy"}
    assert all(error.retry_after_ms for error in refusals)


def test_unknown_kinds_and_absent_files_are_refused(tmp_path: Path) -> None:
    for source, kind, code in (
        (tmp_path / "none", "Q8_0", "model_missing"),
        (tmp_path / "none", "Q9_X", "config_invalid"),
    ):
        with pytest.raises(AssayError) as caught:
            requantize(source, tmp_path / "out", kind)
        assert caught.value.code == code
