"""Rounds of cancels, leaves, preemptions, kills of the engine's process and overload, at random.

Every job must end with its whole answer or with an error it can be resumed after; a resumed answer
must be the unbroken one; and nothing may stay behind: no job, slot, file or task. ASSAY_CHAOS sets
the number of rounds, ASSAY_CHAOS_SEED what happens in them.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio

from assay_node.engine import keeper
from assay_node.engine.interface import PRIORITIES, Generate
from assay_node.engine.quantize import requantize
from assay_node.engine.supervisor import LlamaEngine, open_llama_engine
from assay_protocol.errors import AssayError
from assay_protocol.messages import Sampler

pytestmark = [pytest.mark.model, pytest.mark.slow]

ROUNDS = int(os.environ.get("ASSAY_CHAOS", "18"))
SEED = int(os.environ.get("ASSAY_CHAOS_SEED", "2"))
SLOTS, CONTEXT = 2, 128
KINDS = 8  # different answers that are asked for again and again
ANSWER_TOKENS = 8
FLOOD = 120  # more than the queue takes
RESUMABLE = {"engine_failed", "busy"}
SAMPLER = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


@dataclass
class World:
    """The engine, what unbroken answers are, and what happened."""

    engine: LlamaEngine
    whole: dict[int, tuple[tuple[int, ...], bytes]]
    seen: Counter[str] = field(default_factory=Counter)


def _model() -> Path:
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    found = Path(os.environ.get("ASSAY_TEST_MODEL") or Path.home() / ".cache/assay/models" / name)
    assert found.is_file(), f"put {name} at {found}, or its path into ASSAY_TEST_MODEL"
    return found


def _request(kind: int) -> Generate:
    """Of three kinds two begin alike, so that prefixes are reused and copied."""
    prompt = tuple(500 + (37 * i + 911 * (kind % 3)) % 40_000 for i in range(20 + 3 * kind))
    tenant = bytes([kind % 2])
    return Generate(prompt, 0, ANSWER_TOKENS, SAMPLER, bytes([kind]) * 32, tenant)


async def _answer(world: World, kind: int, priority: int, patience: int | None = None) -> None:
    """One job, resumed until it is whole; left after `patience` arrivals, if that is given."""
    request, tokens, logits = replace(_request(kind), priority=priority), (), b""
    while True:
        rest = replace(
            request,
            prompt=request.prompt + tokens,
            start=len(tokens),
            max_tokens=request.max_tokens - len(tokens),
        )
        try:
            async with world.engine.generate(rest) as chunks:
                async for chunk in chunks:
                    tokens, logits = (*tokens, *chunk.tokens), logits + chunk.logits
                    if patience is not None and len(tokens) >= patience:
                        world.seen["left"] += 1
                        return
            break
        except AssayError as error:
            await trio.sleep(_wait_after(error))
            world.seen[error.code] += 1
    assert chunk.finish is not None
    assert (tokens, logits) == world.whole[kind]
    world.seen["whole"] += 1


def _wait_after(error: AssayError) -> float:
    """Seconds until the job may be asked for again."""
    assert error.code in RESUMABLE, error
    if error.code == "engine_failed":
        return 0.0
    assert error.retry_after_ms is not None
    assert error.retry_after_ms > 0
    return error.retry_after_ms / 1e3


async def _cancelled(world: World, kind: int, priority: int, seconds: float) -> None:
    """One job whose task is cancelled wherever it is."""
    with trio.move_on_after(seconds) as scope:
        await _answer(world, kind, priority)
    world.seen["cancelled"] += scope.cancelled_caught


async def _flood(world: World, draw: random.Random) -> None:
    """More at once than are taken; who is refused is told when to come again."""

    async def one(kind: int, priority: int) -> None:
        try:
            async with world.engine.generate(replace(_request(kind), priority=priority)) as chunks:
                await anext(chunks)
                world.seen["served in a flood"] += 1
        except AssayError as error:
            _wait_after(error)
            world.seen["refused"] += error.code == "busy"

    async with trio.open_nursery() as nursery:
        for _ in range(FLOOD):
            nursery.start_soon(one, draw.randrange(3), draw.choice(PRIORITIES))  # the short ones


async def _round(world: World, draw: random.Random) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(draw.randrange(1, 7)):
            kind, priority, how = draw.randrange(KINDS), draw.choice(PRIORITIES), draw.random()
            if how < 0.25:
                nursery.start_soon(_cancelled, world, kind, priority, draw.random() * 0.4)
            elif how < 0.5:
                patience = draw.randrange(1, ANSWER_TOKENS)
                nursery.start_soon(_answer, world, kind, priority, patience)
            else:
                nursery.start_soon(_answer, world, kind, priority)
            if draw.random() < 0.3:  # so that some come when others are on their way
                await trio.sleep(draw.random() * 0.1)
        if draw.random() < 0.07:
            nursery.start_soon(_flood, world, draw)
        if draw.random() < 0.1:
            await trio.sleep(draw.random() * 0.3)
            if world.engine.pid is not None:
                with suppress(ProcessLookupError):  # killed a moment ago
                    os.kill(world.engine.pid, signal.SIGKILL)
                    world.seen["killed"] += 1


async def _full(engine: LlamaEngine, number: int) -> None:
    """A job that needs every cell of its slot; asked again if the last round's kill comes late."""
    prompt = tuple(500 + (61 * i + 7 * number) % 40_000 for i in range(CONTEXT - 4))
    while True:
        try:
            async with engine.generate(Generate(prompt, 0, 4, SAMPLER, bytes(32))) as chunks:
                arrived = [chunk async for chunk in chunks]
            break
        except AssayError as error:
            await trio.sleep(_wait_after(error))
    assert arrived[-1].finish is not None


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_is_lost_and_nothing_stays_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(keeper, "BACKOFF_SECONDS_MAX", 0.2)
    draw = random.Random(SEED)
    file = tmp_path / "quick.gguf"
    requantize(_model(), file, "Q4_0")
    async with open_llama_engine(
        file, bytes(32), slots=SLOTS, context=CONTEXT, threads=1
    ) as engine:
        world = World(engine, {})
        for kind in range(KINDS):
            tokens, logits = (), b""
            async with engine.generate(_request(kind)) as chunks:
                async for chunk in chunks:
                    tokens, logits = (*tokens, *chunk.tokens), logits + chunk.logits
            world.whole[kind] = tokens, logits
        files, tasks = _open_files(), trio.lowlevel.current_statistics().tasks_living
        for number in range(ROUNDS):
            with trio.fail_after(120):
                await _round(world, draw)
            assert (engine.load.running, engine.load.waiting) == (0, 0), f"round {number}"
        with trio.fail_after(120):
            while engine.pid is None:
                await trio.sleep(0.05)
            async with trio.open_nursery() as nursery:
                for number in range(SLOTS):
                    nursery.start_soon(_full, engine, number)
        assert engine.load.free_slots == SLOTS
        assert engine.load.restarts <= world.seen["killed"]
        assert _open_files() == files
        assert trio.lowlevel.current_statistics().tasks_living == tasks
    print(f"\n{ROUNDS} rounds, seed {SEED}: {dict(world.seen)}")
    assert min(world.seen["whole"], world.seen["left"] + world.seen["cancelled"]) > 0
