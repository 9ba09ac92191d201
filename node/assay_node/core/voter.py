"""Which block a bonded node seals: one it executed, that the coordinator asks about, once.

Rules: heights only rise, and what was sealed is on disk before the seal leaves, so this key never
seals two hashes at one height (invariant H2), whatever chain a restored or replaced file leads to.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

HASHES_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class Voted:
    """The highest block this key sealed; number 0: none yet."""

    number: int = 0
    hash: bytes = b""


class Voter:
    """`voted` is what is on disk."""

    def __init__(self, voted: Voted) -> None:
        self.voted = voted
        self._answered = False  # whether the coordinator took the newest vote
        self._executed: OrderedDict[int, bytes] = OrderedDict()

    @property
    def head(self) -> int:
        """The newest block that was executed; 0 before any."""
        return max(self._executed, default=0)

    def executed(self, number: int, block_hash: bytes) -> None:
        """The follower got this hash."""
        self._executed[number] = block_hash
        if len(self._executed) > HASHES_MAX:
            self._executed.popitem(last=False)

    def due(self, target: int | None) -> Voted | None:
        """What to seal now, if anything. Save it before it is sent, then call `sealed`."""
        found = None if target is None else self._executed.get(target)
        if target is None or found is None or target < self.voted.number:
            return None
        if target == self.voted.number:
            again = found == self.voted.hash and not self._answered
            return self.voted if again else None
        return Voted(target, found)

    def sealed(self, voted: Voted) -> None:
        """It is on disk and may be sent, again too."""
        assert voted.number > self.voted.number or voted == self.voted
        if voted != self.voted:
            self.voted, self._answered = voted, False

    def answered(self, number: int) -> None:
        """The coordinator took or refused the vote: it is not sent again."""
        if number == self.voted.number:
            self._answered = True
