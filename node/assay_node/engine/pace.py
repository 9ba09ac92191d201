"""How fast jobs are getting done, and so when it is worth asking again. Pure."""

from __future__ import annotations

import math
from typing import Final

MEMORY_SECONDS: Final = 30.0  # older tokens hardly count
RATE_ASSUMED: Final = 10.0  # tokens/s, before anything was measured
RETRY_MS_MIN: Final = 100
RETRY_MS_MAX: Final = 60_000


class Pace:
    """Tokens per second while there was work, with exponentially fading memory."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0
        self._last: float | None = None  # None: idle since

    @property
    def rate(self) -> float:
        """Tokens per second, all jobs together."""
        return self._tokens / self._seconds if self._tokens else RATE_ASSUMED

    def begin(self, now: float) -> None:
        """There is work from now on, if there was none."""
        if self._last is None:
            self._last = now

    def drawn(self, tokens: int, now: float) -> None:
        """So many tokens were delivered since the last call."""
        passed = max(0.0, now - (now if self._last is None else self._last))
        fade = math.exp(-passed / MEMORY_SECONDS)
        self._tokens = self._tokens * fade + tokens
        self._seconds = self._seconds * fade + passed
        self._last = now

    def idle(self) -> None:
        """No work is left; time does not count until `begin`."""
        self._last = None

    def retry_after_ms(self, tokens: float) -> int:
        """Milliseconds until `tokens` tokens of others' work are done, within bounds."""
        wait = 1_000 * tokens / max(self.rate, 1e-9)
        return round(min(max(wait, RETRY_MS_MIN), RETRY_MS_MAX))
