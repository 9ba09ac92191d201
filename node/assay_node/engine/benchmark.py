"""Measure an engine through its own interface: what a node may promise in its offer."""

from __future__ import annotations

from typing import Final

import trio

from assay_node.engine.interface import Benchmark, Engine, Generate
from assay_protocol.errors import AssayError
from assay_protocol.messages import Sampler

PREFILL_TOKENS: Final = 256
DECODE_TOKENS: Final = 32
_SAMPLER: Final = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


async def measure(engine: Engine) -> Benchmark:
    """Prefill of one prompt, then decoding in all slots; raises AssayError("busy") if not idle."""
    load = engine.load
    if load.running or load.waiting:
        raise AssayError("busy")
    length = min(PREFILL_TOKENS, engine.info.context // 2)
    began = trio.current_time()
    await _count(engine, _request(engine, 0, length, 1), [])
    middle = trio.current_time()
    counts: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(1, engine.info.slots + 1):
            request = _request(engine, number, 1, min(DECODE_TOKENS, engine.info.context - 1))
            nursery.start_soon(_count, engine, request, counts)
    ended = trio.current_time()
    return Benchmark(_rate(length, middle - began), _rate(sum(counts), ended - middle))


async def _count(engine: Engine, request: Generate, counts: list[int]) -> None:
    async with engine.generate(request) as chunks:
        async for chunk in chunks:
            counts.append(len(chunk.tokens))


def _request(engine: Engine, number: int, length: int, max_tokens: int) -> Generate:
    """Arbitrary tokens; every prompt differs from its start, so no prefix is reused."""
    ordinary = [t for t in range(min(engine.info.n_vocab, 4096)) if t not in engine.info.eog]
    prompt = tuple(ordinary[(7919 * i + 31 * number + 1) % len(ordinary)] for i in range(length))
    return Generate(prompt, 0, max_tokens, _SAMPLER, bytes([number % 256]) * 32)


def _rate(tokens: int, seconds: float) -> float:
    return tokens / max(seconds, 1e-9)
