"""One kept stream between two peers that carries requests and notices both ways.

A frame is: kind (1 byte), request id (4 bytes, big endian, chosen by the requester, 0 for none),
body. REQUEST is answered by REPLY or REFUSED with its id; NOTICE is not answered; PING is answered
by PONG. The dialer opens with PING; the listener answers PONG, or REFUSED when it has no room.

Rules
- Incoming frames are handed to `on_frame` synchronously, in the order they arrived.
- Nothing here blocks the sender: frames wait in one bounded queue and leave joined, in few writes.
  A queue that overflows, or a write that takes SEND_SECONDS_MAX (the peer does not read), ends
  the session.
- At most SESSION_REQUESTS_MAX requests of the peer wait for our reply; more are REFUSED ("busy").
  So every request must be replied to, sooner or later.
- Silence is answered with a ping after `idle_seconds`, and ends the session after twice that.
- A fault in `on_frame` is ours: it is logged and ends this session, never the host.
"""

from __future__ import annotations

import collections
import struct
from collections.abc import Callable
from typing import Final

import trio

from assay_network.frames import Frames
from assay_network.logs import get_logger
from assay_network.scopes import shielded
from assay_protocol.errors import AssayError, PeerGone, ProtocolError
from assay_protocol.limits import (
    FRAME_BYTES_MAX,
    SESSION_QUEUE_FRAMES_MAX,
    SESSION_REQUESTS_MAX,
)

REQUEST, REPLY, NOTICE, PING, PONG, REFUSED = 1, 2, 3, 4, 5, 6
HEADER: Final = struct.Struct("!BI")
BODY_BYTES_MAX: Final = FRAME_BYTES_MAX - HEADER.size
QUEUE_BYTES_MAX: Final = 8 * FRAME_BYTES_MAX
BATCH_BYTES: Final = 60_000  # what leaves in one write: about one encrypted message
FLUSH_SECONDS_MAX: Final = 1.0
SEND_SECONDS_MAX: Final = 30.0
IDLE_SECONDS: Final = 15.0
_ID_MAX: Final = (1 << 32) - 1

OnFrame = Callable[["Session", int, bytes], None]

log = get_logger("kept_stream")


