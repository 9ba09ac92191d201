"""Whole messages over a stream: a 4-byte big-endian length, then that many bytes.

Rules
- A frame is at most FRAME_BYTES_MAX; a longer announcement ends the exchange before it is read.
- A stream that ends between two frames ended cleanly (EndOfFrames); anywhere else the peer is gone.
- Large frames are paid for out of a ByteBudget before they are gathered, so many half-sent frames
  cannot fill the memory.
- After a failed or cancelled send the stream holds half a frame: nothing more can be sent on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from assay_network.negotiation import ByteStream, take_agreement
from assay_protocol.errors import AssayError, PeerGone, ProtocolError
from assay_protocol.limits import FRAME_BYTES_MAX

HEADER_BYTES: Final = 4
READ_BYTES: Final = 65_536
UNPAID_BYTES_MAX: Final = 65_536  # frames up to this size need no budget

# What a stream raises when its peer or its connection is gone.
STREAM_FAILURES: Final = (
    BaseLibp2pError,
    OSError,
    EOFError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
)


class EndOfFrames(PeerGone):
    """The peer has sent everything and said so. Where more was due, it is as good as gone."""

    def __init__(self) -> None:
        super().__init__("the peer has finished sending")


class ByteBudget:
    """How many bytes of unfinished frames one peer (and, through `parent`, all peers) may pin."""

    def __init__(self, limit: int, parent: ByteBudget | None = None) -> None:
        self.limit = limit
        self.used = 0
        self._parent = parent

    def take(self, count: int) -> None:
        """Raises AssayError("busy") when it does not fit."""
        if self.used + count > self.limit:
            raise AssayError("busy", "too many large frames are being received")
        if self._parent is not None:
            self._parent.take(count)
        self.used += count

    def give_back(self, count: int) -> None:
        assert 0 <= count <= self.used
        self.used -= count
        if self._parent is not None:
            self._parent.give_back(count)


class Frames:
    """Frames on one stream. One task may send and one may receive at a time.

    `peer` is the authenticated public key (32 bytes) of the other end; `received` are bytes already
    read from the stream; `expect` is the negotiation answer still to come (a lazy dialer's).
    """

    def __init__(
        self,
        stream: ByteStream,
        peer: bytes,
        *,
        received: bytes = b"",
        expect: bytes = b"",
        budget: ByteBudget | None = None,
        frame_bytes_max: int = FRAME_BYTES_MAX,
    ) -> None:
        self.peer = peer
        self.frame_bytes_max = frame_bytes_max
        self.ended = False  # the peer has sent its last byte
        self.finished = False  # we have sent ours
        self._stream = stream
        self._buffer = bytearray(received)
        self._expect = expect
        self._budget = budget
        self._paid = 0
        self._sending = False
        self._broken = False

    async def send(self, frame: bytes) -> None:
        """Send one frame. Raises PeerGone; ProtocolError("oversized") when it is too long."""
        await self._write(self._encode(frame))

    async def send_many(self, frames: Sequence[bytes]) -> None:
        """Send several frames in one write. Raises as `send` does."""
        if frames:
            await self._write(b"".join([self._encode(frame) for frame in frames]))

    async def receive(self, timeout: float | None = None) -> bytes:
        """The next frame, waiting at most `timeout` seconds (None: as long as the caller likes).

        Raises EndOfFrames after the peer's last frame, PeerGone when it was cut off,
        ProtocolError("oversized") for a frame over the limit, AssayError("timeout"),
        AssayError("busy") when the budget is spent, and AssayError("unsupported_protocol").
        """
        if (frame := self._take()) is not None:
            return frame
        if timeout is None:
            return await self._receive()
        with trio.move_on_after(timeout):
            return await self._receive()
        raise AssayError("timeout")

    async def finish(self) -> None:
        """Half close: the peer gets EndOfFrames after what was sent. Raises PeerGone."""
        if not self.finished:
            self.finished = True
            try:
                await self._stream.close()
            except STREAM_FAILURES as error:
                raise PeerGone(f"the stream was cut: {type(error).__name__}") from error

    async def abort(self) -> None:
        """Cut the stream both ways and free what it holds. Never raises, never waits long."""
        self.release()
        with contextlib.suppress(*STREAM_FAILURES):
            await self._stream.reset()

    async def drain(self, bytes_max: int) -> None:
        """Read and drop what still comes until the peer ends, is gone or exceeds `bytes_max`."""
        self.release()
        with contextlib.suppress(*STREAM_FAILURES):
            while bytes_max > 0 and not self.ended:
                try:
                    bytes_max -= len(await self._stream.read(READ_BYTES))
                except MuxedStreamEOF:
                    self.ended = True

    def release(self) -> None:
        """Give back what an unfinished frame had reserved."""
        self._buffer.clear()
        if self._budget is not None and self._paid:
            self._budget.give_back(self._paid)
        self._paid = 0

    def _encode(self, frame: bytes) -> bytes:
        if len(frame) > self.frame_bytes_max:
            raise ProtocolError("oversized", f"a frame of {len(frame)} bytes")
        return len(frame).to_bytes(HEADER_BYTES, "big") + frame

    async def _write(self, data: bytes) -> None:
        assert not self._sending, "one sender at a time"
        if self._broken or self.finished:
            raise PeerGone("the stream was ended on this side")
        self._sending = self._broken = True
        try:
            await self._stream.write(data)
            self._broken = False
        except STREAM_FAILURES as error:
            raise PeerGone(f"the stream was cut: {type(error).__name__}") from error
        finally:
            self._sending = False

    async def _receive(self) -> bytes:
        while True:
            try:
                chunk = await self._stream.read(READ_BYTES)
            except MuxedStreamEOF:
                self._end()
            except STREAM_FAILURES as error:
                raise PeerGone(f"the stream was cut: {type(error).__name__}") from error
            else:
                if not chunk:
                    self._end()
                self._buffer += chunk
            if (frame := self._take()) is not None:
                return frame

    def _end(self) -> None:
        self.ended = True
        if self._buffer or self._expect:
            raise PeerGone("the stream ended inside a frame")
        raise EndOfFrames

    def _take(self) -> bytes | None:
        """Remove one whole frame from the buffer, if it is there."""
        buffer = self._buffer
        if self._expect:
            if not take_agreement(buffer, self._expect):
                return None
            self._expect = b""
        if len(buffer) < HEADER_BYTES:
            return None
        size = int.from_bytes(buffer[:HEADER_BYTES], "big")
        if size > self.frame_bytes_max:
            raise ProtocolError("oversized", f"a frame of {size} bytes is announced")
        if len(buffer) < HEADER_BYTES + size:
            self._pay(size)
            return None
        frame = bytes(buffer[HEADER_BYTES : HEADER_BYTES + size])
        del buffer[: HEADER_BYTES + size]
        if self._paid and self._budget is not None:
            self._budget.give_back(self._paid)
            self._paid = 0
        return frame

    def _pay(self, size: int) -> None:
        if self._budget is not None and not self._paid and size > UNPAID_BYTES_MAX:
            self._budget.take(size)
            self._paid = size
