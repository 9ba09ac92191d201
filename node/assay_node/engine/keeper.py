"""Keeps an engine's process alive: starts it, watches it, starts it again.

The child may die at any instruction (asserts, out-of-memory, kill -9) or hang. Then every job in
flight fails with "engine_failed", the death is logged and counted in `restarts`, and a new child
is started after a back-off. While there is none, new jobs are refused as "busy".
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, TypeVar

import trio

from assay_network.logs import get_logger
from assay_node.engine import wire
from assay_node.engine.channels import Results
from assay_node.engine.child import COMMANDS_MAX, Child, Opens, Ready
from assay_node.engine.frames import frame
from assay_protocol.errors import AssayError

SILENCE_SECONDS_MAX: Final = 60.0  # one decode step of a large model on a slow processor
BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 30.0
HEALTHY_SECONDS: Final = 60.0  # a child that lived this long resets the back-off

_log = get_logger("engine")

S = TypeVar("S", bound=Ready)
K = TypeVar("K", bound="Keeper[Any]")


class Keeper(ABC, Generic[S]):
    """What the engines of supervisor.py and embedder.py have in common; open them with `kept`."""

    info: S

    def __init__(self, opening: Opens[S], silence_seconds: float) -> None:
        self._opening, self._silence_seconds = opening, silence_seconds
        self._flying: dict[int, Results[Any]] = {}
        self._commands: trio.MemorySendChannel[bytes] | None = None  # None: no child is ready
        self._jobs = 0
        self._restarts = 0
        self._backoff = BACKOFF_SECONDS_MIN
        self.opened = trio.Event()
        self.refusal: AssayError | None = None
        self.pid: int | None = None

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
            for results in list(self._flying.values()):
                results.fail(AssayError("engine_failed"))
            if not self.opened.is_set():
                self.refusal = death
                self.opened.set()
                return
            self._restarts += 1
            await self._back_off(child, death, trio.current_time() - began)

    async def _back_off(self, child: Child[S], death: AssayError, lived: float) -> None:
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

    def _ready(self, info: S, commands: trio.MemorySendChannel[bytes], pid: int) -> None:
        self.info, self._commands, self.pid = info, commands, pid
        _log.info("engine_ready", class_id=info.class_id, pid=pid)
        self.opened.set()

    @abstractmethod
    def _deliver(self, event: wire.Event) -> None:
        """Hand an event to its job; raises ValueError for one that cannot be the engine's."""

    def _begin(self, jobs: dict[int, Results[Any]], results: Results[Any]) -> int:
        if self._commands is None:
            wait_ms = math.ceil(self._backoff * 1000)
            raise AssayError("busy", "the engine is starting again", retry_after_ms=wait_ms)
        self._jobs += 1
        jobs[self._jobs] = self._flying[self._jobs] = results
        return self._jobs

    def _end(self, jobs: dict[int, Results[Any]], job: int) -> None:
        del self._flying[job]
        jobs.pop(job).close()
        self._command(frame("cancel", job))

    def _command(self, data: bytes) -> None:
        """Queue a frame; a child that leaves so many unread hangs; the watchdog ends it."""
        if self._commands is not None:
            try:
                self._commands.send_nowait(data)
            except (trio.WouldBlock, trio.BrokenResourceError):
                _log.error("engine_unresponsive", commands=COMMANDS_MAX)


@asynccontextmanager
async def kept(engine: K) -> AsyncIterator[K]:
    """Open `engine`, and keep its process alive inside; raises why it could not be opened."""
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
