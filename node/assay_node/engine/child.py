"""One life of the engine's process, from start to death, seen from the parent."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from subprocess import PIPE
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

from assay_node.engine import wire
from assay_node.engine.frames import Deframer
from assay_node.engine.profiles import Profile
from assay_protocol.errors import CODES, AssayError

START_SECONDS_MAX: Final = 600.0  # loading tens of gigabytes from a slow disk
COMMANDS_MAX: Final = 1024
READ_BYTES: Final = 1 << 16
COMPLAINT_BYTES: Final = 2048  # of the child's stderr, kept for the log

OnEvent = Callable[[wire.Event], None]


class Ready(Protocol):
    """What a child says of itself: at least its numerics class."""

    @property
    def class_id(self) -> str: ...


S = TypeVar("S", bound=Ready)
S_co = TypeVar("S_co", bound=Ready, covariant=True)
OnReady = Callable[[S, trio.MemorySendChannel[bytes], int], None]


class Opens(Protocol[S_co]):
    """What a child is opened with, and how it answers (wire.Opening, embedding_wire.Opening)."""

    @property
    def profile(self) -> Profile: ...

    def frame(self) -> bytes: ...

    def read_ready(self, fields: Sequence[Any]) -> S_co: ...


class Child(Generic[S]):
    """Starts `assay_node.engine.worker`, tells when it is ready, hands on its events."""

    def __init__(self, opening: Opens[S], on_ready: OnReady[S], on_event: OnEvent) -> None:
        self._opening, self._on_ready, self._on_event = opening, on_ready, on_event
        self._complaint = b""
        self.ready = False

    @property
    def complaint(self) -> str:
        """The last line the child wrote to stderr: an assert, if one ended it."""
        lines = self._complaint.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    async def live(self, silence_seconds: float) -> AssayError:
        """Run until the child is dead, and say why. It is dead, too, when this is cancelled."""
        command = [sys.executable, "-m", "assay_node.engine.worker"]
        try:
            environment = self._opening.profile.environment()
        except AssayError as missing:
            return missing
        # A session of its own: Ctrl-C is for the node, which ends the child in its own time.
        process = await trio.lowlevel.open_process(
            command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True, env=environment
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_complaint, process)
                death = await self._converse(process, silence_seconds, nursery)
                nursery.cancel_scope.cancel()
            return death
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                for pipe in (process.stdin, process.stdout, process.stderr):
                    if pipe is not None:
                        await pipe.aclose()

    async def _converse(
        self, process: trio.Process, silence_seconds: float, nursery: trio.Nursery
    ) -> AssayError:
        assert process.stdin is not None
        assert process.stdout is not None
        commands, outgoing = trio.open_memory_channel[bytes](COMMANDS_MAX)
        commands.send_nowait(self._opening.frame())
        nursery.start_soon(_write, process.stdin, outgoing)
        become_ready = partial(self._become_ready, commands, process.pid)
        deframer = Deframer()
        while True:
            limit = silence_seconds if self.ready else START_SECONDS_MAX
            with trio.move_on_after(limit) as waiting:
                data = await process.stdout.receive_some(READ_BYTES)
            if waiting.cancelled_caught:
                return AssayError("engine_failed", f"silent for {limit:g} s")
            if not data:
                return AssayError("engine_failed", "its process ended")
            try:
                for fields in deframer.feed(bytes(data)):
                    self._take(fields, become_ready)
            except AssayError as death:
                return death
            except (TypeError, ValueError, trio.WouldBlock, trio.ClosedResourceError):
                return AssayError("engine_failed", "the engine's pipe is garbled")

    def _take(self, fields: list[object], become_ready: Callable[[S], None]) -> None:
        """One frame; raises AssayError if the child refuses to open, or is not making sense."""
        match fields:
            case ["events", _]:
                for event in wire.read_events(fields):
                    self._on_event(event)
            case ["alive"]:
                pass
            case ["ready", *_]:
                become_ready(self._opening.read_ready(fields))
            case ["refused", str() as code, str() as message] if code in CODES:
                raise AssayError(code, message)
            case _:
                raise ValueError(fields[0])

    def _become_ready(self, commands: trio.MemorySendChannel[bytes], pid: int, info: S) -> None:
        self.ready = True
        self._on_ready(info, commands, pid)

    async def _keep_complaint(self, process: trio.Process) -> None:
        assert process.stderr is not None
        async for data in process.stderr:
            self._complaint = (self._complaint + bytes(data))[-COMPLAINT_BYTES:]


async def _write(pipe: trio.abc.SendStream, outgoing: trio.MemoryReceiveChannel[bytes]) -> None:
    """Send frames until the pipe breaks; that the child is dead is noticed by who reads."""
    async for data in outgoing:
        try:
            await pipe.send_all(data)
        except trio.BrokenResourceError:
            return
