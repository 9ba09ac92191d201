"""The node's side of the llama.cpp engine: starts its process, watches it, starts it again.

The child may die at any instruction (asserts, out-of-memory, kill -9) or hang. Then every job in
flight fails with "engine_failed" (a client resumes it elsewhere or here), the death is logged and
counted in `load.restarts`, and a new child is started after a back-off. While there is none, new
jobs are refused as "busy".
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from assay_network.logs import get_logger
from assay_node.engine import wire
from assay_node.engine.benchmark import measure
from assay_node.engine.channels import Results
from assay_node.engine.child import COMMANDS_MAX, Child
from assay_node.engine.frames import frame
from assay_node.engine.interface import (
    Benchmark,
    Chunk,
    EngineInfo,
    Generate,
    Load,
    Replay,
    Replayed,
)
from assay_node.engine.pace import Pace
from assay_node.engine.profiles import FLASH, Profile
from assay_node.engine.requests import check_generate, check_replay
from assay_protocol.errors import AssayError

SILENCE_SECONDS_MAX: Final = 60.0  # one decode step of a large model on a slow processor
BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 30.0
HEALTHY_SECONDS: Final = 60.0  # a child that lived this long resets the back-off
WAITING_MAX: Final = 64
TENANT_WAITING_MAX: Final = 32  # one client cannot take every place in the queue
REPLAYS_MAX: Final = 8

_log = get_logger("engine")


class LlamaEngine:
    """Open it with open_llama_engine."""

    info: EngineInfo

    def __init__(self, opening: wire.Opening, silence_seconds: float) -> None:
        self._opening, self._silence_seconds = opening, silence_seconds
        self._answers: dict[int, Results[Chunk]] = {}
        self._replays: dict[int, Results[Replayed]] = {}
        self._asked: dict[int, Generate] = {}
        self._pace = Pace()
        self._commands: trio.MemorySendChannel[bytes] | None = None  # None: no child is ready
        self._jobs = 0
        self._restarts = 0
        self._backoff = BACKOFF_SECONDS_MIN
        self.opened = trio.Event()
        self.refusal: AssayError | None = None
        self.pid: int | None = None

    @property
    def load(self) -> Load:
        running = min(len(self._answers), self.info.slots)
        free = self.info.slots - running if self._commands is not None else 0
        return Load(running, len(self._answers) - running, free, self._restarts)

    @asynccontextmanager
    async def generate(self, request: Generate) -> AsyncIterator[AsyncIterator[Chunk]]:
        check_generate(self.info, request)
        self._check_queue(request.tenant)
        results: Results[Chunk] = Results(request.max_tokens)
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

    async def run(self) -> None:
        """Keep a child alive until cancelled; sets `opened` when the first is ready or refused.

        If the first child cannot be opened, `refusal` says why and this ends; a later one is
        tried again for ever.
        """
        while True:
            began = trio.current_time()
            child = Child(self._opening, self._ready, self._deliver)
            death = await child.live(self._silence_seconds)
            self._commands, self.pid = None, None
            self._fail_all()
            if not self.opened.is_set():
                self.refusal = death
                self.opened.set()
                return
            self._restarts += 1
            await self._back_off(child, death, trio.current_time() - began)

    async def _back_off(self, child: Child, death: AssayError, lived: float) -> None:
        _log.error(
            "engine_died",
            reason=death.message,
            lived_seconds=round(lived, 3),
            restarts=self._restarts,
            complaint=child.complaint,
        )
        if lived >= HEALTHY_SECONDS:
            self._backoff = BACKOFF_SECONDS_MIN
        await trio.sleep(self._backoff)
        self._backoff = min(2 * self._backoff, BACKOFF_SECONDS_MAX)

    def _ready(self, info: EngineInfo, commands: trio.MemorySendChannel[bytes], pid: int) -> None:
        self.info, self._commands, self.pid = info, commands, pid
        _log.info("engine_ready", class_id=info.class_id, slots=info.slots, pid=pid)
        self.opened.set()

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

    def _begin(self, jobs: dict[int, Results[Any]], results: Results[Any]) -> int:
        if self._commands is None:
            wait_ms = math.ceil(self._backoff * 1000)
            raise AssayError("busy", "the engine is starting again", retry_after_ms=wait_ms)
        self._jobs += 1
        jobs[self._jobs] = results
        return self._jobs

    def _end(self, jobs: dict[int, Results[Any]], job: int) -> None:
        jobs.pop(job).close()
        self._command(frame("cancel", job))

    def _command(self, data: bytes) -> None:
        """Queue a frame; a child that leaves so many unread hangs; the watchdog ends it."""
        if self._commands is not None:
            try:
                self._commands.send_nowait(data)
            except (trio.WouldBlock, trio.BrokenResourceError):
                _log.error("engine_unresponsive", commands=COMMANDS_MAX)

    def _fail_all(self) -> None:
        everyone: list[Results[Any]] = [*self._answers.values(), *self._replays.values()]
        for results in everyone:
            results.fail(AssayError("engine_failed"))


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
    silence_seconds: float = SILENCE_SECONDS_MAX,
) -> AsyncIterator[LlamaEngine]:
    """Load `path`, whose sha256 the caller has checked to be `model_digest`, and serve it.

    `threads` defaults to all cores but one: with every core taken, spinning threads make the whole
    machine several times slower as soon as anything else runs. `profile` says how it computes; the
    class id claims exactness only if trials.choose proved it. `adapters`: LoRA files and their
    digests, checked like the model's, ADAPTERS_MAX at most. `silence_seconds`: a child that says
    nothing for so long is killed. Raises AssayError: "engine_missing" without the library,
    "engine_failed" if the model or an adapter cannot be loaded.
    """
    cores = threads or max(1, (os.cpu_count() or 1) - 1)
    files = tuple((str(file), digest) for file, digest in adapters)
    opening = wire.Opening(
        str(path), model_digest, slots, context, cores, profile, gpu_layers, files
    )
    engine = LlamaEngine(opening, silence_seconds)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run)
            await engine.opened.wait()
            if engine.refusal is not None:
                raise engine.refusal
            try:
                yield engine
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery is ours alone and its task raises nothing: what is inside is the caller's.
        raise _only(group) from None


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    if len(group.exceptions) > 1:
        return group
    return group.exceptions[0]
