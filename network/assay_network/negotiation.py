"""multistream-select 1.0, both sides, over raw bytes.

The dialer writes header, protocol and its first frame in one go and checks the echo when it reads
("lazy", one round trip). The listener answers line by line with hard limits; lines that are not
valid end the stream and nothing else. The stock implementation lets a non-UTF-8 line stop the
whole host.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final, Protocol

from assay_protocol.errors import AssayError, ProtocolError

LINE_BYTES_MAX: Final = 256
LINES_MAX: Final = 16  # protocols one dialer may propose on one stream
_HEADER: Final = b"/multistream/1.0.0\n"
_NOT_AVAILABLE: Final = b"na\n"


class ByteStream(Protocol):
    """What a multiplexed stream offers."""

    async def read(self, n: int | None = None) -> bytes: ...
    async def write(self, data: bytes) -> None: ...
    async def close(self) -> None: ...
    async def reset(self) -> None: ...


def proposal(protocol: str) -> bytes:
    """What a dialer writes before its first frame, and reads back when the peer agrees."""
    return _line(_HEADER) + _line(protocol.encode() + b"\n")


def take_agreement(buffer: bytearray, expected: bytes) -> bool:
    """Remove the listener's answer from `buffer`; False while it is not complete.

    Raises AssayError("unsupported_protocol") for "na", ProtocolError("malformed") for anything
    else.
    """
    if buffer.startswith(expected):
        del buffer[: len(expected)]
        return True
    if expected.startswith(buffer):
        return False
    refusal = _line(_HEADER) + _line(_NOT_AVAILABLE)
    if buffer.startswith(refusal):
        raise AssayError("unsupported_protocol")
    if refusal.startswith(buffer):
        return False
    raise ProtocolError("malformed", "the peer does not speak multistream-select")


async def answer(stream: ByteStream, protocols: Container[str]) -> tuple[str, bytes]:
    """Agree on a protocol with the dialer of `stream`: its name and the bytes that came after it.

    Raises ProtocolError when the dialer proposes nothing we have or writes something else (what it
    is to be told has been written), and whatever the stream raises.
    """
    buffer, replies = bytearray(), bytearray()
    try:
        for number in range(LINES_MAX):
            while (text := _take_line(buffer)) is None:
                await _flush(stream, replies)
                buffer += await stream.read(LINE_BYTES_MAX)
            if number == 0:
                if text != _HEADER.decode().rstrip():
                    raise ProtocolError("malformed", "not a multistream header")
                replies += _line(_HEADER)
                continue
            replies += _line(text.encode() + b"\n" if text in protocols else _NOT_AVAILABLE)
            if text in protocols:
                await _flush(stream, replies)
                return text, bytes(buffer)
        raise ProtocolError("malformed", "too many proposals")
    except ProtocolError:
        # A lazy dialer's first frame comes right behind its proposal and is no line: it still
        # has to read the "na".
        await _flush(stream, replies)
        raise


async def _flush(stream: ByteStream, replies: bytearray) -> None:
    if replies:
        await stream.write(bytes(replies))
        replies.clear()


def _line(text: bytes) -> bytes:
    assert len(text) < 128, "one length byte"
    return bytes([len(text)]) + text


def _take_line(buffer: bytearray) -> str | None:
    """Remove one line; None while incomplete. Raises ProtocolError("malformed")."""
    if not buffer:
        return None
    length, start = buffer[0], 1
    if length & 0x80:  # a two-byte varint is enough for LINE_BYTES_MAX
        if len(buffer) < 2:
            return None
        length, start = (length & 0x7F) | buffer[1] << 7, 2
    if not 0 < length <= LINE_BYTES_MAX or (start == 2 and buffer[1] & 0x80):
        raise ProtocolError("malformed", "a negotiation line of a wrong length")
    if len(buffer) < start + length:
        return None
    line = bytes(buffer[start : start + length])
    del buffer[: start + length]
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise ProtocolError("malformed", "a negotiation line is not text") from None
    if not text.endswith("\n"):
        raise ProtocolError("malformed", "a negotiation line without its end")
    return text[:-1]
