"""Stop strings: text is cut before the first of them, however it comes in pieces.

They are text, so they are the client's affair: nodes know tokens. What might be the beginning of a
stop string is held back until it is known not to be one, so nothing given out is ever taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

STOP_STRINGS_MAX: Final = 4
STOP_CHARACTERS_MAX: Final = 256


class StopText:
    """Lets text through up to a stop string: the one that is complete first, from its beginning.

    Of several that are complete at the same character the longest counts. After a match `stopped`
    is true, `stop` is the string, and nothing more comes out. Raises ValueError for more than
    STOP_STRINGS_MAX strings, an empty one, or one longer than STOP_CHARACTERS_MAX.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        if len(stops) > STOP_STRINGS_MAX:
            raise ValueError(f"at most {STOP_STRINGS_MAX} stop strings")
        if not all(0 < len(stop) <= STOP_CHARACTERS_MAX for stop in stops):
            raise ValueError(f"a stop string has 1 to {STOP_CHARACTERS_MAX} characters")
        self._stops = tuple(stops)
        self._held = ""
        self.stop: str | None = None

    @property
    def stopped(self) -> bool:
        return self.stop is not None

    def again(self) -> StopText:
        """The same strings, for text from its beginning."""
        return StopText(self._stops)

    def push(self, text: str) -> str:
        """What of the text so far can be given out now, beyond what was."""
        if not self._stops:
            return text
        if self.stopped:
            return ""
        self._held += text
        found = [
            (at + len(stop), at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0
        ]
        if found:
            _, at, self.stop = min(found)
            return self._give(at)
        return self._give(len(self._held) - self._begun())

    def flush(self) -> str:
        """The rest, at the end of the answer: what was begun was no stop string."""
        return "" if self.stopped else self._give(len(self._held))

    def _give(self, count: int) -> str:
        out, self._held = self._held[:count], self._held[count:]
        return out

    def _begun(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max(map(len, self._stops), default=0) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