class Session:
    """One end of a kept stream; made by the functions of session.py."""

    def __init__(self, frames: Frames, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self.peer = frames.peer
        self.closed = trio.Event()
        self._frames = frames
        self._idle_seconds = idle_seconds
        self._queue: collections.deque[bytes] = collections.deque()
        self._queue_bytes = 0
        self._queued = trio.lowlevel.ParkingLot()
        self._flushed = trio.lowlevel.ParkingLot()
        self._writing = False
        self._waiting: dict[int, _Waiter] = {}
        self._unanswered: set[int] = set()
        self._last_id = 0
        self._heard_at = 0.0
        self._scope = trio.CancelScope()

    async def request(self, body: bytes, timeout: float = 15.0) -> bytes:
        """Ask the peer and return its reply.

        Raises PeerGone when the session ends first, AssayError("timeout"), AssayError("busy") when
        the peer refuses or SESSION_REQUESTS_MAX requests are under way,
        ProtocolError("oversized") for a body over BODY_BYTES_MAX.
        """
        if self.closed.is_set():
            raise PeerGone("the session is closed")
        if len(self._waiting) >= SESSION_REQUESTS_MAX:
            raise AssayError("busy", "too many requests are waiting for a reply")
        request_id, waiter = self._new_id(), _Waiter()
        self._waiting[request_id] = waiter
        try:
            self._put(REQUEST, request_id, body)
            with trio.move_on_after(timeout):
                await waiter.done.wait()
        finally:
            del self._waiting[request_id]
        if waiter.reply is not None:
            return waiter.reply
        raise waiter.error or AssayError("timeout")

    def notify(self, body: bytes) -> None:
        """Queue a notice; never blocks. On a closed session it is dropped.

        Raises ProtocolError("oversized").
        """
        self._put(NOTICE, 0, body)

    def reply(self, request_id: int, body: bytes) -> None:
        """Queue the reply to a request; never blocks. A second reply, or one too late, is dropped.

        Raises ProtocolError("oversized").
        """
        if request_id in self._unanswered:
            self._put(REPLY, request_id, body)
            self._unanswered.discard(request_id)

    async def aclose(self) -> None:
        """Send what is queued (at most FLUSH_SECONDS_MAX) and end the session."""
        with shielded(FLUSH_SECONDS_MAX):
            while (self._queue or self._writing) and not self.closed.is_set():
                await self._flushed.park()
        self.end(PeerGone("the session was closed on this side"))

    def end(self, reason: AssayError) -> None:
        """End the session now; what waits for a reply gets `reason`."""
        if self.closed.is_set():
            return
        self.closed.set()
        self._queue.clear()
        self._scope.cancel()
        self._flushed.unpark_all()
        for waiter in self._waiting.values():
            waiter.error = reason
            waiter.done.set()
        log.debug("session_ended", reason=reason.message)

    async def run(self, on_frame: OnFrame) -> None:
        """Carry frames until the session ends. Raises nothing but a cancellation."""
        self._heard_at = trio.current_time()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guard, self._write_loop)
                    nursery.start_soon(self._guard, self._watch_loop)
                    await self._guard(self._read_loop, on_frame)
        finally:
            self.end(PeerGone("the session was cancelled"))

    async def _guard(self, loop: Callable[..., object], *args: object) -> None:
        try:
            await loop(*args)  # type: ignore[misc]  # every loop here is async
        except AssayError as error:
            self.end(error if isinstance(error, PeerGone) else PeerGone(error.message))
        except Exception:
            log.exception("session_failed")
            self.end(PeerGone("a fault of our own"))

    async def _read_loop(self, on_frame: OnFrame) -> None:
        while True:
            frame = await self._frames.receive()
            self._heard_at = trio.current_time()
            if len(frame) < HEADER.size:
                raise ProtocolError("malformed", "a session frame without a header")
            kind, request_id = HEADER.unpack_from(frame)
            self._take(kind, request_id, frame[HEADER.size :], on_frame)
            if self.closed.is_set():
                return

    def _take(self, kind: int, request_id: int, body: bytes, on_frame: OnFrame) -> None:
        if kind == REQUEST:
            if request_id == 0 or request_id in self._unanswered:
                raise ProtocolError("malformed", "a request id in use")
            if len(self._unanswered) >= SESSION_REQUESTS_MAX:
                self._put(REFUSED, request_id, b"")
                return
            self._unanswered.add(request_id)
            on_frame(self, request_id, body)
        elif kind == NOTICE:
            on_frame(self, 0, body)
        elif kind in (REPLY, REFUSED):
            waiter = self._waiting.get(request_id)
            if waiter is not None:  # else it came after its request had timed out
                if kind == REPLY:
                    waiter.reply = body
                else:
                    waiter.error = AssayError("busy", "the peer has too many requests of ours")
                waiter.done.set()
        elif kind == PING:
            self._put(PONG, request_id, b"")
        elif kind != PONG:
            raise ProtocolError("malformed", "an unknown kind of session frame")

    async def _write_loop(self) -> None:
        while True:
            while not self._queue:
                await self._queued.park()
            batch: list[bytes] = []
            size = 0
            while self._queue and (not batch or size + len(self._queue[0]) <= BATCH_BYTES):
                size += len(self._queue[0])
                batch.append(self._queue.popleft())
            self._queue_bytes -= size
            self._writing = True
            with trio.move_on_after(SEND_SECONDS_MAX) as scope:
                await self._frames.send_many(batch)
            if scope.cancelled_caught:
                raise PeerGone("the peer does not read")
            self._writing = False
            self._flushed.unpark_all()

    async def _watch_loop(self) -> None:
        while True:
            await trio.sleep(self._idle_seconds)
            silent_seconds = trio.current_time() - self._heard_at
            if silent_seconds >= 2 * self._idle_seconds:
                raise PeerGone("the peer is silent")
            if silent_seconds >= self._idle_seconds / 2:
                self._put(PING, 0, b"")

    def _put(self, kind: int, request_id: int, body: bytes) -> None:
        if len(body) > BODY_BYTES_MAX:
            raise ProtocolError("oversized", f"a body of {len(body)} bytes")
        if self.closed.is_set():
            return
        full = len(self._queue) >= SESSION_QUEUE_FRAMES_MAX
        if full or self._queue_bytes + len(body) > QUEUE_BYTES_MAX:
            self.end(PeerGone("the peer does not read"))
            return
        self._queue.append(session_frame(kind, request_id, body))
        self._queue_bytes += HEADER.size + len(body)
        self._queued.unpark_all()

    def _new_id(self) -> int:
        while True:
            self._last_id = self._last_id % _ID_MAX + 1
            if self._last_id not in self._waiting:
                return self._last_id


class _Waiter:
    """A request of ours on its way."""

    __slots__ = ("done", "error", "reply")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.reply: bytes | None = None
        self.error: AssayError | None = None


def session_frame(kind: int, request_id: int, body: bytes) -> bytes:
    """The bytes of one session frame."""
    return HEADER.pack(kind, request_id) + body
