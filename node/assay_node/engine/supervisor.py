"""The node's side of the llama.cpp engine: jobs in, chunks out, over a process of its own.

If that process dies (keeper.py), a job that failed with "engine_failed" is resumed by its client,
elsewhere or here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from assay_node.engine import wire
from assay_node.engine.benchmark import measure
from assay_node.engine.channels import Results
from assay_node.engine.interface import (
    Benchmark,
    Chunk,
    EngineInfo,
    Generate,
    Load,
    Replay,
    Replayed,
)
from assay_node.engine.keeper import SILENCE_SECONDS_MAX, Keeper, kept
from assay_node.engine.pace import Pace
from assay_node.engine.profiles import FLASH, Profile
from assay_node.engine.requests import check_generate, check_replay
from assay_protocol.errors import AssayError

WAITING_MAX: Final = 64
TENANT_WAITING_MAX: Final = 32  # one client cannot take every place in the queue
REPLAYS_MAX: Final = 8


class LlamaEngine(Keeper[EngineInfo]):
    """Open it with open_llama_engine."""

    def __init__(self, opening: wire.Opening, silence_seconds: float) -> None:
        super().__init__(opening, silence_seconds)
        self._answers: dict[int, Results[Chunk]] = {}
        self._replays: dict[int, Results[Replayed]] = {}
        self._asked: dict[int, Generate] = {}
        self._pace = Pace()

    @property
    def load(self) -> Load:
        running = min(len(self._answers), self.info.slots)
        free = self.info.slots - running if self._commands is not None else 0
        return Load(running, len(self._answers) - running, free, self._restarts)

    @asynccontextmanager
    async def generate(self, request: Generate) -> AsyncIterator[AsyncIterator[Chunk]]:
        check_generate(self.info, request)
        self._check_queue(request.tenant)
        told = len(request.prompt) if request.tells_prompt else 0
        results: Results[Chunk] = Results(request.max_tokens + told)
        job = self._begin(self._answers, results)
        self._asked[job] = request
        self._pace.begin(trio.current_time())
        self._command(wire.generate_frame(job, request))
        try:
            yield results
        finally:
            del self._asked[job]
            self._end(self._answers, job)
            if not self._answers:
                self._pace.idle()

    async def replay(self, request: Replay) -> Replayed:
        check_replay(self.info, request)
        if len(self._replays) >= REPLAYS_MAX:
            raise AssayError("busy")
        results: Results[Replayed] = Results(1)
        job = self._begin(self._replays, results)
        self._command(wire.replay_frame(job, request))
        try:
            return await anext(results)
        finally:
            self._end(self._replays, job)

    async def benchmark(self) -> Benchmark:
        return await measure(self)

    def _deliver(self, event: wire.Event) -> None:
        """Hand an event to its job; events of jobs given up meanwhile are dropped."""
        job, what = event
        match what:
            case Chunk() if (answer := self._answers.get(job)) is not None:
                answer.put(what)
                self._pace.drawn(len(what.tokens), trio.current_time())
                if what.finish is not None:
                    answer.finish()
            case Replayed() if (replay := self._replays.get(job)) is not None:
                replay.put(what)
                replay.finish()
            case AssayError():
                for jobs in (self._answers, self._replays):
                    if job in jobs:
                        jobs[job].fail(what)
            case _:
                pass

    def _check_queue(self, tenant: bytes) -> None:
        """Raises AssayError("busy") with the time until a place in the queue should be free."""
        asked = self._asked.values()
        mine = sum(request.tenant == tenant for request in asked)
        full = len(asked) >= self.info.slots + WAITING_MAX
        if full or mine >= self.info.slots + TENANT_WAITING_MAX:
            mean = sum(request.max_tokens for request in asked) / len(asked)
            raise AssayError("busy", retry_after_ms=self._pace.retry_after_ms(mean))


@asynccontextmanager
async def open_llama_engine(
    path: Path,
    model_digest: bytes,
    *,
    slots: int = 4,
    context: int = 2048,
    threads: int | None = None,
    profile: Profile = FLASH,
    gpu_layers: int = -1,
    adapters: Sequence[tuple[Path, bytes]] = (),
    drafts: bool = True,
    projector: Path | None = None,
    silence_seconds: float = SILENCE_SECONDS_MAX,
) -> AsyncIterator[LlamaEngine]:
    """Load `path`, whose sha256 the caller has checked to be `model_digest`, and serve it.

    `threads` defaults to all cores but one: with every core taken, spinning threads make the whole
    machine several times slower as soon as anything else runs. `profile` says how it computes; the
    class id claims exactness only if trials.choose proved it. `adapters`: LoRA files and their
    digests, checked like the model's, ADAPTERS_MAX at most. `drafts`: draw several tokens a step
    where that pays; answers are the same. `projector`: its file, checked likewise, for a
    model that reads images. `silence_seconds`: a child that says nothing for so long
    is killed. Raises AssayError: "engine_missing" without the library,
    "engine_failed" if the model, an adapter or the projector cannot be loaded.
    """
    cores = threads or max(1, (os.cpu_count() or 1) - 1)
    files = tuple((str(file), digest) for file, digest in adapters)
    sees = "" if projector is None else str(projector)
    opening = wire.Opening(
        str(path), model_digest, slots, context, cores, profile, gpu_layers, files, drafts, sees
    )
    async with kept(LlamaEngine(opening, silence_seconds)) as engine:
        yield engine
