"""Server-sent events (HTML standard, 9.2.6) out of bytes that come in any pieces, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from assay_protocol.errors import AssayError

EVENT_BYTES_MAX: Final = 1 << 20
EVENT_LINES_MAX: Final = 1_024
EVENTS_MAX: Final = 100_000  # of one stream
LINES_MAX: Final = 4 * EVENTS_MAX  # of one stream: empty ones and comments cost time, too


class EventReader:
    """`feed` it a stream's bytes. An event that is not ended by an empty line is none."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._count = self._lines = 0

    def feed(self, part: bytes) -> Iterator[str]:
        """The data of each event that `part` completes; raises AssayError("oversized")."""
        self._rest += part
        lines: list[bytes] = []
        if b"\n" in part:  # else a long line that comes byte by byte would be copied for each
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
        self._lines += len(lines)
        if self._lines > LINES_MAX:
            raise AssayError("oversized", "too many lines")
        for raw in lines:
            line = raw.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                if len(self._data) > EVENT_LINES_MAX:  # empty lines have no bytes to count
                    raise AssayError("oversized", "an event has too many lines")
            elif not line and self._data:
                yield self._ended()
        if len(self._rest) + sum(map(len, self._data)) > EVENT_BYTES_MAX:
            raise AssayError("oversized", "an event is too large")

    def _ended(self) -> str:
        self._count += 1
        if self._count > EVENTS_MAX:
            raise AssayError("oversized", "too many events")
        data, self._data = b"\n".join(self._data), []
        return data.decode(errors="replace")
