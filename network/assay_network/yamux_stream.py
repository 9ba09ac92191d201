"""One stream of a FastYamux connection: bytes in order, credit both ways, half close and reset.

All operations are cancel-safe: a cancelled `read` or `write` takes nothing out of the buffer and
leaves no half frame on the wire. What a peer may make us hold is bounded by the window of each
stream and by the connection's budget over all of them (`FastYamux.buffer_bytes_max`).
"""

from __future__ import annotations

import struct
from types import TracebackType
from typing import TYPE_CHECKING, Final

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset

from assay_network.bell import Bell

if TYPE_CHECKING:
    from assay_network.fastyamux import FastYamux

# The yamux frame header: version, type, flags, stream id, length (hashicorp/yamux spec.md).
HEADER: Final = struct.Struct("!BBHII")
DATA, WINDOW_UPDATE, PING, GO_AWAY = 0, 1, 2, 3
SYN, ACK, FIN, RST = 1, 2, 4, 8

# The window the specification gives every stream. We never grant more: it already holds what a
# 20 Mbit/s link carries in 100 ms, and it is what a hostile peer can make us buffer per stream.
WINDOW_BYTES: Final = 256 * 1024
WINDOW_BYTES_MAX: Final = (1 << 32) - 1
# One data frame and its header fill one Noise message (65,519 bytes of plain text) with room to
# spare.
DATA_BYTES_MAX: Final = 64_000


class FastStream(IMuxedStream):  # type: ignore[misc]  # libp2p is untyped
    """A yamux stream; made by FastYamux only."""

    def __init__(self, stream_id: int, connection: FastYamux, *, initiator: bool) -> None:
        self.stream_id = stream_id
        self.muxed_conn = connection
        self.is_initiator = initiator
        self.closed = False  # both directions ended: the connection no longer knows the stream
        self._connection = connection
        self._buffer = bytearray()
        self._reader = Bell()
        self._writers = trio.lowlevel.ParkingLot()
        self._receive_ended = False
        self._send_ended = False
        self._was_reset = False
        self._send_window = WINDOW_BYTES
        self._receive_window = WINDOW_BYTES
        self._consumed = 0  # bytes read since the last credit we gave

    async def read(self, n: int | None = None) -> bytes:
        """Between 1 and `n` bytes; for one task at a time.

        Raises MuxedStreamEOF at the end, MuxedStreamReset when cut.
        """
        buffer = self._buffer
        if buffer:  # else waiting is the checkpoint: one switch of tasks for a frame, not two
            await trio.lowlevel.checkpoint()
        while not buffer:
            if self._was_reset:
                raise MuxedStreamReset("stream reset")
            if self._receive_ended:
                raise MuxedStreamEOF("end of stream")
            await self._reader.wait()
        count = len(buffer) if n is None or n < 0 or n > len(buffer) else n
        data = bytes(buffer[:count])
        del buffer[:count]
        self._connection.buffered_bytes -= count
        self._give_credit(count)
        return data

    async def write(self, data: bytes) -> None:
        """Queue all of `data`, as fast as the peer's window and our output queue allow.

        Raises MuxedStreamReset when the stream is cut, MuxedStreamError after `close`.
        """
        await trio.lowlevel.checkpoint()
        connection, view, offset = self._connection, memoryview(data), 0
        while offset < len(view):
            await self._writable()
            count = min(len(view) - offset, self._send_window, DATA_BYTES_MAX)
            self._send_window -= count
            header = HEADER.pack(0, DATA, 0, self.stream_id, count)
            connection.enqueue(header + view[offset : offset + count])
            offset += count

    async def close(self) -> None:
        """Half close: we send no more; the peer may."""
        if not self._send_ended and not self._was_reset:
            self._send_ended = True
            self._connection.enqueue(HEADER.pack(0, WINDOW_UPDATE, FIN, self.stream_id, 0))
            self._settle()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def reset(self) -> None:
        """Cut both directions at once and drop what was not read. Never raises."""
        if not self._was_reset and not self.closed:
            self._connection.enqueue(HEADER.pack(0, WINDOW_UPDATE, RST, self.stream_id, 0))
        self._was_reset = True
        self._connection.buffered_bytes -= len(self._buffer)
        self._buffer.clear()
        self._settle()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def set_deadline(self, ttl: int) -> bool:
        raise NotImplementedError("use trio's cancel scopes")

    def get_remote_address(self) -> tuple[str, int] | None:
        address: tuple[str, int] | None = self._connection.get_remote_address()
        return address

    async def __aenter__(self) -> FastStream:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # What the connection's reader calls, in the order of arrival.

    def on_data(self, body: bytes) -> bool:
        """Take a data frame; False when the peer sent more than we had granted."""
        self._receive_window -= len(body)
        if self._receive_window < 0:
            return False
        if not self._was_reset and not self._receive_ended:
            self._buffer += body
            self._connection.buffered_bytes += len(body)
            self._reader.ring()
        return True

    def on_credit(self, count: int) -> bool:
        """Take a window update; False when the window would exceed what the wire can express."""
        self._send_window += count
        self._writers.unpark_all()
        return self._send_window <= WINDOW_BYTES_MAX

    def on_end(self, *, reset: bool) -> None:
        """The peer half closed, or the stream was cut (data already here stays readable)."""
        if reset:
            self._was_reset = True
        else:
            self._receive_ended = True
        self._settle()

    def on_overflow(self) -> None:
        """The peer filled the connection's budget: the stream is cut and its bytes are dropped."""
        self._connection.buffered_bytes -= len(self._buffer)
        self._buffer.clear()
        self.on_end(reset=True)

    async def _writable(self) -> None:
        while True:
            if self._was_reset:
                raise MuxedStreamReset("stream reset")
            if self._send_ended:
                raise MuxedStreamError("closed for sending")
            if self._send_window <= 0:
                await self._writers.park()
            elif self._connection.output_full:
                await self._connection.output_room.park()
            else:
                return

    def _give_credit(self, count: int) -> None:
        """Grant what was consumed, in half windows: one small frame per 128 KiB, no await."""
        self._consumed += count
        if self._consumed < WINDOW_BYTES // 2 or self._receive_ended or self._was_reset:
            return
        update = HEADER.pack(0, WINDOW_UPDATE, 0, self.stream_id, self._consumed)
        self._connection.enqueue(update)
        self._receive_window += self._consumed
        self._consumed = 0

    def _settle(self) -> None:
        if self._was_reset or (self._receive_ended and self._send_ended):
            self.closed = True
            self._connection.forget(self)
        self._reader.ring()
        self._writers.unpark_all()
