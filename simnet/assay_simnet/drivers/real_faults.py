"""Breaks processes as a scenario says: SIGKILL and a new start, or SIGSTOP and SIGCONT.

When and whom are drawn as the virtual drivers draw them, from the same streams.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from signal import SIGCONT, SIGSTOP, Signals
from typing import Final, Protocol

import trio

from assay_simnet.scenario import Fault, Scenario
from assay_simnet.seeds import Stream, Streams

COORDINATOR: Final = "coordinator"

Undo = Callable[[], Awaitable[None]]


class Processes(Protocol):
    """What can be done to processes, by name."""

    @property
    def names(self) -> Sequence[str]: ...  # of nodes with a process, in the order of their numbers

    async def crash(self, name: str) -> None:
        """SIGKILL, and wait for its end."""

    async def start(self, name: str) -> None:
        """Start it again over its files, if it is not running."""

    def signal(self, name: str, number: Signals) -> None:
        """Send it a signal."""

    def note(self, what: str) -> None:
        """A fault begins."""


class Faults:
    """All faults of one run; `over` ends those that still last."""

    def __init__(self, scenario: Scenario, streams: Streams, processes: Processes) -> None:
        self._scenario, self._streams, self._processes = scenario, streams, processes
        self._lasting: list[Undo] = []
        self.happened = 0

    async def carry_out(self, begins_s: float) -> None:
        """Each at its time; `begins_s`: of trio's clock, when the safety phase does."""
        async with trio.open_nursery() as nursery:
            for index, fault in enumerate(self._scenario.faults):
                stream = self._streams.stream(f"fault:{index}")
                nursery.start_soon(self._repeat, fault, stream, begins_s)

    async def over(self) -> None:
        """The heal phase begins."""
        lasting, self._lasting = self._lasting, []
        for undo in lasting:
            await undo()

    async def _repeat(self, fault: Fault, stream: Stream, begins_s: float) -> None:
        at = fault.at
        while at + fault.for_ <= self._scenario.duration:
            await trio.sleep_until(begins_s + at / 1e6)
            await self._happen(fault, stream)
            if not fault.every:
                break
            at += fault.every

    async def _happen(self, fault: Fault, stream: Stream) -> None:
        self.happened += 1
        self._processes.note(fault.kind)
        undo = await self._do(fault, stream)
        self._lasting.append(undo)
        if fault.for_:
            await trio.sleep(fault.for_ / 1e6)
            if undo in self._lasting:
                self._lasting.remove(undo)
                await undo()

    async def _do(self, fault: Fault, stream: Stream) -> Undo:
        processes = self._processes
        if fault.kind == "coordinator_crash":
            hit = [COORDINATOR]
        else:
            hit = [name for name in processes.names if stream.chance(fault.fraction)]
        for name in hit:
            if fault.kind == "freeze":
                processes.signal(name, SIGSTOP)
            else:
                await processes.crash(name)

        async def recover() -> None:
            for name in hit:
                if fault.kind == "freeze":
                    processes.signal(name, SIGCONT)
                else:
                    await processes.start(name)

        return recover
