"""What happened, event by event: a digest of all of it, and the newest in words.

Two runs with one digest had the same events at the same times with the same bytes. The newest
events are kept so that a violation can show what those involved did last.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Callable, Collection
from typing import Final

KEPT: Final = 20_000  # events, of all parties together
SHOWN: Final = 50
_HEAD: Final = struct.Struct(">qii")
_TOLD_MOST: Final = 1 << 16  # bytes between two updates of the hash
Listener = Callable[[int, int, int, str, bytes], None]  # as `History.note`
_NAMES: Final[dict[str, bytes]] = {}  # of events, encoded


class History:
    """Notes events between parties, which are numbers."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._told = bytearray()  # of events, not hashed yet
        self._newest: deque[tuple[int, int, int, str, bytes]] = deque(maxlen=KEPT)
        self.events = 0
        self.listeners: list[Listener] = []  # told of each event, after it is noted

    def note(self, now: int, source: int, target: int, what: str, detail: bytes = b"") -> None:
        """`detail`: the message's bytes, or what names it."""
        told = self._told
        told += _HEAD.pack(now, source, target)
        told += _NAMES.get(what) or _named(what)
        told += detail
        if len(told) > _TOLD_MOST:
            self._hash.update(told)
            told.clear()
        self._newest.append((now, source, target, what, detail[:24]))
        self.events += 1
        for listener in self.listeners:
            listener(now, source, target, what, detail)

    @property
    def digest(self) -> str:
        whole = self._hash.copy()
        whole.update(self._told)
        return whole.hexdigest()

    def of(self, parties: Collection[int]) -> list[tuple[int, int, int, str, bytes]]:
        """The newest SHOWN events of these; of everybody if nobody is named."""
        found = [e for e in self._newest if not parties or e[1] in parties or e[2] in parties]
        return found[-SHOWN:]


def _named(what: str) -> bytes:
    name = _NAMES[what] = what.encode()
    return name
