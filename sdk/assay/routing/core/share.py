"""A share of all requests that may cost more: tried again, or hedged.

Every request adds to it, every use takes 1000 times as much as a permille adds; what may be saved
up is bounded. So of any N requests in a row at most N * permille / 1000 + `SAVED_MAX` use it: load
that comes back cannot grow without bound when everything fails at once.
"""

from __future__ import annotations

from typing import Final

SAVED_MAX: Final = 10  # uses
_USE: Final = 1_000


class Share:
    """`permille` of all requests; 0: none, not even those it could begin with."""

    def __init__(self, permille: int) -> None:
        assert 0 <= permille <= 1_000
        self._permille = permille
        self._saved = SAVED_MAX * _USE if permille else 0

    def add(self) -> None:
        """One request came."""
        self._saved = min(SAVED_MAX * _USE, self._saved + self._permille)

    def take(self) -> bool:
        """Use it once, if there is enough."""
        if self._saved < _USE:
            return False
        self._saved -= _USE
        return True
