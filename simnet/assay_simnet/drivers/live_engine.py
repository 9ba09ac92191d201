"""An inference engine that computes nothing: recorded evidence, at a machine's speed, in slots.

To the node it is an engine like llama.cpp's. Its answers and findings are evidence.py's; its times
are population.py's, of virtual time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from assay_node.engine.interface import (
    Benchmark,
    Chunk,
    EngineInfo,
    Generate,
    Load,
    Replay,
    Replayed,
)
from assay_protocol.errors import AssayError
from assay_simnet import evidence
from assay_simnet.drivers.fast_node import FIRST_TOKENS
from assay_simnet.drivers.meter import Meter
from assay_simnet.pace import Pace
from assay_simnet.population import Speed


class Maker(Protocol):
    """Knows what its node's answers and findings are."""

    def made(self, request: Generate) -> tuple[Chunk, float]:
        """The whole answer, and the share of its compute that is spent on it."""
        ...

    def found(self, request: Replay) -> tuple[Replayed, bool]:
        """What it says it found, and whether it computed anything for that."""
        ...


class LiveEngine:
    """One engine's process; keeps `assay_node.engine.interface.Engine`."""

    def __init__(self, info: EngineInfo, speed: Speed, maker: Maker, meter: Meter) -> None:
        self.info = info
        self._speed, self._maker, self._meter = speed, maker, meter
        self._slots = trio.Semaphore(speed.slots)
        self._crashed = trio.Event()
        self._pace = Pace(speed)
        self._restarts = 0

    @property
    def load(self) -> Load:
        free, waiting = self._slots.value, self._slots.statistics().tasks_waiting
        return Load(self._speed.slots - free, waiting, free, self._restarts)

    def crash(self) -> None:
        """What it was at is lost; it is there again at once."""
        self._restarts += 1
        self._crashed.set()
        self._crashed = trio.Event()

    @asynccontextmanager
    async def generate(self, request: Generate) -> AsyncIterator[AsyncIterator[Chunk]]:
        answer, cost = self._maker.made(request)
        crashed = self._crashed
        async with self._slots:
            yield _Pieces(self, answer, len(request.prompt), cost, crashed)

    async def replay(self, request: Replay) -> Replayed:
        crashed = self._crashed
        async with self._slots:
            self._meter.audits += 1
            found, computed = self._maker.found(request)
            if computed:
                n_in, n_out = len(request.prompt), len(request.output)
                service = self._pace.replay(self._now(), n_in, n_out)
                self._meter.replayed_us += await self._read(service, crashed)
            return found

    async def benchmark(self) -> Benchmark:
        return Benchmark(1e6 / self._speed.prefill_us, 1e6 / self._speed.decode_us)

    async def read(self, tokens: int, cost: float, crashed: trio.Event) -> float:
        """One prefill; returns the microseconds it took."""
        return await self._read(self._pace.read(self._now(), tokens) * cost, crashed)

    async def _read(self, service: float, crashed: trio.Event) -> float:
        try:
            await self._work(service, crashed)
        finally:
            self._pace.has_read()
        return service

    async def first(self, cost: float, crashed: trio.Event) -> float:
        """The first token after its prompt; returns the microseconds it took."""
        service = self._pace.first(self._taken) * cost
        await self._work(service, crashed)
        return service

    async def draw(self, tokens: int, cost: float, crashed: trio.Event) -> float:
        """So many further tokens of one answer; returns the microseconds they took."""
        service = self._pace.draw(self._now(), tokens, self._taken) * cost
        await self._work(service, crashed)
        return service

    def _now(self) -> int:
        return round(trio.current_time() * 1e6)

    @property
    def piece_tokens(self) -> int:
        return self._speed.piece_tokens

    @property
    def _taken(self) -> int:
        return self._speed.slots - self._slots.value

    def served(self, microseconds: float) -> None:
        self._meter.served_us += microseconds

    async def _work(self, microseconds: float, crashed: trio.Event) -> None:
        with trio.move_on_after(round(microseconds) / 1e6):
            await crashed.wait()
        if crashed.is_set():
            raise AssayError("engine_failed", "the engine crashed")


class _Pieces:
    """One answer, piece by piece as it is asked for. No generator: those end when collected."""

    def __init__(
        self, engine: LiveEngine, answer: Chunk, n_in: int, cost: float, crashed: trio.Event
    ) -> None:
        self._engine, self._answer, self._n_in = engine, answer, n_in
        self._cost, self._crashed, self._sent = cost, crashed, 0

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> Chunk:
        left = len(self._answer.tokens) - self._sent
        if not left:
            raise StopAsyncIteration
        engine, count = self._engine, min(self._engine.piece_tokens, left)
        if not self._sent:
            count = FIRST_TOKENS
            engine.served(await engine.read(self._n_in, self._cost, self._crashed))
            engine.served(await engine.first(self._cost, self._crashed))
        else:
            engine.served(await engine.draw(count, self._cost, self._crashed))
        piece = evidence.piece(self._answer, self._sent, count)
        self._sent += count
        return piece
