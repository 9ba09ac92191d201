"""Runs one JobMachine with trio: its effects become sessions, streams and sleeps, and back.

The run outlives the caller's interest: after a cancellation it still takes the receipt and gives
late tickets back, in the client's own nursery. The machine sees trio's clock in microseconds.

Whoever has an event hands it to the machine at once: a token costs no switch of tasks before it is
the caller's. One task waits for the machine's deadline, and is told only of earlier ones; a Tick
that comes too early is nothing to the machine.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from assay.events import (
    AskTicket,
    Begin,
    CancelAsked,
    CloseStream,
    Effect,
    Ended,
    Event,
    Granted,
    HandIn,
    OpenStream,
    Outcome,
    PromptTold,
    Received,
    Refused,
    Resumed,
    SendFrame,
    StreamLost,
    Tick,
    TokensDrawn,
)
from assay.notices import Notices
from assay_network.scopes import single_errors
from assay_protocol.errors import AssayError, PeerGone
from assay_protocol.links import JOB
from assay_protocol.messages import TicketGrant

if TYPE_CHECKING:
    from assay.coordinator_link import CoordinatorLink
    from assay.core import JobMachine
    from assay.quorum import QuorumMachine
    from assay.tracing import Follow
    from assay_network.frames import Frames
    from assay_network.host import Host

FRAMES_AT_A_TIME: Final = 32  # of one stream, before other tasks have their turn
LAST_FRAMES_SECONDS: Final = 10.0  # for the last acknowledgement, to a node that may not read
FRAMES_WAITING_MAX: Final = 4_096  # acknowledgements, one per 32 tokens: never reached


class JobRun:
    """One job under way. `notices` gives what the caller is to know, and ends when the job does."""

    def __init__(
        self,
        machine: JobMachine | QuorumMachine,
        host: Host,
        link: CoordinatorLink,
        nursery: trio.Nursery,
        follow: Follow | None = None,
    ) -> None:
        self._follow = None if follow is None else follow()
        self.outcome: Outcome | None = None
        self.ended = trio.Event()
        self.notices = Notices()
        self._machine, self._host, self._link, self._nursery = machine, host, link, nursery
        self._streams: dict[int, _Stream] = {}
        self._cancel_asked = False
        self._timer = trio.CancelScope()

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """Nodes that have a ticket of it, or drew tokens of it."""
        return self._machine.nodes

    def start(self) -> None:
        """Begin; the run goes on in the nursery."""
        self._handle(Begin())
        self._nursery.start_soon(self._run)

    def cancel(self) -> None:
        """Want no more tokens; `ended` is set when the node has signed or was left."""
        if not self._cancel_asked and self.outcome is None:
            self._cancel_asked = True
            self._handle(CancelAsked())

    async def _run(self) -> None:
        try:
            while self.outcome is None:
                wake_at = self._machine.wake_at
                assert wake_at is not None, "a machine that is not over waits for something"
                with trio.CancelScope(deadline=wake_at / 1e6) as self._timer:
                    await trio.sleep(math.inf)
                self._handle(Tick())
        finally:
            self.notices.close()
            for stream in self._streams.values():
                stream.frames_in.close()

    def _handle(self, event: Event) -> None:
        # Rounded up, so that a Tick is never too early by the rounding of a float.
        for effect in self._machine.handle(math.ceil(trio.current_time() * 1e6), event):
            if self._follow is not None:
                self._follow(effect)
            self._do(effect)
        wake_at = self._machine.wake_at
        if wake_at is None or wake_at / 1e6 < self._timer.deadline:
            self._timer.deadline = -math.inf if wake_at is None else wake_at / 1e6

    def _do(self, effect: Effect) -> None:
        match effect:
            case AskTicket():
                self._nursery.start_soon(self._ask, effect)
            case OpenStream(attempt):
                self._streams[attempt] = _Stream()
                self._nursery.start_soon(self._stream, effect, self._streams[attempt])
            case SendFrame(attempt, frame):
                self._streams[attempt].send(frame)
            case CloseStream(attempt, clean):
                self._streams.pop(attempt).close(clean)
            case HandIn(body):
                self._link.hand_in(body)
            case PromptTold() | TokensDrawn() | Resumed():
                self.notices.put(effect)
            case Ended(outcome):
                self.outcome = outcome
                self.ended.set()

    async def _ask(self, effect: AskTicket) -> None:
        event: Event
        try:
            event = Granted(effect.attempt, await self._link.ask(TicketGrant, effect.body))
        except AssayError as error:
            event = Refused(effect.attempt, error)
        self._handle(event)  # if the job is over, a ticket that comes now is given back

    async def _stream(self, effect: OpenStream, stream: _Stream) -> None:
        attempt, route = effect.attempt, effect.route
        with stream.scope:
            try:
                async with self._host.open(
                    route.node, JOB, effect.first, addresses=route.addresses
                ) as frames:
                    with single_errors():
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(stream.carry, frames, nursery.cancel_scope)
                            await self._receive(attempt, frames)
            except AssayError as error:
                self._handle(StreamLost(attempt, error))

    async def _receive(self, attempt: int, frames: Frames) -> None:
        while True:
            for _ in range(FRAMES_AT_A_TIME):  # those that are here already cost no wait
                self._handle(Received(attempt, await frames.receive()))
            await trio.lowlevel.checkpoint()


class _Stream:
    """What leaves on one job stream: frames wait here until it is open."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.frames_in, self._frames_out = trio.open_memory_channel[bytes](FRAMES_WAITING_MAX)

    def send(self, frame: bytes) -> None:
        self.frames_in.send_nowait(frame)

    def close(self, clean: bool) -> None:
        """Let what was sent arrive and end the stream, in bounded time, or cut it now."""
        self.frames_in.close()
        if clean:
            self.scope.deadline = trio.current_time() + LAST_FRAMES_SECONDS
        else:
            self.scope.cancel()

    async def carry(self, frames: Frames, reading: trio.CancelScope) -> None:
        try:
            async for frame in self._frames_out:
                await frames.send(frame)
            await frames.finish()
        except PeerGone:
            return  # the reader learns the same, and tells
        reading.cancel()
