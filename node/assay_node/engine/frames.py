"""The pipe between a node and its engine's process: frames of 4-byte length and msgpack.

The child is ours, but it runs a C library over files of strangers: what it sends is bounded and
checked like any peer's.
"""

from __future__ import annotations

from typing import Final

import msgpack

from assay_protocol.errors import AssayError

FRAME_BYTES_MAX: Final = 64 << 20
_LENGTH_BYTES: Final = 4


def frame(*fields: object) -> bytes:
    """One frame: a msgpack array of plain values."""
    body: bytes = msgpack.packb(fields)
    assert len(body) <= FRAME_BYTES_MAX
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


class Deframer:
    """Bytes in any pieces to whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[list[object]]:
        """The frames completed by `data`; raises AssayError("engine_failed") if it is not ours."""
        self._buffer += data
        frames: list[list[object]] = []
        while len(self._buffer) >= _LENGTH_BYTES:
            end = int.from_bytes(self._buffer[:_LENGTH_BYTES], "little") + _LENGTH_BYTES
            if end > FRAME_BYTES_MAX + _LENGTH_BYTES:
                raise AssayError("engine_failed", "the engine's pipe is garbled")
            if len(self._buffer) < end:
                break
            frames.append(_unpack(bytes(self._buffer[_LENGTH_BYTES:end])))
            del self._buffer[:end]
        return frames


def _unpack(body: bytes) -> list[object]:
    try:
        fields = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException):
        fields = None
    if not isinstance(fields, list) or not fields:
        raise AssayError("engine_failed", "the engine's pipe is garbled")
    return fields
