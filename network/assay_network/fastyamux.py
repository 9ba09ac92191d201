"""Yamux for py-libp2p at less than half the cost, and safe to cancel.

Wire compatible with /yamux/1.0.0 (stock py-libp2p, go and js). One writer task joins queued frames
into one encrypted message; credit is given in half windows; nothing the application cancels can
damage the connection; a peer that stays silent is noticed by pings. A slow reader only slows its
own stream.

What a peer can make us hold, per connection:
- STREAMS_PER_PEER_MAX streams opened by it (more are reset);
- `buffer_bytes_max` unread bytes over all streams (the stream that goes beyond is reset);
- OUTPUT_BYTES_MAX of answers it does not read (the connection ends).
Whatever breaks the yamux rules ends the connection, never the host.
"""

from __future__ import annotations

import collections
import contextlib
import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from libp2p.abc import IMuxedConn
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream

from assay_network.logs import get_logger
from assay_network.safetcp import mark_authenticated
from assay_network.scopes import shielded
from assay_network.yamux_stream import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    PING,
    RST,
    SYN,
    WINDOW_BYTES,
    WINDOW_UPDATE,
    FastStream,
)
from assay_protocol.limits import STREAMS_PER_PEER_MAX

BUFFER_BYTES_MAX: Final = 8 * 1024 * 1024
OUTPUT_BYTES_HIGH: Final = 512 * 1024  # application writes wait beyond this
OUTPUT_BYTES_MAX: Final = 2 * 1024 * 1024  # a peer that lets answers pile up to here is dropped
MESSAGE_BYTES: Final = 65_519  # the largest plain text of one Noise message
PING_SECONDS: Final = 15.0
DEAD_SECONDS: Final = 40.0
WRITE_SECONDS_MAX: Final = 30.0
FLUSH_SECONDS_MAX: Final = 0.25
CLOSE_SECONDS_MAX: Final = 2.0
_NORMAL, _PROTOCOL_ERROR = 0, 1  # GO_AWAY codes

log = get_logger("fastyamux")
OnClose = Callable[[], Awaitable[None] | None]


class _RuleBroken(Exception):
    """The peer's bytes are not yamux."""


