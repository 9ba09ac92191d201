"""Sketches of real answers: the same bits where decode and replay compute alike, near elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import pytest
import trio

from assay_node.engine.interface import Engine, Generate, Replay, Replayed
from assay_node.engine.profiles import FLASH, Profile
from assay_node.engine.quantize import requantize
from assay_node.engine.supervisor import open_llama_engine
from assay_protocol.limits import SKETCH_BYTES
from assay_protocol.messages import Sampler
from assay_protocol.sketches import leaf_distances

pytestmark = [pytest.mark.model, pytest.mark.slow]

TIMEOUT_SECONDS = 60.0
TOKENS = 40
SAMPLER = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
FAST = replace(FLASH, road="fast", chunk=256, total=256, replay_chunk=256)


@dataclass
class Written:
    """What an engine told of one answer."""

    tokens: tuple[int, ...] = ()
    logits: bytes = b""
    sketches: bytes = b""


def _model() -> Path:
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    found = Path(os.environ.get("ASSAY_TEST_MODEL") or Path.home() / ".cache/assay/models" / name)
    assert found.is_file(), f"put {name} at {found}, or its path into ASSAY_TEST_MODEL"
    return found


def _request(number: int) -> Generate:
    prompt = tuple(500 + (37 * i + 911 * number) % 40_000 for i in range(30 + 31 * number))
    return Generate(prompt, 0, TOKENS, SAMPLER, bytes([number]) * 32)


async def _write(engine: Engine, request: Generate) -> Written:
    written = Written()
    async with engine.generate(request) as chunks:
        async for chunk in chunks:
            written.tokens += chunk.tokens
            written.logits += chunk.logits
            written.sketches += chunk.sketches
    assert len(written.sketches) == SKETCH_BYTES * len(written.tokens)
    return written


async def _replayed(engine: Engine, request: Generate, tokens: tuple[int, ...]) -> Replayed:
    replay = Replay(request.prompt, tokens, request.start, request.sampler, request.seed)
    return await engine.replay(replay)


async def _both(
    model: Path, other: Path, profile: Profile, requests: list[Generate]
) -> list[tuple[Written, Replayed]]:
    """Written by one model, replayed by another or the same."""
    with trio.fail_after(TIMEOUT_SECONDS):
        async with open_llama_engine(
            model, bytes(32), slots=2, context=256, threads=1, profile=profile
        ) as engine:
            written = [await _write(engine, request) for request in requests]
        async with open_llama_engine(
            other, bytes(32), slots=2, context=256, threads=1, profile=profile
        ) as engine:
            return [
                (one, await _replayed(engine, request, one.tokens))
                for request, one in zip(requests, written, strict=True)
            ]


async def test_in_the_exact_class_sketches_are_equal_bit_for_bit() -> None:
    first = _request(0)
    [(whole, replayed)] = await _both(_model(), _model(), FLASH, [first])
    assert replayed.sketches == whole.sketches
    assert replayed.logits == whole.logits
    cut = 13
    prompt = first.prompt + whole.tokens[:cut]
    resumed = replace(first, prompt=prompt, start=cut, max_tokens=TOKENS - cut)
    [(rest, again)] = await _both(_model(), _model(), FLASH, [resumed])
    assert rest.sketches == whole.sketches[SKETCH_BYTES * cut :] == again.sketches


async def test_elsewhere_they_are_as_near_as_arithmetic_and_another_model_is_not(
    tmp_path: Path,
) -> None:
    cheap = tmp_path / "cheap.gguf"
    requantize(_model(), cheap, "Q3_K_M")
    requests = [_request(number) for number in range(3)]
    honest = await _both(_model(), _model(), FAST, requests)
    cheated = await _both(cheap, _model(), FAST, requests)
    noise, cheat = (
        [fmean(leaf_distances(one.sketches, two.sketches)) for one, two in both]
        for both in (honest, cheated)
    )
    assert 0 < max(noise) < 0.1
    assert min(cheat) > 2 * max(noise)


async def test_a_replay_tells_how_near_each_draw_was() -> None:
    [(written, replayed)] = await _both(_model(), _model(), FLASH, [_request(1)])
    assert len(replayed.gaps) == len(written.tokens)
    assert min(replayed.gaps) >= 0.0
    assert 0.02 < sorted(replayed.gaps)[len(replayed.gaps) // 2] < 5.0