class FastYamux(IMuxedConn):  # type: ignore[misc]  # libp2p is untyped
    """A multiplexed connection over anything with read, write and close (Noise, a memory pipe)."""

    def __init__(
        self,
        secured_conn: Any,
        peer_id: Any,
        is_initiator: bool | None = None,
        on_close: OnClose | None = None,
        *,
        ping_seconds: float = PING_SECONDS,
        dead_seconds: float = DEAD_SECONDS,
        buffer_bytes_max: int = BUFFER_BYTES_MAX,
    ) -> None:
        initiator = secured_conn.is_initiator if is_initiator is None else is_initiator
        self.secured_conn = secured_conn
        self.peer_id = peer_id
        self.on_close = on_close
        self.buffer_bytes_max = buffer_bytes_max
        self.buffered_bytes = 0
        self.streams: dict[int, FastStream] = {}
        self.idle_at: float | None = None  # since when it has had no stream; None: it has one
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.event_shutting_down = trio.Event()
        self.output_room = trio.lowlevel.ParkingLot()
        self._initiator = bool(initiator)
        self._next_id = 1 if initiator else 2
        self._inbound = 0
        self._output: collections.deque[bytes] = collections.deque()
        self._output_bytes = 0
        self._output_ready = trio.lowlevel.ParkingLot()
        self._output_sent = trio.lowlevel.ParkingLot()
        self._offer, self._accept = trio.open_memory_channel[FastStream](STREAMS_PER_PEER_MAX)
        self._ping_seconds = ping_seconds
        self._dead_seconds = dead_seconds
        self._heard_at = 0.0
        self._pinged_at = math.inf
        self._rtt = 0.0
        self._scope = trio.CancelScope()

    @property
    def is_initiator(self) -> bool:
        return self._initiator

    @property
    def is_closed(self) -> bool:
        return self.event_closed.is_set()

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self.event_shutting_down.is_set()

    @property
    def output_full(self) -> bool:
        """Application writes wait while this is true."""
        return self._output_bytes >= OUTPUT_BYTES_HIGH

    def rtt(self) -> float:
        """Seconds the last ping took; 0.0 before the first."""
        return self._rtt

    def get_transport_addresses(self) -> Any:
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> Any:
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> Any:
        return self.secured_conn.get_remote_address()

    async def start(self) -> None:
        """Run the connection until it ends. Returns, whatever ended it."""
        self._heard_at = self.idle_at = trio.current_time()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_loop)
                    nursery.start_soon(self._ping_loop)
                    self.event_started.set()
                    await self._read_loop()
                    nursery.cancel_scope.cancel()
        except* Exception as group:
            log.debug("connection_ended", reason=repr(group.exceptions[0]))
        finally:
            with trio.CancelScope(shield=True):
                await self._teardown()

    async def close(self, code: int = _NORMAL) -> None:
        """Say good-bye, flush for at most FLUSH_SECONDS_MAX, end every stream."""
        if self.event_shutting_down.is_set():
            return
        self.enqueue(HEADER.pack(0, GO_AWAY, 0, 0, code))
        self.event_shutting_down.set()
        with shielded(FLUSH_SECONDS_MAX):
            while self._output and self.event_started.is_set() and not self.is_closed:
                await self._output_sent.park()
        await self._teardown()

    async def open_stream(self) -> FastStream:
        """A new stream at once; the peer learns of it with the first frame.

        Raises MuxedConnUnavailable when the connection is over or STREAMS_PER_PEER_MAX are open.
        """
        await trio.lowlevel.checkpoint()
        if self.event_shutting_down.is_set():
            raise MuxedConnUnavailable("connection closed")
        if len(self.streams) - self._inbound >= STREAMS_PER_PEER_MAX:
            raise MuxedConnUnavailable("too many open streams")
        stream_id, self._next_id = self._next_id, self._next_id + 2
        stream = self.streams[stream_id] = FastStream(stream_id, self, initiator=True)
        self.idle_at = None
        self.enqueue(HEADER.pack(0, WINDOW_UPDATE, SYN, stream_id, 0))
        return stream

    async def accept_stream(self) -> FastStream:
        """The next stream the peer opened. Raises MuxedConnUnavailable when the connection ends."""
        try:
            return await self._accept.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise MuxedConnUnavailable("connection closed") from None

    def enqueue(self, frame: bytes) -> None:
        """Queue one frame for the writer task; never waits. A dying connection takes none."""
        if self.event_shutting_down.is_set():
            return
        self._output.append(frame)
        self._output_bytes += len(frame)
        self._output_ready.unpark_all()

    def forget(self, stream: FastStream) -> None:
        """A stream has ended in both directions."""
        if self.streams.pop(stream.stream_id, None) is not None and not stream.is_initiator:
            self._inbound -= 1
        if not self.streams:
            self.idle_at = trio.current_time()

    async def _write_loop(self) -> None:
        while True:
            while not self._output:
                await self._output_ready.park()
            message = self._next_message()
            with trio.move_on_after(WRITE_SECONDS_MAX) as scope:
                await self.secured_conn.write(message)
            if scope.cancelled_caught:
                raise TimeoutError("the peer does not read")
            self._output_sent.unpark_all()
            if not self.output_full:
                self.output_room.unpark_all()

    def _next_message(self) -> bytes:
        """Join queued frames up to one Noise message: each costs one encryption and one send."""
        output = self._output
        if len(output) == 1:
            message = output.popleft()
        else:
            frames: list[bytes] = []
            size = 0
            while output and (not frames or size + len(output[0]) <= MESSAGE_BYTES):
                size += len(output[0])
                frames.append(output.popleft())
            message = b"".join(frames)
        self._output_bytes -= len(message)
        return message

    async def _ping_loop(self) -> None:
        number = 0
        while self._ping_seconds < math.inf:
            await trio.sleep(self._ping_seconds)
            if trio.current_time() - self._heard_at > self._dead_seconds:
                raise TimeoutError("the peer is silent")
            number = (number + 1) & 0xFFFFFFFF
            self._pinged_at = trio.current_time()
            self.enqueue(HEADER.pack(0, PING, SYN, 0, number))

    async def _read_loop(self) -> None:
        buffer = bytearray()
        try:
            while data := await self.secured_conn.read(None):
                self._heard_at = trio.current_time()
                buffer += data
                if not self._take_frames(buffer):
                    return
                if self._output_bytes > OUTPUT_BYTES_MAX:
                    raise _RuleBroken("the peer asks and does not read the answers")
        except _RuleBroken:
            # Best effort: the writer may still get this out while close() flushes.
            await self.close(_PROTOCOL_ERROR)
            raise

    def _take_frames(self, buffer: bytearray) -> bool:
        """Handle every whole frame in the buffer; False when the peer said good-bye."""
        position, end = 0, len(buffer)
        while end - position >= HEADER.size:
            version, kind, flags, stream_id, length = HEADER.unpack_from(buffer, position)
            if version != 0 or kind > GO_AWAY:
                raise _RuleBroken("not a yamux frame")
            position += HEADER.size
            if kind == DATA:
                if length > WINDOW_BYTES:
                    raise _RuleBroken("a data frame larger than any window")
                if end - position < length:
                    position -= HEADER.size
                    break
                body = bytes(buffer[position : position + length])
                position += length
                self._on_stream_frame(kind, flags, stream_id, length, body)
            elif kind == WINDOW_UPDATE:
                self._on_stream_frame(kind, flags, stream_id, length, b"")
            elif kind == PING:
                self._on_ping(flags, length)
            else:
                return False
        del buffer[:position]
        return True

    def _on_ping(self, flags: int, number: int) -> None:
        if flags & SYN:
            self.enqueue(HEADER.pack(0, PING, ACK, 0, number))
        elif self._pinged_at < math.inf:
            self._rtt = trio.current_time() - self._pinged_at

    def _on_stream_frame(
        self, kind: int, flags: int, stream_id: int, length: int, body: bytes
    ) -> None:
        stream = self.streams.get(stream_id)
        if stream is None and flags & SYN:
            stream = self._admit(stream_id)
        if stream is None:
            if kind == DATA and not flags & (SYN | FIN | RST):
                self._refuse(stream_id)  # a stream we have reset; its sender has not heard yet
            return
        if kind == WINDOW_UPDATE:
            if not stream.on_credit(length):
                raise _RuleBroken("window overflow")
        elif not stream.on_data(body):
            raise _RuleBroken("window overrun")
        elif self.buffered_bytes > self.buffer_bytes_max:
            self._refuse(stream_id)
            stream.on_overflow()
            return
        if flags & (FIN | RST):
            stream.on_end(reset=bool(flags & RST))

    def _admit(self, stream_id: int) -> FastStream | None:
        """Accept a stream the peer opens, or refuse it when it has too many."""
        ours = stream_id % 2 == (1 if self._initiator else 0)
        if stream_id == 0 or ours:
            raise _RuleBroken("a stream id that is not the peer's to use")
        stream = FastStream(stream_id, self, initiator=False)
        if self._inbound >= STREAMS_PER_PEER_MAX:
            self._refuse(stream_id)
            return None
        try:
            self._offer.send_nowait(stream)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._refuse(stream_id)
            return None
        self.streams[stream_id] = stream
        self.idle_at = None
        self._inbound += 1
        self.enqueue(HEADER.pack(0, WINDOW_UPDATE, ACK, stream_id, 0))
        return stream

    def _refuse(self, stream_id: int) -> None:
        self.enqueue(HEADER.pack(0, WINDOW_UPDATE, RST, stream_id, 0))

    async def _teardown(self) -> None:
        """End every stream and close the socket, once, whatever goes wrong on the way."""
        if self.event_closed.is_set():
            return
        for event in (self.event_shutting_down, self.event_closed, self.event_started):
            event.set()
        self._scope.cancel()
        for stream in list(self.streams.values()):
            stream.on_end(reset=True)
        self._output.clear()
        for lot in (self.output_room, self._output_sent):
            lot.unpark_all()
        self._offer.close()
        # Shielded: a cancellation here would leave the swarm believing the connection lives.
        with shielded(CLOSE_SECONDS_MAX):
            with contextlib.suppress(Exception):
                await self.secured_conn.close()
            with contextlib.suppress(Exception):
                result = self.on_close() if self.on_close is not None else None
                if inspect.isawaitable(result):
                    await result


class FastMuxer(MuxerMultistream):  # type: ignore[misc]  # libp2p is untyped
    """Negotiates /yamux/1.0.0 and builds the class it was given (stock ignores that choice)."""

    async def new_conn(self, conn: Any, peer_id: Any) -> Any:
        socket = mark_authenticated()
        protocol, muxer = await self._selector.select(
            conn, conn.is_initiator, self.negotiate_timeout
        )
        muxed = muxer(conn, peer_id, is_initiator=conn.is_initiator)
        if socket is not None:
            socket.muxed = muxed
        return self._annotate_connection(muxed, conn, protocol)


class StockMuxer(MuxerMultistream):  # type: ignore[misc]  # libp2p is untyped
    """The stock muxer, told apart from a silent socket by the listener."""

    async def new_conn(self, conn: Any, peer_id: Any) -> Any:
        mark_authenticated()
        return await super().new_conn(conn, peer_id)
